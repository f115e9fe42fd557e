"""What is replayed, on which engine, and what came of it."""

from dataclasses import dataclass, field

import numpy as np

from lengthpred.base import FloatArray, IntArray
from lengthpred.errors import SettingsError
from lengthpred.eval.replay.step_time import PRESET, StepTime

__all__ = ["Engine", "Ledger", "Segments", "Trace", "Workload"]


@dataclass(frozen=True)
class Workload:
    """n requests in the order of their arrival.

    arrival_s      float64 (n,), rising, in seconds
    prompt_tokens  int64 (n,), 1 or more
    output_tokens  int64 (n,), 1 or more: the true lengths, which only the engine knows

    Raises SettingsError for what is none of these.
    """

    arrival_s: FloatArray
    prompt_tokens: IntArray
    output_tokens: IntArray

    def __post_init__(self) -> None:
        shapes = {self.arrival_s.shape, self.prompt_tokens.shape, self.output_tokens.shape}
        if len(shapes) != 1 or self.arrival_s.ndim != 1:
            raise SettingsError(f"a workload's columns must have one length, not {sorted(shapes)}")
        if not np.isfinite(self.arrival_s).all() or (np.diff(self.arrival_s) < 0).any():
            raise SettingsError("the arrivals of a workload must be finite and rise")
        if (self.prompt_tokens < 1).any() or (self.output_tokens < 1).any():
            raise SettingsError("a request of a workload needs 1 or more tokens in and out")

    def __len__(self) -> int:
        return len(self.arrival_s)


@dataclass(frozen=True)
class Engine:
    """The engine that is replayed; the names are vLLM's, and so are the rules.

    slots         requests that run at once (max_num_seqs)
    token_budget  tokens computed in one step, prompts in chunks (max_num_batched_tokens)
    kv_tokens     room of the KV cache, in tokens
    block_size    tokens of a KV block
    watermark     share of the blocks that admitting a request must leave free
    step_time     how long a step takes
    """

    slots: int = 256
    token_budget: int = 8192
    kv_tokens: int = 219_000
    block_size: int = 16
    watermark: float = 0.05
    step_time: StepTime = field(default_factory=lambda: PRESET)

    def __post_init__(self) -> None:
        for name in ("slots", "token_budget", "kv_tokens", "block_size"):
            if getattr(self, name) < 1:
                raise SettingsError(f"{name} must be 1 or more, not {getattr(self, name)}")
        if self.token_budget < self.slots:
            raise SettingsError(
                f"a budget of {self.token_budget} tokens a step cannot serve {self.slots} slots: "
                "each running request needs one"
            )
        if not 0 <= self.watermark < 1:
            raise SettingsError(f"the watermark must lie in [0, 1), not {self.watermark:g}")

    @property
    def blocks(self) -> int:
        """Whole blocks of the KV cache."""
        return self.kv_tokens // self.block_size

    def check(self, work: Workload) -> None:
        """Raise SettingsError for a request that could never run."""
        most = int((work.prompt_tokens + work.output_tokens).max(initial=0))
        if -(-most // self.block_size) > self.blocks:
            raise SettingsError(
                f"a request of {most:,} tokens does not fit into a KV cache of "
                f"{self.kv_tokens:,}: give more --kv-tokens, or a --sum-limit"
            )


@dataclass(frozen=True)
class Segments:
    """The stretches of time in which requests held slots: arrays of one length.

    A request that was preempted has several.
    """

    request: IntArray
    slot: IntArray
    start_s: FloatArray
    end_s: FloatArray


@dataclass(frozen=True)
class Trace:
    """What came of a replay: for each request in the order of the workload, and over time.

    start_s        float64 (n,): first scheduled
    first_token_s  float64 (n,): first token out
    finish_s       float64 (n,): last token out
    preemptions    int64 (n,): times that it lost its place and had to be computed again
    segments       who held which slot when
    depth_s, depth float64 and int64 (m,): from each time on, so many requests waited
    busy_s         time in which the engine computed
    steps          steps of the engine
    prefill_tokens tokens of prompts computed, and of prompts and answers computed again
    blocked_s      request-seconds waited with a slot free, since the first in line did not fit
    kv_token_s     token-seconds of KV that held a token of a request still at work
    kv_held_s      token-seconds of KV that were set aside
    refined        requests that were refined while they waited
    refining_s     seconds that a worker beside the engine was at it
    """

    start_s: FloatArray
    first_token_s: FloatArray
    finish_s: FloatArray
    preemptions: IntArray
    segments: Segments
    depth_s: FloatArray
    depth: IntArray
    busy_s: float
    steps: int
    prefill_tokens: int
    blocked_s: float
    kv_token_s: float
    kv_held_s: float
    refined: int = 0
    refining_s: float = 0.0


class Ledger:
    """What an engine writes down while it runs n requests."""

    def __init__(self, n: int) -> None:
        self.first_token = np.full(n, np.nan)
        self.prefilled = self.preempted = self.done = 0
        self._start, self._finish = np.full(n, np.nan), np.full(n, np.nan)
        self._preemptions = np.zeros(n, np.int64)
        self._segments: list[tuple[int, int, float, float]] = []
        self._steps = 0
        self._busy = self._blocked = self._kv_token = self._kv_held = 0.0

    def start(self, request: int, now: float) -> None:
        """A request is scheduled, for the first time or again."""
        if np.isnan(self._start[request]):
            self._start[request] = now

    def preempt(self, request: int) -> None:
        """A request loses its place."""
        self._preemptions[request] += 1
        self.preempted += 1

    def finish(self, request: int, now: float) -> None:
        """A request's last token is out."""
        self._finish[request] = now
        self.done += 1

    def segment(self, request: int, slot: int, start: float, end: float) -> None:
        """A request held a slot from `start` to `end`."""
        self._segments.append((request, slot, start, end))

    def spend(self, seconds: FloatArray, kv: IntArray, held: IntArray, blocked: int) -> None:
        """Steps (k,) took so many seconds each, with so many tokens in the cache and set aside.

        `blocked` requests waited meanwhile with a slot free.
        """
        taken = float(seconds.sum())
        self._steps += len(seconds)
        self._busy += taken
        self._blocked += blocked * taken
        self._kv_token += float(seconds @ kv)
        self._kv_held += float(seconds @ held)

    def trace(
        self, depth_s: FloatArray, depth: IntArray, refined: int = 0, refining_s: float = 0.0
    ) -> Trace:
        """All of it, how many requests waited from each time on, and what was refined."""
        columns = zip(*self._segments, strict=True) if self._segments else ((), (), (), ())
        request, slot, start, end = columns
        segments = Segments(
            np.array(request, np.int64),
            np.array(slot, np.int64),
            np.array(start, np.float64),
            np.array(end, np.float64),
        )
        return Trace(
            start_s=self._start,
            first_token_s=self.first_token,
            finish_s=self._finish,
            preemptions=self._preemptions,
            segments=segments,
            depth_s=depth_s,
            depth=depth,
            busy_s=self._busy,
            steps=self._steps,
            prefill_tokens=self.prefilled,
            blocked_s=self._blocked,
            kv_token_s=self._kv_token,
            kv_held_s=self._kv_held,
            refined=refined,
            refining_s=refining_s,
        )
