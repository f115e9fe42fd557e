"""Pictures of one replay: who held which slot when, who waited, and for how long."""

import itertools
from collections.abc import Iterator, Mapping

import numpy as np

from lengthpred.base import FloatArray, IntArray
from lengthpred.eval.replay.arms import Arm
from lengthpred.eval.report.gains import best_arm, control_of, policy_name
from lengthpred.eval.report.lookup import Replays
from lengthpred.eval.report.panels import Panel, Plot
from lengthpred.eval.report.tables import scenario_name
from lengthpred.eval.report.theme import GRID, LENGTHS, SURFACE, Figure, Look, Looks, faint, figure
from lengthpred.eval.simulate import Replay

__all__ = ["replay_panels"]

SLOTS = 32
ANSWERS_WIDE = 6  # mean answers that fit side by side into the window
PARTS = 10  # of the requests, by the length of their answers
MOMENTS = 400
FCFS = Arm("fcfs")


def replay_panels(
    pictures: Mapping[Arm, Replay], replays: Replays, looks: Looks
) -> Iterator[Panel]:
    """Timeline, waits by answer length, and the queue: first come, first served beside the rest."""
    policies = list(replays.policies())
    if not policies or FCFS not in pictures:
        return
    at = replays.scenarios[-1]  # the one that is pictured
    arm = best_arm(replays, at, policies[0])
    compared = [FCFS, arm, control_of(arm.policy), Arm(arm.policy, "oracle")]
    shown = [one for one in compared if one in pictures]
    if arm not in shown:
        return
    window = _busy(pictures[FCFS])
    yield _timeline(pictures, arm, window, looks, scenario_name(at))
    yield _waits(pictures, shown, looks)
    yield _queue(pictures, shown, window, looks)


def _busy(replay: Replay) -> tuple[float, float]:
    """The time in which most wait, a few mean answers wide."""
    trace = replay.trace
    end = float(trace.finish_s.max())
    width = min(ANSWERS_WIDE * float((trace.finish_s - trace.start_s).mean()), end)
    starts = np.linspace(0, end - width, 200)
    moments = starts[:, None] + np.linspace(0, width, 20)
    start = float(starts[np.argmax(_depth_at(replay, moments).mean(axis=1))])
    return start, start + width


def _timeline(
    pictures: Mapping[Arm, Replay], arm: Arm, window: tuple[float, float], looks: Looks, where: str
) -> Panel:
    ends = _fifths(pictures[FCFS].work.output_tokens)
    names = {FCFS: "first come, first served", arm: _name(arm)}
    plots = [Plot(_slots(pictures[one], window, ends), name) for one, name in names.items()]
    moments = np.linspace(*window, MOMENTS)
    waiting = [_steps(pictures[one], one, moments, looks) for one in names]
    drawn = figure(
        waiting,
        x=_time(window),
        y={"rangemode": "tozero", "automargin": False},
        height=190,
        margin={"l": 46, "r": 12, "t": 8, "b": 44},
    )
    caption = (
        f"One bar is one answer being written, in one of {SLOTS} slots of the engine at most; pale "
        "is short, strong is long. The same seconds of the same requests, at the time when most "
        f"wait ({where}). Below, how many wait for a slot meanwhile: while long answers hold "
        "slots, short ones queue behind them."
    )
    colours = [Look(colour, "square", "none") for colour in LENGTHS]
    legend = list(zip(_fifth_names(ends), colours, strict=True))
    legend += [(names[one], looks.of_arm(one)) for one in names]
    return Panel("Timeline", caption, [*plots, Plot(drawn, "requests waiting")], legend, wide=True)


def _slots(replay: Replay, window: tuple[float, float], ends: list[int]) -> Figure:
    """Bars of the stretches in which requests hold slots, coloured by the length of the answer."""
    parts = replay.trace.segments
    start, end = np.maximum(parts.start_s, window[0]), np.minimum(parts.end_s, window[1])
    keep = (end > start) & (parts.slot < SLOTS)
    lengths = replay.work.output_tokens[parts.request]
    fifth = np.searchsorted(ends, lengths)
    data = []
    for number, (name, colour) in enumerate(zip(_fifth_names(ends), LENGTHS, strict=True)):
        own = keep & (fifth == number)
        data.append(
            {
                "type": "bar",
                "orientation": "h",
                "name": name,
                "y": (parts.slot[own] + 1).tolist(),
                "base": _rounded(start[own]),
                "x": _rounded((end - start)[own]),
                "marker": {"color": colour, "line": {"color": SURFACE, "width": 0.6}},
                "customdata": lengths[own].tolist(),
                "hovertemplate": "%{customdata:,} tokens<extra></extra>",
            }
        )
    used = int(parts.slot[keep].max(initial=0)) + 1
    return figure(
        data,
        x=_time(window, titled=False),
        y={
            "title": "slot",
            "range": [used + 0.5, 0.5],
            "tickvals": [1, used],
            "showgrid": False,
            "automargin": False,
        },
        height=36 + 9 * used,
        margin={"l": 46, "r": 12, "t": 4, "b": 28},
        barmode="overlay",
        bargap=0.12,
    )


def _waits(pictures: Mapping[Arm, Replay], shown: list[Arm], looks: Looks) -> Panel:
    """Mean wait before the first scheduling, by tenths of the answers' lengths."""
    data = []
    for arm in shown:
        replay = pictures[arm]
        wait = replay.trace.start_s - replay.work.arrival_s
        order = np.argsort(replay.work.output_tokens, kind="stable")
        tenths = [part for part in np.array_split(order, PARTS) if len(part)]
        look = looks.of_arm(arm)
        data.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": _name(arm),
                "x": _rounded(np.array([np.median(replay.work.output_tokens[t]) for t in tenths])),
                "y": _rounded(np.array([wait[t].mean() for t in tenths])),
                "line": look.line,
                "marker": look.marker(8),
                "hovertemplate": f"{_name(arm)}: answers of about %{{x:,}} tokens wait %{{y:.1f}} s"
                "<extra></extra>",
            }
        )
    drawn = figure(
        data,
        x={"title": "length of the answer, tokens", "type": "log", **_log_ticks(pictures)},
        y={"title": "mean wait, seconds", "rangemode": "tozero"},
        height=340,
    )
    caption = (
        "How long requests wait for a slot, by the length of their answer, a tenth of them at each "
        "mark. First come, first served lets all wait alike; a good order rises to the right: who "
        "needs little waits little. The right end is what the longest answers pay."
    )
    return Panel("Who waits", caption, [Plot(drawn)], _legend(shown, looks))


def _log_ticks(pictures: Mapping[Arm, Replay]) -> Figure:
    most = int(pictures[FCFS].work.output_tokens.max())
    ticks = [t * 10**power for power in range(7) for t in (1, 2, 5) if t * 10**power <= most]
    return {"tickvals": ticks, "ticktext": [f"{t:,}" for t in ticks]}


def _queue(
    pictures: Mapping[Arm, Replay], shown: list[Arm], window: tuple[float, float], looks: Looks
) -> Panel:
    end = max(float(pictures[arm].trace.finish_s.max()) for arm in shown)
    moments = np.linspace(0, end, MOMENTS)
    data = [_steps(pictures[arm], arm, moments, looks) for arm in shown]
    pictured = {
        "type": "rect",
        "yref": "paper",
        "x0": window[0],
        "x1": window[1],
        "y0": 0,
        "y1": 1,
        "fillcolor": faint(GRID, 0.5),
        "line": {"width": 0},
        "layer": "below",
    }
    drawn = figure(
        data,
        x={"title": "seconds"},
        y={"title": "requests waiting", "rangemode": "tozero"},
        height=300,
        shapes=[pictured],
    )
    caption = "The queue over the whole replay; the timeline shows the shaded seconds."
    return Panel("Queue over time", caption, [Plot(drawn)], _legend(shown, looks))


def _steps(replay: Replay, arm: Arm, moments: FloatArray, looks: Looks) -> Figure:
    return {
        "type": "scatter",
        "mode": "lines",
        "name": _name(arm),
        "x": _rounded(moments),
        "y": _depth_at(replay, moments).tolist(),
        "line": looks.of_arm(arm).line | {"shape": "hv", "width": 1.6},
        "hovertemplate": f"{_name(arm)}: %{{y}} waiting at %{{x:.0f}} s<extra></extra>",
    }


def _depth_at(replay: Replay, moments: FloatArray) -> FloatArray:
    """How many wait at each moment."""
    place = np.searchsorted(replay.trace.depth_s, moments, side="right") - 1
    found = np.where(place < 0, 0, replay.trace.depth[np.maximum(place, 0)])
    return found.astype(np.float64)


def _fifths(lengths: IntArray) -> list[int]:
    """The greatest lengths of the first four fifths."""
    return [int(end) for end in np.quantile(lengths, [0.2, 0.4, 0.6, 0.8])]


def _fifth_names(ends: list[int]) -> list[str]:
    between = [f"{low + 1:,} to {high:,}" for low, high in itertools.pairwise(ends)]
    return [f"up to {ends[0]:,} tokens", *between, f"more than {ends[-1]:,}"]


def _time(window: tuple[float, float], *, titled: bool = True) -> Figure:
    return {
        "title": "seconds since the first request" if titled else "",
        "range": list(window),
        "automargin": False,
    }


def _name(arm: Arm) -> str:
    if arm == FCFS:
        return "first come, first served"
    return arm.policy if arm.predictor is None else f"{policy_name(arm.policy)} by {arm.predictor}"


def _legend(shown: list[Arm], looks: Looks) -> list[tuple[str, Look]]:
    return [(_name(arm), looks.of_arm(arm)) for arm in shown]


def _rounded(values: FloatArray) -> list[float]:
    return [float(f"{value:.5g}") for value in values.tolist()]
