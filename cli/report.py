"""Writes the report beside other results."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape

from lengthpred.errors import MissingExtraError

if TYPE_CHECKING:
    from rich.console import Console

    from lengthpred.eval.compare import Comparison
    from lengthpred.eval.output import Document
    from lengthpred.eval.simulate import Simulation

__all__ = ["write_or_say", "write_report_or_say"]


def write_report_or_say(
    out: Path,
    document: "Document",
    console: "Console",
    *,
    comparison: "Comparison | None" = None,
    simulation: "Simulation | None" = None,
    prompts: bool = True,
) -> None:
    """Write report.html into the folder `out`, or say what to install for it."""
    from lengthpred.eval.report.page import write_report

    write_or_say(
        lambda path, repeat: write_report(
            path,
            comparison=comparison,
            simulation=simulation,
            prompts=prompts,
            repeat=repeat,
        ),
        out,
        document,
        console,
    )


def write_or_say(
    write: Callable[[Path, Mapping[str, str]], Path],
    out: Path,
    document: "Document",
    console: "Console",
) -> None:
    """Call `write` with the report's path in `out` and what it takes to repeat the document.

    Says what to install where an extra is missing.
    """
    from lengthpred.eval.output import REPORT

    repeat = {
        "command": document.command,
        "seed": str(document.seed),
        "sha256 of the table": document.data_sha256,
    }
    try:
        path = write(out / REPORT, repeat)
    except MissingExtraError as error:
        console.print(f"note: {error}", highlight=False, markup=False)
        return
    console.print(f"wrote {escape(str(path))}", highlight=False, soft_wrap=True)
