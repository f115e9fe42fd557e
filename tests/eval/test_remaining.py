"""What is left of an answer: the scores by hand, beside the naive rule, and what is left out."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lengthpred import metrics
from lengthpred.data.table import Rows
from lengthpred.eval.bootstrap import Resamples
from lengthpred.eval.compare import Comparison, compare
from lengthpred.eval.controls import fit_control
from lengthpred.eval.output import Document, Result, read_results, write_results
from lengthpred.eval.remaining import PROGRESS, moments
from tests.eval.cases import make_rows

MAES = [f"remaining_mae_{at}" for at in PROGRESS]


def one(comparison: Comparison, predictor: str, metric: str, split: str = "in") -> Result:
    (found,) = (
        row
        for row in comparison.results
        if (row.predictor, row.split, row.metric) == (predictor, split, metric)
    )
    return found


def written_of(comparison: Comparison, seed: int = 0) -> np.ndarray:
    """The moments that the comparison drew."""
    rng = np.random.default_rng(seed)
    rng.random(len(comparison.rows))
    return moments(comparison.rows, rng)


def test_moments_are_shares_of_the_answer_and_one_of_chance(rows: Rows) -> None:
    written = moments(rows, np.random.default_rng(3))
    assert written.shape == (300, 5)
    assert (written[:, 0] == 0).all()
    for column, share in ((1, 0.25), (2, 0.5), (3, 0.75)):
        assert (written[:, column] == np.floor(share * rows.truth)).all()
    # The moment of chance tells nothing of the row's own length.
    assert abs(metrics.tau(written[:, -1], rows.truth)) < 0.1
    assert 0.5 < (written[:, -1] < rows.truth).mean() < 0.9


def test_the_scores_are_those_of_each_row_asked_alone(rows: Rows) -> None:
    comparison = compare({}, rows, cost=False, resamples=0)
    written, dist = (
        written_of(comparison),
        fit_control("prompt-length", rows).predict(rows.requests),
    )
    inside = np.flatnonzero(~rows.columns["ood"])
    left = np.array(
        [[dist[i].given(int(g)).median()[0] - g for g in written[i]] for i in range(len(rows))]
    )[inside]
    naive = np.maximum(dist.median()[:, None] - written, 0)[inside]
    truth = (rows.truth[:, None] - written)[inside]
    for column, metric in enumerate(MAES):
        wanted = np.abs(left - truth)[:, column].mean()
        assert one(comparison, "prompt-length", metric).value == pytest.approx(wanted)
        if column:
            wanted = np.abs(naive - truth)[:, column].mean()
            assert one(comparison, "prompt-length", f"{metric}_naive").value == pytest.approx(
                wanted
            )
    going = truth[:, -1] > 0
    for values, ending in ((left, ""), (naive, "_naive")):
        found = one(comparison, "prompt-length", f"remaining_tau{ending}")
        assert found.n == going.sum() < len(inside)
        wanted = metrics.tau(values[going, -1], truth[going, -1])
        assert found.value == pytest.approx(wanted)


def test_before_the_first_token_it_is_the_error_of_the_total(rows: Rows) -> None:
    comparison = compare({}, rows, cost=False, resamples=20)
    for name in ("constant", "prompt-length", "oracle"):
        first, whole = one(comparison, name, MAES[0]), one(comparison, name, "mae")
        assert (first.value, first.low, first.high) == pytest.approx(
            (whole.value, whole.low, whole.high)
        )
    assert not any(r.metric.startswith(f"{MAES[0]}_") for r in comparison.results)


def test_who_knows_the_truth_is_right_at_every_moment(rows: Rows) -> None:
    comparison = compare({}, rows, cost=False, resamples=0)
    for split in ("in", "ood"):
        assert [one(comparison, "oracle", metric, split).value for metric in MAES] == [0, 0, 0, 0]
        assert one(comparison, "oracle", "remaining_tau", split).value == pytest.approx(1)


def test_asking_again_beats_the_naive_rule_by_more_than_chance() -> None:
    """Most answers are short: what has run on is of the others, and only `given` says so."""
    rows, rng = make_rows(600, ood=0), np.random.default_rng(1)
    lengths = np.where(
        rng.random(600) < 0.75, rng.integers(20, 40, 600), rng.integers(300, 500, 600)
    )
    comparison = compare({}, replace(rows, lengths=lengths), cost=False)
    for metric in (*MAES[1:], "remaining_tau"):
        own, naive = (one(comparison, "constant", f"{metric}{e}", "all") for e in ("", "_naive"))
        change = one(comparison, "constant", f"{metric}_vs_naive", "all")
        assert change.value == pytest.approx(own.value - naive.value)
        assert change.low is not None and change.high is not None
        assert (change.low > 0) if metric == "remaining_tau" else (change.high < 0)
    assert one(comparison, "constant", "remaining_mae_75", "all").value < 20
    assert one(comparison, "constant", "remaining_mae_25_naive", "all").value > 60


def test_the_interval_is_that_of_the_groups(rows: Rows) -> None:
    comparison = compare({}, rows, cost=False, resamples=50, seed=4)
    inside = np.flatnonzero(~rows.columns["ood"])
    left = comparison.answers["constant"].remaining[inside, 2]
    error = np.abs(left - (rows.truth - rows.truth // 2)[inside])
    draws = Resamples(rows.groups[inside], 50, 4)
    means = [(w * error).sum() / w.sum() for part in draws.weights() for w in part]
    found = one(comparison, "constant", "remaining_mae_50")
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])))


def test_stopped_answers_are_left_out_and_counted(rows: Rows) -> None:
    stopped = np.arange(len(rows)) % 4 == 0
    comparison = compare({}, replace(rows, censored=stopped), cost=False, resamples=10)
    kept = ~stopped & ~rows.columns["ood"]
    left = comparison.answers["constant"].remaining[kept, 1]
    truth = rows.truth[kept] - rows.truth[kept] // 4
    found = one(comparison, "constant", "remaining_mae_25")
    assert found.n == kept.sum()
    assert found.value == pytest.approx(np.abs(left - truth).mean())
    assert any("leave these 75 rows out" in note for note in comparison.notes)


@pytest.mark.parametrize("length", [0, 1])
def test_answers_too_short_to_be_at_work(length: int) -> None:
    rows = make_rows(40, ood=0)
    comparison = compare({}, replace(rows, lengths=np.full(40, length)), cost=False, resamples=5)
    found = one(comparison, "oracle", "remaining_tau", "all")
    assert (found.value, found.n) == (0, 40 * length)


def test_where_all_were_stopped_nothing_is_said(rows: Rows, tmp_path: Path) -> None:
    comparison = compare({}, replace(rows, censored=np.ones(300, bool)), cost=False, resamples=5)
    assert not any("remaining" in row.metric for row in comparison.results)
    write_results(Document("", "", 0, comparison.results), tmp_path)
    assert read_results(tmp_path / "eval.json").rows
