"""No request starves on vLLM's own scheduler and on ours, whatever late news say."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lengthpred.eval.replay.order import Order
from lengthpred.eval.replay.vllm_scheduler import _Replay, make_scheduler
from lengthpred.eval.replay.workload import Engine
from lengthpred.ordering import POLICIES, PREEMPTIVE, OrderingSettings, priority
from lengthpred.serving.news import Outbox
from tests.eval.replay.cases import ONE, engines
from tests.eval.replay.starvation import Flood, floods, most_overtaken, short_ones_after_a_long_one
from tests.serving.vllm.stepping import ASYNC, SYNC, add, run

pytestmark = pytest.mark.vllm
News = list[tuple[float, int, int]]  # when it is told, of which request, its key


class Told(_Replay):
    """Hears news while it runs."""

    news: News
    outbox: Outbox

    def _step(self) -> None:
        while self.news and self.news[0][0] <= self.now:
            _, request, key = self.news.pop(0)
            self.outbox.tell(f"{request:09d}", key)
        super()._step()


@contextmanager
def settled(flood: Flood, srpt: bool) -> Iterator[Path]:
    """A folder for sockets, and the settings of an engine of ours in the environment."""
    pytest.importorskip("vllm")
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setenv("LENGTHPRED_SOCKETS", folder)
        patch.setenv("LENGTHPRED_MAX_OVERTAKE_S", str(flood.settings.max_overtake_s))
        patch.setenv("LENGTHPRED_CAP", str(flood.settings.cap))
        patch.setenv("LENGTHPRED_SRPT", str(srpt))
        if srpt:  # as often as it may
            patch.setattr("lengthpred.serving.vllm.scheduler.MARGIN", 1)
        yield Path(folder)


def overtaken(
    flood: Flood, order: Order, engine: Engine, cls: str | None, news: News, srpt: bool = False
) -> float:
    with settled(flood, srpt) as folder:
        replay = Told(flood.work, order, engine, cls)
        replay.news, replay.outbox = sorted(news), Outbox(folder)
        trace = replay.run()
    return most_overtaken(flood.work, trace)


@st.composite
def told(draw: st.DrawFn, flood: Flood) -> News:
    """Any costs within the cap, told before requests come or after; most of them at the ends."""
    shares = st.one_of(st.sampled_from([0.0, 1.0]), st.floats(0, 1))
    row = st.tuples(st.floats(-1, 40), st.integers(0, len(flood.work) - 1), shares)
    rows = draw(st.lists(row, max_size=12))
    return [
        (at, i, int(priority(share * flood.settings.cap, flood.arrival_unix_s[i], flood.settings)))
        for at, i, share in rows
    ]


@pytest.mark.parametrize("kind", ["vllm", "ours", "ours, srpt"])
@hypothesis.settings(max_examples=80)
@given(floods(longest=40), st.data())
def test_nobody_is_overtaken_by_what_comes_after_the_bound(
    kind: str, flood: Flood, data: st.DataObject
) -> None:
    policy = data.draw(st.sampled_from(sorted(set(POLICIES) - set(PREEMPTIVE))))
    engine, news = data.draw(engines(flood.work)), data.draw(told(flood))
    cls = None if kind == "vllm" else SYNC
    most = overtaken(flood, flood.order(policy), engine, cls, news, srpt="srpt" in kind)
    assert most <= flood.bound_s


@hypothesis.settings(max_examples=80)
@given(floods(longest=40), st.data())
def test_nor_under_asynchronous_scheduling(flood: Flood, data: st.DataObject) -> None:
    """Of those that never ran: what was preempted is passed over until its last tokens are out."""
    engine, news = data.draw(engines(flood.work)), sorted(data.draw(told(flood)))
    keys, arrived = flood.keys("sjf").tolist(), flood.work.arrival_s
    lengths, prompts = flood.work.output_tokens.tolist(), flood.work.prompt_tokens.tolist()
    came, ran, now = dict[str, float](), set[str](), 0.0
    with settled(flood, srpt=False) as folder:
        scheduler, outbox = make_scheduler(engine, 100, ASYNC, asynchronous=True), Outbox(folder)

        def let_in() -> None:
            while news and news[0][0] <= now:
                _, i, key = news.pop(0)
                outbox.tell(str(i), key)
            for i in range(len(came), int(np.searchsorted(arrived, now, side="right"))):
                at, key = float(arrived[i]), keys[i]
                came[add(scheduler, str(i), lengths[i], 0, at, prompts[i], key)] = at

        def check(step: Any) -> None:
            nonlocal now
            started = step.num_scheduled_tokens.keys() - ran
            ran.update(started)
            waits = [came[name] for name in scheduler.requests.keys() - ran]
            if started and waits:
                assert max(came[name] for name in started) - min(waits) <= flood.bound_s
            now += 0.25
            let_in()

        while len(came) < len(keys):
            now = max(now, float(arrived[len(came)]))
            let_in()
            run(scheduler, depth=2, each=check)


@pytest.mark.parametrize("cls", [None, SYNC])
@pytest.mark.parametrize("aged", [True, False])
def test_the_bound_is_reached_and_a_key_that_does_not_age_is_seen(
    aged: bool, cls: str | None
) -> None:
    flood = short_ones_after_a_long_one(20.0, OrderingSettings(max_overtake_s=20.0))
    order = flood.order("sjf") if aged else Order(flood.keys("sjf") - flood.keys("fcfs"))
    most = overtaken(flood, order, Engine(slots=1, step_time=ONE), cls, [])
    if aged:
        assert 0.9 * 20 < most <= flood.bound_s
    else:
        assert most > 70
