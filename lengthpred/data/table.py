"""The table: one row a prompt and model, in Parquet.

A table needs `prompt`, `output_tokens` and `model`; other columns may be absent and then hold
their default. What the columns mean is in docs/data.md.
"""

import hashlib
import itertools
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from lengthpred.base import IntArray, Request
from lengthpred.errors import DataError, did_you_mean

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


def request_from_row(row: Mapping[str, Any]) -> Request:
    """The request that a row of a table records; absent and null columns take their default."""
    return Request(
        prompt=row.get("prompt") or "",
        context=row.get("context") or "",
        reply_tokens=tuple(row.get("reply_tokens") or ()),
        prompt_tokens=row.get("prompt_tokens"),
        max_tokens=row.get("max_tokens"),
        model=row.get("model") or "",
        temperature=row.get("temperature"),
        tenant=row.get("tenant") or "",
        id=row.get("id") or "",
    )


@dataclass(frozen=True)
class Rows:
    """Rows of a table in memory, column by column.

    requests  n requests
    lengths   int64 (m,): the observed lengths of all rows, in tokens, m >= n
    censored  bool (m,): where the answer was stopped, so that its length is at least that
    owner     int64 (m,): the row of each length, rising; sample 0 of a row comes first
    groups    int64 (n,): rows that share a number belong together (one conversation)
    columns   the other columns by name, shape (n,): domain, language, turn, ood
    """

    requests: list[Request]
    lengths: IntArray
    censored: npt.NDArray[np.bool_]
    owner: IntArray
    groups: IntArray
    columns: Mapping[str, npt.NDArray[Any]]

    def __len__(self) -> int:
        return len(self.requests)

    @property
    def truth(self) -> IntArray:
        """Sample 0 of each row, shape (n,)."""
        return self.lengths[self._first()]

    @property
    def truth_censored(self) -> npt.NDArray[np.bool_]:
        """Whether sample 0 was stopped by a limit, shape (n,)."""
        return self.censored[self._first()]

    @property
    def weights(self) -> npt.NDArray[np.float64]:
        """One over the number of samples of its row, for each length, shape (m,)."""
        counts = np.bincount(self.owner, minlength=len(self))
        weights: npt.NDArray[np.float64] = 1.0 / counts[self.owner]
        return weights

    def take(self, rows: npt.ArrayLike) -> Self:
        """The rows with these numbers, in this order (or those where a mask is true)."""
        picked = np.asarray(rows)
        picked = np.flatnonzero(picked) if picked.dtype == bool else picked.astype(np.int64)
        starts = self._first()
        counts = np.diff(np.append(starts, len(self.owner)))[picked]
        ends = np.cumsum(counts)
        within = np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - counts, counts)
        cells = np.repeat(starts[picked], counts) + within
        return type(self)(
            requests=[self.requests[i] for i in picked],
            lengths=self.lengths[cells],
            censored=self.censored[cells],
            owner=np.repeat(np.arange(len(picked)), counts),
            groups=self.groups[picked],
            columns={name: values[picked] for name, values in self.columns.items()},
        )

    def _first(self) -> IntArray:
        return np.searchsorted(self.owner, np.arange(len(self)))


class Table:
    """A table on disk. Raises DataError, naming the file, for what is no table."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise DataError(f"{path} is not a file: give a table that `data import` wrote")
        try:
            self._file = pq.ParquetFile(self.path)
        except (pa.ArrowException, OSError) as error:
            raise DataError(
                f"{path} is not a Parquet file: make a table of it with `lengthpred data import`"
            ) from error
        self.columns = tuple(self._file.schema_arrow.names)
        for name in REQUIRED:
            if name not in self.columns:
                near = did_you_mean(name, self.columns) if self.columns else ""
                raise DataError(f"{path} has no column '{name}'. {near}")
        if not len(self):
            raise DataError(f"{path} has no rows")

    def __len__(self) -> int:
        rows: int = self._file.metadata.num_rows
        return rows

    @property
    def fingerprint(self) -> str:
        """sha256 of the file, hexadecimal."""
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """The rows in order, a few thousand at a time; columns that are absent are left out."""
        names = [n for n in SCHEMA.names if n in self.columns and (columns is None or n in columns)]
        try:
            for batch in self._file.iter_batches(batch_size=BATCH, columns=names):
                yield _conformed(batch, self.path)
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{self.path} is damaged: {error}") from error

    def chunks(self) -> Iterator[Rows]:
        """All rows in order, a few thousand at a time, for what learns from a stream."""
        names: dict[str, int] = {}
        offset = 0
        for batch in self.batches():
            yield _rows(batch, _numbered(batch, names, offset), offset)
            offset += len(batch)

    def rows(self, limit: int | None = None, seed: int = 0) -> Rows:
        """All rows, or a seeded sample of `limit` when there are more, in the table's order."""
        keep = np.ones(len(self), bool)
        if limit is not None and limit < len(self):
            keep[:] = False
            keep[np.random.default_rng(seed).choice(len(self), limit, replace=False)] = True
        names: dict[str, int] = {}
        offset, parts = 0, []
        for batch in self.batches():
            mask = keep[offset : offset + len(batch)]
            # Numbered before the sample is taken: a group has one number however it is read.
            groups = _numbered(batch, names, offset)[mask]
            parts.append(_rows(batch.filter(pa.array(mask)), groups, offset))
            offset += len(batch)
        return _joined(parts)


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
                f"{path}: column '{name}' holds {column.type}, not {wanted} ({error})"
            ) from error
    return pa.record_batch(arrays, names=batch.schema.names)


def _numbered(batch: pa.RecordBatch, names: dict[str, int], offset: int) -> IntArray:
    """The number of each row's group, (n,); `names` keeps them across batches."""
    found = batch.column("group").to_pylist() if "group" in batch.schema.names else []
    found = found or [None] * len(batch)
    # A row without a group is one of its own.
    keys = [f"\0{offset + i}" if group is None else group for i, group in enumerate(found)]
    return np.array([names.setdefault(key, len(names)) for key in keys], np.int64)


def _rows(batch: pa.RecordBatch, groups: IntArray, offset: int) -> Rows:
    """One batch in memory."""
    records = batch.to_pydict()
    n = len(batch)
    samples = records["output_tokens"]
    stopped = records.get("censored") or [None] * n
    for i, row in enumerate(samples):
        if not row or any(length is None or length < 0 for length in row):
            raise DataError(
                f"row {offset + i}: output_tokens must be one or more lengths >= 0, not {row}"
            )
        flags = stopped[i]
        if flags is not None and len(flags) != len(row):
            raise DataError(f"row {offset + i}: censored has {len(flags)} values for {len(row)}")
    cells = zip(*records.values(), strict=True)
    each = [dict(zip(records, values, strict=True)) for values in cells]
    return Rows(
        requests=[request_from_row(row) for row in each],
        lengths=np.array([length for row in samples for length in row], np.int64),
        censored=np.array(
            [
                bool(flag)
                for row, flags in zip(samples, stopped, strict=True)
                for flag in flags or [False] * len(row)
            ],
            bool,
        ),
        owner=np.repeat(np.arange(n), [len(row) for row in samples]),
        groups=groups,
        columns={
            "domain": _text(records.get("domain"), n),
            "language": _text(records.get("language"), n),
            "turn": np.array([t or 0 for t in records.get("turn") or [0] * n], np.int64),
            "ood": np.array([bool(o) for o in records.get("ood") or [False] * n], bool),
        },
    )


def _text(values: list[str | None] | None, n: int) -> npt.NDArray[Any]:
    return np.array([value or "" for value in values or [""] * n], object)


def _joined(parts: Sequence[Rows]) -> Rows:
    sizes = np.cumsum([0, *(len(part) for part in parts[:-1])])
    return Rows(
        requests=[request for part in parts for request in part.requests],
        lengths=np.concatenate([part.lengths for part in parts]),
        censored=np.concatenate([part.censored for part in parts]),
        owner=np.concatenate([p.owner + size for p, size in zip(parts, sizes, strict=True)]),
        groups=np.concatenate([part.groups for part in parts]),
        columns={
            name: np.concatenate([part.columns[name] for part in parts])
            for name in parts[0].columns
        },
    )
