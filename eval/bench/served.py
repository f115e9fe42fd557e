"""What a real engine did with requests, and what is measured of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lengthpred.base import FloatArray
from lengthpred.eval.replay.arms import Arm
from lengthpred.eval.replay.measures import measure_times
from lengthpred.eval.replay.scenarios import Scenario
from lengthpred.eval.replay.settings import SimulationSettings
from lengthpred.eval.replay.workload import Workload
from lengthpred.eval.simulate import COMPARED, Simulation, compare_arms

__all__ = ["BENCH_COMPARED", "Measured", "Served", "compare_served", "measure_served"]

BENCH_COMPARED = (*COMPARED, "total_token_throughput_before_drain")
"""The measures that are compared draw by draw."""
Measured = Mapping[tuple[Scenario, Arm], Sequence[Mapping[str, float]]]
"""Of each arm in each scenario, draw by draw, what `measure_served` found."""


@dataclass(frozen=True)
class Served:
    """n requests that an engine ran, in the order of their arrival.

    first_token_s, finish_s  float64 (n,): when a request's first and last token came, in seconds on
                             the clock of the arrivals
    preemptions              how often a running request lost its place; None where nobody counted
    """

    work: Workload
    first_token_s: FloatArray
    finish_s: FloatArray
    preemptions: int | None = None


def measure_served(served: Served) -> dict[str, float]:
    """Every measure by name, as of `measure_replay` where an engine tells what it takes.

    A request waits until its first token (mean_ and max_queue_depth), and tps is over the whole
    duration. total_token_throughput_before_drain is the tokens a second until the last request has
    its first token: after that no slot that becomes free is taken any more, in any order.
    """
    work = served.work
    measured = measure_times(work, served.first_token_s, served.finish_s)
    waits = served.first_token_s - work.arrival_s
    drain_s = float(served.first_token_s.max())
    tokens = float(work.prompt_tokens.sum()) + _written_by(served, drain_s)
    found = {
        **measured,
        "tps": measured["total_token_throughput"],
        "total_token_throughput_before_drain": tokens / (drain_s - float(work.arrival_s[0])),
        "mean_queue_depth": float(waits.sum()) / measured["duration"],
        "max_queue_depth": float(_most_waiting(served)),
    }
    if served.preemptions is not None:
        found["preemptions"] = float(served.preemptions)
    return found


def compare_served(
    settings: SimulationSettings, measured: Measured, notes: Sequence[str] = ()
) -> Simulation:
    """The arms beside each other, over the draws that were measured of all of them."""
    results = list(compare_arms(settings.engine, measured, BENCH_COMPARED))
    return Simulation(settings, results, list(notes), {})


def _written_by(served: Served, moment_s: float) -> float:
    """Tokens of answers that had come by then, each answer at its own even pace."""
    takes = np.maximum(served.finish_s - served.first_token_s, 1e-9)
    share = np.clip((moment_s - served.first_token_s) / takes, 0, 1)
    return float((1 + (served.work.output_tokens - 1) * share).sum())


def _most_waiting(served: Served) -> int:
    times = np.concatenate([served.work.arrival_s, served.first_token_s])
    change = np.repeat([1, -1], len(served.work))
    # Of what happens at one moment arrivals count first: a burst is a queue.
    order = np.lexsort((-change, times))
    return int(np.cumsum(change[order]).max())
