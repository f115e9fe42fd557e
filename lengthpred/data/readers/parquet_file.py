"""Parquet with a column map."""

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from lengthpred.data.readers.base import Draft, Source, open_bytes
from lengthpred.data.readers.columns import ColumnMap
from lengthpred.data.report import ImportReport
from lengthpred.errors import DataError

__all__ = ["read"]

BATCH = 1024


def read(source: Source, report: ImportReport) -> Iterator[Draft]:
    """One draft a row. Raises DataError for what is no Parquet file, or lacks a column."""
    path = open_bytes(source)
    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} is not a Parquet file: give its --format") from error
    source.total = file.metadata.num_rows
    columns = ColumnMap(source, file.schema_arrow.names)
    try:
        for batch in file.iter_batches(batch_size=BATCH, columns=columns.theirs):
            for row in batch.to_pylist():
                source.done += 1
                report.records += 1
                draft = columns.draft(row, f"row {source.done}", report)
                if draft is not None:
                    yield draft
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} is damaged: {error}") from error
