"""The body of a call: read whole, within bounds, and what is asked in it."""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from lengthpred.base import Request
from lengthpred.openai_body import requests_from_body
from lengthpred.serving.order import MOST_ASKED
from lengthpred.serving.settings import MB
from lengthpred.serving.vllm.routes import as_read

__all__ = ["BEAMS", "BodyReader", "BodyRefused", "Message", "Receive", "asked_in", "replay"]

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]

AT_ONCE = 16  # bodies of the largest size: what all that are being read may hold together
BEAMS: list[Request] = []
# An ASCII letter that is escaped: nobody does so but to hide it.
ESCAPED = re.compile(rb"\\u00[567]")


class BodyRefused(Exception):
    """A body that is not read to its end: the status, and why."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


class BodyReader:
    """Reads bodies whole; none may be larger than `most_mb`.

    Slow ones hold nobody up, but what has come of them is held. Where that is AT_ONCE times
    `most_mb`, the largest gives way: a call of a usual size is never refused for another.
    """

    def __init__(self, most_mb: float) -> None:
        self._most_mb, self._most = most_mb, most_mb * MB
        self._held: dict[asyncio.Timeout, bytearray] = {}
        self._bytes = 0

    async def read(self, receive: Receive, announced: int = 0) -> bytes | None:
        """A body, None where the client left before its end. Raises BodyRefused."""
        if announced > self._most:
            raise self._too_large()
        held = bytearray()
        try:
            async with asyncio.timeout(None) as turn:
                self._held[turn] = held
                return await self._whole(receive, held, turn)
        except TimeoutError:
            raise _crowded() from None
        finally:
            self._let_go(held)
            del self._held[turn]

    async def _whole(
        self, receive: Receive, held: bytearray, turn: asyncio.Timeout
    ) -> bytes | None:
        while True:
            message = await receive()
            if message["type"] != "http.request":
                return None
            if turn.when() is not None:  # it gave way, and is not told yet
                raise _crowded()
            part, more = message.get("body", b""), message.get("more_body", False)
            if len(held) + len(part) > self._most:
                raise self._too_large()
            if not (more or held):
                return bytes(part)
            held += part
            self._bytes += len(part)
            if not more:
                return bytes(held)
            if self._bytes > AT_ONCE * self._most:
                self._make_room()

    def _make_room(self) -> None:
        largest = max(self._held, key=lambda turn: len(self._held[turn]))
        self._let_go(self._held[largest])
        largest.reschedule(asyncio.get_running_loop().time())

    def _let_go(self, held: bytearray) -> None:
        self._bytes -= len(held)
        held.clear()

    def _too_large(self) -> BodyRefused:
        return BodyRefused(413, f"the body is larger than {self._most_mb:g} MB")


def _crowded() -> BodyRefused:
    return BodyRefused(429, "too many large bodies are being sent at once: try again later")


def replay(raw: bytes, receive: Receive) -> Receive:
    """Gives a body that was read to its next reader."""
    todo: list[Message] = [{"type": "http.request", "body": raw, "more_body": False}]

    async def again() -> Message:
        # What comes later, as a client that goes away, must still reach vLLM.
        return todo.pop() if todo else await receive()

    return again


def asked_in(raw: bytes, path: str, read_mb: float) -> list[Request] | None:
    """The requests in a body as the route reads them; BEAMS for a beam search, which carries no
    priority.

    None for a body larger than `read_mb`, and for what is no body of a call: vLLM will say what is
    wrong with it.
    """
    large = len(raw) > read_mb * MB
    try:
        if large and not _may_be_beams(raw):
            return None
        body = json.loads(raw)
        if isinstance(body, dict) and body.get("use_beam_search"):
            return BEAMS
        return None if large else _requests(as_read(path, body))
    except Exception:  # whatever is in a body, the call goes on
        return None


def _may_be_beams(raw: bytes) -> bool:
    """Whether a large body may ask for beam search, which no size may hide: most say at once."""
    plain = json.detect_encoding(raw) in ("utf-8", "utf-8-sig")
    return not plain or b"use_beam_search" in raw or ESCAPED.search(raw) is not None


def _requests(body: dict[str, Any]) -> list[Request]:
    """All requests of a body. Of very many the first stand for the others, as a million prompts
    fit in a body, and a predictor is not asked about more of them anyway."""
    prompts = body.get("prompt")
    if not isinstance(prompts, list) or len(prompts) <= MOST_ASKED:
        return requests_from_body(body)
    if not any(isinstance(one, str | list) for one in prompts):
        return requests_from_body(body)  # one, of token ids
    found = requests_from_body({**body, "prompt": prompts[:MOST_ASKED]})
    return found + found[-1:] * (len(prompts) - len(found))
