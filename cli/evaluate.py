"""`lengthpred eval`: how good predictors are, beside the controls."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer

from lengthpred.cli.console import stdout, steps
from lengthpred.cli.named import (
    fitted,
    is_control,
    labels,
    load_named,
    parse_ratios,
    seen_in_training,
)
from lengthpred.errors import DataError, LengthPredError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console

    from lengthpred.base import Detector, Predictor
    from lengthpred.data.table import Rows, Table
    from lengthpred.eval.baseline import Baseline, Regression
    from lengthpred.eval.compare import Comparison
    from lengthpred.eval.simulate import Simulation

__all__ = ["register"]

TRAIN_ROWS = 200_000
REGRESSION = 3  # the exit code


class Turns(StrEnum):
    """Which rows of a conversation are evaluated."""

    FIRST = "first"
    ALL = "all"


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("eval")(evaluate)


def evaluate(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="DIR...",
            help="Artifacts (a folder, or ORG/NAME on the hub), or controls by name: constant, "
            "prompt-length, oracle, oracle-noise, samples-mean, samples-max.",
        ),
    ],
    data: Annotated[Path, typer.Option(help="The table to evaluate on.")],
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for eval.json, eval.csv and report.html.", show_default=False),
    ] = None,
    train_data: Annotated[
        Path | None,
        typer.Option(help="The table that controls learn from; else --data.", show_default=False),
    ] = None,
    ood_ratio: Annotated[
        str, typer.Option(help="Shares of OOD rows in the mixes, between 0 and 1.")
    ] = "0,0.2,0.5,0.8,1",
    turns: Annotated[Turns, typer.Option(help="First turns only, or all turns.")] = Turns.ALL,
    alpha: Annotated[float, typer.Option(help="Level at which detectors flag.")] = 0.05,
    resamples: Annotated[
        int, typer.Option(min=0, help="Draws of the bootstrap behind the intervals; 0 for none.")
    ] = 200,
    seed: Annotated[int, typer.Option(min=0, help="Seed of mixes, draws and noise.")] = 0,
    max_rows: Annotated[
        int | None,
        typer.Option(min=1, help="Evaluate on a sample of so many rows.", show_default=False),
    ] = None,
    cost: Annotated[bool, typer.Option("--cost/--no-cost", help="Time the predictors.")] = True,
    baseline: Annotated[
        Path | None,
        typer.Option(
            help="An earlier eval.json on the same rows: exit with 3 where a score of a whole "
            "split is worse than its interval there.",
            show_default=False,
        ),
    ] = None,
    replay: Annotated[
        bool,
        typer.Option(
            "--replay/--no-replay", help="Show in the report what predictors mean for a queue."
        ),
    ] = True,
    prompts: Annotated[
        bool,
        typer.Option("--prompts/--no-prompts", help="Show prompts of the table in the report."),
    ] = True,
    force: Annotated[bool, typer.Option("--force", help="Replace results in --out.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print eval.json's content.")] = False,
) -> None:
    """Compare predictors with each other and with the controls, in and out of distribution."""
    from lengthpred.cli.comparison_table import print_comparison
    from lengthpred.cli.report import command_line, tell_results, write_report_or_say
    from lengthpred.data.table import Table
    from lengthpred.eval.compare import compare, detectors_in
    from lengthpred.eval.output import Document, check_out

    if out is not None:
        check_out(out, force=force)
    ratios = parse_ratios(ood_ratio)
    table = Table(data)
    given = {name: load_named(name) for name in names if not is_control(name)}
    rows = load_rows(table, turns, max_rows, seed)
    labelled = {label: given.get(name) for label, name in labels(names).items()}
    own = {label: one for label, one in labelled.items() if one is not None}
    before = read_before(baseline, table, rows, list(own), ratios, seed) if baseline else None
    train = None if train_data is None else Table(train_data).rows(limit=TRAIN_ROWS, seed=seed)
    compared = fitted(labelled, rows, train, seed)
    with steps("evaluating") as on_progress:
        comparison = compare(
            compared,
            rows,
            train_rows=train,
            ratios=ratios,
            alpha=alpha,
            resamples=resamples,
            seed=seed,
            cost=cost,
            on_progress=on_progress,
        )
    comparison.notes.extend(seen_in_training(own, table))
    document = Document(command_line(), table.fingerprint, seed, comparison.results)
    console = tell_results(
        document,
        lambda: print_comparison(comparison.results, stdout),
        [f"note: {note}" for note in comparison.notes],
        out=out,
        force=force,
        as_json=as_json,
    )
    if out is not None:
        simulation = replayed(comparison, own, seed, console) if replay else None
        write_report_or_say(
            out, document, console, comparison=comparison, simulation=simulation, prompts=prompts
        )
    if before is not None:
        if before.left_out:
            console.print(
                f"note: {before.path} also holds {', '.join(before.left_out)}, which nothing here "
                "is compared with",
                highlight=False,
                markup=False,
            )
        levels = {name: level for name, (_, level) in detectors_in(own, alpha).items()}
        exit_if_worse(before.regressions(comparison.results, levels), console)


def replayed(
    comparison: "Comparison",
    own: "Mapping[str, Predictor | Detector]",
    seed: int,
    console: "Console",
) -> "Simulation | None":
    """What the predictors mean for a queue; the rest of the report does without it."""
    from lengthpred.eval.worth import replay_compared

    if not any(hasattr(one, "predict") for one in own.values()):
        return None
    with steps("replaying", "replaying ") as on_progress:
        try:
            return replay_compared(comparison, own, seed=seed, on_progress=on_progress)
        except LengthPredError as error:
            console.print(f"note: no replay in the report: {error}", highlight=False, markup=False)
            return None


def read_before(
    path: Path,
    table: "Table",
    rows: "Rows",
    own: list[str],
    ratios: list[float],
    seed: int,
) -> "Baseline":
    """The baseline, checked to be of these rows; raises DataError as `read_baseline` does."""
    from lengthpred.eval.baseline import read_baseline
    from lengthpred.eval.mixes import make_mixes

    baseline = read_baseline(path, data_sha256=table.fingerprint, seed=seed, labels=own)
    baseline.check_rows(make_mixes(rows, ratios, seed))
    return baseline


def exit_if_worse(regressions: "list[Regression]", console: "Console") -> None:
    """Print what is worse than the baseline; raises typer.Exit where anything is."""
    from lengthpred.cli.comparison_table import print_regressions

    print_regressions(regressions, console)
    if regressions:
        raise typer.Exit(REGRESSION)


def load_rows(table: "Table", turns: Turns, max_rows: int | None, seed: int) -> "Rows":
    """The rows to evaluate on; raises DataError when there is no first turn."""
    if turns is Turns.ALL:
        return table.rows(limit=max_rows, seed=seed)
    rows = table.rows()
    first = np.flatnonzero(rows.columns["turn"] == 0)
    if not len(first):
        raise DataError(f"{table.path} has no first turns: leave out --turns first")
    if max_rows is not None and max_rows < len(first):
        rng = np.random.default_rng(seed)
        first = np.sort(rng.choice(first, max_rows, replace=False))
    return rows.take(first)
