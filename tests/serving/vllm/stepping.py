"""A scheduler of vLLM driven by hand, without a model: calls that come in, and steps."""

from collections import Counter, deque
from collections.abc import Callable
from typing import Any

from lengthpred.ordering import EPOCH_S, priority

__all__ = ["ASYNC", "SYNC", "add", "run"]

SYNC = "lengthpred.serving.vllm.scheduler.LengthAwareScheduler"
ASYNC = SYNC.replace("LengthAware", "LengthAwareAsync")
TOKEN = 7


def add(
    scheduler: Any,
    call: str,
    length: int,
    predicted: float,
    at: float = 0.0,
    prompt: int = 10,
    key: int | None = None,
) -> str:
    """Let a call come in, as the middleware orders it; the scheduler's own name of it."""
    from vllm import SamplingParams
    from vllm.v1.request import Request

    name = f"chatcmpl-{call}-0123abcd"
    key = int(priority([predicted], [EPOCH_S + at])[0]) if key is None else key
    limits = SamplingParams(max_tokens=length, ignore_eos=True)
    scheduler.add_request(
        Request(name, [TOKEN] * prompt, limits, None, arrival_time=EPOCH_S + at, priority=key)
    )
    return name


def run(
    scheduler: Any,
    steps: int = 10_000,
    depth: int = 1,
    written: Counter[str] | None = None,
    each: Callable[[Any], None] = lambda told: None,
) -> list[str]:
    """Step until all is done or the steps are over; the order in which requests ended.

    depth: outputs under way at once; vLLM's asynchronous engine has 2. written: where tokens are
    counted. each: what to do with each step's output as it is scheduled.
    """
    from vllm.v1.outputs import ModelRunnerOutput

    done: list[str] = []
    under_way: deque[tuple[Any, ModelRunnerOutput]] = deque()
    while under_way or (steps and scheduler.has_unfinished_requests()):
        if steps and scheduler.has_unfinished_requests():
            steps -= 1
            told = scheduler.schedule()
            each(told)
            names = list(told.num_scheduled_tokens)
            chunks = [scheduler.requests[name].is_prefill_chunk for name in names]
            index = {name: i for i, name in enumerate(names)}
            sampled = [[] if chunk else [TOKEN] for chunk in chunks]
            output = ModelRunnerOutput(
                req_ids=names, req_id_to_index=index, sampled_token_ids=sampled
            )
            under_way.append((told, output))
            if len(under_way) < depth:
                continue
        for answers in scheduler.update_from_output(*under_way.popleft()).values():
            for answer in answers.outputs:
                if written is not None:
                    written[answer.request_id] += len(answer.new_token_ids)
                if answer.finish_reason is not None:
                    done.append(answer.request_id)
    return done
