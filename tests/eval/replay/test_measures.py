"""What is measured of a replay, by hand."""

import numpy as np
import pytest

from lengthpred.eval.replay.batches import replay_batches
from lengthpred.eval.replay.continuous import replay_continuous
from lengthpred.eval.replay.measures import measure_replay
from lengthpred.eval.replay.order import Order
from lengthpred.eval.replay.workload import Engine
from tests.eval.replay.cases import ONE, make_work

# One slot: the first runs from 2 to 6, the second from 6 to 8, the third from 10 to 11.
WORK = make_work([4, 2, 1], prompts=[10, 20, 30], arrivals=[2, 3, 10])
SINGLE = Engine(slots=1, kv_tokens=1600, step_time=ONE)


def measured() -> dict[str, float]:
    return measure_replay(WORK, replay_continuous(WORK, Order(np.arange(3)), SINGLE))


def test_the_measures_of_three_requests() -> None:
    found = measured()
    assert found["total_input_tokens"] == 60 and found["total_output_tokens"] == 7
    assert found["duration"] == 9  # from the first arrival
    assert found["request_throughput"] == pytest.approx(3 / 9)
    assert found["output_throughput"] == pytest.approx(7 / 9)
    assert found["total_token_throughput"] == pytest.approx(67 / 9)
    assert found["tps"] == pytest.approx(67 / 7)  # two of the seconds were idle
    # Time to the first token: 1, 4 and 1; to the last: 4, 5 and 1.
    assert found["mean_ttft_ms"] == pytest.approx(2000)
    assert found["median_ttft_ms"] == pytest.approx(1000)
    assert found["mean_e2el_ms"] == pytest.approx(10_000 / 3)
    assert found["median_e2el_ms"] == pytest.approx(4000)
    assert found["p99_e2el_ms"] == pytest.approx(4980)
    # The third has no tokens after its first.
    assert found["mean_tpot_ms"] == pytest.approx(1000)
    # The longest tenth of three is the first.
    assert found["mean_e2el_ms_longest_tenth"] == pytest.approx(4000)
    assert found["p99_ttft_ms_longest_tenth"] == pytest.approx(1000)
    # One waited from 3 to 6.
    assert found["mean_queue_depth"] == pytest.approx(3 / 9)
    assert found["max_queue_depth"] == 1
    assert found["preemptions"] == found["recomputed_tokens"] == 0
    assert found["mean_head_of_line_wait_ms"] == 0


def test_waste_is_what_is_set_aside_for_nothing() -> None:
    # Blocks of 16: 10 to 13 tokens of 16, 20 and 21 of 32, and 30 of 32.
    held, needed = 4 * 16 + 2 * 32 + 32, 10 + 11 + 12 + 13 + 20 + 21 + 30
    assert measured()["kv_waste"] == pytest.approx(1 - needed / held)


def test_a_gang_wastes_more() -> None:
    work = make_work([50, 2, 2, 2], prompts=4)
    engine = Engine(slots=4, kv_tokens=1600, step_time=ONE)
    gang = measure_replay(work, replay_batches(work, Order(np.arange(4)), engine))
    free = measure_replay(work, replay_continuous(work, Order(np.arange(4)), engine))
    assert gang["kv_waste"] > free["kv_waste"]
    assert gang["mean_ttft_ms"] == gang["mean_e2el_ms"] == 50_000


def test_preemptions_and_the_tokens_computed_again() -> None:
    work = make_work([10, 10], prompts=5)
    engine = Engine(slots=2, kv_tokens=20, block_size=1, watermark=0, step_time=ONE)
    found = measure_replay(work, replay_continuous(work, Order(np.arange(2)), engine))
    assert found["preemptions"] == 1
    assert found["recomputed_tokens"] == 11
    # From 6 on it waits beside a free slot; the step in which it lost its place does not count.
    assert found["mean_head_of_line_wait_ms"] == pytest.approx(1000 * 3 / 2)


def test_the_longest_tenth_is_of_answers() -> None:
    n = 40
    outputs = np.arange(1, n + 1)
    work = make_work(outputs.tolist(), arrivals=(np.arange(n) * 100.0).tolist())
    found = measure_replay(work, replay_continuous(work, Order(np.arange(n)), SINGLE))
    assert found["mean_e2el_ms_longest_tenth"] == pytest.approx(1000 * outputs[-4:].mean())
    assert found["mean_e2el_ms"] == pytest.approx(1000 * outputs.mean())
