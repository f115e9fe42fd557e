"""From answers to scores with intervals, for one predictor or detector on one mix of rows."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from lengthpred import metrics
from lengthpred.base import Detector, FloatArray, Predictor
from lengthpred.data.table import Rows
from lengthpred.errors import DataError
from lengthpred.eval.bootstrap import Resamples, interval
from lengthpred.eval.mixes import Mix
from lengthpred.eval.output import Result

__all__ = ["CENSORED", "UNSEEN", "Answers", "ask", "ask_detector", "score", "score_detector"]

CENSORED, UNSEEN = "censored_share", "unseen_model_share"
BATCH = 1024


@dataclass(frozen=True)
class Answers:
    """What a predictor said of n rows, reduced to what scores need.

    median  float64 (n,), in tokens
    mean    float64 (n,), in tokens
    losses  float64 (n, len(metrics.LOSSES))
    unseen  float64 (n,): 1 where the predictor was not trained on the row's target model; None
            when it does not say which models it was trained on
    """

    median: FloatArray
    mean: FloatArray
    losses: FloatArray
    unseen: FloatArray | None


def ask(name: str, predictor: Predictor, rows: Rows, uniform: FloatArray) -> Answers:
    """Ask for every row once, some at a time, so that memory does not grow with the rows.

    `uniform` (n,) are the draws of the randomised PIT. Raises DataError when the predictor does
    not answer with one distribution for each request.
    """
    truth, censored = rows.truth, rows.truth_censored
    medians, means, losses = [], [], []
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
    seen = getattr(getattr(predictor, "card", None), "models", ())
    strange = [float(request.model not in seen) for request in rows.requests] if seen else None
    return Answers(
        np.concatenate(medians),
        np.concatenate(means),
        np.concatenate(losses),
        None if strange is None else np.array(strange),
    )


def score(name: str, answers: Answers, rows: Rows, mix: Mix, draws: Resamples) -> Iterator[Result]:
    """Every metric of metrics.METRICS, then the shares of censored rows and of unseen models.

    Scores of order are sums over pairs. Over a draw they are expanded to first order around the
    rows as they are, so that one pass over the rows serves all draws; a draw's repeated rows,
    which tie with themselves, then do not pull tau down.
    """
    picked = mix.picked
    truth, censored = rows.truth[picked], rows.truth_censored[picked]
    losses = answers.losses[picked]
    extra = {CENSORED: censored.astype(np.float64)}
    if answers.unseen is not None:
        extra[UNSEEN] = answers.unseen[picked]
    means = np.column_stack([losses, *extra.values()])
    order = metrics.order_terms(answers.median[picked], truth, censored)
    order_of_mean = metrics.order_terms(answers.mean[picked], truth, censored)
    columns = np.column_stack([np.ones(len(picked)), means, order, order_of_mean])

    total = columns.sum(axis=0)
    names, n_means = (*metrics.LOSSES, *extra), means.shape[1]
    values = _named(total[None], total[None, 1 + n_means :], names)
    sums = draws.sums(columns)
    replicates = _named(sums, 2 * sums[:, 1 + n_means :] - total[1 + n_means :], names)
    values["median_ae"] = np.median(losses[:, :1], axis=0)
    replicates["median_ae"] = draws.medians(losses[:, 0])
    for metric in (*metrics.METRICS, *extra):
        yield _result(name, mix, metric, float(values[metric][0]), replicates[metric], len(picked))


def _named(sums: FloatArray, pairs: FloatArray, means: tuple[str, ...]) -> dict[str, FloatArray]:
    """Scores (r,) of r sums over rows: a count, then the `means`; and of r sums over pairs."""
    count = np.maximum(sums[:, 0], 1)
    scores = {metric: sums[:, 1 + i] / count for i, metric in enumerate(means)}
    scores |= metrics.order_scores(*pairs[:, :5].T)
    scores["tau_mean"] = metrics.order_scores(*pairs[:, 5:].T)["tau"]
    return scores


def ask_detector(name: str, detector: Detector, rows: Rows) -> FloatArray:
    """The p-value of every row, (n,). Raises DataError where they are no p-values."""
    starts = range(0, len(rows), BATCH)
    parts = [np.asarray(detector.p_value(rows.requests[i : i + BATCH])) for i in starts]
    values = np.concatenate(parts).astype(np.float64)
    if values.shape != (len(rows),) or not ((values >= 0) & (values <= 1)).all():
        raise DataError(f"{name} does not answer each request with a p-value between 0 and 1")
    return values


def score_detector(
    name: str, values: FloatArray, alpha: float, rows: Rows, mix: Mix, draws: Resamples
) -> Iterator[Result]:
    """Every metric of metrics.DETECTOR_METRICS that the rows of the mix allow.

    A mix without in-distribution rows has no false alarms, and one without the others no AUROC.
    """
    picked = mix.picked
    ood = np.asarray(rows.columns.get("ood", np.zeros(len(rows))), bool)[picked]
    found = metrics.detector_scores(values[picked], ood, alpha)
    parts: list[Mapping[str, FloatArray]] = [
        metrics.detector_scores(values[picked], ood, alpha, weights) for weights in draws.weights()
    ]
    for metric in metrics.DETECTOR_METRICS:
        value = float(found[metric][0])
        if np.isfinite(value):
            replicates = np.concatenate([np.zeros(0), *(part[metric] for part in parts)])
            yield _result(name, mix, metric, value, replicates, len(picked))


def _result(
    name: str, mix: Mix, metric: str, value: float, replicates: FloatArray, n: int
) -> Result:
    low, high = interval(replicates)
    return Result(name, mix.split, mix.ood_ratio, metric, value, low, high, n)
