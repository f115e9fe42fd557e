"""A scheduler that hears of late second opinions, and preempts what has most left.

    vllm serve MODEL --scheduling-policy priority \
        --scheduler-cls lengthpred.serving.vllm.scheduler.LengthAwareScheduler

Opt-in: `lengthpred serve --scheduler`. It extends vLLM's own in four methods, which are not
promised to stay: tests/serving/vllm/test_scheduler.py names one that a newer vLLM moved. It lives
in the process of an engine, sees no text, and hears by datagrams (`lengthpred.serving.news`).
"""

import re
from collections import OrderedDict
from typing import Any

from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.request_queue import SchedulingPolicy, create_request_queue
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.request import RequestStatus

from lengthpred.errors import SettingsError
from lengthpred.ordering import EPOCH_S, SCALE
from lengthpred.serving.news import Inbox
from lengthpred.serving.pending import calls_of
from lengthpred.serving.settings import ServingSettings

__all__ = ["LengthAwareAsyncScheduler", "LengthAwareScheduler"]

# vLLM's own name of a request: the number of a child, the name that clients see, eight digits.
OWN_NAME = re.compile(r"(?:\d+_)?(?P<external>.*?)(?:-[0-9a-f]{8})?", re.DOTALL)
LOOK_EVERY = 16  # steps between two looks at the progress of what runs
REMEMBERED = 4096  # news of calls that have not come here


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
            raise SettingsError(f"as scheduling is set, the class must be {needed.__name__}")
        settings = ServingSettings.from_environment()
        self._aging = settings.ordering.aging
        self._costs: dict[str, float] = {}
        self._called: dict[str, list[str]] = {}
        self._early: OrderedDict[str, int] = OrderedDict()
        self._steps = 0
        self._inbox: Inbox | None = None
        if settings.sockets is not None:
            rank = scheduler.vllm_config.parallel_config.data_parallel_index
            self._inbox = Inbox(settings.sockets, rank)

    def add_request(self, request: Any) -> None:
        """Note what a new request costs, by its key, before it is queued by that."""
        scheduler: Any = self
        if request.request_id not in scheduler.requests:
            for call in _calls(request):
                request.priority = self._early.get(call, request.priority)
                self._called.setdefault(call, []).append(request.request_id)
            self._costs[request.request_id] = self._cost(request)
        super().add_request(request)  # type: ignore[misc]

    def schedule(self, *args: Any, **kwargs: Any) -> Any:
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
        return super().schedule(*args, **kwargs)  # type: ignore[misc]

    def _preempt_request(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        request.priority = self._key_of_rest(request)
        return super()._preempt_request(request, *args, **kwargs)  # type: ignore[misc]

    def _free_request(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        self._costs.pop(request.request_id, None)
        for call in _calls(request):
            left = [own for own in self._called.pop(call, ()) if own != request.request_id]
            if left:
                self._called[call] = left
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
                request.priority = key
                self._costs[own] = self._cost(request)
                moved |= request.status != RequestStatus.RUNNING
        return moved

    def _aged(self, request: Any) -> float:
        return self._aging * float(request.arrival_time - EPOCH_S)

    def _cost(self, request: Any) -> float:
        """The tokens that a key stands for."""
        return float(request.priority / SCALE - self._aged(request))

    def _key_of_rest(self, request: Any) -> int:
        left = self._costs.get(request.request_id, 0.0) - float(request.num_output_tokens)
        return round(SCALE * (max(left, 1.0) + self._aged(request)))


def _calls(request: Any) -> list[str]:
    """The names that the call of a request may have."""
    named = OWN_NAME.fullmatch(request.request_id)
    return [call for call, _ in calls_of(named["external"] if named else request.request_id)]


class LengthAwareScheduler(_LengthAware, Scheduler):  # type: ignore[misc]
    """For `--no-async-scheduling`, and on a CPU."""


class LengthAwareAsyncScheduler(_LengthAware, AsyncScheduler):  # type: ignore[misc]
    """For asynchronous scheduling, vLLM's default on a GPU."""
