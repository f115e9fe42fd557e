"""Labelling inside one process: what the table holds, what is asked, what a stopped run leaves."""

import errno
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import pytest

from lengthpred.base import IntArray, Request
from lengthpred.data.table import Table
from lengthpred.errors import BackendError, DataError, LengthPredError, SettingsError
from lengthpred.models.backends.base import Source
from lengthpred.models.backends.chat_servers import AllDownError
from lengthpred.training import asking, label, label_settings, shards
from lengthpred.training.label import LabelSettings
from tests.data_files import rows_of
from tests.models.backends.server import ChatServer
from tests.training.tables import table_on_disk

SERVER = Source("openai", model="served", url=("http://one/v1",), batch=4)


class Server:
    """A backend that answers by prompt, seed and sample, and notes what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int]] = []
        self.dies_after: int | None = None
        self.silent: set[str] = set()
        self.wait_s = 0.0
        self.deadlines: set[float | None] = set()
        self.busy = self.busiest = 0
        self.lock = threading.Lock()

    def generate_lengths(
        self,
        requests: Sequence[Request],
        n: int,
        temperature: float,
        cap: int,
        deadline_s: float | None,
        seed: int,
    ) -> tuple[IntArray, npt.NDArray[np.bool_]]:
        with self.lock:
            self.busy += 1
            self.busiest = max(self.busiest, self.busy)
            for request in requests:
                if self.dies_after is not None and len(self.asked) >= self.dies_after:
                    raise BackendError("no server answers")
                self.asked.append((request.id, seed))
            self.deadlines.add(deadline_s)
        time.sleep(self.wait_s)
        with self.lock:
            self.busy -= 1
        keys = [[abs(hash((int(r.id), seed, j))) % 200 for j in range(n)] for r in requests]
        lengths = np.array(keys, np.int64)
        mute = np.array([request.id in self.silent for request in requests])
        censored = mute[:, None] | (lengths > cap)
        return np.where(mute[:, None], 0, np.minimum(lengths, cap)), censored

    def checksum(self) -> str:
        return ""

    def close(self) -> None:
        pass

    @property
    def ids(self) -> list[str]:
        return sorted((name for name, _ in self.asked), key=int)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    """In place of every backend."""
    made = Server()
    for module in (asking, label_settings):
        monkeypatch.setattr(module, "open_backend", lambda source: made)
    return made


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return table_on_disk(tmp_path / "t.parquet", domain=["verse", "prose"] * 200)


def settings(source: Source = SERVER, **values: Any) -> LabelSettings:
    return LabelSettings(source, **{"shard_rows": 16, "max_rows": 100, **values})


def leftovers(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"t.parquet", "s.parquet", "o.parquet"}


def test_the_rows_of_the_table_with_new_answers(tmp_path: Path) -> None:
    models = ["small", "other"] * 200
    table = table_on_disk(tmp_path / "t.parquet", model=models, prompt_tokens=[7] * 400)
    names = [str(i) for i in range(400)]
    recorded = [[i, i + 1, 2 * i] for i in range(400)]
    table_on_disk(tmp_path / "s.parquet", model=["small"] * 400, output_tokens=recorded,
                  censored=None, id=names)  # fmt: skip
    source = Source("recorded", samples=str(tmp_path / "s.parquet"))
    report = label.label(
        table, tmp_path / "o.parquet", LabelSettings(source, samples=2, cap=300, seed=1)
    )
    before, after = rows_of(table), rows_of(tmp_path / "o.parquet")
    assert report.rows == len(after) == 400 and report.model == "small" and not report.unanswered
    for i, (old, new) in enumerate(zip(before, after, strict=True)):
        for name in ("id", "group", "prompt", "reply_tokens"):
            assert new[name] == old[name]
        assert new["output_tokens"] == [min(i + 1, 300), min(2 * i, 300)]
        assert new["censored"] == [i + 1 > 300, 2 * i > 300]
        assert new["finish_reason"] == [("stop", "length")[c] for c in new["censored"]]
        assert (new["model"], new["temperature"], new["max_tokens"]) == ("small", 1.0, None)
        assert new["prompt_tokens"] == (7 if old["model"] == "small" else None)
    assert report.censored == sum(sum(row["censored"]) for row in after)
    assert report.tokens == sum(sum(row["output_tokens"]) for row in after)
    assert len(Table(tmp_path / "o.parquet").rows()) == 400
    assert not leftovers(tmp_path)


def test_what_is_asked_does_not_hang_on_the_shards(server: Server, table: Path) -> None:
    out = table.with_name("o.parquet")
    label.label(table, out, settings(samples=3))
    first, asked = out.read_bytes(), sorted(server.asked)
    server.asked.clear()
    label.label(table, out, settings(samples=3, shard_rows=7), force=True)
    assert out.read_bytes() == first and sorted(server.asked) == asked
    assert len({seed for _, seed in asked}) == 100  # each row has its own
    assert max(seed for _, seed in asked) < 2**31
    server.asked.clear()
    label.label(table, out, settings(samples=3, seed=1, max_rows=None), force=True)
    assert out.read_bytes() != first and len(server.asked) == 400


def test_some_rows_are_the_sample_that_training_takes(server: Server, table: Path) -> None:
    out = table.with_name("o.parquet")
    label.label(table, out, settings(max_rows=30, seed=5))
    expected = [request.id for request in Table(table).rows(30, seed=5).requests]
    assert [row["id"] for row in rows_of(out)] == expected == server.ids


def test_a_stopped_run_goes_on(server: Server, table: Path) -> None:
    out, told = table.with_name("o.parquet"), []
    label.label(table, table.with_name("whole.parquet"), settings())
    server.asked.clear()
    server.dies_after = 50
    with pytest.raises(BackendError, match=r"no server answers\. \d of 7 shards are kept: repeat"):
        label.label(table, out, settings())
    assert not out.exists()
    kept = {path.name for path in table.with_name("o.parquet.partial").glob("0*.parquet")}
    assert 1 <= len(kept) <= 3
    server.dies_after, server.asked = None, []
    # Servers may have moved, and may be asked faster or slower.
    moved = replace(SERVER, url=("http://two/v1", "http://three/v1"), batch=2)
    report = label.label(
        table, out, settings(moved, rate=1e4), on_begin=lambda *counts: told.append(counts)
    )
    assert told == [(len(kept), 7, 16 * len(kept), 100)]
    assert len(server.asked) == 100 - 16 * len(kept)
    assert out.read_bytes() == table.with_name("whole.parquet").read_bytes()
    assert sum(report.workers.values()) == 7 and not leftovers(table.parent) - {"whole.parquet"}


def test_a_server_that_is_dead_from_the_first_leaves_nothing(server: Server, table: Path) -> None:
    server.dies_after = 0
    with pytest.raises(BackendError, match=r"^no server answers$"):
        label.label(table, table.with_name("o.parquet"), settings())
    assert not leftovers(table.parent)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"temperature": 0.5}, "another temperature:"),
        ({"cap": 99, "samples": 2}, "another samples and cap:"),
        ({"source": replace(SERVER, model="new")}, "another model:"),
        ({"shard_rows": 17}, "another shard-rows:"),
    ],
)
def test_other_settings_are_refused(
    server: Server, table: Path, change: dict[str, Any], said: str
) -> None:
    out, other = table.with_name("o.parquet"), replace(settings(), **change)
    server.dies_after = 60
    with pytest.raises(BackendError):
        label.label(table, out, settings())
    server.dies_after, server.asked = None, []
    with pytest.raises(DataError, match=said) as error:
        label.label(table, out, other)
    assert "add --force to start anew" in str(error.value) and not server.asked
    label.label(table, out, other, force=True)
    assert len(server.asked) == 100 and not leftovers(table.parent)


def test_another_table_is_refused(server: Server, table: Path) -> None:
    server.dies_after = 60
    with pytest.raises(BackendError):
        label.label(table, table.with_name("o.parquet"), settings())
    table_on_disk(table)  # without the column domain
    with pytest.raises(DataError, match="another table:"):
        label.label(table, table.with_name("o.parquet"), settings())


def test_broken_and_foreign_shards_are_made_again(server: Server, table: Path) -> None:
    out, folder = table.with_name("o.parquet"), table.with_name("o.parquet.partial")
    label.label(table, table.with_name("whole.parquet"), settings())
    server.dies_after = 195
    with pytest.raises(BackendError):
        label.label(table, out, settings())
    files = sorted(folder.glob("0*.parquet"))
    assert len(files) >= 4
    files[0].write_bytes(files[0].read_bytes()[:-9])
    foreign = shards.ShardFolder(out)
    foreign.digest = "another"
    foreign.write(1, [shards.Answers(row, [1], [False]) for row in range(16)], "me")
    os.replace(files[3], files[2])
    (folder / f".5.{'ab' * 16}.tmp").write_bytes(b"half")
    server.dies_after = None
    label.label(table, out, settings())
    assert out.read_bytes() == table.with_name("whole.parquet").read_bytes()
    assert not leftovers(table.parent) - {"whole.parquet"}


def half_done(server: Server, table: Path, out: Path) -> Path:
    """The folder of a labelling that was stopped."""
    server.dies_after = len(server.asked) + 60
    with pytest.raises(BackendError):
        label.label(table, out, settings())
    server.dies_after, server.asked = None, []
    return shards.ShardFolder(out).path


@pytest.mark.parametrize("content", [None, b"", b'{"cap": 20', b"\xff", b"[]", "unreadable"])
def test_shards_of_unknown_settings_are_not_thrown_away(
    server: Server, table: Path, content: Any
) -> None:
    out = table.with_name("o.parquet")
    folder = half_done(server, table, out)
    kept, file = sorted(folder.glob("0*.parquet")), folder / "settings.json"
    file.unlink()
    if content == "unreadable":
        file.mkdir()
    elif content is not None:
        file.write_bytes(content)
    with pytest.raises(DataError, match=r"settings\.json .*add --force to start anew"):
        label.label(table, out, settings())
    assert kept == sorted(folder.glob("0*.parquet")) and not server.asked
    if content == "unreadable":
        file.rmdir()
    label.label(table, out, settings(), force=True)
    assert len(server.asked) == 100 and not leftovers(table.parent)


@pytest.mark.parametrize("content", ["", "[]", "{}"])
def test_a_damaged_note_is_named(server: Server, table: Path, content: str) -> None:
    out = table.with_name("o.parquet")
    note = half_done(server, table, out) / "done.json"
    note.write_text(content)
    with pytest.raises(DataError, match=r"done\.json is damaged: delete that file and repeat"):
        label.label(table, out, settings())
    note.unlink()
    label.label(table, out, settings())
    assert len(server.asked) < 100


def test_files_of_the_user_in_the_folder_stay(server: Server, table: Path) -> None:
    out = table.with_name("o.parquet")
    folder = half_done(server, table, out)
    (folder / ".git").mkdir()
    for name in (".git/x", ".note.tmp"):
        (folder / name).write_text("mine")
    label.label(table, out, settings())
    assert {path.name for path in folder.iterdir()} == {".git", ".note.tmp"}
    assert (folder / ".git/x").read_text() == "mine"


def test_a_full_disk_and_a_place_that_is_none(
    server: Server, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DataError, match="cannot be written: Not a directory"):
        label.label(table, table / "o.parquet", settings())

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataError, match="cannot be written: No space left on device"):
        label.label(table, table.with_name("o.parquet"), settings())
    assert not server.asked and not leftovers(table.parent)


class Killed(BaseException):
    """What no code catches, like a kill."""


def killed_at(call: int, real: Callable[..., Any], *, after: bool) -> Callable[..., Any]:
    """`real`, until its call number `call`, just before or after it."""
    count = 0

    def wrapped(*arguments: Any, **named: Any) -> Any:
        nonlocal count
        count += 1
        if count == call and not after:
            raise Killed
        done = real(*arguments, **named)
        if count == call:
            raise Killed
        return done

    return wrapped


# Renames: settings, 3 shards, table.parquet (by write_table), done.json, the table to its place.
# Removals: 3 shards, table.parquet, settings.json, done.json, lock.
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("call", range(1, 8))
@pytest.mark.parametrize(("module", "name"), [(os, "replace"), (Path, "unlink")])
def test_a_kill_at_any_step(
    server: Server,
    table: Path,
    monkeypatch: pytest.MonkeyPatch,
    module: Any,
    name: str,
    call: int,
    after: bool,
) -> None:
    out, small = table.with_name("o.parquet"), settings(max_rows=40)
    label.label(table, table.with_name("whole.parquet"), small)
    # Nothing that a kill would skip may tidy up behind it.
    with monkeypatch.context() as patch:
        patch.setattr(shards.ShardFolder, "locked", _unlocked)
        patch.setattr(module, name, killed_at(call, getattr(module, name), after=after))
        if name == "unlink":
            # Those of the claim come first: of the same names, when nothing is there.
            patch.setattr(shards.ShardFolder, "claim", _claimed_without_emptying)
        with pytest.raises(Killed):
            label.label(table, out, small)
    for path in table.with_name("o.parquet.partial").glob("0*.parquet"):
        pq.read_table(path)
    try:
        label.label(table, out, small)
    except DataError as error:
        assert "exists already" in str(error)
    assert out.read_bytes() == table.with_name("whole.parquet").read_bytes()
    assert not leftovers(table.parent) - {"whole.parquet"}


@contextmanager
def _unlocked(self: shards.ShardFolder) -> Iterator[None]:
    """`ShardFolder.locked` whose process is killed: the system lets go of the lock, no more."""
    file = self._lock()
    self._sweep()
    try:
        yield
    finally:
        os.close(file)


def _claimed_without_emptying(
    self: shards.ShardFolder, found: dict[str, Any], *, force: bool
) -> None:
    self.digest = shards.digest_of(found)
    self._write_json(shards.SETTINGS, found)


HOLDER = """
import sys, time
from lengthpred.training.shards import ShardFolder
with ShardFolder(sys.argv[1]).locked():
    print("held", flush=True)
    time.sleep(60)
"""


def test_two_runs_at_once(server: Server, table: Path) -> None:
    out = table.with_name("o.parquet")
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(out)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with pytest.raises(DataError, match=f"another run \\(process {holder.pid}\\) is at work"):
            label.label(table, out, settings(), force=True)
        assert not server.asked
    finally:
        holder.kill()  # SIGKILL: the lock must not outlive it
        holder.wait()
        if holder.stdout is not None:
            holder.stdout.close()
    assert label.label(table, out, settings()).rows == 100
    assert not leftovers(table.parent)


def test_rows_without_an_answer_are_left_out(server: Server, table: Path) -> None:
    out = table.with_name("o.parquet")
    server.silent = {"3", "399"}
    report = label.label(table, out, settings(max_rows=None))
    assert report.rows == 398
    assert report.unanswered == [{"row": 3, "id": "3"}, {"row": 399, "id": "399"}]
    assert [row["id"] for row in rows_of(out)] == [
        str(i) for i in range(400) if str(i) not in server.silent
    ]


def test_samples_that_say_nothing_are_left_out(tmp_path: Path, table: Path) -> None:
    recorded = table_on_disk(
        tmp_path / "s.parquet", output_tokens=[[5], [6, 7]] * 200, censored=None, model=["m"] * 400
    )
    source = Source("recorded", samples=str(recorded))
    label.label(table, tmp_path / "o.parquet", LabelSettings(source, samples=2))
    lengths = [row["output_tokens"] for row in rows_of(tmp_path / "o.parquet")]
    assert lengths == [[5], [6, 7]] * 200


def test_a_server_is_asked_once_more_for_what_it_failed_at(
    server: Server, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, mute = table.with_name("o.parquet"), {"3", "50"}
    label.label(table, table.with_name("whole.parquet"), settings(max_rows=None, samples=2))
    server.asked, server.silent = [], set(mute)
    real = server.generate_lengths

    def better(requests: Sequence[Request], *rest: Any) -> Any:
        if len(server.asked) >= 400:
            server.silent.clear()
        return real(requests, *rest)

    monkeypatch.setattr(server, "generate_lengths", better)
    report = label.label(table, out, settings(max_rows=None, samples=2))
    assert [name for name, _ in server.asked[400:]] == ["3", "50"] and not report.unanswered
    assert out.read_bytes() == table.with_name("whole.parquet").read_bytes()


@pytest.mark.parametrize("fault", ["error", "unavailable", "close"])
def test_a_row_that_kills_a_server_does_not_stop_the_others(
    table: Path, monkeypatch: pytest.MonkeyPatch, fault: Any
) -> None:
    monkeypatch.setattr("lengthpred.models.backends.chat_servers.BACKOFF_S", 0.01)
    out = table.with_name("o.parquet")
    prompts = ["poison" if i == 150 else f"question {i}" for i in range(400)]
    table_on_disk(table, prompt=prompts)
    with ChatServer(poison=fault) as one:
        source = Source("openai", model="small", url=(one.url,), batch=8)
        report = label.label(table, out, settings(source, max_rows=None))
    assert report.rows == 399 and report.unanswered == [{"row": 150, "id": "150"}]


def test_a_server_that_is_down_when_it_is_asked_once_more(
    server: Server, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.silent = {"3"}
    real = server.generate_lengths

    def down(requests: Sequence[Request], *rest: Any) -> Any:
        if len(server.asked) >= 400:
            raise AllDownError("no server answers")
        return real(requests, *rest)

    monkeypatch.setattr(server, "generate_lengths", down)
    report = label.label(table, table.with_name("o.parquet"), settings(max_rows=None))
    assert report.rows == 399 and report.unanswered == [{"row": 3, "id": "3"}]


def test_servers_that_die_and_come_back(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lengthpred.models.backends.chat_servers.BACKOFF_S", 0.01)
    out, source = table.with_name("o.parquet"), Source("openai", model="small", batch=4)
    with ChatServer(delay_s=0.003) as one, ChatServer(delay_s=0.003) as two:
        both = replace(source, url=(one.url, two.url))
        label.label(table, table.with_name("whole.parquet"), settings(both))
        assert len(one.bodies) + len(two.bodies) == 100 and one.bodies and two.bodies
        one.faults = {i: "error" for i in range(len(one.bodies) + 30, 10**4)}
        two.faults = {i: "error" for i in range(len(two.bodies) + 30, 10**4)}
        with pytest.raises(BackendError, match=r"\d of 7 shards are kept: repeat the command"):
            label.label(table, out, settings(both))
    with ChatServer() as three:
        label.label(table, out, settings(replace(source, url=(three.url,))))
        assert 0 < len(three.bodies) < 100
    assert out.read_bytes() == table.with_name("whole.parquet").read_bytes()


def test_a_model_that_answers_nothing(server: Server, table: Path) -> None:
    server.silent = {str(i) for i in range(400)}
    with pytest.raises(BackendError, match="served answered none of the 100 rows"):
        label.label(table, table.with_name("o.parquet"), settings())
    assert not table.with_name("o.parquet").exists() and not leftovers(table.parent)


def test_the_rate_is_kept(server: Server, table: Path) -> None:
    begun = time.monotonic()
    label.label(table, table.with_name("o.parquet"), settings(rate=100.0, max_rows=60))
    assert 0.55 < time.monotonic() - begun < 5


def test_as_many_at_once_as_the_batch_and_a_deadline_for_each(server: Server, table: Path) -> None:
    out = table.with_name("o.parquet")
    server.wait_s = 0.01
    label.label(table, out, settings(shard_rows=2))
    assert server.busiest == 4  # over several shards
    server.busiest = 0
    label.label(table, out, settings(samples=2, deadline_s=3.0), force=True)
    assert server.busiest == 2 and server.deadlines == {None, 3.0}


def test_a_local_model_is_asked_in_batches(
    server: Server, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    real = server.generate_lengths

    def noted(requests: Sequence[Request], *rest: Any) -> Any:
        sizes.append(len(requests))
        return real([replace(r, id=r.id or "0") for r in requests], *rest)

    monkeypatch.setattr(server, "generate_lengths", noted)
    source = Source("transformers", model="org/tiny", batch=8)
    report = label.label(
        table, table.with_name("o.parquet"), settings(source, samples=2, max_rows=12, deadline_s=9)
    )
    assert sizes == [1, 4, 4, 4]  # the model is loaded before a deadline runs
    assert report.model == "org/tiny" and {seed for _, seed in server.asked} == {0}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"samples": 0}, "--samples must be 1 or more, not 0"),
        ({"cap": 0}, "--cap must be 1 or more"),
        ({"shard_rows": 0}, "--shard-rows must be 1 or more"),
        ({"max_rows": 0}, "--max-rows must be 1 or more"),
        ({"source": replace(SERVER, batch=0)}, "--batch must be 1 or more"),
        ({"rate": 0.0}, "--rate must be above 0"),
        ({"deadline_s": float("nan")}, "--deadline-s must be above 0"),
        ({"temperature": -1.0}, "--temperature must be 0 or more"),
        ({"seed": -1}, "--seed must be 0 or more"),
        ({"source": replace(SERVER, model="")}, "--model is needed"),
        ({"source": replace(SERVER, backend="openia")}, "Did you mean 'openai'?"),
    ],
)
def test_values_that_cannot_be(table: Path, change: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError) as error:
        label.label(table, table.with_name("o.parquet"), replace(settings(), **change))
    assert said in str(error.value) and not leftovers(table.parent)


def test_places_that_cannot_be_written(server: Server, table: Path) -> None:
    def said(out: Path, **options: Any) -> str:
        with pytest.raises(LengthPredError) as error:
            label.label(table, out, settings(), **options)
        return str(error.value)

    whole = table.read_bytes()
    assert "t.parquet is a table that is read" in said(table, force=True)
    assert "t.parquet exists already" in said(table)
    assert "exists already" in said(table.parent, force=True)
    folder = table.with_name("o.parquet.partial")
    folder.mkdir()
    (folder / "mine").touch()
    assert "o.parquet.partial is in the way" in said(table.with_name("o.parquet"), force=True)
    assert "'rya' is no runner" in said(table.with_name("x.parquet"), runner="rya")
    assert "--workers is for --runner ray" in said(table.with_name("x.parquet"), workers=2)
    assert table.read_bytes() == whole and not server.asked
    assert leftovers(table.parent) == {folder.name}
