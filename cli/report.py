"""Writes the report beside other results."""

import shlex
import sys
from collections.abc import Callable, Mapping
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

__all__ = ["tell_simulation", "write_or_say", "write_report_or_say"]


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
    from lengthpred.eval.output import Document, write_results

    command = f"lengthpred {shlex.join(sys.argv[1:])}"
    document = Document(command, sha256, seed, simulation.results)
    if as_json:
        print_json(document.as_json())
    else:
        print_simulation(simulation.results, stdout)
    console = stderr if as_json else stdout
    for note in simulation.notes:
        console.print(f"note: {note}", highlight=False, markup=False)
    if out is not None:
        for path in write_results(document, out, force=force, name=name):
            console.print(f"wrote {escape(str(path))}", highlight=False, soft_wrap=True)
        write_report_or_say(out, document, console, simulation=simulation)


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
