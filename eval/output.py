"""The result of an evaluation or a simulation as JSON and CSV: eval.json, simulate.csv, …"""

import csv
import io
import json
import math
import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from lengthpred.errors import DataError

__all__ = [
    "FORMAT_VERSION",
    "REPORT",
    "Document",
    "Result",
    "check_out",
    "read_results",
    "write_results",
    "write_whole",
]

FORMAT_VERSION = 1
REPORT = "report.html"


@dataclass(frozen=True)
class Result:
    """One score.

    ood_ratio  share of out-of-distribution rows, for the split "mix" only
    low, high  95 % interval; None for what has none (a cost, a table of one group)
    n          rows behind it; for a cost, calls
    """

    predictor: str
    split: str
    ood_ratio: float | None
    metric: str
    value: float
    low: float | None
    high: float | None
    n: int


@dataclass(frozen=True)
class Document:
    """All scores of one evaluation or simulation, and what it takes to repeat it.

    rows  of one dataclass each; their fields are the columns
    """

    command: str
    data_sha256: str
    seed: int
    rows: Sequence[Any]

    def as_json(self) -> dict[str, Any]:
        """The content of the JSON file."""
        return {
            "format_version": FORMAT_VERSION,
            "command": self.command,
            "data_sha256": self.data_sha256,
            "seed": self.seed,
            "rows": [asdict(row) for row in self.rows],
        }


def check_out(out: str | os.PathLike[str], *, force: bool, name: str = "eval") -> None:
    """Raise DataError when results cannot go to the folder `out`: call it before long work."""
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder} is a file: give a folder for the results")
    _check_writable(folder)
    for file in (folder / f"{name}.json", folder / f"{name}.csv", folder / REPORT):
        if file.exists() and not force:
            raise DataError(f"{file} exists already: choose another --out, or add --force")


def _check_writable(folder: Path) -> None:
    """Raise DataError unless files can be written to `folder`, or where it would be made."""
    nearest = next(one for one in (folder, *folder.parents) if os.path.lexists(one))
    if not nearest.is_dir():
        raise DataError(f"{folder} cannot be made, as {nearest} is no folder: choose another --out")
    try:
        with tempfile.TemporaryFile(dir=nearest):  # as root, os.access would allow all
            pass
    except OSError as error:
        raise DataError(
            f"nothing can be written to {folder}, as {nearest} takes no files: choose another --out"
        ) from error


def write_results(
    document: Document, out: str | os.PathLike[str], *, force: bool = False, name: str = "eval"
) -> tuple[Path, Path]:
    """Write NAME.json and NAME.csv, each whole or not at all; returns their paths.

    Raises DataError as `check_out` does.
    """
    check_out(out, force=force, name=name)
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(document.as_json(), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    table = io.StringIO()
    columns = [field.name for field in fields(type(document.rows[0]) if document.rows else Result)]
    writer = csv.DictWriter(table, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in document.rows)
    as_json, as_csv = folder / f"{name}.json", folder / f"{name}.csv"
    write_whole(as_csv, table.getvalue())
    write_whole(as_json, text)
    return as_json, as_csv


def write_whole(path: Path, text: str) -> None:
    """Write a file beside its target and rename it, so that it is whole or absent.

    What UTF-8 cannot hold (half a surrogate pair, as in a file's name of other bytes) is written as
    its escape, which in JSON means the same.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def read_results(path: str | os.PathLike[str]) -> Document:
    """The document in an eval.json. Raises DataError, naming the file, for what is none."""
    file = Path(path)
    none = f"{file} is not the eval.json of an evaluation"
    try:
        raw = json.loads(file.read_text("utf-8"))
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(none) from error
    version = raw.get("format_version") if isinstance(raw, dict) else None
    if type(version) is not int:
        raise DataError(none)
    if version != FORMAT_VERSION:
        raise DataError(
            f"{file} has format version {version}; this lengthpred reads version "
            f"{FORMAT_VERSION}: run the evaluation again"
        )
    command, data, seed, rows = (raw.get(k) for k in ("command", "data_sha256", "seed", "rows"))
    texts = isinstance(command, str) and isinstance(data, str)
    if not texts or type(seed) is not int or not isinstance(rows, list):
        raise DataError(none)
    columns = {field.name for field in fields(Result)}
    if any(not isinstance(row, dict) or row.keys() != columns for row in rows):
        raise DataError(
            f"{file} is a simulate.json (or other document), not the eval.json of an evaluation"
        )
    results = [Result(**row) for row in rows]
    for number, result in enumerate(results, 1):
        if not _is_score(result):
            raise DataError(f"{none}: row {number} of its {len(rows)} rows holds no score")
    return Document(str(command), str(data), seed, results)


def _is_score(row: Result) -> bool:
    """Whether what was read has the types of a score, and an interval whole or not at all."""
    if not all(isinstance(text, str) for text in (row.predictor, row.split, row.metric)):
        return False
    if not _is_number(row.value) or type(row.n) is not int or row.n < 0:
        return False
    if row.ood_ratio is not None and not _is_number(row.ood_ratio):
        return False
    if row.low is None or row.high is None:
        return row.low is row.high
    return _is_number(row.low) and _is_number(row.high) and row.low <= row.high


def _is_number(value: object) -> bool:
    """Whether it is a finite number that a float can hold, and no boolean."""
    try:
        return isinstance(value, int | float) and type(value) is not bool and math.isfinite(value)
    except OverflowError:
        return False
