"""Makes the average of trained predictors."""

import numpy as np

from lengthpred.artifact import Storable, load
from lengthpred.data.table import Rows
from lengthpred.errors import SettingsError
from lengthpred.models.average import Average
from lengthpred.training.progress import OnProgress, silent
from lengthpred.training.settings import AverageSettings

__all__ = ["train"]


def train(
    rows: Rows,
    calibration: Rows,
    settings: AverageSettings,
    rng: np.random.Generator,
    on_progress: OnProgress = silent,
) -> Average:
    """Put the artifacts together; nothing is fitted, and `rows` only tell the metrics.

    Raises ArtifactError for what is none, SettingsError for predictors that do not go together.
    """
    parts = [load(path) for path in settings.parts]
    for path, part in zip(settings.parts, parts, strict=True):
        if not isinstance(part, Storable):
            raise SettingsError(f"{path} cannot be stored within an average")
    try:
        return Average(parts)
    except ValueError as error:
        raise SettingsError(f"{', '.join(settings.parts)}: {error}") from error
