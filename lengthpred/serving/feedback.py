"""True lengths as they come back from a server, kept as rows of a table.

A folder holds `lengths-*.jsonl`, to which a server process appends, and `lengths-*.parquet`, made
of those that are full or whose process is gone. `lengthpred data import FOLDER --format served`
makes one table of all.
"""

import json
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

from lengthpred.base import Request
from lengthpred.errors import SettingsError
from lengthpred.serving.settings import MB

__all__ = ["PATTERN", "FeedbackLog"]

PATTERN = "lengths-*"
log = logging.getLogger(__name__)
Row = dict[str, Any]


class FeedbackLog:
    """Appends rows; a thread writes and flushes them every second, so a crash loses no more.

    folder        made where it is not there
    keep_prompts  with prompt and context, which are "" otherwise
    most_mb       what all files may take together: the oldest whole ones go
    roll_mb       size at which a file becomes Parquet
    waiting       rows that wait to be written; what comes more is dropped and counted, as is what
                  the disk does not take

    Raises SettingsError when the folder cannot be written.
    """

    def __init__(
        self,
        folder: Path,
        *,
        keep_prompts: bool = False,
        most_mb: float = 1024.0,
        roll_mb: float = 32.0,
        waiting: int = 100_000,
        every_s: float = 1.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._folder, self._keep, self._clock = folder, keep_prompts, clock
        self._most, self._roll, self._waiting = most_mb * MB, roll_mb * MB, waiting
        self._rows: deque[Row] = deque()
        self._wake, self._closed = threading.Condition(), False
        self._every_s, self._begun = every_s, 0
        self.written = self.dropped = 0
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = self._fresh()
        except OSError as error:
            raise SettingsError(f"{folder} cannot be written to: {error}") from error
        self._thread = threading.Thread(target=self._run, name="lengthpred: feedback", daemon=True)
        self._thread.start()

    def add(
        self, requests: Sequence[Request], lengths: Sequence[int], stopped: Sequence[bool]
    ) -> None:
        """Keep what n requests came to; does not wait for the disk."""
        now = self._clock()
        with self._wake:
            for request, length, cut in zip(requests, lengths, stopped, strict=True):
                if len(self._rows) >= self._waiting:
                    self.dropped += 1
                else:
                    self._rows.append(self._row(request, length, cut, now))

    def close(self) -> None:
        """Write what is there, and make Parquet of it. Closing twice is fine."""
        with self._wake:
            self._closed = True
            self._wake.notify_all()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _row(self, request: Request, length: int, stopped: bool, now: float) -> Row:
        return {
            "id": request.id or None,
            "prompt": request.prompt if self._keep else "",
            "context": request.context if self._keep else "",
            "reply_tokens": list(request.reply_tokens),
            "prompt_tokens": request.prompt_tokens,
            "output_tokens": [length],
            "censored": [stopped],
            "finish_reason": ["length" if stopped else "stop"],
            "max_tokens": request.max_tokens,
            "model": request.model or "unknown",
            "temperature": request.temperature,
            "tenant": request.tenant or None,
            "arrival_s": now,
        }

    # In the thread

    def _run(self) -> None:
        self._compact_left()
        while not self._closed:
            with self._wake:
                self._wake.wait_for(lambda: self._closed, self._every_s)
            self._write()
        self._write()
        self._file.close()
        self._compact(Path(self._file.name))

    def _write(self) -> None:
        with self._wake:
            rows, self._rows = self._rows, deque()
        if not rows:
            return
        try:
            self._file.write("".join(json.dumps(row) + "\n" for row in rows))
            self._file.flush()
            self.written += len(rows)
            if self._file.tell() > self._roll:
                self._file.close()
                self._compact(Path(self._file.name))
                self._file = self._fresh()
            self._trim()
        except (OSError, ValueError) as error:
            self.dropped += len(rows)
            log.warning("%d true lengths were not kept: %s", len(rows), error)
            if self._file.closed:
                self._file = self._fresh()

    def _fresh(self) -> Any:
        self._begun += 1
        name = f"lengths-{time.time_ns():020d}-{os.getpid()}-{self._begun}.jsonl"
        return (self._folder / name).open("x", encoding="utf-8")

    def _compact_left(self) -> None:
        """What processes that are gone have left."""
        for path in sorted(self._folder.glob(f"{PATTERN}.jsonl")):
            owner = int(path.stem.split("-")[2])
            if owner != os.getpid() and not _alive(owner):
                try:
                    # Of several servers that begin, one finds it there to rename.
                    self._compact(path.rename(path.with_suffix(".left")))
                except OSError:
                    continue

    def _compact(self, path: Path) -> None:
        """One file of JSON lines as Parquet, in its place; a last line that breaks off is lost."""
        rows = []
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                try:
                    rows.append(json.loads(line))
                except ValueError:
                    continue
        if rows:
            import pyarrow as pa

            from lengthpred.data.table import SCHEMA, write_table

            batch = pa.RecordBatch.from_pylist(rows, schema=SCHEMA)
            write_table(path.with_suffix(".parquet"), [batch], force=True)
        path.unlink()

    def _trim(self) -> None:
        whole = sorted(self._folder.glob(f"{PATTERN}.parquet"))
        sizes = [path.stat().st_size for path in whole]
        total = sum(sizes) + self._file.tell()
        for path, size in zip(whole, sizes, strict=True):
            if total <= self._most:
                return
            path.unlink()
            total -= size


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
