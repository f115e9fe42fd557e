"""The noise ceiling: how well a row's own other samples predict one of them.

A model that is asked the same prompt again writes another length. No predictor that reads the
prompt can know more than the distribution of these lengths, and a row's other samples are a sample
of just that: what they leave open cannot be known. With few other samples the estimate is low.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lengthpred import metrics
from lengthpred.base import FloatArray, IntArray
from lengthpred.data.table import Rows
from lengthpred.eval.bootstrap import Resamples
from lengthpred.eval.scoring import Score, means_of, median_of, order_of

__all__ = ["CEILING", "CEILINGS", "LeaveOneOut", "leave_one_out", "score_ceilings"]

CEILING, CEILING_MEDIAN = "ceiling", "ceiling-median"
CEILINGS = (CEILING, CEILING_MEDIAN)
ROUNDS = 16


@dataclass(frozen=True)
class LeaveOneOut:
    """m rows with two or more samples; each round takes another sample of each row for the truth.

    row           int64 (m,): their numbers, rising
    truth         int64 (rounds, m), in tokens
    censored      bool (rounds, m): whether a limit stopped the truth
    mean, median  float64 (rounds, m): of the row's other samples, in tokens
    noise         float64 (m,): half the mean difference of two samples, which is the expected
                  CRPS of whoever knows the true distribution (Gneiting and Raftery, 2007)
    """

    row: IntArray
    truth: IntArray
    censored: npt.NDArray[np.bool_]
    mean: FloatArray
    median: FloatArray
    noise: FloatArray


def leave_one_out(rows: Rows) -> LeaveOneOut | None:
    """The rows that have several samples, in as many rounds as the most samples, but at most 16.

    None where no row has several.
    """
    counts = np.bincount(rows.owner, minlength=len(rows))
    row = np.flatnonzero(counts > 1)
    if not len(row):
        return None
    count = counts[row]
    place, each = np.arange(count.max()), np.arange(len(row))
    cell = (np.cumsum(counts) - counts)[row, None] + place
    there = place < count[:, None]
    # Absent samples sort behind all others.
    values = np.where(there, rows.lengths[np.where(there, cell, 0)], np.inf)
    order = np.argsort(values, axis=1)
    rising, rank = np.take_along_axis(values, order, axis=1), np.argsort(order, axis=1)

    turn = np.arange(min(len(place), ROUNDS))[:, None] % count
    truth, taken = values[each, turn], rank[each, turn]
    total = np.where(there, values, 0).sum(axis=1)
    # The middle of the others, whose places from the taken one on move up by one.
    low, high = (count - 2) // 2, (count - 1) // 2
    median = (rising[each, low + (low >= taken)] + rising[each, high + (high >= taken)]) / 2
    weight = 2 * place - count[:, None] + 1
    differences = (weight * np.where(there, rising, 0)).sum(axis=1)
    return LeaveOneOut(
        row=row,
        truth=truth.astype(np.int64),
        censored=rows.censored[cell[each, turn]],
        mean=(total - truth) / (count - 1),
        median=median,
        noise=differences / (count * (count - 1)),
    )


def score_ceilings(
    known: LeaveOneOut, rows: Rows, picked: IntArray, resamples: int, seed: int
) -> tuple[dict[str, dict[str, Score]], int]:
    """The scores of CEILINGS by name, and the number of rows of `picked` that have several samples.

    Each is the mean over the rounds. The point of `ceiling` is the mean of the other samples, that
    of `ceiling-median` their median, which is better for absolute errors.
    """
    used = np.flatnonzero(np.isin(known.row, picked))
    if not len(used):
        return {}, 0
    draws = Resamples(rows.groups[known.row[used]], resamples, seed)
    mean = _over_rounds(known.mean[:, used], known, used, draws)
    mean |= {"tau_mean": mean["tau"], **means_of({"crps": known.noise[used]}, draws)}
    median = _over_rounds(known.median[:, used], known, used, draws)
    return {CEILING: mean, CEILING_MEDIAN: median}, len(used)


def _over_rounds(
    points: FloatArray, known: LeaveOneOut, used: IntArray, draws: Resamples
) -> dict[str, Score]:
    """tau, pairwise_accuracy, mae and median_ae of points (rounds, used)."""
    rounds = []
    for point, whole, stopped in zip(points, known.truth, known.censored, strict=True):
        truth, censored = whole[used], stopped[used]
        error = 2 * metrics.pinball(point, truth, censored, 0.5)
        rounds.append(
            {
                **order_of(point, truth, censored, draws),
                **means_of({"mae": error}, draws),
                "median_ae": median_of(error, draws),
            }
        )
    return {name: _mean([scores[name] for scores in rounds]) for name in rounds[0]}


def _mean(scores: Sequence[Score]) -> Score:
    return Score(
        float(np.mean([score.value for score in scores])),
        np.mean([score.replicates for score in scores], axis=0),
    )
