"""Small files in the formats that the readers know, and a way to run the real command line."""

import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any
from unittest import mock

import pyarrow.parquet as pq

__all__ = ["conversation", "lengthpred", "rows_of", "write_csv", "write_json", "write_lines"]


def lengthpred(
    *arguments: object, columns: int = 200, env: dict[str, str] | None = None, apart: bool = False
) -> tuple[int, str, str]:
    """Run the command: exit code, stdout, stderr.

    In this process, which saves its start; as a user does, in one of its own, where `env` adds to
    the environment or `apart` asks for that.
    """
    told = [str(argument) for argument in arguments]
    if apart or env:
        done = subprocess.run(
            [sys.executable, "-m", "lengthpred.cli", *told],
            capture_output=True,
            text=True,
            env={**os.environ, "COLUMNS": str(columns), "NO_COLOR": "1", **(env or {})},
            check=False,
        )
        return done.returncode, done.stdout, done.stderr
    from lengthpred.cli import console
    from lengthpred.cli.app import main

    out, err, code = io.StringIO(), io.StringIO(), 0
    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(sys, "argv", ["lengthpred", *told]))
        stack.enter_context(mock.patch.dict(os.environ, {"COLUMNS": str(columns)}))
        for one in (console.stdout, console.stderr):
            stack.enter_context(mock.patch.object(one, "_width", columns))
        stack.enter_context(redirect_stdout(out))
        stack.enter_context(redirect_stderr(err))
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
    return code, out.getvalue(), err.getvalue()


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
