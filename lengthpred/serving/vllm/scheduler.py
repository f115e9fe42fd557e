"""A scheduler that hears of late second opinions, and preempts what has most left.

    vllm serve MODEL --scheduling-policy priority \
        --scheduler-cls lengthpred.serving.vllm.scheduler.LengthAwareScheduler

Opt-in: `lengthpred serve --scheduler`. It extends vLLM's own in four methods, which are not
promised to stay: another version of vLLM is refused when this is imported, and
tests/serving/vllm/test_scheduler.py names what a newer one moved. It lives in the process of an
engine, sees no text, and hears by datagrams (`lengthpred.serving.news`).
"""

import re
import time
from collections import OrderedDict
from typing import Any

from lengthpred.errors import SettingsError
from lengthpred.ordering import EPOCH_S, SCALE
from lengthpred.serving.news import Inbox
from lengthpred.serving.pending import calls_of
from lengthpred.serving.settings import ServingSettings
from lengthpred.serving.vllm.version import check_vllm

check_vllm()  # Another one may not have what is imported next.

from vllm.v1.core.sched.async_scheduler import AsyncScheduler  # noqa: E402
from vllm.v1.core.sched.interface import PauseState  # noqa: E402
from vllm.v1.core.sched.request_queue import SchedulingPolicy, create_request_queue  # noqa: E402
from vllm.v1.core.sched.scheduler import Scheduler  # noqa: E402
from vllm.v1.request import RequestStatus  # noqa: E402

__all__ = ["LengthAwareAsyncScheduler", "LengthAwareScheduler"]

# vLLM's own name of a request: the number of a child, the name that clients see, eight digits.
OWN_NAME = re.compile(r"(?:\d+_)?(?P<external>.*?)(?:-[0-9a-f]{8})?", re.DOTALL)
LOOK_EVERY = 16  # steps between two looks at the progress of what runs
REMEMBERED = 4096  # news of calls that have not come here
LENGTHS = ("sjf", "gittins")  # policies whose cost is tokens that shrink as they are written
MARGIN = 300  # tokens less that one must have left to take the slot of another


class _LengthAware:
    """What both schedulers share. All of it runs in the engine's thread."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        scheduler: Any = self
        if scheduler.policy is not SchedulingPolicy.PRIORITY:
            raise SettingsError("this scheduler needs --scheduling-policy priority")
        asynchronous = bool(scheduler.scheduler_config.async_scheduling)
        if asynchronous != isinstance(self, AsyncScheduler):
            needed = LengthAwareAsyncScheduler if asynchronous else LengthAwareScheduler
            option = "--async-scheduling" if asynchronous else "--no-async-scheduling"
            raise SettingsError(
                f"as scheduling is set here the class must be {needed.__name__}; `lengthpred serve "
                f"--scheduler` chooses it by {option}"
            )
        settings = ServingSettings.from_environment()
        self._aging, self._cap = settings.ordering.aging, settings.ordering.cap
        self._srpt, self._ratio = settings.srpt, settings.ordering.preemption_ratio
        self._shrinks = settings.policy in LENGTHS
        self._costs: dict[str, float] = {}
        self._called: dict[str, list[str]] = {}
        self._early: OrderedDict[str, int] = OrderedDict()
        self._steps = 0
        self._inbox: Inbox | None = None
        if settings.sockets is not None:
            rank = scheduler.vllm_config.parallel_config.data_parallel_index
            self._inbox = Inbox(settings.sockets, rank)

    def add_request(self, request: Any) -> None:
        """Note what a new request costs, by its key, before it is queued by that.

        A key that is none of ours, as of a call that passed the middleware, stays as it is.
        """
        scheduler: Any = self
        if request.request_id not in scheduler.requests:
            calls = _calls(request)
            for call in calls:
                self._called.setdefault(call, []).append(request.request_id)
            cost = request.priority / SCALE - self._aged(request)
            if abs(cost) <= 2 * self._cap:
                self._costs[request.request_id] = cost
            for key in [self._early[call] for call in calls if call in self._early][:1]:
                self._take(request, key)
        super().add_request(request)  # type: ignore[misc]

    def schedule(self, throttle_prefills: bool = False) -> Any:
        """Take in what was told, and now and then what was written; then as vLLM does."""
        scheduler: Any = self
        if self._inbox is not None and self._hear(self._inbox.read()):
            for name in ("waiting", "kv_holding_waiting"):
                # A queue does not notice that a key in it changed.
                queue = create_request_queue(scheduler.policy)
                for request in getattr(scheduler, name):
                    queue.add_request(request)
                setattr(scheduler, name, queue)
        self._steps += 1
        if self._steps % LOOK_EVERY == 0:
            for request in scheduler.running:
                request.priority = self._key_of_rest(request)
        if self._srpt and not throttle_prefills:
            self._give_way()
        return super().schedule(throttle_prefills)  # type: ignore[misc]

    def _give_way(self) -> None:
        """Preempt the one with most left, where one with much less waits for a slot and fits.

        One a step, and each request once. What has written most of its predicted length stays.
        """
        scheduler: Any = self
        slots = scheduler.max_num_active_reqs - scheduler.num_waiting_for_streaming_input
        full = len(scheduler.running) >= slots
        if not full or scheduler.kv_holding_waiting or scheduler.pause_state != PauseState.UNPAUSED:
            return
        first = scheduler.waiting.peek_request() if scheduler.waiting else None
        victim = max(filter(self._may_yield, scheduler.running), key=_key, default=None)
        if first is None or victim is None or victim.priority - first.priority <= SCALE * MARGIN:
            return
        if first in scheduler.deferred_waiting or not self._fits(first):
            return
        # As vLLM's `reset_prefix_cache` does between two steps.
        scheduler.running.remove(victim)
        scheduler._preempt_request(victim, time.monotonic(), drop_stale_output=True)
        scheduler.prev_step_scheduled_req_ids.discard(victim.request_id)

    def _may_yield(self, request: Any) -> bool:
        most = self._ratio * self._costs.get(request.request_id, 0.0)
        return request.num_preemptions == 0 and bool(request.num_output_tokens <= most)

    def _fits(self, request: Any) -> bool:
        """Whether there are blocks for it, those of the one that gives way not counted."""
        scheduler: Any = self
        blocks = -(-request.num_tokens // scheduler.block_size)
        needed = blocks * len(scheduler.kv_cache_config.kv_cache_groups)
        manager = scheduler.kv_cache_manager
        free = manager.block_pool.get_num_free_blocks() - manager.watermark_blocks
        return bool(needed <= free)

    def _preempt_request(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        request.priority = self._key_of_rest(request)
        return super()._preempt_request(request, *args, **kwargs)  # type: ignore[misc]

    def _free_request(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        self._costs.pop(request.request_id, None)
        for call in _calls(request):
            left = [own for own in self._called.pop(call, ()) if own != request.request_id]
            if left:
                self._called[call] = left
            else:
                self._early.pop(call, None)  # a later call may have the same name
        return super()._free_request(request, *args, **kwargs)  # type: ignore[misc]

    def _hear(self, news: list[tuple[str, int]]) -> bool:
        """Give calls their new keys; whether one waits that got another."""
        scheduler: Any = self
        moved = False
        for call, key in news:
            if call not in self._called:
                self._early[call] = key
                if len(self._early) > REMEMBERED:
                    self._early.popitem(last=False)
            for own in self._called.get(call, ()):
                request = scheduler.requests[own]
                self._take(request, key)
                moved |= request.status != RequestStatus.RUNNING
        return moved

    def _aged(self, request: Any) -> float:
        return self._aging * float(request.arrival_time - EPOCH_S)

    def _take(self, request: Any, key: int) -> None:
        """Give it another key, as far as its arrival allows: another call may have that name."""
        cost = key / SCALE - self._aged(request)
        self._costs[request.request_id] = min(max(cost, 0.0), self._cap)
        request.priority = self._key_of_rest(request)

    def _key_of_rest(self, request: Any) -> int:
        cost = self._costs.get(request.request_id)
        if cost is None:
            return int(request.priority)
        if self._shrinks:
            cost = max(cost - float(request.num_output_tokens), 1.0)
        return round(SCALE * (cost + self._aged(request)))


def _key(request: Any) -> int:
    return int(request.priority)


def _calls(request: Any) -> list[str]:
    """The names that the call of a request may have."""
    named = OWN_NAME.fullmatch(request.request_id)
    return [call for call, _ in calls_of(named["external"] if named else request.request_id)]


class LengthAwareScheduler(_LengthAware, Scheduler):  # type: ignore[misc]
    """For `--no-async-scheduling`, and on a CPU."""


class LengthAwareAsyncScheduler(_LengthAware, AsyncScheduler):  # type: ignore[misc]
    """For asynchronous scheduling, vLLM's default on a GPU."""
