"""Makes S-QLM: a histogram, a detector of what it cannot know, and a second opinion for that."""

import numpy as np

from lengthpred.artifact import load
from lengthpred.base import Predictor
from lengthpred.data.table import Rows
from lengthpred.distribution import LengthGrid
from lengthpred.errors import ArtifactError, SettingsError
from lengthpred.models.cascade import Cascade
from lengthpred.training import boosted, detectors, histogram, slm
from lengthpred.training.progress import OnProgress, silent
from lengthpred.training.settings import SqlmSettings

__all__ = ["train"]


def train(
    rows: Rows,
    calibration: Rows,
    settings: SqlmSettings,
    rng: np.random.Generator,
    on_progress: OnProgress = silent,
) -> Cascade:
    """Train all three parts, or take the fallback from the artifact that the settings name.

    Raises DataError when there is too little to learn from; SettingsError, ArtifactError and
    BackendError, before other work, for a fallback or a small model that cannot be used.
    """
    fallback: Predictor | None = None
    if settings.fallback is not None and settings.slm is not None:
        raise SettingsError("'fallback' and [slm] are two second opinions: give one of them")
    if settings.fallback is not None:
        fallback = _fallback(settings.fallback)
    elif settings.slm is not None:
        fallback = slm.train(rows, calibration, settings.slm, rng, on_progress)
    primary = histogram.train(rows, calibration, settings.histogram, rng, on_progress)
    detector = detectors.train(rows, calibration, settings.detector, rng, on_progress)
    if fallback is None:
        fallback = boosted.train(rows, calibration, settings.boosted, rng, on_progress)
    return Cascade(primary, detector, fallback, settings.alpha)


def _fallback(path: str) -> Predictor:
    fallback = load(path)
    if fallback.predict([]).grid != LengthGrid():
        raise ArtifactError(f"{path} answers on another grid than this lengthpred trains on")
    return fallback
