"""S-QLM's arrangement: a cheap predictor, a detector of requests it cannot know, a second one."""

import threading
import time
from collections.abc import Sequence
from functools import partial
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from lengthpred.artifact import Contents, Storable
from lengthpred.base import Detector, IntArray, Observer, Predictor, Request
from lengthpred.distribution import LengthDistribution
from lengthpred.serving.bounded import BoundedCaller, checked

__all__ = ["Cascade"]

BATCH = 64
MARGIN_S = 0.25  # of its time, at most a tenth, that a fallback has to come back in


class Cascade(Storable):
    """Asks `primary`, and `fallback` for what `detector` finds unlike the training data.

    alpha: share of in-distribution requests that go to the fallback, between 0 and 1.

    `predict` waits for both. A server asks for `provisional` answers first, orders its queue by
    them, and `refine`s while requests wait: an unsure request keeps the primary's estimate until
    the second opinion is there. Raises ValueError when the parts answer on different grids.

    `refine` goes on without a fallback that is slow, dead or wrong:

    failures      requests whose second opinion was asked for and failed, since this was made
    last_failure  why, the last time; "" while there is none
    """

    kind = "cascade"

    def __init__(
        self, primary: Predictor, detector: Detector, fallback: Predictor, alpha: float = 0.05
    ) -> None:
        if not 0 <= alpha <= 1:
            raise ValueError(f"alpha must lie between 0 and 1, not {alpha}")
        if primary.predict([]).grid != fallback.predict([]).grid:
            raise ValueError("primary and fallback must answer on the same grid")
        self.primary = primary
        self.detector = detector
        self.fallback = fallback
        self.alpha = alpha
        self.failures = 0
        self.last_failure = ""
        self._lock = threading.Lock()
        self._caller = BoundedCaller("the fallback")

    def predict(self, requests: Sequence[Request]) -> LengthDistribution:
        """See `lengthpred.Predictor`. Waits for the fallback, and raises what it raises."""
        first, unsure = self.provisional(requests)
        rows = np.flatnonzero(unsure)
        second = self.fallback.predict([requests[i] for i in rows])
        checked(second, np.ones(len(rows), bool), len(rows), first.grid)
        return self._replaced(first, rows, second)

    def provisional(
        self, requests: Sequence[Request]
    ) -> tuple[LengthDistribution, npt.NDArray[np.bool_]]:
        """See `lengthpred.Refiner`: the primary's answer, and what the detector flags."""
        first = self.primary.predict(requests)
        return first, self.detector.p_value(requests) <= self.alpha

    def refine(
        self, requests: Sequence[Request], deadline_s: float
    ) -> tuple[LengthDistribution, npt.NDArray[np.bool_]]:
        """See `lengthpred.Refiner`: the fallback's answer for each, in batches until the deadline.

        A fallback that refines itself gets what is left of the time. One that does not, or that
        overruns, holds its batch to the deadline and is left behind there; until it is done, later
        refinements fail at once. Never raises for the fallback's sake: where it raises, is late or
        answers wrongly, requests are not refined and count as `failures`. Several threads that
        refine wait for one another.
        """
        end = time.monotonic() + deadline_s
        answer = self.primary.predict(requests)
        refined = np.zeros(len(requests), bool)
        for start in range(0, len(requests), BATCH):
            left = end - time.monotonic()
            if left <= 0:
                break
            rows = np.arange(start, min(start + BATCH, len(requests)))
            batch = [requests[i] for i in rows.tolist()]
            ask = partial(self._second_answer, batch, left - min(left / 10, MARGIN_S))
            try:
                given = self._caller.call(ask, left)
                second, done = checked(*given, n=len(batch), grid=answer.grid)
            except Exception as error:
                with self._lock:
                    self.failures += len(batch)
                    self.last_failure = f"{type(error).__name__}: {error}"
                continue
            answer = self._replaced(answer, rows[done], second[done])
            refined[rows] = done
        return answer, refined

    def _second_answer(
        self, batch: Sequence[Request], left_s: float
    ) -> tuple[LengthDistribution, npt.NDArray[np.bool_]]:
        if hasattr(self.fallback, "refine"):
            given: tuple[LengthDistribution, npt.NDArray[np.bool_]]
            given = self.fallback.refine(batch, left_s)
            return given
        return self.fallback.predict(batch), np.ones(len(batch), bool)

    def observe(
        self, requests: Sequence[Request], lengths: IntArray, censored: npt.NDArray[np.bool_]
    ) -> None:
        """See `lengthpred.Observer`: passed on to the parts that learn online."""
        for part in (self.primary, self.fallback):
            if isinstance(part, Observer):
                part.observe(requests, lengths, censored)

    def contents(self) -> Contents:
        """See `Storable`. Raises ValueError when a part is not Storable."""
        parts: dict[str, Any] = {
            "primary": self.primary,
            "detector": self.detector,
            "fallback": self.fallback,
        }
        for name, part in parts.items():
            if not isinstance(part, Storable):
                raise ValueError(f"the {name} of this cascade cannot be saved")
        return Contents(
            config={"alpha": self.alpha}, grid=self.primary.predict([]).grid, parts=parts
        )

    @classmethod
    def from_contents(cls, contents: Contents) -> Self:
        """See `Storable`."""
        parts: dict[str, Any] = dict(contents.parts)
        return cls(
            parts["primary"], parts["detector"], parts["fallback"], float(contents.config["alpha"])
        )

    @staticmethod
    def _replaced(
        first: LengthDistribution, rows: npt.NDArray[np.int64], second: LengthDistribution
    ) -> LengthDistribution:
        """`first` with the given rows taken from `second`."""
        if not len(rows):
            return first
        order = np.arange(len(first))
        order[rows] = len(first) + np.arange(len(rows))
        return LengthDistribution.concat([first, second])[order]
