"""The experiment as a page."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from lengthpred.eval.report.layout import Parts, write_page
from lengthpred.eval.report.meanings import MEANINGS
from lengthpred.eval.report.panels import Table
from lengthpred.eval.report.words import duration, number
from lengthpred.eval.sqlm_fig1.plots import gain_panel, limit_panel, order_panel, tau_panel
from lengthpred.eval.sqlm_fig1.reading import ENGINES, Found, read_fig1
from lengthpred.eval.sqlm_fig1.rows import HEAD_ROWS, PUBLISHED, ROWS, STREAM_ROWS, Row
from lengthpred.eval.sqlm_fig1.setting import PUBLISHED_GAIN, Fig1Result, Fig1Settings

__all__ = ["write_fig1"]

METRICS = {"tps": "tokens/s", "mean_e2el_ms": "latency"}
UNTOLD = "not given"
WORDS = {
    "QLM": "Shortest first by statistics of past requests: a histogram of lengths for each class.",
    "S-QLM": "The same, with a gate: for requests unlike the past a small language model (SLM) "
    "writes the answer, and its length is the prediction.",
    "apart, added, hidden": "How the small model's time is counted: not at all, as the publication "
    "does; before the engine starts; or while requests wait, each moved when its answer is there.",
    "continuous batching": "A request joins as soon as another is done, as in vLLM.",
    "gang batches": "A batch is full at the start and ends with its longest answer.",
    "tokens/s": "Tokens of prompts and answers over the time in which the engine computes.",
}
KEPT = ("tau", "out of distribution (OOD)", "oracle", "fcfs", "latency, TTFT")
INTERVAL = "Student's 95 % interval of the mean over draws; of ratios, of their geometric mean."


def write_fig1(
    path: str | os.PathLike[str],
    results: Sequence[Fig1Result],
    settings: Fig1Settings,
    held_out: Sequence[Sequence[str]],
    *,
    title: str = "The published experiment on S-QLM, replayed",
    repeat: Mapping[str, str] | None = None,
) -> Path:
    """Write what the experiment says, its plots and its tables as one HTML file.

    `repeat` is what it takes to make it again, by name. Raises MissingExtraError when plotly is
    not installed.
    """
    found = Found(results)
    held = "; ".join(" + ".join(names) for names in held_out)
    return write_page(
        path,
        title=title,
        about=f"{settings.draws} draws of {settings.requests:,} requests; kept from training: "
        f"{held}" + (", each in turn" if len(held_out) > 1 else ""),
        verdict=[("", read_fig1(results, settings, held_out))],
        sections=_sections(found, settings),
        repeat=repeat,
        meanings={
            **WORDS,
            "interval": INTERVAL,
            **{word: MEANINGS[word] for word in KEPT},
        },
    )


def _sections(found: Found, settings: Fig1Settings) -> Iterator[tuple[str, Parts]]:
    yield "Throughput", [gain_panel(found)]
    yield "Orders", [order_panel(found)]
    if len(found.limits) > 1:
        yield "Limits", [limit_panel(found)]
    yield "Accuracy", [tau_panel(found)]
    yield "Tables", list(_tables(found, settings))


def _tables(found: Found, settings: Fig1Settings) -> Iterator[Table]:
    for engine in found.engines:
        for limit in found.limits:
            title = f"{ENGINES[engine].capitalize()}, in + out up to {limit:,} tokens"
            yield _table(title, found, engine, limit, ROWS, "All requests at once")
    stream = f"Poisson arrivals at {settings.load:.0%} of what the engine can serve"
    head = "All requests at once, the longest answers at the head of the queue"
    limit = found.limits[0]
    for rows, name, how in (
        (HEAD_ROWS, "long ones at the head", head),
        (STREAM_ROWS, "in a stream", stream),
    ):
        for engine in found.engines:
            if rows[0].find(found, engine, found.ratios[0], limit, "tps"):
                title = f"{ENGINES[engine].capitalize()}, {name}"
                yield _table(title, found, engine, limit, rows, how)


def _table(
    title: str, found: Found, engine: str, limit: int, rows: Sequence[Row], how: str
) -> Table:
    """Rows with both measures at each OOD ratio, as multiples of QLM's."""
    ratios = found.ratios
    head = ["", *(f"{what}, {ratio:.0%}" for what in METRICS.values() for ratio in ratios)]
    body: list[list[str | tuple[str, str]]] = []
    if rows is ROWS:
        told = [f"{PUBLISHED_GAIN[r]:.3f}" if r in PUBLISHED_GAIN else UNTOLD for r in ratios]
        body.append([PUBLISHED, *told, *(UNTOLD for _ in ratios)])
    for row in rows:
        cells = [
            _cell(row, found, engine, ratio, limit, metric)
            for metric in METRICS
            for ratio in ratios
        ]
        if any(cells):
            body.append([row.name, *cells])
    caption = (
        f"{how}; shortest first unless it says otherwise. Tokens a second and mean latency by OOD "
        "ratio, as multiples of QLM's on the same requests, 95 % intervals below; below QLM's own "
        "what they are multiples of."
    )
    return Table(title, caption, head, body, folded=True, stacked=True)


def _cell(
    row: Row, found: Found, engine: str, ratio: float, limit: int, metric: str
) -> str | tuple[str, str]:
    one = row.find(found, engine, ratio, limit, f"{metric}_vs_qlm")
    if one is None:
        return ""
    if row.is_qlm:
        own = row.find(found, engine, ratio, limit, metric)
        shown = number if metric == "tps" else lambda ms: duration(ms / 1e3)
        return ("1", shown(own.value) if own else "")
    below = f"{one.low:.3f} to {one.high:.3f}" if one.low is not None else ""
    return f"{one.value:.3f}", below
