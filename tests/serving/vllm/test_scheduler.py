"""Our scheduler over vLLM's own, without a model: late news, and who gives way."""

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lengthpred.eval.replay.vllm_scheduler import make_scheduler
from lengthpred.eval.replay.workload import Engine
from lengthpred.ordering import EPOCH_S, priority
from lengthpred.serving.news import Inbox, Outbox

CLASS = "lengthpred.serving.vllm.scheduler.LengthAwareScheduler"
HOOKS = {
    "add_request": ["self", "request"],
    "schedule": ["self"],
    "_preempt_request": ["self", "request"],
    "_free_request": ["self", "request"],
}
TOKEN = 7


def test_news_reach_every_engine(tmp_path: Path) -> None:
    outbox, engines = Outbox(tmp_path), [Inbox(tmp_path, i) for i in range(2)]
    outbox.tell("a-1", -5)
    outbox.tell("b", 2**60)
    for engine in engines:
        assert engine.read() == [("a-1", -5), ("b", 2**60)] and engine.read() == []
    engines[0].close()
    outbox.tell("c", 1)
    assert engines[1].read() == [("c", 1)] and outbox.sent == 5 and outbox.dropped == 0


def test_a_full_engine_stops_nobody(tmp_path: Path) -> None:
    outbox, engine = Outbox(tmp_path), Inbox(tmp_path, 0)
    for i in range(5000):
        outbox.tell("call", i)
    assert outbox.dropped and outbox.sent + outbox.dropped == 5000
    while engine.read():
        pass
    engine._socket.setblocking(False)
    outbox._socket.sendto(b"no json", str(engine._path))
    outbox._socket.sendto(b'{"id": 1}', str(engine._path))
    outbox.tell("after", 1)
    assert engine.read() == [("after", 1)]
    again = Inbox(tmp_path, 0)  # of an engine that was started anew
    outbox.tell("again", 2)
    assert again.read() == [("again", 2)]


@pytest.mark.vllm
def test_the_hooks_are_where_they_were() -> None:
    """When this fails a new vLLM moved a method that LengthAwareScheduler extends: read it anew."""
    module = pytest.importorskip("vllm.v1.core.sched.scheduler")
    for name, first in HOOKS.items():
        method = getattr(module.Scheduler, name, None)
        assert method is not None, f"vLLM's Scheduler has no {name} any more"
        assert list(inspect.signature(method).parameters)[: len(first)] == first, name


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("LENGTHPRED_SOCKETS", str(tmp_path))
    yield tmp_path


def run(scheduler: Any, steps: int = 10_000) -> list[str]:
    """Step until all is done or the steps are over; the order in which requests ended."""
    from vllm.v1.outputs import ModelRunnerOutput

    done: list[str] = []
    for _ in range(steps):
        if not scheduler.has_unfinished_requests():
            break
        told = scheduler.schedule()
        names = list(told.num_scheduled_tokens)
        ready = [
            scheduler.requests[n].num_computed_tokens >= scheduler.requests[n].num_tokens
            for n in names
        ]
        kept = {name: scheduler.requests[name] for name in names}
        sampled = [[TOKEN] if ok else [] for ok in ready]
        index = {name: i for i, name in enumerate(names)}
        scheduler.update_from_output(
            told, ModelRunnerOutput(req_ids=names, req_id_to_index=index, sampled_token_ids=sampled)
        )
        done += [name for name, one in kept.items() if one.is_finished()]
    return done


def add(scheduler: Any, call: str, length: int, predicted: float, at: float = 0.0) -> str:
    from vllm import SamplingParams
    from vllm.v1.request import Request

    name = f"chatcmpl-{call}-0123abcd"
    key = int(priority([predicted], [EPOCH_S + at])[0])
    limits = SamplingParams(max_tokens=length, ignore_eos=True)
    scheduler.add_request(
        Request(name, [TOKEN] * 10, limits, None, arrival_time=EPOCH_S + at, priority=key)
    )
    return name


@pytest.mark.vllm
def test_a_late_opinion_moves_what_waits(folder: Path) -> None:
    pytest.importorskip("vllm")
    scheduler = make_scheduler(Engine(slots=1, token_budget=64), 200, CLASS)
    outbox = Outbox(folder)
    names = {call: add(scheduler, call, 5, 100.0, i) for i, call in enumerate("abcd")}
    run(scheduler, 1)
    outbox.tell("d", int(priority([1.0], [EPOCH_S])[0]))
    outbox.tell("z", int(priority([1.0], [EPOCH_S])[0]))  # told of before it comes
    run(scheduler, 1)
    names["z"] = add(scheduler, "z", 5, 1000.0, 9)
    ends = [name.split("-")[1] for name in run(scheduler)]
    assert ends[0] == "a" and set(ends[1:3]) == {"d", "z"} and ends[3:] == ["b", "c"]
    assert not scheduler._costs and not scheduler._called
    assert not scheduler.waiting and scheduler.get_num_unfinished_requests() == 0


@pytest.mark.vllm
def test_the_one_with_most_left_gives_way(folder: Path) -> None:
    """Under vLLM's own priorities the longest would; here it is nearly done, and stays."""
    pytest.importorskip("vllm")
    room = Engine(slots=2, token_budget=256, kv_tokens=16 * 16, watermark=0.0)
    scheduler = make_scheduler(room, 400, CLASS)
    long = add(scheduler, "long", 200, 200.0)
    run(scheduler, 150)
    short = add(scheduler, "short", 150, 150.0, 1.0)
    one, other = scheduler.requests[long], scheduler.requests[short]
    ends = run(scheduler)
    assert ends == [long, short]
    assert (one.num_preemptions, other.num_preemptions > 0) == (0, True)


@pytest.mark.vllm
def test_the_wrong_class_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("vllm")
    from lengthpred.errors import SettingsError

    with pytest.raises(SettingsError, match="LengthAwareScheduler"):
        make_scheduler(Engine(), 100, CLASS.replace("LengthAware", "LengthAwareAsync"))
