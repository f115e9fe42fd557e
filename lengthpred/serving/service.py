"""All that a server process has of lengthpred: who orders its calls, and what came of it."""

import asyncio
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from pydantic import BaseModel, ConfigDict

from lengthpred.base import IntArray, Request
from lengthpred.distribution import LengthDistribution
from lengthpred.serving.arms import ToldOrderer, read_arms
from lengthpred.serving.feedback import FeedbackLog
from lengthpred.serving.hold import Holder
from lengthpred.serving.metrics import ServingMetrics
from lengthpred.serving.news import Outbox
from lengthpred.serving.order import Asker, Orderer, Place, Remote, asker_of
from lengthpred.serving.pending import Pending
from lengthpred.serving.process import PredictorProcess
from lengthpred.serving.settings import MB, ServingSettings

__all__ = ["Finished", "Service"]

TELL_EVERY_S = 60.0
QUEUE_S = 10.0  # older word of a queue is none: an engine tells one of several server processes
log = logging.getLogger(__name__)
SELF_NAMED = "resp_"
UNCLAIMED = 1000  # answers that are complete before it is known what the server called their call


class Finished(BaseModel):
    """An answer that is complete.

    id: as the server names it. stopped: by a limit, so that its natural length is not known.
    prompt_tokens: of the whole input, where the server counts them.
    """

    model_config = ConfigDict(frozen=True)

    id: str
    length: int
    stopped: bool
    prompt_tokens: int | None = None


class Service:
    """Orders calls, remembers them until their length is known, and learns from it.

    Made once a process. Raises what `asker_of` does, and SettingsError.
    """

    def __init__(self, settings: ServingSettings, metrics: ServingMetrics | None = None) -> None:
        self.settings = settings
        self.metrics = metrics or ServingMetrics()
        most_bytes = settings.pending_mb * MB
        self.pending = Pending(settings.pending, settings.pending_s, most_bytes)
        self._askers: dict[str, Asker] = {}
        self._holders: dict[int, Holder] = {}  # by the identity of the asker
        self._queues: dict[int, tuple[int, float]] = {}  # how many wait, and when that was told
        self._orderer = self._made(settings.artifact, settings.policy, False)
        self._arms: dict[str, Orderer | ToldOrderer] = {}
        for name, arm in read_arms(settings.arms).items():
            self._arms[name] = (
                self._made(arm.artifact, arm.policy, arm.blind)
                if arm.costs is None
                else ToldOrderer(arm.costs, settings.ordering)
            )
        self._kept = _kept(settings)
        self._outbox = None if settings.sockets is None else Outbox(settings.sockets)
        self._tasks: set[asyncio.Task[None]] = set()
        self._unclaimed: OrderedDict[str, Finished] = OrderedDict()
        self._restarts, self._told_s = 0, -TELL_EVERY_S
        self._lock = threading.Lock()

    @property
    def queue(self) -> int:
        """How many requests wait in the engines that this process knows of."""
        since = time.monotonic() - QUEUE_S
        return sum(waiting for waiting, told_s in self._queues.values() if told_s >= since)

    def queued(self, engine: int, waiting: int) -> None:
        """An engine tells how many requests wait."""
        self._queues[engine] = (waiting, time.monotonic())

    async def place(
        self, requests: Sequence[Request], id: str, arrived_unix_s: float, arm: str = ""
    ) -> Place:
        """The place of a call; it is remembered by its id. Never raises for a predictor."""
        orderer = self._arms.get(arm, self._orderer)
        if isinstance(orderer, ToldOrderer):
            requests = [replace(request, id=id) for request in requests]
        place = await orderer.place(requests, arrived_unix_s)
        metrics = self.metrics
        metrics.calls.labels(place.how).inc()
        metrics.seconds.observe(place.seconds)
        if place.how != "predicted":
            metrics.errors.labels(place.how).inc()
            self._count_restarts()
            self.tell("a call was ordered without a prediction", place.why)
        if place.unsure:
            metrics.unsure.inc()
            if isinstance(orderer, Orderer):
                place = await self._second(orderer, place, id, arrived_unix_s)
        answers = sum(_answers(request) for request in place.requests)
        metrics.forgotten.inc(self.pending.put(id, place, answers))
        metrics.pending.set(len(self.pending))
        return place

    async def _second(self, orderer: Orderer, place: Place, name: str, arrived: float) -> Place:
        """The place by a second opinion, where there is one before the server has time for it.

        A scheduler that hears of it is told when it is there; else the call is held for it.
        """
        holder = self._holders.get(id(orderer.asker))
        if holder is None:
            return place
        if self._outbox is None:
            return await self._refined(holder, orderer, place, arrived)

        async def later() -> None:
            better = await self._refined(holder, orderer, place, arrived)
            if better is not place and self._outbox is not None:
                self._outbox.tell(name, better.priority)

        task = asyncio.create_task(later())
        self._tasks.add(task)  # which else nobody would hold
        task.add_done_callback(self._tasks.discard)
        return place

    async def _refined(
        self, holder: Holder, orderer: Orderer, place: Place, arrived: float
    ) -> Place:
        begun = time.monotonic()
        better = await holder.second(place.requests, place.dist)
        self.metrics.hidden.inc(time.monotonic() - begun)
        self.metrics.refined.labels("let go" if better is None else "refined").inc()
        return place if better is None else orderer.again(place, better, arrived)

    def place_unread(self, arrived_unix_s: float, counted: bool = False) -> int:
        """The key of a call that was not read: too large, or no JSON.

        counted: as something else.
        """
        if not counted:
            self.metrics.calls.labels("unread").inc()
        return self._orderer.place_without([Request()], arrived_unix_s).priority

    def finished(self, answers: Sequence[Finished]) -> None:
        """What became of calls; learns from it."""
        dists: list[LengthDistribution] = []
        requests: list[Request] = []
        known: list[Finished] = []
        for one in answers:
            found = self.pending.finished(one.id)
            if found is None and one.id.startswith(SELF_NAMED):
                self._unclaimed[one.id] = one
                if len(self._unclaimed) > UNCLAIMED:
                    self._unclaimed.popitem(last=False)
                    self.metrics.lengths.labels("unknown").inc()
                continue
            self.metrics.lengths.labels("known" if found else "unknown").inc()
            if found is None:
                continue
            place, row = found
            dists.append(place.dist[row : row + 1])
            requests.append(replace(place.requests[row], prompt_tokens=one.prompt_tokens))
            known.append(one)
        if not known:
            return
        lengths, stopped = [one.length for one in known], [one.stopped for one in known]
        self.metrics.pending.set(len(self.pending))
        self.metrics.observe(dists, lengths, stopped)
        if self._kept:
            self._kept.add(requests, lengths, stopped)
        self._learn(requests, np.array(lengths, np.int64), stopped)

    def _learn(self, requests: Sequence[Request], lengths: IntArray, stopped: list[bool]) -> None:
        learners: list[Asker | PredictorProcess] = [*self._askers.values()]
        # What answers second has a process of its own, which remembers what it answered.
        learners += [holder.process for holder in self._holders.values()]
        for one in learners:
            try:
                one.observe(requests, lengths, stopped)
            except Exception as error:  # a predictor may raise what it likes
                self.tell(
                    "a predictor did not learn from a length", f"{type(error).__name__}: {error}"
                )

    def named(self, id: str, name: str) -> None:
        """The server gave a call a name of its own, and may have told its length already."""
        self.pending.rename(id, name)
        claimed = [one for one in self._unclaimed if one.rpartition("_")[0] == name]
        if claimed:
            self.finished([self._unclaimed.pop(one) for one in claimed])

    def tell(self, what: str, why: str) -> None:
        """Log a failure; not each one, as there may be many a second."""
        if time.monotonic() >= self._told_s + TELL_EVERY_S:
            self._told_s = time.monotonic()
            log.warning("%s: %s", what, why)

    def close(self) -> None:
        """End what it started."""
        for asker in self._askers.values():
            asker.close()
        for holder in self._holders.values():
            holder.close()
        if self._kept:
            self._kept.close()
        if self._outbox:
            self._outbox.close()

    def _made(self, artifact: str, policy: str, blind: bool) -> Orderer:
        if artifact not in self._askers:
            deadline_s = self.settings.deadline_ms / 1000
            asker = self._askers[artifact] = asker_of(artifact, deadline_s)
            hold_s = self.settings.hold_ms / 1000
            if hold_s and isinstance(asker, Remote) and asker.process.refines:
                # Of its own, as second opinions take longer than first ones may wait for them.
                process = PredictorProcess(artifact, deadline_s=hold_s, refine=True)
                self._holders[id(asker)] = Holder(process, hold_s, lambda: self.queue)
        return Orderer(self._askers[artifact], policy, self.settings.ordering, blind=blind)

    def _count_restarts(self) -> None:
        processes = [a.process for a in self._askers.values() if isinstance(a, Remote)]
        with self._lock:
            now = sum(process.stats().restarts for process in processes)
            self.metrics.restarts.inc(now - self._restarts)
            self._restarts = now


def _kept(settings: ServingSettings) -> FeedbackLog | None:
    if settings.feedback is None:
        return None
    keep, most = settings.keep_prompts, settings.feedback_mb
    return FeedbackLog(settings.feedback, keep_prompts=keep, most_mb=most)


def _answers(request: Request) -> int:
    n = request.sampling.get("n")
    return n if isinstance(n, int) and 0 < n < 10_000 else 1
