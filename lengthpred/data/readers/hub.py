"""Any data set that the `datasets` library loads: a hub name, a folder, what save_to_disk wrote."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lengthpred.data.readers.base import Draft, Source
from lengthpred.data.readers.columns import ColumnMap
from lengthpred.data.report import ImportReport
from lengthpred.errors import DataError, did_you_mean, require

__all__ = ["read"]

SAVED = ("state.json", "dataset_dict.json")


def read(source: Source, report: ImportReport) -> Iterator[Draft]:
    """One draft a row. Raises DataError when the data set, its split or a column is missing."""
    library = require("datasets", "train", "--format datasets")
    rows = _split(_load(library, source), source)
    names = list(rows.column_names or next(iter(rows), {}))
    columns = ColumnMap(source, names)
    rows = rows.select_columns(columns.theirs)
    try:
        source.total = len(rows)
    except TypeError:  # a stream
        source.total = 0
    for row in _rows(rows, source):
        source.done += 1
        report.records += 1
        draft = columns.draft(row, f"row {source.done}", report)
        if draft is not None:
            yield draft


def _rows(rows: Any, source: Source) -> Iterator[Any]:
    try:
        yield from rows
    except Exception as error:  # a stream is read only now
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DataError(f"datasets cannot read '{source.path}' to its end: {reason}") from error


def _load(library: Any, source: Source) -> Any:
    folder = Path(source.path)
    if folder.is_file():
        raise DataError(
            f"{folder} is one file: give its folder, or --format jsonl, csv or parquet, as it is"
        )
    try:
        if any((folder / name).is_file() for name in SAVED):
            return library.load_from_disk(source.path)
        return library.load_dataset(source.path, streaming=True)
    except Exception as error:  # whatever a loader raises, the data set cannot be had
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DataError(
            f"datasets cannot load '{source.path}': {reason} (give a name on the hub, a folder "
            "of data files, or a folder that save_to_disk wrote)"
        ) from error


def _split(found: Any, source: Source) -> Any:
    if not isinstance(found, dict):
        return found
    if source.split:
        if source.split not in found:
            raise DataError(
                f"'{source.path}' has no split '{source.split}'. "
                f"{did_you_mean(source.split, found)}"
            )
        return found[source.split]
    if len(found) > 1 and "train" not in found:
        raise DataError(f"'{source.path}' has several splits: say --split {' or '.join(found)}")
    return found["train"] if "train" in found else next(iter(found.values()))
