"""The scores of a comparison as tables in the terminal, 100 columns wide."""

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lengthpred.eval.output import Result
from lengthpred.metrics import DETECTOR_METRICS

__all__ = ["print_by_ratio", "print_comparison"]

MISSING = "-"


def print_comparison(results: Sequence[Result], console: Console) -> None:
    """Predictors by split, best tau first; then detectors, where there are any."""
    found = {(r.predictor, r.split, r.ood_ratio, r.metric): r for r in results}
    console.print(_predictors(results, found))
    if any(result.metric in DETECTOR_METRICS for result in results):
        console.print(_detectors(results, found))


def print_by_ratio(results: Sequence[Result], console: Console) -> None:
    """One line a predictor: tau at each OOD ratio, then errors in and out of distribution."""
    found = {(r.predictor, r.split, r.ood_ratio, r.metric): r for r in results}
    taus = [result for result in results if result.metric == "tau" and result.split == "mix"]
    ratios = sorted({result.ood_ratio for result in taus if result.ood_ratio is not None})
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("tau at OOD share", no_wrap=True)
    for ratio in ratios:
        table.add_column(f"{ratio:.0%}", justify="right", no_wrap=True)
    for heading in ("MAE", "OOD", "80 %", "us"):
        table.add_column(heading, justify="right", no_wrap=True)
    names = dict.fromkeys(result.predictor for result in taus)
    for name in sorted(names, key=lambda n: -found[n, "mix", ratios[0], "tau"].value):
        table.add_row(
            escape(name),
            *(_show(found.get((name, "mix", ratio, "tau")), ".3f") for ratio in ratios),
            _show(found.get((name, "in", None, "mae")), ".0f"),
            _show(found.get((name, "ood", None, "mae")), ".0f"),
            _show(found.get((name, "in", None, "coverage_80")), ".0%"),
            _show(found.get((name, "all", None, "us_per_request_p50")), ",.0f"),
        )
    table.caption = (
        "tau: Kendall's tau-b of the median (1 is the true order); MAE in tokens, in distribution "
        "and OOD; 80 %: share inside the 80 % interval; us: median time of one prediction"
    )
    table.caption_justify = "left"
    console.print(table)
    over_all = [result for result in results if result.split == "all"]
    if any(result.metric in DETECTOR_METRICS for result in over_all):
        console.print()
        console.print(_detectors(over_all, found))


def _predictors(
    results: Sequence[Result], found: dict[tuple[str, str, float | None, str], Result]
) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("predictor", overflow="fold")
    for heading in ("tau", "95 %", "pairs", "MAE", "CRPS", "in 80 %", "us"):
        table.add_column(heading, justify="right", no_wrap=True)
    taus = [result for result in results if result.metric == "tau"]
    for split, ratio in dict.fromkeys((r.split, r.ood_ratio) for r in taus):
        if ratio in (0, 1):
            continue  # the same rows as a split that is shown
        here = [r for r in taus if (r.split, r.ood_ratio) == (split, ratio)]
        table.add_row()
        table.add_row(f"[bold cyan]{_title(split, ratio)}, {here[0].n:,} rows[/]")
        for best in sorted(here, key=lambda r: -r.value):
            key = (best.predictor, split, ratio)
            table.add_row(
                escape(best.predictor),
                f"{best.value:.3f}",
                _interval(best),
                _show(found.get((*key, "pairwise_accuracy")), ".1%"),
                _show(found.get((*key, "mae")), ".1f"),
                _show(found.get((*key, "crps")), ".1f"),
                _show(found.get((*key, "coverage_80")), ".1%"),
                _show(found.get((best.predictor, "all", None, "us_per_request_p50")), ",.0f"),
            )
    table.caption = (
        "tau: Kendall's tau-b of the median; pairs: share ordered right; MAE and CRPS in tokens; "
        "in 80 %: share inside the 80 % interval; us: median time of one prediction"
    )
    table.caption_justify = "left"
    return table


def _detectors(
    results: Iterable[Result], found: dict[tuple[str, str, float | None, str], Result]
) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("detector", "rows"):
        table.add_column(heading, no_wrap=True)
    for heading in ("AUROC", "95 %", "FPR95", "alarms", "95 %"):
        table.add_column(heading, justify="right", no_wrap=True)
    ours = (r for r in results if r.metric in DETECTOR_METRICS)
    table.add_row()
    for name, split, ratio in dict.fromkeys((r.predictor, r.split, r.ood_ratio) for r in ours):
        if ratio in (0, 1):
            continue
        auroc, fpr, alarms = (found.get((name, split, ratio, m)) for m in DETECTOR_METRICS)
        table.add_row(
            escape(name),
            f"{ratio:.0%} OOD" if ratio else split,
            _show(auroc, ".3f"),
            _interval(auroc),
            _show(fpr, ".1%"),
            _show(alarms, ".1%"),
            _interval(alarms, ".1%"),
        )
    table.caption = (
        "FPR95: in-distribution rows flagged where 95 % of the OOD rows are; alarms: "
        "in-distribution rows flagged at alpha"
    )
    table.caption_justify = "left"
    return table


def _title(split: str, ratio: float | None) -> str:
    names = {"in": "in distribution", "ood": "out of distribution", "all": "all rows"}
    return names.get(split, split if ratio is None else f"mix, {ratio:.0%} out of distribution")


def _show(result: Result | None, form: str) -> str:
    return MISSING if result is None else format(result.value, form)


def _interval(result: Result | None, form: str = ".3f") -> str:
    if result is None or result.low is None or result.high is None:
        return MISSING
    return f"{result.low:{form}} to {result.high:{form}}"
