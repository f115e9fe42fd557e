"""eval.json, eval.csv and the chart as files."""

import csv
import json
import os
import re
from dataclasses import replace
from pathlib import Path

import pytest

from lengthpred.errors import DataError
from lengthpred.eval.output import (
    Document,
    Result,
    check_out,
    read_results,
    write_results,
    write_whole,
)

ROWS = [
    Result("boosted", "mix", 0.0, "tau", 0.4, 0.35, 0.45, 100),
    Result("boosted", "ood", None, "tau", 0.1, 0.05, 0.15, 60),
    Result("boosted", "all", None, "us_per_request_p50", 120.5, None, None, 500),
]
DOCUMENT = Document("lengthpred eval boosted --data t.parquet", "ab" * 32, 7, ROWS)


def test_the_format_is_fixed(tmp_path: Path) -> None:
    write_results(DOCUMENT, tmp_path / "new" / "out")
    assert json.loads((tmp_path / "new/out/eval.json").read_text()) == {
        "format_version": 1,
        "command": "lengthpred eval boosted --data t.parquet",
        "data_sha256": "ab" * 32,
        "seed": 7,
        "rows": [
            {
                "predictor": "boosted",
                "split": "mix",
                "ood_ratio": 0.0,
                "metric": "tau",
                "value": 0.4,
                "low": 0.35,
                "high": 0.45,
                "n": 100,
            },
            {
                "predictor": "boosted",
                "split": "ood",
                "ood_ratio": None,
                "metric": "tau",
                "value": 0.1,
                "low": 0.05,
                "high": 0.15,
                "n": 60,
            },
            {
                "predictor": "boosted",
                "split": "all",
                "ood_ratio": None,
                "metric": "us_per_request_p50",
                "value": 120.5,
                "low": None,
                "high": None,
                "n": 500,
            },
        ],
    }


def test_what_is_written_can_be_read(tmp_path: Path) -> None:
    document, table = write_results(DOCUMENT, tmp_path)
    assert read_results(document) == DOCUMENT
    with table.open() as file:
        lines = list(csv.DictReader(file))
    assert lines[0]["value"] == "0.4" and lines[2]["low"] == "" and len(lines) == 3
    assert {path.name for path in tmp_path.iterdir()} == {"eval.json", "eval.csv"}


def test_results_are_replaced_only_by_force(tmp_path: Path) -> None:
    write_results(DOCUMENT, tmp_path)
    with pytest.raises(DataError, match="--force"):
        write_results(DOCUMENT, tmp_path)
    write_results(Document("again", "", 0, []), tmp_path, force=True)
    assert read_results(tmp_path / "eval.json").command == "again"
    with pytest.raises(DataError, match="is a file"):
        write_results(DOCUMENT, tmp_path / "eval.json")


def test_a_nan_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    broken = Document("", "", 0, [Result("p", "in", 0.0, "tau", float("nan"), None, None, 1)])
    with pytest.raises(ValueError, match="JSON compliant"):
        write_results(broken, tmp_path)
    assert not list(tmp_path.iterdir())


NONE = "eval.json is not the eval.json of an evaluation"
OTHER = "is a simulate.json (or other document), not the eval.json of an evaluation"
NO_SCORE = f"{NONE}: row 1 of its 3 rows holds no score"


def changed(old: str, new: str) -> str:
    """The text of a whole eval.json with the first of one piece replaced."""
    text = json.dumps(DOCUMENT.as_json())
    assert old in text
    return text.replace(old, new, 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", NONE),
        ("{", NONE),
        ("{}", NONE),
        ("[1]", NONE),
        ("[" * 100_000, NONE),
        ("9" * 5000, NONE),
        (
            '{"format_version": 9}',
            "version 9; this lengthpred reads version 1: run the evaluation again",
        ),
        ('{"format_version": true}', NONE),
        ('{"format_version": 1, "command": "", "data_sha256": "", "seed": 0}', NONE),
        (changed('"seed": 7', '"seed": Infinity'), NONE),
        (changed('"seed": 7', '"seed": true'), NONE),
        (changed('"seed": 7', '"seed": "7"'), NONE),
        (changed('"n": 100', '"policy": "sjf"'), OTHER),
        (changed('"rows": [', '"rows": [1, '), OTHER),
        (changed("0.4,", '"high",'), NO_SCORE),
        (changed("0.4,", "NaN,"), NO_SCORE),
        (changed("0.4,", "true,"), NO_SCORE),
        (changed("0.4,", "9" * 400 + ","), NO_SCORE),
        (changed('"n": 100', '"n": true'), NO_SCORE),
        (changed('"n": 100', '"n": -1'), NO_SCORE),
        (changed('"n": 100', '"n": null'), NO_SCORE),
        (changed('"mix"', "5"), NO_SCORE),
        (changed('"ood_ratio": 0.0', '"ood_ratio": false'), NO_SCORE),
        (changed("0.35", "null"), NO_SCORE),
        (changed("0.45", "null"), NO_SCORE),
        (changed("0.45", "0.3"), NO_SCORE),
        (changed("0.45", "Infinity"), NO_SCORE),
    ],
)
def test_what_is_no_result_is_an_error(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "eval.json").write_text(text)
    with pytest.raises(DataError, match=f"^{re.escape(str(tmp_path))}.*{re.escape(message)}$"):
        read_results(tmp_path / "eval.json")


def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent.json"):
        with pytest.raises(DataError, match="cannot be read: "):
            read_results(path)
    (tmp_path / "eval.json").write_bytes(b"\xff")
    with pytest.raises(DataError, match=NONE):
        read_results(tmp_path / "eval.json")


def test_half_a_surrogate_pair_is_written_and_read_back(tmp_path: Path) -> None:
    name = b"caf\xe9".decode("utf-8", "surrogateescape")
    document = Document(f"lengthpred eval {name}", "", 0, [replace(ROWS[0], predictor=name)])
    path, table = write_results(document, tmp_path)
    assert read_results(path) == document
    assert "caf\\udce9" in table.read_text("utf-8")
    write_whole(tmp_path / "report.html", name)
    assert (tmp_path / "report.html").read_bytes() == b"caf\\udce9"


def test_a_folder_that_takes_no_files_is_refused_and_none_is_made(tmp_path: Path) -> None:
    check_out(tmp_path / "a" / "b", force=False)
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").touch()
    (tmp_path / "nowhere").symlink_to(tmp_path / "absent")
    for name in ("file", "nowhere"):
        with pytest.raises(DataError, match=f"as .*/{name} is no folder: choose another --out"):
            check_out(tmp_path / name / "out", force=True)


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="there is no /proc")
def test_what_even_root_cannot_write_to_is_refused() -> None:
    with pytest.raises(DataError, match="nothing can be written to /proc/foo, as /proc takes no"):
        check_out("/proc/foo", force=False)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write to any folder")
def test_a_folder_without_permission_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(DataError, match="takes no files"):
        check_out(tmp_path / "out", force=False)
    tmp_path.chmod(0o700)
