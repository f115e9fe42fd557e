"""A small model at work beside the engine, on requests that wait."""

import heapq

import numpy as np

from lengthpred.base import FloatArray
from lengthpred.eval.replay.order import Refinement

__all__ = ["Refining"]


class Refining:
    """One worker that refines waiting requests, one after the other, the first in rank first.

    As in `lengthpred.serving.worker.RefinementWorker`, what has started by the time its turn comes
    is left out for good, even if it lost its slot and waits again; what starts while it is at work
    is refined to the end, and counts.

    At one moment requests arrive first; then the worker is done with one and takes the next; then
    the engine looks at its queue. So a key that is there when a step begins counts in that step,
    and a worker may take a request that the engine starts at the same moment. Of arrivals at one
    moment the first in rank is taken first; of equal ranks, the one that came first.
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
        self.refined, self.busy_s = 0, 0.0  # those at work on, too

    def advance(self, now: float, started: list[bool]) -> list[int]:
        """The requests that are refined by `now`; `started` says which had a slot before `now`.

        It is called at `now` before the engine starts anything then, so that nothing starts
        between two calls but at the earlier one.
        """
        done = []
        while self._job is not None or self._begin(now, started):
            if self._free_s > now:
                break
            assert self._job is not None
            done.append(self._job)
            self._job = None
        return done

    def next_event(self) -> float:
        """When the one at work is done, in seconds; infinite where none is."""
        return self._free_s if self._job is not None else np.inf

    def _begin(self, now: float, started: list[bool]) -> bool:
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
            if not started[request]:
                self._job, self._free_s = request, begin + self._seconds
                self.refined += 1
                self.busy_s += self._seconds
                return True
