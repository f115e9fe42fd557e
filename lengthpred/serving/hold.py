"""Unsure calls wait for a second opinion, as long as others wait anyway (S-QLM's step 4)."""

import asyncio
import time
from collections.abc import Callable, Sequence

import numpy as np

from lengthpred.base import Request
from lengthpred.distribution import LengthDistribution
from lengthpred.serving.frames import Answer
from lengthpred.serving.process import PredictorProcess

__all__ = ["Holder"]

LOOK_S = 0.02  # between two looks at the server's queue


class Holder:
    """Holds a call until its second opinion is there, nobody waits any more, or `hold_s` is over.

    process  answers with second opinions. queue: how many requests wait in the server now
    """

    def __init__(self, process: PredictorProcess, hold_s: float, queue: Callable[[], int]) -> None:
        self.process, self._hold_s, self._queue = process, hold_s, queue

    async def second(
        self, requests: Sequence[Request], first: LengthDistribution
    ) -> LengthDistribution | None:
        """`first` with second opinions in the place of those that were refined; None without any.

        Never raises for what the predictor does.
        """
        if self._queue() == 0:
            return None
        asked = [asyncio.wrap_future(self.process.ask(request)) for request in requests]
        waiting = asyncio.ensure_future(asyncio.gather(*asked, return_exceptions=True))
        end = time.monotonic() + self._hold_s
        while not waiting.done():
            left = end - time.monotonic()
            if left <= 0 or self._queue() == 0:
                waiting.add_done_callback(_forget)
                waiting.cancel()
                return None
            await asyncio.wait({waiting}, timeout=min(LOOK_S, left))
        rows = [
            answer.dist if isinstance(answer, Answer) and answer.flags[0] else None
            for answer in waiting.result()
        ]
        if not any(rows):
            return None
        return LengthDistribution.concat(
            [first[np.array([i])] if row is None else row for i, row in enumerate(rows)]
        )

    def close(self) -> None:
        """End the process."""
        self.process.close()


def _forget(done: "asyncio.Future[list[Answer | BaseException]]") -> None:
    """Look at how it ended, as asyncio complains of an exception that nobody saw."""
    if not done.cancelled():
        done.exception()
