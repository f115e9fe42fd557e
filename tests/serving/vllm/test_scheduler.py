"""Our scheduler over vLLM's own, without a model: late news, and who gives way."""

import importlib
import inspect
import pickle
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lengthpred.eval.replay.vllm_scheduler import make_scheduler
from lengthpred.eval.replay.workload import Engine
from lengthpred.ordering import EPOCH_S, SCALE, priority
from lengthpred.serving.news import Inbox, Outbox
from tests.serving.vllm.stepping import ASYNC, SYNC, add, run

HOOKS = {
    "add_request": ["self", "request"],
    "schedule": ["self", "throttle_prefills"],
    "_preempt_request": ["self", "request"],
    "_free_request": ["self", "request"],
}


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


@pytest.mark.vllm
def test_a_late_opinion_moves_what_waits(folder: Path) -> None:
    pytest.importorskip("vllm")
    scheduler = make_scheduler(Engine(slots=1, token_budget=64), 200, SYNC)
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
    scheduler = make_scheduler(room, 400, SYNC)
    long = add(scheduler, "long", 200, 200.0)
    run(scheduler, 150)
    short = add(scheduler, "short", 150, 150.0, 1.0)
    one, other = scheduler.requests[long], scheduler.requests[short]
    ends = run(scheduler)
    assert ends == [long, short]
    assert (one.num_preemptions, other.num_preemptions > 0) == (0, True)


@pytest.mark.vllm
def test_keys_that_are_no_lengths_stay(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a call that passed the middleware, and all under a policy that counts no tokens."""
    pytest.importorskip("vllm")
    scheduler = make_scheduler(Engine(slots=2, token_budget=256), 400, SYNC)
    own = scheduler.requests[add(scheduler, "own", 200, 200.0)]
    stock = scheduler.requests[add(scheduler, "stock", 200, 0.0, 1e8, key=0)]
    told = own.priority
    run(scheduler, 100)
    assert own.priority < told - 50 * SCALE and stock.priority == 0
    monkeypatch.setenv("LENGTHPRED_POLICY", "longest-first")
    scheduler = make_scheduler(Engine(slots=2, token_budget=256), 400, SYNC)
    kept = scheduler.requests[add(scheduler, "long", 200, 96.0)]
    told = kept.priority
    run(scheduler, 100)
    assert kept.priority == told
    Outbox(folder).tell("long", told + SCALE)
    run(scheduler, 20)
    assert kept.priority == told + SCALE


@pytest.mark.vllm
def test_news_of_an_older_call_of_that_name_buys_no_place(folder: Path) -> None:
    pytest.importorskip("vllm")
    scheduler = make_scheduler(Engine(slots=1, token_budget=64), 200, SYNC)
    names = [add(scheduler, "first", 5, 100.0), add(scheduler, "short", 5, 1.0, 50.0)]
    run(scheduler, 1)
    names.append(add(scheduler, "again", 5, 100.0, 60.0))
    Outbox(folder).tell("again", int(priority([1.0], [EPOCH_S - 10**6])[0]))
    assert run(scheduler) == names
    # What came for a call that is over does not wait for the next one.
    assert not scheduler._early


@pytest.mark.vllm
@pytest.mark.parametrize(("cls", "depth"), [(SYNC, 1), (ASYNC, 2)])
@pytest.mark.parametrize("srpt", [False, True])
def test_nothing_is_lost_where_blocks_run_out(
    cls: str, depth: int, srpt: bool, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As vLLM's engine steps it: with two outputs under way where it schedules asynchronously."""
    pytest.importorskip("vllm")
    monkeypatch.setenv("LENGTHPRED_SRPT", str(srpt))
    monkeypatch.setattr("lengthpred.serving.vllm.scheduler.MARGIN", 50)
    rng = np.random.default_rng(0)
    room = Engine(slots=10, token_budget=256, kv_tokens=16 * 150, watermark=0.0)
    scheduler = make_scheduler(room, 900, cls, asynchronous=depth > 1)
    lengths = np.clip(rng.lognormal(4, 1, 300), 1, 500).astype(int).tolist()
    outbox, written, ends = Outbox(folder), Counter[str](), list[str]()
    asked, requests = dict[str, int](), list[Any]()
    for i, length in enumerate(lengths):
        guess = float(np.clip(length * rng.lognormal(0, 0.6), 1, 4096))
        name = add(scheduler, f"call{i}", length, guess, i / 10, int(rng.integers(1, 300)))
        asked[name] = length
        requests.append(scheduler.requests[name])
        if i % 3 == 0:
            told = int(priority([float(length)], [EPOCH_S + i / 10])[0])
            outbox.tell(f"call{rng.integers(0, i + 1)}", told)
        ends += run(scheduler, 5, depth, written)
    ends += run(scheduler, depth=depth, written=written)
    assert sorted(ends) == sorted(asked) and written == asked
    pool = scheduler.kv_cache_manager.block_pool
    assert pool.get_num_free_blocks() == room.blocks
    assert not scheduler.requests and not scheduler.running and not scheduler.waiting
    assert not scheduler.kv_holding_waiting and not scheduler.deferred_waiting
    assert not scheduler._costs and not scheduler._called
    assert outbox.dropped == 0 and outbox.sent == 100
    assert sum(one.num_preemptions for one in requests) > 50


@pytest.mark.vllm
def test_a_late_opinion_reaches_a_pipeline(folder: Path) -> None:
    pytest.importorskip("vllm")
    one = Engine(slots=1, token_budget=64)
    scheduler = make_scheduler(one, 200, ASYNC, asynchronous=True)
    names = {call: add(scheduler, call, 5, 100.0, i) for i, call in enumerate("abcd")}
    run(scheduler, 1, depth=2)
    Outbox(folder).tell("d", int(priority([1.0], [EPOCH_S + 3])[0]))
    assert run(scheduler, depth=2) == [names[call] for call in "adbc"]


@pytest.mark.vllm
def test_each_engine_hears_for_itself(folder: Path) -> None:
    """Under data parallelism a request is known to one engine, and all are told."""
    pytest.importorskip("vllm")
    one = Engine(slots=1, token_budget=64)
    engines = [make_scheduler(one, 200, SYNC, rank=rank) for rank in range(2)]
    assert {p.name for p in folder.iterdir()} == {"engine-0.sock", "engine-1.sock"}
    names = [
        [add(engine, f"{rank}{call}", 5, 100.0, i) for i, call in enumerate("abc")]
        for rank, engine in enumerate(engines)
    ]
    for engine in engines:
        run(engine, 1)
    outbox = Outbox(folder)
    for call in ("0c", "1c"):
        outbox.tell(call, int(priority([1.0], [EPOCH_S + 2])[0]))
    assert (outbox.sent, outbox.dropped) == (4, 0)
    for engine, (first, second, last) in zip(engines, names, strict=True):
        assert run(engine) == [first, last, second]


# The shortest remaining first


@pytest.fixture
def slot(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    pytest.importorskip("vllm")
    monkeypatch.setenv("LENGTHPRED_SRPT", "1")
    return make_scheduler(Engine(slots=1, token_budget=256), 900, SYNC)


@pytest.mark.vllm
def test_a_far_shorter_one_takes_the_slot_once(slot: Any) -> None:
    long = add(slot, "long", 400, 400.0)
    one = slot.requests[long]
    run(slot, 20)
    shorts = [add(slot, f"short{i}", 5, 5.0, i) for i in range(2)]
    assert run(slot, 30) == shorts
    late = add(slot, "late", 5, 5.0, 3.0)  # The long one has yielded, and stays now.
    assert run(slot) == [long, late]
    assert one.num_preemptions == 1


@pytest.mark.vllm
@pytest.mark.parametrize(
    ("steps", "predicted", "comes"),
    [(10, 400.0, 320.0), (350, 400.0, 5.0), (10, 5.0, 5.0)],
    ids=["too little to gain", "nearly done", "longer than predicted"],
)
def test_else_the_one_that_runs_stays(
    slot: Any, steps: int, predicted: float, comes: float
) -> None:
    names = [add(slot, "long", 400, predicted)]
    run(slot, steps)
    names.append(add(slot, "other", 5, comes, 1.0))
    one = slot.requests[names[0]]
    assert run(slot) == names and one.num_preemptions == 0


@pytest.mark.vllm
def test_nobody_yields_to_what_has_no_room(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("vllm")
    monkeypatch.setenv("LENGTHPRED_SRPT", "1")
    room = Engine(slots=1, token_budget=256, kv_tokens=16 * 30, watermark=0.0)
    scheduler = make_scheduler(room, 480, SYNC)
    names = [add(scheduler, "long", 300, 400.0)]
    run(scheduler, 20)
    names.append(add(scheduler, "short", 5, 5.0, 1.0, prompt=470))
    assert run(scheduler) == names


@pytest.mark.vllm
def test_without_the_setting_nothing_yields(folder: Path) -> None:
    pytest.importorskip("vllm")
    scheduler = make_scheduler(Engine(slots=1, token_budget=256), 900, SYNC)
    names = [add(scheduler, "long", 400, 400.0)]
    run(scheduler, 20)
    names.append(add(scheduler, "short", 5, 5.0, 1.0))
    assert run(scheduler) == names


# What it refuses


@pytest.mark.vllm
def test_the_wrong_class_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("vllm")
    from lengthpred.errors import SettingsError

    with pytest.raises(SettingsError, match="LengthAwareScheduler"):
        make_scheduler(Engine(), 100, ASYNC)


@pytest.mark.vllm
def test_another_version_of_vllm_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also without `lengthpred serve`, and before anything that it may not have is imported."""
    pytest.importorskip("vllm")
    from lengthpred.errors import SettingsError
    from lengthpred.serving.vllm import scheduler, version

    monkeypatch.setattr(version, "version", lambda name: "0.99.1")
    with pytest.raises(SettingsError, match=r"vLLM 0.99.1 is installed.*pip install"):
        importlib.reload(scheduler)


@pytest.mark.vllm
def test_an_engine_in_a_process_of_its_own_finds_the_class(folder: Path) -> None:
    """What spawns an engine sends its settings, pickled, and the class by its name."""
    pytest.importorskip("vllm")
    config = make_scheduler(Engine(), 100, SYNC).vllm_config
    again = pickle.loads(pickle.dumps(config))
    assert again.scheduler_config.get_scheduler_cls().__name__ == "LengthAwareScheduler"
