"""Scores of predictions against true lengths, row by row and as a whole.

Everywhere `truth` is int64 (n,), in tokens, and `censored` is bool (n,): where it is set, a limit
stopped the answer and its natural length is at least `truth`. Such a row is scored only up to the
point that was seen: a prediction beyond it costs nothing. Docs: docs/evaluation.md.
"""

import math

import numpy as np
import numpy.typing as npt

from lengthpred.base import FloatArray, IntArray
from lengthpred.distribution import LengthDistribution

__all__ = [
    "CALIBRATION",
    "DETECTOR_METRICS",
    "HIGHER_IS_BETTER",
    "LOSSES",
    "METRICS",
    "concordance",
    "crps",
    "detector_scores",
    "losses",
    "order_scores",
    "order_terms",
    "pairwise_accuracy",
    "pinball",
    "pit",
    "scores",
    "tau",
]

BoolArray = npt.NDArray[np.bool_]

LOSSES = ("mae", "crps", "pinball_50", "pinball_90", "pinball_99", "coverage_80")
"""The scores that are means over rows, in the order of `losses`' columns."""
METRICS = ("tau", "tau_mean", "pairwise_accuracy", "median_ae", *LOSSES)
DETECTOR_METRICS = ("auroc", "fpr_at_95_tpr", "false_alarm_rate")
CALIBRATION = {f"calibration_{percent}": percent / 100 for percent in range(10, 100, 10)}
"""The share of truths at or below a predicted quantile, by `pit`, and what it should be."""
HIGHER_IS_BETTER = frozenset({"tau", "tau_mean", "pairwise_accuracy", "remaining_tau", "auroc"})


def scores(
    dist: LengthDistribution, truth: IntArray, censored: BoolArray, rng: np.random.Generator
) -> dict[str, float]:
    """Every score of METRICS, by name; `rng` breaks the ties of the coverage.

    >>> from lengthpred.distribution import LengthGrid
    >>> dist = LengthDistribution.from_samples(LengthGrid(), [[3], [9]])
    >>> scores(dist, np.array([4, 9]), np.zeros(2, bool), np.random.default_rng(0))["mae"]
    0.5
    """
    median = dist.median()
    by_row = losses(dist, truth, censored, rng.random(len(dist)))
    order = order_scores(*order_terms(median, truth, censored).sum(axis=0))
    return {
        **{name: float(value) for name, value in order.items()},
        "tau_mean": tau(dist.mean(), truth),
        "median_ae": float(np.median(by_row[:, 0])),
        **dict(zip(LOSSES, by_row.mean(axis=0).tolist(), strict=True)),
    }


# Losses of rows


def losses(
    dist: LengthDistribution, truth: IntArray, censored: BoolArray, uniform: FloatArray
) -> FloatArray:
    """The loss of every row, float64 (n, len(LOSSES)): a score is the mean of its column.

    `uniform` (n,) are draws from [0, 1) for the randomised PIT; give all predictors the same ones.
    """
    middle, high, highest = dist.quantile([0.5, 0.9, 0.99]).T
    covered = np.abs(pit(dist, truth, censored, uniform) - 0.5) <= 0.4
    columns = [
        2 * pinball(middle, truth, censored, 0.5),
        crps(dist, truth, censored),
        pinball(middle, truth, censored, 0.5),
        pinball(high, truth, censored, 0.9),
        pinball(highest, truth, censored, 0.99),
        covered,
    ]
    return np.stack(columns, axis=1).astype(np.float64)


def pinball(predicted: FloatArray, truth: IntArray, censored: BoolArray, q: float) -> FloatArray:
    """Quantile loss of a predicted q-quantile, (n,), in tokens; twice that of 0.5 is the absolute
    error. A censored row counts what the prediction lacks to the point that was seen."""
    short = truth - predicted
    loss: FloatArray = np.maximum(q * short, (q - 1) * short * ~censored) + 0.0  # no minus zero
    return loss


def crps(dist: LengthDistribution, truth: IntArray, censored: BoolArray) -> FloatArray:
    """Continuous ranked probability score, (n,), in tokens: the sum of (F(x) - [x >= truth])².

    Exact over whole lengths x, since F is linear inside a bin. A censored row's sum ends at the
    point that was seen (the threshold-weighted score of Gneiting and Ranjan, 2011).
    """
    low, high = dist._bounds()
    mass = dist.pmf.astype(np.float64)
    mass /= mass.sum(axis=1, keepdims=True)
    width = high - low + 1
    before = np.cumsum(mass, axis=1) - mass
    slope = mass / np.maximum(width, 1)
    short = np.clip(truth[:, None] - low, 0, width)  # lengths of each bin that the truth exceeds
    under = _sum_of_squares(before, slope, short).sum(axis=1)
    over = _sum_of_squares(before - 1, slope, width) - _sum_of_squares(before - 1, slope, short)
    # Outside all bins F is 0 or 1, and each length on the wrong side costs one.
    bottom = np.where(width > 0, low, np.inf).min(axis=1)
    top = np.where(width > 0, high, -1).max(axis=1)
    under += np.maximum(truth - 1 - top, 0)
    above = over.sum(axis=1) + np.maximum(bottom - truth, 0)
    score: FloatArray = np.maximum(under + np.where(censored, 0, above), 0)
    return score


def _sum_of_squares(start: FloatArray, slope: FloatArray, count: FloatArray) -> FloatArray:
    """The sum of (start + slope * j)² over j = 1, …, count."""
    pairs = count * (count + 1)
    linear = count * start**2 + start * slope * pairs
    total: FloatArray = linear + slope**2 * pairs * (2 * count + 1) / 6
    return total


def pit(
    dist: LengthDistribution, truth: IntArray, censored: BoolArray, uniform: FloatArray
) -> FloatArray:
    """Randomised probability integral transform, (n,): uniform on [0, 1] when dist is calibrated.

    A truth takes a random place inside its own mass, from F(truth - 1) to F(truth), so that short
    answers, which are atoms, do no harm (Czado, Gneiting and Held, 2009). What is only known to
    be at least `truth` takes its place between F(truth - 1) and 1.
    """
    below = dist.cdf(truth - 1)
    upto = np.where(censored, 1.0, dist.cdf(truth))
    value: FloatArray = below + uniform * (upto - below)
    return value


# Order


def tau(predicted: npt.ArrayLike, truth: npt.ArrayLike) -> float:
    """Kendall's tau-b; that of a constant is 0.

    >>> tau([1, 2, 3, 4], [10, 20, 40, 30])
    0.6666666666666666
    """
    lengths = np.asarray(truth)
    terms = order_terms(np.asarray(predicted), lengths, np.zeros(lengths.shape, bool))
    return float(order_scores(*terms.sum(axis=0))["tau"])


def pairwise_accuracy(
    predicted: npt.ArrayLike, truth: npt.ArrayLike, censored: npt.ArrayLike | None = None
) -> float:
    """The share of pairs that are ordered right; a tie of predictions counts half.

    Only pairs count whose order is known: the truths differ and the smaller one is not censored
    (Harrell's C). 0.5 where there is no such pair.
    """
    lengths = np.asarray(truth)
    stopped = np.zeros(lengths.shape, bool) if censored is None else np.asarray(censored)
    terms = order_terms(np.asarray(predicted), lengths, stopped)
    return float(order_scores(*terms.sum(axis=0))["pairwise_accuracy"])


def order_terms(
    predicted: npt.NDArray[np.generic], truth: npt.NDArray[np.generic], censored: BoolArray
) -> FloatArray:
    """What each row adds to tau and to the pairwise accuracy, float64 (n, 5).

    Columns: concordant minus discordant partners; partners with another prediction; partners with
    another truth; concordant minus discordant partners of known order; partners of known order.
    `order_scores` makes the scores of the columns' sums.
    """
    plain = concordance(predicted, truth, np.zeros(len(truth), bool))
    known = concordance(predicted, truth, censored) if censored.any() else plain
    seen = np.sort(truth[~censored])
    comparable = np.searchsorted(seen, truth) + ~censored * _greater(truth)
    columns = [plain, _different(predicted), _different(truth), known, comparable]
    return np.stack(columns, axis=1).astype(np.float64)


def order_scores(
    concordant: npt.ArrayLike,
    predictions: npt.ArrayLike,
    truths: npt.ArrayLike,
    known: npt.ArrayLike,
    comparable: npt.ArrayLike,
) -> dict[str, FloatArray]:
    """tau and pairwise_accuracy of sums of `order_terms`' columns, each of any one shape."""
    counted = np.maximum(predictions, 0.0) * np.maximum(truths, 0.0)
    pairs = np.maximum(comparable, 0.0)
    order = _share(concordant, np.sqrt(counted))
    return {"tau": order, "pairwise_accuracy": (1 + _share(known, pairs)) / 2}


def concordance(
    predicted: npt.NDArray[np.generic], truth: npt.NDArray[np.generic], censored: BoolArray
) -> IntArray:
    """Concordant minus discordant partners of each row, int64 (n,), in O(n log² n).

    A pair counts where both its predictions and its truths differ and the smaller truth is not
    censored. Rows are split by the bits of their prediction's rank: each pair of different ranks
    falls apart, under one common prefix, at exactly one bit, and there a sort by truth counts.
    """
    rank = np.unique(predicted, return_inverse=True)[1].reshape(-1)
    by_truth = np.argsort(truth, kind="stable")
    found = np.zeros(len(rank), np.int64)
    for bit in range(int(rank.max(initial=0)).bit_length()):
        prefix = rank >> (bit + 1)
        order = by_truth[np.argsort(prefix[by_truth], kind="stable")]
        upper = (rank[order] >> bit & 1).astype(bool)
        open_, value, key = ~censored[order], truth[order], prefix[order]
        block = _starts(key[1:] != key[:-1])
        tie = _starts((key[1:] != key[:-1]) | (value[1:] != value[:-1]))
        shorter = _before(tie, upper, open_) - _before(block, upper, open_)
        longer = open_ * (_until(block, upper) - _until(tie, upper))
        found[order] += np.where(upper, shorter - longer, longer - shorter)
    return found


def _starts(changes: BoolArray) -> tuple[IntArray, IntArray]:
    """First place and end of the run that each place lies in, given where a new run begins."""
    edges = np.concatenate([[0], np.flatnonzero(changes) + 1, [len(changes) + 1]])
    run = np.repeat(np.arange(len(edges) - 1), np.diff(edges))
    return edges[run], edges[run + 1]


def _before(runs: tuple[IntArray, IntArray], upper: BoolArray, open_: BoolArray) -> IntArray:
    """For each place, the uncensored of the other side that lie before its run."""
    return _across(runs[0], upper, open_)


def _until(runs: tuple[IntArray, IntArray], upper: BoolArray) -> IntArray:
    """For each place, all of the other side that lie before the end of its run."""
    return _across(runs[1], upper, np.ones(len(upper), bool))


def _across(end: IntArray, upper: BoolArray, counted: BoolArray) -> IntArray:
    lower_side = np.concatenate([[0], np.cumsum(counted & ~upper)])
    upper_side = np.concatenate([[0], np.cumsum(counted & upper)])
    across: IntArray = np.where(upper, lower_side[end], upper_side[end])
    return across


def _different(values: npt.NDArray[np.generic]) -> IntArray:
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    others: IntArray = len(values) - counts[place.reshape(-1)]
    return others


def _greater(values: npt.NDArray[np.generic]) -> IntArray:
    upto: IntArray = np.searchsorted(np.sort(values), values, side="right")
    return len(values) - upto


def _share(part: npt.ArrayLike, whole: npt.ArrayLike) -> FloatArray:
    """part / whole within [-1, 1], and 0 where there is nothing to divide by."""
    divisor = np.asarray(whole, np.float64)
    share = np.asarray(part, np.float64) / np.where(divisor > 0, divisor, 1)
    return np.clip(np.where(divisor > 0, share, 0), -1, 1)


# Detectors


def detector_scores(
    p_value: FloatArray, ood: BoolArray, alpha: float, weights: FloatArray | None = None
) -> dict[str, FloatArray]:
    """The scores of a detector, each (r,); a small p-value says out of distribution.

    auroc             chance that an OOD row has a smaller p-value than an in-distribution row
    fpr_at_95_tpr     share of in-distribution rows flagged where 95 % of the OOD rows are
    false_alarm_rate  share of in-distribution rows with p_value <= alpha

    `weights` (r, n) counts the rows of r resamples; without it r is 1 and each row counts once.
    A score that lacks rows of one sort is NaN.
    """
    counts = np.ones((1, len(ood))) if weights is None else weights
    order = np.argsort(p_value, kind="stable")
    value = p_value[order]
    runs = np.flatnonzero(np.concatenate([[True], value[1:] != value[:-1]])[: len(value)])
    counts = counts[:, order]
    if not len(runs):
        return {name: np.full(len(counts), math.nan) for name in DETECTOR_METRICS}
    outside = np.add.reduceat(counts * ood[order], runs, axis=1)
    inside = np.add.reduceat(counts * ~ood[order], runs, axis=1)
    caught, flagged = np.cumsum(outside, axis=1), np.cumsum(inside, axis=1)
    all_out, all_in = caught[:, -1], flagged[:, -1]
    with np.errstate(divide="ignore", invalid="ignore"):
        auroc = (inside * (caught - outside / 2)).sum(axis=1) / (all_in * all_out)
        enough = np.argmax(caught >= 0.95 * all_out[:, None] - 1e-9, axis=1)
        fpr = np.where(all_out > 0, flagged[np.arange(len(flagged)), enough], math.nan) / all_in
        alarms = (inside * (value[runs] <= alpha)).sum(axis=1) / all_in
    return {"auroc": auroc, "fpr_at_95_tpr": fpr, "false_alarm_rate": alarms}
