"""How much the tokens of a prompt should count in the order, beside those of the answer.

    python -m tests.benchmarks.prefill_weight TRACES

TRACES is a folder as for tests.benchmarks.aging. Each trace is replayed under shortest-first by an
oracle, without aging, at several weights: mean latency as a multiple of that under fcfs.
"""

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lengthpred.eval.replay.continuous import replay_continuous
from lengthpred.eval.replay.order import Order
from lengthpred.eval.replay.workload import Engine, Workload
from tests.benchmarks.traces import read_traces

WEIGHTS = (0, 0.05, 0.1, 0.25, 0.5, 1, 2)
LOADS = (1.0, 1.2)
REQUESTS = 3000


def main() -> None:
    """Print a line for each trace and load."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("traces", type=Path)
    print(f"{'weight':45}" + "".join(f"{weight:>7g}" for weight in WEIGHTS))
    for trace in read_traces(parser.parse_args().traces, REQUESTS):
        for load in LOADS:
            work = trace.at(load)
            first = _latency(work, np.arange(len(work)), trace.engine)
            costs = (work.output_tokens + weight * work.prompt_tokens for weight in WEIGHTS)
            ratios = [_latency(work, 16 * cost, trace.engine) / first for cost in costs]
            line = "".join(f"{ratio:>7.2f}" for ratio in ratios)
            print(f"{trace.name:36} load {load:.1f}{line}", flush=True)


def _latency(work: Workload, keys: npt.ArrayLike, engine: Engine) -> float:
    trace = replay_continuous(work, Order(np.asarray(keys).astype(np.int64)), engine)
    return float((trace.finish_s - work.arrival_s).mean())


if __name__ == "__main__":
    main()
