"""The numbers behind the plots."""

from collections.abc import Callable, Iterator

from lengthpred.eval.ceiling import CEILINGS
from lengthpred.eval.report.lookup import SPLIT_NAMES, Replays, Scenario, Scores
from lengthpred.eval.report.panels import Table
from lengthpred.eval.report.words import change, duration, interval, number, percent
from lengthpred.eval.simulate import ReplayResult

__all__ = ["arrivals_name", "described", "scenario_name", "score_tables", "simulation_tables"]

Shown = Callable[[float], str]
TWO: Shown = "{:.2f}".format
SCORES: tuple[tuple[str, str, Shown, int], ...] = (
    # metric, head, how it is shown, better: higher 1, lower -1, neither 0
    ("tau", "tau", TWO, 1),
    ("pairwise_accuracy", "pairs right", percent, 1),
    ("mae", "mean error", number, -1),
    ("median_ae", "median error", number, -1),
    ("crps", "CRPS", number, -1),
    ("pinball_90", "pinball 90", number, -1),
    ("coverage_80", "coverage 80", percent, 0),
)
COSTS = (
    ("us_per_request_p50", "one request"),
    ("us_per_request_p99", "p99"),
    ("us_per_request_batch64", "each of 64"),
)
MEASURES: tuple[tuple[str, str, Shown], ...] = (
    ("mean_e2el_ms", "mean latency", lambda ms: duration(ms / 1e3)),
    ("p99_e2el_ms", "p99 latency", lambda ms: duration(ms / 1e3)),
    ("mean_ttft_ms", "mean TTFT", lambda ms: duration(ms / 1e3)),
    ("p99_ttft_ms", "p99 TTFT", lambda ms: duration(ms / 1e3)),
    ("mean_e2el_ms_longest_tenth", "longest tenth", lambda ms: duration(ms / 1e3)),
    ("total_token_throughput", "tokens/s", number),
    ("mean_queue_depth", "queue", number),
    ("preemptions", "preempted", number),
)
ARRIVALS = {
    "burst": "all at once",
    "poisson": "Poisson arrivals",
    "bursty": "bursty arrivals",
    "trace": "as recorded",
}


def score_tables(scores: Scores) -> Iterator[Table]:
    """A table a split: every name, every main metric; then what each costs."""
    for split in scores.splits:
        yield _scores_of(scores, split)
    timed = [name for name in scores.names if scores.get(name, COSTS[0][0])]
    if timed:
        body: list[list[str | tuple[str, str]]] = [
            [n, *(duration(r.value / 1e6) if (r := scores.get(n, m)) else "" for m, _ in COSTS)]
            for n in timed
        ]
        yield Table(
            "Cost of a prediction",
            "Measured in a process of its own on one thread: half of the single requests, and 99 "
            "in 100 of them, take no longer; and a request's share of a batch of 64.",
            ["", *(head for _, head in COSTS)],
            body,
        )


def _scores_of(scores: Scores, split: str) -> Table:
    names = [*scores.names, *(n for n in CEILINGS if scores.get(n, "tau", split))]
    body: list[list[str | tuple[str, str]]] = []
    strong = set()
    for name in names:
        cells: list[str | tuple[str, str]] = [name]
        for metric, _, shown, _ in SCORES:
            found = scores.get(name, metric, split)
            cells.append((shown(found.value), interval(found, shown).strip(" ()")) if found else "")
        body.append(cells)
    for column, (metric, _, _, better) in enumerate(SCORES, start=1):
        best = scores.best(metric, split, scores.predictors)
        if better and best:
            strong.add((names.index(best.predictor), column))
    n = next((r.n for name in names if (r := scores.get(name, "tau", split))), 0)
    caption = (
        f"{n:,} rows, 95 % intervals below each score. Bold is the best predictor. Errors, CRPS "
        "and pinball are in tokens, lower is better; coverage should be 80 %."
    )
    head = ["", *(head for _, head, _, _ in SCORES)]
    return Table(f"Scores, {SPLIT_NAMES[split]}", caption, head, body, frozenset(strong))


def simulation_tables(replays: Replays) -> Iterator[Table]:
    """A table a scenario: every arm, with each measure and its change against fcfs."""
    for at in replays.scenarios:
        body: list[list[str | tuple[str, str]]] = []
        for arm in replays.arms:
            cells: list[str | tuple[str, str]] = [
                arm.policy if arm.predictor is None else (arm.policy, arm.predictor)
            ]
            for metric, _, shown in MEASURES:
                found = replays.get(at, arm, metric)
                against = replays.get(at, arm, f"{metric}_vs_fcfs")
                cells.append((shown(found.value), _change(against)) if found else "")
            body.append(cells)
        caption = (
            "Means over draws; below each its change against first come, first served, with the "
            "95 % interval of that change."
        )
        head = ["", *(head for _, head, _ in MEASURES)]
        yield Table(f"{replays.what}, {scenario_name(at)}", caption, head, body, folded=True)


def scenario_name(at: Scenario) -> str:
    """How requests came, in words."""
    parts = [arrivals_name(at.arrivals)]
    if at.load is not None:
        parts.append(f"{percent(at.load)} of capacity")
    elif at.rate is not None:
        parts.append(f"{number(at.rate)} a second")
    if at.ood_ratio is not None:
        parts.append(f"{percent(at.ood_ratio)} out of distribution")
    return ", ".join(parts)


def arrivals_name(kind: str) -> str:
    return ARRIVALS.get(kind, kind)


def described(result: ReplayResult) -> str:
    """A change against fcfs with its interval."""
    return f"{change(result.value)}{interval(result, change)}"


def _change(result: ReplayResult | None) -> str:
    if result is None or (result.value == 1 and result.low in (None, 1)):
        return ""
    return described(result)
