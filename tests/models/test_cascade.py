"""The cascade: who answers what, deadlines, and parts of parts."""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from lengthpred import LengthDistribution, LengthGrid, Request, load
from lengthpred.base import FloatArray
from lengthpred.errors import ArtifactError, BackendError
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
    """Says one length."""

    def __init__(self, length: int) -> None:
        self.row = np.eye(GRID.bins, dtype=np.float32)[GRID.index(length)]
        self.asked: list[Request] = []

    def predict(self, requests: Sequence[Request]) -> LengthDistribution:
        self.asked += requests
        return LengthDistribution(GRID, np.tile(self.row, (len(requests), 1)))


class Stops(Says):
    """Answers until it was asked for `after` requests, then hangs until the gate is opened."""

    def __init__(self, after: int = 0) -> None:
        super().__init__(HIGH)
        self.after, self.gate = after, threading.Event()

    def predict(self, requests: Sequence[Request]) -> LengthDistribution:
        answer = super().predict(requests)
        if len(self.asked) > self.after:
            self.gate.wait(60)
        return answer


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
    slow = Stops(after=BATCH)
    asked = ASKED * (10 * BATCH // len(ASKED))
    whole = cascade(slow)
    begun = time.monotonic()
    answer, refined = whole.refine(asked, 1.0)
    assert 0.9 < time.monotonic() - begun < 5
    assert refined.tolist() == [True] * BATCH + [False] * (len(asked) - BATCH)
    assert said(answer) == ["high" if done else "low" for done in refined]
    # The batch that was asked and left behind has failed; the others were never asked.
    assert len(slow.asked) == 2 * BATCH and whole.failures == BATCH
    slow.gate.set()


def test_a_fallback_that_refines_gets_the_time_that_is_left() -> None:
    half = Half(HIGH)
    answer, refined = cascade(half).refine(ASKED, 30)
    assert refined.tolist() == [True, False] * 3 + [True]
    assert said(answer) == ["high" if done else "low" for done in refined]
    assert 25 < half.deadline_s <= 30


def raises(error: Exception) -> Callable[[Sequence[Request]], LengthDistribution]:
    def predict(requests: Sequence[Request]) -> LengthDistribution:
        raise error

    return predict


def other_grid(requests: Sequence[Request]) -> LengthDistribution:
    grid = LengthGrid(GRID.edges + np.arange(len(GRID.edges)))  # as many bins, elsewhere
    return LengthDistribution(grid, Says(HIGH).predict(requests).pmf)


def not_a_number(requests: Sequence[Request]) -> LengthDistribution:
    pmf = np.full((len(requests), GRID.bins), np.nan, np.float32)
    return LengthDistribution.trusted(GRID, pmf)


WRONG = {
    "a server that is down": (raises(BackendError("connection refused")), "refused"),
    "a defect": (raises(ZeroDivisionError("oops")), "ZeroDivisionError: oops"),
    "rows too few": (lambda asked: Says(HIGH).predict(asked[1:]), "must have 7 rows, not 6"),
    "rows too many": (lambda asked: Says(HIGH).predict([*asked, *asked]), "7 rows, not 14"),
    "another grid": (other_grid, "on the grid"),
    "NaN": (not_a_number, "finite"),
    "no distribution": (lambda asked: None, "not NoneType"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_fallback_that_fails_is_counted_and_the_first_answer_stays(case: str) -> None:
    fallback = Says(HIGH)
    whole = cascade(fallback, alpha=1)
    predict, message = WRONG[case]
    fallback.predict = predict  # type: ignore[method-assign, assignment]
    for failures in (7, 14):
        answer, refined = whole.refine(ASKED, 60)
        assert said(answer) == ["low"] * 7 and not refined.any() and refined.shape == (7,)
        assert whole.failures == failures and message in whole.last_failure
    with pytest.raises((BackendError, ZeroDivisionError)):
        whole.predict(ASKED)
    assert whole.failures == 14  # of refinements only
    del fallback.predict
    assert whole.refine(ASKED, 60)[1].all() and whole.failures == 14


@pytest.mark.parametrize("flags", [[True] * 7, np.ones(6, bool), np.ones(7), None])
def test_flags_of_a_fallback_that_refines(flags: object) -> None:
    half = Half(HIGH)
    half.refine = lambda asked, left: (half.predict(asked), flags)  # type: ignore
    whole = cascade(half)
    # A list of bools is as good as an array.
    good = isinstance(flags, list)
    assert whole.refine(ASKED, 60)[1].all() == good and whole.failures == (0 if good else 7)


def test_while_a_fallback_hangs_later_refinements_fail_at_once_and_then_it_recovers() -> None:
    hangs = Stops()
    whole = cascade(hangs)
    whole.refine(ASKED, 0.2)
    before = threading.active_count()
    begun = time.monotonic()
    for _ in range(20):
        answer, refined = whole.refine(ASKED, 30)
        assert said(answer) == ["low"] * 7 and not refined.any()
    assert time.monotonic() - begun < 30 and threading.active_count() <= before
    assert whole.failures == 21 * 7 and "busy" in whole.last_failure
    assert said(whole.provisional(ASKED)[0]) == ["low"] * 7
    hangs.after = 10**6
    hangs.gate.set()
    begun = time.monotonic()
    while not whole.refine(ASKED, 30)[1].all():
        assert time.monotonic() - begun < 60, "the thread that was left behind never ends"
        time.sleep(0.01)


@pytest.mark.parametrize("how", ["hangs", "raises"])
def test_backend_stopped_in_mid_run_every_answer_still_arrives_in_time(how: str) -> None:
    fallback = Stops(after=40)
    if how == "raises":
        fallback.gate.wait = raises(BackendError("gone"))  # type: ignore
    whole = cascade(fallback, alpha=1)
    deadline_s, refined = 1.0, []
    for i in range(80):
        asked = [Request(prompt=f"odd {i}")]
        begun = time.monotonic()
        assert said(whole.provisional(asked)[0]) == ["low"]
        assert time.monotonic() - begun < 5 * deadline_s
        answer, done = whole.refine(asked, deadline_s)
        assert time.monotonic() - begun < 6 * deadline_s
        assert said(answer) == ["high" if done.all() else "low"]
        refined.append(bool(done.all()))
    assert refined == [True] * 40 + [False] * 40 and whole.failures == 40
    fallback.gate.set()


def test_many_threads_refine_and_all_failures_are_counted() -> None:
    whole = cascade(fallback := Says(HIGH), alpha=1)
    fallback.predict = raises(BackendError("gone"))  # type: ignore
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: whole.refine(ASKED, 60), range(50)))
    assert whole.failures == 50 * 7


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
