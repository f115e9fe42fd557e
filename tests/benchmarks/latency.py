"""Microseconds a request, on one core at batch 1 and 64, each predictor in a process of its own.

    python -m tests.benchmarks.latency TABLE ARTIFACT...

Times are of this machine and move with its load: the ratio to the histogram, from the same run,
is what can be compared.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lengthpred.base import Predictor, Request

ROWS = 3_000
WIDTHS = (8, 8, 8, 10)
CODE = "from tests.benchmarks.latency import worker; worker()"


def main() -> None:
    """Read the arguments, run a process for each artifact, print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("table", type=Path)
    parser.add_argument("artifacts", type=Path, nargs="+")
    arguments = parser.parse_args()
    one_thread = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    base = None
    print(f"{'artifact':<24}{'p50':>8}{'mean':>8}{'p99':>8}{'batch 64':>10}{'ratio':>8}")
    for artifact in arguments.artifacts:
        done = subprocess.run(
            [sys.executable, "-c", CODE, str(arguments.table), str(artifact)],
            env=os.environ | one_thread,
            capture_output=True,
            text=True,
            check=True,
        )
        times = json.loads(done.stdout)
        base = base or times[0]
        line = "".join(f"{value:>{width}.1f}" for value, width in zip(times, WIDTHS, strict=True))
        print(f"{artifact.name:<24}{line}{times[0] / base:>8.1f}")


def worker() -> None:
    """Time one artifact on the rows of a table; prints JSON."""
    from lengthpred import load
    from lengthpred.data.table import Table

    table, artifact = sys.argv[1:]
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    predictor = load(artifact)
    requests = Table(table).rows(ROWS).requests
    predictor.predict(requests[:100])  # what is read on first use is read now
    alone = [_timed(predictor, [request]) for request in requests]
    batches = [requests[i : i + 64] for i in range(0, len(requests) - 63, 64)]
    together = [_timed(predictor, batch) / 64 for batch in batches]
    values = (np.median(alone), np.mean(alone), np.percentile(alone, 99), np.median(together))
    print(json.dumps([float(value) for value in values]))


def _timed(predictor: Predictor, requests: Sequence[Request]) -> float:
    """Microseconds of one call."""
    begun = time.perf_counter()
    predictor.predict(requests)
    return (time.perf_counter() - begun) * 1e6


if __name__ == "__main__":
    main()
