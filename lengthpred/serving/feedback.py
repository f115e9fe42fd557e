"""True lengths as they come back from a server, kept as rows of a table.

A folder holds `lengths-*.jsonl`, to which a server process appends while it holds a lock on it, and
`lengths-*.parquet`, made of those that are full or whose process is gone. `lengthpred data
import FOLDER --format served` makes one table of all.
"""

import json
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Self

from lengthpred.base import Request
from lengthpred.errors import LengthPredError, SettingsError
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
    roll_mb       size at which a file becomes Parquet; a quarter of most_mb where that is less
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
        self._most, self._waiting = most_mb * MB, waiting
        self._roll = min(roll_mb * MB, self._most / 4)
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
        self._let_go()

    def _write(self) -> None:
        with self._wake:
            rows, self._rows = self._rows, deque()
        if not rows:
            return
        try:
            if self._file.closed:
                self._file = self._fresh()
            self._file.write("".join(json.dumps(row) + "\n" for row in rows))
            self._file.flush()
        except (OSError, ValueError) as error:
            self.dropped += len(rows)
            log.warning("%d true lengths were not kept: %s", len(rows), error)
        else:
            self.written += len(rows)
        try:
            if self._file.tell() > self._roll:
                self._let_go()
                self._file = self._fresh()
            self._trim()
        except (OSError, ValueError) as error:
            log.warning("true lengths are not moved to a new file: %s", error)

    def _let_go(self) -> None:
        """Make Parquet of the file that is written to, and close it."""
        self._compact(Path(self._file.name))
        self._file.close()

    def _fresh(self) -> Any:
        while True:
            self._begun += 1
            name = f"lengths-{time.time_ns():020d}-{os.getpid()}-{self._begun}.jsonl"
            made = (self._folder / name).open("x", encoding="utf-8")
            # Held until it is closed, by us or by the end of the process.
            if _lock(made) and (self._folder / name).exists():
                return made
            made.close()  # one that began just then took it for one that was left

    def _compact_left(self) -> None:
        """What processes that are gone have left: nobody holds a lock on it."""
        for path in sorted(self._folder.glob(f"{PATTERN}.jsonl")):
            with suppress(OSError), path.open(encoding="utf-8") as left:
                # Of several servers that begin, one gets it; another finds it gone, or empty.
                if _lock(left) and path.exists():
                    self._compact(path)

    def _compact(self, path: Path) -> None:
        """One file of JSON lines as Parquet, in its place; a last line that breaks off is lost.

        Where that cannot be written, the lines stay.
        """
        import pyarrow as pa

        from lengthpred.data.table import SCHEMA, write_table

        rows = []
        with path.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                try:
                    rows.append(json.loads(line))
                except ValueError:
                    continue
        try:
            if rows:
                batch = pa.RecordBatch.from_pylist(rows, schema=SCHEMA)
                write_table(path.with_suffix(".parquet"), [batch], force=True)
            path.unlink()
        except (OSError, LengthPredError, pa.ArrowException) as error:
            log.warning("%s stays as it is: %s", path, error)

    def _trim(self) -> None:
        sizes = {path: path.stat().st_size for path in self._folder.glob(f"{PATTERN}.*")}
        total = sum(sizes.values())
        for path in sorted(sizes):
            if total <= self._most:
                return
            if path.suffix == ".parquet":
                path.unlink(missing_ok=True)
                total -= sizes[path]


def _lock(file: IO[str]) -> bool:
    """Take the lock on a file that is open; False where somebody holds it."""
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
