"""Rows made in the repository: longer prompts get longer answers, with noise."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lengthpred.base import Request
from lengthpred.data.table import Rows
from lengthpred.eval.report.pareto import Entry

__all__ = ["ENTRIES", "make_rows", "write_rows"]

ENTRIES = [
    Entry("constructor", "A title", "Li, 2024", "kind", "MiniLM in place of BERT", "Much.", 12.0),
    Entry("good", "", "", "kind", "", "", 340.0, cut=True),
]


def make_rows(n: int = 300, *, samples: int = 1, ood: float = 0.4, seed: int = 0) -> Rows:
    """n rows in pairs of one group; the last share `ood` is marked as out of distribution."""
    rng = np.random.default_rng(seed)
    prompts = rng.integers(4, 400, n)
    typical = rng.lognormal(3 + prompts / 200, 0.5)
    lengths = np.rint(typical[:, None] * rng.lognormal(0, 0.3, (n, samples))).astype(np.int64)
    return Rows(
        requests=[
            Request(prompt="word " * int(p), model=f"model-{i % 2}", id=f"r{i}")
            for i, p in enumerate(prompts)
        ],
        lengths=lengths.ravel(),
        censored=np.zeros(n * samples, bool),
        owner=np.repeat(np.arange(n), samples),
        groups=np.arange(n) // 2,
        columns={"ood": np.arange(n) >= n * (1 - ood), "turn": np.arange(n) % 2},
    )


def write_rows(path: Path, rows: Rows, samples: int, **others: list[str]) -> Path:
    """The rows, with so many samples each and `others` for columns, as a table on disk."""
    columns = {
        "id": [request.id for request in rows.requests],
        "prompt": [request.prompt for request in rows.requests],
        "output_tokens": rows.lengths.reshape(-1, samples).tolist(),
        "model": [request.model for request in rows.requests],
        "turn": rows.columns["turn"],
        "ood": rows.columns["ood"],
        **others,
    }
    pq.write_table(pa.table(columns), path)
    return path
