"""Rows of a table in memory, column by column."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from lengthpred.base import IntArray, Request
from lengthpred.errors import DataError

__all__ = ["Rows", "joined", "request_from_row", "rows_of", "sampled"]

MOST = 2**31 - 1  # tokens: what a distribution's bounds can hold


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
    columns   the other columns by name, shape (n,): domain, language, turn, ood, arrival_s (NaN
              where it was not recorded)
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

    def with_prompt(self) -> Self:
        """The rows that have text to learn from, in their order."""
        return self.take(np.array([bool(request.prompt) for request in self.requests], bool))

    def sample(self, most: int, rng: np.random.Generator) -> Self:
        """All rows, or so many drawn without replacement, in their order."""
        return self if len(self) <= most else self.take(sampled(len(self), most, rng))

    def _first(self) -> IntArray:
        return np.searchsorted(self.owner, np.arange(len(self)))


def sampled(n: int, most: int, rng: np.random.Generator) -> IntArray:
    """Numbers below n, rising: all, or `most` drawn without replacement where there are more."""
    return np.arange(n) if n <= most else np.sort(rng.choice(n, most, replace=False))


def rows_of(batch: pa.RecordBatch, groups: IntArray, numbers: IntArray) -> Rows:
    """One batch of a table in memory.

    groups, numbers: shape (n,), the numbers of each row's group and of the row in its table.
    Raises DataError, naming the row, for lengths that are none.
    """
    records = batch.to_pydict()
    n = len(batch)
    samples = records["output_tokens"]
    stopped = records.get("censored") or [None] * n
    for i, row in enumerate(samples):
        if not row or any(length is None or length < 0 for length in row):
            raise DataError(
                f"row {numbers[i]}: output_tokens must be one or more lengths >= 0, not {row}"
            )
        if max(row) > MOST:
            raise DataError(f"row {numbers[i]}: {max(row)} output tokens are too many to be true")
        flags = stopped[i]
        if flags is not None and len(flags) != len(row):
            raise DataError(f"row {numbers[i]}: censored has {len(flags)} values for {len(row)}")
    for i, replies in enumerate(records.get("reply_tokens") or []):
        if any(length is None or length < 0 for length in replies or []):
            raise DataError(f"row {numbers[i]}: reply_tokens must be lengths >= 0, not {replies}")
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
            "arrival_s": np.array(records.get("arrival_s") or [None] * n, np.float64),
        },
    )


def _text(values: list[str | None] | None, n: int) -> npt.NDArray[Any]:
    return np.array([value or "" for value in values or [""] * n], object)


def joined(parts: Sequence[Rows]) -> Rows:
    """Rows of several batches, one below the other."""
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
