"""Requests whose length is not known yet, by id; how many and for how long is bounded."""

import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from sys import getsizeof
from typing import Any

from lengthpred.serving.order import Place

__all__ = ["Pending", "Waiting", "calls_of"]

# As vLLM names what it runs for one call: a prefix by route, a number for each prompt.
NAMED = re.compile(r"(?:chatcmpl|cmpl)-(?P<id>.*)", re.DOTALL)
ROW = 400  # bytes of a request beside its texts, about
SAMPLING = 64_000  # bytes of what else a call says, as tools; where it is more, it is let go
NUMBERED = re.compile(r"(?P<id>.*)[-_](?P<row>\d{1,6})", re.DOTALL)


def calls_of(external_id: str) -> list[tuple[str, int]]:
    """The calls that an answer of this name may belong to, and which of its requests it then is.

    >>> calls_of("cmpl-abc-1")
    [('abc-1', 0), ('abc', 1)]
    """
    named = NAMED.fullmatch(external_id)
    whole = named["id"] if named else external_id
    numbered = NUMBERED.fullmatch(whole)
    return [(whole, 0)] + ([(numbered["id"], int(numbered["row"]))] if numbered else [])


@dataclass
class Waiting:
    """A call that runs. left: how many answers are still to come. size: in bytes, about."""

    place: Place
    since: float
    left: int
    size: int


class Pending:
    """A bounded table; thread-safe. What was aborted is never told, and ages out.

    most, most_bytes, seconds: calls, what they hold and how long they are remembered, at most.
    """

    def __init__(
        self,
        most: int,
        seconds: float,
        most_bytes: float = float("inf"),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._most, self._seconds, self._clock = most, seconds, clock
        self._most_bytes, self._bytes = most_bytes, 0
        self._lock, self._calls = threading.Lock(), OrderedDict[str, Waiting]()

    def __len__(self) -> int:
        return len(self._calls)

    def put(self, id: str, place: Place, answers: int) -> int:
        """Remember a call that `answers` answers come to; returns how many were forgotten for it.

        Of two calls of one id the newer one counts.
        """
        now, forgotten = self._clock(), 0
        with self._lock:
            self._take(id)
            place = _light(place)
            self._calls[id] = Waiting(place, now, answers, _size(place) + getsizeof(id))
            self._bytes += self._calls[id].size
            while self._calls:
                oldest = next(iter(self._calls))
                aged = now - self._calls[oldest].since > self._seconds
                full = len(self._calls) > self._most or self._bytes > self._most_bytes
                if not (aged or full):
                    break
                self._take(oldest)
                forgotten += 1
        return forgotten

    def finished(self, external_id: str) -> tuple[Place, int] | None:
        """The call of an answer, and which of its requests that was; None for what is not known.

        external_id: as vLLM's statistics name it: chatcmpl-ID, cmpl-ID-0, chatcmpl-ID_1.
        """
        with self._lock:
            known = [one for one in calls_of(external_id) if one[0] in self._calls]
            if not known:
                return None
            found, row = known[0]
            call = self._calls[found]
            call.left -= 1
            if call.left <= 0:
                self._take(found)
        return (call.place, row) if row < len(call.place.requests) else None

    def rename(self, id: str, name: str) -> None:
        """The server calls this call otherwise."""
        with self._lock:
            if id in self._calls:
                self._take(name)
                self._calls[name] = self._calls.pop(id)

    def forget(self, id: str) -> None:
        """A call that will have no answer."""
        with self._lock:
            self._take(id)

    def _take(self, id: str) -> None:
        call = self._calls.pop(id, None)
        self._bytes -= call.size if call else 0


def _light(place: Place) -> Place:
    """Without what a call says beside its prompts where that is much: nobody asks for it again.

    The requests of one call all say the same.
    """
    if place.requests and _held(place.requests[0].sampling) > SAMPLING:
        return replace(place, requests=[replace(r, sampling={}) for r in place.requests])
    return place


def _size(place: Place) -> int:
    texts = sum(
        getsizeof(r.prompt) + getsizeof(r.context) + getsizeof(r.reply_tokens) + getsizeof(r.model)
        for r in place.requests
    )
    said = sum(_held(r.sampling) for r in place.requests[:1])
    return texts + said + int(place.dist.pmf.nbytes) + ROW * len(place.requests)


def _held(value: object) -> int:
    """Bytes of what was JSON; it stops counting where that is much."""
    todo: list[Any] = [value]
    size = 0
    while todo and size <= SAMPLING:
        one = todo.pop()
        size += getsizeof(one)
        if isinstance(one, dict):
            todo += [*one, *one.values()]
        elif isinstance(one, list):
            todo += one
    return size
