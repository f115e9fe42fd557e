"""Colours, marks and the common layout of plots.

Plots are written in the colours of the light theme; the page swaps each for its dark twin. The
predictors' colours follow Okabe and Ito (2008) and stay apart for the colour-blind; who is who
also shows in the marks.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lengthpred.eval.replay.arms import Arm
from lengthpred.eval.report.lookup import is_predictor
from lengthpred.eval.report.words import Estimated

__all__ = [
    "DARK",
    "GRID",
    "LENGTHS",
    "MUTED",
    "SURFACE",
    "TEXT",
    "Figure",
    "Look",
    "Looks",
    "bars",
    "faint",
    "figure",
    "legend_of",
    "line_of",
]

Figure = dict[str, Any]

TEXT, MUTED, GRID, SURFACE = "#1d242b", "#5c6773", "#e4e7ea", "#ffffff"
COLOURS = ("#0072b2", "#d55e00", "#00875f", "#a8478a", "#8f6a00", "#3d5ac8")
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "star")
FCFS, SIMPLE_GREY, KNOWING_GREY = "#4a545e", "#7b8691", "#848f9a"
LENGTHS = ("#bcd7ea", "#86b5d8", "#4489bd", "#12639c", "#0a3252")
"""From short answers to long ones."""
DARK = {
    TEXT: "#e4e8ec",
    MUTED: "#9aa5b1",
    GRID: "#2b333c",
    SURFACE: "#171c22",
    **dict(
        zip(
            COLOURS, ("#5ab4ee", "#f58d4c", "#35c79b", "#e29ac9", "#e0b340", "#9aaeff"), strict=True
        )
    ),
    FCFS: "#c3cbd3",
    SIMPLE_GREY: "#8d98a3",
    KNOWING_GREY: "#78838e",
    **dict(zip(LENGTHS, ("#2a4256", "#2d5f84", "#3787bd", "#6cbcf0", "#d6eeff"), strict=True)),
}


@dataclass(frozen=True)
class Look:
    """How one predictor is drawn, in every plot."""

    colour: str
    symbol: str = "circle"
    dash: str = "solid"

    @property
    def line(self) -> Figure:
        return {"color": self.colour, "dash": self.dash, "width": 2}

    def marker(self, size: int = 9) -> Figure:
        return {"color": self.colour, "symbol": self.symbol, "size": size}


CONTROL_LOOKS = {
    "constant": Look(SIMPLE_GREY, "x", "dot"),
    "prompt-length": Look(SIMPLE_GREY, "triangle-down", "dash"),
    "prompt-sjf": Look(SIMPLE_GREY, "triangle-down", "dash"),
    "longest-prompt-first": Look(SIMPLE_GREY, "triangle-down", "dash"),
    "oracle": Look(KNOWING_GREY, "star-open", "dashdot"),
    "oracle-noise": Look(KNOWING_GREY, "diamond-open", "dot"),
    "ceiling": Look(MUTED, "line-ew", "dash"),
    "ceiling-median": Look(MUTED, "line-ew", "dash"),
    "fcfs": Look(FCFS, "circle-open", "solid"),
}
OTHER_CONTROL = Look(SIMPLE_GREY, "hexagon-open", "longdash")


class Looks:
    """The looks of all names of a report; `names` are the predictors in order of importance."""

    def __init__(self, names: Iterable[str]) -> None:
        self._numbers = {name: i for i, name in enumerate(filter(is_predictor, names))}

    def of(self, name: str) -> Look:
        number = self._numbers.get(name)
        if number is None:
            return CONTROL_LOOKS.get(name, OTHER_CONTROL)
        dash = ("solid", "longdash", "dash")[number // len(COLOURS) % 3]
        place = number % len(COLOURS)
        return Look(COLOURS[place], SYMBOLS[place], dash)

    def of_arm(self, arm: Arm) -> Look:
        return self.of(arm.policy if arm.predictor is None else arm.predictor)


def faint(colour: str, alpha: float) -> str:
    """A colour that lets others shine through.

    >>> faint("#0072b2", 0.2)
    'rgba(0,114,178,0.2)'
    """
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{alpha:g})"


def figure(
    data: Sequence[Figure],
    *,
    x: Mapping[str, Any] | str = "",
    y: Mapping[str, Any] | str = "",
    height: int = 340,
    **layout: Any,
) -> Figure:
    """A plot of traces; an axis is its title, or settings of Plotly's."""
    return {
        "data": list(data),
        "layout": {
            "height": height,
            "margin": {"l": 8, "r": 16, "t": 12, "b": 8},
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "font": {"color": TEXT, "size": 12.5},
            "showlegend": False,
            "dragmode": False,
            "hovermode": "closest",
            "hoverlabel": {
                "bgcolor": SURFACE,
                "bordercolor": GRID,
                "font": {"color": TEXT, "size": 12.5},
                "align": "left",
            },
            "xaxis": _axis(x),
            "yaxis": _axis(y),
            **layout,
        },
    }


def _axis(given: Mapping[str, Any] | str) -> Figure:
    own = {"title": given} if isinstance(given, str) else dict(given)
    title = own.pop("title", "")
    return {
        "title": {"text": title, "font": {"color": MUTED, "size": 12.5}, "standoff": 10},
        "automargin": True,
        "fixedrange": True,
        "gridcolor": GRID,
        "linecolor": GRID,
        "tickcolor": GRID,
        "tickfont": {"color": MUTED},
        "zeroline": False,
        **own,
    }


def bars(results: Sequence[Estimated], scale: float = 1.0) -> Figure:
    """The intervals of results as error bars."""
    return {
        "type": "data",
        "symmetric": False,
        "array": [scale * ((r.value if r.high is None else r.high) - r.value) for r in results],
        "arrayminus": [scale * (r.value - (r.value if r.low is None else r.low)) for r in results],
        "thickness": 1.2,
        "width": 3,
    }


def line_of(name: str, look: Look, x: Sequence[float], results: Sequence[Estimated]) -> Figure:
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": name,
        "x": list(x),
        "y": [r.value for r in results],
        "error_y": bars(results) | {"color": look.colour},
        "line": look.line,
        "marker": look.marker(8),
        "hovertemplate": f"{name}: %{{y:.3f}} at %{{x}}<extra></extra>",
    }


def legend_of(names: Sequence[str], looks: Looks) -> list[tuple[str, Look]]:
    return [(name, looks.of(name)) for name in names]
