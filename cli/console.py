"""The two consoles: results go to stdout, progress and errors to stderr."""

import json
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

__all__ = ["print_json", "progress", "stderr", "stdout", "steps", "told_at_the_end", "warn"]

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


@contextmanager
def steps(name: str, before: str = "") -> Iterator[Callable[[str, int, int], None]]:
    """A progress bar for what is done within, called `name` until the first step.

    What it gives is called with a step, what is done of it, and the total (0: not known); `before`
    stands before each step.
    """
    with progress() as bar:
        task = bar.add_task(name)
        yield lambda step, done, total: bar.update(
            task, description=f"{before}{step}", completed=done, total=total or None
        )


def warn(sentence: str) -> None:
    """A warning on stderr."""
    stderr.print(f"[yellow]warning:[/] {escape(sentence)}", highlight=False, soft_wrap=True)


@contextmanager
def told_at_the_end() -> Iterator[None]:
    """Say the warnings of what is done within as sentences, each once, when that went well."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        yield
    for sentence in dict.fromkeys(
        str(one.message) for one in caught if issubclass(one.category, UserWarning)
    ):
        warn(sentence)


def print_json(value: object) -> None:
    """One JSON document on stdout, for machines."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n")
