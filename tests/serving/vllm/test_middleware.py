"""The middleware before an app that says what reached it, and before hostile bodies."""

import asyncio
import hashlib
import json
import random
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry

from lengthpred.serving.metrics import ServingMetrics
from lengthpred.serving.service import Finished, Service
from lengthpred.serving.settings import ServingSettings
from lengthpred.serving.vllm import middleware as module
from lengthpred.serving.vllm.middleware import LengthPriorityMiddleware
from tests.builders import build
from tests.serving.vllm.hostile import hostile

CHAT = {"model": "m", "messages": [{"role": "user", "content": "list of rivers"}]}
Seen = list[tuple[dict[str, str], bytes]]
Server = tuple[httpx.AsyncClient, Seen, Service]
Make = Callable[..., Server]


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("histogram").save(tmp_path_factory.mktemp("middleware") / "histogram")


@pytest.fixture
def serve(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """A client of a server that answers with 200, what reached it, and its service."""
    services = []

    def make(**settings: Any) -> Server:
        told = ServingSettings(**{"artifact": str(artifact), **settings})
        service = Service(told, ServingMetrics(CollectorRegistry()))
        services.append(service)
        monkeypatch.setattr(module, "service_of_process", lambda: service)
        seen: Seen = []
        answers: dict[str, list[bytes]] = {"/v1/responses": [b'event: x\n{"id": "re', b'sp_1a"}']}

        async def app(scope: Any, receive: Any, send: Any) -> None:
            body, more = b"", True
            while more:
                message = await receive()
                body += message.get("body", b"")
                more = message.get("more_body", False)
            headers = {key.decode(): value.decode("latin-1") for key, value in scope["headers"]}
            count = sum(key == b"x-vllm-priority" for key, _ in scope["headers"])
            seen.append(({**headers, "count": str(count)}, body))
            await send({"type": "http.response.start", "status": 200, "headers": []})
            said = answers.get(scope["path"], [b"ok"])
            for part in said:
                await send({"type": "http.response.body", "body": part, "more_body": True})
            await send({"type": "http.response.body", "body": b""})

        transport = httpx.ASGITransport(LengthPriorityMiddleware(app))
        return httpx.AsyncClient(transport=transport, base_url="http://test"), seen, service

    yield make
    for service in services:
        service.close()


def run(call: Any) -> Any:
    return asyncio.run(call)


def counted(service: Service, name: str, **labels: str) -> float:
    value: float | None = service.metrics.registry.get_sample_value(f"lengthpred_{name}", labels)
    return value or 0.0


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", CHAT),
        ("/v1/completions", {"model": "m", "prompt": "list of rivers"}),
        ("/v1/completions", {"prompt": ["list of rivers", "sum", [1, 2, 3]]}),
        ("/v1/completions", {"prompt": [5, 6, 7]}),
        ("/v1/responses", {"model": "m", "input": "list of rivers"}),
        ("/v1/messages", {**CHAT, "max_tokens": 5, "system": "be short"}),
        ("/invocations", CHAT),
    ],
)
def test_a_call_gets_a_priority_and_keeps_its_bytes(serve: Make, path: str, body: object) -> None:
    client, seen, service = serve()
    raw = json.dumps(body, indent=3).encode()
    answer = run(client.post(path, content=raw))
    headers, arrived = seen[0]
    assert answer.status_code == 200 and arrived == raw
    assert answer.text in ("ok", 'event: x\n{"id": "resp_1a"}')
    assert int(headers["x-vllm-priority"]) > 0 and headers["x-request-id"]
    assert counted(service, "calls_total", place="predicted") == 1


def test_a_longer_answer_comes_later(serve: Make) -> None:
    client, seen, _ = serve()
    for topic in ("sum of x", "code of x"):
        body = {"prompt": f"{topic} light seven", "model": "model-a"}
        run(client.post("/v1/completions", json=body))
    short, long = (int(headers["x-vllm-priority"]) for headers, _ in seen)
    assert long != short
    limited = {"prompt": "code of x light seven", "model": "model-a", "max_tokens": 1}
    run(client.post("/v1/completions", json=limited))
    assert int(seen[2][0]["x-vllm-priority"]) < long


def test_the_clients_own_priority_is_dropped(serve: Make) -> None:
    client, seen, _ = serve()
    headers = [("X-Vllm-Priority", "-9"), ("x-vllm-priority", "-10"), ("X-Request-Id", "mine")]
    run(client.post("/v1/chat/completions", json={**CHAT, "priority": -5}, headers=headers))
    got = seen[0][0]
    assert got["count"] == "1" and int(got["x-vllm-priority"]) > 0 and got["x-request-id"] == "mine"


@pytest.mark.parametrize(
    "path", ["/v1/chat/completions/batch", "/inference/v1/generate", "/v1/new/in/next/vllm"]
)
def test_what_takes_no_priority_is_refused(serve: Make, path: str) -> None:
    client, seen, service = serve()
    answer = run(client.post(path, json=CHAT, headers={"x-vllm-priority": "-1"}))
    assert answer.status_code == 400 and not seen
    error = answer.json()["error"]
    assert "--allow-unordered" in error["message"] and error["code"] == 400
    assert counted(service, "calls_total", place="unordered") == 1


def test_or_let_through_and_counted(serve: Make) -> None:
    client, seen, service = serve(allow_unordered=True)
    headers = {"x-vllm-priority": "-1"}
    answer = run(client.post("/inference/v1/generate", json=CHAT, headers=headers))
    assert answer.status_code == 200 and seen[0][0]["count"] == "0"
    run(client.post("/v1/completions", json={"prompt": "a", "use_beam_search": True}))
    assert seen[1][0]["count"] == "1"
    assert counted(service, "calls_total", place="unordered") == 2
    assert not counted(service, "calls_total", place="unread")


def test_beam_search_is_refused(serve: Make) -> None:
    client, seen, _ = serve()
    body = {"prompt": "a", "use_beam_search": True, "n": 4}
    assert run(client.post("/v1/completions", json=body)).status_code == 400 and not seen


def test_what_does_not_generate_passes(serve: Make) -> None:
    client, seen, service = serve()
    for path in ("/tokenize", "/v1/load_lora_adapter", "/v1/responses/resp_1/cancel"):
        assert run(client.post(path, json={})).status_code == 200
    assert run(client.get("/v1/models")).status_code == 200
    assert len(seen) == 4 and not any("x-vllm-priority" in headers for headers, _ in seen)
    assert len(service.pending) == 0


def test_a_call_without_a_name_of_its_own_gets_one(serve: Make) -> None:
    client, seen, service = serve()
    for given in ({}, {"X-Request-Id": ""}):
        run(client.post("/v1/completions", json={"prompt": "a"}, headers=given))
        id = seen.pop()[0]["x-request-id"]
        service.finished([Finished(id=f"cmpl-{id}-0", length=1, stopped=False)])
    assert counted(service, "true_lengths_total", result="known") == 2


def test_strangers_are_left_to_vllm(serve: Make) -> None:
    digests = tuple(hashlib.sha256(key.encode()).hexdigest() for key in ("secret", "schlüssel"))
    client, seen, service = serve(api_key_digests=digests)
    for given in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic secret"}):
        cheat = {**given, "X-Vllm-Priority": "-9"}
        run(client.post("/v1/chat/completions", json=CHAT, headers=cheat))
    # Should vLLM let them in after all, they come last.
    assert all(headers["x-vllm-priority"] == str(2**62) for headers, _ in seen)
    assert len(service.pending) == 0 and counted(service, "calls_total", place="predicted") == 0
    run(client.post("/v1/chat/completions", json=CHAT, headers={"Authorization": "bearer secret"}))
    assert len(seen) == 4 and counted(service, "calls_total", place="predicted") == 1
    latin = {"Authorization": "Bearer schlüssel".encode("latin-1")}
    run(client.post("/v1/chat/completions", json=CHAT, headers=latin))
    assert counted(service, "calls_total", place="predicted") == 2


def test_large_bodies(serve: Make) -> None:
    client, seen, service = serve(max_body_mb=0.02, read_mb=0.01)
    long = json.dumps({"prompt": "a" * 12_000})
    assert run(client.post("/v1/completions", content=long)).status_code == 200
    assert int(seen[0][0]["x-vllm-priority"]) > 0 and seen[0][1] == long.encode()
    assert counted(service, "calls_total", place="unread") == 1
    refused = run(client.post("/v1/completions", content="a" * 30_000))
    assert refused.status_code == 413 and "0.02 MB" in refused.json()["error"]["message"]
    assert len(seen) == 1


def test_a_body_in_pieces_is_whole(serve: Make) -> None:
    client, seen, _ = serve()

    async def pieces() -> AsyncIterator[bytes]:
        for byte in json.dumps(CHAT).encode():
            yield bytes([byte])

    run(client.post("/v1/chat/completions", content=pieces()))
    assert json.loads(seen[0][1]) == CHAT


def test_true_lengths_find_their_prediction(serve: Make) -> None:
    client, _, service = serve()
    headers = {"x-request-id": "r-1"}
    run(client.post("/v1/chat/completions", json=CHAT, headers=headers))
    run(client.post("/v1/completions", json={"prompt": ["a", "b"]}, headers={"x-request-id": "c"}))
    assert len(service.pending) == 2
    answers = [("chatcmpl-r-1", 12), ("cmpl-c-0", 3), ("cmpl-c-1", 4), ("chatcmpl-else", 1)]
    service.finished([Finished(id=id, length=n, stopped=False) for id, n in answers])
    assert len(service.pending) == 0
    assert counted(service, "true_lengths_total", result="known") == 3
    assert counted(service, "true_lengths_total", result="unknown") == 1


@pytest.mark.parametrize("early", [True, False])
def test_a_call_that_vllm_names_is_found_by_that_name(serve: Make, early: bool) -> None:
    client, _, service = serve()
    done = [Finished(id="resp_1a_0", length=5, stopped=False)]
    if early:  # an answer in one piece is complete before it is sent
        service.finished(done)
    run(client.post("/v1/responses", json={"input": "list of rivers"}))
    if not early:
        assert len(service.pending) == 1
        service.finished(done)
    assert len(service.pending) == 0
    assert counted(service, "true_lengths_total", result="known") == 1


@pytest.mark.parametrize("count", [300, pytest.param(10_000, marks=pytest.mark.slow)])
def test_hostile_bodies_reach_vllm_in_order_and_nothing_grows(serve: Make, count: int) -> None:
    client, seen, service = serve(pending=200, pending_mb=1)
    rng = random.Random(0)

    async def attack(n: int) -> None:
        for _ in range(n):
            path, body, headers = hostile(rng)
            answer = await client.post(path, content=body, headers=headers)
            assert answer.status_code == 200
            got, arrived = seen.pop()
            assert arrived == body and got["count"] == "1"
            # None is before what arrived earlier by more than its cost can say.
            assert 0 < int(got["x-vllm-priority"]) < 2**62

    run(attack(count // 2))
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    run(attack(count // 2))
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert len(service.pending) <= 200
    # The table of pending calls holds others now, about a megabyte by its own count, which makes
    # one to two and a half; a kilobyte that stays of each call would be five.
    assert grown < 4_000_000
