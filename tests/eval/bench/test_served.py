"""What is measured of an engine that tells when tokens came."""

import numpy as np
import pytest

from lengthpred.eval.bench.served import Served, measure_served
from lengthpred.eval.replay.continuous import replay_continuous
from lengthpred.eval.replay.measures import measure_replay
from lengthpred.eval.replay.order import Order
from lengthpred.eval.replay.workload import Engine, Workload


def test_by_hand() -> None:
    """Two slots: a and b at 0, c waits from 1 until a is done."""
    work = Workload(np.array([0.0, 0.0, 1.0]), np.array([5, 5, 10]), np.array([5, 11, 1]))
    first, last = np.array([1.0, 1.0, 6.0]), np.array([5.0, 11.0, 6.0])
    found = measure_served(Served(work, first, last, preemptions=2))
    assert found["duration"] == 11
    assert found["total_token_throughput"] == found["tps"] == pytest.approx(37 / 11)
    assert found["mean_ttft_ms"] == pytest.approx(1000 * (1 + 1 + 5) / 3)
    assert found["mean_e2el_ms"] == pytest.approx(1000 * (5 + 11 + 5) / 3)
    assert found["mean_e2el_ms_longest_tenth"] == 11_000
    assert found["mean_queue_depth"] == pytest.approx(7 / 11)
    # At the moment when b has its first token c comes: an arrival counts before a start.
    assert found["max_queue_depth"] == 3 and found["preemptions"] == 2
    # By 6 s all of a, 1 + 10 / 2 tokens of b and that of c were there.
    assert found["total_token_throughput_before_drain"] == pytest.approx((20 + 5 + 6 + 1) / 6)
    assert "preemptions" not in measure_served(Served(work, first, last))


def test_it_measures_what_a_replay_measures() -> None:
    rng = np.random.default_rng(0)
    n = 300
    arrivals = rng.exponential(0.05, n).cumsum()
    work = Workload(arrivals, rng.integers(1, 300, n), rng.integers(1, 400, n))
    trace = replay_continuous(work, Order(np.arange(n)), Engine(slots=16))
    replayed = measure_replay(work, trace)
    served = measure_served(Served(work, trace.first_token_s, trace.finish_s))
    for name in set(served) & set(replayed) - {"tps", "mean_queue_depth", "max_queue_depth"}:
        assert served[name] == replayed[name], name
    # Waiting ends with the first token there, with a slot here.
    assert served["mean_queue_depth"] >= replayed["mean_queue_depth"] > 10
    assert served["total_token_throughput_before_drain"] > served["total_token_throughput"]
