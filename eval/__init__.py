"""Comparison of predictors."""
