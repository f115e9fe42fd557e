"""The order in which a replay runs requests."""

from collections.abc import Callable
from dataclasses import dataclass

from lengthpred.base import FloatArray, IntArray

__all__ = ["Order"]


@dataclass(frozen=True)
class Order:
    """Keys of n requests; the smallest runs first, and of equal ones the one that came first.

    keys         int64 (n,)
    known_s      float64 (n,): when each key is known, in seconds; None for at arrival
    early        int64 (n,): the keys until then
    ready_s      float64 (n,): when each request joins the queue; None for at arrival
    with_progress  keys of some requests (m,), given how many tokens each has written (m,) and the
                 time, in seconds; for policies that look at progress
    preempts     whether a waiting request with a smaller key takes the slot of a running one
    """

    keys: IntArray
    known_s: FloatArray | None = None
    early: IntArray | None = None
    ready_s: FloatArray | None = None
    with_progress: Callable[[IntArray, IntArray, float], IntArray] | None = None
    preempts: bool = False
