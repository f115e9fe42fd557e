"""Second opinions on unsure requests while they wait in a server's queue."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import TracebackType
from typing import Self

import numpy as np

from lengthpred.base import Refiner, Request
from lengthpred.distribution import LengthDistribution, LengthGrid
from lengthpred.serving.bounded import BoundedCaller, checked
from lengthpred.serving.uncertain import Entry, UncertainQueue, uncertainty

__all__ = ["RefinementStats", "RefinementWorker"]

GRACE_S = 1.0  # beyond its deadline that a predictor is waited for, to come back with what it has


@dataclass(frozen=True)
class RefinementStats:
    """What a worker did since it was made, at one moment.

    Each request that was submitted is in exactly one of the others:
    submitted = refined + dropped_full + dropped_started + late + unrefined + failed + waiting.

    submitted        requests taken by `submit`, those it dropped at once included
    refined          second answers handed to `on_answer`
    dropped_full     less uncertain than all others when the queue was full
    dropped_started  started by the server before their turn came
    late             second answers that came after the request was started or the worker closed
    unrefined        the predictor came back without a second answer to them
    failed           the predictor raised, overran its deadline or answered wrongly, or says itself
                     that it failed
    waiting          in the queue, or being refined now
    callback_errors  of the refined ones, those for which `on_answer` raised
    busy_s           seconds in which batches were refined, from the begin of each to its answer or
                     to when it was given up; a batch counts when it ends
    hidden_s         the part of busy_s in which their requests had to wait in the server's queue
                     anyway: for each batch, the mean over its requests of the seconds from the
                     batch's begin until that request was started, or until the batch's end if it
                     was not started before
    last_failure     why something failed or `on_answer` raised, the last time
    """

    submitted: int = 0
    refined: int = 0
    dropped_full: int = 0
    dropped_started: int = 0
    late: int = 0
    unrefined: int = 0
    failed: int = 0
    waiting: int = 0
    callback_errors: int = 0
    busy_s: float = 0.0
    hidden_s: float = 0.0
    last_failure: str = ""


class RefinementWorker:
    """Refines requests in a thread of its own, the most uncertain first.

    predictor   asked with `refine`; one call at a time
    on_answer   gets the id and the second answer, one row, in the worker's thread; what it raises
                is counted. It may call the worker. An answer can cross with the request's start:
                who is told both decides
    capacity    most requests that wait; at most `capacity + batch` are remembered
    batch       most requests of one call
    deadline_s  seconds that the predictor gets for a batch
    rest_s      seconds without a call after one that failed or took its time for no answer at all,
                and the most that they are doubled to by further ones; then one request is tried
                before there are batches again. Nothing that waits is dropped meanwhile, and while
                an overdue call still runs nothing is asked
    clock       seconds, monotonic: what calls and waits are measured by

    Thread-safe. A daemon thread runs until `close`. Raises ValueError for a capacity or batch
    below 1, and for times that are not above 0.
    """

    def __init__(
        self,
        predictor: Refiner,
        on_answer: Callable[[str, LengthDistribution], None],
        *,
        capacity: int = 1024,
        batch: int = 64,
        deadline_s: float = 30.0,
        rest_s: tuple[float, float] = (0.5, 30.0),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if min(capacity, batch) < 1 or not deadline_s > 0 or not 0 < rest_s[0] <= rest_s[1]:
            raise ValueError("capacity and batch must be at least 1, and all times above 0")
        if not isinstance(predictor, Refiner):
            raise ValueError(f"a {type(predictor).__name__} has no second answer to give")
        self._predictor, self._on_answer, self._clock = predictor, on_answer, clock
        self._batch, self._deadline_s, self._rest_s = batch, deadline_s, rest_s
        self._caller = BoundedCaller("the refining predictor")
        self._wake = threading.Condition()  # its lock guards all that follows
        self._queue = UncertainQueue(capacity)
        self._flying: dict[str, Entry] = {}
        self._grid: LengthGrid | None = None
        self._stats = RefinementStats()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="lengthpred: refine", daemon=True)
        self._thread.start()

    def submit(self, id: str, request: Request, first: LengthDistribution) -> bool:
        """Queue a request, before the server can start it; never waits for the predictor.

        first: its provisional answer, one row. Of a full queue and the newcomer, the least
        uncertain is dropped (of equals, the newest). Returns False where that is the newcomer;
        also, and then counts nothing, when the worker is closed or has a request of that id.
        Raises ValueError when `first` is not one finite row, on the same grid for all requests.
        """
        if len(first) != 1 or not np.isfinite(first.pmf).all():
            raise ValueError("a request has one provisional answer, and a finite one")
        width = float(uncertainty(first)[0])
        with self._wake:
            if self._closed or id in self._queue or id in self._flying:
                return False
            self._grid = self._grid or first.grid
            if first.grid != self._grid:
                raise ValueError("all provisional answers must be on the same grid")
            self._count(submitted=1)
            dropped = self._queue.put(id, request, width)
            self._count(dropped_full=dropped is not None)
            self._wake.notify()
            return id in self._queue

    def started(self, id: str) -> None:
        """The server started this request: no second answer is of use any more."""
        with self._wake:
            self._count(dropped_started=self._queue.remove(id))
            flies = self._flying.get(id)
            if flies and flies.started_at is None:
                flies.started_at = self._clock()

    def stats(self) -> RefinementStats:
        """All counters at one moment."""
        with self._wake:
            return replace(self._stats, waiting=len(self._queue) + len(self._flying))

    def close(self, timeout_s: float = 1.0) -> None:
        """Stop: what waits stays waiting, and an answer that still comes is late.

        Waits `timeout_s` seconds for the thread. A predictor that works longer keeps it until its
        deadline. Closing twice is fine.
        """
        with self._wake:
            self._closed = True
            self._wake.notify_all()
        if threading.current_thread() is not self._thread:  # on_answer may close, too
            self._thread.join(min(max(timeout_s, 0.0), threading.TIMEOUT_MAX))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # In the worker's thread

    def _run(self) -> None:
        rest = 0.0
        while batch := self._take(1 if rest else self._batch):
            healthy = self._refine(batch)
            rest = 0.0 if healthy else self._rest(rest)
            while self._caller.busy and not self._closed:
                rest = self._rest(rest)

    def _take(self, most: int) -> list[Entry]:
        """Wait for requests, and take up to `most`; none when the worker is closed."""
        with self._wake:
            self._wake.wait_for(lambda: len(self._queue) or self._closed)
            if self._closed:
                return []
            batch = self._queue.take(most)
            self._flying = {entry.id: entry for entry in batch}
            self._begun = self._clock()
            return batch

    def _rest(self, last: float) -> float:
        """Let time pass after a failure; returns for how long."""
        shortest, longest = self._rest_s
        rest = min(2 * last if last else shortest, longest)
        with self._wake:
            self._wake.wait_for(lambda: self._closed, rest)
        return rest

    def _refine(self, batch: Sequence[Entry]) -> bool:
        """Ask for a batch and hand on what is answered; False when the predictor failed."""
        requests = [entry.request for entry in batch]
        ask = partial(self._predictor.refine, requests, self._deadline_s)
        assert self._grid is not None  # set by the first request
        answer, refined = None, np.zeros(len(batch), bool)
        try:
            # A cascade does not raise when its fallback is down, but it counts that.
            before = getattr(self._predictor, "failures", 0)
            given = self._caller.call(ask, self._deadline_s + GRACE_S)
            answer, refined = checked(*given, n=len(batch), grid=self._grid)
            failed = max(getattr(self._predictor, "failures", 0) - before, 0)
            reason = str(getattr(self._predictor, "last_failure", "")) if failed else ""
        except Exception as error:
            failed, reason = len(batch), f"{type(error).__name__}: {error}"
        with self._wake:
            end = self._clock()
            waits = [end if e.started_at is None else e.started_at for e in batch]
            left = len(batch) - int(refined.sum())
            failed = min(failed, left)
            self._count(
                failed=failed,
                unrefined=left - failed,
                busy_s=end - self._begun,
                hidden_s=sum(waits) / len(waits) - self._begun,
            )
            self._stats = replace(self._stats, last_failure=reason or self._stats.last_failure)
            self._flying = {e.id: e for e, done in zip(batch, refined, strict=True) if done}
        for row in np.flatnonzero(refined).tolist():
            assert answer is not None
            self._deliver(batch[row], answer[row])
        # A server that takes requests and never answers is no error of its backend's: it is slow.
        hangs = end - self._begun > self._deadline_s / 2
        return bool(refined.any()) or not (failed or hangs)

    def _deliver(self, entry: Entry, answer: LengthDistribution) -> None:
        with self._wake:
            del self._flying[entry.id]
            late = entry.started_at is not None or self._closed
            self._count(**{"late" if late else "refined": 1})
        if late:
            return
        try:
            self._on_answer(entry.id, answer)
        # Cancelled futures and SystemExit are no Exceptions, and would end the thread as well.
        except BaseException as error:
            with self._wake:
                self._count(callback_errors=1)
                reason = f"on_answer raised {type(error).__name__}: {error}"
                self._stats = replace(self._stats, last_failure=reason)

    def _count(self, **more: float) -> None:
        old = self._stats
        self._stats = replace(old, **{name: getattr(old, name) + n for name, n in more.items()})
