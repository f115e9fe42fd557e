"""Rows and a table that the tests of this folder share."""

from pathlib import Path

import pytest

from lengthpred.data.table import Rows
from tests.eval.cases import make_rows, write_rows


@pytest.fixture
def rows() -> Rows:
    """300 rows, two in five out of distribution."""
    return make_rows()


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A table of 120 rows with two samples each."""
    return write_rows(tmp_path / "table.parquet", make_rows(120, samples=2), 2)
