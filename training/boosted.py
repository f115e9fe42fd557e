"""Makes the boosted predictor: ridge on hashed n-grams, LightGBM, and the table to distributions.

The target is a length's rank among the training lengths, so that a few very long answers do not
rule the fit. The booster's training rows get linear scores from models that did not see the row's
group (stacking; Wolpert, 1992): it would trust them too much otherwise.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from lengthpred.base import FloatArray
from lengthpred.data.table import Rows
from lengthpred.distribution import LengthGrid
from lengthpred.errors import DataError, require
from lengthpred.models import text_features
from lengthpred.models.boosted import Boosted, features
from lengthpred.models.score_table import ScoreTable
from lengthpred.survival import marginal
from lengthpred.training.calibration import fit_score_table
from lengthpred.training.progress import OnProgress, silent
from lengthpred.training.settings import BoostedSettings, TreeSettings

__all__ = ["model_levels", "rank_targets", "regression", "train", "train_trees"]

MIN_ROWS = 20
MIN_TABLE_ROWS = 300
LEVEL_ROWS = 20.0  # that a target model's level needs to count half

B = TypeVar("B", bound=Boosted)
# From features (n, features) and targets (n,) to LightGBM's parameters and its data set.
Task = Callable[[npt.NDArray[np.float32], FloatArray], tuple[dict[str, Any], Any]]


def train(
    rows: Rows,
    calibration: Rows,
    settings: BoostedSettings,
    rng: np.random.Generator,
    on_progress: OnProgress = silent,
) -> Boosted:
    """Fit on `rows`, calibrate on `calibration`; the same seed gives the same bytes.

    Raises DataError when there is too little to learn from.
    """
    return train_trees(Boosted, regression(settings), rows, calibration, settings, rng, on_progress)


def regression(settings: BoostedSettings) -> Task:
    """The task of predicting the target itself."""

    def task(table: npt.NDArray[np.float32], targets: FloatArray) -> tuple[dict[str, Any], Any]:
        import lightgbm

        parameters = {"objective": "regression", "boosting": settings.booster}
        return parameters, lightgbm.Dataset(table, targets)

    return task


def train_trees(
    kind: type[B],
    task: Task,
    rows: Rows,
    calibration: Rows,
    settings: TreeSettings,
    rng: np.random.Generator,
    on_progress: OnProgress = silent,
    targets: FloatArray | None = None,
) -> B:
    """A `kind` whose booster learns `task` from the features and the ranks of the lengths.

    targets: what it learns instead of the ranks, (n,), of rows that all have a prompt. Raises
    DataError when there is too little to learn from.
    """
    rows = rows.with_prompt()
    if len(rows) < MIN_ROWS:
        raise DataError(f"training needs {MIN_ROWS} rows with a prompt; there are {len(rows)}")
    if len(calibration) < MIN_ROWS:
        raise DataError(f"calibration needs {MIN_ROWS} rows; there are {len(calibration)}")
    targets = rank_targets(rows) if targets is None else targets
    mean = float(targets.mean())
    levels = model_levels(rows, targets - mean)
    tokens = [text_features.words(request.prompt) for request in rows.requests]
    matrix = _matrix(tokens, settings.bits)
    linear, weights = _stacked(matrix, targets - mean, rows.groups, settings, rng, on_progress)
    table = features(rows.requests, tokens, linear, levels)
    parameters, data = task(table, targets)
    booster = _boost(parameters, data, settings, int(rng.integers(2**31)), on_progress)
    prior = marginal(LengthGrid(), rows.lengths, rows.censored, rows.weights)
    flat = ScoreTable.flat(LengthGrid(), prior.astype(np.float32))
    scores = kind(booster, weights, levels, flat, flat).score(calibration.requests)
    replied = np.array([bool(request.reply_tokens) for request in calibration.requests], bool)
    opening, following = (_table(calibration, scores, part) for part in (~replied, replied))
    return kind(booster, weights, levels, opening, following)


def rank_targets(rows: Rows) -> FloatArray:
    """The mean rank, in (0, 1), of each row's lengths among all of them, shape (n,).

    A stopped answer could have any length above the one observed, so it gets the mean rank of
    those above.
    """
    weights = rows.weights
    place = np.unique(rows.lengths, return_inverse=True)[1]
    mass = np.bincount(place, weights).astype(np.float64)
    middle = (np.cumsum(mass) - mass / 2) / mass.sum()
    ranks = middle[place]
    ranks[rows.censored] = (1 + ranks[rows.censored]) / 2
    means = np.bincount(rows.owner, ranks * weights, len(rows)).astype(np.float64)
    return means


def model_levels(rows: Rows, targets: FloatArray) -> dict[str, float]:
    """How far each target model's answers lie from the mean, shrunk for thin ones."""
    models = np.array([request.model for request in rows.requests], object)
    return {
        str(name): float(targets[models == name].sum() / ((models == name).sum() + LEVEL_ROWS))
        for name in sorted(set(models.tolist()))
        if name
    }


def _matrix(tokens: Sequence[list[str]], bits: int) -> Any:
    """Rows of equal squared length over hashed slots, sparse (n, 2**bits)."""
    sparse = require("scipy.sparse", "train", "training a boosted predictor")
    slots = [text_features.hashed(row, bits).astype(np.int32) for row in tokens]
    sizes = np.array([len(row) for row in slots])
    values = np.repeat(1 / np.sqrt(np.maximum(sizes, 1)), sizes).astype(np.float32)
    ends = np.concatenate([[0], np.cumsum(sizes)])
    return sparse.csr_matrix((values, np.concatenate(slots), ends), shape=(len(slots), 1 << bits))


def _stacked(
    matrix: Any,
    targets: FloatArray,
    groups: npt.NDArray[np.int64],
    settings: TreeSettings,
    rng: np.random.Generator,
    on_progress: OnProgress,
) -> tuple[FloatArray, npt.NDArray[np.float32]]:
    """Out-of-fold scores of the rows, (n,), and the weights of a model fitted on all of them."""
    _, number = np.unique(groups, return_inverse=True)
    folds = min(settings.folds, int(number.max()) + 1)
    # A shuffled deal, so that every fold has groups however few there are.
    deal = rng.permutation(int(number.max()) + 1) % folds
    fold = deal[number]
    scores = np.zeros(len(targets))
    for k in range(folds):
        on_progress("fitting the linear model", k, folds + 1)
        inside = fold == k
        if not inside.all():
            weights = _ridge(matrix[~inside], targets[~inside], settings.alpha)
            scores[inside] = matrix[inside] @ weights
    on_progress("fitting the linear model", folds, folds + 1)
    return scores, _ridge(matrix, targets, settings.alpha)


def _ridge(matrix: Any, targets: FloatArray, alpha: float) -> npt.NDArray[np.float32]:
    linear = require("sklearn.linear_model", "train", "training a boosted predictor")
    model = linear.Ridge(alpha=alpha, solver="sparse_cg", tol=1e-3, fit_intercept=False)
    weights: npt.NDArray[np.float32] = model.fit(matrix, targets).coef_.astype(np.float32)
    return weights


def _boost(
    task: dict[str, Any],
    data: Any,
    settings: TreeSettings,
    seed: int,
    on_progress: OnProgress,
) -> str:
    """The booster's text."""
    import lightgbm

    parameters = task | {
        "learning_rate": settings.learning_rate,
        "num_leaves": settings.leaves,
        "feature_fraction": settings.column_sample,
        "bagging_fraction": settings.row_sample,
        "bagging_freq": 1,
        "lambda_l2": settings.l2,
        "min_data_in_leaf": settings.min_leaf_rows,
        "seed": seed,
        "deterministic": True,
        "force_row_wise": True,
        "verbose": -1,
    }
    booster = lightgbm.train(
        parameters,
        data,
        settings.trees,
        callbacks=[lambda env: on_progress("boosting", env.iteration + 1, settings.trees)],
    )
    text: str = booster.model_to_string()
    return text


def _table(calibration: Rows, scores: FloatArray, part: npt.NDArray[np.bool_]) -> ScoreTable:
    """The table of a part of the rows, or of all where the part is too small for one."""
    if part.sum() < MIN_TABLE_ROWS:
        part = np.ones(len(part), bool)
    rows = calibration.take(part)
    return fit_score_table(
        LengthGrid(), scores[part][rows.owner], rows.lengths, rows.censored, rows.weights
    )
