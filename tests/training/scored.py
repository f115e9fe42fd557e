"""Scores, and lengths that grow with them."""

import numpy as np
import numpy.typing as npt

from lengthpred import LengthGrid
from lengthpred.models.score_table import ScoreTable
from lengthpred.training.calibration import fit_score_table

__all__ = ["scored_lengths", "table_of"]


def scored_lengths(
    n: int, seed: int, limit: int | None = None
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """n scores in (0, 1), lengths whose median is 20 to 400, and whether `limit` stopped each."""
    rng = np.random.default_rng(seed)
    scores = rng.random(n)
    lengths = np.rint(20 * 20**scores * rng.lognormal(0, 0.6, n)).astype(np.int64)
    if limit is None:
        return scores, lengths, np.zeros(n, bool)
    return scores, np.minimum(lengths, limit), lengths > limit


def table_of(
    scores: npt.NDArray[np.float64],
    lengths: npt.NDArray[np.int64],
    censored: npt.NDArray[np.bool_],
) -> ScoreTable:
    return fit_score_table(LengthGrid(), scores, lengths, censored, np.ones(len(scores)))
