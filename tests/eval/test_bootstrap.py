"""Intervals: of the right width, paired, and the same however memory is saved."""

import numpy as np
import pytest
from scipy.stats import kendalltau

from lengthpred import metrics
from lengthpred.eval import bootstrap
from lengthpred.eval.bootstrap import Resamples, interval


def test_the_interval_of_a_mean_covers_it_95_times_in_100() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for trial in range(200):
        groups = np.repeat(np.arange(60), 3)
        values = np.repeat(rng.normal(size=60), 3) + rng.normal(size=180) / 4
        sums = Resamples(groups, 200, trial).sums(np.column_stack([values, np.ones(180)]))
        low, high = interval(sums[:, 0] / sums[:, 1])
        assert low is not None and high is not None
        hits += low < 0 < high
    assert 178 <= hits <= 199


def test_sums_medians_and_weights_use_the_same_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    values, groups = rng.random(101), rng.integers(0, 40, 101)
    draws = Resamples(groups, 30, 1)
    weights = np.concatenate(list(draws.weights()))
    assert weights.shape == (30, 101)
    np.testing.assert_allclose(draws.sums(values[:, None])[:, 0], weights @ values)
    for row, median in zip(weights.astype(int), draws.medians(values), strict=True):
        repeated = np.sort(np.repeat(values, row))
        assert median == repeated[(len(repeated) - 1) // 2]
    sums, medians = draws.sums(values[:, None]), draws.medians(values)
    monkeypatch.setattr(bootstrap, "CELLS", 500)
    sparing = Resamples(groups, 30, 1)
    np.testing.assert_allclose(sparing.sums(values[:, None]), sums)
    np.testing.assert_allclose(sparing.medians(values), medians)


def test_one_group_has_no_interval() -> None:
    draws = Resamples(np.zeros(5, int), 200, 0)
    assert interval(draws.sums(np.ones((5, 1)))) == (None, None)
    assert interval(Resamples(np.arange(5), 0, 0).medians(np.ones(5))) == (None, None)


def test_tau_to_first_order_spreads_as_resampled_tau_does() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(1, 400, 300)
    predicted = truth + rng.normal(0, 150, 300)
    terms = metrics.order_terms(predicted, truth, np.zeros(300, bool))
    draws = Resamples(np.arange(300), 400, 0)
    ours = metrics.order_scores(*(2 * draws.sums(terms) - terms.sum(axis=0)).T)["tau"]
    weights = np.concatenate(list(draws.weights())).astype(int)
    rows = [np.repeat(np.arange(300), row) for row in weights]
    theirs = np.array([kendalltau(predicted[row], truth[row]).statistic for row in rows])
    assert ours.mean() == pytest.approx(theirs.mean(), abs=0.01)
    assert ours.std() == pytest.approx(theirs.std(), rel=0.1)
    assert np.corrcoef(ours, theirs)[0, 1] > 0.98
