"""Asks a model for the answers of a table's rows, shard by shard."""

import os
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from lengthpred.base import IntArray, Request
from lengthpred.data.rows import sampled
from lengthpred.data.table import Table
from lengthpred.errors import BackendError
from lengthpred.models.backends.base import Source, open_backend
from lengthpred.training.shards import Answers, ShardFolder

__all__ = ["NEEDS", "Asker", "Job", "OnAnswers", "ask_all", "picked_rows", "seed_of"]

READ = ("id", "prompt", "context")
NEEDS = ("prompt",)  # what has no lengths yet is a table to be labelled, too
OnAnswers = Callable[[int, int], None]
"""Called with the rows and the tokens that came since the last call; from several threads."""


@dataclass(frozen=True)
class Job:
    """What a worker must know; picklable, and small: the table is a path.

    samples, temperature, cap, deadline_s, seed   see `lengthpred.training.label.LabelSettings`
    rate     most rows asked a second by this worker; None for no limit
    digest   of the settings: marks the shards
    """

    table: str
    out: str
    digest: str
    source: Source
    samples: int
    temperature: float
    cap: int
    deadline_s: float | None
    rate: float | None
    seed: int
    shard_rows: int
    max_rows: int | None


def picked_rows(rows: int, max_rows: int | None, seed: int) -> IntArray:
    """Numbers of the rows to ask, rising: all, or the seeded sample that `Table.rows` takes."""
    most = rows if max_rows is None else max_rows
    return sampled(rows, most, np.random.default_rng(seed))


def seed_of(source: Source, seed: int, row: int) -> int:
    """The seed with which a row is asked, whatever shard or call it is in; below 2**31 for servers.

    Recorded samples are numbered by the seed, so every row takes those of the same numbers; a
    local model mixes the prompt into it by itself.
    """
    if source.backend != "openai":
        return seed
    return int(np.random.SeedSequence((seed, row)).generate_state(1)[0]) >> 1


class Asker:
    """A worker: its own backend, its own place in the table. Called with a shard's number.

    A server is asked row by row, `batch` rows at a time over all shards in progress, so that no
    answer waits for the end of another's batch and a deadline is one answer's. A local model is
    asked for as many rows at once as `batch` answers allow.
    """

    def __init__(self, job: Job, on_answers: OnAnswers | None = None) -> None:
        self._job = job
        self._told = on_answers
        self._folder = ShardFolder(job.out)
        self._folder.digest = job.digest
        table = Table(job.table, NEEDS)
        self._rows = _RowReader(table, picked_rows(len(table), job.max_rows, job.seed))
        self._backend = open_backend(job.source)
        self._local = job.source.backend == "transformers"
        served = job.source.backend == "openai"
        rows_at_once = max(1, job.source.batch // job.samples)
        self._call_rows = rows_at_once if self._local else 1
        # A deadline is that of an answer: none may wait for its turn at the server's door.
        threads = rows_at_once if job.deadline_s is not None else job.source.batch
        self._pool = ThreadPoolExecutor(threads if served else 1, "asking")
        self._loaded = False
        self._next_s = 0.0
        self._closed = threading.Event()
        self._lock = threading.Lock()
        # So many shards may wait for their last answer before the next one must, too.
        self.ahead = 1 + (job.source.batch // job.shard_rows if served else 0)

    def __call__(self, shard: int) -> tuple[int, int]:
        """Answer a shard and keep it; returns its rows and tokens."""
        return self.keep(shard, self.begin(shard))

    def begin(self, shard: int) -> list["Future[list[Answers]]"]:
        """Ask for a shard's rows; where it is there already, for those that lack samples."""
        size = self._job.shard_rows
        whole = {a.row for a in self._kept(shard) if len(a.lengths) == self._job.samples}
        rows = self._rows.between(shard * size, (shard + 1) * size)
        rows = [(row, request) for row, request in rows if row not in whole]
        starts = range(0, len(rows), self._call_rows)
        return [self._pool.submit(self._ask, rows[s : s + self._call_rows]) for s in starts]

    def keep(self, shard: int, calls: Sequence["Future[list[Answers]]"]) -> tuple[int, int]:
        """Wait for a shard's answers and write them; returns how many rows and tokens came."""
        new = [answer for call in calls for answer in call.result()]
        best = {answer.row: answer for answer in self._kept(shard)}
        for answer in new:
            if answer.row not in best or len(answer.lengths) > len(best[answer.row].lengths):
                best[answer.row] = answer
        worker = f"{socket.gethostname()}-{os.getpid()}"
        self._folder.write(shard, [best[row] for row in sorted(best)], worker)
        return len(new), sum(sum(answer.lengths) for answer in new)

    def _kept(self, shard: int) -> list[Answers]:
        """What is there of a shard, if it is whole."""
        size = self._job.shard_rows
        answers, _ = self._folder.read(shard)
        rows = self._rows.numbers(shard * size, (shard + 1) * size)
        return answers if [answer.row for answer in answers] == rows else []

    def close(self) -> None:
        """Stop asking: answers that are under way are given up."""
        self._closed.set()
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._backend.close()
        self._pool.shutdown()

    def _ask(self, rows: Sequence[tuple[int, Request]]) -> list[Answers]:
        job = self._job
        self._pace(len(rows))
        self._load()
        lengths, censored = self._backend.generate_lengths(
            [request for _, request in rows],
            job.samples,
            job.temperature,
            job.cap,
            job.deadline_s,
            seed_of(job.source, job.seed, rows[0][0]),
        )
        told = (lengths > 0) | ~censored
        answers = [
            Answers(row, lengths[i][told[i]].tolist(), censored[i][told[i]].tolist())
            for i, (row, _) in enumerate(rows)
        ]
        if self._told is not None:
            self._told(len(rows), int(lengths.sum()))
        return answers

    def _load(self) -> None:
        """Load a local model before a deadline runs; once, since its answers have one thread."""
        if self._local and self._job.deadline_s is not None and not self._loaded:
            self._backend.generate_lengths([Request(prompt="Hello")], 1, 0.0, 1, None, 0)
            self._loaded = True

    def _pace(self, rows: int) -> None:
        if self._job.rate is None:
            return
        with self._lock:
            begin = max(time.monotonic(), self._next_s)
            self._next_s = begin + rows / self._job.rate
        if self._closed.wait(max(0.0, begin - time.monotonic())):
            raise BackendError("the labelling was stopped")


def ask_all(asker: Asker, shards: Iterable[int]) -> None:
    """Answer shards in this process, the next ones while the last rows of one are awaited."""
    waiting: deque[tuple[int, list[Future[list[Answers]]]]] = deque()
    try:
        for shard in shards:
            waiting.append((shard, asker.begin(shard)))
            if len(waiting) > asker.ahead:
                asker.keep(*waiting.popleft())
        while waiting:
            asker.keep(*waiting.popleft())
    finally:
        asker.close()


class _RowReader:
    """Rows by their place among the picked ones; rising places read the table once."""

    def __init__(self, table: Table, picked: IntArray) -> None:
        self._table = table
        self._picked = picked
        self._batches: Iterator[pa.RecordBatch] = iter(())
        self._batch: pa.RecordBatch = None
        self._from, self._to = 0, 0  # the rows of the batch; the next one begins at `_to`

    def between(self, start: int, stop: int) -> list[tuple[int, Request]]:
        """The picked rows from place `start` to before `stop`: number in the table, request."""
        return [(row, self._request(row)) for row in self.numbers(start, stop)]

    def numbers(self, start: int, stop: int) -> list[int]:
        """Numbers of these rows in the table."""
        numbers: list[int] = self._picked[start:stop].tolist()
        return numbers

    def _request(self, row: int) -> Request:
        if row < self._from or not self._to:
            self._batches, self._to = self._table.batches(READ), 0
        while row >= self._to:
            self._batch = next(self._batches)
            self._from, self._to = self._to, self._to + len(self._batch)
        values = self._batch.slice(row - self._from, 1).to_pylist()[0]
        # Only what a model reads: a limit or a temperature of the table's is not this labelling's.
        return Request(
            id=values.get("id") or "",
            prompt=values["prompt"] or "",
            context=values.get("context") or "",
        )
