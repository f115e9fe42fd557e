"""Rows as tables on disk."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lengthpred.data.table import Rows
from tests.builders import synthetic_rows

__all__ = ["QUICK", "table_on_disk", "write_recipe"]

# Settings of each kind that train in a moment.
QUICK: dict[str, dict[str, Any]] = {
    "histogram": {},
    "boosted": {"bits": 8, "trees": 8, "leaves": 5},
    "detector": {"bits": 8, "dims": 4},
    "ranker": {"bits": 8, "trees": 8, "leaves": 5},
    "sqlm": {
        "detector": {"bits": 8, "dims": 4},
        "boosted": {"bits": 8, "trees": 8, "leaves": 5},
    },
}


def table_on_disk(path: Path, rows: Rows | None = None, **columns: Any) -> Path:
    """One length a row; two rows share a group. `columns` replace or add, None removes."""
    rows = synthetic_rows(400) if rows is None else rows
    values: dict[str, Any] = {
        "id": [str(i) for i in range(len(rows))],
        "group": [f"talk {i}" for i in (np.arange(len(rows)) // 2)],
        "prompt": [request.prompt for request in rows.requests],
        "reply_tokens": [list(request.reply_tokens) for request in rows.requests],
        "output_tokens": rows.lengths[:, None].tolist(),
        "censored": rows.censored[:, None].tolist(),
        "model": [request.model for request in rows.requests],
    }
    kept = {name: value for name, value in (values | columns).items() if value is not None}
    pq.write_table(pa.table(kept), path)
    return path


def write_recipe(path: Path, kind: str) -> Path:
    """QUICK's settings of a kind as TOML."""
    tables = {name: value for name, value in QUICK[kind].items() if isinstance(value, dict)}
    lines = [f"{name} = {value}" for name, value in QUICK[kind].items() if name not in tables]
    for name, table in tables.items():
        lines += [f"[{name}]", *(f"{key} = {value}" for key, value in table.items())]
    path.write_text("\n".join(lines) + "\n")
    return path
