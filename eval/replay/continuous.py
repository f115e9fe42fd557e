"""Continuous batching on a virtual clock, by the rules of vLLM's scheduler.

In each step every running request writes a token; what is left of the token budget goes to the
prompts of waiting requests, in chunks. A request that finds no KV block takes those of the worst
running one, which is computed again later (preemption by recomputation). A request that does not
fit blocks all behind it. Between two events all steps are alike and are taken at once.
"""

import heapq
from dataclasses import dataclass

import numpy as np

from lengthpred.eval.replay.order import Order
from lengthpred.eval.replay.queue import Queue
from lengthpred.eval.replay.workload import Engine, Ledger, Trace, Workload

__all__ = ["replay_continuous"]

LOOK_EVERY = 16  # steps between two looks at the progress of what runs
COUNT = np.arange(1 << 14)  # steps taken at once, at most


def replay_continuous(work: Workload, order: Order, engine: Engine) -> Trace:
    """Run all requests. Raises SettingsError for a request that can never fit."""
    engine.check(work)
    return _Replay(work, order, engine).run()


@dataclass(slots=True)
class _Running:
    """A request in a slot; while `finish` is 0 its prompt is being computed."""

    slot: int
    since_s: float
    target: int  # tokens to compute before it writes
    computed: int = 0  # tokens in the KV cache; while it writes, as of step `joined`
    joined: int = 0
    finish: int = 0  # the step before which it is done


class _Replay:
    def __init__(self, work: Workload, order: Order, engine: Engine) -> None:
        self.engine, self.order, self.queue = engine, order, Queue(work, order)
        self.prompt, self.output = work.prompt_tokens.tolist(), work.output_tokens.tolist()
        self.now, self.step, self.look_at = 0.0, 0, 0
        self.free = engine.blocks
        self.reserve = int(engine.blocks * engine.watermark)
        self.kv = 0  # tokens in the cache
        self.running: dict[int, _Running] = {}
        self.writing = 0  # how many of them write
        self.chunked: int | None = None  # the one whose prompt is half computed
        self.needs = np.zeros(engine.block_size, np.int64)  # new blocks by step, modulo block_size
        self.ends: list[tuple[int, int]] = []
        self.slots = list(range(engine.slots))
        self.written = self.queue.written
        self.ledger = Ledger(len(work))

    def run(self) -> Trace:
        while self.ledger.done < len(self.output):
            self.queue.advance(self.now)
            if not self.running and not self.queue.depth:
                self.now = self.queue.next_event()
            else:
                self._schedule()
        return self.ledger.trace(*self.queue.depths(), *self.queue.refined())

    def _schedule(self) -> None:
        """One step with prompts in it, or as many without as nothing changes in."""
        if self.order.preempts:
            self._give_way()
        before = self.ledger.preempted
        prompts = self._continue_prompt()
        blocked = False
        if self.ledger.preempted == before:  # else vLLM admits nothing in this step
            blocked = self._admit(prompts)
        if prompts:
            self._prefill(prompts, blocked)
        else:
            self._write(1 if self.ledger.preempted != before else self._calm_steps(), blocked)
        while self.ends and self.ends[0][0] <= self.step:
            at, request = heapq.heappop(self.ends)
            one = self.running.get(request)
            if one is not None and one.finish == at:
                self._release(request, one)
                self.ledger.finish(request, self.now)

    # Room

    def _continue_prompt(self) -> dict[int, int]:
        """Preempt until this step's blocks are there; the tokens of the half computed prompt."""
        while self._needed() > self.free:
            self._make_room()
        if self.chunked is None:
            return {}
        one = self.running[self.chunked]
        # Not more where it then takes the blocks of a writer: vLLM has counted its tokens by then.
        chunk = min(one.target - one.computed, self.engine.token_budget - self.writing)
        while self._needed() + self._growth(one, chunk) > self.free:
            self._make_room()
            if self.chunked is None:  # it was the worst itself
                return {}
        return {self.chunked: chunk}

    def _make_room(self) -> None:
        """Preempt the worst running request."""
        self._look_at_progress()
        self._preempt(self._worst())

    def _needed(self) -> int:
        """Blocks that the writers need in this step."""
        return int(self.needs[self.step % len(self.needs)])

    def _blocks(self, tokens: int) -> int:
        return -(-tokens // self.engine.block_size)

    def _growth(self, one: _Running, tokens: int) -> int:
        return self._blocks(one.computed + tokens) - self._blocks(one.computed)

    def _worst(self) -> int:
        return max(self.running, key=lambda request: (self.queue.key[request], request))

    def _preempt(self, request: int) -> None:
        """Back into the queue: all its tokens will be computed again."""
        one = self.running[request]
        self.written[request] = self._progress(request, one)
        self._release(request, one)
        self.ledger.preempt(request)
        self.queue.push(request, self.now)

    def _release(self, request: int, one: _Running) -> None:
        """Free its slot and its blocks."""
        tokens = one.computed
        if one.finish:
            tokens += self.step - one.joined
            self.writing -= 1
            self.needs[(one.joined - one.computed) % len(self.needs)] -= 1
        if request == self.chunked:
            self.chunked = None
        self.free += self._blocks(tokens)
        self.kv -= tokens
        heapq.heappush(self.slots, one.slot)
        self.ledger.segment(request, one.slot, one.since_s, self.now)
        del self.running[request]

    def _progress(self, request: int, one: _Running) -> int:
        return self.written[request] + (self.step - one.joined if one.finish else 0)

    def _look_at_progress(self) -> None:
        """Give the running ones the keys that their progress earns them, now and then."""
        if self.order.with_progress is not None and self.step >= self.look_at:
            self.look_at = self.step + LOOK_EVERY
            numbers = np.array(list(self.running), np.int64)
            written = [self._progress(*item) for item in self.running.items()]
            keys = self.order.with_progress(numbers, np.array(written, np.int64), self.now)
            for request, key in zip(self.running, keys.tolist(), strict=True):
                self.queue.key[request] = key

    def _give_way(self) -> None:
        """Preempt the worst running request where one with a smaller key waits for a slot."""
        first = self.queue.first()
        if first is None or self.slots:
            return
        self._look_at_progress()
        worst = self._worst()
        if self.queue.key[first] < self.queue.key[worst]:
            self._preempt(worst)

    # Admission

    def _admit(self, prompts: dict[int, int]) -> bool:
        """Give free slots to waiting requests; whether the first in line does not fit."""
        budget = self.engine.token_budget - self.writing - sum(prompts.values())
        room = self.free - self._needed()
        room -= sum(self._growth(self.running[one], chunk) for one, chunk in prompts.items())
        while self.slots and budget > 0:
            request = self.queue.first()
            if request is None:
                return False
            target = self.prompt[request] + self.written[request]
            reserve = self.reserve if self.running else 0
            if self._blocks(target) + reserve > room:
                return True
            self.queue.pop(self.now)
            self.ledger.start(request, self.now)
            self.running[request] = _Running(heapq.heappop(self.slots), self.now, target)
            prompts[request] = min(target, budget)
            budget -= prompts[request]
            room -= self._blocks(prompts[request])
        return False

    # Steps

    def _prefill(self, prompts: dict[int, int], blocked: bool) -> None:
        """One step in which prompts are computed, and all others write a token."""
        self.free -= self._needed()
        for request, chunk in prompts.items():
            one = self.running[request]
            self.free -= self._growth(one, chunk)
            one.computed += chunk
        tokens = sum(prompts.values())
        self.kv += self.writing + tokens
        seconds = self.engine.step_time.of(np.array([self.kv]), tokens)
        self._spend(seconds, np.array([self.kv]), np.array([self.free]), blocked)
        self.ledger.prefilled += tokens
        self.chunked = None
        for request in prompts:
            one = self.running[request]
            if one.computed < one.target:
                self.chunked = request
            else:
                self._begin_writing(request, one)

    def _begin_writing(self, request: int, one: _Running) -> None:
        """The step that computed the last token of its prompt gave the next one, too."""
        self.written[request] += 1
        if self.written[request] == 1:
            self.ledger.first_token[request] = self.now
        left = self.output[request] - self.written[request]
        if not left:
            self._release(request, one)
            self.ledger.finish(request, self.now)
            return
        one.joined, one.finish = self.step, self.step + left
        self.writing += 1
        self.needs[(one.joined - one.computed) % len(self.needs)] += 1
        heapq.heappush(self.ends, (one.finish, request))

    def _calm_steps(self) -> int:
        """How many steps end before one of the running requests does, or has to be looked at."""
        while True:  # the ends of what was preempted are still there
            at, request = self.ends[0]
            one = self.running.get(request)
            if one is not None and one.finish == at:
                break
            heapq.heappop(self.ends)
        steps = min(at - self.step, len(COUNT))
        if self.order.preempts and self.queue.depth:
            steps = min(steps, LOOK_EVERY)
        return steps

    def _write(self, steps: int, blocked: bool) -> None:
        """So many steps without prompts; fewer where blocks run out or something comes."""
        needs = np.cumsum(self.needs[(self.step + COUNT[:steps]) % len(self.needs)])
        kv = self.kv + self.writing * (COUNT[:steps] + 1)
        seconds = self.engine.step_time.of(kv)
        if needs[-1] > self.free:
            steps = int(np.searchsorted(needs, self.free, side="right"))
        if self.slots or self.order.preempts:  # what comes may run at once
            ends = np.cumsum(np.concatenate([[self.now], seconds]))[1:]
            steps = min(steps, int(np.searchsorted(ends, self.queue.next_event())) + 1)
        free = self.free - needs[:steps]
        self.kv, self.free = int(kv[steps - 1]), int(free[-1])
        self._spend(seconds[:steps], kv[:steps], free, blocked, steps)

    def _spend(
        self,
        seconds: "np.ndarray[tuple[int], np.dtype[np.float64]]",
        kv: "np.ndarray[tuple[int], np.dtype[np.int64]]",
        free: "np.ndarray[tuple[int], np.dtype[np.int64]]",
        blocked: bool,
        steps: int = 1,
    ) -> None:
        """Let the time of steps (k,) pass, each with so many tokens in the cache, blocks free."""
        held = (self.engine.blocks - free) * self.engine.block_size
        waiting = self.queue.depth if blocked else 0
        self.ledger.spend(seconds, kv, held, waiting)
        # One after the other, so that what comes of it does not depend on how steps were joined.
        self.now = float(np.cumsum(np.concatenate([[self.now], seconds]))[-1])
        self.step += steps
