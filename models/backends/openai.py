"""Any server that speaks OpenAI's chat protocol, a vLLM one first of all."""

import asyncio
import concurrent.futures
import re
import threading
import time
import weakref
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from lengthpred.base import IntArray, Request
from lengthpred.errors import BackendError, SettingsError
from lengthpred.models.backends.base import Source, seconds_left
from lengthpred.models.backends.chat import messages_of
from lengthpred.models.backends.chat_servers import AllDownError, ChatServers, Json, Watch

__all__ = ["OpenAIBackend"]

# By which a caller waits longer than the loop does: the loop's own end is the orderly one.
SLACK_S = 0.02
T = TypeVar("T")


class OpenAIBackend:
    """Asks for one chat completion per request and sample, spread over all servers.

    At most `source.batch` of them are under way at once, over all callers. An answer's length is
    the `completion_tokens` of its `usage`, reasoning included. vLLM counts the token that ended the
    answer, too, and shows by its `stop_reason` whether there was one: there it is taken off. What
    other servers count is kept as it is. What was ended by anything else than the model (`length`,
    a filter, an abort) is censored; so is, with 0, a request that the server refuses (HTTP 400,
    413, 422: a prompt that is too long), one that fails at every try while a server answers others
    or tells its models, and one without text, which is never sent.

    Connections that break, timeouts, HTTP 429 and 5xx and broken bodies are tried again. With a
    deadline, servers that fail raise BackendError only if they answered nothing at all.

    The API key is read from LENGTHPRED_API_KEY whenever a request is sent. Without one,
    OPENAI_API_KEY is, for https://api.openai.com only. Raises SettingsError for a URL that holds
    a user or a password.
    """

    def __init__(self, source: Source) -> None:
        if any(re.match(r"([^/?#]*//)?[^/?#]*@", url) for url in source.url):
            raise SettingsError(
                "the URL of a server must not hold a user or a password: set LENGTHPRED_API_KEY"
            )
        self.source = source
        self._lock = threading.Lock()
        self._servers: ChatServers | None = None
        self._shut: Callable[[], object] = bool  # nothing is open yet
        self._model = source.model
        self._batch = max(source.batch, 1)

    def generate_lengths(
        self,
        requests: Sequence[Request],
        n: int,
        temperature: float,
        cap: int,
        deadline_s: float | None,
        seed: int,
    ) -> tuple[IntArray, npt.NDArray[np.bool_]]:
        """See `lengthpred.models.backends.base.Backend`."""
        call = _Call(length_of, requests, n, temperature, cap, seed, deadline_s)
        lengths = np.zeros(len(requests) * n, np.int64)
        censored = np.ones(len(requests) * n, bool)
        for job, (length, stopped) in self._ask(call).items():
            lengths[job], censored[job] = min(length, cap), stopped or length > cap
        return lengths.reshape(len(requests), n), censored.reshape(len(requests), n)

    def generate_texts(
        self,
        requests: Sequence[Request],
        n: int,
        temperature: float,
        cap: int,
        deadline_s: float | None,
        seed: int,
    ) -> list[list[str]]:
        """See `lengthpred.models.backends.base.TextBackend`; reasoning, if any, comes first."""
        texts = self._ask(_Call(text_of, requests, n, temperature, cap, seed, deadline_s))
        return [[texts.get(row * n + i, "") for i in range(n)] for row in range(len(requests))]

    def checksum(self) -> str:
        """Always "": a server does not tell its weights.

        Raises BackendError when no server answers, or when none lists the model.
        """
        call = _Call(text_of)
        self._run(call, lambda servers: self._find_model(servers, call.watch))
        return ""

    def close(self) -> None:
        """Drop all connections. Who is waiting for an answer gets BackendError."""
        with self._lock:
            shut, self._servers = self._shut, None
        shut()

    def _ask(self, call: "_Call[T]") -> dict[int, T]:
        """The answers by job. Raises BackendError as `Backend`."""
        if not call.jobs:
            return {}
        try:
            self._run(call, lambda servers: self._answer(servers, call))
        except AllDownError:
            if call.end is None or not call.settled:
                raise
        watch = call.watch
        # Where most requests never failed, the servers are slow, which is no error; where one tells
        # its models, it is these requests that it fails at.
        silent = watch.failure and not call.settled and watch.failed >= watch.sent / 2
        if silent and not watch.alive:
            raise AllDownError(f"no server answered before the deadline: {watch.failure}")
        return dict(call.answers)

    def _run(
        self, call: "_Call[T]", work: Callable[[ChatServers], Coroutine[Any, Any, None]]
    ) -> None:
        """Let the servers' thread do it, and wait until it is done or time is up."""
        with self._lock:
            # The child of a fork has no such thread.
            if self._servers is None or not self._servers.thread.is_alive():
                self._servers = ChatServers(self.source.url, self._batch)
                self._shut = weakref.finalize(self, self._servers.close)
            future = self._servers.submit(work(self._servers))
        left = seconds_left(call.end, time.monotonic())
        try:
            # No thread can wait for ever and a deadline.
            future.result(None if left is None else min(left + SLACK_S, threading.TIMEOUT_MAX))
        except concurrent.futures.CancelledError:
            raise BackendError("the connections were closed while answers were due") from None
        except TimeoutError:
            pass  # the thread is busy otherwise; importing what it needs, for one
        finally:
            future.cancel()

    async def _answer(self, servers: ChatServers, call: "_Call[T]") -> None:
        """Fill `call.answers` until all are there or its time is up."""
        try:
            async with asyncio.timeout(seconds_left(call.end, time.monotonic())):
                if not self._model:
                    await self._find_model(servers, call.watch)
                jobs = iter(call.jobs)
                async with asyncio.TaskGroup() as group:
                    for _ in range(min(self._batch, len(call.jobs))):
                        group.create_task(self._work(servers, call, jobs))
        except TimeoutError:
            pass
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None

    async def _work(self, servers: ChatServers, call: "_Call[T]", jobs: Iterator[int]) -> None:
        for job in jobs:
            answer = await servers.complete(call.body(job, self._model), call.watch)
            if answer is not None:
                call.answers[job] = call.read(answer)
            call.settled += 1

    async def _find_model(self, servers: ChatServers, watch: Watch) -> None:
        """Look at what is listed; raises BackendError as `checksum`."""
        names, wanted = await servers.models(watch), self.source.model
        listed = f"{', '.join(map(str, servers.servers))} lists {', '.join(names) or 'none'}"
        if wanted and wanted not in names:
            raise BackendError(f"no server has the model '{wanted}': {listed}")
        if not wanted and len(names) != 1:
            raise BackendError(f"say which model is meant, as 'model': {listed}")
        self._model = wanted or names[0]


@dataclass
class _Call(Generic[T]):
    """One question of a caller's: job `row * n + i` is answer i to a request."""

    read: Callable[[Json], T]
    requests: Sequence[Request] = ()
    n: int = 0
    temperature: float = 0.0
    cap: int = 0
    seed: int = 0
    deadline_s: float | None = None
    answers: dict[int, T] = field(default_factory=dict)
    settled: int = 0  # jobs that are answered or refused
    watch: Watch = field(default_factory=Watch)

    def __post_init__(self) -> None:
        self.end = None if self.deadline_s is None else time.monotonic() + self.deadline_s
        rows = [row for row, request in enumerate(self.requests) if request.prompt.strip()]
        self.jobs = [row * self.n + i for row in rows for i in range(self.n)]

    def body(self, job: int, model: str) -> Json:
        """What is posted."""
        row, sample = divmod(job, self.n)
        return {
            "model": model,
            "messages": messages_of(self.requests[row]),
            "n": 1,
            "max_tokens": self.cap,
            "temperature": self.temperature,
            "seed": self.seed + sample,
        }


def length_of(answer: Json) -> tuple[int, bool]:
    """Its tokens, and whether something else than the model ended it; raises BackendError."""
    choice, usage = choice_of(answer), answer.get("usage")
    tokens = usage.get("completion_tokens") if isinstance(usage, dict) else None
    if not isinstance(tokens, int) or tokens < 0:
        raise BackendError(
            "the server does not say how long its answers are: a chat completion needs "
            "'usage' with 'completion_tokens'"
        )
    ended = choice.get("finish_reason") in ("stop", "tool_calls")
    # None stands for the end token, a number for another stop token, a text for a stop text.
    if ended and "stop_reason" in choice and not isinstance(choice["stop_reason"], str):
        tokens = max(tokens - 1, 0)
    return tokens, not ended


def text_of(answer: Json) -> str:
    """What was written, reasoning first; raises BackendError."""
    message = choice_of(answer).get("message")
    if not isinstance(message, dict):
        return ""
    parts = (message.get("reasoning_content") or message.get("reasoning"), message.get("content"))
    return "".join(part for part in parts if isinstance(part, str))


def choice_of(answer: Json) -> Json:
    """The only one; raises BackendError where there is none."""
    choices = answer.get("choices")
    if isinstance(choices, list) and choices and isinstance(choices[0], dict):
        return choices[0]
    raise BackendError("the server's answers have no 'choices': it is no chat server")
