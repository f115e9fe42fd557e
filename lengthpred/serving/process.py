"""A predictor in a process of its own: one that is slow, hangs or dies holds nobody up."""

import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

import numpy as np

from lengthpred.base import IntArray, Request
from lengthpred.distribution import LengthDistribution
from lengthpred.errors import BackendError
from lengthpred.serving.bounded import checked
from lengthpred.serving.frames import Answer, Reply, pack_call
from lengthpred.serving.line import Line

__all__ = ["LateError", "PredictorProcess", "ProcessStats"]

LEARN_S = 30.0
LOOK_S = 1.0  # between two looks whether an idle process is still there
SILENCE_S = 2.0
CLOSE_S = 5.0
MISSES = 3
SHARE = 0.8  # of the deadline that a batch is cut to fit into


class LateError(BackendError):
    """No answer came by the deadline."""


@dataclass(frozen=True)
class ProcessStats:
    """What became of the requests of a process, at one moment, and of the process.

    answered  in time. late: not by their deadline. failed: the predictor raised, or its process
              died. refused: at once, because too many waited or there was no process to ask
    restarts  of the process, after it died or missed several deadlines in a row
    seconds   that one prediction takes by itself
    """

    answered: int = 0
    late: int = 0
    failed: int = 0
    refused: int = 0
    restarts: int = 0
    seconds: float = 0.0
    last_failure: str = ""


class _Asked(NamedTuple):
    request: Request
    due: float
    future: "Future[Answer]"


class _Dead(Exception):
    """The process ended, or was given up."""


class PredictorProcess:
    """Asks an artifact in a process that it starts, and starts again when it dies or hangs.

    artifact    what `lengthpred.load` takes
    deadline_s  seconds from a request to its answer; after that nobody waits for it
    capacity    most requests that wait; what comes more fails at once
    batch       most requests of one call; fewer where more would not be done by their deadline
    gather_s    seconds that a batch waits for others
    refine      asks for second opinions (`lengthpred.Refiner.refine`) in place of first ones
    rest_s      seconds before a process that died is started again, and the most that they are
                doubled to while it keeps dying

    refines: whether the predictor has second opinions.

    Given up and started again is a process that misses three deadlines in a row, and one that is
    silent for as long. A thread does all that; `ask` never waits. Raises BackendError when the
    artifact cannot be loaded in the other process.
    """

    def __init__(
        self,
        artifact: str,
        *,
        deadline_s: float = 0.025,
        capacity: int = 1024,
        batch: int = 64,
        gather_s: float = 0.002,
        refine: bool = False,
        rest_s: tuple[float, float] = (0.5, 30.0),
    ) -> None:
        if min(capacity, batch) < 1 or not deadline_s > 0:
            raise ValueError("capacity and batch must be at least 1, and the deadline above 0")
        self._artifact, self._deadline_s = artifact, deadline_s
        self._capacity, self._batch, self._gather_s = capacity, batch, gather_s
        self._rest_s, self._wake = rest_s, threading.Condition()
        self._ask = "refine" if refine else "predict"
        self._asked: deque[_Asked] = deque()
        self._learn: deque[bytes] = deque(maxlen=capacity)
        self._stats, self._closed, self._up = ProcessStats(), False, False
        self._number = self._misses = 0
        self._each_s = 0.0
        self._start()
        self._thread = threading.Thread(target=self._run, name="lengthpred: ask", daemon=True)
        self._thread.start()

    def ask(self, request: Request) -> "Future[Answer]":
        """The answer to one request, to come; BackendError is set where none will be in time."""
        future: Future[Answer] = Future()
        with self._wake:
            if self._closed or not self._up or len(self._asked) >= self._capacity:
                self._count(refused=1)
                why = "too many requests wait for it" if self._up else "it is being started"
                future.set_exception(BackendError(f"the predictor was not asked: {why}"))
                return future
            self._asked.append(_Asked(request, time.monotonic() + self._deadline_s, future))
            self._wake.notify()
        return future

    def observe(self, requests: Sequence[Request], lengths: IntArray, censored: Any) -> None:
        """Have the process learn from true lengths when it has time; see `lengthpred.Observer`."""
        if not self._observes:
            return
        told = {"lengths": np.asarray(lengths).tolist(), "censored": np.asarray(censored).tolist()}
        with self._wake:
            self._learn.append(pack_call(0, "observe", requests, **told))
            self._wake.notify()

    @property
    def prior(self) -> LengthDistribution:
        """What the predictor answers to a request without text, one row."""
        return self._prior

    @property
    def pid(self) -> int:
        """Of the process that is asked now."""
        return self._line.pid

    def stats(self) -> ProcessStats:
        """All counters at one moment."""
        with self._wake:
            return self._stats

    def close(self) -> None:
        """End the process; what waits fails. Closing twice is fine."""
        with self._wake:
            self._closed = True
            self._wake.notify_all()
            # The thread, which alone uses the line, notices that nobody is at its other end.
            self._line.kill()
        self._thread.join(CLOSE_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # The other process

    def _start(self) -> None:
        with self._wake:
            self._line = Line(self._artifact, max(MISSES * self._deadline_s, SILENCE_S))
        told = self._line.hello()
        self._prior, self.refines, self._observes = told.prior, told.refines, told.observes
        with self._wake:
            self._each_s, self._misses, self._up = told.seconds, 0, not self._closed
            self._stats = replace(self._stats, seconds=told.seconds)

    def _end(self) -> None:
        with self._wake:
            self._up = False
            waiting, self._asked = list(self._asked), deque()
        self._line.close()
        self._fail(waiting, "its process ended")

    # In the thread

    def _run(self) -> None:
        rest = self._rest_s[0]
        while not self._closed:
            try:
                while not self._closed:
                    self._turn()
                    rest = rest if self._misses else self._rest_s[0]
            except Exception as error:  # whatever it is, this thread must outlive it
                self._end()
                self._count(restarts=1, last_failure=str(error) or "its process died")
            while not self._closed and not self._up:
                with self._wake:
                    self._wake.wait_for(lambda: self._closed, rest)
                rest = min(2 * rest, self._rest_s[1])
                try:
                    if not self._closed:
                        self._start()
                except (BackendError, OSError) as error:
                    self._count(last_failure=str(error))
        if self._up:
            self._end()

    def _turn(self) -> None:
        """One batch, or something to learn where nobody waits."""
        batch, lesson = self._take()
        if batch:
            self._answer(batch)
        elif lesson:
            self._line.send(lesson)
            if self._line.receive(LEARN_S) is None:
                raise _Dead("it did not come back from learning")

    def _take(self) -> tuple[list[_Asked], bytes | None]:
        with self._wake:
            while not (self._asked or self._learn or self._closed):
                # Now and then whether the process is still there.
                self._wake.wait_for(lambda: self._asked or self._learn or self._closed, LOOK_S)
                if self._line.ended and not self._closed:
                    raise _Dead("its process died")
            if not self._asked:
                return [], self._learn.popleft() if self._learn else None
            most = self._most()
            self._wake.wait_for(lambda: len(self._asked) >= most or self._closed, self._gather_s)
            now = time.monotonic()
            batch: list[_Asked] = []
            late: list[_Asked] = []
            while self._asked and len(batch) < most:
                one = self._asked.popleft()
                (batch if one.due > now else late).append(one)
        self._give_up(late)
        return batch, None

    def _most(self) -> int:
        fits = SHARE * self._deadline_s / max(self._each_s, 1e-9)
        return max(1, min(self._batch, int(min(fits, self._batch))))

    def _answer(self, batch: list[_Asked]) -> None:
        self._number += 1
        begun = time.monotonic()
        due = max(one.due for one in batch)
        try:
            asked = [one.request for one in batch]
            left = {"deadline_s": max(due - begun, 0.0)}
            self._line.send(pack_call(self._number, self._ask, asked, **left))
            reply = self._line.receive(due - time.monotonic())
            if reply is None:
                self._give_up(batch)
                batch = []  # before anything else goes wrong: they have their answer
                reply = self._overdue()
            if reply.error or reply.answer is None:
                self._fail(batch, reply.error or "the predictor said nothing")
                return
            if batch:
                dist, flags = reply.answer
                answer = Answer(*checked(dist, flags, len(batch), self._prior.grid))
                self._give(batch, answer)
                self._each_s += 0.2 * ((time.monotonic() - begun) / len(batch) - self._each_s)
        except _Dead:
            raise
        except (EOFError, OSError):
            self._fail(batch, "its process died")
            raise _Dead("its process died") from None
        except Exception as error:  # of one batch, as what cannot be sent: the process may live on
            self._fail(batch, str(error) or type(error).__name__)

    def _overdue(self) -> Reply:
        """The reply to a call whose callers are gone: nothing else can be asked before it."""
        while True:
            self._misses += 1
            if self._misses >= MISSES:
                raise _Dead(f"{MISSES} deadlines in a row were missed")
            reply = self._line.receive(self._deadline_s)
            if reply is not None:
                return reply

    def _give(self, batch: Sequence[_Asked], answer: Answer) -> None:
        self._misses = 0
        self._count(answered=len(batch))
        for row, one in enumerate(batch):
            _settle(one.future, Answer(answer.dist[row], answer.flags[row : row + 1]))

    def _fail(self, batch: Sequence[_Asked], why: str) -> None:
        if batch:
            self._count(failed=len(batch), last_failure=why)
        for one in batch:
            _settle(one.future, BackendError(f"the predictor failed: {why}"))

    def _give_up(self, batch: Sequence[_Asked]) -> None:
        self._count(late=len(batch))
        for one in batch:
            _settle(one.future, LateError(f"no answer within {self._deadline_s:g} s"))

    def _count(self, last_failure: str = "", **more: int) -> None:
        with self._wake:
            old = self._stats
            counts = {name: getattr(old, name) + n for name, n in more.items()}
            why = last_failure or old.last_failure
            self._stats = replace(old, last_failure=why, **counts)


def _settle(future: "Future[Answer]", result: Answer | BackendError) -> None:
    """Unless its owner gave it up, or it is settled."""
    if future.done() or not future.set_running_or_notify_cancel():
        return
    if isinstance(result, BackendError):
        future.set_exception(result)
    else:
        future.set_result(result)
