"""The scores of a comparison as tables in the terminal, 100 columns wide."""

import math
from collections.abc import Iterable, Mapping, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lengthpred.eval.baseline import Regression
from lengthpred.eval.ceiling import CEILING, CEILINGS
from lengthpred.eval.output import Result
from lengthpred.eval.slices import is_slice
from lengthpred.metrics import DETECTOR_METRICS

__all__ = ["print_by_ratio", "print_comparison", "print_regressions"]

MISSING = "-"
DOMAIN = "domain="
COLUMNS = 5  # predictors that the table of domains has room for
KNOWN = ("constant", "oracle")  # tau is 0 and 1 in every domain

Found = Mapping[tuple[str, str, float | None, str], Result]


def print_comparison(results: Sequence[Result], console: Console) -> None:
    """Predictors by split, best tau first; tau by domain; and detectors, where there are any."""
    found = _by_key(results)
    console.print(_predictors(results, found))
    if len({result.split for result in results if result.split.startswith(DOMAIN)}) > 1:
        console.print()
        console.print(_domains(results, found))
    if any(result.metric in DETECTOR_METRICS for result in results):
        console.print()
        console.print(_detectors(results, found))


def print_regressions(found: Sequence[Regression], console: Console) -> None:
    """What got worse than a baseline, by more than its interval; or that nothing did."""
    if not found:
        console.print("No metric fell by more than its interval against the baseline.")
        return
    console.print(f"Worse than the baseline by more than the interval: {len(found)} scores.")
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("predictor", "split", "metric"):
        table.add_column(heading, overflow="fold")
    for heading in ("was", "95 %", "is"):
        table.add_column(heading, justify="right", no_wrap=True)
    for one in found:
        new, old = one.new.predictor, one.old.predictor
        table.add_row(
            escape(new if new == old else f"{new} (was {old})"),
            escape(_title(one.new.split, one.new.ood_ratio)),
            one.new.metric,
            f"{one.old.value:.4g}",
            _interval(one.old, ".4g"),
            f"[bold red]{one.new.value:.4g}[/]",
        )
    console.print(table)


def print_by_ratio(results: Sequence[Result], console: Console) -> None:
    """One line a predictor: tau at each OOD ratio, then errors in and out of distribution."""
    found = _by_key(results)
    taus = [result for result in results if result.metric == "tau" and result.split == "mix"]
    ratios = sorted({result.ood_ratio for result in taus if result.ood_ratio is not None})
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("tau at OOD share", no_wrap=True)
    for ratio in ratios:
        table.add_column(f"{ratio:.0%}", justify="right", no_wrap=True)
    for heading in ("MAE", "OOD", "80 %", "us"):
        table.add_column(heading, justify="right", no_wrap=True)
    names = dict.fromkeys(result.predictor for result in taus)
    for name in sorted(names, key=lambda n: -_value(found, n, "mix", ratios[0])):
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


def _by_key(results: Iterable[Result]) -> Found:
    return {(r.predictor, r.split, r.ood_ratio, r.metric): r for r in results}


def _value(found: Found, name: str, split: str, ratio: float | None = None) -> float:
    result = found.get((name, split, ratio, "tau"))
    return -math.inf if result is None else result.value


def _predictors(results: Sequence[Result], found: Found) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("predictor", overflow="fold")
    for heading in ("tau", "95 %", "pairs", "MAE", "CRPS", "in 80 %", "us"):
        table.add_column(heading, justify="right", no_wrap=True)
    taus = [result for result in results if result.metric == "tau" and not is_slice(result.split)]
    for split, ratio in dict.fromkeys((r.split, r.ood_ratio) for r in taus):
        if ratio in (0, 1):
            continue  # the same rows as a split that is shown
        here = [r for r in taus if (r.split, r.ood_ratio) == (split, ratio)]
        table.add_row()
        table.add_row(f"[bold cyan]{_title(split, ratio)}, {max(r.n for r in here):,} rows[/]")
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


def _domains(results: Iterable[Result], found: Found) -> Table:
    """tau of the best predictors, and of the ceiling, by domain."""
    taus = [r for r in results if r.metric == "tau" and r.split.startswith(DOMAIN)]
    by_name: dict[str, list[float]] = {}
    for result in taus:
        by_name.setdefault(result.predictor, []).append(result.value)
    shown = [name for name in by_name if name not in (*KNOWN, *CEILINGS)]
    shown = sorted(shown, key=lambda name: -sum(by_name[name]) / len(by_name[name]))[:COLUMNS]
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("tau by domain", overflow="fold")
    table.add_column("rows", justify="right", no_wrap=True)
    shown += [CEILING] if CEILING in by_name else []
    for name in shown:
        table.add_column(escape(name), justify="right", overflow="fold")
    for split in dict.fromkeys(result.split for result in taus):
        values = [found.get((name, split, None, "tau")) for name in shown]
        rows = max(result.n for result in taus if result.split == split)
        table.add_row(
            escape(split.removeprefix(DOMAIN)), f"{rows:,}", *(_show(v, ".3f") for v in values)
        )
    return table


def _detectors(results: Iterable[Result], found: Found) -> Table:
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
