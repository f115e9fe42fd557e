"""The experiment's results as tables in a terminal."""

from typing import TYPE_CHECKING

from rich.table import Table as Grid

from lengthpred.cli.console import stdout

if TYPE_CHECKING:
    from lengthpred.eval.sqlm_fig1.reading import Found
    from lengthpred.eval.sqlm_fig1.rows import Row

__all__ = ["print_fig1"]

WIDTH = 120
METRICS = {"tps": "tokens/s", "mean_e2el_ms": "latency"}


def print_fig1(found: "Found") -> None:
    """A table for each engine and limit: tokens a second and mean latency by OOD ratio."""
    for engine in found.engines:
        for limit in found.limits:
            # Cut columns would say nothing; a narrow terminal may fold the lines.
            stdout.print(_grid(found, engine, limit), width=max(stdout.width, WIDTH), crop=False)
            stdout.print()
    stdout.print(
        "[dim]all at once, shortest first unless it says otherwise; tokens/s of LLM time and mean "
        "latency as multiples of QLM's on the same requests, ± half the 95 % interval[/]",
        highlight=False,
    )


def _grid(found: "Found", engine: str, limit: int) -> Grid:
    from lengthpred.eval.sqlm_fig1.rows import PUBLISHED, ROWS
    from lengthpred.eval.sqlm_fig1.setting import PUBLISHED_GAIN

    grid = Grid(box=None, pad_edge=False, header_style="bold")
    grid.add_column(f"{engine}, in + out up to {limit:,}", no_wrap=True)
    for what in METRICS.values():
        for ratio in found.ratios:
            grid.add_column(f"{what}\n{ratio:.0%} OOD", justify="right", no_wrap=True)
    published = [
        f"{PUBLISHED_GAIN[ratio]:.3f}" if ratio in PUBLISHED_GAIN else "" for ratio in found.ratios
    ]
    grid.add_row(f"[dim]{PUBLISHED}[/]", *published)
    for row in ROWS:
        cells = [
            _cell(row, found, engine, ratio, limit, metric)
            for metric in METRICS
            for ratio in found.ratios
        ]
        if any(cells):
            grid.add_row(row.name, *cells)
    return grid


def _cell(row: "Row", found: "Found", engine: str, ratio: float, limit: int, metric: str) -> str:
    one = row.find(found, engine, ratio, limit, f"{metric}_vs_qlm")
    if one is None:
        return ""
    half = "" if one.high is None or row.is_qlm else f" ±{one.high - one.value:.2f}"
    return f"{one.value:.3f}{half}" if metric == "tps" else f"{one.value:.2f}{half}"
