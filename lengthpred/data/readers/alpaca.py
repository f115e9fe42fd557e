"""Alpaca: {"instruction", "input", "output"} in a JSON array or one object a line."""

from collections.abc import Iterator
from functools import partial
from typing import Any

from lengthpred.data.readers.base import Draft, Row, Source, open_bytes
from lengthpred.data.readers.json_stream import json_records
from lengthpred.data.report import ImportReport
from lengthpred.openai_body import clean

__all__ = ["read"]


def read(source: Source, report: ImportReport) -> Iterator[Draft]:
    """One draft a record; the prompt is the instruction, an empty line, and the input."""
    for where, record in json_records(source, open_bytes(source), report):
        fault = _fault(record)
        if fault:
            report.drop(fault, where)
            continue
        parts = [record["instruction"], record.get("input") or ""]
        prompt = clean("\n\n".join(part for part in parts if part.strip()))
        row: Row = {
            "id": clean(str(record.get("id", where.replace(" ", "-")))),
            "group": None,
            "prompt": prompt,
            "turn": 0,
            "model": source.model,
        }
        yield Draft([prompt, clean(record["output"])], partial(_row, row), where)


def _row(row: Row, counts: list[int]) -> list[Row]:
    return [{**row, "prompt_tokens": counts[0], "output_tokens": [counts[1]]}]


def _fault(record: Any) -> str:
    """Why a record makes no row; "" when it does."""
    if not isinstance(record, dict):
        return "not an object"
    if record.get("instruction") is None:
        return "no 'instruction'"
    if record.get("output") is None:
        return "no answer"
    instruction, given, output = record["instruction"], record.get("input") or "", record["output"]
    if not all(isinstance(text, str) for text in (instruction, given, output)):
        return "wrong type"
    if not instruction.strip() and not given.strip():
        return "empty prompt"
    return "" if output.strip() else "empty answer"
