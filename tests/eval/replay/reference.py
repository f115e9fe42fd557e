"""A plain simulator to hold the fast one against: one step at a time, block by block.

It follows vLLM's scheduler line by line rather than our own code: it walks through the running
requests in the order of their admission, gives each its blocks or preempts the one of the largest
key, and then lets in what waits. `BatchReference` does the same for static batches, token by token.
"""

from dataclasses import dataclass, field
from math import inf

import numpy as np

from lengthpred.eval.replay.order import Order, Refinement
from lengthpred.eval.replay.workload import Engine, Workload

__all__ = ["BatchReference", "Job", "Reference", "Worker"]


@dataclass
class Job:
    """A request, and what has become of it."""

    number: int
    arrival: float
    prompt: int
    output: int
    key: int
    final_key: int
    ready: float
    known: float
    state: str = "away"  # then waiting, running, done
    written: int = 0
    computed: int = 0
    prefilling: bool = True
    blocks: list[int] = field(default_factory=list)
    start: float | None = None
    first_token: float | None = None
    finish: float | None = None
    preemptions: int = 0

    @property
    def rank(self) -> tuple[int, int]:
        return self.key, self.number


def make_jobs(work: Workload, order: Order) -> list[Job]:
    """The requests with the keys that they come with, and when another is known."""
    early = order.keys if order.early is None else order.early
    ready = work.arrival_s if order.ready_s is None else order.ready_s
    known = np.full(len(work), inf) if order.known_s is None else order.known_s
    return [
        Job(
            number=i,
            arrival=float(work.arrival_s[i]),
            prompt=int(work.prompt_tokens[i]),
            output=int(work.output_tokens[i]),
            key=int(early[i]),
            final_key=int(order.keys[i]),
            ready=float(ready[i]),
            known=float(known[i]),
        )
        for i in range(len(work))
    ]


class Worker:
    """Tells the keys of jobs, one after the other, and looks through all of them each time."""

    def __init__(self, refinement: Refinement | None, jobs: list[Job]) -> None:
        self.refinement = refinement
        self.left = [job for job in jobs if refinement is not None and refinement.asked[job.number]]
        self.at_work: Job | None = None
        self.free_at = 0.0
        self.count, self.busy_s = 0, 0.0

    def advance(self, now: float) -> None:
        """All that happens until `now`, in the order in which it does."""
        while self.refinement is not None:
            if self.at_work is not None:
                if self.free_at > now:
                    return
                self.at_work.key, self.at_work = self.at_work.final_key, None
            moment = max(self.free_at, min((job.ready for job in self.left), default=inf))
            if moment > now:
                return
            rank = self.refinement.rank
            there = [job for job in self.left if job.ready <= moment]
            first = min(there, key=lambda job: (rank[job.number], job.number))
            self.left.remove(first)
            if first.start is None:
                self.at_work, self.free_at = first, moment + self.refinement.seconds
                self.count += 1
                self.busy_s += self.refinement.seconds


class Reference:
    def __init__(self, work: Workload, order: Order, engine: Engine) -> None:
        self.engine, self.order = engine, order
        self.jobs = make_jobs(work, order)
        self.worker = Worker(order.refinement, self.jobs)
        self.free = list(range(engine.blocks))
        self.running: list[Job] = []
        self.now = 0.0
        self.steps = self.prefilled = 0
        self.blocked_s = self.busy_s = self.kv_token_s = self.kv_held_s = 0.0

    def run(self) -> "Reference":
        while any(job.state != "done" for job in self.jobs):
            for job in self.jobs:
                if job.state == "away" and job.ready <= self.now:
                    job.state = "waiting"
                if job.state != "away" and job.known <= self.now:
                    job.key, job.known = job.final_key, inf
            self.worker.advance(self.now)
            if self.running or self._waiting():
                self._step()
            else:
                self.now = min(job.ready for job in self.jobs if job.state == "away")
        return self

    def _waiting(self) -> list[Job]:
        return sorted((job for job in self.jobs if job.state == "waiting"), key=lambda j: j.rank)

    def _step(self) -> None:
        self._look_at_progress()
        self._give_way()
        tokens: dict[int, int] = {}  # scheduled in this step, by request
        preempted = self._schedule_running(tokens)
        blocked = 0
        if not preempted:
            blocked = self._admit(tokens)
        assert len(self.running) <= self.engine.slots
        assert sum(tokens.values()) <= self.engine.token_budget
        self._execute(tokens, blocked)

    def _look_at_progress(self) -> None:
        if self.order.with_progress is not None:
            for job in self.running:
                at = np.array([job.number]), np.array([job.written])
                job.key = int(self.order.with_progress(*at, self.now)[0])

    def _give_way(self) -> None:
        waiting = self._waiting()
        if self.order.preempts and waiting and len(self.running) == self.engine.slots:
            worst = max(self.running, key=lambda job: job.rank)
            if waiting[0].key < worst.key:
                self._preempt(worst)

    def _schedule_running(self, tokens: dict[int, int]) -> bool:
        """Whether any was preempted for want of blocks."""
        preempted = False
        for job in list(self.running):
            if job.state != "running":  # preempted by one before it
                continue
            budget = self.engine.token_budget - sum(tokens.values())
            wanted = min(job.prompt + job.written - job.computed, budget)
            while not self._allocate(job, wanted):
                victim = max(self.running, key=lambda one: one.rank)
                tokens.pop(victim.number, None)
                self._preempt(victim)
                preempted = True
                if victim is job:
                    break
            if job.state == "running":
                tokens[job.number] = wanted
        return preempted

    def _allocate(self, job: Job, tokens: int) -> bool:
        more = self._room(job.computed + tokens) - len(job.blocks)
        if more > len(self.free):
            return False
        job.blocks += [self.free.pop() for _ in range(more)]
        return True

    def _room(self, tokens: int) -> int:
        return -(-tokens // self.engine.block_size)

    def _preempt(self, job: Job) -> None:
        self._free(job)
        job.state = "waiting"
        job.computed, job.prefilling = 0, True
        job.preemptions += 1

    def _free(self, job: Job) -> None:
        self.running.remove(job)
        self.free += job.blocks
        job.blocks = []

    def _admit(self, tokens: dict[int, int]) -> int:
        """How many wait with a slot free, since the first in line does not fit."""
        while len(self.running) < self.engine.slots and self._waiting():
            budget = self.engine.token_budget - sum(tokens.values())
            if budget <= 0:
                return 0
            job = self._waiting()[0]
            left_free = int(self.engine.blocks * self.engine.watermark) if self.running else 0
            if self._room(job.prompt + job.written) + left_free > len(self.free):
                return len(self._waiting())
            job.state = "running"
            job.start = self.now if job.start is None else job.start
            self.running.append(job)
            tokens[job.number] = min(job.prompt + job.written, budget)
            assert self._allocate(job, tokens[job.number])
        return 0

    def _execute(self, tokens: dict[int, int], blocked: int) -> None:
        prompts = 0
        for job in self.running:
            count = tokens[job.number] if job.number in tokens else 0
            job.computed += count
            assert job.computed <= len(job.blocks) * self.engine.block_size
            if job.prefilling:
                prompts += count
        cached = sum(job.computed for job in self.running)
        held = (self.engine.blocks - len(self.free)) * self.engine.block_size
        times = self.engine.step_time
        taken = times.fixed_s + prompts * times.prefill_token_s + cached * times.kv_token_s
        self.now += taken
        self.steps += 1
        self.prefilled += prompts
        self.busy_s += taken
        self.blocked_s += blocked * taken
        self.kv_token_s += cached * taken
        self.kv_held_s += held * taken
        for job in list(self.running):
            if job.number in tokens and job.computed == job.prompt + job.written:
                self._write(job)

    def _write(self, job: Job) -> None:
        job.prefilling = False
        job.written += 1
        if job.first_token is None:
            job.first_token = self.now
        if job.written == job.output:
            job.state, job.finish = "done", self.now
            self._free(job)


class BatchReference:
    """Gangs, or slices of so many tokens, one token of a batch after the other."""

    def __init__(
        self, work: Workload, order: Order, engine: Engine, slice_tokens: int | None
    ) -> None:
        self.engine, self.slice_tokens = engine, slice_tokens
        self.jobs = make_jobs(work, order)
        self.worker = Worker(order.refinement, self.jobs)
        self.now = 0.0

    def run(self) -> "BatchReference":
        while any(job.state != "done" for job in self.jobs):
            for job in self.jobs:
                if job.state == "away" and job.ready <= self.now:
                    job.state = "waiting"
            self.worker.advance(self.now)
            waiting = sorted((j for j in self.jobs if j.state == "waiting"), key=lambda j: j.rank)
            if waiting:
                self._batch(waiting[: self.engine.slots])
            else:
                self.now = min(job.ready for job in self.jobs if job.state == "away")
        return self

    def _batch(self, batch: list[Job]) -> None:
        for job in batch:
            job.state = "running"
            job.start = self.now if job.start is None else job.start
            job.computed = 0
        stop = {job.number: self._stop(job) for job in batch}
        fresh = [job for job in batch if not job.written]
        self._prompts(batch)
        for job in batch:  # the last step of the prompts gave a token of each
            job.written += 1
        while any(job.written < stop[job.number] for job in batch):
            at_work = [job for job in batch if job.written < stop[job.number]]
            self._step(0, sum(job.prompt + job.written for job in at_work))
            for job in at_work:
                job.written += 1
        for job in fresh:
            job.first_token = self.now
        for job in batch:
            if job.written == job.output:
                job.state, job.finish = "done", self.now
            else:
                job.state, job.preemptions = "waiting", job.preemptions + 1

    def _stop(self, job: Job) -> int:
        """What it has written when its batch ends."""
        if self.slice_tokens is None:
            return job.output
        return min(job.output, job.written + self.slice_tokens)

    def _prompts(self, batch: list[Job]) -> None:
        left, computed = sum(job.prompt + job.written for job in batch), 0
        while left:
            chunk = min(left, self.engine.token_budget)
            left, computed = left - chunk, computed + chunk
            self._step(chunk, computed)

    def _step(self, prompts: int, cached: int) -> None:
        times = self.engine.step_time
        self.now += times.fixed_s + prompts * times.prefill_token_s + cached * times.kv_token_s
