"""When requests arrive."""

import numpy as np

from lengthpred.base import FloatArray
from lengthpred.errors import DataError, SettingsError, did_you_mean

__all__ = ["ARRIVALS", "BURSTINESS", "arrive", "recorded"]

ARRIVALS = ("burst", "poisson", "bursty", "trace")
BURSTINESS = 0.25


def arrive(
    kind: str,
    n: int,
    rate: float | None,
    rng: np.random.Generator,
    *,
    burstiness: float = BURSTINESS,
) -> FloatArray:
    """Arrival times of n requests, float64 (n,), rising, in seconds.

    burst    all at 0
    poisson  `rate` a second on average, gaps exponential
    bursty   the same rate, gaps gamma with shape `burstiness` (as in `vllm bench serve`: below 1
             they come in bursts)

    Recorded ones are those of `recorded`. Raises SettingsError for an unknown kind or a rate that
    is not above 0.
    """
    if kind not in ARRIVALS:
        raise SettingsError(f"'{kind}' is no kind of arrivals. {did_you_mean(kind, ARRIVALS)}")
    if kind == "burst":
        return np.zeros(n)
    if rate is None or not 0 < rate < np.inf:
        raise SettingsError(f"arrivals need a rate above 0 requests a second, not {rate}")
    if not burstiness > 0:
        raise SettingsError(f"the burstiness must be above 0, not {burstiness:g}")
    shape = burstiness if kind == "bursty" else 1.0
    arrivals: FloatArray = np.cumsum(rng.gamma(shape, 1 / (rate * shape), n))
    return arrivals


def recorded(arrival_s: FloatArray, rate: float | None) -> FloatArray:
    """Recorded times (n,) from 0 on, at another mean rate where one is given.

    Raises DataError where a time is missing, they do not rise, or all are the same and a rate is
    asked for.
    """
    if not len(arrival_s) or np.isnan(arrival_s).any() or (np.diff(arrival_s) < 0).any():
        raise DataError(
            "recorded arrivals need a column arrival_s that is there and rises: choose other "
            "--arrivals, or sort the table"
        )
    times: FloatArray = arrival_s - arrival_s[0]
    if rate is None:
        return times
    if times[-1] <= 0:
        raise DataError("all recorded arrivals are at one time, so they cannot have a rate")
    scaled: FloatArray = times * ((len(times) - 1) / rate / times[-1])
    return scaled
