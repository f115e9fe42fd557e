"""A call with a deadline: results, errors, and what hangs."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from lengthpred import LengthDistribution, LengthGrid
from lengthpred.errors import BackendError
from lengthpred.serving.bounded import BoundedCaller, checked

GRID = LengthGrid()


def fail() -> None:
    raise KeyError("lost")


def leave() -> None:
    raise SystemExit(3)


def hang_up(caller: BoundedCaller, gate: threading.Event) -> None:
    """Leave one call behind, that runs until the gate opens."""
    with pytest.raises(BackendError, match=r"the oracle did not answer within 0\.05 s"):
        caller.call(lambda: gate.wait(60), 0.05)


def settled(caller: BoundedCaller) -> bool:
    """Whether the call that was left behind ends, given time."""
    end = time.monotonic() + 60
    while caller.busy and time.monotonic() < end:
        time.sleep(0.001)
    return not caller.busy


def test_results_and_errors_come_through() -> None:
    caller = BoundedCaller("the oracle")
    threads = threading.active_count()
    assert caller.call(lambda: 7, 60) == 7 and caller.call(lambda: None, float("inf")) is None
    with pytest.raises(KeyError, match="lost"):
        caller.call(fail, 60)
    with pytest.raises(RuntimeError, match="the oracle was ended by SystemExit"):
        caller.call(leave, 60)
    assert caller.call(lambda: 8, 60) == 8
    assert threading.active_count() == threads and not caller.busy


@pytest.mark.parametrize("deadline_s", [0.0, -1.0, float("-inf")])
def test_without_time_nothing_is_called(deadline_s: float) -> None:
    called: list[int] = []
    with pytest.raises(BackendError, match="did not answer"):
        BoundedCaller("the oracle").call(lambda: called.append(1), deadline_s)
    assert not called


def test_one_call_is_left_behind_and_no_more() -> None:
    caller, gate, called = BoundedCaller("the oracle"), threading.Event(), list[int]()
    begun = time.monotonic()
    hang_up(caller, gate)
    threads = threading.active_count()
    for _ in range(50):
        with pytest.raises(BackendError, match="the oracle is busy"):
            caller.call(lambda: called.append(1), 60)
    assert time.monotonic() - begun < 30 and caller.busy
    assert threading.active_count() <= threads and not called
    gate.set()
    assert settled(caller) and caller.call(lambda: 9, 60) == 9


def test_an_answer_that_comes_too_late_is_dropped() -> None:
    caller, gate = BoundedCaller("the oracle"), threading.Event()
    hang_up(caller, gate)
    gate.set()
    assert settled(caller)
    with pytest.raises(KeyError):
        caller.call(fail, 60)


def test_callers_wait_for_their_turn_within_their_deadline() -> None:
    caller, inside, gate = BoundedCaller("the oracle"), threading.Event(), threading.Event()

    def slow() -> str:
        inside.set()
        gate.wait(60)
        return "slow"

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(caller.call, slow, 60)
        assert inside.wait(60)
        with pytest.raises(BackendError, match=r"other calls for 0\.05 s"):
            caller.call(lambda: "impatient", 0.05)
        second = pool.submit(caller.call, lambda: "patient", 60)
        gate.set()
        assert (first.result(60), second.result(60)) == ("slow", "patient")


def test_who_waits_for_a_call_that_hangs_is_told_when_it_is_given_up() -> None:
    caller, inside, gate = BoundedCaller("the oracle"), threading.Event(), threading.Event()

    def hang() -> None:
        inside.set()
        gate.wait(60)

    with ThreadPoolExecutor(2) as pool:
        hanging = pool.submit(caller.call, hang, 0.2)
        assert inside.wait(60)
        begun = time.monotonic()
        with pytest.raises(BackendError, match="busy"):
            caller.call(lambda: None, 30)
        assert time.monotonic() - begun < 15
        with pytest.raises(BackendError, match="did not answer"):
            hanging.result(60)
        gate.set()


def test_many_threads_at_once_run_one_by_one() -> None:
    caller, running, most = BoundedCaller("the oracle"), [0], [0]

    def work() -> int:
        running[0] += 1
        most[0] = max(most[0], running[0])
        time.sleep(0.001)
        running[0] -= 1
        return 1

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(lambda _: caller.call(work, 60), range(80))) == 80
    assert most == [1]


def test_what_is_checked_comes_back_as_it_is() -> None:
    answer = LengthDistribution.from_samples(GRID, [[3], [4]])
    for flags in (np.array([True, False]), [True, False]):
        same, bools = checked(answer, flags, 2, LengthGrid())
        assert same is answer and bools.tolist() == [True, False] and bools.dtype == np.bool_
    empty = answer[[]]
    assert checked(empty, np.zeros(0, bool), 0, GRID)[0] is empty


@pytest.mark.parametrize(
    ("answer", "flags", "message"),
    [
        (None, [True], "1 requests must have 1 rows, not NoneType"),
        (LengthDistribution.from_samples(GRID, [[3], [4]]), [True], "1 rows, not 2"),
        (LengthDistribution.from_samples(LengthGrid(np.array([0, 9])), [[3]]), [True], "grid"),
        (
            LengthDistribution.trusted(GRID, np.full((1, GRID.bins), np.nan, np.float32)),
            [True],
            "finite",
        ),
        (LengthDistribution.from_samples(GRID, [[3]]), [True, True], "flags must be bool"),
        (LengthDistribution.from_samples(GRID, [[3]]), [1], r"flags must be bool \(1,\), not \[1"),
        (LengthDistribution.from_samples(GRID, [[3]]), None, "flags must be bool"),
    ],
)
def test_wrong_answers(answer: object, flags: object, message: str) -> None:
    with pytest.raises(BackendError, match=message):
        checked(answer, flags, 1, GRID)
