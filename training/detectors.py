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
    described,
    mahalanobis_distance,
    neighbour_distance,
    read,
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
    embedding = _embedding(rows.sample(PROJECTION_ROWS, rng), settings, rng)
    on_progress("embedding calibration prompts", 1, 3)
    held = embedding(calibration.requests)
    reference = embedding(rows.sample(settings.reference_rows, rng).requests)
    on_progress("measuring distances", 2, 3)
    if settings.method == "mahalanobis":
        mean, precision = _normal(described(reference))
        return Mahalanobis(embedding, mahalanobis_distance(held, mean, precision), mean, precision)
    return _nearest(embedding, held, reference, settings.neighbours)


def _nearest(
    embedding: HashedEmbedding,
    held: npt.NDArray[np.float32],
    reference: npt.NDArray[np.float32],
    k: int,
) -> NearestNeighbours:
    """The detector of nearest neighbours; the spread of its two parts is that among `held`."""
    directions = described(reference)[:, :-2]
    k = min(k, len(directions))
    parts = neighbour_distance(held, directions, k)
    # Measured in calibration traffic: among training prompts each would be its own neighbour.
    # Two numbers from thousands of rows leave the p-values what they promise.
    scale = 1 / np.maximum(parts.std(axis=0), 1e-9)
    return NearestNeighbours(embedding, parts @ scale, directions, scale, k)


def _with_text(rows: Rows) -> Rows:
    return rows.with_prompt()


def _embedding(rows: Rows, settings: DetectorSettings, rng: np.random.Generator) -> HashedEmbedding:
    """Latent semantic analysis: singular vectors of the prompts' n-grams, weighted by rarity."""
    sparse = require("scipy.sparse", "train", "training a detector")
    decomposition = require("sklearn.decomposition", "train", "training a detector")
    slots = [hashed(words(read(request)), settings.bits) for request in rows.requests]
    sizes = np.array([len(row) for row in slots])
    every = np.concatenate(slots)
    slot_count = 1 << settings.bits
    rarity = np.log((1 + len(slots)) / (1 + np.bincount(every, minlength=slot_count))) + 1
    lengths = np.array([np.sqrt((rarity[row] ** 2).sum()) for row in slots])
    values = rarity[every] / np.repeat(np.maximum(lengths, 1e-12), sizes)
    matrix: Any = sparse.csr_matrix(
        (values.astype(np.float32), every, np.concatenate([[0], np.cumsum(sizes)])),
        shape=(len(slots), slot_count),
    )
    dims = min(settings.dims, len(slots) - 1, slot_count)
    svd = decomposition.TruncatedSVD(dims, random_state=int(rng.integers(2**31)))
    # It divides by the prompts' variance, 0 where all are alike, for a share not used here.
    with np.errstate(divide="ignore", invalid="ignore"):
        svd.fit(matrix)
    return HashedEmbedding(svd.components_.T.astype(np.float32), rarity.astype(np.float32))


def _normal(
    points: npt.NDArray[np.float32],
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Mean and precision of points (r, d), the covariance shrunk as Ledoit and Wolf do."""
    covariance = require("sklearn.covariance", "train", "training a detector")
    fitted = covariance.LedoitWolf().fit(points)
    return fitted.location_.astype(np.float32), fitted.precision_.astype(np.float32)
