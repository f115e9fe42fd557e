"""The middleware: reads a call, predicts, and sets the header that vLLM orders by.

    vllm serve MODEL --scheduling-policy priority --middleware \
        lengthpred.serving.vllm.middleware.LengthPriorityMiddleware

`lengthpred serve` starts vLLM so. Pure ASGI: what goes out is not touched, and what came in is
handed on byte for byte.
"""

import hashlib
import json
import secrets
import time
import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from lengthpred.serving.arms import STOCK
from lengthpred.serving.settings import ServingSettings
from lengthpred.serving.vllm.bodies import BEAMS, BodyReader, BodyRefused, Receive, asked_in, replay
from lengthpred.serving.vllm.process import service_of_process
from lengthpred.serving.vllm.routes import kind_of
from lengthpred.serving.vllm.watch import Send, Watch

__all__ = ["ARM_HEADER", "LengthPriorityMiddleware"]

Scope = MutableMapping[str, Any]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

PRIORITY_HEADER = b"x-vllm-priority"
ID_HEADER = b"x-request-id"
ARM_HEADER = b"x-lengthpred-arm"
GUARDED = ("/v1", "/v2", "/inference", "/cohere")  # where vLLM asks for its key
# Whose calls vLLM names itself, and says how in its answer.
SELF_NAMING = ("/v1/responses", "/invocations")
LAST = 2**62  # no key is larger


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
        self._bodies = BodyReader(self.settings.max_body_mb)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification, https://asgi.readthedocs.io."""
        if scope["type"] not in ("http", "websocket") or scope.get("method", "POST") != "POST":
            return await self.app(scope, receive, send)
        path = _path(scope)
        kind = kind_of(path)
        if scope["type"] == "websocket" and kind == "ordered":
            kind = "other"  # there is none: vLLM says so
        if kind == "other":
            return await self.app(scope, receive, send)
        if not self._let_in(path, scope):
            # vLLM itself refuses who is not let in. Should it not, they come last.
            return await self.app({**scope, "headers": _with_key(scope, LAST)}, receive, send)
        arm = _header(scope, ARM_HEADER) if self.settings.arms else ""
        if arm == STOCK:
            return await self.app(scope, receive, send)
        if kind == "unordered":
            self.service.metrics.calls.labels("unordered").inc()
            if self.settings.allow_unordered:
                headers = _without(scope, PRIORITY_HEADER)
                return await self.app({**scope, "headers": headers}, receive, send)
            return await _refuse(scope, receive, send, 400, UNORDERED.format(path))
        arrived = time.time()
        try:
            raw = await self._bodies.read(receive, _announced(scope))
        except BodyRefused as refused:
            return await _refuse(scope, receive, send, refused.status, str(refused))
        if raw is not None:  # else the client left before there was anything to do
            await self._ordered(scope, raw, replay(raw, receive), send, arrived, arm)

    async def _ordered(
        self, scope: Scope, raw: bytes, receive: Receive, send: Send, arrived: float, arm: str
    ) -> None:
        path, given = _path(scope), _header(scope, ID_HEADER)
        id = given or uuid.uuid4().hex
        asked = asked_in(raw, path, self.settings.read_mb)
        if asked == BEAMS:
            self.service.metrics.calls.labels("unordered").inc()
            if not self.settings.allow_unordered:
                return await _refuse(scope, receive, send, 400, UNORDERED.format("beam search"))
        if asked:
            key = (await self.service.place(asked, id, arrived, arm)).priority
        else:
            key = self.service.place_unread(arrived, counted=asked == BEAMS)
        headers = _with_key(scope, key)
        if not given:
            headers = [pair for pair in headers if pair[0].lower() != ID_HEADER]
            headers.append((ID_HEADER, id.encode()))
        watch = Watch(self.service, id, receive, send, path in SELF_NAMING)
        try:
            await self.app({**scope, "headers": headers}, watch.receive, watch.send)
        except BaseException:
            watch.forget()
            raise

    def _let_in(self, path: str, scope: Scope) -> bool:
        """Whether vLLM will take the call's key: nothing is predicted for strangers."""
        digests = self.settings.api_key_digests
        if not digests or not path.startswith(GUARDED):
            return True
        scheme, _, key = _header(scope, b"authorization").partition(" ")
        digest = hashlib.sha256(key.encode()).hexdigest()
        matches = [secrets.compare_digest(digest, one) for one in digests]
        return scheme.lower() == "bearer" and any(matches)


UNORDERED = (
    "{} takes no priority, so it would run before all requests that wait; start the server with "
    "--allow-unordered to let it"
)


def _path(scope: Scope) -> str:
    """Without the root path, as Starlette finds a route by it."""
    path, root = str(scope["path"]), str(scope.get("root_path", ""))
    inner = path.removeprefix(root)
    return inner if root and path.startswith(root) and inner.startswith("/") else path


def _header(scope: Scope, name: bytes) -> str:
    found = next((value for key, value in scope["headers"] if key.lower() == name), b"")
    return bytes(found).decode("latin-1")


def _without(scope: Scope, name: bytes) -> list[tuple[bytes, bytes]]:
    return [pair for pair in scope["headers"] if pair[0].lower() != name]


def _with_key(scope: Scope, key: int) -> list[tuple[bytes, bytes]]:
    """The headers with a key in place of any that the client sent."""
    return [*_without(scope, PRIORITY_HEADER), (PRIORITY_HEADER, str(key).encode())]


def _announced(scope: Scope) -> int:
    """The size of the body, where the client says it; 0 elsewhere."""
    said = _header(scope, b"content-length")[:18]
    return int(said) if said.isascii() and said.isdigit() else 0


async def _refuse(scope: Scope, receive: Receive, send: Send, status: int, why: str) -> None:
    """An error in the form of OpenAI's."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008, "reason": why})
        return
    kind = "RateLimitError" if status == 429 else "BadRequestError"
    error = {"message": why, "type": kind, "param": None, "code": status}
    body = json.dumps({"error": error}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
    ]
    if status in (413, 429):
        headers.append((b"connection", b"close"))  # nothing more of so large a body is wanted
    if status == 429:
        headers.append((b"retry-after", b"1"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
