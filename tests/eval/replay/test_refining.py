"""A worker that tells keys while requests wait, held against a plain one that looks at all."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lengthpred.base import IntArray
from lengthpred.eval.replay.batches import replay_batches
from lengthpred.eval.replay.continuous import replay_continuous
from lengthpred.eval.replay.order import Order, Refinement
from lengthpred.eval.replay.refining import Refining
from lengthpred.eval.replay.step_time import StepTime
from lengthpred.eval.replay.workload import Engine, Trace, Workload
from tests.eval.replay.cases import ONE, make_work
from tests.eval.replay.reference import BatchReference, Reference

# All sums are exact, so that the worker, arrivals and ends of steps fall on the same moments.
EXACT = StepTime(1.0, 0.5, 1 / 1024)
HUGE = 1e9
Case = tuple[Workload, Engine, Order]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """A few requests, an engine that can hold the largest, and a worker beside it."""
    n = draw(st.integers(1, 14))
    column = st.lists(st.one_of(st.integers(1, 9), st.integers(1, 40)), min_size=n, max_size=n)
    prompts, outputs = np.array(draw(column)), np.array(draw(column))
    gaps = draw(st.lists(st.integers(0, 12), min_size=n, max_size=n))
    arrivals = np.cumsum(np.array(gaps) * draw(st.sampled_from([0.0, 0.5, 1.0, 4.0])))
    block, slots = draw(st.sampled_from([1, 3, 16])), draw(st.integers(1, 5))
    least = -(-int((prompts + outputs).max()) // block)
    engine = Engine(
        slots=slots,
        token_budget=slots + draw(st.integers(0, 40)),
        kv_tokens=(least + draw(st.sampled_from([0, 1, 10, 400]))) * block,
        block_size=block,
        watermark=draw(st.sampled_from([0.0, 0.3])),
        step_time=EXACT,
    )
    few = st.lists(st.integers(0, 5), min_size=n, max_size=n)
    ranks = draw(st.one_of(few, st.permutations(range(n))))
    refinement = Refinement(
        np.array(draw(st.lists(st.booleans(), min_size=n, max_size=n))),
        np.array(ranks, np.int64),
        draw(st.sampled_from([0.0, 0.25, 0.5, 1.0, 3.0, 7.5, 40.0])),
    )
    early, keys = (np.array(draw(few), np.int64) for _ in range(2))
    delays = np.array(draw(few)) * draw(st.sampled_from([0, 0, 1.0]))
    ready = np.maximum.accumulate(arrivals + delays)
    order = Order(keys, early=early, refinement=refinement, ready_s=ready)
    return Workload(arrivals, prompts, outputs), engine, order


def assert_same(trace: Trace, naive: Reference | BatchReference) -> None:
    assert trace.start_s.tolist() == [job.start for job in naive.jobs]
    assert trace.first_token_s.tolist() == [job.first_token for job in naive.jobs]
    assert trace.finish_s.tolist() == [job.finish for job in naive.jobs]
    assert trace.preemptions.tolist() == [job.preemptions for job in naive.jobs]
    assert (trace.refined, trace.refining_s) == (naive.worker.count, naive.worker.busy_s)


@settings(max_examples=120)
@given(cases(), st.booleans())
def test_beside_continuous_batching(case: Case, preempts: bool) -> None:
    work, engine, order = case
    order = replace(order, preempts=preempts)
    assert_same(replay_continuous(work, order, engine), Reference(work, order, engine).run())


@settings(max_examples=80)
@given(cases(), st.one_of(st.none(), st.integers(1, 12)))
def test_beside_gangs_and_slices(case: Case, slice_tokens: int | None) -> None:
    work, engine, order = case
    naive = BatchReference(work, order, engine, slice_tokens).run()
    assert_same(replay_batches(work, order, engine, slice_tokens), naive)


def same(one: Trace, other: Trace) -> bool:
    """Whether the engine did the same in both."""
    columns = ("start_s", "first_token_s", "finish_s", "preemptions")
    return all((getattr(one, name) == getattr(other, name)).all() for name in columns)


def refined(order: Order, **changes: Any) -> Order:
    """The same order with another worker."""
    assert order.refinement is not None
    return replace(order, refinement=replace(order.refinement, **changes))


@settings(max_examples=50)
@given(cases(), st.sampled_from([replay_continuous, replay_batches]))
def test_a_worker_that_takes_no_time_is_as_good_as_knowing(case: Case, replay: Any) -> None:
    work, engine, order = case
    assert order.refinement is not None and order.early is not None
    trace = replay(work, refined(order, seconds=0.0), engine)
    known = np.where(order.refinement.asked, order.keys, order.early)
    assert same(trace, replay(work, Order(known, ready_s=order.ready_s), engine))
    assert (trace.refined, trace.refining_s) == (order.refinement.asked.sum(), 0)


@settings(max_examples=50)
@given(cases(), st.sampled_from([replay_continuous, replay_batches]))
def test_a_worker_that_is_never_done_changes_nothing(case: Case, replay: Any) -> None:
    work, engine, order = case
    assert order.refinement is not None and order.early is not None
    early = replay(work, Order(order.early, ready_s=order.ready_s), engine)
    late = replay(work, refined(order, seconds=HUGE), engine)
    assert same(late, early)
    assert late.refined == min(order.refinement.asked.sum(), 1)
    nothing = replay(work, refined(order, asked=np.zeros(len(work), bool)), engine)
    assert same(nothing, early)
    assert (nothing.refined, nothing.refining_s) == (0, 0)


def steps(seconds: float, outputs: list[int], *, rank: list[int], slots: int = 1) -> Trace:
    """Requests at once, a second a step, shortest first once their length is told."""
    n = len(outputs)
    refinement = Refinement(np.ones(n, bool), np.array(rank), seconds)
    order = Order(np.array(outputs), early=np.full(n, 100), refinement=refinement)
    return replay_continuous(make_work(outputs), order, Engine(slots=slots, step_time=ONE))


def test_the_order_follows_what_is_told_in_time() -> None:
    # By rank: the worker takes 3, 2 and 1 while 0 runs for 4 s; 0 itself has started by then.
    trace = steps(1.0, [4, 3, 2, 1], rank=[3, 2, 1, 0])
    assert trace.start_s.tolist() == [0, 7, 5, 4]
    assert (trace.refined, trace.refining_s) == (3, 3.0)
    # At 3 s a piece only 3 is told when the slot is free; 2 is next and starts at 5, told at 6.
    trace = steps(3.0, [4, 3, 2, 1], rank=[3, 2, 1, 0])
    assert trace.start_s.tolist() == [0, 5, 8, 4]
    # Request 2 was told at 6, waits until 8 and is found; 1 has started and is left out.
    assert (trace.refined, trace.refining_s) == (2, 6.0)


def test_what_is_told_as_a_step_begins_counts_in_it() -> None:
    assert steps(4.0, [4, 3, 1], rank=[1, 2, 0]).start_s.tolist() == [0, 5, 4]
    late = np.nextafter(4.0, 5.0)
    assert steps(late, [4, 3, 1], rank=[1, 2, 0]).start_s.tolist() == [0, 4, 7]


def test_the_worker_may_take_what_starts_at_the_same_moment() -> None:
    trace = steps(2.0, [4, 3, 1], rank=[0, 1, 2])
    # It spends its first two seconds on request 0, which runs; the third is told at 6, too late.
    assert trace.start_s.tolist() == [0, 4, 7]
    assert (trace.refined, trace.refining_s) == (3, 6.0)


def test_what_has_started_is_left_out_though_it_waits_again() -> None:
    work = make_work([9, 9, 9])
    one = Engine(slots=1, step_time=ONE)
    refinement = Refinement(np.array([True, True, False]), np.array([1, 0, 2]), 4.0)
    order = Order(np.array([9, 0, 9]), early=np.array([1, 2, 3]), refinement=refinement)
    # Request 0 has had its first slice when the worker is done with 1, and is not asked for.
    assert replay_batches(work, order, one, 3).refined == 1
    assert replay_batches(work, refined(order, rank=np.arange(3)), one, 3).refined == 2


def test_rank_goes_before_arrival_among_those_that_are_there() -> None:
    ready = np.array([0.0, 1.0, 2.0, 9.0])
    worker = Refining(Refinement(np.ones(4, bool), np.array([9, 5, 1, 0]), 3.0), ready)
    nobody = [False] * 4
    told: list[IntArray | list[int]] = []
    for now in (0.0, 2.9, 3.0, 6.0, 8.9, 12.0):
        told.append(worker.advance(now, nobody))
    assert told == [[], [], [0], [2], [], [1, 3]]
    assert worker.next_event() == np.inf
    assert worker.busy_s == 12.0


@pytest.mark.parametrize("seconds", [0.0, 1.5])
def test_calls_between_change_nothing(seconds: float) -> None:
    rng = np.random.default_rng(0)
    ready = np.sort(rng.integers(0, 20, 30) / 2)
    refinement = Refinement(rng.random(30) < 0.7, rng.permutation(30), seconds)
    seldom, often = Refining(refinement, ready), Refining(refinement, ready)
    nobody = [False] * 30
    at_once = seldom.advance(100.0, nobody)
    one_by_one = [
        i for now in np.arange(0, 100.25, 0.25).tolist() for i in often.advance(now, nobody)
    ]
    assert at_once == one_by_one
    assert sorted(at_once) == np.flatnonzero(refinement.asked).tolist()
