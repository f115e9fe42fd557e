"""Plots of a comparison: who orders best, at what cost, and on which requests."""

from collections.abc import Iterator, Sequence

from lengthpred.eval.ceiling import CEILING
from lengthpred.eval.output import Result
from lengthpred.eval.report.detail import calibration, slices
from lengthpred.eval.report.lookup import SPLIT_NAMES, Scores
from lengthpred.eval.report.panels import Panel, Plot
from lengthpred.eval.report.pareto import COST, TAU, ceiling_lines, front, time_ticks
from lengthpred.eval.report.theme import (
    SURFACE,
    Figure,
    Look,
    Looks,
    bars,
    figure,
    legend_of,
    line_of,
)
from lengthpred.eval.report.words import duration

__all__ = ["accuracy_panels"]

ORACLE = "oracle"


def accuracy_panels(scores: Scores, looks: Looks, *, cost: bool = True) -> Iterator[Panel]:
    """Accuracy against cost, by OOD ratio, by slice, and calibration: what the scores allow."""
    if cost and any(scores.get(name, COST) for name in scores.names):
        yield _against_cost(scores, looks)
    yield _by_ratio(scores, looks) if scores.ratios else _by_split(scores, looks)
    if scores.slices:
        yield slices(scores, looks)
    if any(scores.get(n, "calibration_50", scores.splits[0]) for n in scores.predictors):
        yield calibration(scores, looks)


def _against_cost(scores: Scores, looks: Looks) -> Panel:
    """A filled mark for the first split, an open one for the second, a line between the two."""
    split, other = scores.splits[0], (*scores.splits[1:], None)[0]
    timed = [name for name in scores.names if scores.get(name, COST) and name != ORACLE]
    data = [front([(_cost(scores, n), _tau(scores, n, split)) for n in timed])]
    for name in timed:
        cost, look = _cost(scores, name), looks.of(name)
        found = [
            (s, r) for s in (split, other) if s is not None and (r := scores.get(name, "tau", s))
        ]
        if len(found) == 2:
            link = {"color": look.colour, "width": 1, "dash": "dot"}
            data.append(
                {
                    "type": "scatter",
                    "mode": "lines",
                    "x": [cost] * 2,
                    "hoverinfo": "skip",
                    "y": [r.value for _, r in found],
                    "line": link,
                    "name": name,
                }
            )
        for place, (where, result) in enumerate(found):
            data.append(_cost_mark(name, look, cost, where, result, filled=place == 0))
    lines, ceiling = ceiling_lines(scores, split)
    caption = (
        "Up and to the left is better. Filled marks are "
        f"{SPLIT_NAMES[split]}, with 95 % intervals"
        + (f"; open ones {SPLIT_NAMES[other]}." if other else ".")
        + " The thin grey line is the Pareto front: no other is both cheaper and better."
        + ceiling
    )
    plot = figure(
        data,
        x={
            "title": "time of one prediction, one core",
            **time_ticks([_cost(scores, name) for name in timed]),
        },
        y={"title": TAU},
        height=400,
        **lines,
    )
    return Panel("Accuracy against cost", caption, [Plot(plot)], legend_of(timed, looks))


def _cost_mark(
    name: str, look: Look, cost: float, where: str, result: Result, *, filled: bool
) -> Figure:
    marker = look.marker(12)
    if not filled:
        marker |= {"color": SURFACE, "line": {"color": look.colour, "width": 2}, "size": 9}
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": [cost],
        "y": [result.value],
        "error_y": bars([result]) | {"color": look.colour},
        "marker": marker,
        "hovertemplate": f"<b>{name}</b>, {SPLIT_NAMES[where]}<br>tau %{{y:.3f}}<br>"
        f"{duration(cost / 1e6)}<extra></extra>",
    }


def _by_ratio(scores: Scores, looks: Looks) -> Panel:
    names = [*_without_oracle(scores.names), CEILING]
    data = []
    for name in names:
        found = [(x, r) for x in scores.ratios if (r := scores.get(name, "tau", "mix", x))]
        if found:
            data.append(line_of(name, looks.of(name), [x for x, _ in found], [r for _, r in found]))
    plot = figure(
        data,
        x={"title": "share of requests unlike the training data", "tickformat": ".0%"},
        y={"title": TAU},
        height=380,
    )
    drawn = [str(trace["name"]) for trace in data]
    caption = (
        "How the order suffers as more requests come from outside the training data (the OOD "
        "ratio). Higher is better; whiskers are 95 % intervals over conversations."
    )
    return Panel("Accuracy by OOD ratio", caption, [Plot(plot)], legend_of(drawn, looks))


def _by_split(scores: Scores, looks: Looks) -> Panel:
    """A row for each name, its tau on the first split."""
    split = scores.splits[0]
    found = [
        r
        for name in [*_without_oracle(scores.names), CEILING]
        if (r := scores.get(name, "tau", split))
    ]
    found.sort(key=lambda r: r.value)
    data = [
        {
            "type": "scatter",
            "mode": "markers",
            "name": r.predictor,
            "x": [r.value],
            "y": [r.predictor],
            "error_x": bars([r]),
            "marker": looks.of(r.predictor).marker(11),
            "hovertemplate": "%{y}: tau %{x:.3f}<extra></extra>",
        }
        for r in found
    ]
    plot = figure(data, x={"title": TAU}, y={"type": "category"}, height=90 + 34 * len(found))
    caption = f"Higher is better; whiskers are 95 % intervals, {SPLIT_NAMES[split]}."
    return Panel("Accuracy", caption, [Plot(plot)])


def _without_oracle(names: Sequence[str]) -> list[str]:
    """The oracle's tau is 1 and would press all others together."""
    return [name for name in names if name != ORACLE]


def _cost(scores: Scores, name: str) -> float:
    found = scores.get(name, COST)
    return found.value if found else float("nan")


def _tau(scores: Scores, name: str, split: str) -> float:
    found = scores.get(name, "tau", split)
    return found.value if found else float("nan")
