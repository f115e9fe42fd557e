"""True lengths that a server kept: a folder of JSON lines and Parquet.

`lengthpred.serving.feedback` writes them, in the columns of a table. Those whose prompts were kept
are grouped by conversation.
"""

import json
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lengthpred.data.conversations import Conversations
from lengthpred.data.readers.base import Draft, Row, Source, length_fault
from lengthpred.data.report import ImportReport
from lengthpred.errors import DataError
from lengthpred.serving.feedback import PATTERN

__all__ = ["read"]

KINDS = ("jsonl", "parquet")
BATCH = 1024


def read(source: Source, report: ImportReport) -> Iterator[Draft]:
    """One draft a row, in the order of arrival of their files. Raises DataError without any."""
    folder = Path(source.path)
    files = sorted(path for kind in KINDS for path in folder.glob(f"{PATTERN}.{kind}"))
    if not files:
        raise DataError(
            f"{folder} holds no lengths of a server: give the folder that LENGTHPRED_FEEDBACK named"
        )
    conversations = Conversations()
    source.total = sum(path.stat().st_size for path in files)
    for path in files:
        rows = _parquet(path) if path.suffix == ".parquet" else _lines(path)
        for number, row in enumerate(rows, 1):
            where = f"{path.name} row {number}"
            fault = _fault(row)
            if fault:
                report.drop(fault, where)
            else:
                yield Draft((), partial(_grouped, conversations, row), where)
        source.done += path.stat().st_size


def _grouped(conversations: Conversations, row: Row, counts: object) -> list[Row]:
    group = row.get("group") or conversations.group(row.get("prompt", ""), row.get("context", ""))
    return [{**row, "group": group, "turn": len(row.get("reply_tokens") or ())}]


def _fault(row: Any) -> str:
    if not isinstance(row, Mapping):
        return "line breaks off"
    lengths = row.get("output_tokens")
    if not isinstance(lengths, list) or not lengths:
        return "no answer"
    return next(filter(None, map(length_fault, lengths)), "")


def _lines(path: Path) -> Iterator[Any]:
    # A server may be writing the last line.
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            try:
                yield json.loads(line)
            except ValueError:
                yield None


def _parquet(path: Path) -> Iterator[Any]:
    try:
        for batch in pq.ParquetFile(path).iter_batches(batch_size=BATCH):
            yield from batch.to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} is damaged: {error}") from error
