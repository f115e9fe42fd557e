"""Static batches and slices of them: small cases by hand, and accounts of all."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lengthpred.base import IntArray
from lengthpred.errors import SettingsError
from lengthpred.eval.replay.batches import replay_batches
from lengthpred.eval.replay.order import Order
from lengthpred.eval.replay.step_time import StepTime
from lengthpred.eval.replay.workload import Engine, Trace, Workload
from tests.eval.replay.cases import ONE, engines, make_work, workloads

PAIRS = Engine(slots=2, kv_tokens=10_000, step_time=ONE)


def in_turn(work: Workload) -> Order:
    return Order(np.arange(len(work)))


def tokens_written(work: Workload, slice_tokens: int) -> IntArray:
    """By request, the tokens that the slices before the last have written and computed again."""
    slices = -(-work.output_tokens // slice_tokens)
    return slices * (slices - 1) // 2 * slice_tokens


def test_a_gang_ends_with_its_longest() -> None:
    trace = replay_batches(make_work([3, 10, 2, 4]), Order(np.arange(4)), PAIRS)
    assert trace.finish_s.tolist() == [10, 10, 14, 14]
    assert trace.start_s.tolist() == [0, 0, 10, 10]
    assert trace.first_token_s.tolist() == trace.finish_s.tolist()
    assert trace.steps == 14 and trace.busy_s == 14


def test_sorted_gangs_waste_less() -> None:
    work = make_work([3, 10, 2, 4])
    assert replay_batches(work, Order(work.output_tokens), PAIRS).finish_s.max() == 3 + 10
    rng = np.random.default_rng(0)
    many = make_work(np.rint(rng.lognormal(4, 1, 512)).astype(int).clip(1).tolist(), 30)
    engine = Engine(slots=64)
    mixed = replay_batches(many, in_turn(many), engine).busy_s
    for order in (many.output_tokens, -many.output_tokens):
        assert replay_batches(many, Order(order), engine).busy_s < 0.7 * mixed


def test_nothing_joins_a_gang_that_runs() -> None:
    work = make_work([10, 10, 10], arrivals=[0, 0.5, 20.0])
    trace = replay_batches(work, in_turn(work), PAIRS)
    assert trace.start_s.tolist() == [0, 10, 20]


def test_what_is_done_is_read_no_more_but_keeps_its_place() -> None:
    engine = Engine(slots=2, kv_tokens=1000, block_size=1, step_time=StepTime(1, 0, 1))
    trace = replay_batches(make_work([1, 3], prompts=[7, 5]), Order(np.arange(2)), engine)
    # 12 tokens for the prompts; then 6 and 7, of the second alone.
    assert trace.finish_s.tolist() == [1 + 12 + 1 + 6 + 1 + 7] * 2
    assert trace.kv_token_s == 12 * 13 + 6 * 7 + 7 * 8
    assert trace.kv_held_s == (7 + 1 + 5 + 3) * 28


def test_prompts_that_exceed_the_budget_take_several_steps() -> None:
    engine = Engine(slots=2, token_budget=10, kv_tokens=1000, step_time=StepTime(1, 1, 0))
    trace = replay_batches(make_work([2, 2], prompts=[12, 13]), Order(np.arange(2)), engine)
    assert trace.steps == 3 + 1
    assert trace.finish_s.tolist() == [3 + 25 + 1] * 2


def test_the_size_of_a_batch_is_its_only_limit() -> None:
    engine = Engine(slots=2, token_budget=8, kv_tokens=4, block_size=1, step_time=ONE)
    trace = replay_batches(make_work([10, 8, 1], prompts=4), Order(np.arange(3)), engine)
    assert trace.start_s.tolist() == [0, 0, 10]


def test_slices_run_to_their_end_and_compute_anew() -> None:
    trace = replay_batches(make_work([7, 3], prompts=5), Order(np.arange(2)), PAIRS, 3)
    # 3 tokens each, then 3, then 1 of the first alone.
    assert trace.finish_s.tolist() == [7, 3]
    assert trace.first_token_s.tolist() == [3, 3]
    assert trace.preemptions.tolist() == [2, 0]
    assert trace.prefill_tokens == (5 + 5) + (5 + 3) + (5 + 6)


def test_the_keys_of_slices_follow_progress() -> None:
    work = make_work([9, 4], prompts=1)

    def left(numbers: IntArray, written: IntArray, now: float = 0.0) -> IntArray:
        more: IntArray = work.output_tokens[numbers] - written
        return more

    one = Engine(slots=1, step_time=ONE)
    # At first the long one is wrongly first; then it has 6 left, and the other 4.
    order = Order(np.array([0, 4]), with_progress=left)
    assert replay_batches(work, order, one, 3).finish_s.tolist() == [13, 7]
    assert replay_batches(work, Order(np.array([0, 4])), one, 3).finish_s.tolist() == [9, 13]


@given(st.data())
def test_every_batch_is_accounted_for(data: st.DataObject) -> None:
    work = data.draw(workloads())
    engine = data.draw(engines(work))
    tokens = data.draw(st.one_of(st.none(), st.integers(1, 20)))
    trace = replay_batches(work, Order(work.output_tokens), engine, tokens)
    _check(work, engine, trace)
    if tokens is None:
        assert trace.prefill_tokens == work.prompt_tokens.sum()
        assert not trace.preemptions.any()
    else:
        slices = -(-work.output_tokens // tokens)
        assert trace.preemptions.tolist() == (slices - 1).tolist()
        again = slices * work.prompt_tokens + tokens_written(work, tokens)
        assert trace.prefill_tokens == again.sum()


def _check(work: Workload, engine: Engine, trace: Trace) -> None:
    held = trace.segments
    assert np.bincount(held.request).tolist() == (trace.preemptions + 1).tolist()
    assert held.slot.max() < engine.slots
    starts = np.unique(held.start_s)
    for start in starts:  # all of a batch end together, before the next begins
        ends = np.unique(held.end_s[held.start_s == start])
        assert len(ends) == 1
        assert not ((starts > start) & (starts < ends[0])).any()
        # What a batch holds fits.
        assert (held.start_s == start).sum() <= engine.slots
    assert (trace.start_s >= work.arrival_s).all()
    assert (trace.finish_s >= trace.first_token_s).all()
    assert trace.kv_token_s <= trace.kv_held_s * (1 + 1e-12)
    assert trace.depth.min() == 0 and trace.depth[-1] == 0


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(SettingsError, match="a slice must have 1 token"):
        replay_batches(make_work([1]), Order(np.zeros(1, np.int64)), PAIRS, 0)
