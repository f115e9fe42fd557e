"""A baseline: what counts as worse, who stands against whom, and what cannot be compared."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lengthpred.errors import DataError
from lengthpred.eval.baseline import Baseline, read_baseline
from lengthpred.eval.compare import compare
from lengthpred.eval.controls import fit_control
from lengthpred.eval.mixes import Mix, make_mixes
from lengthpred.eval.output import Document, Result, write_results
from tests.eval.cases import make_rows

SHA = "ab" * 32


def result(
    predictor: str = "mine", metric: str = "tau", value: float = 0.4, **other: object
) -> Result:
    """A score of 100 rows, with 0.05 to either side as its interval."""
    plain = Result(predictor, "all", None, metric, value, value - 0.05, value + 0.05, 100)
    return replace(plain, **other)  # type: ignore[arg-type]


def baseline(tmp_path: Path, rows: Sequence[Result], labels: Sequence[str] = ("mine",)) -> Baseline:
    """An earlier evaluation with these scores, read from disk."""
    path, _ = write_results(Document("lengthpred eval mine", SHA, 0, rows), tmp_path)
    return read_baseline(path, data_sha256=SHA, seed=0, labels=labels)


@pytest.mark.parametrize(
    ("metric", "old", "fine", "worse"),
    [
        ("tau", 0.4, 0.36, 0.34),
        ("tau_mean", 0.4, 0.9, 0.3),
        ("pairwise_accuracy", 0.7, 0.66, 0.64),
        ("auroc", 0.7, 0.66, 0.64),
        ("mae", 10.0, 10.04, 10.06),
        ("median_ae", 10.0, 3.0, 10.06),
        ("crps", 10.0, 10.04, 10.06),
        ("pinball_90", 10.0, 10.04, 10.06),
        ("fpr_at_95_tpr", 0.5, 0.54, 0.56),
        ("coverage_80", 0.8, 0.84, 0.86),
        ("coverage_80", 0.8, 0.76, 0.74),
        ("coverage_80", 0.7, 0.94, 0.96),
        ("false_alarm_rate", 0.1, 0.14, 0.16),
        ("false_alarm_rate", 0.0, 0.05, 0.06),
    ],
)
def test_worse_is_beyond_the_worse_end(
    tmp_path: Path, metric: str, old: float, fine: float, worse: float
) -> None:
    before = baseline(tmp_path, [result(metric=metric, value=old)])
    levels = {"mine": 0.05}
    assert before.regressions([result(metric=metric, value=old)], levels) == []
    assert before.regressions([result(metric=metric, value=fine)], levels) == []
    (found,) = before.regressions([result(metric=metric, value=worse)], levels)
    assert (found.old.value, found.new.value) == (old, worse)


@pytest.mark.parametrize(
    ("metric", "old", "fine", "worse"),
    [
        ("auroc", 1.0, 0.99, 0.989),
        ("tau", 0.0, -0.01, -0.02),
        ("fpr_at_95_tpr", 0.0, 0.01, 0.02),
        ("mae", 1e6, 1e6 + 1e-4, 1e6 + 0.1),
    ],
)
def test_an_interval_of_no_width_is_no_proof_of_a_small_fall(
    tmp_path: Path, metric: str, old: float, fine: float, worse: float
) -> None:
    before = baseline(tmp_path, [result(metric=metric, value=old, low=old, high=old)])
    assert not before.regressions([result(metric=metric, value=fine)])
    assert before.regressions([result(metric=metric, value=worse)])


def test_a_coverage_is_worse_only_where_both_intervals_say_so(tmp_path: Path) -> None:
    before = baseline(tmp_path, [result(metric="coverage_80", value=0.8)])
    new = result(metric="coverage_80", value=0.86)
    assert before.regressions([new])
    assert not before.regressions([replace(new, low=0.79)])
    assert not before.regressions([replace(new, low=None, high=None)])


def test_a_score_without_an_interval_is_not_compared(tmp_path: Path) -> None:
    before = baseline(tmp_path, [result(), result(metric="mae", low=None, high=None)])
    assert not before.regressions([result(metric="mae", value=9.0)])
    assert before.regressions([result(value=0.1, low=None, high=None)])
    with pytest.raises(DataError, match=r"no intervals .*: run it again with --resamples 200"):
        baseline(tmp_path / "none", [result(low=None, high=None), result("oracle")])


@pytest.mark.parametrize(
    ("split", "ood_ratio"), [("mix", 0.5), ("mix", 0.0), ("domain=law", None), ("model=a", None)]
)
def test_mixes_and_slices_are_not_compared(
    tmp_path: Path, split: str, ood_ratio: float | None
) -> None:
    part = result(split=split, ood_ratio=ood_ratio)
    before = baseline(tmp_path, [result(), part])
    assert not before.regressions([replace(part, value=0.1, n=7)])


def test_a_detector_alone_is_compared_on_all_rows(tmp_path: Path) -> None:
    before = baseline(tmp_path, [result(metric="auroc")])
    before.check_rows([Mix("in", None, np.arange(60)), Mix("ood", None, np.arange(40))])
    with pytest.raises(DataError, match="has 99"):
        before.check_rows([Mix("in", None, np.arange(60)), Mix("ood", None, np.arange(39))])


@pytest.mark.parametrize(
    "metric",
    ["us_per_request_p50", "censored_share", "unseen_model_share", "tau_vs_best", "calibration_50"],
)
def test_what_is_no_score_of_quality_is_not_compared(tmp_path: Path, metric: str) -> None:
    before = baseline(tmp_path, [result(), result(metric=metric, value=1.0)])
    assert not before.regressions([result(metric=metric, value=0.1)])
    assert not before.regressions([result(metric=metric, value=9.0, n=7)])


def test_predictors_stand_against_their_own_label(tmp_path: Path) -> None:
    names = ("mine", "other", "constant", "ceiling", "mine/detector")
    before = baseline(tmp_path, [result(name) for name in names], ["mine", "new"])
    assert before.pairs == {"mine": "mine"}
    assert before.left_out == ("other",)
    fallen = before.regressions([result(name, value=0.1) for name in (*names, "new")])
    assert [one.new.predictor for one in fallen] == ["mine", "mine/detector"]


def test_a_new_version_under_a_new_name_stands_against_the_old_one(tmp_path: Path) -> None:
    earlier = [result(name) for name in ("constant", "v1", "v1/detector", "ceiling")]
    before = baseline(tmp_path, earlier, ["v2"])
    assert before.pairs == {"v2": "v1"} and before.left_out == ()
    fallen = before.regressions([result("v2", value=0.1), result("v2/detector", value=0.1)])
    assert [(one.old.predictor, one.new.predictor) for one in fallen] == [
        ("v1", "v2"),
        ("v1/detector", "v2/detector"),
    ]


def test_what_cannot_be_compared_is_one_sentence(tmp_path: Path) -> None:
    earlier = [result("v1"), result("w1"), result("oracle")]
    path, _ = write_results(Document("", SHA, 3, earlier), tmp_path)
    given = {"data_sha256": SHA, "seed": 3, "labels": ["v1"]}
    wrong: list[tuple[dict[str, object], str]] = [
        ({"data_sha256": "cd" * 32}, "is of other data"),
        ({"seed": 0}, "add --seed 3"),
        ({"labels": ["v2"]}, "it holds v1, w1 and this evaluation v2"),
        ({"labels": []}, "this evaluation only controls"),
    ]
    for change, message in wrong:
        with pytest.raises(DataError, match=message):
            read_baseline(path, **{**given, **change})  # type: ignore[arg-type]
    with pytest.raises(DataError, match="cannot be read"):
        read_baseline(tmp_path / "absent.json", **given)  # type: ignore[arg-type]
    before = read_baseline(path, **given)  # type: ignore[arg-type]
    before.check_rows([Mix("all", None, np.arange(100))])
    with pytest.raises(DataError, match=r"scored 100 rows of the split 'all' .* has 99"):
        before.check_rows([Mix("all", None, np.arange(99))])
    with pytest.raises(DataError, match=r"no scores of this evaluation's splits \(in\)"):
        before.check_rows([Mix("in", None, np.arange(100))])
    with pytest.raises(DataError, match="has 99"):
        before.regressions([result("v1", n=99)])


def test_real_evaluations_of_a_good_and_a_noisier_one(tmp_path: Path) -> None:
    rows = make_rows(400)
    results = {}
    for sigma in (0.2, 0.21, 1.5):
        predictor = fit_control("oracle-noise", rows, sigma=sigma)
        results[sigma] = compare({"mine": predictor}, rows, cost=False).results
    before = baseline(tmp_path, results[0.2])
    before.check_rows(make_mixes(rows))
    assert before.regressions(results[0.2]) == before.regressions(results[0.21]) == []
    fallen = {(one.new.split, one.new.metric) for one in before.regressions(results[1.5])}
    assert {("in", "tau"), ("ood", "mae"), ("in", "crps")} <= fallen
    assert {split for split, _ in fallen} == {"in", "ood"}
