"""Plots of a comparison in detail: slices of the rows, and calibration."""

from collections.abc import Sequence

from lengthpred import metrics
from lengthpred.eval.ceiling import CEILING
from lengthpred.eval.report.lookup import SPLIT_NAMES, Scores
from lengthpred.eval.report.panels import Panel, Plot
from lengthpred.eval.report.theme import (
    GRID,
    MUTED,
    Figure,
    Look,
    Looks,
    bars,
    faint,
    figure,
    legend_of,
    line_of,
)

__all__ = ["calibration", "slices"]

LONGEST_LABEL = 24


def slices(scores: Scores, looks: Looks) -> Panel:
    """For each key a plot with a row a slice, and on it a mark for each name."""
    keys = list(dict.fromkeys(name.partition("=")[0] for name in scores.slices))
    shown = [
        *scores.predictors,
        *(n for n in ("prompt-length", CEILING) if n not in scores.predictors),
    ]
    shown = [n for n in shown if any(scores.get(n, "tau", s) for s in scores.slices)]
    plots = []
    for key in keys:
        rows = [name for name in scores.slices if name.startswith(f"{key}=")]
        rows.reverse()  # Plotly counts from below
        data = [
            _slice_marks(scores, looks.of(n), n, rows, i, len(shown)) for i, n in enumerate(shown)
        ]
        labels = [_short(name.partition("=")[2]) for name in rows]
        axis = {
            "tickvals": list(range(len(rows))),
            "ticktext": labels,
            "showgrid": False,
            "range": [-0.6, len(rows) - 0.4],
        }
        bands = [
            {
                "type": "rect",
                "xref": "paper",
                "x0": 0,
                "x1": 1,
                "y0": i - 0.5,
                "y1": i + 0.5,
                "fillcolor": faint(GRID, 0.35),
                "line": {"width": 0},
                "layer": "below",
            }
            for i in range(0, len(rows), 2)
        ]
        height = 80 + max(26, 11 * len(shown)) * len(rows)
        drawn = figure(data, x={"title": "tau"}, y=axis, height=height, shapes=bands)
        plots.append(Plot(drawn, f"by {key.replace('_', ' ')}"))
    caption = (
        "The same score on the rows of one kind each. Farther right is better; a wide whisker is "
        "a slice with few rows. Left of prompt-length's mark, a predictor is worse than none there."
    )
    return Panel("Where it works", caption, plots, legend_of(shown, looks))


def _slice_marks(
    scores: Scores, look: Look, name: str, rows: Sequence[str], number: int, of: int
) -> Figure:
    found = [(i, r) for i, s in enumerate(rows) if (r := scores.get(name, "tau", s))]
    shift = 0.0 if of == 1 else 0.32 * (1 - 2 * number / (of - 1))
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": [r.value for _, r in found],
        "y": [i + shift for i, _ in found],
        "error_x": bars([r for _, r in found]) | {"color": look.colour, "width": 0},
        "marker": look.marker(8),
        "text": [f"{r.n:,} rows" for _, r in found],
        "hovertemplate": f"{name}: tau %{{x:.3f}}, %{{text}}<extra></extra>",
    }


def calibration(scores: Scores, looks: Looks) -> Panel:
    diagonal = {
        "type": "scatter",
        "mode": "lines",
        "x": [0, 1],
        "y": [0, 1],
        "hoverinfo": "skip",
        "line": {"color": MUTED, "width": 1, "dash": "dot"},
        "name": "calibrated",
    }
    plots = []
    for split in scores.splits:
        data: list[Figure] = [diagonal]
        for name in scores.predictors:
            found = [
                (x, r)
                for metric, x in metrics.CALIBRATION.items()
                if (r := scores.get(name, metric, split))
            ]
            data.append(line_of(name, looks.of(name), [x for x, _ in found], [r for _, r in found]))
        drawn = figure(
            data,
            x={"title": "predicted quantile", "tickformat": ".0%", "range": [0, 1]},
            y={"title": "answers at or below it", "tickformat": ".0%", "range": [0, 1]},
            height=360,
        )
        plots.append(Plot(drawn, SPLIT_NAMES[split] if len(scores.splits) > 1 else ""))
    caption = (
        "On the dotted diagonal a predictor is as sure as it may be. Below it answers turn out "
        "longer than predicted, above it shorter; a flatter curve is that of a predictor "
        "which is surer of itself than it should be."
    )
    return Panel("Calibration", caption, plots, legend_of(scores.predictors, looks))


def _short(label: str) -> str:
    """A name from the data as a label, in which Plotly sees no markup."""
    label = label.replace("<", "\N{SINGLE LEFT-POINTING ANGLE QUOTATION MARK}")
    return label if len(label) <= LONGEST_LABEL else f"{label[: LONGEST_LABEL - 1]}…"
