"""A chart of tau by OOD ratio: one HTML file that needs no network."""

import os
from collections.abc import Sequence
from pathlib import Path

from lengthpred.errors import require
from lengthpred.eval.output import Result, write_whole

__all__ = ["write_chart"]


def write_chart(rows: Sequence[Result], path: str | os.PathLike[str]) -> Path:
    """Write the chart of `rows` to `path`, whole or not at all, in place of what is there.

    One line a predictor with its 95 % intervals; without OOD ratios, one point a predictor.
    Raises MissingExtraError when plotly is not installed.
    """
    graphs = require("plotly.graph_objects", "train", "The chart")
    target = Path(path)
    taus = [row for row in rows if row.metric == "tau"]
    mixed = [row for row in taus if row.ood_ratio is not None]
    by_ratio, taus = bool(mixed), mixed or taus
    figure = graphs.Figure()
    for name in dict.fromkeys(row.predictor for row in taus):
        line = sorted(
            (row for row in taus if row.predictor == name), key=lambda r: r.ood_ratio or 0
        )
        figure.add_trace(
            graphs.Scatter(
                name=name,
                x=[row.ood_ratio if by_ratio else name for row in line],
                y=[row.value for row in line],
                mode="lines+markers" if by_ratio else "markers",
                error_y={
                    "type": "data",
                    "symmetric": False,
                    "array": [0 if r.high is None else r.high - r.value for r in line],
                    "arrayminus": [0 if r.low is None else r.value - r.low for r in line],
                },
            )
        )
    figure.update_layout(
        title="How well predictors order requests by the length of their answers",
        xaxis_title="share of requests unlike the training data (OOD ratio)" if by_ratio else None,
        yaxis_title="Kendall's tau (1 is a perfect order, 0 is chance)",
        template="plotly_white",
        legend={"orientation": "h", "y": -0.2},
        height=520,
    )
    if by_ratio:
        figure.update_xaxes(tickformat=".0%")
    target.parent.mkdir(parents=True, exist_ok=True)
    write_whole(
        target,
        figure.to_html(include_plotlyjs=True, full_html=True, config={"displayModeBar": False}),
    )
    return target
