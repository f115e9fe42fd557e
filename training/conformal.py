"""Wraps an artifact so that its intervals are corrected by true lengths."""

import numpy as np

from lengthpred.artifact import load
from lengthpred.data.table import Rows
from lengthpred.models.conformal import Conformal
from lengthpred.training.progress import OnProgress, silent
from lengthpred.training.settings import ConformalSettings

__all__ = ["train"]


def train(
    rows: Rows,
    calibration: Rows,
    settings: ConformalSettings,
    rng: np.random.Generator,
    on_progress: OnProgress = silent,
) -> Conformal:
    """The artifact that the settings name, wrapped; corrected by the calibration rows if `warm`.

    The base itself learns nothing: `rows` and `rng` are not used. Raises ArtifactError for what
    is no artifact of a predictor, and BackendError for a small model that cannot be used.
    """
    made = Conformal(load(settings.base), settings.half_life, settings.strength)
    if settings.warm:
        on_progress("observing the calibration rows", 0, 0)
        made.correct(calibration.requests, calibration.truth, calibration.truth_censored)
    return made
