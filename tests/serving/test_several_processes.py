"""The metrics of a server of several processes, collected as vLLM does for its API servers."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

# prometheus_client looks for the folder when it is imported: each has a process of its own.
CODE = """
import json, os, sys
import numpy as np
from lengthpred import LengthDistribution, LengthGrid
from lengthpred.serving.metrics import ServingMetrics

told = json.loads(sys.argv[1])
metrics = ServingMetrics()
for place, calls in told["calls"].items():
    metrics.calls.labels(place).inc(calls)
for seconds in told["seconds"]:
    metrics.seconds.observe(seconds)
metrics.pending.set(told["pending"])
grid = LengthGrid()
longer = np.eye(grid.bins, dtype=np.float32)[: len(told["lengths"])]
dists = [LengthDistribution(grid, row[None]) for row in longer]
metrics.observe(dists, told["lengths"], [False] * len(dists))
print(os.getpid())
"""
MEASURED = ("lengthpred_tau", "lengthpred_coverage_80", "lengthpred_mean_absolute_error")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What all of them write to; vLLM makes one where there is more than one API server."""
    return tmp_path_factory.mktemp("metrics")


@pytest.fixture(scope="module")
def processes(folder: Path) -> list[str]:
    """The ids of three: one predicts the right order, one the wrong one, the last came just now."""
    return [
        serve(folder, {"predicted": 3, "late": 1}, [0.0001, 0.003], 4, list(range(60))),
        serve(folder, {"predicted": 2}, [0.003], 3, list(range(60))[::-1]),
        serve(folder, {"unordered": 5}, [], 0, []),
    ]


def serve(
    folder: Path, calls: dict[str, int], seconds: list[float], pending: int, lengths: list[int]
) -> str:
    told = {"calls": calls, "seconds": seconds, "pending": pending, "lengths": lengths}
    done = subprocess.run(
        [sys.executable, "-c", CODE, json.dumps(told)],
        env=os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(folder)},
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.strip()


def value(folder: Path, name: str, **labels: str) -> Any:
    registry = CollectorRegistry()
    MultiProcessCollector(registry, str(folder))
    return registry.get_sample_value(name, labels)


def test_what_is_counted_is_added_up(folder: Path, processes: list[str]) -> None:
    calls = {"predicted": 5, "late": 1, "unordered": 5, "prior": 0, "unread": 0}
    for place, expected in calls.items():
        assert value(folder, "lengthpred_calls_total", place=place) == expected
    seconds = "lengthpred_prediction_seconds"
    assert value(folder, f"{seconds}_bucket", le="0.0002") == 1
    assert value(folder, f"{seconds}_bucket", le="0.005") == 3
    assert value(folder, f"{seconds}_count") == 3
    assert value(folder, "lengthpred_pending") == 7


def test_a_process_that_has_measured_nothing_hides_no_other(
    folder: Path, processes: list[str]
) -> None:
    right, wrong, fresh = processes
    assert value(folder, "lengthpred_tau", pid=right) == pytest.approx(1)
    assert value(folder, "lengthpred_tau", pid=wrong) == pytest.approx(-1)
    for name in MEASURED:
        assert math.isnan(value(folder, name, pid=fresh))
        assert all(math.isfinite(value(folder, name, pid=pid)) for pid in (right, wrong))


def test_a_process_that_ended_leaves_what_it_counted(folder: Path, processes: list[str]) -> None:
    mark_process_dead(processes[1], str(folder))
    assert value(folder, "lengthpred_calls_total", place="predicted") == 5
    assert value(folder, "lengthpred_pending") == 4
    assert value(folder, "lengthpred_tau", pid=processes[1]) is None
    assert value(folder, "lengthpred_tau", pid=processes[0]) == pytest.approx(1)
