"""Plots of the experiment: the gain, what each order buys, the limits, and who orders best."""

from collections.abc import Iterator, Sequence

from lengthpred.eval.report.panels import Panel, Plot
from lengthpred.eval.report.theme import (
    LENGTHS,
    MUTED,
    TEXT,
    Figure,
    Look,
    Looks,
    bars,
    figure,
    line_of,
)
from lengthpred.eval.sqlm_fig1.reading import ENGINES, Found
from lengthpred.eval.sqlm_fig1.setting import PUBLISHED_GAIN, Fig1Result

__all__ = ["gain_panel", "limit_panel", "order_panel", "tau_panel"]

NAMES = {
    "qlm": "QLM",
    "sqlm": "S-QLM",
    "sqlm-all": "SLM on every query",
    "oracle": "oracle",
}
ORDERS = {"sjf": "shortest first", "longest-first": "longest first"}
LOOKS = Looks(["sqlm", "sqlm-all", "qlm"])
PUBLISHED, PUBLISHED_LOOK = "published", Look(TEXT, "diamond", "dot")
S_QLM = LOOKS.of("sqlm")
GAINS = (
    # name, predictor, how the small model's time is counted, look
    ("S-QLM, SLM's time apart", "sqlm", "apart", S_QLM),
    ("S-QLM, SLM's time hidden", "sqlm", "hidden", Look(S_QLM.colour, "circle-open", "dash")),
    ("SLM on every query, apart", "sqlm-all", "apart", LOOKS.of("sqlm-all")),
)
STEP = 0.02  # between marks of one OOD ratio, which would hide each other
PERCENT = {"tickformat": "~g", "ticksuffix": " %"}
ROOM = 0.06  # of the range, above and below


def gain_panel(found: Found) -> Panel:
    """Tokens a second against QLM by OOD ratio, a plot an engine, all on one scale."""
    drawn = {engine: _gains(found, engine) for engine in found.engines}
    scale = _range([trace for traces in drawn.values() for trace in traces])
    plots = [
        Plot(
            figure(
                traces,
                x=_ratio_axis(found.ratios),
                y={"title": "tokens/s against QLM", "range": scale, **PERCENT},
                height=360,
                shapes=[_line("y", 0)],
            ),
            ENGINES[engine].capitalize(),
        )
        for engine, traces in drawn.items()
    ]
    legend = [(PUBLISHED, PUBLISHED_LOOK), *((name, look) for name, _, _, look in GAINS)]
    caption = (
        "Shortest first, all requests at once; the dotted line is QLM on the same requests. Above "
        "it more tokens a second of LLM time are served. Whiskers are 95 % intervals over draws; "
        "the publication gives none. Its mark at 0 % is open: there the small model predicts every "
        "query. Apart: the small model's time is not counted, as published. Hidden: it works while "
        "requests wait. Added in front, it is in the tables."
    )
    return Panel("Tokens a second, S-QLM against QLM", caption, plots, legend)


def _gains(found: Found, engine: str) -> list[Figure]:
    told = [ratio for ratio in found.ratios if ratio in PUBLISHED_GAIN]
    gains = [100 * (PUBLISHED_GAIN[ratio] - 1) for ratio in told]
    symbols = [PUBLISHED_LOOK.symbol if ratio else "diamond-open" for ratio in told]
    published = {
        "type": "scatter",
        "mode": "markers",
        "name": PUBLISHED,
        "x": [ratio - 1.5 * STEP for ratio in told],
        "y": gains,
        "marker": {"color": PUBLISHED_LOOK.colour, "symbol": symbols, "size": 11},
        "hovertemplate": f"{PUBLISHED}: %{{y:+.1f}} %<extra></extra>",
    }
    traces: list[Figure] = [published]
    for place, (name, predictor, slm, look) in enumerate(GAINS):
        own = [
            (ratio, r)
            for ratio in found.ratios
            if (r := found.get(engine, ratio, "sjf", predictor, "tps_vs_qlm", slm=slm))
        ]
        at = [ratio + (place - 0.5) * STEP for ratio, _ in own]
        traces.append(_changes(name, look, at, [r for _, r in own]))
    return traces


def order_panel(found: Found) -> Panel:
    """Tokens a second against latency of each order, at the highest OOD ratio."""
    ratio = found.ratios[-1]
    looks: dict[str, Look] = {}
    plots = []
    for engine in found.engines:
        traces = []
        for policy, order in ORDERS.items():
            for predictor, name in NAMES.items():
                pair = [
                    found.get(engine, ratio, policy, predictor, f"{metric}_vs_fcfs")
                    for metric in ("mean_e2el_ms", "tps")
                ]
                if pair[0] and pair[1]:
                    label = f"{order}, {name}"
                    looks[label] = _order_look(policy, predictor)
                    traces.append(_mark(label, looks[label], pair[0], pair[1]))
        plots.append(Plot(_trade(traces), ENGINES[engine].capitalize()))
    caption = (
        f"All requests at once, {ratio:.0%} of them out of distribution, as multiples of first "
        "come, first served in random order, where the dotted lines cross. Up is more tokens a "
        "second, left is a lower mean latency. Triangles that point down are shortest first, those "
        "that point up longest first. The oracle knows the true lengths. Whiskers are 95 % "
        "intervals; the small model's time is apart."
    )
    return Panel("What each order buys", caption, plots, list(looks.items()))


def _order_look(policy: str, predictor: str) -> Look:
    """The predictor's colour; where the triangle points is the policy's."""
    look = LOOKS.of(predictor)
    symbol = "triangle-down" if policy == "sjf" else "triangle-up"
    if predictor == "sqlm-all":  # often just where S-QLM is
        symbol += "-open"
    return Look(look.colour, symbol, "solid" if policy == "sjf" else "dot")


def _mark(name: str, look: Look, latency: Fig1Result, speed: Fig1Result) -> Figure:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": [latency.value],
        "y": [speed.value],
        "error_x": bars([latency]) | {"color": look.colour},
        "error_y": bars([speed]) | {"color": look.colour},
        "marker": look.marker(12),
        "hovertemplate": f"<b>{name}</b><br>%{{y:.2f}} times the tokens/s<br>"
        "%{x:.2f} times the mean latency<extra></extra>",
    }


def _trade(traces: Sequence[Figure]) -> Figure:
    return figure(
        traces,
        x={"title": "mean latency, multiple of fcfs", "tickformat": "~g"},
        y={"title": "tokens/s, multiple of fcfs", "tickformat": "~g"},
        height=380,
        shapes=[_line("x", 1), _line("y", 1)],
    )


def limit_panel(found: Found) -> Panel:
    """S-QLM against QLM by the most tokens of a request, a line an OOD ratio."""
    limits = sorted(found.limits)
    looks = {
        f"{ratio:.0%} OOD": Look(LENGTHS[1 + place % 4], symbol, "solid")
        for place, (ratio, symbol) in enumerate(
            zip(found.ratios, ("circle", "square", "diamond", "cross") * 9, strict=False)
        )
    }
    drawn: dict[str, list[Figure]] = {}
    for engine in found.engines:
        drawn[engine] = []
        for place, (ratio, name) in enumerate(zip(found.ratios, looks, strict=True)):
            own = [
                (number, r)
                for number, limit in enumerate(limits)
                if (r := found.get(engine, ratio, "sjf", "sqlm", "tps_vs_qlm", limit=limit))
            ]
            shift = 0.06 * (place - (len(found.ratios) - 1) / 2)
            at = [number + shift for number, _ in own]
            drawn[engine].append(_changes(name, looks[name], at, [r for _, r in own]))
    scale = _range([trace for traces in drawn.values() for trace in traces])
    axis = {
        "title": "most tokens of a request, in + out",
        "tickvals": list(range(len(limits))),
        "ticktext": [f"{limit:,}" for limit in limits],
        "range": [-0.3, len(limits) - 0.7],
    }
    plots = [
        Plot(
            figure(
                traces,
                x=axis,
                y={"title": "tokens/s against QLM", "range": scale, **PERCENT},
                height=320,
                shapes=[_line("y", 0)],
            ),
            ENGINES[engine].capitalize(),
        )
        for engine, traces in drawn.items()
    ]
    caption = (
        "S-QLM against QLM, shortest first, all at once, the small model's time apart. A lower "
        "limit cuts long answers short, so that there is less to tell apart. Whiskers are 95 % "
        "intervals over draws."
    )
    return Panel("By the limit on tokens", caption, plots, list(looks.items()))


def tau_panel(found: Found) -> Panel:
    """How well each orders, by OOD ratio."""
    traces, legend = [], []
    for place, predictor in enumerate(("sqlm", "sqlm-all", "qlm")):
        own = [
            (ratio + (place - 1) * STEP / 2, r)
            for ratio in found.ratios
            if (r := found.get(found.engines[0], ratio, "sjf", predictor, "tau"))
        ]
        name, look = NAMES[predictor], LOOKS.of(predictor)
        line = line_of(name, look, [x for x, _ in own], [r for _, r in own])
        traces.append(line | {"hovertemplate": f"{name}: %{{y:.3f}}<extra></extra>"})
        legend.append((name, look))
    drawn = figure(
        traces,
        x=_ratio_axis(found.ratios),
        y={"title": "tau: 0 is chance, 1 a perfect order", "tickformat": ".2f"},
        height=340,
    )
    caption = (
        "How well the predicted lengths order the requests. Between S-QLM and the small model on "
        "every query stands the gate: what it does not flag keeps the guess from statistics. "
        "Whiskers are 95 % intervals over draws."
    )
    return Panel("Who orders best", caption, [Plot(drawn)], legend)


def _changes(name: str, look: Look, x: Sequence[float], results: Sequence[Fig1Result]) -> Figure:
    """Changes against QLM in percent, with their intervals."""
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": name,
        "x": list(x),
        "y": [100 * (r.value - 1) for r in results],
        "error_y": bars(results, 100) | {"color": look.colour},
        "line": {**look.line, "width": 1.4},
        "marker": look.marker(9),
        "hovertemplate": f"{name}: %{{y:+.1f}} %<extra></extra>",
    }


def _ratio_axis(ratios: Sequence[float]) -> Figure:
    room = max(0.08, ROOM * (ratios[-1] - ratios[0]))
    return {
        "title": "share of requests out of distribution (OOD)",
        "tickvals": list(ratios),
        "tickformat": ".0%",
        "range": [ratios[0] - room, ratios[-1] + room],
    }


def _range(traces: Sequence[Figure]) -> list[float]:
    """From the lowest whisker of all traces to the highest, and 0."""
    ends = [0.0, *_ends(traces)]
    room = ROOM * (max(ends) - min(ends)) or 1.0
    return [min(ends) - room, max(ends) + room]


def _ends(traces: Sequence[Figure]) -> Iterator[float]:
    for trace in traces:
        whiskers = trace.get("error_y", {"array": [0] * 99, "arrayminus": [0] * 99})
        for y, up, down in zip(trace["y"], whiskers["array"], whiskers["arrayminus"], strict=False):
            yield from (y + up, y - down)


def _line(along: str, at: float) -> Figure:
    """A dotted line across the plot where nothing changes."""
    across = "x" if along == "y" else "y"
    return {
        "type": "line",
        **{f"{across}ref": "paper", f"{across}0": 0, f"{across}1": 1},
        **{f"{along}0": at, f"{along}1": at},
        "line": {"color": MUTED, "width": 1.2, "dash": "dot"},
    }
