"""Makes the histogram predictor: one pass over the table, any length."""

from collections.abc import Iterable

import numpy as np

from lengthpred.data.table import Rows
from lengthpred.distribution import LengthGrid
from lengthpred.models.histogram import Histogram
from lengthpred.training.progress import OnProgress, silent
from lengthpred.training.settings import HistogramSettings

__all__ = ["train"]


def train(
    rows: Rows | Iterable[Rows],
    calibration: Rows,
    settings: HistogramSettings,
    rng: np.random.Generator,
    on_progress: OnProgress = silent,
) -> Histogram:
    """Count every observed length; `rows` may be a stream of pieces. Deterministic."""
    histogram = Histogram(LengthGrid(), settings.strength, settings.half_life)
    for done, piece in enumerate([rows] if isinstance(rows, Rows) else rows, 1):
        requests = [piece.requests[i] for i in piece.owner]
        histogram.learn(requests, piece.lengths, piece.censored, piece.weights)
        on_progress("counting lengths", done, 0)
    return histogram
