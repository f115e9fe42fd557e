"""The order in which a replay runs requests."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lengthpred.base import FloatArray, IntArray

__all__ = ["Order", "Refinement"]


@dataclass(frozen=True)
class Refinement:
    """A worker beside the engine that tells the keys of some requests while they wait.

    asked    bool (n,): which
    rank     int64 (n,): the smallest first
    seconds  for each
    """

    asked: npt.NDArray[np.bool_]
    rank: IntArray
    seconds: float


@dataclass(frozen=True)
class Order:
    """Keys of n requests; the smallest runs first, and of equal ones the one that came first.

    keys         int64 (n,)
    known_s      float64 (n,): when each key is known, in seconds; None for at arrival
    early        int64 (n,): the keys until then
    refinement   tells the keys in place of known_s, while requests wait
    ready_s      float64 (n,): when each request joins the queue; None for at arrival
    with_progress  keys of some requests (m,), given how many tokens each has written (m,) and the
                 time, in seconds; for policies that look at progress
    preempts     whether a waiting request with a smaller key takes the slot of a running one
    """

    keys: IntArray
    known_s: FloatArray | None = None
    early: IntArray | None = None
    refinement: Refinement | None = None
    ready_s: FloatArray | None = None
    with_progress: Callable[[IntArray, IntArray, float], IntArray] | None = None
    preempts: bool = False
