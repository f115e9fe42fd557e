"""The table from score to distribution, on fresh rows of the same kind."""

import numpy as np
import pytest

from lengthpred import LengthGrid, metrics
from lengthpred.errors import DataError
from lengthpred.training.calibration import fit_score_table
from tests.training.scored import scored_lengths, table_of


@pytest.mark.parametrize("limit", [None, 300])
def test_intervals_of_80_percent_hold_80_percent(limit: int | None) -> None:
    covered = []
    for seed in range(4):
        table = table_of(*scored_lengths(3000, seed, limit))
        scores, lengths, censored = scored_lengths(3000, seed + 100, limit)
        rng = np.random.default_rng(seed)
        covered.append(metrics.scores(table(scores), lengths, censored, rng)["coverage_80"])
    assert np.mean(covered) == pytest.approx(0.8, abs=0.02)


def test_it_knows_more_than_the_marginal() -> None:
    table = table_of(*scored_lengths(3000, 0))
    scores, lengths, censored = scored_lengths(2000, 1)
    uniform = np.random.default_rng(0)
    known = metrics.scores(table(scores), lengths, censored, uniform)
    prior = metrics.scores(table(np.full(2000, np.nan)), lengths, censored, uniform)
    assert known["crps"] < 0.8 * prior["crps"] and known["tau"] > 0.5


def test_the_cdf_falls_as_the_score_rises() -> None:
    table = table_of(*scored_lengths(500, 5))
    assert len(table.knots) == 64 and (np.diff(table.knots) > 0).all()
    cdf = np.cumsum(table.pmf.astype(np.float64), axis=1)
    assert (np.diff(cdf, axis=0) <= 1e-6).all()
    assert cdf[:, -1] == pytest.approx(1, abs=1e-5)


def test_stopped_answers_count_for_what_they_show() -> None:
    scores, lengths, _ = scored_lengths(6000, 7)
    # Each answer has a limit of its own: more than a third are stopped, long ones above all.
    limits = np.random.default_rng(1).exponential(220, len(lengths)).astype(np.int64) + 1
    seen, censored = np.minimum(lengths, limits), lengths > limits
    natural, naive = lengths.mean(), seen.mean()
    assert censored.mean() > 0.35 and naive < 0.65 * natural
    assert table_of(scores, seen, censored)(scores).mean().mean() == pytest.approx(natural, rel=0.1)


def test_a_row_of_many_samples_weighs_as_one() -> None:
    scores, lengths, censored = scored_lengths(300, 2)
    once = table_of(scores, lengths, censored)
    split = fit_score_table(
        LengthGrid(),
        np.repeat(scores, 4),
        np.repeat(lengths, 4),
        np.repeat(censored, 4),
        np.full(1200, 0.25),
    )
    assert split.prior == pytest.approx(once.prior, abs=1e-6)


def test_rows_without_a_score_are_left_out() -> None:
    scores, lengths, censored = scored_lengths(200, 4)
    some = np.append(scores, np.nan), np.append(lengths, 30_000), np.append(censored, False)
    assert (table_of(*some).pmf == table_of(scores, lengths, censored).pmf).all()
    with pytest.raises(DataError, match="no rows to calibrate on"):
        table_of(np.full(3, np.nan), np.ones(3, np.int64), np.zeros(3, bool))


def test_equal_scores_share_one_distribution() -> None:
    lengths = np.arange(100)
    table = table_of(np.full(100, 0.5), lengths, np.zeros(100, bool))
    assert len(table.knots) == 1
    assert table(np.array([0.1, 0.9])).median() == pytest.approx([50, 50], abs=4)
