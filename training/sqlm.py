"""Makes S-QLM: a histogram, a detector of what it cannot know, and a second opinion for that."""

import numpy as np

from lengthpred.artifact import load
from lengthpred.data.table import Rows
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
    """Train all three parts, or take the fallback from the artifact that the settings name."""
    primary = histogram.train(rows, calibration, settings.histogram, rng, on_progress)
    detector = detectors.train(rows, calibration, settings.detector, rng, on_progress)
    if settings.fallback is not None:
        fallback = load(settings.fallback)
    else:
        fallback = boosted.train(rows, calibration, settings.boosted, rng, on_progress)
    return Cascade(primary, detector, fallback, settings.alpha)
