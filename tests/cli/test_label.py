"""`lengthpred label`, as a user runs it, and as a user kills it."""

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from lengthpred.cli.app import app
from lengthpred.errors import LengthPredError
from tests.cli.commands import answered, artifact, refused
from tests.data_files import lengthpred, rows_of, write_lines
from tests.models.backends.server import ChatServer
from tests.training.tables import table_on_disk

ROWS = 400
SHARD = ("--shard-rows", 8)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A table and, beside it, s.parquet: three samples of a model for each of its rows."""
    samples = [[i % 90, 7 * i % 90, 11 * i % 90] for i in range(ROWS)]
    table_on_disk(
        tmp_path / "s.parquet", output_tokens=samples, censored=None, model=["small"] * ROWS
    )
    return table_on_disk(tmp_path / "t.parquet")


def arguments(table: Path, out: str = "o.parquet") -> list[object]:
    recorded = ("--backend", "recorded", "--samples-table", table.with_name("s.parquet"))
    return ["label", table, *recorded, "--out", table.with_name(out), "--samples", 2]


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"t.parquet", "s.parquet"}


def test_recorded_answers(table: Path) -> None:
    out, err = answered(*arguments(table), "--cap", 80)
    assert f"o.parquet: {ROWS} rows answered by small, 800 samples, " in out and not err
    out, err = answered(*arguments(table, "p.parquet"), "--cap", 80, "--json")
    report = json.loads(out)
    rows = rows_of(table.with_name("p.parquet"))
    assert report["rows"] == len(rows) == ROWS and report["unanswered"] == [] and not err
    assert report["tokens"] == sum(sum(row["output_tokens"]) for row in rows)
    assert report["censored"] == sum(sum(row["censored"]) for row in rows) > 0
    assert names(table.parent) == {"o.parquet", "p.parquet"}
    first, second = (table.with_name(name).read_bytes() for name in ("o.parquet", "p.parquet"))
    assert first == second


def test_rows_without_answers_are_named(table: Path) -> None:
    ids = ["[x]", "new", *map(str, range(2, ROWS))]
    table_on_disk(table, id=ids)
    out, _ = answered(*arguments(table))
    assert "left out: 2 rows without any answer ([x], new)" in out
    assert [row["id"] for row in rows_of(table.with_name("o.parquet"))] == ids[2:]


def said_in_process(*options: object) -> str:
    """The error of a command, without the second that a process takes."""
    result = CliRunner().invoke(app, list(map(str, options)))
    assert isinstance(result.exception, LengthPredError) and not result.stdout
    return str(result.exception)


def test_a_server(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lengthpred.models.backends.chat_servers.BACKOFF_S", 0.01)
    asked = ("label", table, "--backend", "openai", "--model", "small")
    to = ("--out", table.with_name("never"))
    with ChatServer() as server:
        at = ("--url", server.url)
        out, _ = answered(*asked, *at, "--out", table.with_name("o.parquet"))
        assert f"o.parquet: {ROWS} rows answered by small, {ROWS} samples" in out
        said = said_in_process(*asked, *at, *to, "--model", "large")
        assert "no server has the model 'large'" in said
    assert "no server answers" in said_in_process(*asked, *at, *to)
    assert names(table.parent) == {"o.parquet"}


def test_what_is_refused(table: Path) -> None:
    to = ("--out", table.with_name("never"))
    assert "absent is not a file" in refused(*arguments(table), "--samples-table", "absent")
    assert "--cap must be 1 or more, not 0" in refused(*arguments(table), "--cap", 0)
    assert "Did you mean 'openai'?" in refused("label", table, *to, "--backend", "openia")
    assert not names(table.parent)


def test_what_else_is_refused(table: Path) -> None:
    start = ["label", table, "--out", table.with_name("never"), "--backend"]
    good = arguments(table, "never")

    said = said_in_process
    assert "--backend openai needs --url" in said(*start, "openai", "--model", "m")
    assert "--model is needed" in said(*start, "openai", "--url", "http://localhost:1/v1")
    assert "--backend transformers needs --model" in said(*start, "transformers")
    assert "--backend recorded needs --samples-table" in said(*start, "recorded")
    absent = ("--samples-table", table.with_name("absent"), "--model", "m")
    assert "absent cannot be read" in said(*start, "recorded", *absent)
    assert "--url is for --backend openai, not recorded" in said(*good, "--url", "http://x")
    assert "has no rows of the model 'm'" in said(*good, "--model", "m")
    assert "absent is not a file" in said("label", table.with_name("absent"), *good[2:])
    assert "t.parquet exists already" in said(*good, "--out", table)
    assert "'rya' is no runner. Did you mean 'ray'?" in said(*good, "--runner", "rya")
    assert "--workers must be 1 or more" in said(*good, "--runner", "ray", "--workers", 0)
    assert not names(table.parent)


def test_the_extra_is_named(table: Path) -> None:
    table.with_name("ray.py").write_text("raise ModuleNotFoundError('hidden', name='ray')")
    hidden = {"PYTHONPATH": str(table.parent)}
    said = refused(*arguments(table), "--runner", "ray", env=hidden)
    assert "--runner ray needs the package 'ray': pip install 'lengthpred[ray]'" in said
    assert names(table.parent) - {"__pycache__"} == {"ray.py"}


# A disk on which each sync takes its time, so that moments of kills fall into every step.
SLOW_DISK = """
import os, time
real = os.fsync
os.fsync = lambda file: (time.sleep(0.04), real(file))[1]
"""


def kill_and_repeat(table: Path, kills: int) -> None:
    """Labels again and again, killed that many times, then left alone."""
    answered(*arguments(table, "whole.parquet"))
    whole = table.with_name("whole.parquet").read_bytes()
    disk = table.with_name("disk")
    disk.mkdir()
    (disk / "sitecustomize.py").write_text(SLOW_DISK)
    out, folder = table.with_name("o.parquet"), table.with_name("o.parquet.partial")
    command = [sys.executable, "-m", "lengthpred.cli"]
    command += map(str, [*arguments(table), "--shard-rows", "25", "--rate", "2000"])
    rng = random.Random(5)
    hit = finished = 0
    while hit < kills:
        run = subprocess.Popen(
            command,
            env=os.environ | {"PYTHONPATH": str(disk)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        # A third at any moment, a third at any of the labelling, a third at the end.
        sign = (None, "lock", ".table.parquet.*")[hit % 3]
        while sign and run.poll() is None and not any_of(folder, sign, run.pid):
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 1.5 if sign is None else 0.3))
        run.kill()
        _, said = run.communicate()
        for path in (path for path in folder.glob("0*.parquet")):
            assert pq.read_metadata(path).num_rows == 25
        assert not out.exists() or out.read_bytes() == whole
        if run.returncode == -9:
            hit += 1
        else:
            assert run.returncode == 0 or "exists already" in said, said
            assert out.read_bytes() == whole and not folder.exists()
            out.unlink()
            finished += 1
    if out.exists() and not folder.exists():
        return  # the last kill came when all was done
    answered(*command[3:])
    assert out.read_bytes() == whole
    assert names(table.parent) == {"o.parquet", "whole.parquet", "disk"}
    ids = [row["id"] for row in rows_of(out)]
    assert ids == [str(i) for i in range(ROWS)]


def any_of(folder: Path, sign: str, pid: int) -> bool:
    """Whether the run with this pid has come so far that there is a file of that name."""
    try:
        mine = (folder / "lock").read_text() == f"{pid}\n"
    except FileNotFoundError:
        return False
    return mine and any(folder.glob(sign))


def test_killed_three_times(table: Path) -> None:
    kill_and_repeat(table, 3)


@pytest.mark.slow
def test_killed_twenty_times(table: Path) -> None:
    kill_and_repeat(table, 20)


@pytest.mark.slow
def test_ray_makes_the_same_table(table: Path) -> None:
    pytest.importorskip("ray.data")
    answered(*arguments(table), *SHARD)
    ray = (*SHARD, "--runner", "ray", "--workers", 2, "--rate", 100, "--json")
    out, err = answered(*arguments(table, "r.parquet"), *ray, apart=True)
    report = json.loads(out)
    assert table.with_name("o.parquet").read_bytes() == table.with_name("r.parquet").read_bytes()
    # Both had work, at the pace that is asked for: 400 rows take 4 s, 2 s of which each.
    assert len(report["workers"]) == 2 and sum(report["workers"].values()) == 50
    assert min(report["workers"].values()) >= 10
    assert not err and names(table.parent) == {"o.parquet", "r.parquet"}
    # What goes wrong in a worker is said as it is elsewhere.
    asked = (*arguments(table, "never"), *ray, "--model", "large")
    code, out, err = lengthpred(*asked, apart=True)
    # Ray may tell stdout of an actor that it ended itself.
    own = [line for line in out.splitlines() if "(raylet)" not in line]
    assert (code, own) == (2, []) and "Traceback" not in err, err
    assert err.endswith(f"{table.with_name('s.parquet')} has no rows of the model 'large'\n")
    assert names(table.parent) == {"o.parquet", "r.parquet"}


@pytest.mark.slow
def test_ray_predicts_in_the_order_of_the_file(tmp_path: Path) -> None:
    pytest.importorskip("ray.data")
    rows = [{"prompt": f"poem of {'snow ' * (i % 50)}", "id": f"\ud800{i}"} for i in range(5000)]
    file = write_lines(tmp_path / "a.jsonl", rows)
    asked = ("predict", "--artifact", artifact(tmp_path), "--file", file)
    assert answered(*asked) == answered(*asked, "--runner", "ray", apart=True)


def test_prompts_alone_are_enough(table: Path) -> None:
    rows = pq.read_table(table)
    bare = table.with_name("bare.parquet")
    pq.write_table(rows.select(["id", "prompt"]), bare)
    answered(*arguments(table))
    answered(*arguments(bare, "b.parquet"))
    whole, found = (pq.read_table(table.with_name(name)) for name in ("o.parquet", "b.parquet"))
    for name in ("id", "prompt", "output_tokens", "model", "censored"):
        assert found[name].to_pylist() == whole[name].to_pylist()


def test_ray_is_for_files(tmp_path: Path) -> None:
    said = refused("predict", "text", "--artifact", artifact(tmp_path), "--runner", "ray")
    assert "--runner and --workers are for --file" in said
