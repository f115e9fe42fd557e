"""What a prediction costs, in microseconds a request."""

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from importlib import import_module

import numpy as np

from lengthpred.base import Predictor, Request

__all__ = ["COST_METRICS", "measure"]

COST_METRICS = ("us_per_request_p50", "us_per_request_p99", "us_per_request_batch64")
CALLS, BATCHES, BATCH, SECONDS = 500, 20, 64, 1.0


def measure(predictor: Predictor, requests: Sequence[Request]) -> dict[str, tuple[float, int]]:
    """Each metric of COST_METRICS with the number of calls behind it.

    At batch 1 the median and the 99th percentile of single calls, at batch 64 the median of
    batches over 64. Warmed up first; numpy's and scikit-learn's threads are held at one. Each of
    the two takes about a second at most, so a dear predictor gets fewer calls.
    """
    asked = list(requests) or [Request(prompt="hello")]
    with _one_thread():
        _timed(predictor, [[asked[i % len(asked)]] for i in range(10)], SECONDS / 4)
        single = _timed(predictor, [[asked[i % len(asked)]] for i in range(CALLS)], SECONDS)
        packs = [[asked[(i + j) % len(asked)] for j in range(BATCH)] for i in range(BATCHES)]
        packed = _timed(predictor, packs, SECONDS) / BATCH
    return {
        "us_per_request_p50": (float(np.median(single)), len(single)),
        "us_per_request_p99": (float(np.quantile(single, 0.99)), len(single)),
        "us_per_request_batch64": (float(np.median(packed)), len(packed)),
    }


def _timed(
    predictor: Predictor, batches: Sequence[Sequence[Request]], seconds: float
) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    """Microseconds of each call, until `seconds` are spent; one call at least."""
    taken: list[float] = []
    until = time.perf_counter() + seconds
    for batch in batches:
        start = time.perf_counter()
        predictor.predict(batch)
        end = time.perf_counter()
        taken.append((end - start) * 1e6)
        if end > until:
            break
    return np.array(taken)


def _one_thread() -> AbstractContextManager[object]:
    try:
        threads = import_module("threadpoolctl")
    except ModuleNotFoundError:  # it comes with scikit-learn
        return nullcontext()
    limited: AbstractContextManager[object] = threads.threadpool_limits(1)
    return limited
