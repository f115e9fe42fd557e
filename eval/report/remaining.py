"""What is left of an answer: a plot of the error against progress, and its numbers."""

from collections.abc import Iterator

from lengthpred.eval.output import Result
from lengthpred.eval.remaining import NAIVE, PROGRESS
from lengthpred.eval.report.lookup import SPLIT_NAMES, Scores
from lengthpred.eval.report.panels import Panel, Plot, Table
from lengthpred.eval.report.theme import Figure, Looks, figure, legend_of, line_of
from lengthpred.eval.report.words import interval, number

__all__ = ["remaining_parts"]

METRICS = tuple(f"remaining_mae_{at}" for at in PROGRESS)
ORDER = "remaining_tau"


def remaining_parts(scores: Scores, looks: Looks) -> Iterator[Panel | Table]:
    """A plot a split, then a table a split; nothing where no score is of what is left."""
    splits = [s for s in scores.splits if any(scores.get(n, ORDER, s) for n in scores.names)]
    if not splits:
        return
    plots = [
        Plot(_errors(scores, looks, split), SPLIT_NAMES[split] if len(splits) > 1 else "")
        for split in splits
    ]
    caption = (
        "How far the predicted rest of an answer is from the true one, asked again as it grows; "
        "lower is better, whiskers are 95 % intervals. The thin dotted line of the same colour is "
        "the naive rule, which takes what exists from the first prediction and never asks again: "
        "where it lies above, asking again pays. The oracle's error is 0."
    )
    yield Panel("Error of what is left", caption, plots, legend_of(_shown(scores), looks))
    yield from (_table(scores, split) for split in splits)


def _shown(scores: Scores) -> list[str]:
    return [name for name in scores.names if name != "oracle"]


def _errors(scores: Scores, looks: Looks, split: str) -> Figure:
    data: list[Figure] = []
    for name in _shown(scores):
        found = _found(scores, name, split)
        if not found:
            continue
        if name in scores.predictors:
            # With the name of its predictor, so that the legend shows and hides both.
            naive = [found[0], *_found(scores, name, split, NAIVE)]
            data.append(
                {
                    "type": "scatter",
                    "mode": "lines",
                    "name": name,
                    "x": list(PROGRESS),
                    "y": [one.value for one in naive],
                    "line": {"color": looks.of(name).colour, "width": 1.2, "dash": "dot"},
                    "hovertemplate": f"{name}, naive: %{{y:.0f}} tokens<extra></extra>",
                }
            )
        line = line_of(name, looks.of(name), PROGRESS, found)
        template = f"{name}: %{{y:.0f}} tokens at %{{x}} %<extra></extra>"
        data.append({**line, "hovertemplate": template})
    return figure(
        data,
        x={
            "title": "share of the answer that exists",
            "tickvals": list(PROGRESS),
            "ticktext": [f"{at} %" for at in PROGRESS],
        },
        y={"title": "mean error of what is left, tokens", "rangemode": "tozero"},
        height=340,
    )


def _found(scores: Scores, name: str, split: str, ending: str = "") -> list[Result]:
    every = [scores.get(name, f"{metric}{ending}", split) for metric in METRICS]
    return [one for one in every if one]


def _table(scores: Scores, split: str) -> Table:
    columns = [(metric, number) for metric in METRICS]
    columns += [(ORDER, "{:.2f}".format), (f"{ORDER}{NAIVE}", "{:.2f}".format)]
    body: list[list[str | tuple[str, str]]] = []
    for name in scores.names:
        cells: list[str | tuple[str, str]] = [name]
        for metric, shown in columns:
            found = scores.get(name, metric, split)
            cells.append((shown(found.value), interval(found, shown).strip(" ()")) if found else "")
        body.append(cells)
    strong = set()
    for column, (metric, _) in enumerate(columns[: len(METRICS) + 1], start=1):
        best = scores.best(metric, split, scores.predictors)
        if best:
            strong.add((scores.names.index(best.predictor), column))
    order = next((r for name in scores.names if (r := scores.get(name, ORDER, split))), None)
    caption = (
        "Mean error in tokens when so much of the answer exists. Tau is the order of what is left "
        f"where {order.n if order else 0:,} requests are at mixed progress, and that of the naive "
        "rule. Bold is the best predictor."
    )
    head = ["", *(f"at {at} %" for at in PROGRESS), "tau", "naive tau"]
    title = f"What is left, {SPLIT_NAMES[split]}"
    return Table(title, caption, head, body, frozenset(strong), folded=True)
