"""JSON lines of flat objects, or an array of them, with a column map."""

from collections.abc import Iterator, Mapping
from itertools import chain, islice

from lengthpred.data.readers.base import Draft, Source, open_bytes
from lengthpred.data.readers.columns import ColumnMap
from lengthpred.data.readers.json_stream import json_records
from lengthpred.data.report import ImportReport

__all__ = ["read"]

LOOKED_AT = 1000  # records whose keys are the columns: a record may lack some


def read(source: Source, report: ImportReport) -> Iterator[Draft]:
    """One draft an object. Raises DataError for what is no JSON, or lacks a column."""
    records = json_records(source, open_bytes(source), report)
    first = list(islice(records, LOOKED_AT))
    objects = [value for _, value in first if isinstance(value, Mapping)]
    columns = ColumnMap(source, list(dict.fromkeys(chain.from_iterable(objects))))
    for where, value in chain(first, records):
        if not isinstance(value, Mapping):
            report.drop("not an object", where)
            continue
        draft = columns.draft(value, where, report)
        if draft is not None:
            yield draft
