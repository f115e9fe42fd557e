"""The contract: what a predictor is asked, and what it answers.

A user of a predictor needs to know one method, `predict`. What some predictors can do besides is
a protocol of its own, asked for with `isinstance`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from lengthpred.distribution import LengthDistribution

__all__ = ["Detector", "FloatArray", "IntArray", "Observer", "Predictor", "Refiner", "Request"]

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is known of a request before its answer.

    prompt         the last user turn: what a predictor reads ("" when only token ids are known)
    context        what precedes it in the conversation
    reply_tokens   lengths of the assistant's earlier replies in this conversation, in tokens
    prompt_tokens  length of the whole input, in tokens of the target model
    max_tokens     the limit that the client set on the output, in tokens
    model          name of the target model
    slo_s          latency objective, in seconds
    sampling       what else in the body bears on length: n, stop, min_tokens, response_format, ...

    Every predictor works when only `prompt` is there.
    """

    prompt: str = ""
    context: str = ""
    reply_tokens: tuple[int, ...] = ()
    prompt_tokens: int | None = None
    max_tokens: int | None = None
    model: str = ""
    temperature: float | None = None
    tenant: str = ""
    slo_s: float | None = None
    id: str = ""
    sampling: Mapping[str, Any] = field(default_factory=dict, hash=False)


class Predictor(Protocol):
    """Answers with the natural length: what the model would write if no limit stopped it."""

    def predict(self, requests: Sequence[Request]) -> LengthDistribution:
        """One distribution for each request, in the order asked.

        Pure (the same requests give the same answer until `observe` is called) and thread-safe.
        Never raises for what a request holds: a model, language or prompt that was never seen
        gets the answer of the nearest parent class, a request without text gets the prior.
        """
        ...


@runtime_checkable
class Observer(Protocol):
    """A predictor that learns online."""

    def observe(
        self,
        requests: Sequence[Request],
        lengths: IntArray,
        censored: npt.NDArray[np.bool_],
    ) -> None:
        """Learn from true lengths, shape (n,), in tokens.

        Where `censored`, the answer was stopped by a limit: its natural length is at least that.
        Safe to call while other threads predict.
        """
        ...


@runtime_checkable
class Refiner(Protocol):
    """A predictor that has a cheap first answer and a dearer second one."""

    def provisional(
        self, requests: Sequence[Request]
    ) -> tuple[LengthDistribution, npt.NDArray[np.bool_]]:
        """The first answer, and which requests, shape (n,), it is unsure of."""
        ...

    def refine(
        self, requests: Sequence[Request], deadline_s: float
    ) -> tuple[LengthDistribution, npt.NDArray[np.bool_]]:
        """The second answer, and for which requests, shape (n,), it came within `deadline_s`.

        Synchronous: the caller owns the thread. A request that was not refined keeps its first
        answer in the distribution that is returned.
        """
        ...


class Detector(Protocol):
    """Tells traffic unlike the training data (out of distribution, OOD)."""

    def p_value(self, requests: Sequence[Request]) -> FloatArray:
        """Conformal p-values, shape (n,), in (0, 1]; small means unlike the training data.

        Flagging where `p_value <= alpha` flags in-distribution traffic at rate alpha.
        """
        ...
