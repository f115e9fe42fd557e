"""Posting to one or more chat servers: connections, retries, and who gets the next request."""

import asyncio
import concurrent.futures
import json
import os
import re
import threading
import time
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

import numpy as np

from lengthpred.errors import BackendError, require

__all__ = ["AllDownError", "ChatServers", "Json", "Watch"]

TRIES = 5  # of one request, besides one at each further server
BACKOFF_S = 0.25  # before the second try; doubles with every further one, give or take a half
REST_S = 5.0  # for which a server that failed twice running is left alone; doubles, too
LONGEST_WAIT_S = 60.0
CONNECT_S = 5.0
ANSWER_S = 600.0  # for one answer
OPENAI = "api.openai.com"
LIST_S = 10.0  # for the list of models
# Servers (uvicorn) drop a connection that was idle for 5 s: a request must not meet that.
IDLE_S = 4.0
# So many different requests that no server masters, and none answered between: none is to blame.
MANY = 8
Json = dict[str, Any]


class AllDownError(BackendError):
    """No server works, after all tries."""


class Failed(Exception):
    """A try that may go better later.

    busy: only because the server has too much to do; broken: it answered, but with an error;
    wait_s: it is to be left alone so long.
    """

    def __init__(self, why: str, busy: bool = False, broken: bool = False, wait_s: float = 0):
        super().__init__(why)
        self.busy, self.broken, self.wait_s = busy, broken, wait_s


class Refused(Exception):
    """A request that is refused however often it is sent."""


@dataclass
class Watch:
    """What a caller may know while it waits, from any thread."""

    sent: int = 0  # requests
    failed: int = 0  # of them, those that a server failed at
    failure: str = ""  # the last one
    probed: bool = False  # whether a server was asked for its models when a request failed
    alive: bool = False  # and whether one told them


@dataclass(eq=False)
class Server:
    """One base URL and how it has been doing."""

    url: str
    in_flight: int = 0
    failures: int = 0  # since it last answered
    rests_until: float = 0.0
    blocked_until: float = 0.0  # as it asked by Retry-After

    def __str__(self) -> str:
        return re.sub(r"//[^/@]*@", "//", self.url)  # a password may stand there

    def rests(self, now: float) -> bool:
        """Whether to leave it alone. After its rest, one request finds out how it is."""
        return now < self.rests_until or (self.failures > 1 and self.in_flight > 0)

    def failed(self, failure: Failed, now: float) -> None:
        """Take note of a failure."""
        self.blocked_until = max(self.blocked_until, now + failure.wait_s)
        # What was under way when it began its rest fails, too, and says no more.
        if not failure.busy and now >= self.rests_until:
            self.failures += 1
            rest = REST_S * 2.0 ** min(self.failures - 2, 9) if self.failures > 1 else 0.0
            self.rests_until = now + min(rest, LONGEST_WAIT_S)


class ChatServers:
    """Servers of one model, and a thread whose event loop talks to them.

    The loop is their own so that any thread can ask, one that runs another event loop as well.
    Coroutines of this class run there only.
    """

    def __init__(self, urls: Sequence[str], batch: int) -> None:
        self.servers = [Server(url.rstrip("/")) for url in urls]
        self.slots = asyncio.Semaphore(batch)
        self.answered = 0
        self.given_up: set[str] = set()  # conversations, since the last answer
        # Many processes that ask one server should not come back to it at the same moment.
        self.rng = np.random.default_rng(os.getpid())
        self.httpx: Any = None
        self.certificates: Any = None
        # One for each request under way: what a client does for one grows with its connections.
        self.clients: list[Any] = []
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(
            target=self.loop.run_forever, name="lengthpred-openai", daemon=True
        )
        self.thread.start()

    def submit(self, work: Coroutine[Any, Any, None]) -> concurrent.futures.Future[None]:
        """Run a coroutine on the loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop)

    def close(self) -> None:
        """Cancel what runs and end the thread. In the child of a fork there is none."""
        if self.thread is threading.current_thread():  # it held the last reference to a backend
            self.loop.stop()
        elif self.thread.is_alive():
            concurrent.futures.wait([self.submit(self._stop())], CONNECT_S)
            self.loop.call_soon_threadsafe(self.loop.stop)
            self.thread.join()
            self.loop.close()

    async def _stop(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for client in self.clients:
            await client.aclose()

    async def complete(self, body: Json, watch: Watch) -> Json | None:
        """The answer to a chat completion; None when this request cannot be answered.

        A request that fails at every try is one of these while a server lives: whatever else is
        asked at the time. Raises AllDownError after the last try where none does, and
        BackendError at once for what no try mends.
        """
        try:
            return await self._complete(body, watch)
        except asyncio.CancelledError:  # time is up
            if watch.failure:
                self._give_up(body)
            raise

    async def _complete(self, body: Json, watch: Watch) -> Json | None:
        tried: set[Server] = set()
        tries, answered_at_first = 0, self.answered
        watch.sent += 1
        while True:
            answered = self.answered
            async with self.slots:
                server = await self._pick(tried)
                try:
                    answer = await self._send(server, watch, "/chat/completions", body)
                    self._note_answer()
                    return answer
                except Refused:
                    return None
                except Failed as error:
                    failure = error
            watch.failed += not tried
            tried.add(server)
            # Where others are answered in between, a busy server is asked for as long as it takes.
            tries += not (failure.busy and self.answered > answered)
            if tries >= TRIES + len(self.servers) - 1:
                since = answered_at_first if failure.broken else answered
                works = not failure.busy and self.answered > since
                if works or (not failure.busy and await self._lives(body, watch)):
                    self._give_up(body)
                    return None  # the servers work: they fail at this one
                raise AllDownError(f"no server answers after {tries} tries: {watch.failure}")
            if not (failure.busy or watch.probed):
                # A deadline may pass before the last try.
                watch.probed = True
                watch.alive = len(self.given_up) < MANY and await self._told(Watch())
            now = time.monotonic()
            if all(other in tried or other.rests(now) for other in self.servers):
                await self._back_off(tries - len(self.servers))

    def _note_answer(self) -> None:
        self.answered += 1
        self.given_up.clear()

    def _give_up(self, body: Json) -> None:
        if len(self.given_up) < MANY:
            self.given_up.add(json.dumps(body["messages"]))

    async def _lives(self, body: Json, watch: Watch) -> bool:
        """Whether a server lives that failed at a request; for many of them, whether it answers."""
        if len(self.given_up) < MANY:
            return await self._told(Watch())
        hello = body | {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1}
        asked = (self._told(watch, "/chat/completions", hello, server) for server in self.servers)
        lives = any(await asyncio.gather(*asked))
        if lives:
            self._note_answer()
        return lives

    async def _told(
        self,
        watch: Watch,
        path: str = "/models",
        body: Json | None = None,
        server: Server | None = None,
    ) -> bool:
        """Whether a server, or any of them, says anything but that it is broken."""
        if server is None:
            told = (self._told(watch, path, body, server) for server in self.servers)
            return any(await asyncio.gather(*told))
        try:
            await self._send(server, watch, path, body)
        except Failed:
            return False
        except (Refused, BackendError):
            return True
        return True

    async def models(self, watch: Watch) -> list[str]:
        """Names that the servers list; raises AllDownError when none of them answers."""
        for tries in range(TRIES):
            if tries:
                await self._back_off(tries - 1)
            lists = await asyncio.gather(*(self._list(server, watch) for server in self.servers))
            if any(names is not None for names in lists):
                return sorted({name for names in lists for name in names or ()})
        raise AllDownError(f"no server answers after {TRIES} tries: {watch.failure}")

    async def _list(self, server: Server, watch: Watch) -> list[str] | None:
        try:
            data = (await self._send(server, watch, "/models")).get("data")
        except Failed:
            return None
        except Refused as error:
            raise BackendError(f"{server} lists no models: {error}") from None
        models = data if isinstance(data, list) else []
        return [str(model["id"]) for model in models if isinstance(model, dict) and "id" in model]

    async def _back_off(self, doublings: int) -> None:
        wait = BACKOFF_S * 2.0 ** min(max(doublings, 0), 9) * self.rng.uniform(0.5, 1.5)
        await asyncio.sleep(min(wait, LONGEST_WAIT_S))

    async def _pick(self, tried: set[Server]) -> Server:
        """The one with least to do: of those that work, were not tried and may be asked."""
        while True:
            now = time.monotonic()
            free = [server for server in self.servers if server.blocked_until <= now]
            if free:
                return min(free, key=lambda s: (s.rests(now), s in tried, s.in_flight))
            await asyncio.sleep(min(server.blocked_until for server in self.servers) - now)

    async def _send(
        self, server: Server, watch: Watch, path: str, body: Json | None = None
    ) -> Json:
        """What the server answers. Raises Failed, Refused and BackendError."""
        server.in_flight += 1
        try:
            answer = await self._exchange(server, path, body)
        except Failed as failure:
            server.failed(failure, time.monotonic())
            watch.failure = f"{server}: {failure}"
            raise
        finally:
            server.in_flight -= 1
        server.failures, server.rests_until = 0, 0.0
        return answer

    def _take_client(self) -> Any:
        """The one last used, so that few connections stay open."""
        if self.clients:
            return self.clients.pop()
        if self.httpx is None:
            self.httpx = require("httpx", "openai", "Asking an OpenAI-compatible server")
            self.certificates = self.httpx.create_ssl_context()
        return self.httpx.AsyncClient(
            verify=self.certificates,
            timeout=self.httpx.Timeout(None, connect=CONNECT_S),
            limits=self.httpx.Limits(keepalive_expiry=IDLE_S),
        )

    async def _exchange(self, server: Server, path: str, body: Json | None) -> Json:
        headers, key = {"Content-Type": "application/json"}, ""
        client, limit_s = self._take_client(), LIST_S if body is None else ANSWER_S
        try:
            if key := api_key(self.httpx.URL(server.url)):
                headers["Authorization"] = f"Bearer {key}"
            async with asyncio.timeout(limit_s):  # httpx's own starts anew with every byte
                response = await client.request(
                    "GET" if body is None else "POST",
                    server.url + path,
                    # Escaped, so that half a surrogate pair can be sent, too.
                    content=None if body is None else json.dumps(body),
                    headers=headers,
                )
        except TimeoutError:
            raise Failed(f"no answer within {limit_s:.0f} s") from None
        except (self.httpx.InvalidURL, self.httpx.UnsupportedProtocol, UnicodeError) as error:
            raise BackendError(f"'{server}' is no URL of a server: {error}") from None
        except self.httpx.RequestError as error:
            broken = isinstance(error, self.httpx.DecodingError)  # a bad Content-Encoding
            raise Failed(str(error) or type(error).__name__, broken=broken) from None
        finally:
            self.clients.append(client)
        if response.status_code != 200:
            await self._raise_status(server, path, response, key)
        try:
            answer = response.json()
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict):
            raise Failed("an answer that is no JSON object", broken=True)
        return answer

    async def _raise_status(self, server: Server, path: str, response: Any, key: str) -> None:
        status = response.status_code
        said = response.text.replace(key, "***") if key else response.text
        why = f"HTTP {status}: {' '.join(said.split())[:300]}"
        if status in (400, 413, 422):
            raise Refused(why)
        if status in (401, 403):
            raise BackendError(
                f"{server} does not let us in: set LENGTHPRED_API_KEY to a key of its own ({why})"
            )
        if status == 404 and path != "/models":
            names = ", ".join(await self._list(server, Watch()) or ()) or "none"
            raise BackendError(f"{server} does not have the model; its models: {names} ({why})")
        if status == 404:
            raise BackendError(f"{server} lists no models; does its URL end in /v1? ({why})")
        if status in (408, 425, 429) or status >= 500:
            wait_s = retry_after(response.headers.get("Retry-After", ""))
            raise Failed(why, busy=status == 429, broken=status == 500, wait_s=wait_s)
        raise BackendError(f"{server} does not answer as a chat server does: {why}")


def api_key(url: Any) -> str:
    """From the environment, for an httpx.URL: OpenAI's own key is for nobody but OpenAI.

    An artifact names its servers, and may be a stranger's. Raises BackendError, without naming
    the key, when it fits no header.
    """
    key = os.environ.get("LENGTHPRED_API_KEY", "")
    if not key and (url.scheme, url.host) == ("https", OPENAI):
        key = os.environ.get("OPENAI_API_KEY", "")
    key = key.strip()
    if not (key.isascii() and key.isprintable()):
        raise BackendError("the API key has characters that a key cannot have: copy it again")
    return key


def retry_after(text: str) -> float:
    """Seconds to wait as a header says, in seconds or as a date; 0 if it says nothing."""
    try:
        date = not re.fullmatch(r"\s*\d+(\.\d+)?\s*", text)
        wait = parsedate_to_datetime(text).timestamp() - time.time() if date else float(text)
    except (ValueError, TypeError, OverflowError):
        return 0.0
    return min(max(wait, 0.0), LONGEST_WAIT_S)
