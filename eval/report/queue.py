"""Plots of a simulation: what each order does to latency and throughput."""

from collections.abc import Iterator, Sequence

from lengthpred.eval.replay.arms import Arm, control_of
from lengthpred.eval.report.gains import policy_name
from lengthpred.eval.report.lookup import Replays, Scenario
from lengthpred.eval.report.panels import Panel, Plot
from lengthpred.eval.report.tables import arrivals_name, scenario_name
from lengthpred.eval.report.theme import MUTED, Figure, Look, Looks, bars, figure
from lengthpred.eval.report.words import change
from lengthpred.eval.simulate import ReplayResult

__all__ = ["label_of", "simulation_panels"]

SWEPT = {
    "mean_e2el_ms": "mean latency",
    "p99_e2el_ms": "p99 latency",
    "mean_ttft_ms": "mean time to first token",
    "p99_ttft_ms": "p99 time to first token",
    "mean_e2el_ms_longest_tenth": "mean latency, longest tenth",
    "total_token_throughput": "tokens/s",
}
PERCENT = {"tickformat": "~g", "ticksuffix": " %", "nticks": 6}
SO_MUCH = (
    "Each is a change against first come, first served (the dotted line) on the same requests; "
    "whiskers are 95 % intervals over draws. Lower is better for latency and time to first token, "
    "higher for tokens/s."
)
LOAD = " The load is the rate of arrivals as a share of what the engine can serve."


def simulation_panels(replays: Replays, looks: Looks) -> Iterator[Panel]:
    """For each policy that predicts: a panel a sweep of loads, and one for what is no sweep."""
    others = [
        arm
        for arm in replays.arms
        if arm.policy not in (*replays.policies(), "fcfs")
        and arm.predictor is None
        and arm.policy not in ("prompt-sjf", "longest-prompt-first")
    ]
    for policy in replays.policies():
        own = [arm for arm in replays.arms if arm.policy == policy]
        arms = [*own, *(arm for arm in (control_of(policy),) if arm in replays.arms), *others]
        for kind in dict.fromkeys((at.arrivals, at.ood_ratio) for at in replays.scenarios):
            swept = [at for at in replays.scenarios if (at.arrivals, at.ood_ratio) == kind]
            if len(swept) > 1:
                yield _sweep(replays, looks, policy, arms, swept)
            else:
                yield _single(replays, looks, policy, arms, swept[0])


def label_of(arm: Arm) -> str:
    """An arm's name within the panel of one policy."""
    return arm.predictor or arm.policy


def _sweep(
    replays: Replays, looks: Looks, policy: str, arms: Sequence[Arm], swept: Sequence[Scenario]
) -> Panel:
    """Lines over the load, a plot a measure."""
    by_load = swept[0].load is not None
    title = "load offered" if by_load else "requests a second"
    ticks = [at.x or 0.0 for at in swept]
    axis = {"title": title, "tickvals": ticks, "tickformat": ".0%" if by_load else ""}
    plots = []
    for metric, name in SWEPT.items():
        data = []
        for arm in arms:
            found = [(at.x, r) for at in swept if (r := replays.get(at, arm, f"{metric}_vs_fcfs"))]
            line = looks.of_arm(arm).line
            data.append(
                _marks(arm, looks, [r for _, r in found], vertical=True)
                | {"mode": "lines+markers", "x": [x for x, _ in found], "line": line}
            )
        plots.append(
            Plot(figure(data, x=axis, y=PERCENT, height=270, shapes=[_no_change("y")]), name)
        )
    first = swept[0]
    parts = [arrivals_name(first.arrivals)] + (
        [f"OOD ratio {first.ood_ratio:.0%}"] if first.ood_ratio else []
    )
    where = f"{policy_name(policy).capitalize()}, by load ({', '.join(parts)})"
    return Panel(where, SO_MUCH + LOAD * by_load, plots, _legend(arms, looks))


def _single(
    replays: Replays, looks: Looks, policy: str, arms: Sequence[Arm], at: Scenario
) -> Panel:
    """A row an arm, a plot a measure."""
    plots = []
    for metric in ("mean_e2el_ms", "mean_e2el_ms_longest_tenth", "total_token_throughput"):
        data = []
        for place, arm in enumerate(reversed(arms)):
            found = replays.get(at, arm, f"{metric}_vs_fcfs")
            if found:
                data.append(_marks(arm, looks, [found], vertical=False) | {"y": [place]})
        axis = {
            "tickvals": list(range(len(arms))),
            "ticktext": [label_of(arm) for arm in reversed(arms)],
            "range": [-0.6, len(arms) - 0.4],
        }
        height = 70 + 30 * len(arms)
        drawn = figure(
            data,
            x=PERCENT | {"nticks": 4, "tickangle": 0},
            y=axis,
            height=height,
            shapes=[_no_change("x")],
        )
        plots.append(Plot(drawn, SWEPT[metric]))
    where = f"{policy_name(policy).capitalize()}, {scenario_name(at)}"
    return Panel(where, SO_MUCH, plots)


def _marks(arm: Arm, looks: Looks, results: Sequence[ReplayResult], *, vertical: bool) -> Figure:
    """Changes of one arm in percent, along y or x."""
    look = looks.of_arm(arm)
    along = "y" if vertical else "x"
    return {
        "type": "scatter",
        "mode": "markers",
        "name": label_of(arm),
        along: [100 * (r.value - 1) for r in results],
        f"error_{along}": bars(results, 100) | {"color": look.colour},
        "marker": look.marker(8),
        "text": [change(r.value) for r in results],
        "hovertemplate": f"{label_of(arm)}: %{{text}}<extra></extra>",
    }


def _no_change(along: str) -> Figure:
    """The line at 0."""
    across = "x" if along == "y" else "y"
    return {
        "type": "line",
        f"{across}ref": "paper",
        f"{across}0": 0,
        f"{across}1": 1,
        f"{along}0": 0,
        f"{along}1": 0,
        "line": {"color": MUTED, "width": 1.2, "dash": "dot"},
    }


def _legend(arms: Sequence[Arm], looks: Looks) -> list[tuple[str, Look]]:
    return [(label_of(arm), looks.of_arm(arm)) for arm in arms]
