"""Means over draws, with and without strata, against SciPy and against least squares."""

from math import exp, log, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from lengthpred.base import FloatArray
from lengthpred.eval.replay.estimates import Estimate, mean_of, ratio_of

NUMBERS = st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=20)


def by_least_squares(values: FloatArray, strata: int) -> Estimate:
    """A mean for each stratum fitted at once; the interval of the mean of these means."""
    n, k = len(values), min(strata, len(values))
    design = np.eye(strata)[np.arange(n) % strata][:, :k]
    means, *_ = np.linalg.lstsq(design, values, rcond=None)
    noise = float(((values - design @ means) ** 2).sum()) / (n - k)
    weights = np.full(k, 1 / k)
    error = sqrt(noise * weights @ np.linalg.inv(design.T @ design) @ weights)
    half = stats.t.ppf(0.975, n - k) * error
    return means.mean(), means.mean() - half, means.mean() + half


@given(NUMBERS)
def test_without_strata_it_is_students_interval(values: list[float]) -> None:
    value, low, high = mean_of(values)
    assert value == pytest.approx(np.mean(values))
    error = float(stats.sem(values))
    wanted = stats.t.interval(0.95, len(values) - 1, loc=value, scale=error or 1e-300)
    assert (low, high) == pytest.approx(wanted, abs=1e-9)


@given(NUMBERS, st.integers(1, 9))
def test_with_strata_it_is_that_of_their_means(values: list[float], strata: int) -> None:
    found = mean_of(values, strata)
    if len(values) <= strata:  # one draw of each, or of some
        assert found[0] == pytest.approx(np.mean(values)) and found[1:] == (None, None)
    else:
        wanted = by_least_squares(np.array(values), strata)
        assert found == pytest.approx(wanted, abs=1e-8)


def test_strata_count_alike_however_many_draws_each_has() -> None:
    # Draws 0 and 2 are of the first stratum, draw 1 of the second.
    assert mean_of([1.0, 10.0, 3.0], 2)[0] == (2 + 10) / 2


def test_what_differs_between_strata_widens_nothing() -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 1, 20)
    apart = noise + np.tile([0.0, 1000.0], 10)
    plain, told = mean_of(noise.tolist(), 2), mean_of(apart.tolist(), 2)
    assert told == pytest.approx([one + 500 for one in plain if one is not None])
    _, low, high = mean_of(apart.tolist())
    assert low is not None and high is not None and high - low > 400


@pytest.mark.parametrize("strata", [1, 3])
def test_the_interval_holds_the_mean_as_often_as_it_says(strata: int) -> None:
    rng = np.random.default_rng(1)
    inside = 0
    for _ in range(2000):
        values = rng.normal(np.arange(9) % strata * 5.0, 2.0)
        _, low, high = mean_of(values.tolist(), strata)
        assert low is not None and high is not None
        inside += low <= 5.0 * (strata - 1) / 2 <= high
    assert inside / 2000 == pytest.approx(0.95, abs=0.015)


@given(st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=12), st.integers(1, 4))
def test_ratios_are_means_of_logarithms(ratios: list[float], strata: int) -> None:
    value, low, high = ratio_of(ratios, strata)
    logs = mean_of([log(ratio) for ratio in ratios], strata)
    assert log(value) == pytest.approx(logs[0], abs=1e-9)
    if logs[1] is None or logs[2] is None:
        assert low is None and high is None
    elif abs(logs[1]) + abs(logs[2]) < 500:
        assert (low, high) == pytest.approx((exp(logs[1]), exp(logs[2])))


def test_half_is_as_far_from_one_as_double() -> None:
    value, low, high = ratio_of([0.5, 2.0, 0.5, 2.0])
    assert value == pytest.approx(1)
    assert low is not None and high is not None and low * high == pytest.approx(1)
    assert ratio_of([1.0, 1.0, 1.0]) == (1, 1, 1)


@pytest.mark.parametrize("strata", [1, 2, 5])
def test_a_single_draw_of_each_stratum_has_no_interval(strata: int) -> None:
    assert mean_of([3.0] * strata, strata) == (3.0, None, None)
    assert ratio_of([1.0] * strata, strata) == (1.0, None, None)
    assert mean_of([3.0] * (strata + 1), strata) == (3.0, 3.0, 3.0)
