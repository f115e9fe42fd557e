"""Who waits how long, in one replay: request by request, and by the length of the answer."""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from lengthpred.base import FloatArray, IntArray
from lengthpred.eval.replay.arms import Arm
from lengthpred.eval.report.gains import policy_name
from lengthpred.eval.report.panels import Panel, Plot
from lengthpred.eval.report.theme import LENGTHS, MUTED, Figure, Look, Looks, faint, figure
from lengthpred.eval.simulate import Replay

__all__ = [
    "FCFS",
    "fifth_names",
    "fifths",
    "legend_of_arms",
    "legend_of_lengths",
    "name_of",
    "rounded",
    "stories",
    "waits",
]

FCFS = Arm("fcfs")
PARTS = 10  # of the requests, by the length of their answers
STORIES = 40


def stories(
    pictures: Mapping[Arm, Replay], arms: Sequence[Arm], window: tuple[float, float]
) -> Panel:
    """Some requests that came in a window, from short to long answers: waiting, then written."""
    work = pictures[FCFS].work
    came = np.flatnonzero((work.arrival_s >= window[0]) & (work.arrival_s <= window[1]))
    by_length = came[np.argsort(work.output_tokens[came], kind="stable")]
    places = np.linspace(0, len(came) - 1, min(STORIES, len(came))).astype(np.int64)
    told, ends = by_length[places], fifths(work.output_tokens)
    finishes = [(pictures[a].trace.finish_s - pictures[a].work.arrival_s)[told] for a in arms]
    most = 1.02 * max(float(finish.max()) for finish in finishes)
    plots = [Plot(_lives(pictures[arm], told, ends, most), name_of(arm)) for arm in arms]
    caption = (
        f"{len(told)} of the {len(came):,} requests that came in these seconds, from the shortest "
        "answer at the top to the longest; the same ones in both. Grey is waiting, colour is "
        "writing. First come, first served lets short answers wait as long as long ones: that is "
        "what an order by length is to mend."
    )
    legend = [("waiting", Look(MUTED, "square", "none")), *legend_of_lengths(ends)]
    return Panel("Waiting and writing", caption, plots, legend)


def _lives(replay: Replay, told: IntArray, ends: list[int], most: float) -> Figure:
    """A row a request: a thin bar until it starts, a coloured one until it is done."""
    wait = (replay.trace.start_s - replay.work.arrival_s)[told]
    whole = (replay.trace.finish_s - replay.work.arrival_s)[told]
    lengths = replay.work.output_tokens[told]
    rows, fifth = np.arange(len(told)), np.searchsorted(ends, lengths)
    parts = [("waiting", faint(MUTED, 0.45), rows >= 0, 0 * wait, wait, 0.4)]
    for number, (name, colour) in enumerate(zip(fifth_names(ends), LENGTHS, strict=False)):
        parts.append((name, colour, fifth == number, wait, whole - wait, 0.8))
    data = [
        {
            "type": "bar",
            "orientation": "h",
            "name": name,
            "y": rows[own].tolist(),
            "base": rounded(base[own]),
            "x": rounded(long[own]),
            "width": width,
            "marker": {"color": colour, "line": {"width": 0}},
            "customdata": lengths[own].tolist(),
            "hovertemplate": "%{customdata:,} tokens: %{x:.1f} s<extra></extra>",
        }
        for name, colour, own, base, long, width in parts
    ]
    return figure(
        data,
        x={"title": "seconds since the request came", "range": [0, most]},
        y={
            "title": "long answers \N{LEFTWARDS ARROW} short answers",
            "range": [len(told) - 0.4, -0.6],
            "showticklabels": False,
            "ticks": "",
            "showgrid": False,
        },
        height=60 + 9 * len(told),
        barmode="overlay",
    )


def waits(pictures: Mapping[Arm, Replay], shown: list[Arm], looks: Looks) -> Panel:
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
                "name": name_of(arm),
                "x": rounded(np.array([np.median(replay.work.output_tokens[t]) for t in tenths])),
                "y": rounded(np.array([wait[t].mean() for t in tenths])),
                "line": look.line,
                "marker": look.marker(8),
                "hovertemplate": f"{name_of(arm)}: %{{x:,}} tokens, %{{y:.1f}} s<extra></extra>",
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
    return Panel("Who waits", caption, [Plot(drawn)], legend_of_arms(shown, looks))


def _log_ticks(pictures: Mapping[Arm, Replay]) -> Figure:
    most = int(pictures[FCFS].work.output_tokens.max())
    ticks = [t * 10**power for power in range(7) for t in (1, 2, 5) if t * 10**power <= most]
    return {"tickvals": ticks, "ticktext": [f"{t:,}" for t in ticks]}


def fifths(lengths: IntArray) -> list[int]:
    """The greatest lengths of the first four fifths; fewer where many answers are equally long."""
    # Lengths that occur, so that no bin between two of them is empty.
    ends = np.unique(np.quantile(lengths, [0.2, 0.4, 0.6, 0.8], method="lower"))
    return [int(end) for end in ends if end < lengths.max()]


def fifth_names(ends: list[int]) -> list[str]:
    if not ends:
        return ["equally long answers"]
    between = [
        f"{low + 1:,} to {high:,}" if low + 1 < high else f"{high:,}"
        for low, high in itertools.pairwise(ends)
    ]
    return [f"up to {ends[0]:,} tokens", *between, f"more than {ends[-1]:,}"]


def legend_of_lengths(ends: list[int]) -> list[tuple[str, Look]]:
    looks = [Look(colour, "square", "none") for colour in LENGTHS]
    return list(zip(fifth_names(ends), looks, strict=False))


def name_of(arm: Arm) -> str:
    if arm == FCFS:
        return "first come, first served"
    return arm.policy if arm.predictor is None else f"{policy_name(arm.policy)} by {arm.predictor}"


def legend_of_arms(shown: list[Arm], looks: Looks) -> list[tuple[str, Look]]:
    return [(name_of(arm), looks.of_arm(arm)) for arm in shown]


def rounded(values: FloatArray) -> list[float]:
    return [float(f"{value:.5g}") for value in values.tolist()]
