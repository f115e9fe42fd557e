"""On a real server: order, routes, keys, lengths that come back, clients that leave."""

import os
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import httpx
import pytest

from lengthpred.data.importing import import_table
from lengthpred.data.table import Table
from lengthpred.models.conformal import Conformal
from tests.builders import build
from tests.serving.vllm.server import (
    AGELESS,
    CLIENT,
    Running,
    answers_of,
    forced,
    known,
    paused,
    process_of,
    running_server,
    wait_for,
)

pytestmark = pytest.mark.vllm
KEY = {"Authorization": "Bearer secret"}


@pytest.fixture(scope="module")
def feedback(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kept") / "kept"


@pytest.fixture(scope="module")
def server(
    model: Path, feedback: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("server")
    artifact = Conformal(build("boosted")).save(folder / "artifact")  # type: ignore[arg-type]
    kept = ["--feedback", str(feedback), "--keep-prompts", *AGELESS]
    more = ["--max-num-seqs", "2", "--api-key", "secret"]
    with running_server(artifact, model, folder / "log", kept, more) as running:
        yield running


def post(server: Running, path: str, body: object, **headers: str) -> httpx.Response:
    told = KEY | {name.replace("_", "-"): value for name, value in headers.items()}
    return CLIENT.post(f"{server.url}{path}", json=body, headers=told)


def test_every_ordered_route_answers_and_lengths_come_back(
    server: Running, feedback: Path, tmp_path: Path
) -> None:
    chat = {"model": "smol", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4}
    several = {"model": "smol", "prompt": ["a b", "c d"], "n": 2, "max_tokens": 3}
    response = {"model": "smol", "input": "Hi", "max_output_tokens": 4}
    for path, body, answers in (
        ("/v1/chat/completions", chat, 1),
        ("/v1/chat/completions", {**chat, "n": 3}, 3),
        ("/v1/completions", several, 4),
        ("/v1/messages", chat, 1),
        ("/invocations", chat, 1),
        ("/v1/responses", response, 1),
        ("/v1/responses", {**response, "stream": True}, 1),
    ):
        told = known(server) + answers
        assert post(server, path, body).status_code == 200
        wait_for(server, partial(_knows, server, told))
    assert server.metric("lengthpred_calls_total") == 7
    wait_for(server, lambda: list(feedback.glob("*.jsonl")) and _rows(feedback, tmp_path) >= 12)
    rows = Table(tmp_path / "t.parquet").rows()
    assert {"Hi", "a b", "c d"} <= {request.prompt for request in rows.requests}
    assert all(request.prompt_tokens for request in rows.requests)


def _knows(server: Running, number: float) -> bool:
    return known(server) == number


def _rows(feedback: Path, folder: Path) -> int:
    import_table(feedback, "served", folder / "t.parquet", force=True)
    return len(Table(folder / "t.parquet"))


def test_short_ones_come_first(server: Running, feedback: Path) -> None:
    """Of what waits for one of two slots the shortest is done first."""
    lengths = [60, 8, 44, 24, 4, 52, 16, 32, 12, 36]
    asks = [partial(answered, server, forced(length)) for length in lengths]
    assert answers_of(server, feedback, asks, KEY) == [sorted(lengths)]


def test_nobody_buys_a_place(server: Running, feedback: Path) -> None:
    """A client that gives itself the first place, by header or body, waits as the others do.

    Were it served first, its 40 tokens would end before the last of the honest ones, at 80.
    """
    body = forced(40, priority=-(2**40))
    cheat = partial(answered, server, body, x_vllm_priority="-9999999999")
    honest = [partial(answered, server, forced(20))] * 4
    assert answers_of(server, feedback, [cheat, *honest], KEY) == [[20, 20, 20, 20, 40]]


def answered(server: Running, body: object, **headers: str) -> None:
    assert post(server, "/v1/completions", body, **headers).status_code == 200


def test_strangers_and_unordered_routes(server: Running) -> None:
    before = server.metric("lengthpred_calls_total")
    body = {"model": "smol", "prompt": "x", "max_tokens": 1}
    assert httpx.post(f"{server.url}/v1/completions", json=body, timeout=60).status_code == 401
    refused = post(server, "/inference/v1/generate", {"token_ids": [1], "sampling_params": {}})
    assert refused.status_code == 400 and "--allow-unordered" in refused.text
    assert post(server, "/v1/nothing", {}).status_code == 400
    broken = httpx.post(f"{server.url}/v1/completions", content="{", headers=KEY, timeout=60)
    assert broken.status_code == 400
    places = [server.metric(f'lengthpred_calls_total{{place="{p}"}}') for p in ("unordered",)]
    assert places == [2] and server.metric("lengthpred_calls_total") == before + 3


def test_a_client_that_leaves_frees_its_slot(server: Running) -> None:
    body = forced(900, stream=True)
    with httpx.stream(
        "POST", f"{server.url}/v1/completions", json=body, headers=KEY, timeout=60
    ) as answer:
        lines = answer.iter_lines()  # which must be kept: without, the stream is closed
        next(lines)
        with paused(server, KEY):
            assert server.metric("vllm:num_requests_running") == 1
            assert server.metric("lengthpred_pending") == 1
    # vLLM counts what runs after a step, and an idle engine makes none.
    small = {"model": "smol", "prompt": "x", "max_tokens": 1}
    wait_for(
        server,
        lambda: (
            post(server, "/v1/completions", small).status_code == 200
            and server.metric("vllm:num_requests_running") == 0
        ),
    )
    wait_for(server, lambda: server.metric("lengthpred_pending") == 0)


def test_a_predictor_that_is_killed_holds_nothing_up(
    model: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A cascade has a process of its own: stopped, then killed, and back again."""
    artifact = build("cascade").save(tmp_path / "cascade")
    options = ["--deadline-ms", "5000"]  # that a busy machine keeps
    with running_server(artifact, model, tmp_path / "log", options) as server:
        body = {"model": "smol", "prompt": "list of x", "max_tokens": 2}
        predicted = 'lengthpred_calls_total{place="predicted"}'

        def ask() -> float:
            time.sleep(0.5)  # the process needs time to start
            assert post(server, "/v1/completions", body).status_code == 200
            return server.metric(predicted)

        wait_for(server, lambda: ask() > 0)
        child = process_of(server, b"lengthpred.serving.child")
        os.kill(child, signal.SIGSTOP)
        begun = time.monotonic()
        ask()
        assert time.monotonic() - begun < 60
        failed = [
            server.metric(f'lengthpred_calls_total{{place="{p}"}}') for p in ("late", "prior")
        ]
        assert sum(failed) > 0
        os.kill(child, signal.SIGKILL)
        before = server.metric(predicted)
        wait_for(server, lambda: ask() > before)
        assert server.metric("lengthpred_restarts_total") >= 1
