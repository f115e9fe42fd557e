"""Asking chat servers, good and bad ones."""

import asyncio
import math
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from typing import Any

import numpy as np
import pytest

from lengthpred import Request
from lengthpred.errors import BackendError, MissingExtraError, SettingsError
from lengthpred.models.backends import chat_servers
from lengthpred.models.backends.base import Source, TextBackend, open_backend
from lengthpred.models.backends.openai import OpenAIBackend, length_of, text_of
from tests.models.backends.server import Body, ChatServer, Fault, Written, lengths_of
from tests.smollm2 import smollm2_backend

NO_CERTIFICATES = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
SLACK_S = 2.0  # for machines that do other things, too; on an idle one it is 0.02


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """No keys but a test's own, and no long waits."""
    monkeypatch.delenv("LENGTHPRED_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setattr(chat_servers, "BACKOFF_S", 0.01)
    # A client reads the world's certificates, which takes longer than most tests.
    monkeypatch.setattr(ssl, "create_default_context", lambda **_: NO_CERTIFICATES)


@contextmanager
def asking(
    *servers: ChatServer | str, batch: int = 8, model: str = "small"
) -> Iterator[OpenAIBackend]:
    urls = tuple(server if isinstance(server, str) else server.url for server in servers)
    backend = open_backend(Source("openai", model=model, url=urls, batch=batch))
    assert isinstance(backend, OpenAIBackend)
    try:
        yield backend
    finally:
        backend.close()


def requests_of(*lengths: int) -> list[Request]:
    """Whose answers, by `echo`, are that long."""
    return [Request(prompt="x" * length) for length in lengths]


def ask(
    backend: OpenAIBackend,
    *lengths: int,
    n: int = 1,
    cap: int = 100,
    deadline_s: float | None = None,
) -> tuple[list[Any], list[Any]]:
    found, censored = backend.generate_lengths(
        requests_of(*lengths), n, 1.0, cap, deadline_s, seed=7
    )
    assert found.dtype == np.int64 and censored.dtype == bool
    assert found.shape == censored.shape == (len(lengths), n)
    return found.tolist(), censored.tolist()


def dead_url() -> str:
    """Where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return f"http://127.0.0.1:{free.getsockname()[1]}/v1"


def test_lengths_are_the_servers_and_in_the_order_asked() -> None:
    def answer(body: Body) -> Written:
        time.sleep(0.001 * (40 - len(body["messages"][-1]["content"])))  # the last comes first
        return Written("", len(body["messages"][-1]["content"]) + body["seed"])

    with ChatServer(answer) as server, asking(server) as backend:
        lengths, censored = ask(backend, *range(1, 40), n=2)
    assert lengths == [[i + 7, i + 8] for i in range(1, 40)]
    assert not np.any(censored)


def test_what_is_posted() -> None:
    request = Request(prompt="And 3?", context="user: 2?\nassistant: 4", max_tokens=3)
    with ChatServer() as server, asking(server) as backend:
        backend.generate_lengths([request], 2, 0.5, 64, None, seed=11)
    assert sorted(body["seed"] for body in server.bodies) == [11, 12]
    body = server.bodies[0]
    assert (body["model"], body["n"], body["temperature"], body["max_tokens"]) == (
        "small",
        1,
        0.5,
        64,
    )
    assert [message["role"] for message in body["messages"]] == ["user", "assistant", "user"]
    assert "authorization" not in server.headers[0]


def test_the_cap_censors() -> None:
    with ChatServer() as server, asking(server) as backend:
        assert ask(backend, 9, 10, 11, cap=10) == ([[9], [10], [10]], [[False], [True], [True]])


def test_an_answer_beyond_the_cap_is_censored_there() -> None:
    with ChatServer(lambda _: Written("", 50)) as server, asking(server) as backend:
        assert ask(backend, 5, cap=10) == ([[10]], [[True]])


def test_other_servers_counts_are_kept() -> None:
    with ChatServer(vllm=False) as server, asking(server) as backend:
        assert ask(backend, 5) == ([[5]], [[False]])


def choice(finish: str | None, **more: Any) -> Body:
    return {"choices": [{"finish_reason": finish, **more}], "usage": {"completion_tokens": 9}}


def test_what_ended_an_answer() -> None:
    assert length_of(choice("stop")) == (9, False)
    assert length_of(choice("stop", stop_reason=None)) == (8, False)
    assert length_of(choice("stop", stop_reason=32007)) == (8, False)
    assert length_of(choice("stop", stop_reason="END")) == (9, False)
    assert length_of(choice("length", stop_reason=None)) == (9, True)
    assert length_of(choice("content_filter")) == length_of(choice(None)) == (9, True)


def test_texts() -> None:
    with ChatServer() as server, asking(server) as backend:
        assert isinstance(backend, TextBackend)
        asked = [Request(prompt="one"), Request(prompt=""), Request(prompt="three \ud800")]
        texts = backend.generate_texts(asked, 2, 0.0, 4, None, seed=0)
    assert texts[:2] == [["one"] * 2, [""] * 2]
    assert len(texts[2]) == 2


def test_reasoning_comes_first() -> None:
    def text(**message: Any) -> str:
        return text_of({"choices": [{"message": message}]})

    assert text(reasoning_content="Hm. ", content="4") == text(reasoning="Hm. ", content="4")
    assert text(reasoning_content="Hm. ", content="4") == "Hm. 4"
    assert text(content=None) == ""


def test_nothing_to_ask() -> None:
    with asking(dead_url()) as backend:
        lengths, censored = ask(backend)
        assert ask(backend, 0, n=2) == ([[0, 0]], [[True, True]])
        blank = backend.generate_lengths([Request(prompt=" \n")], 1, 1.0, 9, None, 0)
    assert lengths == censored == [] and blank[1].all()


@pytest.mark.parametrize("fault", ["busy", "error", "close", "half", "garbage"])
def test_what_may_pass_is_tried_again(fault: Fault) -> None:
    server = ChatServer(faults={0: fault, 2: fault}, retry_after="0")
    with server, asking(server) as backend:
        assert ask(backend, *range(1, 9))[0] == [[i] for i in range(1, 9)]
    assert len(server.bodies) == 10


def test_a_hanging_answer_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_servers, "ANSWER_S", 0.3)
    with ChatServer(faults={0: "hang", 1: "drip"}) as server, asking(server) as backend:
        assert ask(backend, 3, 4)[0] == [[3], [4]]


@pytest.mark.parametrize("date", [False, True])
def test_retry_after_is_honoured(date: bool) -> None:
    when = formatdate(time.time() + 1.5, usegmt=True) if date else "0.4"
    with ChatServer(faults={0: "busy"}, retry_after=when) as server, asking(server) as backend:
        start = time.monotonic()
        assert ask(backend, 3)[0] == [[3]]
        assert time.monotonic() - start > 0.35


@pytest.mark.parametrize(
    ("text", "wait"), [("", 0), ("soon", 0), ("-3", 0), ("2.5", 2.5), ("9e9", 0), ("99999", 60)]
)
def test_retry_after_in_all_its_forms(text: str, wait: float) -> None:
    assert chat_servers.retry_after(text) == wait


def test_a_refused_request_does_not_stop_the_others() -> None:
    with ChatServer(faults={1: "refuse"}) as server, asking(server, batch=1) as backend:
        assert ask(backend, 3, 4, 5) == ([[3], [0], [5]], [[False], [True], [False]])
    assert len(server.bodies) == 3


def test_a_request_that_breaks_a_server_is_left_out() -> None:
    def answer(body: Body) -> Written:
        if len(body["messages"][-1]["content"]) == 4:
            raise ValueError
        time.sleep(0.02)
        return Written("", 1)

    with ChatServer(answer) as server, asking(server, batch=2) as backend:
        lengths, censored = ask(backend, *[4] + [1] * 30)
    assert lengths == [[0]] + [[1]] * 30 and censored == [[True]] + [[False]] * 30


@pytest.mark.parametrize("fault", ["busy", "error", "close", "half", "garbage"])
def test_a_server_that_only_fails_is_named(fault: Fault) -> None:
    broken = ChatServer(always=fault, retry_after="0", lists=False)
    with broken as server, asking(server) as backend:
        with pytest.raises(BackendError, match=f"no server answers after 5 tries: {server.url}: "):
            ask(backend, 3, 4)


@pytest.mark.parametrize("fault", ["error", "unavailable", "close", "half", "garbage", "hang"])
def test_a_request_that_always_fails_is_left_out_whatever_else_is_asked(
    fault: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chat_servers, "ANSWER_S", 0.1)
    fine, poison = Request(prompt="fine"), Request(prompt="poison")
    with ChatServer(poison=fault) as server, asking(server) as backend:
        for asked in ([fine, poison], [poison, fine], [poison]):
            lengths, censored = backend.generate_lengths(asked, 1, 1.0, 9, None, 0)
            assert lengths.tolist() == [[4 if request is fine else 0] for request in asked]
            assert censored.tolist() == [[request is poison] for request in asked]


@pytest.mark.parametrize("fault", ["error", "close"])
def test_a_deadline_does_not_make_a_bad_request_an_error(
    fault: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chat_servers, "BACKOFF_S", 0.6)
    with ChatServer(poison=fault) as server, asking(server) as backend:
        start = time.monotonic()
        asked = [Request(prompt="poison")]
        lengths, censored = backend.generate_lengths(asked, 1, 1.0, 9, 0.5, 0)
        assert time.monotonic() - start < 0.5 + SLACK_S
    assert lengths.tolist() == [[0]] and censored.all()


def test_many_bad_requests_are_no_proof_that_a_server_is_broken() -> None:
    asked = [Request(prompt=f"poison {i}") for i in range(3 * chat_servers.MANY)]
    with ChatServer(poison="unavailable") as server, asking(server) as backend:
        assert not backend.generate_lengths(asked, 1, 1.0, 9, None, 0)[0].any()


@pytest.mark.parametrize("fault", ["error", "close"])
def test_a_server_that_only_tells_its_models_is_broken(fault: Fault) -> None:
    with ChatServer(always=fault) as server, asking(server) as backend:
        assert ask(backend, 3) == ([[0]], [[True]])
        with pytest.raises(BackendError, match="no server answers"):
            ask(backend, *range(1, 3 * chat_servers.MANY))


def test_a_server_that_is_not_there_is_named() -> None:
    with asking(url := dead_url()) as backend:
        with pytest.raises(BackendError, match=f"{url}: .*failed"):
            ask(backend, 3)
        with pytest.raises(BackendError, match=f"{url}: .*failed"):
            backend.checksum()


@pytest.mark.parametrize(("fault", "words"), [("no usage", "'usage'"), ("no choices", "'choices'")])
def test_answers_that_cannot_be_used(fault: Fault, words: str) -> None:
    with ChatServer(always=fault) as server, asking(server) as backend:
        with pytest.raises(BackendError, match=words):
            ask(backend, 3)
    assert len(server.bodies) == 1


def test_texts_need_no_usage() -> None:
    with ChatServer(always="no usage") as server, asking(server) as backend:
        assert backend.generate_texts(requests_of(3), 1, 0.0, 9, None, 0) == [["xxx"]]


def test_a_model_that_is_not_served() -> None:
    with ChatServer(models=("a", "b")) as server, asking(server) as backend:
        with pytest.raises(BackendError, match="its models: a, b"):
            ask(backend, 3)
        with pytest.raises(BackendError, match=r"no server has the model 'small'.* lists a, b"):
            backend.checksum()
    assert len(server.bodies) == 1


def test_a_url_that_is_none() -> None:
    with ChatServer() as server, asking(server.url.removesuffix("/v1")) as backend:
        with pytest.raises(BackendError, match="end in /v1"):
            ask(backend, 3)
        with pytest.raises(BackendError, match="end in /v1"):
            backend.checksum()
    for url in ["localhost:80", "ftp://localhost/v1", "http://localhost:port/v1"]:
        with asking(url) as backend, pytest.raises(BackendError, match="is no URL"):
            ask(backend, 3)


def test_the_only_model_needs_no_name() -> None:
    with ChatServer(models=("lonely",)) as server, asking(server, model="") as backend:
        assert ask(backend, 3)[0] == ask(backend, 3)[0] == [[3]]
        assert backend.checksum() == ""
    assert server.bodies[0]["model"] == "lonely" and server.listed == 2
    with ChatServer(models=("a", "b")) as server, asking(server, model="") as backend:
        with pytest.raises(BackendError, match="which model"):
            ask(backend, 3)


def test_checksum_of_a_server_among_dead_ones() -> None:
    with ChatServer() as server, asking(dead_url(), server) as backend:
        assert backend.checksum() == ""


def test_the_key_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "other")
    monkeypatch.setenv("LENGTHPRED_API_KEY", "sk-secret\n")
    with ChatServer(key="sk-secret") as server, asking(server) as backend:
        assert ask(backend, 3)[0] == [[3]]
        assert backend.checksum() == ""
        assert "secret" not in f"{backend!r} {vars(backend)} {backend.source}"
    assert server.headers[0]["authorization"] == "Bearer sk-secret"


def test_the_key_of_openai_is_for_openai_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    with ChatServer() as server, asking(server) as backend:
        assert ask(backend, 3)[0] == [[3]]
    assert "authorization" not in server.headers[0]

    def key(url: str) -> str:
        return chat_servers.api_key(httpx.URL(url))

    httpx = pytest.importorskip("httpx")
    assert key("https://api.openai.com/v1") == key("https://API.openai.com:443/v1") == "sk-secret"
    for url in ("http://api.openai.com", "https://api.openai.com.evil.org", "https://openai.com"):
        assert key(url) == ""
    monkeypatch.setenv("LENGTHPRED_API_KEY", "mine")
    assert key("https://api.openai.com/v1") == key("http://localhost/v1") == "mine"


@pytest.mark.parametrize("url", ["http://me:pw-1@host/v1", "me:pw-1@host/v1", "//pw-1@host"])
def test_a_password_in_a_url_is_refused(url: str) -> None:
    with pytest.raises(SettingsError, match="must not hold a user or a password") as error:
        open_backend(Source("openai", model="small", url=("http://fine/v1", url)))
    assert "pw-1" not in str(error.value)
    with asking("http://host/v1/@cf/x"):
        pass


def test_a_wrong_key_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with ChatServer(key="sk-right") as server:
        for key in ("sk-wrong", "sk-wröng"):
            monkeypatch.setenv("LENGTHPRED_API_KEY", key)
            with asking(server) as backend, pytest.raises(BackendError, match="API") as error:
                ask(backend, 3)
            assert key not in str(error.value)
            with asking(server) as backend, pytest.raises(BackendError, match="API") as error:
                backend.checksum()
            assert key not in str(error.value)
    assert len(server.bodies) == 1


@pytest.mark.parametrize("fault", ["hang", "drip"])
def test_the_deadline_holds(fault: Fault) -> None:
    faults: dict[int, Fault] = {2: fault, 3: fault}
    with ChatServer(faults=faults) as server, asking(server, batch=1) as backend:
        ask(backend, 3)
        start = time.monotonic()
        lengths, censored = ask(backend, 3, 4, 5, deadline_s=1.0)
        assert time.monotonic() - start < 1.0 + SLACK_S
        assert (lengths, censored) == ([[3], [0], [0]], [[False], [True], [True]])
        # Nothing came, but only because it is slow.
        assert ask(backend, 3, deadline_s=0.1) == ([[0]], [[True]])


@pytest.mark.parametrize("fault", ["busy", "error", "close", "half", "garbage"])
def test_a_server_that_only_fails_has_a_deadline_too(
    fault: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chat_servers, "BACKOFF_S", 1.8)
    deadline_s = 1.5  # a busy machine may take half a second to fail once
    with ChatServer(always=fault, retry_after="9") as server, asking(server) as backend:
        backend.checksum()  # it is up
        server.lists = False
        start = time.monotonic()
        with pytest.raises(BackendError, match=f"before the deadline: {server.url}"):
            ask(backend, 3, 4, deadline_s=deadline_s)
        assert time.monotonic() - start < deadline_s + SLACK_S


def test_all_the_time_there_is() -> None:
    with ChatServer() as server, asking(server) as backend:
        assert ask(backend, 3, deadline_s=math.inf) == ([[3]], [[False]])


def test_no_time_at_all() -> None:
    with ChatServer() as server, asking(server) as backend:
        assert ask(backend, 3, deadline_s=0.0) == ([[0]], [[True]])


@contextmanager
def dying(server: ChatServer, after: int) -> Iterator[None]:
    """A server that dies at a request."""

    def kill() -> None:
        while len(server.bodies) < after:
            time.sleep(0.005)
        server.stop()

    killer = threading.Thread(target=kill)
    killer.start()
    yield
    killer.join()


def test_a_server_that_dies_in_mid_run() -> None:
    with ChatServer(delay_s=0.03) as server, asking(server, batch=2) as backend:
        with dying(server, after=10):
            start = time.monotonic()
            lengths, censored = ask(backend, *[3] * 200, deadline_s=5.0)
            assert time.monotonic() - start < 5.0 + SLACK_S
        came = sum(length == [3] for length in lengths)
        assert 0 < came < 12 and np.sum(censored) == 200 - came
        with pytest.raises(BackendError, match="no server answers"):
            ask(backend, 3, deadline_s=5.0)


def test_a_server_that_dies_without_a_deadline() -> None:
    with ChatServer(delay_s=0.03) as server, asking(server, batch=2) as backend:
        with dying(server, after=10):
            with pytest.raises(BackendError, match=f"no server answers.*{server.url}"):
                ask(backend, *[3] * 200)


def test_several_servers_share_the_work() -> None:
    with ChatServer(delay_s=0.02) as one, ChatServer(delay_s=0.02) as two:
        with asking(one, two, batch=4) as backend:
            assert ask(backend, *range(1, 41))[0] == [[i] for i in range(1, 41)]
    assert (one.peak, two.peak) == (2, 2)
    assert min(len(one.bodies), len(two.bodies)) >= 10


@pytest.mark.parametrize("fault", ["error", "close", "garbage"])
def test_a_bad_server_is_set_aside(fault: Fault, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_servers, "REST_S", 60.0)
    with ChatServer(always=fault) as bad, ChatServer(delay_s=0.01) as good:
        with asking(bad, dead_url(), good, batch=2) as backend:
            assert ask(backend, *[3] * 40)[0] == [[3]] * 40
    assert len(bad.bodies) <= 4 and len(good.bodies) == 40


def test_a_server_rests_longer_each_time_it_fails_again() -> None:
    server, rests = chat_servers.Server("http://here/v1"), []
    now = 100.0
    for _ in range(2000):
        for _ in range(64):  # requests that were under way together say it once
            server.failed(chat_servers.Failed("broken"), now)
        rests.append(server.rests_until - now)
        now = server.rests_until
    assert rests[:6] == [5, 10, 20, 40, 60, 60] and rests[-1] == 60


def test_a_server_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_servers, "REST_S", 0.05)
    faults: dict[int, Fault] = dict.fromkeys(range(3), "error")
    with ChatServer(faults=faults) as sick, ChatServer(delay_s=0.02) as good:
        with asking(sick, good, batch=1) as backend:
            ask(backend, *[3] * 40)
    assert len(sick.bodies) > 6


def test_many_threads() -> None:
    found: dict[int, list[Any]] = {}
    with ChatServer(delay_s=0.01) as server, asking(server, batch=5) as backend:

        def work(length: int) -> None:
            found[length] = ask(backend, *[length] * 10)[0]

        threads = [threading.Thread(target=work, args=(length,)) for length in range(1, 9)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == {length: [[length]] * 10 for length in range(1, 9)}
    assert server.peak == 5


def test_in_a_program_with_an_event_loop() -> None:
    async def main(backend: OpenAIBackend) -> list[list[Any]]:
        here = ask(backend, 3)[0]
        return [here, (await asyncio.to_thread(ask, backend, 4))[0]]

    with ChatServer() as server, asking(server) as backend:
        assert asyncio.run(main(backend)) == [[[3]], [[4]]]


def test_it_can_be_opened_again() -> None:
    with ChatServer() as server, asking(server) as backend:
        backend.close()
        for _ in range(2):
            assert ask(backend, 3)[0] == [[3]]
            backend.close()
    assert not any(thread.name == "lengthpred-openai" for thread in threading.enumerate())


def test_a_backend_that_is_forgotten_lets_go() -> None:
    with ChatServer() as server:
        backend = open_backend(Source("openai", model="small", url=(server.url,)))
        backend.generate_lengths(requests_of(3), 1, 1.0, 9, None, 0)
        del backend
        deadline = time.monotonic() + 5
        while any(thread.name == "lengthpred-openai" for thread in threading.enumerate()):
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_closing_ends_what_waits() -> None:
    with ChatServer(always="hang") as server, asking(server) as backend:
        threading.Timer(0.2, backend.close).start()
        with pytest.raises(BackendError, match="closed"):
            ask(backend, 3)


def test_without_httpx(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "httpx", None)
    with asking(dead_url()) as backend:
        with pytest.raises(MissingExtraError, match=r"lengthpred\[openai\]"):
            ask(backend, 3)


@pytest.mark.slow
def test_a_real_model_behind_a_server_counts_as_it_does_here() -> None:
    here = smollm2_backend()
    prompts = ("What is the capital of France?", "Say yes.", "", "Tell me a long story.", "2 + 2 =")
    asked = [Request(prompt=prompt) for prompt in prompts]
    with ChatServer(lengths_of(here)) as server, asking(server, batch=3) as backend:
        lengths, censored = backend.generate_lengths(asked, 1, 0.0, 24, None, 0)
    assert len(server.bodies) == 4
    expected = here.generate_lengths(asked, 1, 0.0, 24, None, 0)
    assert lengths.tolist() == expected[0].tolist()
    assert censored.tolist() == expected[1].tolist()
    assert 1 < censored.sum() < len(asked), "some are to end, and some not"
