"""Makes the predictor that asks a small model how long its answer would be."""

import numpy as np

from lengthpred.data.table import Rows
from lengthpred.models.slm import Generation
from lengthpred.models.slm_states import STATED_TOKENS, StatedLength
from lengthpred.training.progress import OnProgress, silent
from lengthpred.training.settings import SlmStatesSettings
from lengthpred.training.slm import fit_on_samples, pick

__all__ = ["train"]


def train(
    rows: Rows,
    calibration: Rows,
    settings: SlmStatesSettings,
    rng: np.random.Generator,
    on_progress: OnProgress = silent,
) -> StatedLength:
    """Ask the small model about a sample of the prompts, and fit a map for each target model.

    A stated length takes the place of a written one; see `lengthpred.training.slm.train`, also for
    what happens with few pairs. Raises BackendError when the small model cannot be used.
    """
    generation = Generation(settings.n, settings.temperature, STATED_TOKENS, settings.seed)
    picked = rows.take(pick(rows, settings.pairs, rng))
    return fit_on_samples(StatedLength, settings.source(), generation, picked, on_progress)
