"""A page: one HTML file that needs no network."""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path

from lengthpred.errors import require
from lengthpred.eval.output import write_whole
from lengthpred.eval.report.meanings import MEANINGS
from lengthpred.eval.report.panels import Panel, Table, flowing
from lengthpred.eval.report.script import SCRIPT
from lengthpred.eval.report.style import CSS
from lengthpred.eval.report.theme import DARK

__all__ = ["Parts", "write_page"]

# Whatever stands in the data, the page can load nothing and send nothing.
POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
)
Parts = Sequence[Panel | Table]


def write_page(
    path: str | os.PathLike[str],
    *,
    title: str,
    about: str,
    verdict: Iterable[tuple[str, Sequence[str]]],
    sections: Iterable[tuple[str, Parts]],
    notes: Iterable[str] = (),
    repeat: Mapping[str, str] | None = None,
    meanings: Mapping[str, str] = MEANINGS,
) -> Path:
    """Write sentences and sections as one HTML file, whole or not at all; `path` is replaced.

    about     what is told, in a line under the title
    verdict   (heading or "", sentences); the first sentence of each stands out
    sections  (name, its parts), in order; iterables are read only when the page can be written
    repeat    what it takes to make it again, by name
    meanings  the words of the page, by word

    Raises MissingExtraError when plotly is not installed.
    """
    plotly = require("plotly.offline", "train", "The report").get_plotlyjs()
    named = list(sections)
    body = (
        _header(title, about, [name for name, _ in named])
        + _verdict(verdict)
        + "".join(_section(name, parts) for name, parts in named)
        + _notes(notes, repeat or {}, meanings)
    )
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    write_whole(target, _document(title, body, plotly))
    return target


def _header(title: str, about: str, names: Sequence[str]) -> str:
    links = "".join(f"<a href='#{_anchor(name)}'>{escape(name)}</a>" for name in (*names, "Notes"))
    return (
        f"<header><div><h1>{escape(title)}</h1><p class='about'>{escape(about)}</p></div>"
        "<button type='button' class='theme' aria-label='Change between light and dark'>Dark"
        f"</button></header><nav aria-label='Contents'>{links}</nav>"
    )


def _verdict(verdict: Iterable[tuple[str, Sequence[str]]]) -> str:
    said = ""
    for heading, sentences in verdict:
        said += f"<h3>{escape(heading)}</h3>" if heading else ""
        said += "".join(f"<p>{flowing(sentence)}</p>" for sentence in sentences)
    return f"<section class='verdict'><h2>Verdict</h2>{said}</section>"


def _section(name: str, parts: Parts) -> str:
    body = "".join(part.html() for part in parts)
    return f"<section id='{_anchor(name)}'><h2>{escape(name)}</h2>{body}</section>"


def _notes(notes: Iterable[str], repeat: Mapping[str, str], meanings: Mapping[str, str]) -> str:
    listed = "".join(f"<li>{flowing(note)}</li>" for note in dict.fromkeys(notes))
    again = "".join(
        f"<dt>{escape(key)}</dt><dd><code>{escape(value)}</code></dd>"
        for key, value in repeat.items()
    )
    words = "".join(
        f"<dt>{escape(key)}</dt><dd>{flowing(text)}</dd>" for key, text in meanings.items()
    )
    return (
        "<section id='notes'><h2>Notes</h2><div class='panel'>"
        + (f"<ul>{listed}</ul>" if listed else "")
        + (f"<h3>How to repeat it</h3><dl>{again}</dl>" if again else "")
        + f"<details><summary>What the words mean</summary><dl>{words}</dl></details>"
        "</div></section>"
    )


def _anchor(name: str) -> str:
    return "".join(c if c.isascii() and c.isalnum() else "-" for c in name.lower())


def _document(title: str, body: str, plotly: str) -> str:
    colours = json.dumps(DARK, separators=(",", ":"))
    return (
        "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'>"
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        "<meta name='viewport' content='width=device-width,initial-scale=1'>"
        "<link rel='icon' href='data:,'>"
        f"<title>{escape(title)}</title>\n<style>{CSS}</style>\n</head><body><main>\n{body}\n"
        "<noscript><p>The plots need JavaScript; texts and tables do not.</p></noscript>"
        f"</main>\n<script>{plotly}</script>\n"
        f"<script>const DARK={colours};{SCRIPT}</script>\n</body></html>\n"
    )
