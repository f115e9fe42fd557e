"""Lengths that were stopped by a limit: the product-limit estimate over the bins of a grid.

Source: Kaplan & Meier, "Nonparametric Estimation from Incomplete Observations" (1958). A hazard
is P(a length ends in bin b | it reaches bin b); a distribution is the product of what survives.
"""

import numpy as np
import numpy.typing as npt

from lengthpred.base import FloatArray, IntArray
from lengthpred.distribution import LengthGrid

__all__ = ["count", "hazards", "hazards_of", "marginal", "pmf_of"]


def count(
    grid: LengthGrid,
    lengths: IntArray,
    censored: npt.NDArray[np.bool_],
    weights: FloatArray,
) -> FloatArray:
    """Weight of the lengths (m,) that ended in each bin, and of those stopped there, (2, bins)."""
    bins = grid.index(lengths)
    ended = np.bincount(bins, weights * ~censored, grid.bins)
    return np.array([ended, np.bincount(bins, weights * censored, grid.bins)], np.float64)


def hazards(
    counts: FloatArray, parent: FloatArray | None = None, strength: float = 0.0
) -> FloatArray:
    """Hazards (bins,) from `counts` (2, bins); `parent` (bins,) weighs as `strength` lengths.

    A length stopped inside a bin was not seen to the bin's end: it is at risk before it only.
    Where nothing is at risk the hazard is the parent's, so that the tail of what was stopped is
    the parent's too. Without a parent it ends in the bin above the highest length that was seen.
    """
    ended, stopped = counts
    at_risk = (ended + stopped)[::-1].cumsum()[::-1] - stopped
    if parent is not None:
        found: FloatArray = (ended + strength * parent) / (at_risk + strength)
    else:
        seen = np.flatnonzero(ended + stopped)
        if len(seen):
            found = np.divide(ended, at_risk, out=np.zeros_like(ended), where=at_risk > 0)
            found[seen[-1] + 1 :] = 1.0
        else:
            found = 1 / np.arange(len(ended), 0, -1.0)
    # Sums of weights can leave a hazard of 1 a little above it.
    found = np.minimum(found, 1.0)
    found[-1] = 1.0
    return found


def pmf_of(hazard: FloatArray) -> FloatArray:
    """The distribution (bins,) with these hazards (bins,)."""
    alive = np.cumprod(1 - hazard)
    pmf = hazard * np.concatenate([[1.0], alive[:-1]])
    scaled: FloatArray = pmf / pmf.sum()
    return scaled


def hazards_of(pmf: FloatArray) -> FloatArray:
    """The hazards (bins,) of a distribution (bins,); 1 where nothing survives."""
    reach = pmf[::-1].cumsum()[::-1]
    found: FloatArray = np.divide(pmf, reach, out=np.ones_like(reach), where=reach > 1e-12)
    return np.minimum(found, 1.0)


def marginal(
    grid: LengthGrid,
    lengths: IntArray,
    censored: npt.NDArray[np.bool_],
    weights: FloatArray,
    parent: FloatArray | None = None,
    strength: float = 10.0,
) -> FloatArray:
    """The distribution (bins,) of lengths (m,), some of them censored.

    `parent`, a distribution (bins,), weighs as `strength` more lengths.
    """
    above = None if parent is None else hazards_of(np.asarray(parent, np.float64))
    return pmf_of(hazards(count(grid, lengths, censored, weights), above, strength))
