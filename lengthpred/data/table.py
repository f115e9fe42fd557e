"""The table: one row a prompt and model, in Parquet.

A table needs `prompt`, `output_tokens` and `model`; other columns may be absent and then hold
their default. What the columns mean is in docs/data.md.
"""

import itertools
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lengthpred.base import IntArray
from lengthpred.data.groups import content_keys, group_keys, joined_groups
from lengthpred.data.rows import Rows, joined, request_from_row, rows_of, sampled
from lengthpred.errors import DataError, did_you_mean
from lengthpred.manifest import file_sha256

__all__ = ["SCHEMA", "Rows", "Table", "request_from_row", "write_table"]

REQUIRED = ("prompt", "output_tokens", "model")
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("group", pa.string()),
        ("prompt", pa.large_string()),
        ("context", pa.large_string()),
        ("turn", pa.int64()),
        ("reply_tokens", pa.list_(pa.int64())),
        ("prompt_tokens", pa.int64()),
        ("output_tokens", pa.list_(pa.int64())),
        ("censored", pa.list_(pa.bool_())),
        ("finish_reason", pa.list_(pa.string())),
        ("max_tokens", pa.int64()),
        ("model", pa.string()),
        ("domain", pa.string()),
        ("language", pa.string()),
        ("temperature", pa.float64()),
        ("tenant", pa.string()),
        ("arrival_s", pa.float64()),
        ("ood", pa.bool_()),
    ]
)
BATCH = 4096


class Table:
    """A table on disk. Raises DataError, naming the file, for what is no table.

    needs: the columns without which it is none; prompts alone are enough to be labelled.
    """

    def __init__(self, path: str | os.PathLike[str], needs: Sequence[str] = REQUIRED) -> None:
        self.path = Path(path)
        self._groups: IntArray | None = None
        if not self.path.is_file():
            raise DataError(f"{path} is not a file: give a table that `data import` wrote")
        try:
            self._file = pq.ParquetFile(self.path)
        except (pa.ArrowException, OSError) as error:
            raise DataError(
                f"{path} is not a Parquet file: make a table of it with `lengthpred data import`"
            ) from error
        self.columns = tuple(self._file.schema_arrow.names)
        for name in needs:
            if name not in self.columns:
                # What is called as one of ours means that one.
                others = set(self.columns) - set(SCHEMA.names)
                near = did_you_mean(name, others) if others else "`data import` makes a table."
                raise DataError(f"{path} has no column '{name}'. {near}")
        if not len(self):
            raise DataError(f"{path} has no rows")

    def __len__(self) -> int:
        rows: int = self._file.metadata.num_rows
        return rows

    @property
    def fingerprint(self) -> str:
        """sha256 of the file, hexadecimal."""
        return file_sha256(self.path)

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """The rows in order, a few thousand at a time; columns that are absent are left out."""
        names = [n for n in SCHEMA.names if n in self.columns and (columns is None or n in columns)]
        try:
            for batch in self._file.iter_batches(batch_size=BATCH, columns=names):
                yield _conformed(batch, self.path)
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{self.path} is damaged: {error}") from error

    def groups(self) -> IntArray:
        """The number of each row's group, shape (n,), below n.

        Rows with the same context and prompt are of one group, whatever their column says: one
        read of these columns, kept for the next call.
        """
        if self._groups is None:
            keys: list[tuple[IntArray, IntArray]] = []
            offset = 0
            for batch in self.batches(("group", "context", "prompt")):
                columns = batch.to_pydict()
                n = len(batch)
                keys.append((group_keys(columns, n, offset), content_keys(columns, n, offset)))
                offset += n
            own, content = (np.concatenate(column) for column in zip(*keys, strict=True))
            self._groups = joined_groups(own, content)
        return self._groups

    def chunks(self) -> Iterator[Rows]:
        """All rows in order, a few thousand at a time, for what learns from a stream."""
        groups = self.groups()
        offset = 0
        for batch in self.batches():
            at = np.arange(offset, offset + len(batch))
            yield rows_of(batch, groups[at], at)
            offset += len(batch)

    def rows(self, limit: int | None = None, seed: int = 0) -> Rows:
        """All rows, or a seeded sample of `limit` when there are more, in the table's order."""
        most = len(self) if limit is None else limit
        keep = np.zeros(len(self), bool)
        keep[sampled(len(self), most, np.random.default_rng(seed))] = True
        groups = self.groups()
        offset, parts = 0, []
        for batch in self.batches():
            mask = keep[offset : offset + len(batch)]
            at = offset + np.flatnonzero(mask)
            parts.append(rows_of(batch.filter(pa.array(mask)), groups[at], at))
            offset += len(batch)
        return joined(parts)


def write_table(
    path: str | os.PathLike[str], batches: Iterable[pa.RecordBatch], *, force: bool = False
) -> int:
    """Write batches of SCHEMA's columns to a Parquet file, whole or not at all; returns the rows.

    Raises DataError when `path` exists and not `force`, or cannot be written.
    """
    target = Path(path)
    if target.is_dir() or (target.exists() and not force):
        raise DataError(f"{target} exists already: choose another name, or add --force")
    # What cannot be read at all must not leave a new folder behind: read before writing.
    stream, rows = iter(batches), 0
    first = list(itertools.islice(stream, 1))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as scratch:
            fresh = Path(scratch, "new")
            with pq.ParquetWriter(fresh, SCHEMA, compression="zstd") as writer:
                for batch in itertools.chain(first, stream):
                    writer.write_batch(batch)
                    rows += len(batch)
            os.replace(fresh, target)
    except OSError as error:
        raise DataError(f"{target} cannot be written: {error.strerror or error}") from error
    return rows


def _conformed(batch: pa.RecordBatch, path: Path) -> pa.RecordBatch:
    """The batch with SCHEMA's types; a single number of output tokens becomes a list of one."""
    arrays = []
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        wanted = SCHEMA.field(name).type
        try:
            if pa.types.is_list(wanted) and not pa.types.is_nested(column.type):
                offsets = pa.array(np.arange(len(column) + 1, dtype=np.int32))
                column = pa.ListArray.from_arrays(offsets, column)
            arrays.append(column.cast(wanted))
        except pa.ArrowException as error:
            raise DataError(
                f"{path}: column '{name}' holds {column.type} values that are no {wanted} "
                f"({error}): mend them, or import the file with `lengthpred data import`, which "
                "leaves such rows out and counts them"
            ) from error
    return pa.record_batch(arrays, names=batch.schema.names)
