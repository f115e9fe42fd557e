"""The second pass of a split, when a disk fails."""

import os
from pathlib import Path
from typing import Any

import pytest

from lengthpred.data.splits import SplitSettings, split_table
from lengthpred.errors import DataError
from tests.data.test_splits import conversations, table


def test_parts_of_two_splits_are_never_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, out = table(tmp_path, conversations()), tmp_path / "split"
    split_table(rows, out, SplitSettings(seed=1))
    move = os.replace

    def fails(source: Any, target: Any) -> None:
        if Path(target) == out / "calibration.parquet":
            raise OSError("no space left on device")
        move(source, target)

    monkeypatch.setattr(os, "replace", fails)
    with pytest.raises(DataError, match="cannot be written: no space left"):
        split_table(rows, out, SplitSettings(seed=2), force=True)
    assert [path.name for path in out.iterdir()] == ["train.parquet"]
