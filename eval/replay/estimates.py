"""Means over draws and their intervals."""

from collections.abc import Sequence
from math import exp, sqrt

import numpy as np

from lengthpred.errors import require

__all__ = ["Estimate", "mean_of", "ratio_of"]

Estimate = tuple[float, float | None, float | None]


def mean_of(values: Sequence[float], strata: int = 1) -> Estimate:
    """The mean over draws and its 95 % interval by Student's t; a single draw has none.

    With `strata`, draw i is of stratum i modulo their number: the mean of the strata's means, and
    the interval of that mean for these very strata, from the spread within them.
    """
    parts = [np.asarray(values[i::strata], np.float64) for i in range(min(strata, len(values)))]
    value = float(np.mean([part.mean() for part in parts]))
    freedom = len(values) - len(parts)
    if freedom < 1:
        return value, None, None
    # scipy.stats has the same and takes over a second to load.
    special = require("scipy.special", "train", "An interval over draws")
    spread = sum(float(((part - part.mean()) ** 2).sum()) for part in parts) / freedom
    error = sqrt(spread * sum(1 / len(part) for part in parts)) / len(parts)
    half = float(special.stdtrit(freedom, 0.975)) * error
    return value, value - half, value + half


def ratio_of(ratios: Sequence[float], strata: int = 1) -> Estimate:
    """The same of logarithms: a ratio is never below 0, and half is as far from 1 as double."""
    value, low, high = mean_of(np.log(ratios).tolist(), strata)
    return exp(value), None if low is None else exp(low), None if high is None else exp(high)
