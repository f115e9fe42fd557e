"""True lengths on disk: whole after a crash, bounded, and back in a table."""

import fcntl
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lengthpred.base import Request
from lengthpred.data.importing import import_table
from lengthpred.data.table import Table
from lengthpred.errors import DataError, SettingsError
from lengthpred.openai_body import request_from_body
from lengthpred.serving.feedback import FeedbackLog

WAIT_S = 30.0
REQUESTS = [Request(prompt=f"list {i} rivers", model="m", prompt_tokens=9) for i in range(40)]


def table(folder: Path, out: Path) -> Table:
    import_table(folder, "served", out, force=True)
    return Table(out)


def wait_for(log: FeedbackLog, rows: int) -> None:
    end = time.monotonic() + WAIT_S
    while log.written < rows:
        assert time.monotonic() < end
        time.sleep(0.01)


def test_what_was_kept_comes_back_as_a_table(tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    with FeedbackLog(folder, keep_prompts=True, every_s=0.01) as log:
        log.add(REQUESTS, list(range(40)), [i == 7 for i in range(40)])
        wait_for(log, 40)
        # While the server runs, too.
        assert len(table(folder, tmp_path / "t.parquet")) == 40
        log.add(REQUESTS[:1], [99], [False])
    assert [path.suffix for path in folder.iterdir()] == [".parquet"]
    rows = table(folder, tmp_path / "t.parquet").rows()
    assert [r.prompt for r in rows.requests] == [r.prompt for r in REQUESTS] + [REQUESTS[0].prompt]
    assert rows.truth.tolist() == [*range(40), 99] and rows.truth_censored.tolist()[7]
    assert rows.requests[0].prompt_tokens == 9 and rows.columns["arrival_s"].min() > 1.7e9


def test_turns_of_a_conversation_are_one_group(tmp_path: Path) -> None:
    talk = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    more = [*talk, {"role": "assistant", "content": "Hello"}, {"role": "user", "content": "Why?"}]
    long = [*more, {"role": "assistant", "content": "x" * 5000}, {"role": "user", "content": "So?"}]
    other = [talk[0], {"role": "user", "content": "Ho"}]
    bodies = [{"messages": messages} for messages in (talk, more, long, other, other[1:])]
    with FeedbackLog(tmp_path / "kept", keep_prompts=True) as log:
        log.add([request_from_body(body) for body in bodies], [1] * 5, [False] * 5)
    rows = table(tmp_path / "kept", tmp_path / "t.parquet").rows()
    first, second, lost, another, bare = rows.groups.tolist()
    # How the third turn's conversation began is not known any more.
    assert first == second and len({first, lost, another, bare}) == 4
    assert rows.columns["turn"].tolist() == [0, 1, 2, 0, 0]


def test_prompts_are_not_kept_unless_asked_for(tmp_path: Path) -> None:
    secret = Request(prompt="my secret", context="user: my secret", model="m")
    with FeedbackLog(tmp_path / "kept") as log:
        log.add([secret], [5], [False])
    assert not any(b"secret" in path.read_bytes() for path in (tmp_path / "kept").iterdir())
    assert table(tmp_path / "kept", tmp_path / "t.parquet").rows().requests[0].prompt == ""


def test_full_files_become_parquet_and_the_oldest_go(tmp_path: Path) -> None:
    # A row is some 250 bytes: 40 make a file full, and two files of Parquet are too many.
    with FeedbackLog(tmp_path, every_s=0.01, roll_mb=0.005, most_mb=0.02) as log:
        for i in range(8):
            log.add(REQUESTS, [i] * 40, [False] * 40)
            wait_for(log, 40 * (i + 1))
    whole = sorted(tmp_path.glob("*.parquet"))
    assert 1 <= len(whole) < 8 and sum(path.stat().st_size for path in whole) < 40_000
    last = [Table(path).rows().truth.max() for path in whole]
    assert last == sorted(last) and last[-1] == 7 and last[0] > 0


def test_a_crash_loses_at_most_the_last_second(tmp_path: Path) -> None:
    """A process that is killed leaves its lines; the next one makes Parquet of them."""
    script = (
        "import sys, time, os\n"
        "from pathlib import Path\n"
        "from lengthpred.base import Request\n"
        "from lengthpred.serving.feedback import FeedbackLog\n"
        "log = FeedbackLog(Path(sys.argv[1]), every_s=0.05)\n"
        "log.add([Request(model='m')] * 100, list(range(100)), [False] * 100)\n"
        "while log.written < 100: time.sleep(0.01)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False)
    assert done.returncode == -9
    (left,) = tmp_path.glob("*.jsonl")
    with left.open("a") as broken:
        broken.write('{"output_tokens": [1')
    with FeedbackLog(tmp_path):
        pass
    (whole,) = tmp_path.iterdir()
    assert whole.suffix == ".parquet" and Table(whole).rows().truth.tolist() == list(range(100))


def test_files_of_a_living_server_are_left_alone(tmp_path: Path) -> None:
    """Whatever its process is numbered: in containers each server has number 1."""
    with FeedbackLog(tmp_path, every_s=0.01) as log:
        log.add(REQUESTS, [1] * 40, [False] * 40)
        wait_for(log, 40)
        other = tmp_path / f"lengths-00000000000000000001-{os.getpid()}-1.jsonl"
        other.write_text(json.dumps({"output_tokens": [3], "prompt": "", "model": "m"}) + "\n")
        with other.open() as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            with FeedbackLog(tmp_path):
                pass
            assert other.exists() and len(list(tmp_path.glob("*.jsonl"))) == 2
            report = import_table(tmp_path, "served", tmp_path / "t.parquet")
            assert report.rows == 41
        with FeedbackLog(tmp_path):
            pass
        assert not other.exists() and len(list(tmp_path.glob("*.jsonl"))) == 1
        assert import_table(tmp_path, "served", tmp_path / "t.parquet", force=True).rows == 41


def test_a_disk_that_is_full_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Lines that cannot become Parquet stay lines, and what comes later is kept."""

    def full(*_: object, **__: object) -> None:
        raise DataError("no space left on device")

    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "lengths-x.jsonl").write_text('{"output_tokens": [3], "prompt": "", "model": "m"}\n')
    with monkeypatch.context() as patch:
        patch.setattr("lengthpred.data.table.write_table", full)
        with FeedbackLog(kept, every_s=0.01, roll_mb=0.001) as log:
            for i in range(3):
                log.add(REQUESTS, [i] * 40, [False] * 40)
                wait_for(log, 40 * (i + 1))
        assert log.dropped == 0 and "no space left" in caplog.text
    assert not list(kept.glob("*.parquet"))
    with FeedbackLog(kept):
        pass
    assert {path.suffix for path in kept.iterdir()} == {".parquet"}
    assert len(table(kept, tmp_path / "t.parquet")) == 121


def test_too_many_at_once_are_counted(tmp_path: Path) -> None:
    with FeedbackLog(tmp_path, waiting=10, every_s=60) as log:
        log.add(REQUESTS, [1] * 40, [False] * 40)
        assert log.dropped == 30
    assert len(Table(next(tmp_path.glob("*.parquet")))) == 10


def test_a_folder_that_cannot_be_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="cannot be written"):
        FeedbackLog(tmp_path / "file")
    with pytest.raises(DataError, match="holds no lengths"):
        import_table(tmp_path, "served", tmp_path / "t.parquet")
