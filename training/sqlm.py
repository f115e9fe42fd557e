"""Makes S-QLM: a histogram, a detector of what it cannot know, and a second opinion for that."""

import numpy as np

from lengthpred.artifact import load
from lengthpred.base import Predictor
from lengthpred.data.table import Rows
from lengthpred.distribution import LengthGrid
from lengthpred.errors import ArtifactError
from lengthpred.models.cascade import Cascade
from lengthpred.training import boosted, detectors, histogram
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

    Raises DataError when there is too little to learn from, and ArtifactError, before any work,
    for a fallback that cannot be used.
    """
    fallback = None if settings.fallback is None else _fallback(settings.fallback)
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
