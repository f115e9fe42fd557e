"""CSV with a header line; tabs separate the columns of a `.tsv` file."""

import csv
from collections.abc import Iterator
from typing import IO

from lengthpred.data.readers.base import Draft, Source, open_bytes
from lengthpred.data.readers.columns import ColumnMap
from lengthpred.data.report import ImportReport

__all__ = ["read"]

# A quote that is never closed makes one field of the rest of the file: stop reading before that.
LONGEST_FIELD = 16 << 20  # characters


def read(source: Source, report: ImportReport) -> Iterator[Draft]:
    """One draft a line. Raises DataError when a column is missing."""
    path = open_bytes(source)
    csv.field_size_limit(LONGEST_FIELD)
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        rows = csv.reader(_told(file, source), delimiter="\t" if path.suffix == ".tsv" else ",")
        names = next(rows, [])
        columns = ColumnMap(source, names)
        try:
            for values in rows:
                where = f"line {rows.line_num}"
                if not values:
                    continue
                report.records += 1
                if len(values) != len(names):
                    report.drop("wrong number of fields", where)
                    continue
                draft = columns.draft(dict(zip(names, values, strict=True)), where, report)
                if draft is not None:
                    yield draft
        except csv.Error as error:
            report.records += 1
            report.drop("broken quoting", f"line {rows.line_num}")
            report.warnings.append(
                f"{path} was read up to line {rows.line_num}, the rest was dropped: {error}"
            )


def _told(file: IO[str], source: Source) -> Iterator[str]:
    for line in file:
        source.done += len(line)
        yield line
