"""One bad line or cell costs that record, never the import."""

import json
from pathlib import Path
from typing import Any

import pytest

from lengthpred.data.importing import import_table
from lengthpred.data.readers.base import length_fault
from lengthpred.data.report import ImportReport
from lengthpred.data.table import Table
from tests.data_files import rows_of, write_csv, write_lines

HUGE = 10**400
ANSWER = {"choices": [{"text": "abcd", "finish_reason": "stop"}]}


def imported(path: Path, format: str) -> tuple[list[dict[str, Any]], ImportReport]:
    report = import_table(path, format, path.parent / "out.parquet", force=True)
    return rows_of(path.parent / "out.parquet"), report


def examples(report: ImportReport) -> dict[str, list[str]]:
    return {reason: entry.examples for reason, entry in report.dropped.items()}


@pytest.mark.parametrize("name", ["max_tokens", "temperature", "arrival_s", "created"])
def test_optional_numbers_of_a_log_count_as_absent(tmp_path: Path, name: str) -> None:
    bad: list[object] = [HUGE, float("inf"), -1, "9", {}]
    lines = [{"prompt": "p", name: given, **ANSWER} for given in bad]
    rows, report = imported(write_lines(tmp_path / "a.jsonl", lines), "openai")
    column = "arrival_s" if name == "created" else name
    assert [row[column] for row in rows] == [None] * 5 and not report.dropped


def test_usage_of_a_log(tmp_path: Path) -> None:
    usages = [
        {"completion_tokens": 7, "prompt_tokens": HUGE},
        {"completion_tokens": HUGE, "prompt_tokens": 7},
        {"completion_tokens": 2**31},
        {"completion_tokens": 2**31 - 1},
    ]
    lines = [{"prompt": "p", "usage": usage, **ANSWER} for usage in usages]
    rows, report = imported(write_lines(tmp_path / "a.jsonl", lines), "openai")
    assert [row["output_tokens"] for row in rows] == [[7], [2**31 - 1]]
    assert rows[0]["prompt_tokens"] is None
    assert examples(report) == {"length is too large": ["line 2", "line 3"]}


@pytest.mark.parametrize("reason", [{"a": 1}, 5, ["x"], "a\ud83d"])
def test_why_an_answer_ended(tmp_path: Path, reason: object) -> None:
    output = [{"content": [{"text": "12345"}]}]
    answer = {"output": output, "incomplete_details": {"reason": reason}}
    chosen = {"choices": [{"text": "abcd", "finish_reason": reason}]}
    asked = {"prompt": "p", "group": reason, "tenant": reason}
    lines = [{**asked, "response": answer}, {**asked, "response": chosen}]
    rows, report = imported(write_lines(tmp_path / "a.jsonl", lines), "openai")
    kept = "a\ufffd" if isinstance(reason, str) else None
    for row in rows:
        assert (row["finish_reason"], row["tenant"]) == ([kept], kept)
        assert row["group"] == kept or not kept  # then it is known by its text
    assert len(rows) == 2 and not report.dropped


def test_a_line_of_the_requests_that_is_nested_too_deeply(tmp_path: Path) -> None:
    requests = tmp_path / "in.jsonl"
    requests.write_text("[" * 100_000 + '\n{"custom_id": "r", "body": {"prompt": "p"}}\n')
    path = write_lines(tmp_path / "a.jsonl", [{"custom_id": "r", "response": ANSWER}])
    report = import_table(path, "openai", tmp_path / "out.parquet", requests=requests)
    assert report.rows == 1


@pytest.mark.parametrize(
    ("name", "cell", "reason"),
    [
        ("output_tokens", "9" * 400, "length is too large"),
        ("output_tokens", str(2**31), "length is too large"),
        ("output_tokens", "1e999", "length is too large"),
        ("output_tokens", "[" * 100_000, "wrong type"),
        ("reply_tokens", "[" * 100_000, "wrong type"),
        ("reply_tokens", f"[{'9' * 30}]", "length is too large"),
        ("reply_tokens", "[4, -1]", "negative length"),
        ("reply_tokens", "[4, null]", "a number is missing"),
        ("reply_tokens", '["4"]', "wrong type"),
        ("prompt_tokens", "-1", "negative length"),
        ("max_tokens", "-1", "negative length"),
        ("max_tokens", "9" * 400, "length is too large"),
        ("temperature", "9" * 400, "is too large"),
        ("arrival_s", "1e999", "is too large"),
    ],
    ids=range(14),
)
def test_a_cell_of_csv(tmp_path: Path, name: str, cell: str, reason: str) -> None:
    names = ["prompt", "output_tokens", *([] if name == "output_tokens" else [name])]
    bad = ["a", cell] if name == "output_tokens" else ["a", 5, cell]
    good = ["b", 6] if name == "output_tokens" else ["b", 6, ""]
    rows, report = imported(write_csv(tmp_path / "a.csv", [names, bad, good]), "csv")
    assert [row["prompt"] for row in rows] == ["b"]
    ((told, places),) = examples(report).items()
    assert reason in told and places == ["line 2"]
    assert name == "output_tokens" or name in told


def test_empty_cells_hold_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("prompt,output_tokens,group,domain,tenant\na,5,,,\nb,6, ,,\nc,7,g,law,t\n")
    rows, _ = imported(path, "csv")
    assert [row["group"] for row in rows] == [None, None, "g"]
    assert [row["domain"] for row in rows] == [None, None, "law"]
    assert [row["tenant"] for row in rows] == [None, None, "t"]


def test_empty_groups_are_apart(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("prompt,output_tokens,group\na,5,\nb,6,\n")
    imported(path, "csv")
    assert Table(tmp_path / "out.parquet").rows().groups.tolist() == [0, 1]


def test_the_longest_length() -> None:
    assert not length_fault(2**31 - 1) and not length_fault(3.0)
    assert length_fault(2**31) == length_fault(HUGE) == "length is too large"
    assert length_fault(float("nan")) == "NaN length" and length_fault(-HUGE) == "negative length"


def test_a_system_prompt_does_not_set_the_language(tmp_path: Path) -> None:
    system = {"role": "system", "content": "You are a helpful assistant that answers with care."}
    lines = [
        {
            "messages": [system, {"role": "user", "content": text}],
            "choices": [{"message": {"content": "ok"}, "finish_reason": "stop"}],
        }
        for text in ("请写一篇关于面包的文章", "42")
    ]
    source = tmp_path / "log.jsonl"
    source.write_text("\n".join(map(json.dumps, lines)))
    import_table(source, "openai", tmp_path / "t.parquet")
    assert [row["language"] for row in rows_of(tmp_path / "t.parquet")] == ["zh", "en"]
