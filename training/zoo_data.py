"""The rows that all recipes of a zoo are trained, calibrated and judged on."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from os.path import samefile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lengthpred.data.splits import SplitSettings, split_table
from lengthpred.data.table import Table
from lengthpred.errors import DataError

__all__ = ["Parts", "make_parts"]

# What can be told by fewer is chance.
MIN_ROWS = 20


@dataclass(frozen=True)
class Parts:
    """Without `calibration`, each training cuts the same groups off `train` for it.

    written: the files that were made for it
    """

    train: Table
    calibration: Table | None
    test: Table
    written: Sequence[Path] = ()

    def discard(self) -> None:
        """Remove what was written, and its folder where nothing else is in it."""
        for path in self.written:
            path.unlink(missing_ok=True)
        for folder in {path.parent for path in self.written}:
            if not any(folder.iterdir()):
                folder.rmdir()


def make_parts(
    table: Table,
    test: Table | None,
    out: Path,
    *,
    max_rows: int | None = None,
    seed: int = 0,
    force: bool = False,
) -> Parts:
    """Split `table` by group into the folder `out`; with a `test` of its own, nothing is split off.

    max_rows: about so many rows of `table` are used, whole groups. Raises DataError for what
    cannot be split, is there already and not `force`, or has too few rows to compare on.
    """
    if test is not None and len(test) < MIN_ROWS:
        raise DataError(
            f"{test.path} has {len(test)} rows, and a comparison needs {MIN_ROWS}: give a larger "
            "table"
        )
    written: list[Path] = []
    with tempfile.TemporaryDirectory(prefix="lengthpred-zoo-") as scratch:
        if max_rows is not None and max_rows < len(table):
            kept = Path(scratch) / "sample.parquet"
            if test is not None:
                out.mkdir(parents=True, exist_ok=True)
                kept = out / "train.parquet"
                if kept.exists() and not force:
                    raise DataError(f"{kept} exists already: add --force")
                if kept.exists() and any(samefile(kept, one.path) for one in (table, test)):
                    raise DataError(
                        f"{kept} is an input, and would be replaced: choose another --out"
                    )
            table = _sample(table, kept, max_rows, seed)
            written = [kept]
        if test is not None:
            return Parts(table, None, test, written)
        split_table(table, out, SplitSettings(seed=seed), force=force)
    written = [out / f"{name}.parquet" for name in ("train", "calibration", "test")]
    train, calibration, last = map(Table, written)
    parts = Parts(train, calibration, last, written)
    if min(len(calibration), len(last)) < MIN_ROWS:
        parts.discard()
        raise DataError(
            f"{len(table)} rows are too few to split: {len(calibration)} would be for calibration "
            f"and {len(last)} for the test, and each needs {MIN_ROWS}: give more rows"
        )
    return parts


def _sample(table: Table, path: Path, most: int, seed: int) -> Table:
    """Whole groups in a seeded order, without those that no longer fit."""
    groups = table.groups()
    sizes = np.bincount(groups)
    chosen, left = np.zeros(len(sizes), bool), most
    for group in np.random.default_rng([seed, 3]).permutation(np.flatnonzero(sizes)).tolist():
        if sizes[group] <= left:
            chosen[group] = True
            left -= int(sizes[group])
    kept = chosen[groups]
    if not kept.any():
        raise DataError(f"{table.path}: no group has {most} rows or fewer: allow more rows")
    offset, parts = 0, []
    for batch in table.batches():
        mask = kept[offset : offset + len(batch)]
        offset += len(batch)
        parts.append(batch.filter(pa.array(mask)))
    pq.write_table(pa.Table.from_batches(parts), path)
    return Table(path)
