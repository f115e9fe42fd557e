"""Makes the generate-and-count predictor: a map from an SLM's lengths to a target model's."""

import warnings
from dataclasses import replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from lengthpred.base import FloatArray, IntArray
from lengthpred.data.rows import sampled
from lengthpred.data.table import Rows
from lengthpred.distribution import LengthGrid
from lengthpred.errors import BackendError
from lengthpred.models.backends.base import Source, answered, open_backend
from lengthpred.models.length_map import ALL_MODELS, DOUBLE, LengthMap, mean_logs, prompt_length
from lengthpred.models.slm import GenerateAndCount, Generation, MappedSamples
from lengthpred.training.calibration import fit_score_table
from lengthpred.training.progress import OnProgress, silent
from lengthpred.training.settings import SlmSettings

__all__ = ["FEW", "FEWEST", "fit_map", "fit_maps", "fit_on_samples", "pick", "train"]

FEWEST = 20  # pairs that a map can be fitted to
FEW = 50  # pairs from which its intervals keep their promise
USUAL = 512
# Pairs that say nothing which the prompt's length has to outweigh: a few dozens of pairs show
# relations that are not there.
RIDGE = 20.0
# Of the marginal at a score; more makes intervals too wide where two models agree well.
PRIOR_STRENGTH = 1.0
BATCH = 64
M = TypeVar("M", bound=MappedSamples)


def train(
    rows: Rows,
    calibration: Rows,
    settings: SlmSettings,
    rng: np.random.Generator,
    on_progress: OnProgress = silent,
) -> GenerateAndCount:
    """Let the small model answer a sample of the prompts, and fit a map for each target model.

    Pairs come from `rows`; without any (no prompt has an answer), or below 20 of them, the
    predictor takes the small model's length as the large one's, with a warning. Raises
    BackendError when the small model cannot be used.
    """
    generation = Generation(settings.n, settings.temperature, settings.cap, settings.seed)
    picked = rows.take(pick(rows, settings.pairs, rng))
    return fit_on_samples(GenerateAndCount, settings.source(), generation, picked, on_progress)


def fit_on_samples(
    kind: type[M], source: Source, how: Generation, rows: Rows, on_progress: OnProgress
) -> M:
    """Ask the small model about each row, as `kind` does, and fit the maps of its answers."""
    backend = open_backend(source)
    unfitted = kind(replace(source, checksum=backend.checksum()), how, {}, backend)
    parts = []
    for start in range(0, max(len(rows), 1), BATCH):
        on_progress("asking the small model", start, len(rows))
        parts.append(unfitted.samples(rows.requests[start : start + BATCH], None))
    lengths, censored = (np.concatenate(part) for part in zip(*parts, strict=True))
    if (
        kind is GenerateAndCount
        and source.url
        and len(rows)
        and not answered(lengths, censored).any()
    ):
        raise BackendError(
            f"{', '.join(source.url)} answered none of {len(rows)} prompts: ask it for a chat "
            "completion by hand to see why"
        )
    return kind(unfitted.source, how, fit_maps(rows, lengths, censored), backend)


def pick(rows: Rows, most: int, rng: np.random.Generator) -> IntArray:
    """Rows to make pairs of: a sample of those that a model can answer."""
    there = np.flatnonzero([bool(request.prompt) for request in rows.requests])
    return there[sampled(len(there), most, rng)]


def fit_maps(
    rows: Rows, lengths: IntArray, censored: npt.NDArray[np.bool_]
) -> dict[str, LengthMap]:
    """A map for each target model that has 50 pairs, and one for all others.

    lengths, censored: (p, n), the samples of the p rows. Empty, with a warning, where there are
    fewer than 20 pairs.
    """
    known = np.flatnonzero(answered(lengths, censored))
    if len(known) < FEWEST:
        warnings.warn(
            f"there are {len(known)} pairs of a small and a large model's length, and a map needs "
            f"{FEWEST}: the small model's length is taken for the large one's, which is usually "
            "far off. Give a table with more answers of the large model to prompts that the small "
            "one can answer",
            stacklevel=2,
        )
        return {}
    if len(known) < FEW:
        warnings.warn(
            f"there are only {len(known)} pairs of lengths: below {FEW} intervals are rough",
            stacklevel=2,
        )
    models = np.array([request.model for request in rows.requests], object)[known]
    names, counts = np.unique(models, return_counts=True)
    picked = {str(name): known[models == name] for name in names[counts >= FEW] if name}
    picked[ALL_MODELS] = known
    return {
        name: fit_map(rows.take(part), lengths[part], censored[part])
        for name, part in picked.items()
    }


def fit_map(rows: Rows, lengths: IntArray, censored: npt.NDArray[np.bool_]) -> LengthMap:
    """The map of p rows whose small model's samples are `lengths`, `censored`, both (p, n).

    Two numbers say how much the samples and the prompt's length count (a ridge regression of the
    log length, stopped answers as they are), and `fit_score_table` what each score means.
    """
    usual = _usual(lengths, censored)
    samples = mean_logs(lengths, censored, usual)
    prompts = prompt_length(rows.requests)
    weights = _weights(samples, prompts, _mean_logs(rows))
    scores = weights[0] * samples + weights[1] * prompts + weights[2]
    table = fit_score_table(
        LengthGrid(),
        scores[rows.owner],
        rows.lengths,
        rows.censored,
        rows.weights,
        PRIOR_STRENGTH,
    )
    return LengthMap(table, weights, usual)


def _usual(lengths: IntArray, censored: npt.NDArray[np.bool_]) -> FloatArray:
    """Log lengths of the samples, at most 512 quantiles; a stopped one counts as twice as long."""
    known = ~censored | (lengths > 0)
    logs = np.sort((np.log1p(lengths) + DOUBLE * censored)[known])
    if len(logs) > USUAL:
        logs = logs[np.rint(np.linspace(0, len(logs) - 1, USUAL)).astype(np.int64)]
    usual: FloatArray = logs
    return usual


def _mean_logs(rows: Rows) -> FloatArray:
    """The mean log length of each row's answers, (p,)."""
    sums = np.bincount(rows.owner, rows.weights * np.log1p(rows.lengths), len(rows))
    return sums.astype(np.float64)


def _weights(samples: FloatArray, prompts: FloatArray, target: FloatArray) -> FloatArray:
    """Coefficients of samples and prompts, and the intercept; that of samples is never negative."""
    both = np.column_stack([samples, prompts])
    centre, spread = both.mean(axis=0), np.maximum(both.std(axis=0), 1e-9)
    scaled = (both - centre) / spread
    product = scaled.T @ scaled + np.diag([1.0, RIDGE])
    found = np.linalg.solve(product, scaled.T @ (target - target.mean()))
    if found[0] <= 0:  # they say nothing of the answer, or the opposite: prompts alone
        found = np.array([0.0, (scaled[:, 1] @ (target - target.mean())) / product[1, 1]])
    slopes = found / spread
    return np.array([*slopes, target.mean() - slopes @ centre])
