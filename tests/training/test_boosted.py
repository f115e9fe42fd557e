"""Training of the boosted predictor: its target, and that it finds what is there."""

from dataclasses import replace

import numpy as np
import pytest

from lengthpred import Request, metrics
from lengthpred.data.table import Rows
from lengthpred.errors import DataError
from lengthpred.training.boosted import model_levels, rank_targets, train
from lengthpred.training.settings import BoostedSettings
from tests.builders import synthetic_rows

SETTINGS = BoostedSettings(bits=10, trees=40, leaves=7)


def rows_of(samples: list[list[int]], stopped: list[list[int]] | None = None) -> Rows:
    """One row for each list of lengths; `stopped` holds a 1 for each that is censored."""
    counts = [len(row) for row in samples]
    flags = stopped or [[0] * count for count in counts]
    return Rows(
        requests=[Request(prompt="x")] * len(samples),
        lengths=np.array([length for row in samples for length in row], np.int64),
        censored=np.array([flag for row in flags for flag in row], bool),
        owner=np.repeat(np.arange(len(samples)), counts),
        groups=np.arange(len(samples)),
        columns={},
    )


def test_the_target_is_the_rank() -> None:
    targets = rank_targets(rows_of([[50], [1], [9000], [7]]))
    assert targets == pytest.approx([5 / 8, 1 / 8, 7 / 8, 3 / 8])


def test_the_level_of_a_model_with_few_rows_is_near_the_mean() -> None:
    asked = [Request(prompt="x", model=name) for name in ["thin"] * 3 + ["thick"] * 100]
    rows = replace(rows_of([[1]] * 103), requests=asked)
    assert model_levels(rows, np.ones(103)) == pytest.approx({"thin": 3 / 23, "thick": 100 / 120})


def test_equal_lengths_share_the_middle_of_their_ranks() -> None:
    assert rank_targets(rows_of([[5], [5], [5], [80]])) == pytest.approx([3 / 8] * 3 + [7 / 8])


def test_a_stopped_answer_has_the_mean_rank_of_what_may_be_above() -> None:
    targets = rank_targets(rows_of([[10], [20], [30], [20]], [[0], [0], [0], [1]]))
    assert targets == pytest.approx([1 / 8, 1 / 2, 7 / 8, (1 / 2 + 1) / 2])


def test_samples_of_one_row_weigh_as_one_row() -> None:
    # In order: 10 (weight 1), 20 (1/2), 30 (1), 40 (1/2); the row's target is its samples' mean.
    targets = rank_targets(rows_of([[10], [20, 40], [30]]))
    assert targets == pytest.approx([0.5 / 3, (1.25 + 2.75) / 2 / 3, 2 / 3])


def test_it_learns_what_is_planted() -> None:
    trained = train(synthetic_rows(800, 0), synthetic_rows(600, 1), SETTINGS, rng())
    fresh = synthetic_rows(600, 2)
    answer = trained.predict(fresh.requests)
    scores = metrics.scores(answer, fresh.truth, fresh.truth_censored, rng())
    assert scores["tau"] > 0.5 and 0.72 < scores["coverage_80"] < 0.88


def test_it_learns_that_one_model_writes_more() -> None:
    rows = synthetic_rows(800, 0)
    double = [1 + 3 * (request.model == "model-b") for request in rows.requests]
    longer = Rows(
        rows.requests, rows.lengths * double, rows.censored, rows.owner, rows.groups, rows.columns
    )
    held = longer.take(np.arange(400, 800))
    trained = train(longer.take(np.arange(400)), held, SETTINGS, rng())
    asked = [Request(prompt="poem of snow", model=f"model-{name}") for name in "ab"]
    low, high = trained.predict(asked).median()
    assert high > 1.5 * low


def test_a_random_forest_averages_trees_and_does_not_shrink_them() -> None:
    forest = SETTINGS.model_copy(update={"booster": "rf", "row_sample": 0.6})
    rows, held, fresh = (synthetic_rows(n, seed) for seed, n in enumerate((800, 600, 600)))
    trained = train(rows, held, forest, rng())
    assert b"average_output" in trained.contents().files["booster.txt"]
    scores = trained.score(fresh.requests)
    assert metrics.tau(scores, fresh.truth) > 0.5
    # A mean of leaves, each a mean of ranks; boosting with so small a step would stay near 1/2.
    slow = forest.model_copy(update={"learning_rate": 1e-6})
    assert (train(rows, held, slow, rng()).score(fresh.requests) == scores).all()
    assert scores.min() < 0.3 and scores.max() > 0.7 and 0.45 < scores.mean() < 0.55
    again = train(rows, held, forest, rng()).contents()
    assert again.files == trained.contents().files


def test_too_little_to_learn_from() -> None:
    rows = synthetic_rows(30)
    with pytest.raises(DataError, match="needs 20 rows with a prompt; there are 19"):
        train(rows.take(np.arange(19)), rows, SETTINGS, rng())
    bare = Rows(
        [Request()] * 30, rows.lengths, rows.censored, rows.owner, rows.groups, rows.columns
    )
    with pytest.raises(DataError, match="there are 0"):
        train(bare, rows, SETTINGS, rng())
    with pytest.raises(DataError, match="no rows to calibrate on"):
        train(rows, bare, SETTINGS, rng())


def test_a_few_rows_without_text_are_left_out() -> None:
    rows = synthetic_rows(60)
    requests = [Request() if i < 10 else r for i, r in enumerate(rows.requests)]
    some = Rows(requests, rows.lengths, rows.censored, rows.owner, rows.groups, rows.columns)
    trained = train(some, some, SETTINGS, rng())
    assert len(trained.predict(requests)) == 60


def rng() -> np.random.Generator:
    return np.random.default_rng(0)
