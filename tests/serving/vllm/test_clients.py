"""Clients over a real connection: odd ways to write a route, and bodies that never end."""

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import fastapi
import httpx
import pytest
import uvicorn
from prometheus_client import CollectorRegistry

from lengthpred.serving.metrics import ServingMetrics
from lengthpred.serving.service import Service
from lengthpred.serving.settings import ServingSettings
from lengthpred.serving.vllm import middleware as module
from lengthpred.serving.vllm.middleware import LengthPriorityMiddleware
from tests.builders import build
from tests.serving.vllm.hostile import ODD_TARGETS, sent

BODY = json.dumps({"prompt": "list of rivers"}).encode()
JSON = ("content-type", "application/json")
CHEAT = ("x-vllm-priority", "-9")


class Standing:
    """An app with vLLM's way to find routes, and the keys of the calls that reached one."""

    def __init__(self, service: Service) -> None:
        self.service, self.keys = service, list[list[str]]()
        self.app = fastapi.FastAPI()
        self.app.root_path = "/llm"  # as vLLM's --root-path
        self.app.add_middleware(LengthPriorityMiddleware)
        self.app.add_api_route("/v1/completions", self.take, methods=["POST"])

    async def take(self, request: fastapi.Request) -> str:
        self.keys.append(request.headers.getlist("x-vllm-priority"))
        return str(len(await request.body()))


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Standing, str]]:
    settings = ServingSettings(artifact=str(build("histogram").save(tmp_path / "a")), max_body_mb=1)
    service = Service(settings, ServingMetrics(CollectorRegistry()))
    monkeypatch.setattr(module, "service_of_process", lambda: service)
    standing = Standing(service)
    server = uvicorn.Server(uvicorn.Config(standing.app, log_level="error", lifespan="off"))
    listening = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listening])))
    thread.start()
    yield standing, f"127.0.0.1:{listening.getsockname()[1]}"
    server.should_exit = True
    thread.join()
    service.close()


def test_however_a_route_is_written_its_call_has_our_key(served: tuple[Standing, str]) -> None:
    standing, host = served
    reached = set()
    for target in ("/v1/completions", *ODD_TARGETS):
        for method in ("POST", "PUT", "HEAD", "GET", "PATCH", "OPTIONS", "post"):
            for more in ([], [("transfer-encoding", "chunked")]):
                assert sent(host, method, target, [JSON, CHEAT, CHEAT, *more], BODY) < 500
                for keys in standing.keys:
                    assert len(keys) == 1 and int(keys[0]) > 0
                reached |= {target} if standing.keys else set()
                standing.keys.clear()
    assert {"/v1/completions", "/v1%2Fcompletions", "/llm/v1/completions"} <= reached
    assert len(reached) < len(ODD_TARGETS) / 2


def test_bodies_that_never_end_hold_nobody_up_and_leave_nothing(
    served: tuple[Standing, str],
) -> None:
    """A hundred connections that send a byte now and then, and go."""
    standing, host = served
    name, _, port = host.partition(":")
    head = f"POST /v1/completions HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
    with ExitStack() as stack:
        slow = [
            stack.enter_context(socket.create_connection((name, int(port)))) for _ in range(100)
        ]
        for i, connection in enumerate(slow):
            whole = BODY if i % 2 else b"{"  # what has come may look like all of it
            connection.sendall(f"{head}Content-Length: 900000\r\n\r\n".encode() + whole)
        for _ in range(3):
            for connection in slow:
                connection.sendall(b" ")
            begun = time.monotonic()
            assert httpx.post(f"http://{host}/v1/completions", content=BODY).status_code == 200
            assert time.monotonic() - begun < 10
    end = time.monotonic() + 30
    reader = _reader(standing.app)
    while reader._held:
        assert time.monotonic() < end
        time.sleep(0.05)
    assert reader._bytes == 0 and len(standing.keys) == 3
    assert len(standing.service.pending) == 3  # this app tells no lengths


def test_bodies_at_once_are_bounded(served: tuple[Standing, str]) -> None:
    """Forty that nearly are the largest, while a small one goes by."""
    standing, host = served

    def ask(i: int) -> int:
        body = json.dumps({"prompt": "a" * (900_000 if i else 10)}).encode()

        def parts() -> Iterator[bytes]:
            for start in range(0, len(body), 100_000):
                yield body[start : start + 100_000]
                time.sleep(0.01)

        answer = httpx.post(f"http://{host}/v1/completions", content=parts(), timeout=60)
        return int(answer.status_code)

    with ThreadPoolExecutor(41) as pool:
        became = list(pool.map(ask, range(41)))
    assert became[0] == 200 and set(became) <= {200, 429} and became.count(200) >= 17
    assert _reader(standing.app)._bytes == 0


def _reader(app: Any) -> Any:
    """Of the middleware in an app that runs."""
    layer = app.middleware_stack
    while not isinstance(layer, LengthPriorityMiddleware):
        layer = layer.app
    return layer._bodies
