"""What a prediction costs, in microseconds a request.

A predictor that can be saved is loaded and timed in a process of its own, held to one thread, so
that none profits or suffers from what another left behind: warm caches, threads that spin, memory
in pieces. `python -m lengthpred.eval.cost ARTIFACT` is that process: requests come in on stdin and
times go out on stdout, both as JSON.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import TypeGuard

import numpy as np

from lengthpred.artifact import Storable, load
from lengthpred.base import Predictor, Request
from lengthpred.errors import ArtifactError, LengthPredError
from lengthpred.registry import resolve

__all__ = ["COST_METRICS", "can_be_measured_apart", "measure", "measure_apart", "measure_best"]

COST_METRICS = (
    "us_per_request_p50",
    "us_per_request_p99",
    "us_per_request_batch64",
    "us_per_request_batch64_p99",
)
CALLS, BATCHES, BATCH, SECONDS = 500, 100, 64, 1.0
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "VECLIB_MAXIMUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "OMP_WAIT_POLICY": "PASSIVE",
}

Costs = dict[str, tuple[float, int]]


def can_be_measured_apart(predictor: object) -> TypeGuard[Storable]:
    """Whether another process can load what `predictor` saves."""
    if not isinstance(predictor, Storable):
        return False
    try:
        return issubclass(type(predictor), resolve(predictor.kind))
    except (ArtifactError, AttributeError):
        return False


def measure_best(name: str, predictor: Predictor, requests: Sequence[Request]) -> Costs:
    """As `measure`, in a process of its own wherever the predictor can be saved."""
    if can_be_measured_apart(predictor):
        return measure_apart(name, predictor, requests)
    return measure(predictor, requests)


def measure_apart(name: str, predictor: Storable, requests: Sequence[Request]) -> Costs:
    """As `measure`, in a fresh process that loads the predictor from a temporary folder.

    Raises LengthPredError, with the last words of the process, when that one fails.
    """
    asked = json.dumps([asdict(request) for request in _spread(requests)])
    # The modules that are found here must be found there, and none of the working folder's own.
    found = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with tempfile.TemporaryDirectory(prefix="lengthpred-cost-") as folder:
        saved = predictor.save(Path(folder, "artifact"))
        done = subprocess.run(
            [sys.executable, "-P", "-m", "lengthpred.eval.cost", str(saved)],
            input=asked,
            capture_output=True,
            text=True,
            env={**os.environ, **ONE_THREAD, **found},
        )
    if done.returncode:
        words = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise LengthPredError(
            f"the process that timed {name} ended early ({words[-1]}): add --no-cost to evaluate "
            "without costs"
        )
    return {metric: (us, calls) for metric, (us, calls) in json.loads(done.stdout).items()}


def measure(predictor: Predictor, requests: Sequence[Request]) -> Costs:
    """Each metric of COST_METRICS with the number of calls behind it.

    Median and 99th percentile of calls with one request, and of a request in calls with 64. At
    most 500 requests are asked, spread over all. Warmed up first; numpy's and scikit-learn's
    threads are held at one. Each of the two takes about a second at most, so a dear predictor
    gets fewer calls.
    """
    asked = _spread(requests)
    with _one_thread():
        _timed(predictor, _packs(asked, 1, 10), SECONDS / 4)
        single = _timed(predictor, _packs(asked, 1, CALLS), SECONDS)
        packed = _timed(predictor, _packs(asked, BATCH, BATCHES), SECONDS) / BATCH
    return {
        "us_per_request_p50": (float(np.median(single)), len(single)),
        "us_per_request_p99": (float(np.quantile(single, 0.99)), len(single)),
        "us_per_request_batch64": (float(np.median(packed)), len(packed)),
        "us_per_request_batch64_p99": (float(np.quantile(packed, 0.99)), len(packed)),
    }


def _spread(requests: Sequence[Request]) -> list[Request]:
    """At most CALLS requests, evenly over all: tables are often sorted by where rows are from.

    In a seeded order, since a dear predictor is asked the first ones only.
    """
    if not requests:
        return [Request(prompt="hello")]
    places = np.linspace(0, len(requests) - 1, min(CALLS, len(requests))).astype(int)
    return [requests[place] for place in np.random.default_rng(0).permutation(places)]


def _packs(asked: Sequence[Request], size: int, count: int) -> list[list[Request]]:
    """So many batches, each of the next `size` requests, over and over."""
    return [
        [asked[(start + i) % len(asked)] for i in range(size)]
        for start in range(0, size * count, size)
    ]


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


def _main() -> None:
    """Time the artifact that is named on the command line."""
    fields = json.load(sys.stdin)
    requests = [Request(**{**one, "reply_tokens": tuple(one["reply_tokens"])}) for one in fields]
    costs = measure(load(sys.argv[1]), requests)
    sys.stdout.write(json.dumps(costs))


if __name__ == "__main__":
    _main()
