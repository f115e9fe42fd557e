"""A chat server that really listens, counts as vLLM does, and fails when it is told to."""

import asyncio
import json
import socket
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Self

import uvicorn
from fastapi import FastAPI, Response
from fastapi import Request as HttpRequest
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, StreamingResponse

from lengthpred import Request
from lengthpred.models.backends.transformers import TransformersBackend

Body = dict[str, Any]
Fault = Literal[
    "busy",  # 429 with Retry-After
    "error",  # 500
    "unavailable",  # 503
    "refuse",  # 400
    "unauthorized",
    "hang",
    "drip",  # a byte now and then, for ever
    "close",  # before the answer
    "half",  # less than Content-Length says
    "garbage",  # 200, but no JSON
    "no usage",
    "no choices",
]


@dataclass(frozen=True)
class Written:
    """An answer: its tokens without the end token, and whether it came to its end."""

    text: str
    tokens: int
    finish_reason: str = "stop"


def echo(body: Body) -> Written:
    """As many tokens as the last message has characters, cut by max_tokens."""
    text = body["messages"][-1]["content"]
    cut = len(text) >= body["max_tokens"]
    return Written(
        text[: body["max_tokens"]], min(len(text), body["max_tokens"]), "length" if cut else "stop"
    )


def lengths_of(backend: TransformersBackend) -> Callable[[Body], Written]:
    """Answers as long as a language model's own to the last message; their text is left out."""

    def answer(body: Body) -> Written:
        lengths, censored = backend.generate_lengths(
            [Request(prompt=body["messages"][-1]["content"])],
            n=1,
            temperature=body["temperature"],
            cap=body["max_tokens"],
            deadline_s=None,
            seed=body["seed"],
        )
        return Written("", int(lengths[0, 0]), "length" if censored[0, 0] else "stop")

    return answer


class ChatServer:
    """Serves `models` on a free port while it is entered.

    faults maps the number of a chat completion, in order of arrival, to how it fails; `always`
    is how all others do, `poison` how those do whose last message holds that word. lists says
    whether it tells its models. What came is in `bodies` and `headers`, `peak` is the most at once.
    vllm says whether to count the end token and to show `stop_reason`, as vLLM does.
    """

    def __init__(
        self,
        answer: Callable[[Body], Written] = echo,
        models: tuple[str, ...] = ("small",),
        faults: Mapping[int, Fault] | None = None,
        always: Fault | None = None,
        delay_s: float = 0.0,
        retry_after: str = "1",
        vllm: bool = True,
        key: str = "",
        poison: Fault | None = None,
        lists: bool = True,
    ) -> None:
        self.answer, self.models, self.faults = answer, models, faults or {}
        self.always, self.delay_s, self.retry_after = always, delay_s, retry_after
        self.vllm, self.key = vllm, key
        self.poison, self.lists = poison, lists
        self.bodies: list[Body] = []
        self.headers: list[dict[str, str]] = []
        self.listed = self.in_flight = self.peak = 0
        app = FastAPI()
        app.add_api_route("/v1/models", self._models)
        app.add_api_route("/v1/chat/completions", self._complete, methods=["POST"])
        self._app = app
        # With the protocol named, asyncio sends at once: else, each answer takes 40 ms.
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.listen()
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}/v1"
        config = uvicorn.Config(
            self._asgi, interface="asgi3", proxy_headers=False, lifespan="off", log_level="critical"
        )
        self._server = uvicorn.Server(config)
        self._loop = asyncio.new_event_loop()
        self._dead = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Die: connections break, whatever they were doing."""
        self._server.should_exit = self._server.force_exit = True
        if not self._dead.is_set():
            self._loop.call_soon_threadsafe(self._die)
            self._dead.wait()  # the thread ends by itself: to wait for it takes 0.2 s

    def _die(self) -> None:
        for listening in getattr(self._server, "servers", ()):  # there are none before it started
            listening.close()
        self._socket.close()
        for connection in list(self._server.server_state.connections):
            connection.transport.abort()
        self._dead.set()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._server.serve(sockets=[self._socket]))

    async def _asgi(self, scope: Body, receive: Any, send: Any) -> None:
        # A handler has no other way to end a connection without an answer.
        scope["state"] = {"transport": receive.__self__.transport}
        await self._app(scope, receive, send)

    async def _models(self, request: HttpRequest) -> Response:
        self.listed += 1
        if not self.lists:
            return error(503, "no engine")
        if self.key and request.headers.get("authorization") != f"Bearer {self.key}":
            return error(401, f"wrong key: {request.headers.get('authorization')}")
        return JSONResponse({"object": "list", "data": [{"id": name} for name in self.models]})

    async def _complete(self, request: HttpRequest) -> Response:
        body = await request.json()
        number = len(self.bodies)
        self.bodies.append(body)
        self.headers.append(dict(request.headers))
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)
        try:
            await asyncio.sleep(self.delay_s)
            fault = self.faults.get(number, self.always)
            if self.poison and "poison" in body["messages"][-1]["content"]:
                fault = self.poison
            if self.key and request.headers.get("authorization") != f"Bearer {self.key}":
                fault = "unauthorized"
            if body["model"] not in self.models:
                return error(404, f"The model `{body['model']}` does not exist.")
            answer = self._as_json(body, await run_in_threadpool(self.answer, body))
            return (
                JSONResponse(answer) if fault is None else await self._fail(fault, request, answer)
            )
        finally:
            self.in_flight -= 1

    def _as_json(self, body: Body, written: Written) -> Body:
        ended = written.finish_reason == "stop"
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": written.text},
            "finish_reason": written.finish_reason,
        }
        return {
            "object": "chat.completion",
            "model": body["model"],
            "choices": [choice | ({"stop_reason": None} if self.vllm else {})],
            "usage": {"completion_tokens": written.tokens + (ended and self.vllm)},
        }

    async def _fail(self, fault: Fault, request: HttpRequest, answer: Body) -> Response:
        if fault == "hang":
            await asyncio.sleep(3600)
        if fault == "close":
            request.state.transport.abort()
        if fault == "busy":
            return error(429, "too many requests", {"Retry-After": self.retry_after})
        if fault == "refuse":
            return error(400, "maximum context length exceeded")
        if fault == "unauthorized":
            return error(401, f"wrong key: {request.headers.get('authorization')}")
        if fault == "drip":
            return StreamingResponse(drip(), media_type="application/json")
        if fault == "half":
            text = json.dumps(answer)
            return StreamingResponse(
                iter([text[: len(text) // 2]]), headers={"Content-Length": str(len(text))}
            )
        if fault == "garbage":
            return Response("<html>Bad day</html>", media_type="application/json")
        if fault in ("no usage", "no choices"):
            return JSONResponse({k: v for k, v in answer.items() if k != fault.split()[1]})
        if fault == "unavailable":
            return error(503, "try again later")
        return error(500, "out of memory")


async def drip() -> AsyncIterator[bytes]:
    """White space, which JSON may begin with, for ever."""
    while True:
        yield b" "
        await asyncio.sleep(0.02)


def error(status: int, message: str, headers: Mapping[str, str] | None = None) -> Response:
    """As vLLM says it."""
    return JSONResponse({"error": {"message": message, "code": status}}, status, headers)
