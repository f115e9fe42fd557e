"""Scores against brute force and hand-made values."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kendalltau

from lengthpred import metrics
from lengthpred.distribution import LengthDistribution, LengthGrid

GRID = LengthGrid(np.array([0, 1, 2, 5, 9, 20, 40]))


def some(n: int, seed: int = 0) -> LengthDistribution:
    return LengthDistribution.from_weights(
        GRID, np.random.default_rng(seed).random((n, GRID.bins)) ** 3
    )


def summed_crps(dist: LengthDistribution, truth: int, censored: bool) -> float:
    ends = range(truth) if censored else range(200)
    return sum((float(dist.cdf(x)[0]) - (x >= truth)) ** 2 for x in ends)


@pytest.mark.parametrize("censored", [False, True])
def test_crps_is_the_sum_over_all_lengths(censored: bool) -> None:
    dist = some(40)
    truth = np.random.default_rng(1).integers(0, 60, 40)
    cases = {
        "whole": dist,
        "cut below": dist.given(np.arange(40) % 12),
        "cut above": dist.clip(np.arange(40) % 30 + 3),
    }
    for name, case in cases.items():
        found = metrics.crps(case, truth, np.full(40, censored))
        wanted = [summed_crps(case[i : i + 1], int(truth[i]), censored) for i in range(40)]
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5, err_msg=name)


def test_crps_of_a_certainty_is_the_absolute_error() -> None:
    grid = LengthGrid()
    at = np.array([3, 100, 40_000, 200_000], np.int32)
    sure = LengthDistribution(
        grid, np.eye(grid.bins, dtype=np.float32)[grid.index(at)], floor=at, ceiling=at
    )
    truth = np.array([7, 90, 40_100, 100])
    np.testing.assert_allclose(metrics.crps(sure, truth, np.zeros(4, bool)), np.abs(at - truth))


def test_pit_is_uniform_when_the_truth_comes_from_the_distribution() -> None:
    rng = np.random.default_rng(0)
    dist = some(1, seed=3)[np.zeros(4000, int)]
    truth = dist.sample(rng, 1)[:, 0]
    censored = truth > 15
    seen = np.where(censored, 15, truth)
    values = metrics.pit(dist, seen, censored, rng.random(4000))
    share = np.histogram(values, bins=10, range=(0, 1))[0] / 4000
    assert np.abs(share - 0.1).max() < 0.02


def test_losses_by_hand() -> None:
    dist = LengthDistribution.from_samples(LengthGrid(), [[10], [10], [10]])
    truth, censored = np.array([14, 7, 7]), np.array([False, False, True])
    named = dict(
        zip(metrics.LOSSES, metrics.losses(dist, truth, censored, np.full(3, 0.5)).T, strict=True)
    )
    assert named["mae"].tolist() == [4, 3, 0]
    np.testing.assert_allclose(named["pinball_90"], [3.6, 0.3, 0])
    assert named["crps"].tolist() == [4, 3, 0]
    # A censored answer lies anywhere above what was seen, so its place is 0.5 of what is left.
    assert named["coverage_80"].tolist() == [0, 0, 1]


values = st.lists(
    st.tuples(st.integers(0, 6), st.integers(0, 6), st.booleans()), min_size=2, max_size=30
)


@given(values)
@settings(max_examples=150, deadline=None)
def test_order_is_what_all_pairs_say(cases: list[tuple[int, int, bool]]) -> None:
    predicted, truth, censored = (np.array(column) for column in zip(*cases, strict=True))
    known, right = 0, 0.0
    for i, j in itertools.permutations(range(len(cases)), 2):
        if truth[i] < truth[j] and not censored[i]:
            known += 1
            right += 1.0 if predicted[i] < predicted[j] else 0.5 * (predicted[i] == predicted[j])
    wanted = right / known if known else 0.5
    assert metrics.pairwise_accuracy(predicted, truth, censored) == pytest.approx(wanted)
    constant = len(set(predicted)) == 1 or len(set(truth)) == 1
    tau = 0.0 if constant else kendalltau(predicted, truth).statistic
    assert metrics.tau(predicted, truth) == pytest.approx(tau)


def test_a_constant_has_tau_0_and_the_truth_tau_1() -> None:
    truth = np.array([5, 1, 9, 9, 2])
    assert metrics.tau(np.full(5, 3.0), truth) == 0
    assert metrics.tau(truth, truth) == 1
    assert metrics.tau(-truth, truth) == -1
    assert metrics.tau([], []) == 0


def test_scores_has_every_metric_and_no_nan() -> None:
    dist = LengthDistribution.concat([some(1)] * 20)
    rng = np.random.default_rng(0)
    found = metrics.scores(dist, dist.sample(rng)[:, 0], np.zeros(20, bool), rng)
    assert set(found) == set(metrics.METRICS)
    assert np.isfinite(list(found.values())).all()
    assert found["tau"] == found["tau_mean"] == 0


def test_detector_scores_by_hand() -> None:
    p_value = np.array([0.01, 0.02, 0.02, 0.5, 0.03, 0.9])
    ood = np.array([True, True, False, False, True, False])
    found = metrics.detector_scores(p_value, ood, 0.05)
    # Nine pairs of an OOD row and another: seven right, one tied, one wrong.
    assert found["auroc"][0] == pytest.approx(7.5 / 9)
    assert found["fpr_at_95_tpr"][0] == pytest.approx(1 / 3)
    assert found["false_alarm_rate"][0] == pytest.approx(1 / 3)


def test_detector_scores_with_weights_are_those_of_the_repeated_rows() -> None:
    rng = np.random.default_rng(0)
    p_value, ood = rng.random(50).round(1), rng.random(50) < 0.5
    counts = rng.integers(0, 3, 50)
    weighted = metrics.detector_scores(p_value, ood, 0.3, counts[None].astype(float))
    repeated = metrics.detector_scores(np.repeat(p_value, counts), np.repeat(ood, counts), 0.3)
    for name in metrics.DETECTOR_METRICS:
        assert weighted[name][0] == pytest.approx(repeated[name][0])


def test_detector_scores_without_ood_rows_are_false_alarms_only() -> None:
    found = metrics.detector_scores(np.array([0.01, 0.4]), np.zeros(2, bool), 0.05)
    assert np.isnan(found["auroc"][0]) and np.isnan(found["fpr_at_95_tpr"][0])
    assert found["false_alarm_rate"][0] == 0.5
