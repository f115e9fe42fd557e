"""The second pass of a split: the rows, written to their parts."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from lengthpred.base import IntArray
from lengthpred.data.importing import Progress
from lengthpred.data.table import SCHEMA, Table, write_table
from lengthpred.errors import DataError

__all__ = ["DROPPED", "PARTS", "write_parts"]

PARTS = ("train", "calibration", "test")
DROPPED = -1


def write_parts(
    table: Table,
    out: Path,
    part: IntArray,
    held: npt.NDArray[np.bool_],
    domains: npt.NDArray[np.str_] | None,
    on_progress: Progress | None,
) -> None:
    """Write the parts beside their place, then move them. Raises DataError when that fails.

    part: number in PARTS of each row, (n,), or DROPPED. held: which rows are out of distribution,
    (n,). domains: what fills an empty domain, (n,). on_progress: called with (done, total) rows.
    """
    for name in PARTS:
        place = out / f"{name}.parquet"
        if place.exists() and os.path.samefile(place, table.path):
            raise DataError(
                f"{place} is the table to be split, which would be replaced: choose another --out"
            )
    done, total = 0, len(PARTS) * len(table)

    def rows(number: int) -> Iterator[pa.RecordBatch]:
        nonlocal done
        offset = 0
        for batch in table.batches():
            at = slice(offset, offset + len(batch))
            offset += len(batch)
            done += len(batch)
            mask = part[at] == number
            if mask.any():
                names = None if domains is None else domains[at]
                yield _completed(batch, held[at], names).filter(pa.array(mask))
            if on_progress is not None:
                on_progress(done, total)

    files = [f"{name}.parquet" for name in PARTS]
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out, prefix=".split.") as scratch:
            for number, name in enumerate(files):
                write_table(Path(scratch, name), rows(number))
            # Old parts go first: should a move fail, a part is missing, never one of another split.
            for name in files:
                Path(out, name).unlink(missing_ok=True)
            for name in files:
                os.replace(Path(scratch, name), out / name)
    except OSError as error:
        raise DataError(f"{out} cannot be written: {error}") from error


def _completed(
    batch: pa.RecordBatch,
    held: npt.NDArray[np.bool_],
    domains: npt.NDArray[np.str_] | None,
) -> pa.RecordBatch:
    """The batch with all columns of SCHEMA, `ood` set, and empty domains filled with `domains`."""
    columns = {name: batch.column(name) for name in batch.schema.names}
    columns["ood"] = pa.array(held)
    if domains is not None:
        given = columns["domain"].to_pylist() if "domain" in columns else [None] * len(batch)
        filled = [old or str(new) for old, new in zip(given, domains, strict=True)]
        columns["domain"] = pa.array(filled, pa.string())
    for field_ in SCHEMA:
        if field_.name not in columns:
            columns[field_.name] = pa.nulls(len(batch), field_.type)
    return pa.record_batch([columns[name] for name in SCHEMA.names], schema=SCHEMA)
