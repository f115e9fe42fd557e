"""Plots of single answers: predicted against true lengths, detectors, and the worst misses."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from lengthpred.base import FloatArray
from lengthpred.eval.compare import Comparison
from lengthpred.eval.report.lookup import Scores
from lengthpred.eval.report.panels import Panel, Plot, Table
from lengthpred.eval.report.theme import (
    MUTED,
    TEXT,
    Figure,
    Look,
    Looks,
    figure,
    legend_of,
)
from lengthpred.eval.report.words import number
from lengthpred.eval.scoring import Answers

__all__ = ["answer_panels", "roc", "worst_misses"]

POINTS, MISSES, LONGEST_PROMPT = 1200, 12, 200
STEPS = 12  # of the running median
TICKS = [1, 10, 100, 1000, 10_000]


def answer_panels(comparison: Comparison, scores: Scores, looks: Looks) -> Iterator[Panel]:
    """Predicted against true lengths for each predictor, and each detector's ROC curve."""
    if scores.predictors:
        yield _against_truth(comparison, scores, looks)
    ood = np.asarray(comparison.rows.columns.get("ood", np.zeros(len(comparison.rows))), bool)
    if comparison.p_values and ood.any() and not ood.all():
        yield _detectors(comparison, scores, ood)


def _against_truth(comparison: Comparison, scores: Scores, looks: Looks) -> Panel:
    truth = comparison.rows.truth.astype(np.float64)
    shown = _sample(len(truth))
    highest = max(float(truth.max()), 10.0)
    for name in scores.predictors:
        highest = max(highest, float(comparison.answers[name].median.max()))
    most = np.log10(highest * 1.3)
    plots = [
        Plot(_cloud(looks.of(name), comparison.answers[name].median, truth, shown, most), name)
        for name in scores.predictors
        if name in comparison.answers
    ]
    caption = (
        "One dot is one request; on the dotted diagonal the prediction is exact. The dark line is "
        "the middle true length of requests with like predictions: where it is flat, the "
        f"prediction tells nothing. {len(shown):,} of {len(truth):,} rows are drawn."
    )
    return Panel("Predicted against true lengths", caption, plots)


def _cloud(
    look: Look, predicted: FloatArray, truth: FloatArray, shown: npt.NDArray[np.int64], most: float
) -> Figure:
    x, y = _running_median(predicted, truth)
    exact = {"color": MUTED, "width": 1, "dash": "dot"}
    dots = {"color": look.colour, "size": 3.5, "opacity": 0.35}
    data: list[Figure] = [
        {
            "mode": "markers",
            "x": _floor(predicted[shown]),
            "y": _floor(truth[shown]),
            "marker": dots,
        },
        {
            "mode": "lines",
            "x": [1, 10**most],
            "y": [1, 10**most],
            "line": exact,
            "hoverinfo": "skip",
        },
        {"mode": "lines", "x": x, "y": y, "line": {"color": TEXT, "width": 2}},
    ]
    axis = {
        "type": "log",
        "range": [-0.1, most],
        "tickvals": TICKS,
        "ticktext": [f"{t:,}" for t in TICKS],
    }
    template = "predicted %{x:,.0f}, true %{y:,.0f}<extra></extra>"
    return figure(
        [{"type": "scatter", "hovertemplate": template, **trace} for trace in data],
        x={"title": "predicted tokens (median)", **axis},
        y={"title": "true tokens", **axis},
        height=320,
    )


def _running_median(predicted: FloatArray, truth: FloatArray) -> tuple[list[float], list[float]]:
    """The middle truth of rows with like predictions, from low to high."""
    order = np.argsort(predicted, kind="stable")
    parts = [part for part in np.array_split(order, STEPS) if len(part)]
    found = {float(np.median(predicted[p])): float(np.median(truth[p])) for p in parts}
    return _floor(np.array(list(found))), list(found.values())


def _detectors(comparison: Comparison, scores: Scores, ood: npt.NDArray[np.bool_]) -> Panel:
    names = list(comparison.p_values)
    looks = Looks(names)
    chance = {"color": MUTED, "width": 1, "dash": "dot"}
    data: list[Figure] = [
        {
            "type": "scatter",
            "mode": "lines",
            "x": [0, 1],
            "y": [0, 1],
            "line": chance,
            "hoverinfo": "skip",
        }
    ]
    labels = {}
    for name in names:
        alarms, hits = roc(comparison.p_values[name], ood)
        area = scores.get(name, "auroc", "all")
        labels[name] = f"{name}, AUROC {area.value:.2f}" if area else name
        data.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": labels[name],
                "x": alarms,
                "y": hits,
                "line": looks.of(name).line,
                "hovertemplate": f"{name}: %{{y:.0%}} found at %{{x:.0%}} false alarms"
                "<extra></extra>",
            }
        )
    axis = {"tickformat": ".0%", "range": [0, 1.005]}
    drawn = figure(
        data,
        x={"title": "false alarms", **axis},
        y={"title": "unfamiliar requests found", **axis},
        height=360,
    )
    caption = (
        "What a detector finds of the requests unlike the training data, for each share of false "
        "alarms. The dotted line is chance; the farther above it, the better (ROC curve)."
    )
    legend = [(labels[name], look) for name, look in legend_of(names, looks)]
    return Panel("Detectors", caption, [Plot(drawn)], legend)


def roc(p_values: FloatArray, ood: npt.NDArray[np.bool_]) -> tuple[list[float], list[float]]:
    """False alarms and hits at each level, from none flagged to all; at most 201 points."""
    levels = np.unique(p_values)
    levels = levels[np.linspace(0, len(levels) - 1, min(len(levels), 200)).astype(np.int64)]
    alarms = np.searchsorted(np.sort(p_values[~ood]), levels, side="right") / (~ood).sum()
    hits = np.searchsorted(np.sort(p_values[ood]), levels, side="right") / ood.sum()
    return [0.0, *alarms.tolist()], [0.0, *hits.tolist()]


def worst_misses(comparison: Comparison, name: str, *, prompts: bool) -> Table:
    """The rows whose true length is farthest from the median of `name`, as a ratio."""
    rows, answers = comparison.rows, comparison.answers[name]
    truth, predicted = np.maximum(rows.truth, 1), np.maximum(answers.median, 1)
    log_ratio = np.asarray(np.log(truth / predicted), np.float64)
    # What was stopped by a limit may have been on the way to any greater length.
    log_ratio[rows.truth_censored & (log_ratio < 0)] = 0
    worst = np.argsort(-np.abs(log_ratio), kind="stable")[:MISSES]
    kinds = [key for key in ("domain", "language") if _says(rows.columns.get(key))]
    head = ["off by", "true", "predicted", "its chance", *kinds, *(["prompt"] if prompts else [])]
    body: list[list[str | tuple[str, str]]] = []
    for i in worst.tolist():
        sign = "short" if log_ratio[i] > 0 else "long"
        line: list[str | tuple[str, str]] = [
            (f"{number(float(np.exp(abs(log_ratio[i]))))}\N{MULTIPLICATION SIGN}", f"too {sign}"),
            f"{rows.truth[i]:,}{'+' if rows.truth_censored[i] else ''}",
            f"{answers.median[i]:,.0f}",
            _chance(answers, i, above=log_ratio[i] > 0),
            *(str(rows.columns[key][i]) for key in kinds),
        ]
        body.append([*line, _shortened(rows.requests[i].prompt)] if prompts else line)
    caption = (
        f"Requests whose answers {name} misjudged most, in tokens of the median. Its chance is "
        "what it gave to an answer so far out: small where it was sure of itself and wrong."
        + (" A + marks an answer that a limit stopped." if rows.truth_censored.any() else "")
    )
    texts = tuple(range(4, len(head)))
    return Table(f"Worst misses of {name}", caption, head, body, texts=texts, stacked=True)


def _chance(answers: Answers, row: int, *, above: bool) -> str:
    place = float(answers.pit[row])
    chance = 1 - place if above else place
    return "< 0.1 %" if chance < 0.001 else f"{100 * chance:.1f} %"


def _says(column: npt.NDArray[np.generic] | None) -> bool:
    return column is not None and any(bool(value) for value in column.tolist())


def _shortened(prompt: str) -> str:
    text = " ".join(prompt[: 4 * LONGEST_PROMPT].split())
    return text if len(text) <= LONGEST_PROMPT else f"{text[: LONGEST_PROMPT - 1]}…"


def _floor(values: FloatArray) -> list[float]:
    """Lengths for an axis without a 0, in few digits."""
    return [float(f"{max(value, 1.0):.4g}") for value in values.tolist()]


def _sample(n: int) -> npt.NDArray[np.int64]:
    if n <= POINTS:
        return np.arange(n)
    return np.sort(np.random.default_rng(0).choice(n, POINTS, replace=False))
