"""The recipes of a zoo as tables in the terminal, 80 columns wide."""

import math
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lengthpred.eval.output import Result
from lengthpred.eval.report.pareto import Entry

__all__ = ["print_zoo"]

SPLITS = {"in": "in distribution", "ood": "out of distribution", "all": "all rows"}
COST = "us_per_request_p50"
MISSING = "-"
CAPTION = (
    "tau: Kendall's tau-b of the median; MAE in tokens; in 80 %: share inside the 80 % interval; "
    "us: median time of one prediction; trained: seconds"
)


def print_zoo(results: Sequence[Result], entries: Sequence[Entry], console: Console) -> None:
    """Recipes, controls and the ceiling by split, best tau first; then what stands in for what."""
    found = {(r.predictor, r.split, r.metric): r for r in results if r.ood_ratio is None}
    trained = {entry.name: entry for entry in entries}
    # Titles stand in no column: a narrow console would cut the numbers beside a long one.
    for split, title in SPLITS.items():
        taus = [r for (_, s, metric), r in found.items() if (s, metric) == (split, "tau")]
        if not taus:
            continue
        console.print(f"\n[bold cyan]{title}, {max(r.n for r in taus):,} rows[/]", highlight=False)
        table = _columns()
        for best in sorted(taus, key=lambda r: -r.value):
            entry = trained.get(best.predictor)
            table.add_row(
                escape(best.predictor),
                f"{best.value:.3f}",
                _interval(best),
                _show(found.get((best.predictor, split, "mae")), ".0f"),
                _show(found.get((best.predictor, split, "coverage_80")), ".0%"),
                _show(found.get((best.predictor, "all", COST)), ",.0f"),
                _took(entry) if entry else "",
            )
        console.print(table)
    console.print(CAPTION, style="dim", highlight=False)
    stand_ins: dict[str, list[str]] = {}
    for entry in entries:
        if entry.stand_in:
            stand_ins.setdefault(entry.stand_in, []).append(entry.name)
    for what, names in stand_ins.items():
        console.print(
            f"[dim]{escape(what)}: {escape(', '.join(names))}[/]", highlight=False, soft_wrap=True
        )


def _columns() -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("recipe", no_wrap=True)
    for heading in ("tau", "95 %", "MAE", "in 80 %", "us", "trained"):
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _took(entry: Entry) -> str:
    return f"{math.ceil(entry.seconds):,}{' cut' if entry.cut else ''}"


def _show(result: Result | None, form: str) -> str:
    return MISSING if result is None else format(result.value, form)


def _interval(result: Result) -> str:
    if result.low is None or result.high is None:
        return MISSING
    return f"{result.low:.3f} to {result.high:.3f}"
