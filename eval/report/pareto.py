"""Accuracy against cost: the marks' common frame, and the recipes of a zoo in it."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lengthpred.eval.ceiling import CEILING
from lengthpred.eval.report.lookup import SPLIT_NAMES, Scores
from lengthpred.eval.report.panels import Panel, Plot, Table
from lengthpred.eval.report.theme import MUTED, SURFACE, TEXT, Figure, Looks, bars, faint, figure
from lengthpred.eval.report.words import duration, number, percent

__all__ = ["COST", "TAU", "Entry", "ceiling_lines", "front", "time_ticks", "zoo_section"]

TAU = "tau: 0 is chance, 1 a perfect order"
COST = "us_per_request_p50"
ORACLE = "oracle"
HEIGHT = 500
LINE = 16  # pixels between labels that stand below each other
ASIDE = 26  # pixels from a mark to its label
DECADE = 130  # pixels, about, on a wide screen
COLUMN = 0.6  # decades of cost within which marks share a column of labels


@dataclass(frozen=True)
class Entry:
    """A recipe that was trained.

    paper     the title of what it follows; "" for our own. source: its authors, and where it is
    method    its kind, and what distinguishes it
    stand_in  what is in the place of the paper's model; "" for nothing
    differs   what is not as in the paper
    seconds   that training took; cut: it ended early, because the time was up
    """

    name: str
    paper: str
    source: str
    method: str
    stand_in: str
    differs: str
    seconds: float
    cut: bool = False


def zoo_section(
    entries: Sequence[Entry], scores: Scores, looks: Looks
) -> tuple[str, Sequence[Panel | Table]]:
    """Tau against cost with every name in it, and tables of the recipes."""
    split = scores.splits[0]
    timed = [n for n in scores.names if scores.get(n, COST) and n != ORACLE]

    def tau(entry: Entry) -> float:
        found = scores.get(entry.name, "tau", split)
        return found.value if found else -math.inf

    ranked = sorted(entries, key=lambda entry: -tau(entry))
    parts: list[Panel | Table] = [_scores(ranked, scores, split)]
    if any(entry.paper for entry in entries):
        parts.append(_papers(ranked))
    if timed:
        parts.insert(0, _plot(entries, scores, looks, split, timed))
    return "Recipes", parts


def front(points: Sequence[tuple[float, float]]) -> Figure:
    """Of (cost, tau): who is not beaten by a cheaper one, from cheap to dear."""
    kept: list[tuple[float, float]] = []
    for cost, tau in sorted(points, key=lambda p: (p[0], -p[1])):
        if not kept or tau > kept[-1][1]:
            kept.append((cost, tau))
    return {
        "type": "scatter",
        "mode": "lines",
        "hoverinfo": "skip",
        "name": "Pareto front",
        "x": [cost for cost, _ in kept],
        "y": [tau for _, tau in kept],
        "line": {"color": MUTED, "width": 1, "shape": "hv"},
    }


def time_ticks(costs: Sequence[float], room: float = 2.0) -> Figure:
    """An axis of µs with room on both sides, `room` times on the right; short ones have more ticks.

    Plotly writes 0.1 ms as 100µ, which few can read.
    """
    low, high = min(costs) / 2, max(costs) * room
    steps = (1, 2, 5) if high < 100 * low else (1, 3) if high < 10_000 * low else (1,)
    ticks = [10.0**power * step for power in range(-2, 9) for step in steps]
    shown = [t for t in ticks if low <= t <= high]
    names_of_ticks = [duration(t / 1e6) for t in shown]
    ends = [math.log10(low), math.log10(high)]
    return {"type": "log", "range": ends, "tickvals": shown, "ticktext": names_of_ticks}


def ceiling_lines(scores: Scores, split: str) -> tuple[Figure, str]:
    """The noise ceiling as a line in its band, and what the caption says of it."""
    most = scores.get(CEILING, "tau", split)
    if most is None:
        return {}, ""
    line = {
        "type": "line",
        "xref": "paper",
        "x0": 0,
        "x1": 1,
        "y0": most.value,
        "y1": most.value,
        "line": {"color": MUTED, "width": 1.5, "dash": "dash"},
    }
    shapes: list[Figure] = [line]
    if most.low is not None:
        band = {"type": "rect", "xref": "paper", "x0": 0, "x1": 1, "y0": most.low, "y1": most.high}
        shapes.append({**band, "fillcolor": faint(MUTED, 0.12), "line": {"width": 0}})
    note = {
        "xref": "paper",
        "x": 1,
        "xanchor": "right",
        "y": most.value,
        "yanchor": "bottom",
        "text": "noise ceiling",
        "showarrow": False,
        "font": {"color": MUTED, "size": 12},
    }
    said = " The dashed line is the noise ceiling, the best that the prompts allow."
    return {"shapes": shapes, "annotations": [note]}, said


def _plot(
    entries: Sequence[Entry], scores: Scores, looks: Looks, split: str, timed: Sequence[str]
) -> Panel:
    told = {entry.name: _took(entry) for entry in entries}
    found = {n: (scores.get(n, COST), scores.get(n, "tau", split)) for n in timed}
    points = {n: (c.value, t.value) for n, (c, t) in found.items() if c and t}
    data = [front(list(points.values()))]
    for name, (cost, tau) in points.items():
        result = scores.get(name, "tau", split)
        look = looks.of(name)
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": name,
                "x": [cost],
                "y": [tau],
                "error_y": bars([result] if result else []) | {"color": faint(look.colour, 0.45)},
                "marker": look.marker(11),
                "hovertemplate": f"<b>{name}</b><br>tau %{{y:.3f}}<br>{duration(cost / 1e6)}"
                f"<br>{told.get(name, 'a control')}<extra></extra>",
            }
        )
    lines, ceiling = ceiling_lines(scores, split)
    results = [r for n in (*timed, CEILING) if (r := scores.get(n, "tau", split))]
    low = min(r.value if r.low is None else r.low for r in results) - 0.03
    high = max(r.value if r.high is None else r.high for r in results) + 0.03
    labels = {n: f"{n}, {told[n]}" if n in told else n for n in points}
    # The names stand on the right.
    above = [note | {"x": 0, "xanchor": "left"} for note in lines.pop("annotations", [])]
    costs = [cost for cost, _ in points.values()]
    decades = math.log10(max(costs) / min(costs)) + 0.6
    plot = figure(
        data,
        x={
            "title": "time of one prediction, one core",
            **time_ticks(costs, 10 ** max(0.28 * decades, 0.3)),
        },
        y={"title": TAU, "range": [low, high]},
        height=HEIGHT,
        annotations=above + _labels(points, labels, low, high),
        # Where the screen has no room for names.
        meta={"narrow": {"annotations": above, "xaxis": {"range": time_ticks(costs)["range"]}}},
        **lines,
    )
    caption = (
        f"Up and to the left is better; {SPLIT_NAMES[split]}, with 95 % intervals. A mark that is "
        "pointed at or tapped says its name and how long its training took. The thin grey line is "
        "the Pareto front: no other is both cheaper and better." + ceiling
    )
    return Panel("Accuracy against cost, all recipes", caption, [Plot(plot)], wide=True)


def _labels(
    points: dict[str, tuple[float, float]], labels: dict[str, str], low: float, high: float
) -> list[Figure]:
    """A name beside each mark; where marks are close, names stand below each other."""
    scale = (HEIGHT - 70) / (high - low)
    columns: list[list[str]] = []
    last = -math.inf
    for name in sorted(points, key=lambda n: points[n][0]):
        place = math.log10(points[name][0])
        if place - last > COLUMN:
            columns.append([])
        columns[-1].append(name)
        last = place
    notes = []
    for column in columns:
        column.sort(key=lambda n: -points[n][1])
        right = max(math.log10(points[n][0]) for n in column)
        wanted = [-points[n][1] * scale for n in column]
        for name, y, spread in zip(column, wanted, _spread(wanted), strict=True):
            cost, tau = points[name]
            note = {
                "x": math.log10(cost),
                "y": tau,
                "text": labels[name],
                "xanchor": "left",
                "ax": ASIDE + DECADE * (right - math.log10(cost)),
                "ay": spread - y,
                "showarrow": True,
                "arrowhead": 0,
                "arrowwidth": 0.7,
                "arrowcolor": MUTED,
                "standoff": 6,
                "font": {"color": TEXT, "size": 11.5},
                "bgcolor": SURFACE,
            }
            notes.append(note)
    return notes


def _spread(places: Sequence[float]) -> list[float]:
    """Rising places, moved as little as they must be to stand LINE apart.

    Those that push each other form a block around the mean of where they want to be.

    >>> _spread([0.0, 1.0, 100.0])
    [-7.5, 8.5, 100.0]
    """
    blocks: list[list[float]] = []
    for place in places:
        blocks.append([place])
        while len(blocks) > 1 and _first(blocks[-1]) < _first(blocks[-2]) + LINE * len(blocks[-2]):
            tail = blocks.pop()
            blocks[-1] += tail
    return [_first(block) + LINE * i for block in blocks for i in range(len(block))]


def _first(block: Sequence[float]) -> float:
    return sum(place - LINE * i for i, place in enumerate(block)) / len(block)


def _took(entry: Entry) -> str:
    return f"{number(max(entry.seconds, 0.1))} s" + (" (cut)" if entry.cut else "")


def _scores(entries: Sequence[Entry], scores: Scores, split: str) -> Table:
    columns: tuple[tuple[str, str, Callable[[float], str]], ...] = (
        ("tau", split, "{:.3f}".format),
        ("mae", split, number),
        ("coverage_80", split, percent),
        (COST, "all", lambda us: duration(us / 1e6)),
    )
    rows: list[list[str | tuple[str, str]]] = []
    for entry in entries:
        found = [(scores.get(entry.name, m, where), shown) for m, where, shown in columns]
        cells = [shown(result.value) if result else "" for result, shown in found]
        rows.append([entry.name, entry.method, *cells, _took(entry), entry.stand_in])
    return Table(
        "The recipes",
        f"Best tau first, {SPLIT_NAMES[split]}. The last column says what is in the place of the "
        "paper's model; a training that the time budget ended is marked as cut.",
        ["recipe", "kind", "tau", "MAE", "in 80 %", "one request", "training", "stands in"],
        rows,
        texts=(0, 1, 7),
        stacked=True,
    )


def _papers(entries: Sequence[Entry]) -> Table:
    return Table(
        "What they follow, and what differs",
        "A recipe takes a paper's way to predict a length, and nothing else of its system.",
        ["recipe", "follows", "what differs"],
        [[e.name, (e.paper, e.source), e.differs] for e in entries if e.paper],
        texts=(0, 1, 2),
        stacked=True,
    )
