"""From answers to scores with intervals, for one predictor or detector on one mix of rows."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lengthpred import metrics
from lengthpred.artifact import unseen_models
from lengthpred.base import Detector, FloatArray, IntArray, Predictor
from lengthpred.data.table import Rows
from lengthpred.distribution import LengthDistribution
from lengthpred.errors import DataError
from lengthpred.eval.bootstrap import Resamples, interval
from lengthpred.eval.mixes import Mix
from lengthpred.eval.output import Result

__all__ = [
    "CENSORED",
    "UNSEEN",
    "VS_BEST",
    "Answers",
    "Score",
    "Scores",
    "against_best",
    "ask",
    "ask_detector",
    "means_of",
    "median_of",
    "order_of",
    "score",
    "score_detector",
]

CENSORED, UNSEEN = "censored_share", "unseen_model_share"
VS_BEST = ("tau", "pairwise_accuracy", "mae", "crps")
"""The metrics in which predictors are held against the best one."""
BATCH = 1024


@dataclass(frozen=True)
class Answers:
    """What a predictor said of n rows, reduced to what scores need.

    median     float64 (n,), in tokens
    mean       float64 (n,), in tokens
    losses     float64 (n, len(metrics.LOSSES))
    pit        float64 (n,): the truth's place in its distribution, from 0 to 1 (`metrics.pit`)
    remaining  float64 (n, m): the median of what is left at each of m moments, in tokens
    unseen     float64 (n,): 1 where the predictor was not trained on the row's target model; None
               when it does not say which models it was trained on
    """

    median: FloatArray
    mean: FloatArray
    losses: FloatArray
    pit: FloatArray
    remaining: FloatArray
    unseen: FloatArray | None


@dataclass(frozen=True)
class Score:
    """A score of the rows as they are, and that of each draw of them, (draws,)."""

    value: float
    replicates: FloatArray

    def result(self, predictor: str, mix: Mix, metric: str, n: int) -> Result:
        """The score with its interval, as a row of eval.json."""
        low, high = interval(self.replicates)
        return Result(predictor, mix.split, mix.ood_ratio, metric, self.value, low, high, n)


Scores = Mapping[str, Score]


def ask(
    name: str, predictor: Predictor, rows: Rows, uniform: FloatArray, written: IntArray
) -> Answers:
    """Ask for every row once, some at a time, so that memory does not grow with the rows.

    `uniform` (n,) are the draws of the randomised PIT, `written` (n, m) the tokens that exist at
    the moments of `Answers.remaining`. Raises DataError when the predictor does not answer with one
    distribution for each request.
    """
    truth, censored = rows.truth, rows.truth_censored
    medians, means, losses, places, remaining = [], [], [], [], []
    for start in range(0, len(rows), BATCH):
        part = slice(start, start + BATCH)
        dist = predictor.predict(rows.requests[part])
        if len(dist) != len(rows.requests[part]):
            raise DataError(
                f"{name} answered {len(rows.requests[part])} requests with {len(dist)} "
                "distributions: it does not keep the contract of Predictor.predict"
            )
        medians.append(dist.median())
        means.append(dist.mean())
        losses.append(metrics.losses(dist, truth[part], censored[part], uniform[part]))
        places.append(metrics.pit(dist, truth[part], censored[part], uniform[part]))
        remaining.append(_left(dist, written[part]))
    strange = unseen_models(predictor, rows.requests)
    return Answers(
        np.concatenate(medians),
        np.concatenate(means),
        np.concatenate(losses),
        np.concatenate(places),
        np.concatenate(remaining),
        None if strange is None else strange.astype(np.float64),
    )


def _left(dist: LengthDistribution, written: IntArray) -> FloatArray:
    """The median of what is left when so many tokens exist, (n, m), all moments at once."""
    rows = np.repeat(np.arange(len(dist)), written.shape[1])
    total = dist[rows].given(written.ravel()).median()
    return total.reshape(written.shape) - written


def score(answers: Answers, rows: Rows, mix: Mix, draws: Resamples) -> dict[str, Score]:
    """Every metric of METRICS and CALIBRATION, then the shares of censored rows and unseen models.

    `draws` are of the rows that the mix picked.
    """
    picked = mix.picked
    truth, censored = rows.truth[picked], rows.truth_censored[picked]
    losses, pit = answers.losses[picked], answers.pit[picked]
    by_row = dict(zip(metrics.LOSSES, losses.T, strict=True))
    by_row |= {name: pit <= share for name, share in metrics.CALIBRATION.items()}
    by_row[CENSORED] = censored
    if answers.unseen is not None:
        by_row[UNSEEN] = answers.unseen[picked]
    return {
        **order_of(answers.median[picked], truth, censored, draws),
        "tau_mean": order_of(answers.mean[picked], truth, censored, draws)["tau"],
        "median_ae": median_of(by_row["mae"], draws),
        **means_of(by_row, draws),
    }


def order_of(
    predicted: FloatArray,
    truth: IntArray,
    censored: npt.NDArray[np.bool_],
    draws: Resamples,
    among: npt.NDArray[np.bool_] | None = None,
) -> dict[str, Score]:
    """tau and pairwise_accuracy of a point for each row, (n,); of the rows `among` them, if given.

    They are sums over pairs. Over a draw they are expanded to first order around the rows as they
    are, so that one pass over the rows serves all draws; a draw's repeated rows, which tie with
    themselves, then do not pull tau down.
    """
    counted = np.ones(len(truth), bool) if among is None else among
    terms = np.zeros((len(truth), 5))
    terms[counted] = metrics.order_terms(predicted[counted], truth[counted], censored[counted])
    total = terms.sum(axis=0)
    values = metrics.order_scores(*total)
    replicates = metrics.order_scores(*(2 * draws.sums(terms) - total).T)
    return {name: Score(float(values[name]), replicates[name]) for name in values}


def means_of(by_row: Mapping[str, npt.NDArray[np.generic]], draws: Resamples) -> dict[str, Score]:
    """The mean of each column (n,)."""
    columns = np.column_stack([np.ones(len(next(iter(by_row.values())))), *by_row.values()])
    values = columns.mean(axis=0)
    sums = draws.sums(columns)
    replicates = sums / np.maximum(sums[:, :1], 1)
    return {
        name: Score(float(values[i]), replicates[:, i]) for i, name in enumerate(by_row, start=1)
    }


def median_of(values: FloatArray, draws: Resamples) -> Score:
    """The median of values (n,)."""
    return Score(float(np.median(values)), draws.medians(values))


def against_best(
    scored: Mapping[str, Scores], candidates: Collection[str]
) -> Iterator[tuple[str, str, Score]]:
    """(predictor, "<metric>_vs_best", its score less that of the best candidate), draw by draw.

    The best has no such row; which it is, each metric of VS_BEST says for itself.
    """
    for metric in VS_BEST:
        sign = 1 if metric in metrics.HIGHER_IS_BETTER else -1
        best = max(candidates, key=lambda name: sign * scored[name][metric].value)
        first = scored[best][metric]
        for name, scores in scored.items():
            if name != best:
                own = scores[metric]
                difference = Score(own.value - first.value, own.replicates - first.replicates)
                yield name, f"{metric}_vs_best", difference


def ask_detector(name: str, detector: Detector, rows: Rows) -> FloatArray:
    """The p-value of every row, (n,). Raises DataError where they are no p-values."""
    starts = range(0, len(rows), BATCH)
    parts = [np.asarray(detector.p_value(rows.requests[i : i + BATCH])) for i in starts]
    values = np.concatenate(parts).astype(np.float64)
    if values.shape != (len(rows),) or not ((values >= 0) & (values <= 1)).all():
        raise DataError(f"{name} does not answer each request with a p-value between 0 and 1")
    return values


def score_detector(
    values: FloatArray, alpha: float, rows: Rows, mix: Mix, draws: Resamples
) -> dict[str, Score]:
    """Every metric of metrics.DETECTOR_METRICS that the rows of the mix allow.

    A mix without in-distribution rows has no false alarms, and one without the others no AUROC.
    """
    picked = mix.picked
    ood = np.asarray(rows.columns.get("ood", np.zeros(len(rows))), bool)[picked]
    found = metrics.detector_scores(values[picked], ood, alpha)
    parts: list[Mapping[str, FloatArray]] = [
        metrics.detector_scores(values[picked], ood, alpha, weights) for weights in draws.weights()
    ]
    scores = {}
    for metric in metrics.DETECTOR_METRICS:
        value = float(found[metric][0])
        if np.isfinite(value):
            replicates = np.concatenate([np.zeros(0), *(part[metric] for part in parts)])
            scores[metric] = Score(value, replicates)
    return scores
