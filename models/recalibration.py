"""Mends distributions by where the truth fell in past ones.

A calibrated predictor's probability integral transform (PIT), its cdf F at the true length, is
uniform on [0, 1]. Where it is not, its own distribution G mends the predictor: G(F(x)) is
calibrated (Kuleshov, Fenner & Ermon, "Accurate Uncertainties for Deep Learning Using Calibrated
Regression", 2018; Chernozhukov, Wüthrich & Zhu, "Distributional conformal prediction", 2021).
G rises, so that of two requests the one that was expected to run longer still is.
"""

from collections.abc import Mapping, Sequence
from typing import Self

import numpy as np
import numpy.typing as npt

from lengthpred import survival
from lengthpred.base import FloatArray, IntArray
from lengthpred.distribution import NO_CEILING, LengthDistribution

__all__ = ["LEVELS", "Recalibration", "levels_of"]

Path = tuple[str, ...]

_TAIL = np.geomspace(1e-5, 0.02, 60)
# Fine near 0 and 1: after a shift every truth may lie where a thousandth of the mass was.
LEVELS: FloatArray = np.concatenate(
    [[0.0], _TAIL, np.linspace(0.03, 0.97, 95), 1 - _TAIL[::-1], [1.0]]
)
IDENTITY = 5.0  # observations that the identity counts for, as the parent of all traffic
BACKGROUND = 1e-3  # share of mass spread over all bins: where a base has none, G could put none
MOST_CELLS = 2_000
CHUNK = 4096


class Recalibration:
    """Distributions of the PIT in nested cells of traffic, each backed off to its parent.

    half_life  observations of a cell after which one counts half
    strength   observations that a cell's parent counts for; that of all traffic is the identity
    cells      by path, () for all traffic: between neighbouring LEVELS, the truths that lay there
               and those that lay there or above, float64 (2, len(LEVELS) - 1)

    A cell's G is a product-limit estimate over levels with its parent as the prior (Susarla & Van
    Ryzin, 1976), so that an answer that was stopped counts for what it shows: its PIT lies above
    F(length - 1). Never changes: `learnt` makes another one.
    """

    def __init__(
        self,
        half_life: float = 150.0,
        strength: float = 30.0,
        cells: Mapping[Path, FloatArray] | None = None,
    ) -> None:
        if not (half_life > 0 and strength > 0):
            raise ValueError("half_life and strength must be above 0")
        self.half_life = half_life
        self.strength = strength
        self.cells = dict(cells or {})
        self._maps: dict[Path, FloatArray] = {}

    def __call__(self, dist: LengthDistribution, paths: Sequence[Path]) -> LengthDistribution:
        """`dist` (n rows) mended, each row by its path's cell; as it is before any observation."""
        if not self.cells or not len(dist):
            return dist
        weights = smoothed(dist).pmf.cumsum(axis=1, dtype=np.float64)
        weights /= weights[:, -1:]
        members: dict[Path, list[int]] = {}
        for i, path in enumerate(paths):
            members.setdefault(self._nearest(path), []).append(i)
        for path, rows in members.items():
            at = slice(None) if len(members) == 1 else np.array(rows)
            weights[at] = np.interp(weights[at], LEVELS, self._map(path))
        weights[:, 1:] -= weights[:, :-1].copy()
        pmf = np.maximum(weights, 0).astype(np.float32)
        return dist.trusted(dist.grid, pmf, floor=dist.floor, ceiling=dist.ceiling)

    def learnt(
        self,
        dist: LengthDistribution,
        paths: Sequence[Path],
        lengths: IntArray,
        censored: npt.NDArray[np.bool_],
    ) -> "Recalibration":
        """One that has also seen lengths, (n,), of requests for which `dist` was predicted."""
        cells = dict(self.cells)
        for start in range(0, len(dist), CHUNK):
            part = slice(start, start + CHUNK)
            ended, at_risk = seen_at(dist[part], lengths[part], censored[part])
            members: dict[Path, list[int]] = {}
            for i, path in enumerate(paths[part]):
                for end in range(len(path) + 1):
                    members.setdefault(path[:end], []).append(i)
            for path, rows in members.items():
                if path in cells or len(cells) < MOST_CELLS:
                    cells[path] = self._counted(cells.get(path), ended[rows], at_risk[rows])
        return Recalibration(self.half_life, self.strength, cells)

    def _counted(
        self, cell: FloatArray | None, ended: FloatArray, at_risk: FloatArray
    ) -> FloatArray:
        """The cell once these, (n, levels) each, came one by one: the last has not faded yet."""
        fade = 0.5 ** (1 / self.half_life)
        faded = fade ** np.arange(len(ended) - 1, -1, -1)
        fresh = np.array([faded @ ended, faded @ at_risk])
        return fresh if cell is None else cell * fade ** len(ended) + fresh

    def _nearest(self, path: Path) -> Path:
        while path not in self.cells:
            path = path[:-1]
        return path

    def _map(self, path: Path) -> FloatArray:
        found = self._maps.get(path)
        if found is None:
            found = np.concatenate([[0.0], self._pmf(path).cumsum()])
            found /= found[-1]
            self._maps[path] = found
        return found

    def _pmf(self, path: Path) -> FloatArray:
        """The PIT's distribution over LEVELS: its parent's mass counts as so many truths more."""
        found, strength = np.diff(LEVELS), IDENTITY
        for end in range(len(path) + 1):
            ended, at_risk = self.cells[path[:end]] + strength * _counts_of(found)
            found = survival.pmf_of(np.minimum(ended / at_risk, 1.0))
            strength = self.strength
        return found

    def array(self) -> FloatArray:
        """The cells in the order of `paths`, (cells, 2, len(LEVELS) - 1)."""
        cells = [self.cells[path] for path in self.paths()]
        return np.array(cells, np.float64).reshape(len(cells), 2, len(LEVELS) - 1)

    def paths(self) -> list[Path]:
        """The cells, in the order in which `array` holds them."""
        return sorted(self.cells)

    @classmethod
    def from_array(
        cls,
        half_life: float,
        strength: float,
        paths: Sequence[Sequence[str]],
        cells: npt.NDArray[np.float64],
    ) -> Self:
        """The opposite of `array` and `paths`; raises ValueError for what does not fit."""
        if cells.shape != (len(paths), 2, len(LEVELS) - 1):
            raise ValueError(f"cells have shape {cells.shape}")
        if not (np.isfinite(cells).all() and (cells >= 0).all()):
            raise ValueError("cells must be finite and not below 0")
        named = {
            tuple(str(step) for step in path): np.array(cell, np.float64)
            for path, cell in zip(paths, cells, strict=True)
        }
        if any(path[:end] not in named for path in named for end in range(len(path))):
            raise ValueError("a cell has no parent")
        return cls(half_life, strength, named)


def smoothed(dist: LengthDistribution) -> LengthDistribution:
    """`dist` with a little mass on every bin within its bounds."""
    if (dist.floor > 0).any() or (dist.ceiling < NO_CEILING).any():
        edges = dist.grid.edges
        within = (edges[1:] > dist.floor[:, None]) & (edges[:-1] <= dist.ceiling[:, None])
        within[:, -1] |= dist.ceiling >= edges[-1]
        spread = within / np.maximum(within.sum(axis=1, keepdims=True), 1)
    else:
        spread = np.full(dist.grid.bins, 1 / dist.grid.bins)
    pmf = ((1 - BACKGROUND) * dist.pmf + BACKGROUND * spread).astype(np.float32)
    return dist.trusted(dist.grid, pmf, floor=dist.floor, ceiling=dist.ceiling)


def levels_of(
    dist: LengthDistribution, lengths: IntArray, censored: npt.NDArray[np.bool_]
) -> tuple[FloatArray, FloatArray]:
    """The levels between which a truth's PIT lies, (n,) each: F(x - 1) and F(x).

    The upper one is 1 where the answer was stopped at x.
    """
    low = dist.cdf(lengths - 1)
    return low, np.where(censored, 1.0, np.maximum(dist.cdf(lengths), low))


def seen_at(
    dist: LengthDistribution, lengths: IntArray, censored: npt.NDArray[np.bool_]
) -> tuple[FloatArray, FloatArray]:
    """What each row adds to the two counts of a cell, (n, len(LEVELS) - 1) each.

    A truth is spread over the levels of its own mass, from F(x - 1) to F(x): what the randomised
    PIT is on average, without its noise and without a seed (Czado, Gneiting & Held, 2009). An
    answer that was stopped was at risk up to the level where it was.
    """
    low, high = levels_of(smoothed(dist), lengths, censored)
    width = high - low
    overlap = np.minimum(high[:, None], LEVELS[1:]) - np.maximum(low[:, None], LEVELS[:-1])
    spread = np.maximum(overlap, 0) / np.maximum(width, 1e-9)[:, None]
    point = np.flatnonzero(width <= 1e-9)  # beyond all mass
    spread[point] = 0
    last = len(LEVELS) - 2
    spread[point, np.clip(np.searchsorted(LEVELS, low[point], side="right") - 1, 0, last)] = 1
    reached = np.clip((low[:, None] - LEVELS[:-1]) / np.diff(LEVELS), 0, 1)
    ended = np.where(censored[:, None], 0, spread)
    return ended, np.where(censored[:, None], reached, _reached(ended))


def _counts_of(pmf: FloatArray) -> FloatArray:
    """A cell's two counts of one truth with this distribution; nothing is divided by 0."""
    return np.array([pmf, np.maximum(_reached(pmf), 1e-300)])


def _reached(ended: FloatArray) -> FloatArray:
    return ended[..., ::-1].cumsum(axis=-1)[..., ::-1]
