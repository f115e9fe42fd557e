"""Calls that may hang, made so that the caller never does."""

import threading
import time
from collections.abc import Callable
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from lengthpred.distribution import LengthDistribution, LengthGrid
from lengthpred.errors import BackendError

__all__ = ["BoundedCaller", "checked"]

T = TypeVar("T")


class BoundedCaller:
    """Makes one call at a time, and comes back by its deadline whatever is called.

    name: what is called, for messages and for the thread.

    Each call has a daemon thread of its own. Python cannot stop a thread, so an overdue call is
    left behind: it runs on, and what it answers is dropped. Until it ends all further calls fail
    at once, so that there is never more than one such thread, however long the other side hangs.

    Thread-safe: of several callers each waits for its turn, within its own deadline.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._turn = threading.Lock()
        self._thread = threading.Thread()

    @property
    def busy(self) -> bool:
        """Whether a call runs, be it within its deadline or left behind."""
        # Asked of the thread itself: in a fork of the process, where it is gone, it says so.
        return self._thread.is_alive()

    def call(self, function: Callable[[], T], deadline_s: float) -> T:
        """What `function` returns or raises, within `deadline_s` seconds from now.

        Raises BackendError when the time is over before it began or ended (a deadline of 0 or
        less: at once, without calling), or when an overdue call still runs. What ends a thread
        and is no Exception (SystemExit, ...) is raised as RuntimeError.
        """
        end = time.monotonic() + deadline_s
        if not self._turn.acquire(timeout=_timeout(deadline_s)):
            raise BackendError(f"{self._name} was busy with other calls for {deadline_s:g} s")
        try:
            if self.busy:
                raise BackendError(f"{self._name} is busy: an overdue call still runs")
            results: list[T] = []
            errors: list[BaseException] = []

            def run() -> None:
                try:
                    results.append(function())
                except BaseException as error:
                    errors.append(error)

            if time.monotonic() < end:
                self._thread = threading.Thread(
                    target=run, name=f"lengthpred: {self._name}", daemon=True
                )
                self._thread.start()
                self._thread.join(_timeout(end - time.monotonic()))
            if results:
                return results[0]
            if not errors:
                raise BackendError(f"{self._name} did not answer within {deadline_s:g} s")
            if isinstance(errors[0], Exception):
                raise errors[0]
            raise RuntimeError(f"{self._name} was ended by {errors[0]!r}") from errors[0]
        finally:
            self._turn.release()


def checked(
    answer: object, flags: object, n: int, grid: LengthGrid
) -> tuple[LengthDistribution, npt.NDArray[np.bool_]]:
    """`answer` and `flags`, if they are what `Refiner.refine` promises to answer to n requests.

    Raises BackendError for anything but n finite distributions on `grid` and n flags.
    """
    if not isinstance(answer, LengthDistribution) or len(answer) != n:
        got = len(answer) if isinstance(answer, LengthDistribution) else type(answer).__name__
        raise BackendError(f"the second answer to {n} requests must have {n} rows, not {got}")
    if answer.grid != grid or not np.isfinite(answer.pmf).all():
        raise BackendError("the second answer must be finite, and on the grid of the first one")
    bools = np.asarray(flags)
    if bools.shape != (n,) or bools.dtype != np.bool_:
        raise BackendError(f"a second answer's flags must be bool ({n},), not {flags!r:.80}")
    return answer, bools


def _timeout(seconds: float) -> float:
    """As locks take it: not below 0, and not too large (infinity) either."""
    return min(max(seconds, 0.0), threading.TIMEOUT_MAX)
