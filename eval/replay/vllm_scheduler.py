"""The scheduler of vLLM itself on a virtual clock: no model, no tokens, its real decisions.

What our own replay is held against (tests/eval/replay/test_vllm_scheduler.py), and slower by far.
"""

import heapq
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from lengthpred.errors import SettingsError
from lengthpred.eval.replay.order import Order
from lengthpred.eval.replay.queue import Queue
from lengthpred.eval.replay.workload import Engine, Ledger, Trace, Workload
from lengthpred.ordering import EPOCH_S

__all__ = ["make_scheduler", "replay_vllm"]

# The least that a model is to vLLM: nothing of it is loaded.
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_attention_heads": 1,
    "num_hidden_layers": 1,
    "vocab_size": 32,
}
TOKEN = 7
LEVEL = "VLLM_LOGGING_LEVEL"
MOMENT_S = 1e-6


def replay_vllm(work: Workload, order: Order, engine: Engine, cls: str | None = None) -> Trace:
    """Run all requests through vLLM's scheduler; keys are given at arrival, as a server gives them.

    cls: see `make_scheduler`. Raises SettingsError for an order whose keys change, for a request
    that can never fit, and where vLLM 0.32 is not installed.
    """
    if order.early is not None or order.refinement is not None or order.with_progress is not None:
        raise SettingsError(
            "the engine vllm takes keys at arrival only: choose a policy that does not look at "
            "progress, or the engine continuous"
        )
    engine.check(work)
    return _Replay(work, order, engine, cls).run()


class _Replay:
    def __init__(self, work: Workload, order: Order, engine: Engine, cls: str | None) -> None:
        self.engine, self.queue, self.ledger = engine, Queue(work, order), Ledger(len(work))
        self.prompt, self.output = work.prompt_tokens.tolist(), work.output_tokens.tolist()
        self.arrival = (work.arrival_s + EPOCH_S).tolist()
        self.scheduler = make_scheduler(
            engine, int((work.prompt_tokens + work.output_tokens).max()), cls
        )
        self.now = 0.0
        self.slots, self.held = list(range(engine.slots)), dict[int, tuple[int, float]]()

    def run(self) -> Trace:
        while self.ledger.done < len(self.output):
            for request in self.queue.advance(self.now):
                self._add(request)
            if self.scheduler.has_unfinished_requests():
                self._step()
            else:
                self.now = self.queue.next_event()
        return self.ledger.trace(*self.queue.depths())

    def _add(self, request: int) -> None:
        from vllm import SamplingParams
        from vllm.v1.request import Request

        limits = SamplingParams(max_tokens=self.output[request], ignore_eos=True)
        # Equal keys go by arrival, and no two requests reach a server at one moment.
        self.scheduler.add_request(
            Request(
                f"{request:09d}",
                [TOKEN] * self.prompt[request],
                limits,
                None,
                arrival_time=self.arrival[request] + request * MOMENT_S,
                priority=self.queue.key[request],
            )
        )

    def _step(self) -> None:
        told = self.scheduler.schedule()
        for name in told.preempted_req_ids or ():
            self._let_go(int(name))
            self.ledger.preempt(int(name))
            self.queue.push(int(name), self.now)
        scheduled: dict[str, int] = told.num_scheduled_tokens
        prefilled, writers = 0, []
        for name, tokens in scheduled.items():
            self._hold(int(name))
            one = self.scheduler.requests[name]
            # The scheduler counts them as computed already.
            if tokens > 1 or one.num_computed_tokens - tokens < one.num_tokens - 1:
                prefilled += tokens
            if one.num_computed_tokens >= one.num_tokens:
                writers.append(name)
        self._spend(prefilled)
        self._write(told, list(scheduled), writers)

    def _spend(self, prefilled: int) -> None:
        cached = sum(one.num_computed_tokens for one in self.scheduler.running)
        kv = np.array([cached], np.int64)
        pool = self.scheduler.kv_cache_manager.block_pool
        free = pool.get_num_free_blocks() * self.engine.block_size
        seconds = self.engine.step_time.of(kv, prefilled)
        blocked = len(self.scheduler.waiting) if self.slots else 0
        held = np.array([self.engine.blocks * self.engine.block_size - free], np.int64)
        self.ledger.spend(seconds, kv, held, blocked)
        self.ledger.prefilled += prefilled
        self.now += float(seconds[0])

    def _write(self, told: Any, names: list[str], writers: list[str]) -> None:
        """Each request whose tokens are all computed writes one."""
        from vllm.v1.outputs import ModelRunnerOutput

        writing = set(writers)
        sampled = [[TOKEN] if name in writing else [] for name in names]
        index = {name: i for i, name in enumerate(names)}
        output = ModelRunnerOutput(req_ids=names, req_id_to_index=index, sampled_token_ids=sampled)
        written = {name: self.scheduler.requests[name] for name in writers}
        self.scheduler.update_from_output(told, output)
        for name, one in written.items():
            request = int(name)
            if one.num_output_tokens == 1:
                self.ledger.first_token[request] = self.now
            if one.is_finished():
                self._let_go(request)
                self.ledger.finish(request, self.now)

    def _hold(self, request: int) -> None:
        """Give a request that runs a slot, if it has none."""
        if request not in self.held:
            self.queue.take(request, self.now)
            self.ledger.start(request, self.now)
            self.held[request] = heapq.heappop(self.slots), self.now

    def _let_go(self, request: int) -> None:
        slot, since = self.held.pop(request)
        self.ledger.segment(request, slot, since, self.now)
        heapq.heappush(self.slots, slot)


def make_scheduler(
    engine: Engine,
    longest: int,
    cls: str | None = None,
    *,
    asynchronous: bool = False,
    rank: int = 0,
) -> Any:
    """A scheduler of vLLM with this room, for one layer of attention and requests up to `longest`.

    cls: the path of another class than vLLM's own. asynchronous: as vLLM schedules on a GPU.
    rank: of its engine among those that share the load.
    """
    from lengthpred.serving.vllm.version import check_vllm

    check_vllm()
    with _quiet():
        import torch
        from vllm.config import CacheConfig, ModelConfig, SchedulerConfig, VllmConfig
        from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec
        from vllm.v1.structured_output import StructuredOutputManager

    length = max(longest + 1, 2 * engine.block_size)
    settings = SchedulerConfig(
        max_num_seqs=engine.slots,
        max_num_batched_tokens=engine.token_budget,
        max_model_len=length,
        is_encoder_decoder=False,
        policy="priority",
        async_scheduling=False,
        watermark=engine.watermark,
        scheduler_cls=cls,
    )
    with tempfile.TemporaryDirectory() as folder:
        positions = {"max_position_embeddings": length}
        Path(folder, "config.json").write_text(json.dumps(CONFIG | positions))
        model = ModelConfig(
            model=folder, skip_tokenizer_init=True, dtype="float16", max_model_len=length, seed=0
        )
    cache = CacheConfig(block_size=engine.block_size, enable_prefix_caching=False)
    config = VllmConfig(scheduler_config=settings, model_config=model, cache_config=cache)
    config.scheduler_config.async_scheduling = asynchronous  # On a CPU vLLM turns it off.
    config.parallel_config.data_parallel_index = rank
    # One block is vLLM's own, for what has none.
    blocks = engine.blocks + 1
    attention = FullAttentionSpec(
        block_size=engine.block_size, num_kv_heads=1, head_size=1, dtype=torch.float32
    )
    cache.num_gpu_blocks = blocks
    room = KVCacheConfig(
        num_blocks=blocks,
        kv_cache_tensors=[],
        kv_cache_groups=[KVCacheGroupSpec(["layer"], attention)],
    )
    return config.scheduler_config.get_scheduler_cls()(
        vllm_config=config,
        kv_cache_config=room,
        structured_output_manager=StructuredOutputManager(config),
        block_size=engine.block_size,
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """While vLLM is imported: what it says then is of devices that nobody asks for."""
    ours = LEVEL not in os.environ
    os.environ.setdefault(LEVEL, "ERROR")
    try:
        yield
    finally:
        if ours:
            del os.environ[LEVEL]
