"""Distributions over output lengths: a grid of bins and a probability for each.

Lengths are whole tokens. Inside a bin every length is equally likely, so all of the methods
below are exact for the piecewise uniform distribution that the bins describe.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import numpy.typing as npt

__all__ = ["LengthDistribution", "LengthGrid"]

NO_CEILING = np.iinfo(np.int32).max


@dataclass(frozen=True, eq=False)
class LengthGrid:
    """Bin edges over output tokens.

    Bin i holds the lengths edges[i], …, edges[i + 1] - 1. The last bin is the overflow; it is
    given the width of everything below it, so that means and quantiles stay finite.

    edges: int64 (bins + 1,), rising, from 0. The default has one bin for each length below 16,
    then six bins an octave up to 32,768, then the overflow.

    >>> LengthGrid().bins
    83
    """

    edges: npt.NDArray[np.int64] = field(default_factory=lambda: default_edges())

    def __post_init__(self) -> None:
        edges = np.array(self.edges, dtype=np.int64)
        if edges.ndim != 1 or len(edges) < 2 or edges[0] != 0 or (np.diff(edges) <= 0).any():
            raise ValueError("edges must be a rising list of whole numbers that begins with 0")
        edges.flags.writeable = False
        object.__setattr__(self, "edges", edges)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LengthGrid) and np.array_equal(self.edges, other.edges)

    def __hash__(self) -> int:
        return hash(self.edges.tobytes())

    @property
    def bins(self) -> int:
        """The number of bins, the overflow included."""
        return len(self.edges) - 1

    def index(self, lengths: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """The bin of each length, same shape; what lies beyond the last edge is overflow."""
        found = np.searchsorted(self.edges, np.asarray(lengths), side="right") - 1
        return np.clip(found, 0, self.bins - 1)


def default_edges() -> npt.NDArray[np.int64]:
    """0, 1, …, 16, six bins an octave up to 32,768, and the end of the overflow bin."""
    octaves = np.rint(16 * 2 ** (np.arange(1, 67) / 6)).astype(np.int64)
    return np.concatenate([np.arange(17), octaves, [2 * octaves[-1]]])


@dataclass(frozen=True, eq=False)
class LengthDistribution:
    """n distributions of the natural length, in tokens of the target model.

    grid     the bins
    pmf      float32 (n, bins): the probability of each bin; a row sums to one
    floor    int32 (n,): no length below it is possible (tokens that exist already)
    ceiling  int32 (n,): no length above it is possible (set by `clip`)

    Raises ValueError when the shapes do not fit or a row is not a probability distribution; use
    `from_weights` for what still needs scaling.
    """

    grid: LengthGrid
    pmf: npt.NDArray[np.float32]
    floor: npt.NDArray[np.int32] = 0  # type: ignore[assignment]
    ceiling: npt.NDArray[np.int32] = NO_CEILING  # type: ignore[assignment]

    def __post_init__(self) -> None:
        pmf = np.asarray(self.pmf, dtype=np.float32)
        if pmf.ndim != 2 or pmf.shape[1] != self.grid.bins:
            raise ValueError(f"pmf must have shape (n, {self.grid.bins}), not {pmf.shape}")
        sums = pmf.sum(axis=1, dtype=np.float64)
        # A NaN fails both comparisons, so that one test finds it too.
        if not ((pmf >= 0).all() and (np.abs(sums - 1) < 1e-4).all()):
            raise ValueError("each row of pmf must be non-negative, finite and sum to one")
        object.__setattr__(self, "pmf", pmf)
        for name in ("floor", "ceiling"):
            bound = np.broadcast_to(np.asarray(getattr(self, name), np.int32), (len(pmf),))
            object.__setattr__(self, name, bound)

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
        """From non-negative weights, shape (n, bins); each row is scaled to sum to one."""
        scaled = np.asarray(weights, dtype=np.float64)
        return cls(grid, (scaled / scaled.sum(axis=1, keepdims=True)).astype(np.float32))

    @classmethod
    def from_samples(cls, grid: LengthGrid, samples: Sequence[npt.ArrayLike]) -> Self:
        """One row for each array of observed lengths, in tokens; none may be empty."""
        bins = (np.atleast_1d(grid.index(row)) for row in samples)
        counts = [np.bincount(row, minlength=grid.bins) for row in bins]
        return cls.from_weights(grid, np.array(counts).reshape(len(counts), grid.bins))

    # Asking

    def __len__(self) -> int:
        return len(self.pmf)

    def __getitem__(self, rows: slice | npt.NDArray[Any] | list[int]) -> Self:
        """The same distributions in another order or number; `rows` as in numpy."""
        if isinstance(rows, int | np.integer):
            rows = slice(rows, rows + 1 or None)
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
            raise ValueError(f"a quantile must lie between 0 and 1, not {q}")
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
        return rng.integers(low, high, endpoint=True)

    # Changing

    def given(self, generated: npt.ArrayLike) -> Self:
        """The total length once `generated` tokens exist, shape (n,) or one number.

        A bin that is cut stays uniform above the cut. Where no mass is left above it, the answer
        is expected to run on for one bin more.
        """
        floor = np.broadcast_to(np.asarray(generated, np.int32), (len(self),))
        floor = np.maximum(floor, self.floor)
        ceiling = np.maximum(self.ceiling, floor)
        low, high = self._bounds()
        width = np.maximum(high - low + 1, 1)
        kept = np.clip((high - np.maximum(low, floor[:, None]) + 1) / width, 0, 1)
        weights = self._weights() * kept
        spent = weights.sum(axis=1) <= 0
        following = np.minimum(self.grid.index(floor[spent]) + 1, self.grid.bins - 1)
        weights[spent] = np.eye(self.grid.bins)[following]
        ceiling = np.where(spent, NO_CEILING, ceiling)
        made = type(self).from_weights(self.grid, weights)
        return self.trusted(self.grid, made.pmf, floor=floor, ceiling=ceiling.astype(np.int32))

    def clip(self, max_tokens: npt.ArrayLike) -> Self:
        """The length under a limit, shape (n,) or one number: mass above it moves to its bin."""
        limit = np.broadcast_to(np.asarray(max_tokens), (len(self),))
        limit = np.maximum(np.minimum(limit, self.ceiling), self.floor).astype(np.int32)
        last = self.grid.index(limit)
        low, high = self._bounds()
        weights = self._weights()
        inside = np.clip((limit[:, None] - low + 1) / np.maximum(high - low + 1, 1), 0, 1)
        kept = weights * inside
        kept[np.arange(len(self)), last] += (weights - kept).sum(axis=1)
        pmf = type(self).from_weights(self.grid, kept).pmf
        return self.trusted(self.grid, pmf, floor=self.floor, ceiling=limit)

    @classmethod
    def mixture(cls, parts: Sequence[Self], weights: npt.ArrayLike) -> Self:
        """Row by row, the parts mixed with `weights`, shape (parts,) or (parts, n)."""
        shares = np.asarray(weights, dtype=np.float64)
        shares = shares.reshape(len(parts), -1, 1) / shares.sum(axis=0).reshape(1, -1, 1)
        mixed = cls.from_weights(
            parts[0].grid, sum(share * p.pmf for share, p in zip(shares, parts, strict=True))
        )
        floor = np.min([p.floor for p in parts], axis=0)
        ceiling = np.max([p.ceiling for p in parts], axis=0)
        return cls.trusted(mixed.grid, mixed.pmf, floor=floor, ceiling=ceiling)

    @classmethod
    def concat(cls, parts: Sequence[Self]) -> Self:
        """The rows of all parts, one below the other; they must share a grid."""
        if any(p.grid != parts[0].grid for p in parts):
            raise ValueError("distributions on different grids cannot be joined")
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
        """First and last length of every bin, after the cuts of floor and ceiling, (n, bins)."""
        edges = self.grid.edges.astype(np.float64)
        first, last = edges[None, :-1], edges[None, 1:] - 1
        # The overflow has no end: a floor beyond its nominal one moves that on.
        last = np.repeat(last, len(self), axis=0)
        last[:, -1] = np.maximum(last[:, -1], 2.0 * self.floor)
        low = np.maximum(first, self.floor[:, None])
        high = np.minimum(last, self.ceiling[:, None])
        return low, np.maximum(high, low - 1)

    def _bounds_of(
        self, bins: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        low, high = self._bounds()
        low, high = np.take_along_axis(low, bins, 1), np.take_along_axis(high, bins, 1)
        return low, np.maximum(high, low)

    def _locate(
        self, levels: npt.NDArray[np.float64]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """The bin that holds each level of mass, and how far into it the level lies, (n, m)."""
        cum = np.cumsum(self._weights(), axis=1)
        cum /= cum[:, -1:]
        # One search for all rows: row i is shifted to i, …, i + 1.
        rows = np.arange(len(self))[:, None]
        flat = (cum + rows).ravel()
        found = np.searchsorted(flat, (levels + rows).ravel(), side="left").reshape(levels.shape)
        found = found - rows * self.grid.bins
        # A level of 0 (or one rounded down) may name an empty bin before the first full one.
        full = self.pmf > 0
        first = np.argmax(full, axis=1)[:, None]
        last = self.grid.bins - 1 - np.argmax(full[:, ::-1], axis=1)[:, None]
        found = np.clip(found, first, last)
        mass = np.take_along_axis(self._weights(), found, 1)
        end = np.take_along_axis(cum, found, 1)
        share = np.where(mass > 0, 1 - (end - levels) / np.where(mass > 0, mass, 1), 0)
        return found, np.clip(share, 0, 1)
