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


def test_each_is_held_against_the_best_that_does_not_know_the_truth(rows: Rows) -> None:
    rival = fit_control("oracle-noise", rows, sigma=0.2)
    comparison = compare({"rival": rival}, rows, cost=False)
    for metric, sign in (("tau", 1), ("pairwise_accuracy", 1), ("mae", -1), ("crps", -1)):
        best = one(comparison, "rival", "in", metric)
        for name in ("constant", "prompt-length", "oracle"):
            own = one(comparison, name, "in", metric)
            difference = one(comparison, name, "in", f"{metric}_vs_best")
            assert difference.value == pytest.approx(own.value - best.value)
            assert difference.low is not None and difference.high is not None
            better = [sign * end > 0 for end in (difference.low, difference.high)]
            # On these rows every difference is real, and the oracle is no candidate.
            assert better == [name == "oracle"] * 2
    compared = [r for r in comparison.results if r.metric.endswith("_vs_best")]
    assert not any(r.predictor == "rival" for r in compared)


def test_a_paired_difference_is_narrower_than_its_two_intervals(rows: Rows) -> None:
    near = {f"near-{s}": fit_control("oracle-noise", rows, sigma=s) for s in (0.5, 0.51)}
    comparison = compare(near, rows, cost=False)
    widths = []
    for metric in ("tau", "tau_vs_best"):
        found = one(comparison, "near-0.51", "in", metric)
        assert found.low is not None and found.high is not None
        widths.append(found.high - found.low)
    assert widths[1] < widths[0] / 5


def test_a_calibrated_predictor_has_its_quantiles_where_they_should_be() -> None:
    rows = make_rows(3000, ood=0)
    predictors = {
        "calibrated": fit_control("oracle-noise", rows, sigma=0.5),
        "short": fit_control("constant", replace(rows, lengths=rows.lengths // 2)),
    }
    comparison = compare(predictors, rows, ratios=[], resamples=20, cost=False)
    for name, share in metrics.CALIBRATION.items():
        assert one(comparison, "calibrated", "all", name).value == pytest.approx(share, abs=0.04)
        assert one(comparison, "short", "all", name).value < share - 0.02
    pit = comparison.answers["calibrated"].pit
    assert one(comparison, "calibrated", "all", "calibration_30").value == np.mean(pit <= 0.3)


def test_what_the_scores_were_made_of_is_there(rows: Rows) -> None:
    comparison = compare({"sharp": LastAreStrange(9)}, rows, resamples=0, cost=False)
    assert comparison.rows is rows
    assert set(comparison.answers) == {"constant", "prompt-length", "oracle"}
    for answer in comparison.answers.values():
        assert answer.median.shape == answer.mean.shape == answer.pit.shape == (300,)
        assert answer.losses.shape == (300, len(metrics.LOSSES))
    assert (
        comparison.p_values["sharp"].tolist() == LastAreStrange(9).p_value(rows.requests).tolist()
    )


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


def test_of_few_rows_it_is_said_that_they_tell_little(rows: Rows) -> None:
    for n, told in ((100, False), (99, True)):
        notes = compare({}, rows.take(np.arange(n)), resamples=0, cost=False).notes
        assert any(f"Only {n} rows are compared" in note for note in notes) == told


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
