"""The two consoles: results go to stdout, progress and errors to stderr."""

import json
import sys
import time
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

# Without a terminal: how long until something is told, and how long until it is again.
FIRST_S, AGAIN_S = 30.0, 60.0

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
def steps(
    name: str, before: str = "", clock: Callable[[], float] = time.monotonic
) -> Iterator[Callable[[str, int, int], None]]:
    """A progress bar for what is done within, called `name` until the first step.

    What it gives is called with a step, what is done of it, and the total (0: not known); `before`
    stands before each step. Without a terminal a line on stderr tells of it after half a minute,
    and another each minute, whatever steps it went through. clock: in seconds.
    """
    lines = None if sys.stderr.isatty() else _Lines(clock)
    with progress() as bar:
        task = bar.add_task(name)

        def told(step: str, done: int, total: int) -> None:
            bar.update(task, description=f"{before}{step}", completed=done, total=total or None)
            if lines is not None:
                lines.tell(f"{before}{step}", done, total)

        yield told


class _Lines:
    """How far something is, now and then, for a file."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock, self._due_s = clock, clock() + FIRST_S

    def tell(self, step: str, done: int, total: int) -> None:
        now = self._clock()
        if now < self._due_s:
            return
        self._due_s = now + AGAIN_S
        far = f": {done:,} of {total:,}" if total else f": {done:,}" if done else ""
        stderr.print(f"{step}{far}", highlight=False, markup=False, soft_wrap=True)


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
