"""Calls that wait for a second opinion, and are let go."""

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from lengthpred import Request, load
from lengthpred.base import Refiner
from lengthpred.serving import service as module
from lengthpred.serving.metrics import ServingMetrics
from lengthpred.serving.service import Finished, Service
from lengthpred.serving.settings import ServingSettings
from tests.builders import build, synthetic_rows

pytestmark = pytest.mark.slow
UNLIKE = Request(prompt="光" * 2000, model="model-a")
HOLD_MS = 60_000.0


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("cascade").save(tmp_path_factory.mktemp("hold") / "cascade")


@pytest.fixture(scope="module")
def service(artifact: Path) -> Iterator[Service]:
    settings = ServingSettings(artifact=str(artifact), hold_ms=HOLD_MS, deadline_ms=20_000)
    made = Service(settings, ServingMetrics(CollectorRegistry()))
    yield made
    made.close()


def place(service: Service, request: Request, id: str = "r") -> Any:
    return asyncio.run(service.place([request], id, 2e9))


def counted(service: Service, result: str) -> float:
    told = {"result": result}
    return service.metrics.registry.get_sample_value("lengthpred_refined_total", told) or 0.0


def test_while_others_wait_the_second_opinion_counts(service: Service, artifact: Path) -> None:
    cascade = load(artifact)
    assert isinstance(cascade, Refiner)
    first, second = cascade.provisional([UNLIKE])[0], cascade.refine([UNLIKE], 60)[0]
    assert abs(first.mean()[0] - second.mean()[0]) > 1
    service.queued(0, 5)
    got, before = place(service, UNLIKE), counted(service, "refined")
    np.testing.assert_allclose(got.dist.pmf, second.pmf, atol=1e-6)
    assert before == 1 and not got.unsure
    service.queued(0, 0)
    alone = place(service, UNLIKE)
    np.testing.assert_allclose(alone.dist.pmf, first.pmf, atol=1e-6)
    assert alone.unsure and alone.priority != got.priority


def test_old_word_of_a_queue_is_none(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of several server processes vLLM tells one: another may never hear that nobody waits."""
    service.queued(0, 5)
    service.queued(1, 2)
    assert service.queue == 7
    monkeypatch.setattr(module, "QUEUE_S", -1.0)
    assert service.queue == 0


def test_lengths_are_told_to_who_answers_first_and_second(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[list[Request]] = []
    (holder,), (asker,) = service._holders.values(), service._askers.values()
    for one in (holder.process, asker):
        monkeypatch.setattr(
            one, "observe", lambda requests, lengths, stopped: told.append(requests)
        )
    service.queued(0, 0)
    place(service, UNLIKE, "learn")
    service.finished([Finished(id="cmpl-learn-0", length=7, stopped=False, prompt_tokens=9)])
    assert [one.prompt_tokens for requests in told for one in requests] == [9, 9]


def test_what_is_sure_is_not_held(service: Service) -> None:
    service.queued(0, 5)
    sure = [r for r in synthetic_rows(40, seed=5).requests]
    before = counted(service, "refined") + counted(service, "let go")
    flags = [place(service, request).unsure for request in sure[:12]]
    after = counted(service, "refined") + counted(service, "let go")
    assert not any(flags) and after - before < 6


def test_it_is_let_go_when_the_queue_empties(service: Service) -> None:
    service.queued(0, 5)
    (holder,) = service._holders.values()
    os.kill(holder.process.pid, signal.SIGSTOP)
    before = counted(service, "let go")

    async def both() -> Any:
        waiting = asyncio.create_task(service.place([UNLIKE], "r", 2e9))
        await asyncio.sleep(1.0)
        assert not waiting.done()
        service.queued(0, 0)
        return await waiting

    begun = time.monotonic()
    try:
        got = asyncio.run(both())
    finally:
        os.kill(holder.process.pid, signal.SIGCONT)
    assert time.monotonic() - begun < HOLD_MS / 2000
    assert got.unsure and counted(service, "let go") == before + 1
