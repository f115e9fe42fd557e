"""Recorded samples in place of a model."""

import shutil
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lengthpred import Request
from lengthpred.errors import BackendError
from lengthpred.manifest import sha256
from lengthpred.models.backends.base import Source, answered, open_backend
from lengthpred.models.backends.recorded import RecordedBackend

FAR = 10**6
THREE = {"a": [5, 6, 7], "b": [50, 60, 70]}


def write(path: Path, lengths: Sequence[Sequence[int]], **columns: Any) -> Path:
    """A table with a row for each list of lengths; ids r0, r1, ... unless others are given."""
    n = len(lengths)
    values: dict[str, Any] = {
        "id": [f"r{i}" for i in range(n)],
        "prompt": [f"prompt {i}" for i in range(n)],
        "output_tokens": [list(row) for row in lengths],
        "model": ["small"] * n,
    }
    kept = {name: value for name, value in (values | columns).items() if value is not None}
    pq.write_table(pa.table(kept), path)
    return path


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return write(tmp_path / "samples.parquet", list(THREE.values()), id=list(THREE))


def opened(path: Path, model: str = "", checksum: str = "") -> RecordedBackend:
    source = Source("recorded", model=model, samples=str(path), checksum=checksum)
    backend = open_backend(source)
    assert isinstance(backend, RecordedBackend)
    return backend


def prompts_of(path: Path) -> dict[str, str]:
    """The prompt of each id in a table of samples."""
    try:
        rows = pq.read_table(path).to_pylist()
    except (OSError, pa.ArrowException):
        return {}
    return {row["id"]: row["prompt"] for row in rows if row.get("id") and "prompt" in row}


def ask(
    backend: RecordedBackend, ids: Sequence[str], n: int = 1, cap: int = FAR, seed: int = 0
) -> tuple[list[list[int]], list[list[bool]]]:
    prompts = prompts_of(Path(backend.source.samples))
    requests = [Request(prompt=prompts.get(one, "any"), id=one) for one in ids]
    lengths, censored = backend.generate_lengths(requests, n, 1.0, cap, None, seed)
    assert lengths.dtype == np.int64 and censored.dtype == bool
    assert lengths.shape == censored.shape == (len(ids), n)
    return lengths.tolist(), censored.tolist()


def test_samples_are_found_by_id_in_the_order_asked(table: Path) -> None:
    assert ask(opened(table), ["b", "a", "b"], n=3) == (
        [[50, 60, 70], [5, 6, 7], [50, 60, 70]],
        [[False] * 3] * 3,
    )
    assert ask(opened(table), [], n=2) == ([], [])


def test_an_id_with_another_prompt_says_nothing(table: Path) -> None:
    both = [Request(prompt="prompt 0", id="a"), Request(prompt="of another table", id="a")]
    lengths, censored = opened(table).generate_lengths(both, 1, 1.0, FAR, None, 0)
    assert lengths.tolist() == [[5], [0]] and censored.tolist() == [[False], [True]]


def test_seeds_turn_the_samples(table: Path) -> None:
    backend = opened(table)
    assert [ask(backend, ["a"], n=2, seed=seed)[0] for seed in range(4)] == [
        [[5, 6]],
        [[6, 7]],
        [[7, 5]],
        [[5, 6]],
    ]
    # Over as many seeds as there are samples, each counts once.
    assert sorted(ask(backend, ["b"], seed=seed)[0][0][0] for seed in range(3)) == THREE["b"]


def test_rows_of_one_prompt_add_up(tmp_path: Path) -> None:
    path = write(
        tmp_path / "t.parquet",
        [[1, 2], [9], [3]],
        id=["a", "b", "a"],
        prompt=["hi", "ho", "hi"],
        censored=[[False, True], [False], [False]],
    )
    assert ask(opened(path), ["a", "b"], n=3) == (
        [[1, 2, 3], [9, 0, 0]],
        [[False, True, False], [False, True, True]],
    )


def test_what_is_missing_says_nothing_and_repeats_nothing(table: Path) -> None:
    lengths, censored = ask(opened(table), ["a", "nobody", ""], n=5, seed=1)
    assert lengths == [[6, 7, 5, 0, 0], [0] * 5, [0] * 5]
    assert censored == [[False] * 3 + [True] * 2, [True] * 5, [True] * 5]
    assert answered(np.array(lengths), np.array(censored)).tolist() == [True, False, False]


def test_a_longer_sample_is_stopped_at_the_cap(table: Path) -> None:
    assert ask(opened(table), ["a", "b"], n=3, cap=6) == (
        [[5, 6, 6], [6, 6, 6]],
        [[False, False, True], [True, True, True]],
    )


def test_what_was_stopped_in_the_recording_stays_stopped(tmp_path: Path) -> None:
    path = write(tmp_path / "t.parquet", [[5, 80]], censored=[[True, False]])
    assert ask(opened(path), ["r0"], n=2, cap=40) == ([[5, 40]], [[True, True]])


def test_one_of_several_models_is_named(tmp_path: Path) -> None:
    two = {"id": ["a", "a"], "prompt": ["hi", "hi"], "model": ["small", "large"]}
    path = write(tmp_path / "t.parquet", [[1], [2]], **two)
    with pytest.raises(BackendError, match=r"samples of 2 models: name one .*\(large, small\)"):
        ask(opened(path), ["a"])
    assert ask(opened(path, model="large"), ["a"])[0] == [[2]]
    with pytest.raises(BackendError, match="no rows of the model 'medium'"):
        ask(opened(path, model="medium"), ["a"])


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"id": ["a", "a"]}, "two prompts with the id 'a'"),
        ({"id": ["a", ""]}, "rows without an id"),
        ({"id": ["a", None]}, "rows without an id"),
        ({"id": None}, "rows without an id"),
        ({"prompt": None}, "has no column 'prompt'"),
    ],
)
def test_tables_in_which_nothing_can_be_found(
    tmp_path: Path, columns: dict[str, Any], message: str
) -> None:
    path = write(tmp_path / "t.parquet", [[1], [2]], **columns)
    with pytest.raises(BackendError, match=message):
        ask(opened(path), ["a"])


def test_another_models_doubtful_ids_do_no_harm(tmp_path: Path) -> None:
    columns = {"id": ["a", "", ""], "model": ["small", "large", "large"]}
    path = write(tmp_path / "t.parquet", [[1], [2], [3]], **columns)
    assert ask(opened(path, model="small"), ["a"])[0] == [[1]]


def test_no_table(tmp_path: Path) -> None:
    backend = opened(tmp_path / "none.parquet")  # nothing is read before the first question
    for question in (lambda: ask(backend, ["a"]), backend.checksum):
        with pytest.raises(BackendError, match=r"none\.parquet"):
            question()
    (tmp_path / "text.parquet").write_text("not a table")
    with pytest.raises(BackendError, match=r"text\.parquet is not a Parquet file"):
        ask(opened(tmp_path / "text.parquet"), ["a"])


def test_the_table_must_be_the_one_that_was_trained_with(table: Path) -> None:
    known = opened(table).checksum()
    assert known == sha256(table.read_bytes())
    backend = opened(table, checksum=known)
    assert ask(backend, ["a"])[0] == [[5]]
    write(table, [[1]], id=["a"])
    assert ask(backend, ["a"])[0] == [[5]]  # it was read before
    backend.close()
    with pytest.raises(BackendError, match="not the table of samples that this predictor was"):
        ask(backend, ["a"])
    # A table that may be any is read again.
    free = opened(table)
    assert ask(free, ["a"])[0] == [[1]]
    write(table, [[2]], id=["a"])
    free.close()
    assert ask(free, ["a"])[0] == [[2]]


def test_a_table_that_was_missing_is_read_once_it_is_there(table: Path, tmp_path: Path) -> None:
    backend = opened(tmp_path / "later.parquet")
    with pytest.raises(BackendError):
        ask(backend, ["a"])
    shutil.copy(table, tmp_path / "later.parquet")
    assert ask(backend, ["a"])[0] == [[5]]


def test_many_threads_read_it_once(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, reads = RecordedBackend._read, []

    def counted(backend: RecordedBackend) -> Any:
        reads.append(threading.get_ident())
        return read(backend)

    monkeypatch.setattr(RecordedBackend, "_read", counted)
    backend, start = opened(table), threading.Barrier(8)

    def work(thread: int) -> bool:
        start.wait(10)
        asked = (ask(backend, ["a", "b"], n=3, seed=seed + thread) for seed in range(30))
        return all(
            found == [np.roll(row, -(seed + thread)).tolist() for row in THREE.values()]
            for seed, (found, _) in enumerate(asked)
        )

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))
    assert len(reads) == 1


def test_closing_while_others_ask_is_safe(table: Path) -> None:
    backend, stop = opened(table), threading.Event()

    def close() -> None:
        while not stop.is_set():
            backend.close()

    with ThreadPoolExecutor(3) as pool:
        closing = pool.submit(close)
        asking = [pool.submit(ask, backend, ["a"], 3, FAR, seed) for seed in range(60)]
        found = [one.result()[0][0] for one in asking]
        stop.set()
        closing.result(10)
    assert found == [np.roll(THREE["a"], -seed).tolist() for seed in range(60)]


def test_what_it_was_made_of_can_be_kept(table: Path) -> None:
    source = Source("recorded", samples=str(table), model="small")
    assert Source.from_json(source.as_json()) == source
    other = open_backend(replace(source, model=""))
    assert isinstance(other, RecordedBackend) and ask(other, ["b"])[0] == [[50]]
