"""Predictors on the Hugging Face hub: named as `org/name` or `org/name@revision`."""
