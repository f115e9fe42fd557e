"""eval.json, eval.csv and the chart as files."""

import csv
import json
from pathlib import Path

import pytest

from lengthpred.errors import DataError
from lengthpred.eval.output import Document, Result, read_results, write_results

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


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not the eval.json"),
        ("[]", "is not the eval.json"),
        ('{"format_version": 9}', "format version 9"),
        ('{"format_version": 1, "command": "", "data_sha256": "", "seed": 0}', "'rows'"),
        (json.dumps(DOCUMENT.as_json()).replace("0.4,", '"high",'), "is not the eval.json"),
        (json.dumps(DOCUMENT.as_json()).replace("0.4,", "NaN,"), "no score"),
    ],
)
def test_what_is_no_result_is_an_error(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "eval.json").write_text(text)
    with pytest.raises(DataError, match=message):
        read_results(tmp_path / "eval.json")
    with pytest.raises(DataError, match="cannot be read"):
        read_results(tmp_path / "absent.json")
