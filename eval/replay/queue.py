"""The waiting requests of a replay."""

import heapq

import numpy as np

from lengthpred.base import FloatArray, IntArray
from lengthpred.eval.replay.order import Order
from lengthpred.eval.replay.refining import Refining
from lengthpred.eval.replay.workload import Workload

__all__ = ["Queue"]


class Queue:
    """What has arrived and waits, smallest key first; keys may change while requests wait."""

    def __init__(self, work: Workload, order: Order) -> None:
        ready = work.arrival_s if order.ready_s is None else order.ready_s
        self._ready = [float(at) for at in np.sort(ready)]
        self._coming = [int(i) for i in np.argsort(ready, kind="stable")]
        self._came = 0
        late = order.known_s is not None and order.early is not None
        keys = order.keys if order.early is None else order.early
        self.key: list[int] = keys.tolist()
        self._order = order
        self._news = self._later(ready, order.known_s) if late else []
        self._refining = None if order.refinement is None else Refining(order.refinement, ready)
        self._told = 0
        self._heap: list[tuple[int, int]] = []
        self._waiting, self._started = [False] * len(work), [False] * len(work)
        self.written = [0] * len(work)  # tokens of each, as of when it last lost its slot
        self.depth = 0
        self.log: list[tuple[float, int]] = [(0.0, 0)]

    @staticmethod
    def _later(ready: FloatArray, known: FloatArray | None) -> list[tuple[float, int]]:
        at = np.maximum(ready, known if known is not None else ready)
        return [(float(at[i]), int(i)) for i in np.argsort(at, kind="stable")]

    def advance(self, now: float) -> list[int]:
        """Let in what is ready by `now`, and give their keys to those whose key is known.

        Returns what came in.
        """
        before = self._came
        while self._came < len(self._coming) and self._ready[self._came] <= now:
            self.push(self._coming[self._came], self._ready[self._came])
            self._came += 1
        while self._told < len(self._news) and self._news[self._told][0] <= now:
            request = self._news[self._told][1]
            self._told += 1
            self.rekey(request, self._told_key(request, now))
        if self._refining is not None:
            for request in self._refining.advance(now, self._started):
                self.rekey(request, self._told_key(request, now))
        return self._coming[before : self._came]

    def _told_key(self, request: int, now: float) -> int:
        if self._order.with_progress is None:
            return int(self._order.keys[request])
        at = np.array([request]), np.array([self.written[request]], np.int64)
        return int(self._order.with_progress(*at, now)[0])

    def next_event(self) -> float:
        """When something comes or is told next, in seconds; infinite where nothing will."""
        comes = self._ready[self._came] if self._came < len(self._coming) else np.inf
        told = self._news[self._told][0] if self._told < len(self._news) else np.inf
        refined = np.inf if self._refining is None else self._refining.next_event()
        return min(comes, told, refined)

    def push(self, request: int, at: float) -> None:
        """Let a request wait from `at` on."""
        self._waiting[request] = True
        heapq.heappush(self._heap, (self.key[request], request))
        self._count(at, 1)

    def rekey(self, request: int, key: int) -> None:
        """Give a request another key, whether it waits or runs."""
        if key != self.key[request]:
            self.key[request] = key
            if self._waiting[request]:
                heapq.heappush(self._heap, (key, request))

    def first(self) -> int | None:
        """The request to run next; None where none waits."""
        while self._heap:
            key, request = self._heap[0]
            if self._waiting[request] and key == self.key[request]:
                return request
            heapq.heappop(self._heap)  # it runs already, or has another key by now
        return None

    def pop(self, at: float) -> int:
        """Take out what `first` gives."""
        request = self.first()
        if request is None:
            raise IndexError("no request waits")
        heapq.heappop(self._heap)
        self.take(request, at)
        return request

    def take(self, request: int, at: float) -> None:
        """Take out one that waits; `first` drops what is not there any more."""
        self._waiting[request], self._started[request] = False, True
        self._count(at, -1)

    def depths(self) -> tuple[FloatArray, IntArray]:
        """From each time on (m,), in seconds, so many requests waited (m,)."""
        times, depths = zip(*self.log, strict=True)
        return np.array(times, np.float64), np.array(depths, np.int64)

    def refined(self) -> tuple[int, float]:
        """How many requests were refined while they waited, and the seconds that took."""
        return (
            (0, 0.0) if self._refining is None else (self._refining.refined, self._refining.busy_s)
        )

    def _count(self, at: float, change: int) -> None:
        self.depth += change
        self.log.append((at, self.depth))
