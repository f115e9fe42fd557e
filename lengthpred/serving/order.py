"""From the requests of one call to its place in the queue, whatever becomes of the prediction."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from lengthpred.artifact import load
from lengthpred.base import IntArray, Observer, Predictor, Request
from lengthpred.distribution import LengthDistribution
from lengthpred.errors import BackendError, SettingsError
from lengthpred.manifest import MANIFEST, read_manifest
from lengthpred.ordering import OrderingSettings, cost, priority
from lengthpred.serving.child import answer_to
from lengthpred.serving.frames import Answer
from lengthpred.serving.process import LateError, PredictorProcess
from lengthpred.sources import folder_of

__all__ = ["Asker", "Inline", "Orderer", "Place", "Remote", "asker_of"]

# They take well under a millisecond, in the server's own thread.
CHEAP = {"boosted", "conformal", "constant", "distilled", "histogram", "prompt-length", "ranker"}
MOST_ASKED = 256  # requests of one call; more count as these do on average


class Asker(Protocol):
    """A predictor as a server asks it."""

    @property
    def prior(self) -> LengthDistribution:
        """The answer to a request without text, one row."""
        ...

    async def ask(self, requests: Sequence[Request]) -> Answer:
        """What is known at first, within the deadline. Raises any Exception where nothing is."""
        ...

    def observe(self, requests: Sequence[Request], lengths: IntArray, stopped: object) -> None:
        """Learn from true lengths, where the predictor does; see `lengthpred.Observer`."""
        ...

    def close(self) -> None:
        """Nothing will be asked any more."""
        ...


class Inline:
    """A predictor that answers in the thread that asks."""

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor
        self.prior = answer_to(predictor, [Request()]).dist

    async def ask(self, requests: Sequence[Request]) -> Answer:
        """See `Asker`."""
        return answer_to(self._predictor, requests)

    def observe(self, requests: Sequence[Request], lengths: IntArray, stopped: object) -> None:
        """See `Asker`."""
        if isinstance(self._predictor, Observer):
            self._predictor.observe(requests, lengths, np.asarray(stopped, np.bool_))

    def close(self) -> None:
        """See `Asker`."""


class Remote:
    """A predictor in a process of its own."""

    def __init__(self, process: PredictorProcess, deadline_s: float) -> None:
        self.process, self._deadline_s = process, deadline_s

    @property
    def prior(self) -> LengthDistribution:
        """See `Asker`."""
        return self.process.prior

    async def ask(self, requests: Sequence[Request]) -> Answer:
        """See `Asker`. Raises BackendError, or TimeoutError at the deadline."""
        asked = [asyncio.wrap_future(self.process.ask(request)) for request in requests]
        answers = await asyncio.wait_for(asyncio.gather(*asked), self._deadline_s)
        dist = LengthDistribution.concat([answer.dist for answer in answers])
        return Answer(dist, np.concatenate([answer.flags for answer in answers]))

    def observe(self, requests: Sequence[Request], lengths: IntArray, stopped: object) -> None:
        """See `Asker`."""
        self.process.observe(requests, lengths, stopped)

    def close(self) -> None:
        """See `Asker`."""
        self.process.close()


def asker_of(artifact: str, deadline_s: float) -> Asker:
    """Inline where the artifact is known to be quick, else a process; see `lengthpred.load`.

    Raises ArtifactError for what cannot be loaded, BackendError for what cannot in a process of its
    own, SettingsError for a predictor that takes longer than the deadline.
    """
    with folder_of(artifact) as found:
        kinds = {read_manifest(m.parent).kind for m in found.folder.rglob(MANIFEST)}
    if kinds and kinds <= CHEAP:
        return Inline(load(artifact))
    if not kinds:
        load(artifact)  # says what is wrong with it
    process = PredictorProcess(
        artifact if not Path(artifact).exists() else str(Path(artifact).absolute()),
        deadline_s=deadline_s,
    )
    taken = process.stats().seconds
    if taken > deadline_s:
        process.close()
        raise SettingsError(
            f"{artifact} takes {1e3 * taken:.0f} ms to answer, and requests wait only "
            f"{1e3 * deadline_s:g} ms for it: raise deadline_ms, or give a quicker predictor "
            "(of one that asks a language model, a cascade)"
        )
    return Remote(process, deadline_s)


@dataclass(frozen=True)
class Place:
    """Where a call goes in the queue, and why.

    priority  its key: the smallest runs first
    dist      the lengths of its requests, by the predictor or the prior
    how       predicted; prior: the predictor failed; late: it did not answer in time
    unsure    whether the predictor is unsure of any of them
    seconds   that this took
    why       what failed; "" where nothing did
    """

    priority: int
    requests: Sequence[Request]
    dist: LengthDistribution
    how: Literal["predicted", "prior", "late"]
    unsure: bool = False
    seconds: float = 0.0
    why: str = ""


class Orderer:
    """Gives calls their place under a policy.

    blind: what the client said of the length (max_tokens, min_tokens, ignore_eos) is kept from
    predictor and policy, for experiments that force recorded lengths by it.
    """

    def __init__(
        self, asker: Asker, policy: str, ordering: OrderingSettings, *, blind: bool = False
    ) -> None:
        self.asker, self._policy, self._ordering, self._blind = asker, policy, ordering, blind
        self.place_without([Request()], 0.0)  # what is wrong with the policy shows now

    async def place(self, requests: Sequence[Request], arrived_unix_s: float) -> Place:
        """The place of the requests of one call, which share a key. Never raises for a predictor.

        Of very many the first are asked, and count for all.
        """
        begun, asked = time.perf_counter(), self._seen(requests[:MOST_ASKED])
        try:
            answer = await self.asker.ask(asked)
            if len(answer.dist) != len(asked) or not np.isfinite(answer.dist.pmf).all():
                raise BackendError("the predictor answered with what is no distribution")
            key = self._key(answer.dist, asked, len(requests), arrived_unix_s)
        except Exception as error:  # a predictor may raise what it likes
            late = isinstance(error, TimeoutError | LateError)
            found = self.place_without(requests, arrived_unix_s)
            return replace(
                found,
                how="late" if late else "prior",
                seconds=time.perf_counter() - begun,
                why=f"{type(error).__name__}: {error}",
            )
        unsure = bool(answer.flags.any())
        seconds = time.perf_counter() - begun
        return Place(key, asked, answer.dist, "predicted", unsure, seconds)

    def again(self, place: Place, dist: LengthDistribution, arrived_unix_s: float) -> Place:
        """The place of a call by a second opinion: as if it had been there at arrival."""
        key = self._key(dist, place.requests, len(place.requests), arrived_unix_s)
        return replace(place, priority=key, dist=dist, unsure=False)

    def place_without(self, requests: Sequence[Request], arrived_unix_s: float) -> Place:
        """The place by the prior: among its like, in order of arrival."""
        asked = self._seen(requests[:MOST_ASKED])
        prior = self.asker.prior
        dist = LengthDistribution.concat([prior] * len(asked))
        key = self._key(dist, asked, len(requests), arrived_unix_s)
        return Place(key, asked, dist, "prior")

    def _seen(self, requests: Sequence[Request]) -> list[Request]:
        if not self._blind:
            return list(requests)
        hidden = ("min_tokens", "ignore_eos", "max_tokens")
        return [
            replace(
                r,
                max_tokens=None,
                sampling={k: v for k, v in r.sampling.items() if k not in hidden},
            )
            for r in requests
        ]

    def _key(
        self, dist: LengthDistribution, asked: Sequence[Request], n: int, arrived_unix_s: float
    ) -> int:
        costs = cost(self._policy, dist, asked, None, self._ordering)
        whole = min(float(costs.mean()) * n, self._ordering.cap)
        return int(priority([whole], [arrived_unix_s], self._ordering)[0])
