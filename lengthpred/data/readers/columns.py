"""From a row of somebody's columns to a row of ours: shared by JSONL, CSV, Parquet, `datasets`.

A column map says where ours come from: `prompt = "question"`. `response = "answer"` means: count
the tokens of that text. Columns whose names match already need no map.
"""

import json
import os
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from lengthpred.data.readers.base import Draft, Row, Source, length_fault
from lengthpred.data.report import ImportReport
from lengthpred.data.table import SCHEMA
from lengthpred.errors import DataError, SettingsError, did_you_mean
from lengthpred.openai_body import clean

__all__ = ["ColumnMap", "load_columns"]

OURS = (*SCHEMA.names, "response")
# Texts that may be empty; an empty cell of another text holds nothing.
MAY_BE_EMPTY = ("prompt", "context", "response")
MOST_SHOWN = 40  # characters of a name, and names


def load_columns(path: str | os.PathLike[str]) -> dict[str, str]:
    """Read a column map from TOML: our column = "their column".

    Raises SettingsError for a name that is not ours, DataError for a file that is no TOML.
    """
    try:
        found = tomllib.loads(Path(path).read_text("utf-8"))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise DataError(f"{path} is no TOML: {error}") from error
    found = found.get("columns", found)
    for ours, theirs in found.items():
        if ours not in OURS:
            raise SettingsError(f"{path}: no column '{ours}'. {did_you_mean(ours, OURS)}")
        if not isinstance(theirs, str):
            raise SettingsError(f"{path}: {ours} must be the name of a column, in quotes")
    return dict(found)


class ColumnMap:
    """Our columns found among theirs.

    Raises DataError when a mapped column does not exist, or nothing tells prompt or length.
    """

    def __init__(self, source: Source, names: Sequence[str]) -> None:
        self.source = source
        given = dict(source.columns or {})
        for ours, theirs in given.items():
            if theirs not in names:
                raise DataError(
                    f"{source.path} has no column '{theirs}' (for {ours}). "
                    f"{did_you_mean(theirs, names) if names else ''}".rstrip()
                )
        matching = {n: n for n in OURS if n in names and n not in given}
        if "response" in given and "output_tokens" not in given:
            matching.pop("output_tokens", None)
        self.map = {**matching, **given}
        if "output_tokens" in self.map:
            self.map.pop("response", None)
        for wanted in ("prompt", "output_tokens"):
            if wanted not in self.map and not (wanted != "prompt" and "response" in self.map):
                text = " (or 'response', a text to count)" if wanted != "prompt" else ""
                raise DataError(
                    f"{source.path} has no column '{wanted}'{text}; it has "
                    f"{_listed(names)}: map one in the file of --columns, "
                    f'as {wanted} = "their name"'
                )

    @property
    def theirs(self) -> list[str]:
        """Their columns that are needed."""
        return list(dict.fromkeys(self.map.values()))

    def draft(self, row: Mapping[str, Any], where: str, report: ImportReport) -> Draft | None:
        """What the row holds; None when it cannot be used, which is reported."""
        ours: Row = {"model": None, "group": None}
        for name, theirs in self.map.items():
            value, fault = _value(name, row.get(theirs))
            if fault:
                report.drop(fault, where)
                return None
            ours[name] = value
        ours["model"] = ours["model"] or self.source.model
        if not ours.get("id"):
            ours["id"] = where.replace(" ", "-")
        if not (ours.get("prompt") or "").strip():
            report.drop("empty prompt", where)
            return None
        texts = [ours["prompt"]] if ours.get("prompt_tokens") is None else []
        if "response" in self.map:
            answer = ours.pop("response")
            if not answer or not answer.strip():
                report.drop("no answer" if answer is None else "empty answer", where)
                return None
            texts.append(answer)
        return Draft(texts, _Finish(ours, bool(ours.get("context"))).rows, where)


def _listed(names: Sequence[str]) -> str:
    """What a message has room for: in a file of another format, a name may be a whole record."""
    shown = [repr(n if len(n) <= MOST_SHOWN else f"{n[:MOST_SHOWN]}…") for n in names[:MOST_SHOWN]]
    return ", ".join([*shown, *["…"] * (len(names) > MOST_SHOWN)]) or "none"


class _Finish:
    __slots__ = ("row", "whole_input_unknown")

    def __init__(self, row: Row, whole_input_unknown: bool) -> None:
        self.row, self.whole_input_unknown = row, whole_input_unknown

    def rows(self, counts: Sequence[int]) -> list[Row]:
        if self.row.get("prompt_tokens") is None:
            # The prompt is the whole input only where nothing precedes it.
            self.row["prompt_tokens"] = None if self.whole_input_unknown else counts[0]
        if self.row.get("output_tokens") is None:
            self.row["output_tokens"] = [counts[-1]]
        return [self.row]


def _value(name: str, value: Any) -> tuple[Any, str]:
    """The value with our type, and what is wrong with it ("" when nothing)."""
    kind = pa.string() if name == "response" else SCHEMA.field(name).type
    if name == "output_tokens":
        return _lengths(value)
    if _absent(value):
        return None, ""
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        if isinstance(value, list | dict):
            return None, f"wrong type in {name}"
        text = clean(value if isinstance(value, str) else str(value))
        return (text if text.strip() or name in MAY_BE_EMPTY else None), ""
    if isinstance(value, str):
        if not value.strip():
            return None, ""
        value = _parsed(value)
        if _absent(value):
            return None, ""
    if pa.types.is_list(kind):
        return _items(name, value if isinstance(value, list) else [value], kind.value_type)
    if pa.types.is_boolean(kind):
        return (value, "") if isinstance(value, bool) else (None, f"wrong type in {name}")
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None, f"wrong type in {name}"
    if pa.types.is_integer(kind):
        fault = length_fault(value)
        return (None, f"{name}: {fault}") if fault else (int(value), "")
    if abs(value) > sys.float_info.max:
        return None, f"{name} is too large"
    return float(value), ""


def _absent(value: Any) -> bool:
    return value is None or (isinstance(value, float) and value != value)


def _lengths(value: Any) -> tuple[list[int] | None, str]:
    if isinstance(value, str):
        value = _parsed(value) if value.strip() else None
    values = value if isinstance(value, list) else [value]
    for length in values or [None]:
        fault = length_fault(length)
        if fault:
            return None, fault
    return [int(length) for length in values], ""


def _items(name: str, values: list[Any], kind: Any) -> tuple[list[Any] | None, str]:
    if pa.types.is_integer(kind):
        fault = next(filter(None, map(_number_fault, values)), "")
        return (None, f"{name}: {fault}") if fault else ([int(v) for v in values], "")
    types = str if pa.types.is_string(kind) else bool
    if not all(v is None or type(v) is types for v in values):
        return None, f"wrong type in {name}"
    return [clean(v) if isinstance(v, str) else v for v in values], ""


def _number_fault(value: Any) -> str:
    return "a number is missing" if _absent(value) else length_fault(value)


def _parsed(text: str) -> Any:
    """A number, truth value or list that a text spells; else the text."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        lowered = text.strip().lower()
        return {"nan": float("nan"), "true": True, "false": False}.get(lowered, text)
