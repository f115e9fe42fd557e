"""Continuous batching: what holds of every replay, and small cases by hand."""

from math import inf

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lengthpred.base import FloatArray, IntArray
from lengthpred.errors import SettingsError
from lengthpred.eval.replay.continuous import LOOK_EVERY, _Replay, replay_continuous
from lengthpred.eval.replay.order import Order
from lengthpred.eval.replay.workload import Engine, Ledger, Workload
from lengthpred.ordering import EPOCH_S, OrderingSettings, priority
from tests.eval.replay.cases import ONE, engines, make_work, workloads


def by_arrival(work: Workload) -> Order:
    return Order(np.arange(len(work)))


def shortest(work: Workload) -> Order:
    return Order(work.output_tokens)


def remaining(work: Workload) -> Order:
    """Knows the truth, and lets a shorter one take the slot of a longer one."""

    def left(numbers: IntArray, written: IntArray, now: float = 0.0) -> IntArray:
        more: IntArray = work.output_tokens[numbers] - written
        return more

    return Order(work.output_tokens, with_progress=left, preempts=True)


ORDERS = {"arrival": by_arrival, "shortest": shortest, "remaining": remaining}


@pytest.mark.parametrize("name", ORDERS)
@given(st.data())
def test_every_replay_is_accounted_for(name: str, data: st.DataObject) -> None:
    work = data.draw(workloads())
    engine, order = data.draw(engines(work)), ORDERS[name](work)
    room = engine.blocks * engine.block_size
    spend = Ledger.spend
    written_at: list[int] = []

    def watched(
        self: Ledger, seconds: FloatArray, kv: IntArray, held: IntArray, blocked: int
    ) -> None:
        assert (seconds > 0).all() and (kv > 0).all()
        assert (kv <= held).all() and (held <= room).all()
        written_at.append(len(seconds))
        spend(self, seconds, kv, held, blocked)

    replay = _Replay(work, order, engine)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Ledger, "spend", watched)
        trace = replay.run()

    # All is given back.
    assert replay.free == engine.blocks and replay.kv == 0 and replay.writing == 0
    assert not replay.running and not replay.needs.any() and replay.queue.depth == 0
    assert sorted(replay.slots) == list(range(engine.slots))
    assert sum(written_at) == trace.steps

    assert (trace.start_s >= work.arrival_s).all()
    assert (trace.first_token_s > trace.start_s).all()
    one = work.output_tokens == 1
    assert (trace.finish_s[one] == trace.first_token_s[one]).all()
    assert (trace.finish_s[~one] > trace.first_token_s[~one]).all()

    segments = trace.segments
    assert np.bincount(segments.request).tolist() == (trace.preemptions + 1).tolist()
    assert ((segments.slot >= 0) & (segments.slot < engine.slots)).all()
    for slot in range(engine.slots):
        mine = np.argsort(segments.start_s[segments.slot == slot], kind="stable")
        starts = segments.start_s[segments.slot == slot][mine]
        ends = segments.end_s[segments.slot == slot][mine]
        assert (ends >= starts).all() and (starts[1:] >= ends[:-1]).all()

    assert (trace.depth >= 0).all() and trace.depth[-1] == 0
    assert (np.abs(np.diff(trace.depth)) == 1).all()
    assert (np.diff(trace.depth_s) >= 0).all()


@given(workloads())
def test_with_room_every_prompt_is_computed_once_and_every_token_written(work: Workload) -> None:
    engine = Engine(slots=4, token_budget=64, kv_tokens=10**6, step_time=ONE)
    trace = replay_continuous(work, by_arrival(work), engine)
    assert trace.prefill_tokens == work.prompt_tokens.sum()
    assert not trace.preemptions.any() and trace.blocked_s == 0
    # One token a step, since nothing takes its place away.
    writing = trace.finish_s - trace.first_token_s
    assert writing.tolist() == pytest.approx((work.output_tokens - 1).tolist())


def test_what_is_preempted_computes_its_prompt_and_what_it_wrote_again() -> None:
    # Room for 20 tokens: 5 + 5 for the prompts, and full after each has written 6 (5 of them read).
    work = make_work([10, 10], prompts=5)
    engine = Engine(slots=2, kv_tokens=20, block_size=1, watermark=0, step_time=ONE)
    trace = replay_continuous(work, by_arrival(work), engine)
    assert trace.preemptions.tolist() == [0, 1]
    # The second has written 6 when there is no block left: 5 + 6 tokens again.
    assert trace.prefill_tokens == 5 + 5 + 11
    assert trace.finish_s.tolist() == [10, 14]
    assert trace.first_token_s.tolist() == [1, 1]


def test_a_long_prompt_takes_several_steps_while_others_write() -> None:
    work = make_work([6, 2], prompts=[4, 25], arrivals=[0, 0.5])
    engine = Engine(slots=2, token_budget=11, kv_tokens=1000, step_time=ONE)
    trace = replay_continuous(work, by_arrival(work), engine)
    # One token of each step's 11 is the first request's: 10 + 10 + 5 for the prompt.
    assert trace.start_s.tolist() == [0, 1]
    assert trace.first_token_s.tolist() == [1, 4]
    assert trace.finish_s.tolist() == [6, 5]


def test_steps_take_their_prompts_and_the_cache_into_account() -> None:
    engine = Engine(slots=1)
    trace = replay_continuous(make_work([3], prompts=100), Order(np.zeros(1, np.int64)), engine)
    time = engine.step_time
    steps = time.of(np.array([100, 101, 102]), np.array([100, 0, 0]))
    assert trace.finish_s[0] == pytest.approx(steps.sum(), rel=1e-12)
    assert trace.busy_s == pytest.approx(steps.sum(), rel=1e-12)


def test_the_first_in_line_blocks_all_behind_it_although_they_would_fit() -> None:
    work = make_work([10, 1, 1], prompts=[20, 25, 1])
    engine = Engine(slots=3, kv_tokens=40, block_size=1, watermark=0, step_time=ONE)
    trace = replay_continuous(work, by_arrival(work), engine)
    assert trace.start_s.tolist() == [0, 10, 10]
    assert trace.blocked_s == 2 * 10
    shorter = replay_continuous(work, shortest(work), engine)
    assert shorter.start_s.tolist() == [1, 0, 0]
    assert shorter.blocked_s == 1  # the first step, by one


def test_nothing_is_blocked_by_slots_that_are_all_taken() -> None:
    work = make_work([10, 1, 1], prompts=[20, 25, 1])
    engine = Engine(slots=1, kv_tokens=40, block_size=1, watermark=0, step_time=ONE)
    assert replay_continuous(work, by_arrival(work), engine).blocked_s == 0


def test_a_watermark_saves_preemptions() -> None:
    rng = np.random.default_rng(0)
    work = make_work(rng.integers(20, 400, 200).tolist(), rng.integers(5, 100, 200).tolist())
    bare, marked = (
        replay_continuous(
            work, by_arrival(work), Engine(slots=32, kv_tokens=4000, watermark=share, step_time=ONE)
        )
        for share in (0.0, 0.1)
    )
    assert 0 < marked.preemptions.sum() < 0.5 * bare.preemptions.sum()


def test_a_request_that_can_never_fit_is_refused() -> None:
    engine = Engine(slots=2, kv_tokens=100, block_size=16)
    # 100 tokens are 6 whole blocks, 96 tokens.
    replay_continuous(make_work([46], prompts=50), Order(np.zeros(1, np.int64)), engine)
    with pytest.raises(SettingsError, match="a request of 97 tokens does not fit"):
        replay_continuous(make_work([47], prompts=50), Order(np.zeros(1, np.int64)), engine)


# Orders


@pytest.mark.parametrize("name", ORDERS)
def test_with_an_empty_queue_all_orders_are_exactly_equal(name: str) -> None:
    rng = np.random.default_rng(1)
    outputs = rng.integers(1, 300, 60).tolist()
    work = make_work(outputs, rng.integers(1, 900, 60).tolist(), (np.arange(60) * 8.0).tolist())
    first = replay_continuous(work, by_arrival(work), Engine(slots=4))
    other = replay_continuous(work, ORDERS[name](work), Engine(slots=4))
    assert first.depth.max() == 1
    assert other.finish_s.tolist() == first.finish_s.tolist()
    assert other.first_token_s.tolist() == first.first_token_s.tolist()


def test_requests_start_in_the_order_of_their_keys_and_equal_ones_by_arrival() -> None:
    keys = np.array([2, 1, 2, 1, 0, 1])
    engine = Engine(slots=1, step_time=ONE)
    trace = replay_continuous(make_work([3] * 6), Order(keys), engine)
    assert np.argsort(trace.start_s).tolist() == [4, 1, 3, 5, 0, 2]


def test_shortest_first_is_faster_on_average_and_remaining_time_faster_yet() -> None:
    rng = np.random.default_rng(2)
    outputs = np.rint(rng.lognormal(3, 1.2, 300)).astype(int).clip(1).tolist()
    work = make_work(outputs, 4, np.sort(rng.uniform(0, 1200, 300)).tolist())
    engine = Engine(slots=4, step_time=ONE)
    mean = {
        name: replay_continuous(work, order(work), engine).finish_s.mean() - work.arrival_s.mean()
        for name, order in ORDERS.items()
    }
    assert mean["remaining"] < mean["shortest"] < 0.7 * mean["arrival"]


def test_a_shorter_one_takes_the_slot_of_a_longer_one_only_where_asked() -> None:
    work = make_work([100, 5], arrivals=[0, 10.5])
    engine = Engine(slots=1, step_time=ONE)
    assert replay_continuous(work, shortest(work), engine).finish_s.tolist() == [100, 105]
    trace = replay_continuous(work, remaining(work), engine)
    # It has written 11 when the short one comes; computing them again gives the twelfth.
    assert trace.finish_s.tolist() == [105, 16]
    assert trace.preemptions.tolist() == [1, 0]
    assert trace.prefill_tokens == 1 + 1 + 12


@pytest.mark.parametrize("overtake", [20.0, 100.0, inf])
def test_a_long_request_starves_no_longer_than_the_bound(overtake: float) -> None:
    """A stream of short requests that never ends, against a long one."""
    arrivals = np.concatenate([[0.0, 0.0], np.arange(0.5, 600, 0.5)])
    outputs = np.ones(len(arrivals), np.int64)
    outputs[1] = 4000
    work = Workload(arrivals, np.ones(len(arrivals), np.int64), outputs)
    chosen = OrderingSettings(max_overtake_s=overtake)
    keys = priority(outputs, arrivals + EPOCH_S, chosen)
    trace = replay_continuous(work, Order(keys), Engine(slots=1, step_time=ONE))
    passed = arrivals[trace.start_s < trace.start_s[1]]
    if overtake == inf:
        assert trace.start_s[1] >= len(arrivals) - 1  # after all the others
    else:
        assert 0.9 * overtake < passed.max() <= overtake


def test_progress_is_looked_at_now_and_then() -> None:
    work = make_work(list(range(50, 90)))
    looks: list[int] = []

    def left(numbers: IntArray, written: IntArray, now: float = 0.0) -> IntArray:
        looks.append(len(numbers))
        more: IntArray = work.output_tokens[numbers] - written
        return more

    order = Order(work.output_tokens, with_progress=left, preempts=True)
    trace = replay_continuous(work, order, Engine(slots=4, step_time=ONE))
    assert trace.steps / LOOK_EVERY - 10 <= len(looks) <= trace.steps / LOOK_EVERY + 1
    assert set(looks) == {4}
