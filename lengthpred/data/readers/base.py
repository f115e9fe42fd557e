"""What every reader takes and yields.

A reader is a function `read(source, report) -> Iterator[Draft]`. It streams: it never holds the
file in memory. What it cannot use it gives to `report.drop(reason, where)`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lengthpred.data.report import ImportReport
from lengthpred.errors import DataError
from lengthpred.openai_body import CONTEXT_CHARS

__all__ = ["LONGEST", "Draft", "Reader", "Row", "Source", "length_fault", "open_bytes"]

GZIP = b"\x1f\x8b"
LONGEST = 2**31 - 1  # tokens: what a table, a grid and a distribution can hold

Row = dict[str, Any]


@dataclass
class Source:
    """Where rows come from, and what the user said of them.

    columns        our column (or `response`) -> the source's column
    model          the model of rows that name none
    context_chars  how much of the context is kept, from its end
    split          the part of a `datasets` data set
    requests       a second file, for logs that keep requests apart from responses
    done, total    how far the reader has come, in bytes or rows (total 0: not known)
    """

    path: str
    columns: Mapping[str, str] | None = None
    model: str = ""
    context_chars: int = CONTEXT_CHARS
    split: str = ""
    requests: str = ""
    done: int = 0
    total: int = 0


@dataclass(slots=True)
class Draft:
    """Rows that wait for token counts.

    texts  what is to be counted
    rows   makes the rows of the counts, shape (len(texts),); each row has an "output_tokens"
    where  the place in the source, for messages
    """

    texts: Sequence[str]
    rows: Callable[[Sequence[int]], Sequence[Row]]
    where: str


Reader = Callable[[Source, ImportReport], Iterator[Draft]]


def open_bytes(source: Source) -> Path:
    """The file of a source, its size noted in `total`. Raises DataError when there is none."""
    path = Path(source.path)
    if not path.is_file():
        kind = "does not exist"
        if path.exists():
            kind = f"is a {'folder' if path.is_dir() else 'pipe or a device'}, not a file"
        raise DataError(f"{path} {kind}: give the file to import")
    try:
        with path.open("rb") as file:
            packed = file.read(len(GZIP)) == GZIP
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    if packed:
        raise DataError(f"{path} is compressed: unpack it first (gunzip)")
    source.total = path.stat().st_size
    if not source.total:
        raise DataError(f"{path} is empty: give a file with rows")
    return path


def length_fault(value: object) -> str:
    """Why a value is no length in tokens; "" when it is one."""
    if value is None:
        return "no answer"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "wrong type"
    # Compared, never converted: an integer may be too large for a float.
    if value != value:
        return "NaN length"
    if value < 0:
        return "negative length"
    if value > LONGEST:
        return "length is too large"
    return "" if value == int(value) else "length is no whole number"
