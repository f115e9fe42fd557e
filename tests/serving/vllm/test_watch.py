"""Calls that end without a length: refused, failed, or left by their client."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from lengthpred import Request
from lengthpred.serving.metrics import ServingMetrics
from lengthpred.serving.service import Finished, Service
from lengthpred.serving.settings import ServingSettings
from lengthpred.serving.vllm import middleware as module
from lengthpred.serving.vllm.middleware import LengthPriorityMiddleware
from tests.builders import build

BODY = json.dumps({"messages": [{"role": "user", "content": "list of rivers"}]}).encode()
OK = {"type": "http.response.start", "status": 200, "headers": []}
END = {"type": "http.response.body", "body": b""}
App = Callable[[Any, Any, Any], Awaitable[None]]


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    settings = ServingSettings(artifact=str(build("histogram").save(tmp_path / "a")))
    made = Service(settings, ServingMetrics(CollectorRegistry()))
    monkeypatch.setattr(module, "service_of_process", lambda: made)
    yield made
    made.close()


def call(app: App, *parts: bytes, whole: bool = True, type: str = "http") -> list[str]:
    """What goes out of the middleware before an app; the client leaves after its last part."""
    messages = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
    messages[-1]["more_body"] = not whole
    out: list[str] = []

    async def receive() -> Any:
        if type == "websocket":
            return {"type": "websocket.connect"}
        return messages.pop(0) if messages else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        out.append(message["type"])

    path = "/v1/chat/completions"
    scope = {"type": type, "method": "POST", "path": path, "headers": []}
    asyncio.run(LengthPriorityMiddleware(app)(scope, receive, send))
    return out


def test_a_predictor_that_cannot_learn_loses_no_length(
    service: Service, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise RecursionError("too deep")

    (asker,) = service._askers.values()
    monkeypatch.setattr(asker, "observe", broken)
    asyncio.run(service.place([Request(prompt="a")], "r", 2e9))
    service.finished([Finished(id="cmpl-r-0", length=7, stopped=False)])
    known = service.metrics.registry.get_sample_value(
        "lengthpred_true_lengths_total", {"result": "known"}
    )
    assert known == 1 and "RecursionError: too deep" in caplog.text


def test_a_client_that_leaves_is_told_of(service: Service) -> None:
    """vLLM aborts a request when `receive` tells it that the client is gone."""
    told: list[str] = []
    pending: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for _ in range(2):
            told.append((await receive())["type"])
            pending.append(len(service.pending))
        for message in (OK, END):  # what nobody hears any more
            await send(message)

    call(app, BODY)
    assert told == ["http.request", "http.disconnect"] and pending == [1, 0]


def test_a_client_that_leaves_in_its_body_has_asked_nothing(service: Service) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("there is nothing to do")

    for part in (BODY, BODY[:10]):  # what has come may look like all of it
        assert call(app, b"", part, whole=False) == []
    assert len(service.pending) == 0
    assert service.metrics.registry.get_sample_value("lengthpred_prediction_seconds_count") == 0


def test_an_error_has_no_length(service: Service) -> None:
    pending: list[int] = []

    async def refuse(scope: Any, receive: Any, send: Any) -> None:
        pending.append(len(service.pending))
        for message in ({**OK, "status": 400}, END):
            await send(message)

    async def fail(scope: Any, receive: Any, send: Any) -> None:
        pending.append(len(service.pending))
        raise ConnectionError

    assert call(refuse, BODY) == [OK["type"], END["type"]]
    with pytest.raises(ConnectionError):
        call(fail, BODY)
    assert pending == [1, 1] and len(service.pending) == 0
    assert service.metrics.registry.get_sample_value("lengthpred_pending") == 0


def test_a_client_that_has_its_answer_may_leave(service: Service) -> None:
    """Its length may be told after that."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        for message in (OK, {**END, "more_body": True}, END):
            await send(message)
        assert (await receive())["type"] == "http.disconnect"

    call(app, BODY)
    assert len(service.pending) == 1


def test_a_websocket_that_vllm_does_not_have_is_left_to_it(service: Service) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert (await receive())["type"] == "websocket.connect"
        await send({"type": "websocket.close"})

    assert call(app, b"", type="websocket") == ["websocket.close"]
