"""Small files in the formats that the readers know, and a way to run the real command line."""

import csv
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

__all__ = ["conversation", "lengthpred", "rows_of", "write_csv", "write_json", "write_lines"]


def lengthpred(*arguments: object, env: dict[str, str] | None = None) -> tuple[int, str, str]:
    """Run the command as a user does: exit code, stdout, stderr."""
    done = subprocess.run(
        [sys.executable, "-m", "lengthpred.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "200", **(env or {})},
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def conversation(name: str, *turns: str, first: str = "human") -> dict[str, Any]:
    """A ShareGPT record whose turns alternate."""
    roles = ("human", "gpt") if first == "human" else ("gpt", "human")
    talk = [{"from": roles[i % 2], "value": text} for i, text in enumerate(turns)]
    return {"id": name, "conversations": talk}


def write_json(path: Path, value: object) -> Path:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False), "utf-8")
    return path


def write_lines(path: Path, values: Sequence[object]) -> Path:
    path.write_text("".join(json.dumps(value) + "\n" for value in values), "utf-8")
    return path


def write_csv(path: Path, rows: Sequence[Sequence[object]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return path


def rows_of(path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    return rows
