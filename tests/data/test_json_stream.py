"""Reading JSON as a stream: broken records, broken files, constant memory."""

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from lengthpred.data.readers import json_stream
from lengthpred.data.readers.base import Source, open_bytes
from lengthpred.data.readers.json_stream import json_records
from lengthpred.data.report import ImportReport
from lengthpred.errors import DataError


def read(path: Path) -> tuple[list[Any], ImportReport]:
    source, report = Source(str(path)), ImportReport(str(path), "f", "o")
    return [value for _, value in json_records(source, open_bytes(source), report)], report


def records(n: int) -> list[dict[str, Any]]:
    return [{"id": i, "turns": [{"from": "é", "value": 'a "b" ] }, { c' * 3}]} for i in range(n)]


@pytest.mark.parametrize("chunk", [1, 7, 64, 1 << 20])
@pytest.mark.parametrize("indent", [None, 2])
def test_any_window_gives_all_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int, indent: int | None
) -> None:
    monkeypatch.setattr(json_stream, "CHUNK", chunk)
    path = tmp_path / "a.json"
    path.write_text("\ufeff " + json.dumps(records(20), indent=indent, ensure_ascii=False), "utf-8")
    if chunk < 64:  # the head that tells array from lines needs a few bytes
        monkeypatch.setattr(json_stream, "CHUNK", 8)
    found, report = read(path)
    assert found == records(20)
    assert report.records == 20 and not report.dropped and not report.warnings


@pytest.mark.parametrize("cut", [1, 2, 20, 90, 150])
def test_a_file_that_breaks_off(tmp_path: Path, cut: int) -> None:
    text = json.dumps(records(9), ensure_ascii=False).encode()
    path = tmp_path / "a.json"
    path.write_bytes(text[:-cut])
    found, report = read(path)
    assert found == records(9)[: len(found)] and len(found) >= 7
    assert f"{len(found)} whole records" in report.warnings[0]
    whole = len(json.dumps(records(len(found)), ensure_ascii=False).encode()) - 1
    lost = int(report.warnings[0].split("(")[1].split(" bytes")[0])
    assert lost == max(0, len(text) - cut - whole - 2)


@pytest.mark.parametrize(
    ("good", "bad"),
    [('"turns": [', '"turns": [['), ("}]}", "}}"), ('"id": 3', '"id" 3'), ("}]}", ""), ("é", '"')],
)
@pytest.mark.parametrize("window", [256, 1 << 20])
def test_a_broken_record_in_the_middle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, good: str, bad: str, window: int
) -> None:
    monkeypatch.setattr(json_stream, "CHUNK", window)
    monkeypatch.setattr(json_stream, "SUSPICIOUS", 4 * window)
    parts = [json.dumps(record, ensure_ascii=False) for record in records(40)]
    parts[3] = parts[3].replace(good, bad, 1)
    path = tmp_path / "a.json"
    path.write_text("[" + ",\n".join(parts) + "]", "utf-8")
    found, report = read(path)
    assert [r["id"] for r in found] == [i for i in range(40) if i != 3]
    assert report.dropped["broken JSON"].examples == ["record 4"]


def test_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": 1}\n\n{"a": \n[1]\n{"a": "\xff"}\n{"a')
    found, report = read(path)
    assert found == [{"a": 1}, [1], {"a": "\ufffd"}]
    assert report.dropped["broken JSON"].examples == ["line 3", "line 6"]
    assert "breaks off in line 6" in report.warnings[0]


@pytest.mark.parametrize("text", ["id,prompt\n", "PAR1", "<html>"])
def test_what_is_no_json(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(DataError, match="no JSON"):
        read(path)


@pytest.mark.parametrize("kind", ["array", "lines"])
def test_constant_memory(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "big"
    line = json.dumps({"id": "x", "text": "word " * 2000})
    between = ",\n" if kind == "array" else "\n"
    with path.open("w") as file:
        file.write("[" if kind == "array" else "")
        file.write(between.join([line] * 3000))  # 30 MB
        file.write("]" if kind == "array" else "\n")
    source, report = Source(str(path)), ImportReport(str(path), "f", "o")
    tracemalloc.start()
    count = sum(1 for _ in json_records(source, open_bytes(source), report))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 3000
    assert peak < 10e6
