"""The report as a page: one HTML file that needs no network."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path

from lengthpred.errors import require
from lengthpred.eval.compare import Comparison
from lengthpred.eval.output import write_whole
from lengthpred.eval.replay.arms import Arm
from lengthpred.eval.report.accuracy import accuracy_panels
from lengthpred.eval.report.answers import answer_panels, worst_misses
from lengthpred.eval.report.gains import judge_simulation
from lengthpred.eval.report.lookup import Replays, Scores
from lengthpred.eval.report.meanings import MEANINGS
from lengthpred.eval.report.panels import Panel, Table, flowing
from lengthpred.eval.report.queue import simulation_panels
from lengthpred.eval.report.script import SCRIPT
from lengthpred.eval.report.style import CSS
from lengthpred.eval.report.tables import score_tables, simulation_tables
from lengthpred.eval.report.theme import DARK, Looks
from lengthpred.eval.report.timeline import replay_panels
from lengthpred.eval.report.verdict import judge_comparison
from lengthpred.eval.simulate import Simulation

__all__ = ["write_report"]

# Whatever stands in the data, the page can load nothing and send nothing.
POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
)
Parts = Sequence[Panel | Table]


def write_report(
    path: str | os.PathLike[str],
    *,
    comparison: Comparison | None = None,
    simulation: Simulation | Mapping[str, Simulation] | None = None,
    title: str = "Predicted output lengths",
    prompts: bool = True,
    repeat: Mapping[str, str] | None = None,
) -> Path:
    """Write a comparison, a simulation (or several, by name), or both as one HTML file.

    It needs no network and is whole or absent; what is at `path` is replaced. Without `prompts`
    no prompt's text is in it. `repeat` is what it takes to make it again: the command, the seed,
    the data's sha256, by name. Raises MissingExtraError when plotly is not installed.
    """
    plotly = require("plotly.offline", "train", "The report").get_plotlyjs()
    if simulation is None or isinstance(simulation, Simulation):
        simulations = {"": simulation} if simulation else {}
    else:
        simulations = dict(simulation)
    looks = Looks(_names(comparison, simulations))
    sections: list[tuple[str, Parts]] = []
    if comparison:
        sections += _comparison_sections(comparison, looks, prompts=prompts)
    for name, one in simulations.items():
        sections += _simulation_sections(name, one, looks)
    body = (
        _header(title, comparison, [name for name, _ in sections])
        + _verdict(comparison, simulations)
        + "".join(_section(name, parts) for name, parts in sections)
        + _notes(comparison, simulations, repeat or {})
    )
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    write_whole(target, _document(title, body, plotly))
    return target


def _names(comparison: Comparison | None, simulations: Mapping[str, Simulation]) -> Iterator[str]:
    """The predictors, the best one first."""
    if comparison:
        scores = Scores(comparison.results)
        split = scores.splits[0] if scores.splits else "all"
        best = scores.best("pairwise_accuracy", split, scores.predictors)
        names = [best.predictor] if best else []
        yield from dict.fromkeys([*names, *scores.predictors])
    seen = set(Scores(comparison.results).predictors) if comparison else set()
    for one in simulations.values():
        for result in one.results:
            if result.predictor and result.predictor not in seen:
                seen.add(result.predictor)
                yield result.predictor


def _comparison_sections(
    comparison: Comparison, looks: Looks, *, prompts: bool
) -> Iterator[tuple[str, Parts]]:
    scores = Scores(comparison.results)
    if scores.splits:
        yield "Accuracy", list(accuracy_panels(scores, looks))
    answers = list(answer_panels(comparison, scores, looks))
    if answers:
        yield "Answers", answers
    tables: list[Table] = list(score_tables(scores))
    best = (
        scores.best("pairwise_accuracy", scores.splits[0], scores.predictors)
        if scores.splits
        else None
    )
    if best and best.predictor in comparison.answers:
        tables.append(worst_misses(comparison, best.predictor, prompts=prompts))
    yield "Scores", tables


def _simulation_sections(
    name: str, simulation: Simulation, looks: Looks
) -> Iterator[tuple[str, Parts]]:
    replays, of = Replays(simulation), f": {name}" if name else ""
    pictures = list(replay_panels(simulation.replays, replays, looks))
    if pictures:
        yield f"Schedule{of}", pictures
    panels = list(simulation_panels(replays, looks))
    if panels:
        yield f"Latency and throughput{of}", panels
    yield f"Replays{of}", list(simulation_tables(replays))


def _header(title: str, comparison: Comparison | None, names: Sequence[str]) -> str:
    links = "".join(f"<a href='#{_anchor(name)}'>{escape(name)}</a>" for name in (*names, "Notes"))
    about = ""
    if comparison:
        models = {request.model for request in comparison.rows.requests}
        about = f"{len(comparison.rows):,} requests, " + (
            f"answered by {escape(next(iter(models)))}"
            if len(models) == 1 and models != {""}
            else f"answers of {len(models)} models"
        )
    return (
        f"<header><div><h1>{escape(title)}</h1><p class='about'>{about}</p></div>"
        "<button type='button' class='theme' aria-label='Change between light and dark'>Dark"
        f"</button></header><nav aria-label='Contents'>{links}</nav>"
    )


def _verdict(comparison: Comparison | None, simulations: Mapping[str, Simulation]) -> str:
    said = ""
    if comparison:
        sentences = judge_comparison(comparison, _answer_seconds(simulations))
        said += _sentences(sentences)
    for name, one in simulations.items():
        heading = f"Schedules: {name}" if name else "Schedules"
        said += f"<h3>{escape(heading)}</h3>" if comparison or name else ""
        said += _sentences(judge_simulation(one))
    return f"<section class='verdict'><h2>Verdict</h2>{said}</section>"


def _sentences(said: Sequence[str]) -> str:
    return "".join(f"<p>{flowing(sentence)}</p>" for sentence in said)


def _answer_seconds(simulations: Mapping[str, Simulation]) -> float | None:
    """How long a mean answer is written, first come, first served."""
    for one in simulations.values():
        replay = one.replays.get(Arm("fcfs"))
        if replay:
            return float((replay.trace.finish_s - replay.trace.start_s).mean())
    return None


def _section(name: str, parts: Parts) -> str:
    body = "".join(part.html() for part in parts)
    return f"<section id='{_anchor(name)}'><h2>{escape(name)}</h2>{body}</section>"


def _notes(
    comparison: Comparison | None,
    simulations: Mapping[str, Simulation],
    repeat: Mapping[str, str],
) -> str:
    notes = [*(comparison.notes if comparison else ())]
    for one in simulations.values():
        notes += one.notes
    listed = "".join(f"<li>{flowing(note)}</li>" for note in dict.fromkeys(notes))
    again = "".join(
        f"<dt>{escape(key)}</dt><dd><code>{escape(value)}</code></dd>"
        for key, value in repeat.items()
    )
    meanings = "".join(
        f"<dt>{escape(key)}</dt><dd>{flowing(text)}</dd>" for key, text in MEANINGS.items()
    )
    return (
        "<section id='notes'><h2>Notes</h2><div class='panel'>"
        + (f"<ul>{listed}</ul>" if listed else "")
        + (f"<h3>How to repeat it</h3><dl>{again}</dl>" if again else "")
        + f"<details><summary>What the words mean</summary><dl>{meanings}</dl></details>"
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
