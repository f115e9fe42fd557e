"""`lengthpred drift`: does a predictor still fit the traffic, and what drifted?"""

import math
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table as Grid

from lengthpred.cli.console import print_json, stdout, steps
from lengthpred.cli.named import say_origin

if TYPE_CHECKING:
    from lengthpred.eval.drift import DriftReplay

__all__ = ["register"]

WINDOWS = 20
UNIX_TIMES = 1e9  # seconds: what is less counts from some other beginning


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("drift")(drift)


def drift(
    directory: Annotated[str, typer.Argument(metavar="DIR", help="The artifact.")],
    data: Annotated[Path, typer.Option(help="A table of what came since it was trained.")],
    window: Annotated[
        int | None,
        typer.Option(
            min=1, help="Rows of a window; else a twentieth, at least 100.", show_default=False
        ),
    ] = None,
    late: Annotated[
        int, typer.Option(min=1, help="True lengths become known so many requests at a time.")
    ] = 10,
    threshold: Annotated[
        float, typer.Option(min=1, help="Of the tests: higher is fewer and later alarms.")
    ] = 25.0,
    seed: Annotated[int, typer.Option(min=0, help="Of the randomised coverage.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Replay a table in its time order: coverage of the 80 % interval, and alarms.

    Rows are taken by arrival_s, or as they stand where one has none. Nothing is written: the
    artifact learns nothing.
    """
    from lengthpred.artifact import load
    from lengthpred.data.table import Table
    from lengthpred.eval.drift import replay_drift
    from lengthpred.models.drift import DriftSettings

    predictor = load(directory)
    say_origin(predictor)
    table = Table(data)
    rows = table.rows()
    with steps("replaying") as on_progress:
        found = replay_drift(
            predictor,
            rows,
            window=window or max(100, math.ceil(len(rows) / WINDOWS)),
            late=late,
            seed=seed,
            settings=DriftSettings(threshold=threshold),
            on_progress=on_progress,
        )
    if as_json:
        print_json({"data_sha256": table.fingerprint, "seed": seed, **_document(found)})
        return
    _print_windows(found)
    _print_alarms(found)


def _document(found: "DriftReplay") -> dict[str, Any]:
    return {
        "coverage_80": found.coverage,
        "coverage_80_corrected": found.corrected,
        "windows": [
            {
                "start": one.start,
                "end": one.end,
                "coverage_80": one.coverage,
                "coverage_80_corrected": one.corrected,
            }
            for one in found.windows
        ],
        "alarms": [
            {
                "key": alarm.key,
                "direction": alarm.direction,
                "at": alarm.at,
                "since": alarm.since,
                "percentile": alarm.percentile,
                "arrival_s": when if math.isfinite(when) else None,
                "sentence": str(alarm),
            }
            for alarm, when in found.alarms
        ],
    }


def _print_windows(found: "DriftReplay") -> None:
    grid = Grid(box=None, pad_edge=False, header_style="bold")
    for heading in ("requests", "in 80 %", "corrected"):
        grid.add_column(heading, justify="right", no_wrap=True)
    for one in found.windows:
        span = f"{one.start + 1:,} - {one.end:,}"
        grid.add_row(span, _share(one.coverage), f"{one.corrected:.0%}")
    grid.add_row("all", _share(found.coverage), f"{found.corrected:.0%}", style="bold")
    stdout.print(grid)
    stdout.print(
        "[dim]in 80 %: truths inside the 80 % interval as the predictor answers; corrected: with "
        "the conformal correction, which learns from what came before[/]",
        highlight=False,
    )


def _share(value: float) -> str:
    return f"{value:.0%}" if abs(value - 0.8) <= 0.1 else f"[red]{value:.0%}[/]"


def _print_alarms(found: "DriftReplay") -> None:
    stdout.print()
    if not found.alarms:
        stdout.print("no alarm: lengths are as predicted")
    for alarm, when in found.alarms:
        stdout.print(
            f"[bold yellow]request {alarm.at:,}{_time(when)}[/] {escape(str(alarm))}",
            highlight=False,
            soft_wrap=True,
        )


def _time(seconds: float) -> str:
    if not math.isfinite(seconds):
        return ""
    if seconds < UNIX_TIMES:
        return f" ({seconds:,.0f} s)"
    try:
        return f" ({datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC)"
    except (ValueError, OverflowError, OSError):  # such as milliseconds: past the year 9999
        return f" (arrival_s {seconds:.15g})"
