"""`lengthpred drift`, as a user runs it."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.builders import synthetic_rows
from tests.cli.commands import answered, artifact, refused
from tests.row_tables import write_rows


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return artifact(tmp_path)


def table(path: Path, factor: float, **columns: object) -> Path:
    rows = synthetic_rows(600, seed=7)
    lengths = np.where(np.arange(600) < 300, rows.truth, rows.truth * factor).astype(np.int64)
    return write_rows(path, rows, lengths, **columns)


def test_a_table_that_drifts(folder: Path, tmp_path: Path) -> None:
    times = (1.76e9 + 60.0 * np.arange(600)).tolist()
    data = table(tmp_path / "t.parquet", 6, arrival_s=times)
    out, err = answered("drift", folder, "--data", data)
    assert "301 - 400" in out and "corrected" in out and not err
    assert "UTC) all traffic: lengths run longer than predicted" in out


@pytest.mark.parametrize(
    ("scale", "said"), [(1e3, " (arrival_s 17600"), (1e9, " (arrival_s 1.7600")]
)
def test_times_in_other_units_are_told_as_they_are(
    folder: Path, tmp_path: Path, scale: float, said: str
) -> None:
    times = (scale * (1.76e9 + 60.0 * np.arange(600))).tolist()
    data = table(tmp_path / "t.parquet", 6, arrival_s=times)
    out, _ = answered("drift", folder, "--data", data)
    assert said in out


def test_as_json(folder: Path, tmp_path: Path) -> None:
    data = table(tmp_path / "t.parquet", 6)
    out, _ = answered("drift", folder, "--data", data, "--window", 150, "--json")
    found = json.loads(out)
    assert [one["end"] for one in found["windows"]] == [150, 300, 450, 600]
    last = found["windows"][-1]
    assert last["coverage_80_corrected"] > last["coverage_80"] + 0.1
    first = found["alarms"][0]
    assert first["key"] == "all traffic" and first["arrival_s"] is None
    assert 300 < first["at"] < 400 and first["sentence"].startswith("all traffic: ")
    higher, _ = answered("drift", folder, "--data", data, "--threshold", 60, "--json")
    assert json.loads(higher)["alarms"][0]["at"] > first["at"]


def test_a_table_that_does_not(folder: Path, tmp_path: Path) -> None:
    out, _ = answered("drift", folder, "--data", table(tmp_path / "t.parquet", 1))
    assert "no alarm: lengths are as predicted" in out


def test_what_is_refused(folder: Path, tmp_path: Path) -> None:
    assert "is not a file" in refused("drift", folder, "--data", tmp_path / "none.parquet")
    data = table(tmp_path / "t.parquet", 1)
    assert "nowhere" in refused("drift", tmp_path / "nowhere", "--data", data)
