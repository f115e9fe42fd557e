"""Our replay against vLLM's own scheduler: the same trace, the same step times."""

import numpy as np
import pytest

from lengthpred.errors import SettingsError
from lengthpred.eval.replay.continuous import replay_continuous
from lengthpred.eval.replay.order import Order
from lengthpred.eval.replay.vllm_scheduler import replay_vllm
from lengthpred.eval.replay.workload import Engine, Workload

CLOSE = 0.03


def workload(n: int, rate: float, seed: int = 0) -> Workload:
    """Lengths as of chats, arriving at random; rate infinite for all at once."""
    rng = np.random.default_rng(seed)
    arrivals = np.zeros(n) if np.isinf(rate) else rng.exponential(1 / rate, n).cumsum()
    prompts = np.clip(rng.lognormal(5, 1, n), 1, 1900).astype(np.int64)
    answers = np.clip(rng.lognormal(5, 1, n), 1, 1500).astype(np.int64)
    return Workload(arrivals, prompts, answers)


def orders(work: Workload) -> dict[str, Order]:
    arrived = (work.arrival_s * 1e6).astype(np.int64)
    noisy = work.output_tokens * np.random.default_rng(1).lognormal(0, 0.6, len(work))
    return {
        "fcfs": Order(arrived),
        "sjf": Order((16 * noisy).astype(np.int64)),
        "longest-first": Order((-16 * noisy).astype(np.int64)),
    }


def test_keys_that_change_are_refused() -> None:
    work = workload(3, 1.0)
    keys = np.zeros(3, np.int64)
    with pytest.raises(SettingsError, match="at arrival only"):
        replay_vllm(work, Order(keys, known_s=work.arrival_s, early=keys), Engine())


@pytest.mark.vllm
@pytest.mark.parametrize("policy", ["fcfs", "sjf", "longest-first"])
@pytest.mark.parametrize(
    ("kv_tokens", "watermark"), [(219_000, 0.05), (20_000, 0.0), (20_000, 0.05)]
)
@pytest.mark.parametrize("rate", [np.inf, 12.0])
def test_our_replay_does_as_vllm_does(
    rate: float, kv_tokens: int, watermark: float, policy: str
) -> None:
    pytest.importorskip("vllm")
    work = workload(200, rate)
    engine = Engine(slots=64, token_budget=2048, kv_tokens=kv_tokens, watermark=watermark)
    order = orders(work)[policy]
    theirs, ours = replay_vllm(work, order, engine), replay_continuous(work, order, engine)
    if kv_tokens == 20_000:
        assert theirs.preemptions.sum() > 0 or watermark
    for trace in (theirs, ours):
        assert np.isfinite(trace.finish_s).all()
    mean = [(t.finish_s - work.arrival_s).mean() for t in (theirs, ours)]
    assert mean[1] == pytest.approx(mean[0], rel=CLOSE)
    assert ours.finish_s.max() == pytest.approx(theirs.finish_s.max(), rel=CLOSE)
    assert ours.first_token_s.mean() == pytest.approx(theirs.first_token_s.mean(), rel=CLOSE)


@pytest.mark.vllm
def test_with_an_empty_queue_no_order_changes_anything() -> None:
    pytest.importorskip("vllm")
    work, engine = workload(30, 0.001), Engine(slots=64, token_budget=2048)
    for run in (replay_vllm, replay_continuous):
        traces = {name: run(work, order, engine) for name, order in orders(work).items()}
        for trace in traces.values():
            np.testing.assert_array_equal(trace.finish_s, traces["fcfs"].finish_s)
            np.testing.assert_array_equal(trace.first_token_s, traces["fcfs"].first_token_s)
