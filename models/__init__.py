"""Predictors and detectors: what is loaded and asked at serving time."""
