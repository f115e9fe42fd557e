"""A small model at work beside the engine, on requests that wait."""

import heapq

import numpy as np

from lengthpred.base import FloatArray
from lengthpred.eval.replay.order import Refinement

__all__ = ["Refining"]


class Refining:
    """One worker that refines waiting requests, one after the other, the first in rank first.

    What has started by the time its turn comes is left out, as in
    `lengthpred.serving.worker.RefinementWorker`.
    """

    def __init__(self, refinement: Refinement, ready_s: FloatArray) -> None:
        self._seconds = refinement.seconds
        asked = np.flatnonzero(refinement.asked)
        self._coming = asked[np.argsort(-ready_s[asked], kind="stable")].tolist()  # the last first
        self._ready = ready_s.tolist()
        self._rank = refinement.rank.tolist()
        self._heap: list[tuple[int, int]] = []
        self._job: int | None = None
        self._free_s = 0.0
        self.refined, self.busy_s = 0, 0.0

    def advance(self, now: float, waiting: list[bool]) -> list[int]:
        """The requests that are refined by `now`; `waiting` says which have not started."""
        done = []
        while self._job is not None or self._begin(now, waiting):
            if self._free_s > now:
                break
            assert self._job is not None
            done.append(self._job)
            self._job = None
        return done

    def next_event(self) -> float:
        """When the one at work is done, in seconds; infinite where none is."""
        return self._free_s if self._job is not None else np.inf

    def _begin(self, now: float, waiting: list[bool]) -> bool:
        """Take the next request, if one is there by `now`."""
        while True:
            begin = self._free_s
            if not self._heap and self._coming:
                begin = max(begin, self._ready[self._coming[-1]])
            if begin > now:
                return False
            while self._coming and self._ready[self._coming[-1]] <= begin:
                request = self._coming.pop()
                heapq.heappush(self._heap, (self._rank[request], request))
            if not self._heap:
                return False
            request = heapq.heappop(self._heap)[1]
            if waiting[request]:
                self._job, self._free_s = request, begin + self._seconds
                self.refined += 1
                self.busy_s += self._seconds
                return True
