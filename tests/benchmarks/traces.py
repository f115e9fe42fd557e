"""Recorded traces for benchmarks: Parquet files with arrival_s, input_tokens, output_tokens."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from lengthpred.base import FloatArray
from lengthpred.eval.replay.arrivals import recorded
from lengthpred.eval.replay.continuous import replay_continuous
from lengthpred.eval.replay.order import Order
from lengthpred.eval.replay.workload import Engine, Workload

COLUMNS = ["arrival_s", "input_tokens", "output_tokens"]
LONGEST = 32_000  # tokens of a request, in and out


@dataclass(frozen=True)
class Recorded:
    """The first requests of a trace, and an engine with room for 64 of them."""

    name: str
    arrival_s: FloatArray
    work: Workload
    engine: Engine

    def at(self, load: float) -> Workload:
        """The same requests at a share of what the engine can serve, in their recorded pattern."""
        n = len(self.work)
        most = n / replay_continuous(self.work, Order(np.arange(n)), self.engine).busy_s
        times = recorded(self.arrival_s, load * most)
        return Workload(times, self.work.prompt_tokens, self.work.output_tokens)


def read_traces(folder: Path, requests: int) -> Iterator[Recorded]:
    """Every trace of the folder whose arrivals are all on one clock."""
    for path in sorted(folder.glob("*.parquet")):
        names = set(pq.read_schema(path).names)
        if not set(COLUMNS) <= names or "session_id" in names:
            continue
        table = pq.read_table(path, columns=COLUMNS)
        if table.column("arrival_s").null_count:
            continue
        times, prompts, outputs = (c.to_numpy().astype(np.float64) for c in table.columns)
        fits = (prompts + outputs <= LONGEST) & (outputs >= 1) & (prompts >= 1)
        order = np.argsort(times[fits], kind="stable")[:requests]
        prompt, output = (x[fits][order].astype(np.int64) for x in (prompts, outputs))
        yield Recorded(
            path.stem,
            times[fits][order],
            Workload(np.zeros(len(order)), prompt, output),
            Engine(kv_tokens=max(219_000, int(64 * prompt.mean()))),
        )
