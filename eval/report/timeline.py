"""Pictures of one replay: who held which slot when, who waited, and for how long."""

from collections.abc import Iterator, Mapping

import numpy as np

from lengthpred.base import FloatArray
from lengthpred.eval.replay.arms import Arm, control_of
from lengthpred.eval.report.gains import best_arm
from lengthpred.eval.report.lookup import Replays
from lengthpred.eval.report.panels import Panel, Plot
from lengthpred.eval.report.tables import scenario_name
from lengthpred.eval.report.theme import GRID, LENGTHS, SURFACE, Figure, Looks, faint, figure
from lengthpred.eval.report.waiting import (
    FCFS,
    fifth_names,
    fifths,
    legend_of_arms,
    legend_of_lengths,
    name_of,
    rounded,
    stories,
    waits,
)
from lengthpred.eval.simulate import Replay

__all__ = ["replay_panels"]

SLOTS = 32
ANSWERS_WIDE = 6  # mean answers that fit side by side into the window
MOMENTS = 400


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
    yield stories(pictures, [FCFS, arm], window)
    yield waits(pictures, shown, looks)
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
    ends = fifths(pictures[FCFS].work.output_tokens)
    names = {FCFS: "first come, first served", arm: name_of(arm)}
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
        f"One bar is one answer being written, in one of {SLOTS} slots of the engine at most, "
        "coloured by its length. The same seconds of the same requests, at the time when most "
        f"wait ({where}). Below, how many wait for a slot meanwhile: while long answers hold "
        "slots, short ones queue behind them."
    )
    legend = legend_of_lengths(ends)
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
    for number, (name, colour) in enumerate(zip(fifth_names(ends), LENGTHS, strict=False)):
        own = keep & (fifth == number)
        data.append(
            {
                "type": "bar",
                "orientation": "h",
                "name": name,
                "y": (parts.slot[own] + 1).tolist(),
                "base": rounded(start[own]),
                "x": rounded((end - start)[own]),
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
    return Panel("Queue over time", caption, [Plot(drawn)], legend_of_arms(shown, looks))


def _steps(replay: Replay, arm: Arm, moments: FloatArray, looks: Looks) -> Figure:
    return {
        "type": "scatter",
        "mode": "lines",
        "name": name_of(arm),
        "x": rounded(moments),
        "y": _depth_at(replay, moments).tolist(),
        "line": looks.of_arm(arm).line | {"shape": "hv", "width": 1.6},
        "hovertemplate": f"{name_of(arm)}: %{{y}} waiting at %{{x:.0f}} s<extra></extra>",
    }


def _depth_at(replay: Replay, moments: FloatArray) -> FloatArray:
    """How many wait at each moment."""
    place = np.searchsorted(replay.trace.depth_s, moments, side="right") - 1
    found = np.where(place < 0, 0, replay.trace.depth[np.maximum(place, 0)])
    return found.astype(np.float64)


def _time(window: tuple[float, float], *, titled: bool = True) -> Figure:
    return {
        "title": "seconds since the first request" if titled else "",
        "range": list(window),
        "automargin": False,
    }
