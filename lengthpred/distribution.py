"""Distributions over output lengths: a grid of bins and a probability for each.

Lengths are whole tokens. Inside a bin every length is equally likely, so all of the methods
below are exact for the piecewise uniform distribution that the bins describe.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from lengthpred.grid import LengthGrid

__all__ = ["LengthDistribution", "LengthGrid"]

NO_CEILING = np.iinfo(np.int32).max


@dataclass(frozen=True, eq=False)
class LengthDistribution:
    """n distributions of the natural length, in tokens of the target model.

    grid     the bins
    pmf      float32 (n, bins): the probability of each bin; a row sums to one
    floor    int32 (n,): no length below it is possible (tokens that exist already)
    ceiling  int32 (n,): no length above it is possible (set by `clip`)

    Raises ValueError when the shapes do not fit, a row is not a probability distribution or has
    mass outside its bounds; use `from_weights` for what still needs scaling.
    """

    grid: LengthGrid
    pmf: npt.NDArray[np.float32]
    floor: npt.NDArray[np.int32] = 0  # type: ignore[assignment]
    ceiling: npt.NDArray[np.int32] = NO_CEILING  # type: ignore[assignment]

    def __post_init__(self) -> None:
        # A copy, so that a caller's array that changes later does not change the answer.
        pmf = np.array(self.pmf, dtype=np.float32, order="C")
        if pmf.ndim != 2 or pmf.shape[1] != self.grid.bins:
            raise ValueError(f"pmf must have shape (n, {self.grid.bins}), not {pmf.shape}")
        sums = pmf.sum(axis=1, dtype=np.float64)
        # A NaN fails both comparisons, so that one test finds it too.
        if not ((pmf >= 0).all() and (np.abs(sums - 1) < 1e-4).all()):
            raise ValueError("each row of pmf must be non-negative, finite and sum to one")
        object.__setattr__(self, "pmf", pmf)
        for name in ("floor", "ceiling"):
            object.__setattr__(self, name, _tokens(getattr(self, name), len(pmf)))
        if self.floor.any() or (self.ceiling != NO_CEILING).any():
            low, high = self._bounds()
            if (self.floor < 0).any() or (self.ceiling < self.floor).any() or pmf[low > high].any():
                raise ValueError("no mass may lie below floor (at least 0) or above ceiling")

    # Making

    @classmethod
    def trusted(cls, grid: LengthGrid, pmf: npt.NDArray[np.float32], **bounds: Any) -> Self:
        """Without the checks, for rows that a distribution of ours already holds."""
        made = cls.__new__(cls)
        object.__setattr__(made, "grid", grid)
        object.__setattr__(made, "pmf", pmf)
        object.__setattr__(made, "floor", bounds.get("floor", np.zeros(len(pmf), np.int32)))
        full = bounds.get("ceiling")
        full = np.full(len(pmf), NO_CEILING, np.int32) if full is None else full
        object.__setattr__(made, "ceiling", full)
        return made

    @classmethod
    def from_weights(cls, grid: LengthGrid, weights: npt.ArrayLike) -> Self:
        """From non-negative weights, shape (n, bins); each row is scaled to sum to one.

        Raises ValueError for a row that has a negative weight or none above zero.
        """
        scaled = np.asarray(weights, dtype=np.float64)
        if scaled.ndim != 2 or scaled.shape[1] != grid.bins:
            raise ValueError(f"weights must have shape (n, {grid.bins}), not {scaled.shape}")
        sums = scaled.sum(axis=1, keepdims=True)
        if not ((scaled >= 0).all() and (sums > 0).all() and np.isfinite(sums).all()):
            raise ValueError("weights must be non-negative and finite, some above zero in each row")
        return cls.trusted(grid, (scaled / sums).astype(np.float32))

    @classmethod
    def from_samples(cls, grid: LengthGrid, samples: Sequence[npt.ArrayLike]) -> Self:
        """One row for each array of observed lengths, in tokens; none may be empty."""
        rows = [np.atleast_1d(row) for row in samples]
        if not all((row >= 0).all() for row in rows):
            raise ValueError("a length must be a number of tokens, 0 or more")
        counts = [np.bincount(grid.index(row), minlength=grid.bins) for row in rows]
        return cls.from_weights(grid, np.array(counts).reshape(len(counts), grid.bins))

    # Asking

    def __len__(self) -> int:
        return len(self.pmf)

    def __getitem__(self, rows: int | slice | npt.NDArray[Any] | Sequence[int]) -> Self:
        """The same distributions in another order or number; `rows` as in numpy.

        A single number gives a distribution of one row, and IndexError when there is no such row.
        """
        if isinstance(rows, int | np.integer):
            rows = [int(rows)]
        elif not isinstance(rows, slice):
            rows = np.asarray(rows)
            rows = rows if rows.size else rows.astype(np.int64)  # [] has no type of its own
        return self.trusted(
            self.grid, self.pmf[rows], floor=self.floor[rows], ceiling=self.ceiling[rows]
        )

    def __iter__(self) -> Iterator[Self]:
        return (self[i : i + 1] for i in range(len(self)))

    def mean(self) -> npt.NDArray[np.float64]:
        """Expected length, shape (n,)."""
        low, high = self._bounds()
        mean: npt.NDArray[np.float64] = (self._weights() * (low + high)).sum(axis=1) / 2
        return mean

    def median(self) -> npt.NDArray[np.float64]:
        """The length that half of the mass lies below, interpolated inside its bin, shape (n,)."""
        return self.quantile(0.5)

    def quantile(self, q: float | Sequence[float] | npt.ArrayLike) -> npt.NDArray[np.float64]:
        """The length that a share `q` of the mass lies below: (n,) for one q, (n, m) for m.

        Interpolated between the first and the last length of its bin. Raises ValueError unless
        0 <= q <= 1.
        """
        levels = np.asarray(q, dtype=np.float64)
        if not ((levels >= 0) & (levels <= 1)).all():
            raise ValueError(f"a quantile must lie between 0 and 1, not {q!r}")
        found, share = self._locate(np.broadcast_to(levels, (len(self), levels.size)))
        low, high = self._bounds_of(found)
        values: npt.NDArray[np.float64] = low + share * (high - low)
        return values[:, 0] if levels.ndim == 0 else values

    def cdf(self, x: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """P(L <= x), shape (n,), for one x or one a row."""
        at = np.broadcast_to(np.floor(np.asarray(x, dtype=np.float64)), (len(self),))[:, None]
        low, high = self._bounds()
        below = np.clip((at - low + 1) / np.maximum(high - low + 1, 1), 0, 1)
        share: npt.NDArray[np.float64] = (self._weights() * below).sum(axis=1)
        return np.clip(share, 0, 1)

    def sample(self, rng: np.random.Generator, k: int = 1) -> npt.NDArray[np.int64]:
        """k lengths of each distribution, shape (n, k)."""
        found, _ = self._locate(rng.random((len(self), k)))
        low, high = self._bounds_of(found)
        return rng.integers(low.astype(np.int64), high.astype(np.int64), endpoint=True)

    # Changing

    def given(self, generated: npt.ArrayLike) -> Self:
        """The total length once `generated` tokens exist, shape (n,) or one number.

        A bin that is cut stays uniform above the cut. Where no mass is left above it, the answer
        is expected to run on for one bin more.
        """
        floor = np.maximum(_tokens(generated, len(self)), self.floor)
        ceiling = np.maximum(self.ceiling, floor)
        low, high = self._bounds()
        width = np.maximum(high - low + 1, 1)
        kept = np.clip((high - np.maximum(low, floor[:, None]) + 1) / width, 0, 1)
        weights = self._weights() * kept
        spent = weights.sum(axis=1) <= 0
        # A limit still holds, unless more tokens exist than it allows.
        ceiling = np.where(spent & (self.ceiling < floor), NO_CEILING, ceiling)
        following = np.minimum(self.grid.index(floor) + 1, self.grid.index(ceiling))
        weights[spent] = np.eye(self.grid.bins)[following[spent]]
        made = type(self).from_weights(self.grid, weights)
        return self.trusted(self.grid, made.pmf, floor=floor, ceiling=ceiling.astype(np.int32))

    def clip(self, max_tokens: npt.ArrayLike) -> Self:
        """The length under a limit, shape (n,) or one number; one below 0 counts as 0.

        Mass above the limit moves into the limit's bin, below the limit, where it is uniform like
        all mass: where much of it lies above, the mean is low by up to half the bin's width.
        """
        limit = _tokens(max_tokens, len(self))
        limit = np.clip(limit, 0, self.ceiling)
        floor = np.minimum(self.floor, limit)  # what must be longer ends at the limit
        last = self.grid.index(limit)
        low, high = self._bounds()
        weights = self._weights()
        inside = np.clip((limit[:, None] - low + 1) / np.maximum(high - low + 1, 1), 0, 1)
        kept = weights * inside
        kept[np.arange(len(self)), last] += (weights - kept).sum(axis=1)
        pmf = type(self).from_weights(self.grid, kept).pmf
        return self.trusted(self.grid, pmf, floor=floor, ceiling=limit)

    @classmethod
    def mixture(cls, parts: Sequence[Self], weights: npt.ArrayLike) -> Self:
        """Row by row, the parts mixed with `weights`, shape (parts,) or (parts, n)."""
        _check_joinable(parts)
        shares = np.asarray(weights, dtype=np.float64).reshape(len(parts), -1, 1)
        if not (shares >= 0).all():
            raise ValueError("the weights of a mixture must be 0 or more")
        mixed = cls.from_weights(
            parts[0].grid, sum(share * p.pmf for share, p in zip(shares, parts, strict=True))
        )
        floor = np.min([p.floor for p in parts], axis=0)
        ceiling = np.max([p.ceiling for p in parts], axis=0)
        return cls.trusted(mixed.grid, mixed.pmf, floor=floor, ceiling=ceiling)

    @classmethod
    def concat(cls, parts: Sequence[Self]) -> Self:
        """The rows of all parts, one below the other; they must share a grid."""
        _check_joinable(parts)
        return cls.trusted(
            parts[0].grid,
            np.concatenate([p.pmf for p in parts]),
            floor=np.concatenate([p.floor for p in parts]),
            ceiling=np.concatenate([p.ceiling for p in parts]),
        )

    # Within

    def _weights(self) -> npt.NDArray[np.float64]:
        return self.pmf.astype(np.float64)

    def _bounds(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """First and last length of every bin, after the cuts of floor and ceiling, (n, bins).

        Of a bin that is cut away, the last is one below the first.
        """
        edges = self.grid.edges.astype(np.float64)
        last = np.repeat(edges[None, 1:] - 1, len(self), axis=0)
        # The overflow has no end: a floor beyond its nominal one moves that on.
        last[:, -1] = np.maximum(last[:, -1], 2.0 * self.floor)
        low = np.maximum(edges[None, :-1], self.floor[:, None])
        return low, np.maximum(np.minimum(last, self.ceiling[:, None]), low - 1)

    def _bounds_of(
        self, bins: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """The same for some bins of each row, (n, m), without the work for all the others."""
        edges = self.grid.edges.astype(np.float64)
        floor, ceiling = self.floor[:, None], self.ceiling[:, None]
        overflow = bins == self.grid.bins - 1
        last = np.maximum(edges[bins + 1] - 1, np.where(overflow, 2.0 * floor, 0))
        low = np.maximum(edges[bins], floor)
        return low, np.maximum(np.minimum(last, ceiling), low)

    def _locate(
        self, levels: npt.NDArray[np.float64]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """The bin that holds each level of mass, and how far into it the level lies, (n, m)."""
        weights = self._weights()
        cum = np.cumsum(weights, axis=1)
        cum /= cum[:, -1:]
        # Exact comparisons row by row: shifting the rows for one search of them all would round a
        # level on a bin's edge now to one side and now to the other.
        n, m = levels.shape
        if n < m:
            found = np.array(
                [np.searchsorted(row, at) for row, at in zip(cum, levels, strict=True)]
            )
        else:
            found = np.array([(cum < levels[:, j, None]).sum(axis=1) for j in range(m)]).T
        found = found.reshape(n, m).astype(np.int64)
        # A level of 0 (or one rounded down) may name an empty bin before the first full one.
        full = self.pmf > 0
        first = np.argmax(full, axis=1)[:, None]
        last = self.grid.bins - 1 - np.argmax(full[:, ::-1], axis=1)[:, None]
        found = np.clip(found, first, last)
        rows = np.arange(n)[:, None]
        mass, end = weights[rows, found], cum[rows, found]
        share = np.where(mass > 0, 1 - (end - levels) / np.where(mass > 0, mass, 1), 0)
        return found, np.clip(share, 0, 1)


def _tokens(values: npt.ArrayLike, n: int) -> npt.NDArray[np.int32]:
    """Numbers of tokens as int32, one a row; what is too large for it becomes its largest."""
    if (
        isinstance(values, int) and 0 <= values <= NO_CEILING
    ):  # the common case, at a tenth the cost
        return np.full(n, values, np.int32)
    asked = np.asarray(values)
    if asked.dtype.kind not in "iuf" or (asked.dtype.kind == "f" and np.isnan(asked).any()):
        raise ValueError(f"a number of tokens must be a number, not {values!r}")
    whole = np.clip(asked, -1, NO_CEILING).astype(np.int32)
    return np.broadcast_to(whole, (n,))


def _check_joinable(parts: Sequence[LengthDistribution]) -> None:
    if not parts:
        raise ValueError("there must be at least one distribution")
    if any(part.grid != parts[0].grid for part in parts):
        raise ValueError("distributions on different grids cannot be joined")
