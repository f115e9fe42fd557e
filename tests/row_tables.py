"""Rows in memory as a table on disk."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lengthpred.base import IntArray
from lengthpred.data.table import Rows

__all__ = ["write_rows"]


def write_rows(path: Path, rows: Rows, lengths: IntArray | None = None, **columns: Any) -> Path:
    """The rows with one length each, theirs or `lengths` (n,), and with further columns."""
    lengths = rows.truth if lengths is None else lengths
    table = {
        "prompt": [request.prompt for request in rows.requests],
        "model": [request.model for request in rows.requests],
        "reply_tokens": [list(request.reply_tokens) for request in rows.requests],
        "output_tokens": [[int(length)] for length in lengths],
        "censored": [[bool(flag)] for flag in rows.truth_censored],
        **columns,
    }
    pq.write_table(pa.table(table), path)
    return path
