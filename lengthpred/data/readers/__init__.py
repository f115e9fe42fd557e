"""One file a format; `reader(name)` finds them."""

from importlib import import_module
from typing import cast

from lengthpred.data.readers.base import Draft, Reader, Row, Source
from lengthpred.errors import SettingsError, did_you_mean

__all__ = ["FORMATS", "Draft", "Reader", "Row", "Source", "reader"]

FORMATS = {
    "sharegpt": "lengthpred.data.readers.sharegpt",
    "alpaca": "lengthpred.data.readers.alpaca",
    "openai": "lengthpred.data.readers.openai_logs",
    "jsonl": "lengthpred.data.readers.jsonl",
    "csv": "lengthpred.data.readers.csv_file",
    "parquet": "lengthpred.data.readers.parquet_file",
    "datasets": "lengthpred.data.readers.hub",
    "served": "lengthpred.data.readers.served",
}


def reader(name: str) -> Reader:
    """The reader of a format. Raises SettingsError for a format that is not known."""
    if name not in FORMATS:
        raise SettingsError(f"no format '{name}'. {did_you_mean(name, FORMATS)}")
    return cast(Reader, import_module(FORMATS[name]).read)
