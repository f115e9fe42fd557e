"""The comparison as a whole: its rows, its order of predictors, its sentences."""

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from lengthpred import metrics
from lengthpred.artifact import Card
from lengthpred.base import Detector, FloatArray, Predictor, Request
from lengthpred.data.table import Rows
from lengthpred.errors import DataError, SettingsError
from lengthpred.eval.compare import Comparison, compare
from lengthpred.eval.controls import fit_control
from lengthpred.eval.cost import COST_METRICS
from lengthpred.eval.output import Result
from lengthpred.testing import FixedPredictor
from tests.eval.cases import make_rows


class LastAreStrange:
    """A detector that finds the requests from number `first` on unlike the others."""

    def __init__(self, first: int) -> None:
        self.first = first

    def p_value(self, requests: Sequence[Request]) -> FloatArray:
        number = np.array([int(request.id[1:]) for request in requests], float)
        return np.where(number >= self.first, 0.01, 0.2 + number / 1000)


def one(comparison: Comparison, predictor: str, split: str, metric: str) -> Result:
    (found,) = (
        row
        for row in comparison.results
        if (row.predictor, row.split, row.metric) == (predictor, split, metric)
    )
    return found


def test_every_metric_of_every_predictor_on_every_split(rows: Rows) -> None:
    comparison = compare({"fixed": FixedPredictor()}, rows, ratios=[0.5], resamples=20, cost=False)
    names = ("fixed", "constant", "prompt-length", "oracle")
    for name in names:
        for split in ("in", "mix", "ood"):
            for metric in metrics.METRICS:
                result = one(comparison, name, split, metric)
                assert result.low is not None and result.high is not None
                assert np.isfinite([result.value, result.low, result.high]).all()
    assert {row.predictor for row in comparison.results} == set(names)


def test_the_values_are_those_of_the_metrics_module(rows: Rows) -> None:
    comparison = compare({}, rows, resamples=0, cost=False)
    inside = rows.take(~rows.columns["ood"])
    dist = fit_control("prompt-length", rows).predict(inside.requests)
    uniform = np.random.default_rng(0).random(len(rows))[: len(inside)]
    wanted = SimpleNamespace(random=lambda n: uniform)  # the draws of the comparison
    found = metrics.scores(dist, inside.truth, inside.truth_censored, wanted)  # type: ignore[arg-type]
    for metric, value in found.items():
        result = one(comparison, "prompt-length", "in", metric)
        assert result.value == pytest.approx(value)
        assert result.low is None and result.n == len(inside)


def test_a_better_predictor_stands_clear_of_a_noisy_one(rows: Rows) -> None:
    predictors = {
        "good": fit_control("oracle-noise", rows, sigma=0.2),
        "bad": fit_control("oracle-noise", rows, sigma=2.0),
    }
    comparison = compare(predictors, rows, cost=False)
    good, bad = (one(comparison, name, "in", "tau") for name in predictors)
    assert good.low is not None and bad.high is not None
    assert bad.value < bad.high < good.low < good.value < 1
    oracle = one(comparison, "oracle", "in", "tau")
    assert (oracle.value, oracle.low, oracle.high) == (1, 1, 1)
    alone = compare({}, rows.take([i % 2 == 0 for i in range(len(rows))]), cost=False)
    assert one(alone, "constant", "in", "tau").value == 0


def test_the_same_seed_gives_the_same_scores(rows: Rows) -> None:
    first, again = (compare({}, rows, seed=5, resamples=30, cost=False) for _ in range(2))
    assert first.results == again.results
    assert compare({}, rows, seed=6, resamples=30, cost=False).results != first.results


def test_controls_learn_from_the_training_rows(rows: Rows) -> None:
    longer = replace(rows, lengths=rows.lengths + 3000)
    comparison = compare({}, rows, train_rows=longer, resamples=0, cost=False)
    assert one(comparison, "constant", "in", "mae").value > 2000
    assert one(comparison, "oracle", "in", "mae").value == 0
    assert not any("fitted on the evaluated rows" in note for note in comparison.notes)
    flattered = compare({}, rows, resamples=0, cost=False)
    assert any("fitted on the evaluated rows" in note for note in flattered.notes)


def test_rows_of_an_unseen_model_are_counted_and_said(rows: Rows) -> None:
    trained = FixedPredictor()
    trained.card = Card(models=("model-0",))  # type: ignore[attr-defined]
    comparison = compare({"half": trained}, rows, resamples=0, cost=False)
    assert one(comparison, "half", "in", "unseen_model_share").value == 0.5
    assert any("half was not trained on the target model of 150" in n for n in comparison.notes)


def test_censored_rows_are_counted_and_said(rows: Rows) -> None:
    stopped = replace(rows, censored=np.arange(len(rows)) % 4 == 0)
    comparison = compare({}, stopped, resamples=0, cost=False)
    assert one(comparison, "oracle", "in", "censored_share").value == 0.25
    assert any("25.0% of the answers were stopped" in note for note in comparison.notes)


def test_detectors_are_scored_alone_and_inside_a_cascade(rows: Rows) -> None:
    first = int(np.flatnonzero(rows.columns["ood"])[0])
    cascade = FixedPredictor()
    cascade.detector, cascade.alpha = LastAreStrange(first - 18), 0.05  # type: ignore[attr-defined]
    given: dict[str, Predictor | Detector] = {"sharp": LastAreStrange(first), "cascade": cascade}
    comparison = compare(given, rows, ratios=[0.5], resamples=50, cost=False)
    assert one(comparison, "sharp", "all", "auroc").value == 1
    assert one(comparison, "sharp", "in", "false_alarm_rate").value == 0
    alarms = one(comparison, "cascade/detector", "in", "false_alarm_rate")
    assert alarms.value == pytest.approx(0.1)
    assert alarms.low is not None and alarms.high is not None
    assert 0 < alarms.low < 0.1 < alarms.high < 0.2
    # There is no AUROC within one sort, and a detector has no tau.
    kinds = {(r.split, r.metric) for r in comparison.results if r.predictor == "sharp"}
    assert ("in", "auroc") not in kinds and ("all", "fpr_at_95_tpr") in kinds
    assert not any(metric == "tau" for _, metric in kinds)


def test_costs_are_measured_but_not_of_what_knows_the_truth() -> None:
    comparison = compare({}, make_rows(40), resamples=0)
    for metric in COST_METRICS:
        assert 0 < one(comparison, "constant", "all", metric).value < 1e5
    assert not any(r.metric in COST_METRICS for r in comparison.results if r.predictor == "oracle")


def test_progress_ends_at_its_total(rows: Rows) -> None:
    seen: list[tuple[int, int]] = []
    compare({}, rows, resamples=0, cost=False, on_progress=lambda _, d, n: seen.append((d, n)))
    assert [done for done, _ in seen] == list(range(len(seen)))
    assert seen[-1][0] == seen[-1][1]


def test_bad_settings_and_bad_answers_are_errors(rows: Rows) -> None:
    class Short(FixedPredictor):
        def predict(self, requests: Sequence[Request]):  # type: ignore[no-untyped-def]
            return super().predict(requests[1:])

    with pytest.raises(DataError, match="short answered 300 requests with 299"):
        compare({"short": Short()}, rows)
    with pytest.raises(SettingsError, match="alpha must lie"):
        compare({}, rows, alpha=1.5)
    with pytest.raises(SettingsError, match="resamples"):
        compare({}, rows, resamples=-1)
    with pytest.raises(DataError, match="no rows"):
        compare({}, rows.take([]))
