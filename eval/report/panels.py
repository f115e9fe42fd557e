"""The parts of a page, and their HTML."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from lengthpred.eval.report.theme import Figure, Look

__all__ = ["Panel", "Plot", "Table", "flowing", "mark"]

DASHES = {"solid": "", "dash": "7 4", "longdash": "10 4", "dot": "2 3", "dashdot": "8 3 2 3"}
SHAPES = {
    "circle": "<circle cx='14' cy='6' r='4'/>",
    "square": "<rect x='10.5' y='2.5' width='7' height='7'/>",
    "diamond": "<path d='M14 1l5 5-5 5-5-5z'/>",
    "triangle-up": "<path d='M14 1.5l4.6 8h-9.2z'/>",
    "triangle-down": "<path d='M14 10.5l4.6-8h-9.2z'/>",
    "cross": "<path d='M12.5 2h3v2.5H18v3h-2.5V10h-3V7.5H10v-3h2.5z'/>",
}
OUTLINE = "fill='var(--surface)' stroke='currentColor' stroke-width='1.4'"
SHAPES |= {
    "diamond-open": f"<path d='M14 1l5 5-5 5-5-5z' {OUTLINE}/>",
    "star-open": "<path d='M14 .5l1.6 3.6 3.9.4-2.9 2.6.8 3.9-3.4-2-3.4 2 .8-3.9-2.9-2.6 3.9-.4z' "
    f"{OUTLINE}/>",
    "triangle-up-open": f"<path d='M14 1.5l4.6 8h-9.2z' {OUTLINE}/>",
    "triangle-down-open": f"<path d='M14 10.5l4.6-8h-9.2z' {OUTLINE}/>",
    "x": "<path d='M10 2l8 8M18 2l-8 8' stroke='currentColor' stroke-width='2.4'/>",
    "line-ew": "",
}
OPEN = "<circle cx='14' cy='6' r='3.5' fill='var(--surface)' stroke='currentColor'/>"


@dataclass(frozen=True)
class Plot:
    """One drawing; `title` stands above it where a panel has several."""

    figure: Figure
    title: str = ""


@dataclass(frozen=True)
class Panel:
    """A heading, plots, who is who in them, and how to read them.

    wide  each plot takes the whole width
    """

    title: str
    caption: str
    plots: Sequence[Plot]
    legend: Sequence[tuple[str, Look]] = ()
    wide: bool = False

    def html(self) -> str:
        kind = "plots wide" if self.wide or len(self.plots) == 1 else "plots"
        body = "".join(
            _plot(plot, f"{plot.title or self.title}. {self.caption}") for plot in self.plots
        )
        return (
            f"<section class='panel'><h3>{flowing(self.title)}</h3>{_legend(self.legend)}"
            f"<div class='{kind}'>{body}</div>"
            f"<p class='caption'>{flowing(self.caption)}</p></section>"
        )


@dataclass(frozen=True)
class Table:
    """A table in a box of its own that scrolls. Cells are texts, or (text, smaller text below).

    strong   the cells that stand out, as (row, column)
    texts    columns that are read rather than compared, and stand on the left
    folded   only the title shows until it is asked for
    stacked  on a phone the cells of a row stand below each other
    """

    title: str
    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str | tuple[str, str]]]
    strong: frozenset[tuple[int, int]] = frozenset()
    texts: Sequence[int] = (0,)
    folded: bool = False
    stacked: bool = False

    def html(self) -> str:
        head = "".join(
            f"<th scope='col'{self._class(i)}>{flowing(cell)}</th>"
            for i, cell in enumerate(self.head)
        )
        body = "".join(
            "<tr>" + "".join(self._cell(i, j, cell) for j, cell in enumerate(row)) + "</tr>"
            for i, row in enumerate(self.rows)
        )
        title, kind = flowing(self.title), " class='stack'" if self.stacked else ""
        content = (
            f"<div class='scroll' tabindex='0' role='region' aria-label='{escape(self.title)}'>"
            f"<table{kind}><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
            f"<p class='caption'>{flowing(self.caption)}</p>"
        )
        if self.folded:
            return f"<details class='panel'><summary>{title}</summary>{content}</details>"
        return f"<section class='panel'><h3>{title}</h3>{content}</section>"

    def _cell(self, row: int, column: int, cell: str | tuple[str, str]) -> str:
        text, below = (cell, "") if isinstance(cell, str) else cell
        shown = flowing(text)
        if (row, column) in self.strong:
            shown = f"<strong>{shown}</strong>"
        if below:
            shown += f"<small>{flowing(below)}</small>"
        tag = "th scope='row'" if column == 0 else "td"
        head = f" data-head='{escape(self.head[column])}'" if self.stacked else ""
        return f"<{tag}{self._class(column)}{head}>{shown}</{tag[:2]}>"

    def _class(self, column: int) -> str:
        return " class='text'" if column in self.texts else ""


def flowing(text: str) -> str:
    """Text as HTML; a number and its unit stay on one line."""
    for unit in ("%", "ms", "µs", "s"):
        text = text.replace(f" {unit} ", f"\N{NO-BREAK SPACE}{unit} ")
        for end in (",", ".", ";", ":", ")"):
            text = text.replace(f" {unit}{end}", f"\N{NO-BREAK SPACE}{unit}{end}")
    return escape(text)


def mark(look: Look) -> str:
    """The line and symbol of a look, for a legend."""
    shape, left, width = SHAPES.get(look.symbol, OPEN), 0, 28
    if look.dash == "none":
        shape, left, width = "<rect x='8' y='0' width='12' height='12' rx='2'/>", 8, 12
    else:
        shape = (
            "<line x1='0' x2='28' y1='6' y2='6' stroke='currentColor' stroke-width='2' "
            f"stroke-dasharray='{DASHES.get(look.dash, '')}'/>{shape}"
        )
    return (
        f"<svg class='mark' data-colour='{look.colour}' style='color:{look.colour}' "
        f"width='{width}' height='12' viewBox='{left} 0 {width} 12' aria-hidden='true' "
        f"fill='currentColor'>{shape}</svg>"
    )


def _legend(names: Sequence[tuple[str, Look]]) -> str:
    if not names:
        return ""
    items = "".join(
        f"<button type='button' aria-pressed='true' data-name='{escape(name)}'>"
        f"{mark(look)}{escape(name)}</button>"
        for name, look in names
    )
    return f"<div class='legend'>{items}</div>"


def _plot(plot: Plot, label: str) -> str:
    # Nothing in a script may look like the end of it.
    text = json.dumps(plot.figure, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    title = f"<h4>{flowing(plot.title)}</h4>" if plot.title else ""
    height = plot.figure["layout"]["height"]
    return (
        f"<figure>{title}<div class='plot' role='img' aria-label='{escape(label)}' "
        f"style='min-height:{height}px'></div>"
        f"<script type='application/json'>{text}</script></figure>"
    )
