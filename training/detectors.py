"""Makes the OOD detectors: an embedding from the training prompts, and calibration distances."""

from typing import Any

import numpy as np
import numpy.typing as npt

from lengthpred.data.table import Rows
from lengthpred.errors import DataError, require
from lengthpred.models.detectors import (
    Conformal,
    HashedEmbedding,
    Mahalanobis,
    NearestNeighbours,
    mahalanobis_distance,
    neighbour_distance,
)
from lengthpred.models.text_features import hashed, words
from lengthpred.training.progress import OnProgress, silent
from lengthpred.training.settings import DetectorSettings

__all__ = ["train"]

MIN_ROWS = 20
# Prompts that the projection is fitted on: more change it little and cost memory.
PROJECTION_ROWS = 30_000


def train(
    rows: Rows,
    calibration: Rows,
    settings: DetectorSettings,
    rng: np.random.Generator,
    on_progress: OnProgress = silent,
) -> Conformal:
    """Fit on the prompts of `rows`; the p-values' distances come from `calibration` alone.

    Raises DataError when there is too little to learn from.
    """
    rows, calibration = _with_text(rows), _with_text(calibration)
    if len(rows) < MIN_ROWS or len(calibration) < MIN_ROWS:
        raise DataError(
            f"a detector needs {MIN_ROWS} rows with a prompt to train on and as many to "
            f"calibrate on; there are {len(rows)} and {len(calibration)}"
        )
    on_progress("projecting prompts", 0, 3)
    embedding = HashedEmbedding(_projection(_sample(rows, PROJECTION_ROWS, rng), settings, rng))
    on_progress("embedding calibration prompts", 1, 3)
    held = embedding(calibration.requests)
    reference = embedding(_sample(rows, settings.reference_rows, rng).requests)
    on_progress("measuring distances", 2, 3)
    if settings.method == "mahalanobis":
        mean, precision = _normal(reference)
        distances = mahalanobis_distance(held, mean, precision)
        return Mahalanobis(embedding, distances, mean, precision)
    k = min(settings.neighbours, len(reference))
    distances = neighbour_distance(held, reference, k)
    return NearestNeighbours(embedding, distances, reference, k)


def _with_text(rows: Rows) -> Rows:
    return rows.take([bool(request.prompt) for request in rows.requests])


def _sample(rows: Rows, most: int, rng: np.random.Generator) -> Rows:
    if len(rows) <= most:
        return rows
    return rows.take(np.sort(rng.choice(len(rows), most, replace=False)))


def _projection(
    rows: Rows, settings: DetectorSettings, rng: np.random.Generator
) -> npt.NDArray[np.float32]:
    """Latent semantic analysis: the first singular vectors of the prompts' weighted n-grams."""
    sparse = require("scipy.sparse", "train", "training a detector")
    decomposition = require("sklearn.decomposition", "train", "training a detector")
    slots = [hashed(words(request.prompt), settings.bits) for request in rows.requests]
    sizes = np.array([len(row) for row in slots])
    every = np.concatenate(slots)
    slot_count = 1 << settings.bits
    rarity = np.log((1 + len(slots)) / (1 + np.bincount(every, minlength=slot_count))) + 1
    values = rarity[every] / np.repeat(np.sqrt(np.maximum(sizes, 1)), sizes)
    matrix: Any = sparse.csr_matrix(
        (values.astype(np.float32), every, np.concatenate([[0], np.cumsum(sizes)])),
        shape=(len(slots), slot_count),
    )
    dims = min(settings.dims, len(slots) - 1, slot_count)
    svd = decomposition.TruncatedSVD(dims, random_state=int(rng.integers(2**31)))
    svd.fit(matrix)
    projection: npt.NDArray[np.float32] = (svd.components_ * rarity).T.astype(np.float32)
    return projection


def _normal(
    points: npt.NDArray[np.float32],
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Mean and precision of points (r, dims), the covariance shrunk as Ledoit and Wolf do."""
    covariance = require("sklearn.covariance", "train", "training a detector")
    fitted = covariance.LedoitWolf().fit(points)
    return fitted.location_.astype(np.float32), fitted.precision_.astype(np.float32)
