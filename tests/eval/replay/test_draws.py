"""Requests drawn from a table's rows."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lengthpred.data.table import Rows
from lengthpred.errors import DataError, SettingsError
from lengthpred.eval.controls import fit_control
from lengthpred.eval.replay.draws import draw, draw_recorded
from tests.eval.cases import make_rows


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def samples_of(rows: Rows) -> list[list[int]]:
    return [rows.lengths[rows.owner == i].tolist() for i in range(len(rows))]


ROWS = make_rows(60, samples=4)


def test_a_draw_is_a_row_and_one_of_its_samples() -> None:
    drawn = draw(ROWS, 500, rng())
    assert len(drawn.rows) == 500
    theirs, ours = samples_of(ROWS), samples_of(drawn.rows)
    for i, number in enumerate(drawn.numbers):
        assert ours[i][0] == drawn.rows.truth[i]
        assert drawn.output_tokens[i] == max(ours[i][0], 1)
        assert sorted(ours[i]) == sorted(theirs[number])
        assert drawn.rows.requests[i] == ROWS.requests[number]
    # Which sample and which row are both left to chance.
    place = [theirs[number].index(ours[i][0]) for i, number in enumerate(drawn.numbers)]
    assert np.bincount(place, minlength=4).min() > 80
    assert len(np.unique(drawn.numbers)) == 60


def test_a_row_drawn_twice_is_two_requests_to_those_who_know_the_truth() -> None:
    one = ROWS.take([7])
    drawn = draw(one, 40, rng())
    told = fit_control("oracle", drawn.rows).predict(drawn.rows.requests).mean()
    assert len(set(told)) > 1
    assert told.tolist() == drawn.output_tokens.tolist()


def test_the_same_seed_draws_the_same() -> None:
    first, again, other = (draw(ROWS, 100, rng(seed)) for seed in (3, 3, 4))
    assert first.numbers.tolist() == again.numbers.tolist()
    assert first.output_tokens.tolist() == again.output_tokens.tolist()
    assert first.numbers.tolist() != other.numbers.tolist()


@given(st.integers(2, 3000))
def test_a_sum_limit_holds_and_leaves_room_for_an_answer(limit: int) -> None:
    drawn, free = draw(ROWS, 80, rng(), sum_limit=limit), draw(ROWS, 80, rng())
    total = drawn.prompt_tokens + drawn.output_tokens
    assert (total <= limit).all()
    assert (drawn.prompt_tokens >= 1).all() and (drawn.output_tokens >= 1).all()
    assert (limit - drawn.prompt_tokens >= min(124, limit // 2)).all()
    # Only what has to be is cut.
    fits = free.prompt_tokens + free.output_tokens <= min(limit, max(limit - 124, limit // 2))
    assert (drawn.prompt_tokens[fits] == free.prompt_tokens[fits]).all()
    assert (drawn.output_tokens[fits] == free.output_tokens[fits]).all()
    # The truth that is known afterwards is what ran; what a predictor sees says nothing of it.
    assert drawn.rows.truth.tolist() == drawn.output_tokens.tolist()
    assert drawn.rows.requests == free.rows.requests


def test_a_sum_limit_below_two_is_refused() -> None:
    with pytest.raises(SettingsError, match="2 tokens or more"):
        draw(ROWS, 3, rng(), sum_limit=1)


@pytest.mark.parametrize("ratio", [0.0, 0.25, 0.5, 0.8, 1.0])
def test_the_share_out_of_distribution_is_exact(ratio: float) -> None:
    drawn = draw(ROWS, 200, rng(), ood_ratio=ratio)
    marked = drawn.rows.columns["ood"]
    assert marked.sum() == 200 * ratio
    if 0 < ratio < 1:  # and in no order
        assert 0 < marked[:100].sum() < marked.sum()


def test_without_a_ratio_rows_come_as_they_are() -> None:
    share = draw(ROWS, 4000, rng()).rows.columns["ood"].mean()
    assert share == pytest.approx(0.4, abs=0.03)


def test_a_ratio_needs_rows_of_its_sort() -> None:
    inside = ROWS.take(~ROWS.columns["ood"])
    with pytest.raises(DataError, match="out of distribution"):
        draw(inside, 10, rng(), ood_ratio=0.5)
    with pytest.raises(DataError, match="in distribution"):
        draw(ROWS.take(ROWS.columns["ood"]), 10, rng(), ood_ratio=0.5)
    draw(inside, 10, rng(), ood_ratio=0.0)
    with pytest.raises(SettingsError, match="between 0 and 1"):
        draw(ROWS, 10, rng(), ood_ratio=1.5)


def test_recorded_requests_are_neighbours_in_time() -> None:
    times = rng().permutation(60) * 2.0
    rows = dataclasses.replace(ROWS, columns={**ROWS.columns, "arrival_s": times})
    drawn, at = draw_recorded(rows, 20, rng())
    assert np.diff(at).tolist() == [2.0] * 19
    assert times[drawn.numbers].tolist() == at.tolist()
    begins = {float(draw_recorded(rows, 20, rng(seed))[1][0]) for seed in range(40)}
    assert len(begins) > 10
    whole, at = draw_recorded(rows, 1000, rng())
    assert len(whole.rows) == 60 and at[0] == 0


def test_recorded_requests_need_times() -> None:
    with pytest.raises(DataError, match="arrival_s"):
        draw_recorded(ROWS, 5, rng())
