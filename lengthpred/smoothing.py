"""What is left of answers that are looked at again and again while they grow.

Something that looks at a growing answer (a probe on the model's hidden states, a classifier on the
text) gives at each look a noisy opinion of how much is left. TRAIL (Shahout et al., "Don't Stop Me
Now: Embedding Based Scheduling for LLMs", 2024, arXiv:2410.01035) joins these opinions with a
Bayesian filter: the last posterior moves on by the tokens that were written since, and is
multiplied by the likelihood of the new look.

TRAIL keeps the posterior in bins of what is left, and lets a bin lose 1 / width of its mass with
each token, which blurs it. While what is left falls, the total stays as it is; so here the
posterior is of the total, and to move it on is `LengthDistribution.given`, which is exact.

The filter takes the looks' errors for independent. Where each look has seen all that those before
it saw, begin with the prediction each time instead of the last posterior: docs/benchmarks.md.
"""

import numpy as np
import numpy.typing as npt

from lengthpred.base import FloatArray, IntArray
from lengthpred.distribution import LengthDistribution, LengthGrid

__all__ = ["smooth", "spread"]


def smooth(
    before: LengthDistribution,
    generated: npt.ArrayLike,
    likelihood: npt.ArrayLike,
    bins: LengthGrid,
    *,
    trust: float = 1.0,
) -> LengthDistribution:
    """The total lengths of n answers after one more look at each.

    before      n distributions: the prediction at first, then what the last look gave
    generated   (n,) or one number: tokens that exist now
    likelihood  (n, bins.bins), of any scale: how likely each bin of what is left makes this look;
                equal numbers say nothing. The probabilities of a classifier, divided by the share
                that each bin has of its training data, are one (TRAIL leaves the division out)
    bins        of what is left, in tokens
    trust       the power that likelihoods are raised to: below 1 for looks that repeat each other's
                errors, as those at one text do; 0 is `given`

    Evidence is averaged within each bin of `before`: on a finer grid (`spread`) less is lost. A
    look that no length left would allow is passed over. Raises ValueError for likelihoods of
    another shape, negative or not finite ones, and a trust that is not from 0 to 1.
    """
    looks = np.asarray(likelihood, np.float64)
    if looks.shape != (len(before), bins.bins):
        raise ValueError(
            f"likelihood must have shape ({len(before)}, {bins.bins}), not {looks.shape}"
        )
    if not ((looks >= 0).all() and np.isfinite(looks).all()):
        raise ValueError("likelihoods must be non-negative and finite")
    if not 0 <= trust <= 1:
        raise ValueError(f"trust must lie between 0 and 1, not {trust}")
    moved = before.given(generated)
    scaled = looks / np.maximum(looks.max(axis=1, keepdims=True), np.finfo(np.float64).tiny)
    weights = moved.pmf * _averages(scaled**trust, bins, moved, np.asarray(generated))
    nowhere = weights.sum(axis=1) <= 0
    weights[nowhere] = moved.pmf[nowhere]
    pmf = LengthDistribution.from_weights(moved.grid, weights).pmf
    return LengthDistribution.trusted(moved.grid, pmf, floor=moved.floor, ceiling=moved.ceiling)


def spread(dist: LengthDistribution, grid: LengthGrid) -> LengthDistribution:
    """The same n distributions on another grid, exact where that has all edges of the old one.

    What lies beyond its last bin is counted there.
    """
    low, high = dist._bounds()
    at = grid.edges[1:-1]
    held = dist.grid.index(at)
    mass = dist.pmf.astype(np.float64)
    before = np.cumsum(mass, axis=1) - mass
    inside = (at - low[:, held]) / np.maximum(high - low + 1, 1)[:, held]
    below = before[:, held] + mass[:, held] * np.clip(inside, 0, 1)
    weights = np.diff(below, axis=1, prepend=0, append=mass.sum(axis=1, keepdims=True))
    pmf = LengthDistribution.from_weights(grid, np.maximum(weights, 0)).pmf
    return LengthDistribution.trusted(grid, pmf, floor=dist.floor, ceiling=dist.ceiling)


def _averages(
    looks: FloatArray, bins: LengthGrid, total: LengthDistribution, generated: IntArray
) -> FloatArray:
    """The mean likelihood of the lengths in each bin of the total, (n, bins of the total)."""
    low, high = total._bounds()
    written = np.broadcast_to(generated, (len(total),))[:, None]
    widths = np.diff(bins.edges)
    upto = np.cumsum(looks * widths, axis=1) - looks * widths
    rows = np.arange(len(looks))[:, None]

    def below(left: FloatArray) -> FloatArray:
        """The likelihoods of all that is shorter, added up; the last bin has no end."""
        at = bins.index(np.maximum(left, 0))
        added: FloatArray = upto[rows, at] + looks[rows, at] * (left - bins.edges[at])
        return added

    summed = below(high + 1 - written) - below(low - written)
    means: FloatArray = np.maximum(summed, 0) / np.maximum(high - low + 1, 1)
    return means
