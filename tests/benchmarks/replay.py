"""Time of replaying many requests on the default engine.

    python -m tests.benchmarks.replay [--requests 100000]

Lengths are made here: log-normal, with a mean near that of chats.
"""

import argparse
import time

import numpy as np

from lengthpred import LengthDistribution, LengthGrid, Request
from lengthpred.base import IntArray
from lengthpred.eval.replay.continuous import replay_continuous
from lengthpred.eval.replay.order import Order
from lengthpred.eval.replay.workload import Engine, Workload
from lengthpred.ordering import EPOCH_S, cost, priority

LIMIT_S = 60.0
ROOM = 60_000  # KV tokens where there are too few


def main() -> None:
    """Read the arguments, replay each case, print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--requests", type=int, default=100_000)
    n = parser.parse_args().requests
    rng = np.random.default_rng(0)
    prompts = np.rint(rng.lognormal(4.5, 1.0, n)).astype(np.int64).clip(1, 1900)
    outputs = np.rint(rng.lognormal(5.0, 0.9, n)).astype(np.int64).clip(1, 2024 - prompts)
    once = Workload(np.zeros(n), prompts, outputs)
    shortest, engine = Order(outputs), Engine()
    capacity = n / float(_replay("all at once, shortest first", once, shortest, engine))
    near = Workload(np.cumsum(rng.exponential(1 / (0.95 * capacity), n)), prompts, outputs)
    _replay("Poisson at 95 %, shortest first", near, shortest, engine)
    _replay("Poisson at 95 %, remaining time", near, _remaining(near), engine)
    poor = Engine(kv_tokens=ROOM)
    _replay("all at once, little KV room", once, Order(np.arange(n)), poor)
    bare = Engine(kv_tokens=ROOM, watermark=0)
    _replay("the same without a watermark", once, Order(np.arange(n)), bare)
    _replay("the same by remaining time", once, _remaining(once), bare)


def _remaining(work: Workload) -> Order:
    """The srpt policy, with whole distributions around the truth."""
    rng, grid = np.random.default_rng(1), LengthGrid()
    requests = [Request(prompt_tokens=int(tokens)) for tokens in work.prompt_tokens]
    guess = work.output_tokens[:, None] * rng.lognormal(0, 0.5, (1, 9))
    known = LengthDistribution.from_samples(grid, list(guess))

    def keys(numbers: IntArray, written: IntArray, now: float = 0.0) -> IntArray:
        asked = [requests[i] for i in numbers]
        return priority(
            cost("srpt", known[numbers], asked, written), work.arrival_s[numbers] + EPOCH_S
        )

    every = np.arange(len(work))
    return Order(keys(every, np.zeros_like(every)), with_progress=keys, preempts=True)


def _replay(name: str, work: Workload, order: Order, engine: Engine) -> float:
    """When the last request is done, on the virtual clock."""
    begun = time.perf_counter()
    trace = replay_continuous(work, order, engine)
    taken = time.perf_counter() - begun
    print(
        f"{name:<32} {taken:6.1f} s{' TOO SLOW' if taken > LIMIT_S else ''}"
        f"  {trace.steps:>9,} steps {int(trace.preemptions.sum()):>7,} preemptions",
        flush=True,
    )
    return float(trace.finish_s.max())


if __name__ == "__main__":
    main()
