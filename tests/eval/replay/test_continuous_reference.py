"""The fast replay does what a plain one does that follows vLLM step by step."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lengthpred.base import IntArray
from lengthpred.eval.replay import continuous
from lengthpred.eval.replay.continuous import replay_continuous
from lengthpred.eval.replay.order import Order
from lengthpred.eval.replay.step_time import StepTime
from lengthpred.eval.replay.workload import Engine, Workload
from tests.eval.replay.reference import Reference

# Sums of halves are exact, so that arrivals and ends of steps fall on the same moment.
EXACT = StepTime(1.0, 0.5, 0.0)
ODD = StepTime(0.018, 0.08e-3, 0.15e-3)
Case = tuple[Workload, Engine, Any]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """A few requests, an engine that can hold the largest, and numbers to make orders of."""
    n = draw(st.integers(1, 14))
    short, long = st.integers(1, 9), st.integers(1, 60)
    prompts = np.array(draw(st.lists(st.one_of(short, long), min_size=n, max_size=n)))
    outputs = np.array(draw(st.lists(st.one_of(short, long), min_size=n, max_size=n)))
    time = draw(st.sampled_from([EXACT, ODD]))
    gaps = draw(st.lists(st.integers(0, 12), min_size=n, max_size=n))
    arrivals = np.cumsum(np.array(gaps) * draw(st.sampled_from([0.0, 0.5, 1.0])) * time.fixed_s)
    block = draw(st.sampled_from([1, 2, 3, 4, 16]))
    slots = draw(st.integers(1, 6))
    # From room for the largest alone, where all have to give way, to room for all.
    least = -(-int((prompts + outputs).max()) // block)
    engine = Engine(
        slots=slots,
        token_budget=slots + draw(st.integers(0, 40)),
        kv_tokens=(least + draw(st.sampled_from([0, 1, 3, 10, 400]))) * block,
        block_size=block,
        watermark=draw(st.sampled_from([0.0, 0.0, 0.05, 0.3])),
        step_time=time,
    )
    keys = np.array(draw(st.lists(st.integers(0, 5), min_size=n, max_size=n)), np.int64)
    delays = np.array(draw(st.lists(st.integers(0, 9), min_size=n, max_size=n))) * time.fixed_s
    return Workload(arrivals, prompts, outputs), engine, (keys, delays)


def assert_same(work: Workload, order: Order, engine: Engine) -> None:
    trace, naive = replay_continuous(work, order, engine), Reference(work, order, engine).run()
    assert trace.preemptions.tolist() == [job.preemptions for job in naive.jobs]
    assert trace.start_s.tolist() == [job.start for job in naive.jobs]
    assert trace.first_token_s.tolist() == [job.first_token for job in naive.jobs]
    assert trace.finish_s.tolist() == [job.finish for job in naive.jobs]
    assert (trace.steps, trace.prefill_tokens) == (naive.steps, naive.prefilled)
    for ours, theirs in (
        (trace.busy_s, naive.busy_s),
        (trace.blocked_s, naive.blocked_s),
        (trace.kv_token_s, naive.kv_token_s),
        (trace.kv_held_s, naive.kv_held_s),
    ):
        assert ours == pytest.approx(theirs, rel=1e-9, abs=1e-12)


@settings(max_examples=100)
@given(cases())
def test_keys_that_stay(case: Case) -> None:
    work, engine, (keys, _) = case
    assert_same(work, Order(keys), engine)


@given(cases())
def test_requests_that_join_once_their_prediction_is_there(case: Case) -> None:
    work, engine, (keys, delays) = case
    ready = np.maximum.accumulate(work.arrival_s + delays)
    assert_same(work, Order(keys, ready_s=ready), engine)


@settings(max_examples=100)
@given(cases())
def test_keys_that_are_told_later(case: Case) -> None:
    work, engine, (keys, delays) = case
    order = Order(keys, known_s=work.arrival_s + delays, early=keys[::-1] // 2)
    assert_same(work, order, engine)


@settings(max_examples=100)
@given(cases())
def test_keys_that_look_at_progress(case: Case) -> None:
    work, engine, (keys, _) = case

    def left(numbers: IntArray, written: IntArray, now: float = 0.0) -> IntArray:
        key: IntArray = np.maximum(3 * keys[numbers] - written, 0)
        return key

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(continuous, "LOOK_EVERY", 1)  # as often as the plain one
        order = Order(3 * keys, with_progress=left, preempts=True)
        assert_same(work, order, engine)


@given(cases())
def test_steps_taken_at_once_change_nothing(case: Case) -> None:
    work, engine, (keys, _) = case
    whole = replay_continuous(work, Order(keys), engine)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(continuous, "COUNT", np.arange(2))
        assert replay_continuous(work, Order(keys), engine).finish_s.tolist() == (
            whole.finish_s.tolist()
        )
