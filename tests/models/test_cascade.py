"""The cascade: who answers what, deadlines, and parts of parts."""

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from lengthpred import LengthDistribution, LengthGrid, Request, load
from lengthpred.base import FloatArray
from lengthpred.errors import ArtifactError
from lengthpred.models.cascade import BATCH, Cascade
from lengthpred.models.histogram import Histogram
from lengthpred.testing import FixedPredictor
from tests.builders import build, synthetic_rows

GRID = LengthGrid()
LOW, HIGH = 3, 200


class Odd:
    """Flags prompts that begin with "odd"."""

    def p_value(self, requests: Sequence[Request]) -> FloatArray:
        return np.array([0.01 if r.prompt.startswith("odd") else 0.9 for r in requests])


class Says:
    """Says one length, and can take its time for each batch."""

    def __init__(self, length: int, sleep_s: float = 0.0) -> None:
        self.row, self.sleep_s = np.eye(GRID.bins, dtype=np.float32)[GRID.index(length)], sleep_s
        self.asked: list[Request] = []

    def predict(self, requests: Sequence[Request]) -> LengthDistribution:
        self.asked += requests
        if requests:
            time.sleep(self.sleep_s)
        return LengthDistribution(GRID, np.tile(self.row, (len(requests), 1)))


class Half(Says):
    """Refines every other request."""

    deadline_s = 0.0

    def refine(
        self, requests: Sequence[Request], deadline_s: float
    ) -> tuple[LengthDistribution, npt.NDArray[np.bool_]]:
        self.deadline_s = deadline_s
        return self.predict(requests), np.arange(len(requests)) % 2 == 0


def cascade(fallback: object = None, alpha: float = 0.05) -> Cascade:
    return Cascade(Says(LOW), Odd(), fallback or Says(HIGH), alpha)  # type: ignore[arg-type]


def said(answer: LengthDistribution) -> list[str]:
    names = {int(GRID.index(LOW)): "low", int(GRID.index(HIGH)): "high"}
    return [names[int(row.argmax())] for row in answer.pmf]


ASKED = [Request(prompt=f"{'odd' if i % 3 == 0 else 'usual'} {i}") for i in range(7)]
FLAGGED = [i % 3 == 0 for i in range(7)]


def test_the_fallback_answers_exactly_what_is_flagged() -> None:
    fallback = Says(HIGH)
    answer = cascade(fallback).predict(ASKED)
    assert said(answer) == ["high" if flag else "low" for flag in FLAGGED]
    assert fallback.asked == [r for r, flag in zip(ASKED, FLAGGED, strict=True) if flag]
    assert said(cascade(alpha=0).predict(ASKED)) == ["low"] * 7
    assert said(cascade(alpha=1).predict(ASKED)) == ["high"] * 7
    assert len(cascade().predict([])) == 0


def test_provisional_is_the_primary_and_asks_nobody_else() -> None:
    fallback = Says(HIGH)
    answer, unsure = cascade(fallback).provisional(ASKED)
    assert said(answer) == ["low"] * 7 and unsure.tolist() == FLAGGED and fallback.asked == []


def test_refine_gives_the_second_opinion_on_all() -> None:
    answer, refined = cascade().refine(ASKED, 60)
    assert said(answer) == ["high"] * 7 and refined.all()


def test_a_deadline_of_zero_keeps_every_first_answer() -> None:
    fallback = Says(HIGH)
    for deadline_s in (0.0, -1.0):
        answer, refined = cascade(fallback).refine(ASKED, deadline_s)
        assert said(answer) == ["low"] * 7 and not refined.any()
    assert fallback.asked == []


def test_at_the_deadline_the_rest_keeps_the_first_answer() -> None:
    slow = Says(HIGH, sleep_s=0.15)
    asked = ASKED * (10 * BATCH // len(ASKED))
    begun = time.monotonic()
    answer, refined = cascade(slow).refine(asked, 0.2)
    # The batch that runs at the deadline is finished; ten of them would take 1.5 s.
    assert time.monotonic() - begun < 1
    assert 0 < refined.sum() < len(asked) and refined.sum() % BATCH == 0
    assert said(answer) == ["high" if done else "low" for done in refined]
    assert len(slow.asked) == refined.sum()


def test_a_fallback_that_refines_gets_the_time_that_is_left() -> None:
    half = Half(HIGH)
    answer, refined = cascade(half).refine(ASKED, 30)
    assert refined.tolist() == [True, False] * 3 + [True]
    assert said(answer) == ["high" if done else "low" for done in refined]
    assert 25 < half.deadline_s <= 30


def test_a_cascade_in_a_cascade() -> None:
    outer = cascade(Cascade(Says(HIGH), Odd(), Says(LOW)))
    assert said(outer.predict(ASKED)) == ["low"] * 7
    answer, refined = outer.refine(ASKED, 30)
    assert refined.all() and said(answer) == ["low"] * 7


def test_observations_reach_the_parts_that_learn() -> None:
    first, second = Histogram(GRID), Histogram(GRID)
    for fallback in (second, FixedPredictor({}, 9)):
        whole = Cascade(first, Odd(), fallback)
        whole.observe(ASKED, np.full(7, 50), np.zeros(7, bool))
    # The first learnt in both cascades, the second in one; what cannot learn is passed by.
    seen = [part.contents().arrays["cells"].max() for part in (first, second)]
    assert seen[0] > 1.9 * seen[1] > 0


def test_parts_that_do_not_fit() -> None:
    coarse = Histogram(LengthGrid(np.array([0, 8, 64])))
    with pytest.raises(ValueError, match="same grid"):
        cascade(coarse)
    for alpha in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="alpha"):
            cascade(alpha=alpha)
    with pytest.raises(ValueError, match="primary of this cascade cannot be saved"):
        cascade().contents()


def test_save_and_load(tmp_path: Path) -> None:
    whole = build("cascade")
    assert isinstance(whole, Cascade)
    nested = Cascade(build("histogram"), build("knn"), whole, 0.3)  # type: ignore[arg-type]
    loaded = load(nested.save(tmp_path / "nested"))
    assert isinstance(loaded, Cascade) and isinstance(loaded.fallback, Cascade)
    assert (loaded.alpha, loaded.fallback.alpha) == (0.3, 0.5)
    asked = [*synthetic_rows(50, 7).requests, *ASKED]
    assert (loaded.predict(asked).pmf == nested.predict(asked).pmf).all()
    assert (loaded.provisional(asked)[1] == nested.provisional(asked)[1]).all()


@pytest.mark.parametrize("part", ["primary", "detector", "fallback"])
def test_a_part_that_is_gone_is_an_error(tmp_path: Path, part: str) -> None:
    folder = build("cascade").save(tmp_path / "whole")
    (folder / part / "config.json").unlink()
    with pytest.raises(ArtifactError, match=rf"{part}.config\.json"):
        load(folder)
