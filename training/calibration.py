"""Calibration: from scores and true lengths to a table of distributions."""

import numpy as np
import numpy.typing as npt

from lengthpred.base import FloatArray, IntArray
from lengthpred.distribution import LengthGrid
from lengthpred.errors import DataError, require
from lengthpred.models.score_table import ScoreTable
from lengthpred.survival import marginal

__all__ = ["fit_score_table"]

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
    prior_strength: float = PRIOR_STRENGTH,
) -> ScoreTable:
    """A monotone table from score to distribution, fitted on scores that the model did not learn.

    scores, lengths, censored, weights: shape (m,), one for each observed length. At each of 64
    evenly ranked scores the lengths of neighbouring ranks are weighted by a Gaussian, and their
    hazards estimated as Kaplan and Meier do, so that stopped answers count for what they show.
    The marginal counts for `prior_strength` observations at each.
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
    prior = marginal(grid, lengths, censored, weights)
    near = weights * np.exp(-0.5 * ((ranks - at[:, None]) / bandwidth) ** 2)
    pmf = np.array([marginal(grid, lengths, censored, row, prior, prior_strength) for row in near])
    return ScoreTable(grid, knots, _monotone(pmf).astype(np.float32), prior.astype(np.float32))


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
