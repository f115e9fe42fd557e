"""The controls: what they answer, and for which rows."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import lengthpred
from lengthpred.base import Request
from lengthpred.data.table import Rows
from lengthpred.distribution import LengthGrid
from lengthpred.errors import DataError, SettingsError
from lengthpred.eval.controls import CONTROLS, fit_control
from lengthpred.metrics import tau
from lengthpred.survival import marginal
from tests.eval.cases import make_rows


@pytest.mark.parametrize("name", CONTROLS)
def test_every_control_answers_any_request(name: str) -> None:
    rows = make_rows(60, samples=3)
    control = fit_control(name, rows)
    strangers = [Request(), Request(prompt="x" * 100_000, model="never seen")]
    assert len(control.predict([*rows.requests, *strangers])) == 62
    assert len(control.predict([])) == 0


def test_the_oracle_is_exact_also_for_rows_that_say_the_same() -> None:
    rows = make_rows(50)
    same = [Request(prompt="again") for _ in range(50)]
    twins = replace(rows, requests=same)
    shuffled = twins.take(np.random.default_rng(0).permutation(50))
    answer = fit_control("oracle", twins).predict(shuffled.requests)
    assert answer.median().tolist() == answer.mean().tolist() == shuffled.truth.tolist()
    # A copy is no longer one of the rows, but equals the first of them.
    copy = fit_control("oracle", twins).predict([Request(prompt="again")])
    assert copy.median()[0] == twins.truth[0]


def test_noise_of_the_oracle_lowers_its_tau(rows: Rows) -> None:
    taus = [
        tau(
            fit_control("oracle-noise", rows, sigma=sigma).predict(rows.requests).median(),
            rows.truth,
        )
        for sigma in (0.1, 0.5, 2.0)
    ]
    assert 1 > taus[0] > taus[1] > taus[2] > 0
    with pytest.raises(SettingsError, match="above 0"):
        fit_control("oracle-noise", rows, sigma=0)


def test_samples_are_those_other_than_the_truth() -> None:
    rows = replace(make_rows(3, samples=3), lengths=np.array([9, 2, 4, 1, 8, 14, 500, 11, 13]))
    mean = fit_control("samples-mean", rows).predict(rows.requests).median()
    most = fit_control("samples-max", rows).predict(rows.requests).median()
    assert mean == pytest.approx([3, 11, 12], abs=0.5)
    assert most == pytest.approx([4, 14, 13], abs=0.5)


def test_samples_need_several(rows: Rows) -> None:
    with pytest.raises(DataError, match="two or more lengths"):
        fit_control("samples-mean", rows)


def test_an_unknown_control_names_the_near_one(rows: Rows) -> None:
    with pytest.raises(SettingsError, match="'oracle'"):
        fit_control("orakle", rows)


def test_constant_is_the_marginal_of_the_model() -> None:
    rows = make_rows(400)
    short = np.array([request.model == "model-0" for request in rows.requests])
    rows = replace(rows, lengths=np.where(short, 7, 12))
    requests = [Request(model=name) for name in ("model-0", "model-1", "unseen")]
    answer = fit_control("constant", rows).predict(requests)
    assert answer.median()[:2].tolist() == [7, 12]
    assert answer.mean()[2] == pytest.approx(9.5)
    assert (
        tau(fit_control("constant", rows.take(short)).predict(rows.requests).median(), rows.truth)
        == 0
    )


def test_prompt_length_orders_what_it_can_also_when_long_prompts_get_short_answers() -> None:
    rows = make_rows(600)
    upward = fit_control("prompt-length", rows).predict(rows.requests).median()
    assert tau(upward, rows.truth) > 0.5
    falling = replace(rows, lengths=2000 - rows.lengths.clip(0, 1999))
    downward = fit_control("prompt-length", falling).predict(rows.requests).median()
    assert tau(downward, falling.truth) > 0.5


def test_prompt_length_uses_the_count_of_tokens_where_there_is_one(rows: Rows) -> None:
    control = fit_control("prompt-length", rows)
    long = Request(prompt="word " * 300)
    counted = Request(prompt="short", prompt_tokens=375)
    unknown = Request(model="model-1")
    answer = control.predict([long, counted, unknown])
    assert answer.pmf[0].tolist() == answer.pmf[1].tolist()
    prior = fit_control("constant", rows).predict([unknown])
    assert answer.pmf[2].tolist() == prior.pmf[0].tolist()


@pytest.mark.parametrize("name", ["constant", "prompt-length"])
def test_controls_that_learn_can_be_saved(name: str, rows: Rows, tmp_path: Path) -> None:
    control = fit_control(name, rows)
    control.save(tmp_path / name)  # type: ignore[attr-defined]
    again = lengthpred.load(tmp_path / name)
    requests = [*rows.requests, Request()]
    assert np.array_equal(again.predict(requests).pmf, control.predict(requests).pmf)
    assert again.card.models == ("model-0", "model-1")  # type: ignore[attr-defined]


def test_the_marginal_makes_up_for_censoring() -> None:
    rng = np.random.default_rng(0)
    natural = rng.geometric(1 / 60, 20_000)
    limit = rng.integers(20, 200, 20_000)
    seen, stopped = np.minimum(natural, limit), natural > limit
    grid = LengthGrid()
    pmf = marginal(grid, seen, stopped, np.ones(20_000))
    wanted = marginal(grid, natural, np.zeros(20_000, bool), np.ones(20_000))
    reached = grid.edges[1:] <= 200
    assert np.abs(np.cumsum(pmf - wanted)[reached]).max() < 0.02


def test_the_marginal_of_nothing_but_censored_lengths_lies_above_them() -> None:
    grid = LengthGrid()
    pmf = marginal(grid, np.array([10, 12]), np.ones(2, bool), np.ones(2))
    assert pmf[:13].sum() == 0 and pmf.sum() == pytest.approx(1)
