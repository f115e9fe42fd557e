"""The measures of a simulation as tables in the terminal, 100 columns wide."""

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lengthpred.eval.simulate import ReplayResult

__all__ = ["print_brief", "print_simulation"]

ARRIVALS = {
    "burst": "all at once",
    "poisson": "Poisson",
    "bursty": "in bursts",
    "trace": "recorded",
}


def print_simulation(results: Sequence[ReplayResult], console: Console) -> None:
    """A table for each kind of arrivals, load and OOD ratio; the shortest mean latency first."""
    blocks: dict[tuple[object, ...], dict[tuple[str, str | None], dict[str, ReplayResult]]] = {}
    for one in results:
        block = blocks.setdefault((one.arrivals, one.load, one.rate, one.ood_ratio), {})
        block.setdefault((one.policy, one.predictor), {})[one.metric] = one
    for arms in blocks.values():
        console.print(f"[bold cyan]{_title(next(iter(arms.values())))}[/]", highlight=False)
        console.print(_block(arms))
    console.print(
        "[dim]latency: mean, end to end; x fcfs: as a multiple of that under fcfs on the same "
        "requests, and half its 95 % interval; p99, longest tenth (those with the longest "
        "answers), tokens/s: as multiples, too; fcfs with a predictor runs and ignores it[/]",
        highlight=False,
    )


def _block(arms: dict[tuple[str, str | None], dict[str, ReplayResult]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("order", overflow="fold", min_width=18)
    for heading in ("latency", "x fcfs", "p99", "longest\ntenth", "first\ntoken", "tok/s"):
        table.add_column(heading, justify="right", no_wrap=True)
    for (policy, predictor), found in sorted(
        arms.items(), key=lambda item: item[1]["mean_e2el_ms"].value
    ):
        ratio = found["mean_e2el_ms_vs_fcfs"]
        half = "" if ratio.high is None else f" ±{ratio.high - ratio.value:.2f}"
        table.add_row(
            escape(_name(policy, predictor)),
            _seconds(found["mean_e2el_ms"].value),
            f"{ratio.value:.2f}{half}",
            f"{found['p99_e2el_ms_vs_fcfs'].value:.2f}",
            f"{found['mean_e2el_ms_longest_tenth_vs_fcfs'].value:.2f}",
            _seconds(found["mean_ttft_ms"].value),
            f"{found['total_token_throughput_vs_fcfs'].value:.2f}",
        )
    table.add_row()
    return table


def print_brief(results: Sequence[ReplayResult], console: Console) -> None:
    """One line an order: mean latency and tokens a second at each OOD ratio, all at once."""
    found = {
        (r.policy, r.predictor, r.ood_ratio, r.metric): r for r in results if r.arrivals == "burst"
    }
    ratios = sorted({r.ood_ratio for r in results if r.ood_ratio is not None})
    orders = dict.fromkeys(key[:2] for key in found if key[0] != "fcfs" or key[1] is None)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("1,000 at once, OOD share", no_wrap=True)
    for metric in ("s", "tok/s"):
        for ratio in ratios:
            table.add_column(f"{metric} {ratio:.0%}", justify="right", no_wrap=True)
    for policy, predictor in orders:
        cells = [
            f"{found[policy, predictor, ratio, metric].value / unit:,.{digits}f}"
            for metric, unit, digits in (("mean_e2el_ms", 1e3, 1), ("tps", 1, 0))
            for ratio in ratios
        ]
        table.add_row(escape(_name(policy, predictor)), *cells)
    table.caption = (
        "s: mean seconds from arrival to the last token; tok/s: tokens in and out a second; "
        "at each share of requests unlike the training data"
    )
    table.caption_justify = "left"
    console.print(table)


def _title(one: dict[str, ReplayResult]) -> str:
    any_ = one["mean_queue_depth"]
    parts = [ARRIVALS[any_.arrivals]]
    if any_.load is not None:
        parts.append(f"load {any_.load:.0%}")
    if any_.rate is not None:
        parts.append(f"{any_.rate:.3g} requests/s")
    if any_.ood_ratio is not None:
        parts.append(f"{any_.ood_ratio:.0%} OOD")
    return f"{', '.join(parts)}: {any_.value:,.0f} wait on average under fcfs"


def _name(policy: str, predictor: str | None) -> str:
    if predictor is None:
        return policy
    return f"{policy}, {predictor} ignored" if policy == "fcfs" else f"{policy} by {predictor}"


def _seconds(milliseconds: float) -> str:
    return f"{milliseconds / 1e3:,.2f} s" if milliseconds >= 100 else f"{milliseconds:,.0f} ms"
