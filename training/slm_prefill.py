"""Makes the head that reads a length off a small model's hidden state.

A ridge regression of the length's rank, its penalty chosen by out-of-fold error, and the table from
its out-of-fold scores to distributions.
"""

import warnings
from dataclasses import replace

import numpy as np

from lengthpred.base import FloatArray, IntArray
from lengthpred.data.table import Rows
from lengthpred.distribution import LengthGrid
from lengthpred.errors import DataError
from lengthpred.models.backends.base import Backend, Source, open_backend
from lengthpred.models.slm_prefill import Prefill, features, reading
from lengthpred.training.boosted import model_levels, rank_targets
from lengthpred.training.calibration import fit_score_table
from lengthpred.training.progress import OnProgress, silent
from lengthpred.training.settings import SlmPrefillSettings
from lengthpred.training.slm import FEW, FEWEST, pick

__all__ = ["fit_head", "fit_ridge", "train"]

# For each row: features are many and rows may be few, so up to a head that says next to nothing.
PENALTIES = np.logspace(-2, 4, 25)
# Of the marginal at a score: those of few rows are noisy, and intervals would be too narrow.
PRIOR_STRENGTH = 5.0
BATCH = 64


def train(
    rows: Rows,
    calibration: Rows,
    settings: SlmPrefillSettings,
    rng: np.random.Generator,
    on_progress: OnProgress = silent,
) -> Prefill:
    """Let the small model read a sample of the prompts, and fit the head on what it makes of them.

    Raises BackendError when the small model cannot be used, DataError with fewer than 20 prompts;
    warns below 50.
    """
    source = settings.source()
    backend = open_backend(source)
    reader = reading(backend, source)
    source = replace(source, checksum=backend.checksum())
    rows = rows.take(pick(rows, settings.pairs, rng))
    parts = []
    for start in range(0, len(rows), BATCH):
        on_progress("reading prompts with the small model", start, len(rows))
        parts.append(features(reader, rows.requests[start : start + BATCH]))
    table = np.concatenate(parts) if parts else np.zeros((0, 2))
    return fit_head(source, table, rows, settings.folds, rng, backend)


def fit_head(
    source: Source,
    table: FloatArray,
    rows: Rows,
    folds: int,
    rng: np.random.Generator,
    backend: Backend | None = None,
) -> Prefill:
    """The predictor of rows whose `features` are `table`; see `train`."""
    known = ~np.isnan(table).any(axis=1)
    table, rows = table[known], rows.take(known)
    if len(rows) < FEWEST:
        raise DataError(f"a head needs {FEWEST} rows with a prompt; there are {len(rows)}")
    if len(rows) < FEW:
        warnings.warn(
            f"there are only {len(rows)} rows with a prompt: below {FEW} intervals are rough",
            stacklevel=2,
        )
    targets = rank_targets(rows)
    mean = float(targets.mean())
    levels = model_levels(rows, targets - mean)
    level = np.array([levels.get(request.model, 0.0) for request in rows.requests])
    fold = _folds(rows.groups, folds, rng)
    weights, bias, scores = fit_ridge(table, targets - mean - level, fold)
    scores += mean + level
    found = fit_score_table(
        LengthGrid(),
        scores[rows.owner],
        rows.lengths,
        rows.censored,
        rows.weights,
        PRIOR_STRENGTH,
    )
    return Prefill(source, weights, bias + mean, levels, found, backend)


def fit_ridge(
    table: FloatArray, targets: FloatArray, fold: IntArray
) -> tuple[FloatArray, float, FloatArray]:
    """Weights (f,), bias, and out-of-fold scores (n,) of features (n, f).

    targets (n,) of mean 0; fold (n,): rows of one number are scored by a fit without them. Of the
    penalties that err no more than the best does, give or take a standard error, the highest:
    with few rows the best one is so by luck.
    """
    centre, spread = table.mean(axis=0), table.std(axis=0)
    # What never changes says nothing, and may be anything later.
    scale = np.where(spread > 1e-9 * (1 + np.abs(centre)), 1 / np.maximum(spread, 1e-12), 0.0)
    scaled = (table - centre) * scale
    out = np.zeros((len(PENALTIES), len(targets)))
    for number in np.unique(fold):
        inside = fold == number
        out[:, inside] = _paths(scaled[~inside], targets[~inside]) @ scaled[inside].T
    errors = (out - targets) ** 2
    means = errors.mean(axis=1)
    best = int(means.argmin())
    # Of the difference to the best one, row by row: most of an error is common to all.
    slack = (errors - errors[best]).std(axis=1) / np.sqrt(len(targets))
    picked = int(np.flatnonzero(means <= means[best] + slack).max())
    weights = _paths(scaled, targets)[picked] * scale
    return weights, float(-centre @ weights), out[picked]


def _paths(scaled: FloatArray, targets: FloatArray) -> FloatArray:
    """The coefficients for each of PENALTIES, (25, f), without an intercept.

    Fits of parts have none of their own: the mean of the other rows would be the lower, the higher
    a row's own target is, and out-of-fold scores would run against the truth.
    """
    left, size, right = np.linalg.svd(scaled, full_matrices=False)
    shrunk = size / (size**2 + PENALTIES[:, None] * len(targets))
    found: FloatArray = (shrunk * (left.T @ targets)) @ right
    return found


def _folds(groups: IntArray, folds: int, rng: np.random.Generator) -> IntArray:
    """A number for each row, (n,), the same within a group."""
    _, number = np.unique(groups, return_inverse=True)
    if not number.any():  # of one group only: better its rows than nothing
        number = np.arange(len(groups))
    count = int(number.max()) + 1
    deal: IntArray = rng.permutation(count) % min(folds, count)
    return deal[number]
