"""The folder in which a labelling grows: one Parquet file a shard, whole or absent.

    T2.parquet.partial/
        lock              held by the run that is at work; a killed run lets go of it
        settings.json     what the answers depend on
        000000.parquet    a finished shard: row, output_tokens, censored
        table.parquet     the whole table, just before it is moved to its place
        done.json         sha256 of that table, and the report

Everything is written under another name, synced and renamed. The settings' digest is in every
shard, so that one of another labelling is never taken for one of this.
"""

import hashlib
import json
import os
import re
import shutil
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lengthpred.errors import DataError
from lengthpred.manifest import file_sha256

__all__ = ["Answers", "ShardFolder", "digest_of"]

SHARD = pa.schema(
    [
        ("row", pa.int64()),
        ("output_tokens", pa.list_(pa.int64())),
        ("censored", pa.list_(pa.bool_())),
    ]
)
# What is being written: by this module, and table.parquet by `write_table`.
FRESH = re.compile(
    r"\.(?:\d+|settings\.json|done\.json)\.[0-9a-f]{32}\.tmp|\.table\.parquet\.[a-z0-9_]{8}"
)
LOCK, SETTINGS, DONE, TABLE = "lock", "settings.json", "done.json", "table.parquet"


@dataclass(frozen=True)
class Answers:
    """The answers to one row: its number in the table, m lengths in tokens, m times censored.

    Samples that say nothing are left out; m is 0 where none says anything.
    """

    row: int
    lengths: list[int]
    censored: list[bool]


class ShardFolder:
    """The folder beside the table `out`. Raises DataError where it cannot be used."""

    def __init__(self, out: str | os.PathLike[str]) -> None:
        self.path = Path(f"{os.path.abspath(out)}.partial")
        self.table = self.path / TABLE
        self.digest = ""
        self._gone = False

    def exists(self) -> bool:
        """Whether something is there. Raises DataError when it is no folder of a labelling."""
        if not os.path.lexists(self.path):
            return False
        if not self.path.is_dir() or (any(self.path.iterdir()) and not (self.path / LOCK).exists()):
            raise DataError(f"{self.path} is in the way: move it, or choose another --out")
        return True

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Make the folder and keep other runs out of it; one without shards is removed at the end.

        Raises DataError when another run holds it. The operating system lets go of the lock when
        a process ends, however it ends.
        """
        file = self._lock()
        try:
            self._sweep()
            yield
        finally:
            # Once it is gone, one that is there is another run's.
            if not self._gone and not (self._holds_work() or (self.path / DONE).exists()):
                self.clear()
            os.close(file)

    def _holds_work(self) -> bool:
        return bool(self.shards()) or self.table.exists()

    def _lock(self) -> int:
        try:
            return self._wait_for_lock()
        except OSError as error:
            raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> DataError:
        return DataError(
            f"{self.path} cannot be written: {error.strerror or error}; once it can, repeat "
            "the command and it goes on where it stopped"
        )

    def _wait_for_lock(self) -> int:
        while True:
            self.path.mkdir(parents=True, exist_ok=True)
            try:
                file = os.open(self.path / LOCK, os.O_RDWR | os.O_CREAT)
            except FileNotFoundError:  # another run has just removed the folder
                continue
            try:
                _flock(file)
                if os.fstat(file).st_ino == os.stat(self.path / LOCK).st_ino:
                    os.ftruncate(file, 0)
                    os.write(file, b"%d\n" % os.getpid())
                    return file
            except FileNotFoundError:
                pass
            except BlockingIOError:
                owner = os.pread(file, 20, 0).decode("ascii", "replace").strip()
                os.close(file)
                raise DataError(
                    f"another run (process {owner}) is at work in {self.path}: wait for it, or "
                    "choose another --out"
                ) from None
            except OSError:
                os.close(file)
                raise
            os.close(file)

    def claim(self, settings: Mapping[str, Any], *, force: bool) -> None:
        """Go on with a labelling of these settings, or begin one.

        Raises DataError when one with other settings is there, or with settings that cannot be
        read, unless `force`: then that is lost.
        """
        self.digest = digest_of(settings)
        found = None
        if self._holds_work() and not force:
            try:
                found = _read_json(self.path / SETTINGS)
            except DataError as error:
                raise self._unknown(str(error)) from error
            if found is None:
                raise self._unknown(f"{self.path / SETTINGS} is missing")
        else:
            with suppress(DataError):
                found = _read_json(self.path / SETTINGS)
        if found is not None and digest_of(found) != self.digest:
            if not force:
                names = [n for n in settings if found.get(n) != settings[n]] or ["format"]
                raise DataError(
                    f"{self.path} holds an unfinished labelling with another "
                    f"{' and '.join(names)}: repeat its command to go on with it, choose another "
                    "--out, or add --force to start anew"
                )
            self.empty()
            found = None
        if found is None:
            self.empty()
            self._write_json(SETTINGS, settings)

    def _unknown(self, why: str) -> DataError:
        return DataError(
            f"{why}: nobody knows what its {len(self.shards()):,} finished shards answer. Repeat "
            "the command if that may pass, choose another --out, or add --force to start anew "
            "without them"
        )

    def shards(self) -> list[Path]:
        """The files of finished shards."""
        return sorted(path for path in self.path.glob("*.parquet") if path.stem.isdigit())

    def write(self, shard: int, answers: Sequence[Answers], worker: str) -> None:
        """Put a finished shard in its place, for good."""
        columns = [
            [answer.row for answer in answers],
            [answer.lengths for answer in answers],
            [answer.censored for answer in answers],
        ]
        arrays = [pa.array(c, field.type) for c, field in zip(columns, SHARD, strict=True)]
        schema = SHARD.with_metadata({"settings": self.digest, "worker": worker})
        fresh = self.path / f".{shard}.{uuid.uuid4().hex}.tmp"
        try:
            pq.write_table(pa.Table.from_arrays(arrays, schema=schema), fresh)
            _sync(fresh)
            os.replace(fresh, self._file(shard))
        except OSError as error:
            fresh.unlink(missing_ok=True)
            raise self._unwritable(error) from error

    def read(self, shard: int) -> tuple[list[Answers], str]:
        """A finished shard and who worked on it; no answers where it is absent or not of this."""
        try:
            table = pq.read_table(self._file(shard), partitioning=None)
            marks = table.schema.metadata or {}
            if marks.get(b"settings") != self.digest.encode():
                return [], ""
            columns = (table.column(name).to_pylist() for name in SHARD.names)
            return [Answers(*row) for row in zip(*columns, strict=True)], marks[b"worker"].decode()
        except (pa.ArrowException, OSError, KeyError):
            return [], ""

    def finish(self, out: Path, report: Mapping[str, Any]) -> None:
        """Move the whole table to its place and remove the folder."""
        try:
            _sync(self.table)
            sha256 = file_sha256(self.table)
            note = {"sha256": sha256, "settings": self.digest, "report": dict(report)}
            self._write_json(DONE, note)
            os.replace(self.table, out)
            _sync(out.parent)
        except OSError as error:
            raise self._unwritable(error) from error
        self.clear()

    def done(self) -> dict[str, Any] | None:
        """What `finish` noted, where it was interrupted; raises DataError where it is damaged."""
        path = self.path / DONE
        try:
            noted = _read_json(path)
        except DataError as error:
            raise DataError(f"{error}: delete that file and repeat the command") from error
        if noted is not None and not {"sha256", "settings", "report"} <= noted.keys():
            raise DataError(f"{path} is damaged: delete that file and repeat the command")
        return noted

    def clear(self) -> None:
        """Remove the folder, except for what is not ours."""
        self.empty()
        (self.path / LOCK).unlink(missing_ok=True)
        self._gone = True
        with suppress(OSError):  # not empty: another run has begun, or the user put something there
            self.path.rmdir()

    def empty(self) -> None:
        """Remove all that is ours except for the lock."""
        self._sweep()
        # done.json last: while it is there, nobody takes what is left for an unfinished labelling.
        for path in (*self.shards(), self.table, self.path / SETTINGS, self.path / DONE):
            path.unlink(missing_ok=True)

    def _sweep(self) -> None:
        """Remove what a killed run was writing."""
        for path in self.path.glob(".*"):
            if not FRESH.fullmatch(path.name):
                continue  # the user's
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)

    def _file(self, shard: int) -> Path:
        return self.path / f"{shard:06d}.parquet"

    def _write_json(self, name: str, value: Mapping[str, Any]) -> None:
        fresh = self.path / f".{name}.{uuid.uuid4().hex}.tmp"
        try:
            fresh.write_text(json.dumps(value, indent=1), "utf-8")
            _sync(fresh)
            os.replace(fresh, self.path / name)
        except OSError as error:
            with suppress(OSError):
                fresh.unlink(missing_ok=True)
            raise self._unwritable(error) from error


def digest_of(settings: Mapping[str, Any]) -> str:
    """sha256 of settings, hexadecimal; they are as JSON holds them."""
    text = json.dumps(settings, sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _read_json(path: Path) -> dict[str, Any] | None:
    """What a file holds, None where there is none; raises DataError for what cannot be read."""
    try:
        value = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror or error})") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is damaged") from error
    if not isinstance(value, dict):
        raise DataError(f"{path} is damaged")
    return value


def _sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, would survive a power cut."""
    if path.is_dir() and sys.platform == "win32":
        return
    file = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _flock(file: int) -> None:
    if sys.platform != "win32":
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
