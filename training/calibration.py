"""Calibration: from scores and true lengths to a table of distributions."""

import numpy as np
import numpy.typing as npt

from lengthpred.base import FloatArray, IntArray
from lengthpred.distribution import LengthGrid
from lengthpred.errors import DataError, require
from lengthpred.models.score_table import ScoreTable

__all__ = ["fit_score_table", "marginal"]

KNOTS = 64
# Observations that the marginal counts for at a knot: keeps thin neighbourhoods from claiming
# that what they have not seen is impossible.
PRIOR_STRENGTH = 2.0


def fit_score_table(
    grid: LengthGrid,
    scores: FloatArray,
    lengths: IntArray,
    censored: npt.NDArray[np.bool_],
    weights: FloatArray,
) -> ScoreTable:
    """A monotone table from score to distribution, fitted on scores that the model did not learn.

    scores, lengths, censored, weights: shape (m,), one for each observed length. At each of 64
    evenly ranked scores the lengths of neighbouring ranks are weighted by a Gaussian, and their
    hazards estimated as Kaplan and Meier do, so that stopped answers count for what they show.
    Each cumulative probability is then made to fall with the score (isotonic regression).

    Raises DataError when nothing is given.
    """
    known = ~np.isnan(scores)
    scores, lengths, censored, weights = (a[known] for a in (scores, lengths, censored, weights))
    if not len(scores):
        raise DataError("there are no rows to calibrate on: give a larger table")
    values, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    middles: FloatArray = (np.cumsum(counts) - counts / 2) / len(scores)
    ranks = middles[place]
    knots = np.unique(np.quantile(scores, np.linspace(0.002, 0.998, KNOTS)))
    at = np.interp(knots, values, middles)
    bandwidth = max(0.2 * len(scores) ** -0.2, 0.02)
    bins = grid.index(lengths)
    ended = np.zeros((len(knots), grid.bins))
    stopped = np.zeros((len(knots), grid.bins))
    for i, rank in enumerate(at):
        near = weights * np.exp(-0.5 * ((ranks - rank) / bandwidth) ** 2)
        ended[i] = np.bincount(bins, near * ~censored, grid.bins)
        stopped[i] = np.bincount(bins, near * censored, grid.bins)
    prior = marginal(grid, lengths, censored, weights)
    pmf = _survival(ended, stopped, prior)
    return ScoreTable(grid, knots, _monotone(pmf).astype(np.float32), prior.astype(np.float32))


def marginal(
    grid: LengthGrid,
    lengths: IntArray,
    censored: npt.NDArray[np.bool_],
    weights: FloatArray,
) -> FloatArray:
    """The distribution of all lengths together, (bins,), stopped answers counted as such."""
    bins = grid.index(lengths)
    ended = np.bincount(bins, weights * ~censored, grid.bins).astype(np.float64)
    stopped = np.bincount(bins, weights * censored, grid.bins).astype(np.float64)
    flat = np.full(grid.bins, 1 / grid.bins)
    pmf: FloatArray = _survival(ended[None], stopped[None], flat, strength=0.5)[0]
    return pmf


def _survival(
    ended: FloatArray, stopped: FloatArray, prior: FloatArray, strength: float = PRIOR_STRENGTH
) -> FloatArray:
    """Distributions (k, bins) from counts (k, bins) of ends and stops; the prior joins as hazards.

    An answer stopped inside a bin is at risk in the bins before it only.
    """
    reach = np.maximum(prior[::-1].cumsum()[::-1], 1e-12)
    hazard = prior / reach
    at_risk = np.flip(np.flip(ended + stopped, 1).cumsum(1), 1) - stopped
    hazards = np.clip((ended + strength * hazard) / (at_risk + strength), 0, 1)
    hazards[:, -1] = 1
    alive = np.cumprod(1 - hazards, axis=1)
    pmf: FloatArray = hazards * np.column_stack([np.ones(len(alive)), alive[:, :-1]])
    return pmf


def _monotone(pmf: FloatArray) -> FloatArray:
    """The nearest distributions whose cumulative probabilities fall from row to row."""
    isotonic = require("sklearn.isotonic", "train", "calibrating a predictor")
    cdf = np.cumsum(pmf, axis=1)
    fitted = np.column_stack(
        [isotonic.isotonic_regression(column, increasing=False) for column in cdf[:, :-1].T]
    )
    full = np.column_stack([np.zeros(len(cdf)), fitted, np.ones(len(cdf))])
    out = np.maximum(np.diff(full, axis=1), 0)
    scaled: FloatArray = out / out.sum(axis=1, keepdims=True)
    return scaled
