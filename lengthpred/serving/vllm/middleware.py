"""The middleware: reads a call, predicts, and sets the header that vLLM orders by.

    vllm serve MODEL --scheduling-policy priority --middleware \
        lengthpred.serving.vllm.middleware.LengthPriorityMiddleware

`lengthpred serve` starts vLLM so. Pure ASGI: what goes out is not touched, and what came in is
handed on byte for byte.
"""

import hashlib
import json
import re
import secrets
import time
import uuid
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any

from lengthpred.base import Request
from lengthpred.errors import DataError
from lengthpred.openai_body import requests_from_body
from lengthpred.serving.settings import MB, ServingSettings
from lengthpred.serving.vllm.process import service_of_process
from lengthpred.serving.vllm.routes import kind_of

__all__ = ["ARM_HEADER", "LengthPriorityMiddleware"]

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

PRIORITY_HEADER = b"x-vllm-priority"
ID_HEADER = b"x-request-id"
ARM_HEADER = b"x-lengthpred-arm"
GUARDED = ("/v1", "/v2", "/inference", "/cohere")  # where vLLM asks for its key
# Whose calls vLLM names itself, and in which part of the answer it says how.
SELF_NAMING = ("/v1/responses", "/invocations")
NAME, HEAD = re.compile(rb'"id"\s*:\s*"(resp_\w+)"'), 8192


class LengthPriorityMiddleware:
    """Gives every call that generates a priority; settings come from the environment.

    One that the client sent is dropped. Calls on routes that take no priority would run before all
    that waits: they are refused, unless `allow_unordered`. Whatever the predictor does, a call goes
    on. Raises SettingsError, ArtifactError and BackendError when it is made.
    """

    def __init__(self, app: App) -> None:
        self.app = app
        self.service = service_of_process()
        self.settings: ServingSettings = self.service.settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification, https://asgi.readthedocs.io."""
        if scope["type"] not in ("http", "websocket") or scope.get("method", "POST") != "POST":
            return await self.app(scope, receive, send)
        path = _path(scope)
        kind = kind_of(path)
        if kind == "other" or not self._let_in(path, scope["headers"]):
            return await self.app(scope, receive, send)  # vLLM itself refuses who is not let in
        if kind == "unordered":
            self.service.metrics.calls.labels("unordered").inc()
            if self.settings.allow_unordered:
                headers = _without_priority(scope)
                return await self.app({**scope, "headers": headers}, receive, send)
            return await _refuse(scope, receive, send, 400, UNORDERED.format(path))
        arrived = time.time()
        body = await _read(receive, self.settings.max_body_mb * MB)
        if body is None:
            return await _refuse(
                scope,
                receive,
                send,
                413,
                f"the body is larger than {self.settings.max_body_mb:g} MB",
            )
        raw, rest = body
        return await self._ordered(scope, raw, rest, send, arrived)

    async def _ordered(
        self, scope: Scope, raw: bytes, receive: Receive, send: Send, arrived: float
    ) -> None:
        id = _header(scope, ID_HEADER) or uuid.uuid4().hex
        asked = _requests(raw) if len(raw) <= self.settings.read_mb * MB else None
        if asked == BEAMS:
            self.service.metrics.calls.labels("unordered").inc()
            if not self.settings.allow_unordered:
                return await _refuse(scope, receive, send, 400, UNORDERED.format("beam search"))
        if asked:
            arm = _header(scope, ARM_HEADER) if self.settings.arms else ""
            key = (await self.service.place(asked, id, arrived, arm)).priority
        else:
            key = self.service.place_unread(arrived)
        headers = [*_without_priority(scope), (PRIORITY_HEADER, str(key).encode())]
        if not _header(scope, ID_HEADER):
            headers.append((ID_HEADER, id.encode()))
        if _path(scope) in SELF_NAMING:
            send = self._listening(send, id)
        await self.app({**scope, "headers": headers}, receive, send)

    def _listening(self, send: Send, id: str) -> Send:
        """Hands on what goes out as it is, and notes the name that vLLM gave the call in it."""
        head = b""

        async def hand_on(message: Message) -> None:
            nonlocal head
            if message["type"] == "http.response.body" and len(head) < HEAD:
                head += message.get("body", b"")[:HEAD]
                if named := NAME.search(head):
                    self.service.named(id, named[1].decode())
                    head = b"-" * HEAD
            await send(message)

        return hand_on

    def _let_in(self, path: str, headers: Sequence[tuple[bytes, bytes]]) -> bool:
        """Whether vLLM will take the call's key: nothing is predicted for strangers."""
        digests = self.settings.api_key_digests
        if not digests or not path.startswith(GUARDED):
            return True
        given = next((value for name, value in headers if name.lower() == b"authorization"), b"")
        scheme, _, key = given.partition(b" ")
        digest = hashlib.sha256(key).hexdigest()
        matches = [secrets.compare_digest(digest, one) for one in digests]
        return scheme.lower() == b"bearer" and any(matches)


UNORDERED = (
    "{} takes no priority, so it would run before all requests that wait; start the server with "
    "--allow-unordered to let it"
)
BEAMS: list[Request] = []


def _requests(raw: bytes) -> list[Request] | None:
    """The requests in a body; BEAMS for a beam search, which carries no priority, and None for what
    is no body of a call: vLLM will say what is wrong with it."""
    try:
        body = json.loads(raw)
        if isinstance(body, dict) and body.get("use_beam_search"):
            return BEAMS
        return requests_from_body(body)
    except (DataError, ValueError, RecursionError):
        return None


def _path(scope: Scope) -> str:
    """Without the root path, as Starlette finds a route by it."""
    path, root = str(scope["path"]), str(scope.get("root_path", ""))
    inner = path.removeprefix(root)
    return inner if root and path.startswith(root) and inner.startswith("/") else path


def _header(scope: Scope, name: bytes) -> str:
    found = next((value for key, value in scope["headers"] if key.lower() == name), b"")
    return bytes(found).decode("latin-1")


def _without_priority(scope: Scope) -> list[tuple[bytes, bytes]]:
    """The headers but for what the client says of its priority."""
    return [pair for pair in scope["headers"] if pair[0].lower() != PRIORITY_HEADER]


async def _read(receive: Receive, most: float) -> tuple[bytes, Receive] | None:
    """The whole body, and what gives it to the next reader; None when it is too large."""
    chunks: list[bytes] = []
    size, gone = 0, None
    while True:
        message = await receive()
        if message["type"] != "http.request":
            gone = message  # the client left, which the next reader learns in its turn
            break
        chunks.append(message.get("body", b""))
        size += len(chunks[-1])
        if size > most:
            return None
        if not message.get("more_body", False):
            break
    raw = b"".join(chunks)
    todo = [{"type": "http.request", "body": raw, "more_body": gone is not None}]

    async def replay() -> Message:
        if todo:
            return todo.pop()
        # What comes later, as a client that goes away, must still reach vLLM.
        return gone or await receive()

    return raw, replay


async def _refuse(scope: Scope, receive: Receive, send: Send, status: int, why: str) -> None:
    """An error in the form of OpenAI's."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008, "reason": why})
        return
    error = {"message": why, "type": "BadRequestError", "param": None, "code": status}
    body = json.dumps({"error": error}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        # Of a body that was not read to its end nothing more is wanted.
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
