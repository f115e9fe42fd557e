"""The two consoles: results go to stdout, progress and errors to stderr."""

import json
import sys

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

__all__ = ["print_json", "progress", "stderr", "stdout"]

stdout = Console()
stderr = Console(stderr=True)


def progress(*, eta: bool = False) -> Progress:
    """A progress bar on stderr that leaves nothing behind; invisible when stderr is no terminal.

    eta: with the time that is left, and with the field `note` of each task.
    """
    further = [TimeRemainingColumn(), TextColumn("{task.fields[note]}")] if eta else []
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        *further,
        console=stderr,
        transient=True,
        disable=not sys.stderr.isatty(),
    )


def print_json(value: object) -> None:
    """One JSON document on stdout, for machines."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n")
