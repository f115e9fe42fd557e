"""The statistics plugin: true lengths come back from vLLM, and how many requests wait.

vLLM finds it by the entry point group `vllm.stat_logger_plugins`. It does nothing in a server
without the middleware.
"""

from typing import Any

from vllm.v1.engine import FinishReason
from vllm.v1.metrics.loggers import StatLoggerBase

from lengthpred.serving.service import Finished, Service
from lengthpred.serving.vllm.process import running_service

__all__ = ["LengthStatLogger"]

COMPLETE = {FinishReason.STOP: False, FinishReason.LENGTH: True}


class LengthStatLogger(StatLoggerBase):  # type: ignore[misc]
    """Hands each finished answer to the service of its process."""

    def __init__(self, vllm_config: Any, engine_index: int = 0) -> None:
        """vLLM makes one for each engine; they all hand to one service."""

    def record(
        self,
        scheduler_stats: Any,
        iteration_stats: Any,
        mm_cache_stats: Any = None,
        engine_idx: int = 0,
    ) -> None:
        """See `StatLoggerBase`: called after each step, by the task that hands out tokens."""
        service = running_service()
        if service is None:
            return
        try:
            _hand_on(service, scheduler_stats, iteration_stats, engine_idx)
        except Exception as error:  # which would end that task, and with it all answers
            service.tell("what vLLM counted was lost", f"{type(error).__name__}: {error}")

    def log_engine_initialized(self) -> None:
        """See `StatLoggerBase`."""


def _hand_on(service: Service, scheduler_stats: Any, iteration_stats: Any, engine: int) -> None:
    if scheduler_stats is not None:
        service.queued(engine, scheduler_stats.num_waiting_reqs)
    done = [
        Finished(
            id=one.request_id,
            length=one.num_generation_tokens,
            stopped=stopped,
            prompt_tokens=one.num_prompt_tokens,
        )
        for one in (iteration_stats.finished_requests if iteration_stats else ())
        if one.request_id and (stopped := COMPLETE.get(one.finish_reason)) is not None
    ]
    if done:
        service.finished(done)
