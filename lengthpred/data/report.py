"""What an import kept, and what it dropped and why."""

from dataclasses import dataclass, field
from typing import Any

__all__ = ["Dropped", "ImportReport"]

EXAMPLES = 3


@dataclass
class Dropped:
    """Rows dropped for one reason: how many, and where the first few are in the source."""

    count: int = 0
    examples: list[str] = field(default_factory=list)


@dataclass
class ImportReport:
    """What an import kept, and what it dropped and why.

    rows        rows written
    records     records read from the source (lines, objects, conversations)
    dropped     by reason; every answer that is not in the table is counted here
    warnings    sentences for the user
    tokenizer   the name of what counted the tokens; `approximate` when it only estimates
    counted     texts whose tokens it counted: none where the source says all lengths
    """

    source: str
    format: str
    out: str
    tokenizer: str = ""
    approximate: bool = False
    counted: int = 0
    rows: int = 0
    records: int = 0
    dropped: dict[str, Dropped] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    @property
    def dropped_rows(self) -> int:
        """All that was dropped, whatever the reason."""
        return sum(entry.count for entry in self.dropped.values())

    def drop(self, reason: str, where: str) -> None:
        """Count one row (or a record, when it holds no row) as dropped."""
        entry = self.dropped.setdefault(reason, Dropped())
        entry.count += 1
        if len(entry.examples) < EXAMPLES:
            entry.examples.append(where)

    def summary(self) -> str:
        """One line: the reasons, most frequent first, each with its first places."""
        entries = sorted(self.dropped.items(), key=lambda item: -item[1].count)
        return "; ".join(
            f"{reason}: {entry.count:,} ({', '.join(entry.examples)}"
            f"{', …' if entry.count > len(entry.examples) else ''})"
            for reason, entry in entries
        )

    def as_json(self) -> dict[str, Any]:
        """The report as plain values."""
        return {
            "source": self.source,
            "format": self.format,
            "out": self.out,
            "tokenizer": self.tokenizer,
            "approximate": self.approximate,
            "counted": self.counted,
            "records": self.records,
            "rows": self.rows,
            "dropped": {
                reason: {"count": entry.count, "examples": entry.examples}
                for reason, entry in self.dropped.items()
            },
            "warnings": self.warnings,
        }
