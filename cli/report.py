"""Writes the report beside other results."""

import shlex
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape

from lengthpred.cli.console import print_json, stderr, stdout
from lengthpred.errors import MissingExtraError

if TYPE_CHECKING:
    from rich.console import Console

    from lengthpred.eval.compare import Comparison
    from lengthpred.eval.output import Document
    from lengthpred.eval.simulate import Simulation

__all__ = [
    "command_line",
    "tell_results",
    "tell_simulation",
    "write_or_say",
    "write_report_or_say",
]


def tell_simulation(
    simulation: "Simulation",
    sha256: str,
    *,
    name: str,
    seed: int,
    out: Path | None,
    force: bool,
    as_json: bool,
) -> None:
    """Print a simulation and its notes, and write results and report where `out` is given.

    sha256: of its table. name: of the files of results.
    """
    from lengthpred.cli.simulation_table import print_simulation
    from lengthpred.eval.output import Document

    document = Document(command_line(), sha256, seed, simulation.results)
    console = tell_results(
        document,
        lambda: print_simulation(simulation.results, stdout),
        [f"note: {note}" for note in simulation.notes],
        name=name,
        out=out,
        force=force,
        as_json=as_json,
    )
    if out is not None:
        write_report_or_say(out, document, console, simulation=simulation)


def tell_results(
    document: "Document",
    print_table: Callable[[], None],
    sentences: Iterable[str],
    *,
    name: str = "eval",
    out: Path | None,
    force: bool,
    as_json: bool,
) -> "Console":
    """Print results as JSON or a table, then the sentences, and write them where `out` is given.

    Returns the console for what else there is to say: stderr beside JSON.
    """
    from lengthpred.eval.output import write_results

    if as_json:
        print_json(document.as_json())
    else:
        print_table()
    console = stderr if as_json else stdout
    for sentence in sentences:
        console.print(sentence, highlight=False, markup=False)
    if out is not None:
        for path in write_results(document, out, force=force, name=name):
            console.print(f"wrote {escape(str(path))}", highlight=False, soft_wrap=True)
    return console


def command_line() -> str:
    """What was typed."""
    return f"lengthpred {shlex.join(sys.argv[1:])}"


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
