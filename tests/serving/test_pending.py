"""The table of calls whose length is not known yet."""

from dataclasses import replace

import numpy as np

from lengthpred import LengthDistribution, LengthGrid, Request
from lengthpred.serving.order import Place
from lengthpred.serving.pending import Pending

GRID = LengthGrid()


def place(n: int = 1) -> Place:
    dist = LengthDistribution(GRID, np.full((n, GRID.bins), 1 / GRID.bins, np.float32))
    return Place(0, [Request(prompt=str(i)) for i in range(n)], dist, "predicted")


def test_a_call_is_found_by_the_names_that_vllm_gives_it() -> None:
    pending, one = Pending(10, 60), place(3)
    for id in ("r", "r-1", "cmpl-0", "1_2", "resp_a"):
        pending.put(id, one, 1)
    assert pending.finished("chatcmpl-r") == (one, 0)
    assert pending.finished("chatcmpl-r") is None
    # A name that ends like a number of a prompt is a name first.
    assert pending.finished("cmpl-r-1") == (one, 0)
    assert pending.finished("cmpl-cmpl-0-0") == (one, 0)
    assert pending.finished("chatcmpl-1_2") == (one, 0)
    assert pending.finished("resp_a_0") == (one, 0)
    assert len(pending) == 0
    pending.put("r", one, 1)
    assert pending.finished("chatcmpl-r_2") == (one, 2)


def test_several_answers_to_a_call() -> None:
    pending, three = Pending(10, 60), place(3)
    pending.put("r", three, 3)
    assert [pending.finished(f"cmpl-r-{i}") for i in (2, 0, 1)] == [
        (three, 2),
        (three, 0),
        (three, 1),
    ]
    assert len(pending) == 0
    pending.put("n", place(), 2)  # n = 2: both have the name of the call
    assert pending.finished("chatcmpl-n") and pending.finished("chatcmpl-n")
    assert pending.finished("chatcmpl-n") is None
    pending.put("r", place(), 1)
    assert pending.finished("cmpl-r-7") is None  # no such prompt


def test_many_and_old_ones_are_forgotten() -> None:
    now = [0.0]
    pending = Pending(3, 10, clock=lambda: now[0])
    assert [pending.put(str(i), place(), 1) for i in range(5)] == [0, 0, 0, 1, 1]
    assert pending.finished("chatcmpl-0") is None and pending.finished("chatcmpl-4")
    now[0] = 11.0
    assert pending.put("new", place(), 1) == 2 and len(pending) == 1
    assert pending.put("new", place(), 1) == 0 and len(pending) == 1
    pending.forget("new")
    pending.forget("new")
    assert len(pending) == 0


def test_what_calls_hold_is_bounded() -> None:
    """Few calls may hold much: many prompts in one, or long ones."""
    pending = Pending(1000, 60, most_bytes=300_000)
    long = replace(place(), requests=[Request(prompt="a" * 50_000)])
    for i in range(100):
        pending.put(str(i), long, 1)
    assert len(pending) == 5 and pending.finished("chatcmpl-99")
    for i in range(100):
        pending.put(f"several {i}", place(100), 1)
    assert 0 < len(pending) < 10
    assert pending.put("huge", replace(place(), requests=[Request(prompt="a" * 10**6)]), 1)
    assert len(pending) == 0
    pending.put("a", place(), 1)
    pending.rename("a", "b")
    pending.rename("none", "c")
    assert pending.finished("b") and len(pending) == 0 and pending._bytes == 0


def test_what_else_a_call_says_is_counted_or_let_go() -> None:
    """Tools and schemas, too, may be as large as the body, and many times that when parsed."""
    pending = Pending(1000, 60, most_bytes=300_000)
    tools = {"tools": [{"name": "x" * 20, "n": i} for i in range(100)]}
    for i in range(100):
        pending.put(str(i), replace(place(), requests=[Request(prompt="a", sampling=tools)]), 1)
    assert 2 < len(pending) < 30
    found = pending.finished("chatcmpl-99")
    assert found and found[0].requests[0].sampling == tools
    many: list[object] = [[]]
    for huge in (many * 100_000, {str(i): [i] for i in range(10_000)}, "x" * 10**6):
        request = Request(prompt="a", sampling={"text": huge})
        pending.put("huge", replace(place(), requests=[request]), 1)
        found = pending.finished("chatcmpl-huge")
        assert found and found[0].requests[0].sampling == {}
        assert found[0].requests[0].prompt == "a"
    pending.put("x" * 400_000, place(), 1)
    assert len(pending) == 0
