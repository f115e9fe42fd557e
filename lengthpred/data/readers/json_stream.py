"""The objects of a JSON array or a JSONL file, one at a time, in constant memory.

A file that breaks off yields what is whole. A record in the middle that is no JSON is dropped,
and reading goes on with the next one.
"""

import codecs
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from lengthpred.data.readers.base import Source
from lengthpred.data.report import ImportReport
from lengthpred.errors import DataError

__all__ = ["json_records"]

CHUNK = 1 << 20  # bytes
# A record that is not whole after this many characters, while another record seems to begin
# inside it, is broken (a bracket is missing); one without such a beginning may be longer.
SUSPICIOUS = 4 << 20
LONGEST = 64 << 20
_GAP = re.compile(r"[\s,]*")
_FIRST_KEY = re.compile(r'\{\s*("(?:[^"\\]|\\.)*")\s*:')


def json_records(source: Source, path: Path, report: ImportReport) -> Iterator[tuple[str, Any]]:
    """(place, value) of each record of an array or of lines; counts them in `report.records`.

    Raises DataError when the file holds neither.
    """
    with path.open("rb") as file:
        head = file.read(CHUNK).decode("utf-8-sig", "replace").lstrip()
        file.seek(0)
        if head.startswith("["):
            yield from _Array(file, source, report).records()
        elif head.startswith("{"):
            yield from _lines(file, source, report)
        else:
            raise DataError(f"{path} is no JSON: it begins neither with '[' nor with '{{'")


def _lines(file: BinaryIO, source: Source, report: ImportReport) -> Iterator[tuple[str, Any]]:
    number = 0
    while line := file.readline(LONGEST):
        number += 1
        source.done += len(line)
        if not line.strip():
            continue
        report.records += 1
        where = f"line {number}"
        try:
            value = json.loads(line.decode("utf-8-sig", "replace"))
        except (ValueError, RecursionError):
            if len(line) == LONGEST and not line.endswith(b"\n"):
                while (rest := file.readline(LONGEST)) and not rest.endswith(b"\n"):
                    source.done += len(rest)
            report.drop("broken JSON", where)
            if not line.endswith(b"\n") and source.done >= source.total:
                report.warnings.append(
                    f"{source.path} breaks off in line {number}: "
                    f"1 incomplete record ({len(line):,} bytes) was dropped"
                )
            continue
        yield where, value


class _Array:
    """A window on the file that grows while a record is not whole."""

    def __init__(self, file: BinaryIO, source: Source, report: ImportReport) -> None:
        self.file, self.source, self.report = file, source, report
        self.decode = codecs.getincrementaldecoder("utf-8-sig")("replace").decode
        self.scan = json.JSONDecoder().raw_decode
        self.text, self.at, self.ended = "", 0, False
        self.beginning: re.Pattern[str] | None = None

    def records(self) -> Iterator[tuple[str, Any]]:
        self._more()
        self.at = self.text.index("[") + 1
        while self._next_begins():
            self.report.records += 1
            where = f"record {self.report.records}"
            try:
                value, self.at = self._value()
            except (ValueError, RecursionError):
                if not self._skip(where):
                    return
                continue
            yield where, value

    def _more(self) -> None:
        """Read on; what was consumed is let go. The window doubles, so that work stays linear."""
        data = self.file.read(max(CHUNK, len(self.text) - self.at))
        self.ended = not data
        self.source.done += len(data)
        self.text = self.text[self.at :] + self.decode(data, self.ended)
        self.at = 0

    def _next_begins(self) -> bool:
        """Move to where the next record begins; False at the end of the array or file."""
        while True:
            gap = _GAP.match(self.text, self.at)
            self.at = gap.end() if gap else self.at
            if self.at < len(self.text):
                break
            if self.ended:
                self._broken_off(0, 0)
                return False
            self._more()
        if self.text[self.at] == "]":
            return False
        return True

    def _value(self) -> tuple[Any, int]:
        while True:
            try:
                value, end = self.scan(self.text, self.at)
                if isinstance(value, dict | list | str) or end < len(self.text) or self.ended:
                    self._learn()
                    return value, end
            except json.JSONDecodeError as error:
                if self.ended or not self._may_be_cut(error):
                    raise
            self._more()

    def _may_be_cut(self, error: json.JSONDecodeError) -> bool:
        """Whether the window may merely end too early for the record."""
        size = len(self.text) - self.at
        if size > LONGEST or (size > SUSPICIOUS and self._beginning_after(self.at + 1) >= 0):
            return False
        # A cut string is reported at its beginning, a cut word or number a little before the cut.
        return error.msg.startswith("Unterminated string") or error.pos >= len(self.text) - 12

    def _learn(self) -> None:
        """Records of one file begin alike: with the first key of its first record."""
        if self.beginning is None:
            key = _FIRST_KEY.match(self.text, self.at)
            if key:
                self.beginning = re.compile(r"\{\s*" + re.escape(key[1]) + r"\s*:")

    def _beginning_after(self, at: int) -> int:
        if self.beginning is None:
            self._learn()
        found = self.beginning.search(self.text, at) if self.beginning else None
        return found.start() if found else -1

    def _skip(self, where: str) -> bool:
        """Drop a broken record and move to the next; False when there is none."""
        skipped = 0
        start = self.at + 1
        while (found := self._beginning_after(start)) < 0:
            if self.ended:
                rest = len(self.text[self.at :].encode("utf-8", "replace"))
                self._broken_off(1, skipped + rest)
                return False
            # Keep an overlap: a beginning may lie across the edge of the window.
            keep = max(self.at, len(self.text) - 256)
            skipped += len(self.text[self.at : keep].encode("utf-8", "replace"))
            self.at = keep
            start = 1 if keep == start - 1 else 0
            self._more()
        self.report.drop("broken JSON", where)
        self.at = found
        return True

    def _broken_off(self, records: int, size: int) -> None:
        """Say that the array was never closed. An incomplete record is dropped, not read."""
        for _ in range(records):
            self.report.drop("file breaks off", f"record {self.report.records}")
        self.report.records -= records
        cut = f"{records} incomplete record{'' if records == 1 else 's'} ({size:,} bytes)"
        self.report.warnings.append(
            f"{self.source.path} breaks off in the middle: {self.report.records:,} whole records "
            f"were read, {cut} at the end {'was' if records == 1 else 'were'} dropped"
        )
