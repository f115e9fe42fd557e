"""Replays of requests under several policies and predictors, at several loads."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lengthpred.base import Predictor, Request
from lengthpred.data.table import Rows
from lengthpred.distribution import LengthDistribution
from lengthpred.errors import DataError
from lengthpred.eval.replay.arms import Arm, Asked, control_of, make_arms, make_order
from lengthpred.eval.replay.estimates import mean_of, ratio_of
from lengthpred.eval.replay.measures import measure_replay
from lengthpred.eval.replay.scenarios import Scenario, make_scenarios, make_workload, replay
from lengthpred.eval.replay.settings import SimulationSettings
from lengthpred.eval.replay.step_time import PRESET
from lengthpred.eval.replay.workload import Trace, Workload
from lengthpred.models.backends.base import is_recorded
from lengthpred.models.controls import fit_constant

__all__ = ["COMPARED", "Replay", "ReplayResult", "Simulation", "compare_arms", "simulate"]

COMPARED = (
    "total_token_throughput",
    "tps",
    "mean_ttft_ms",
    "p99_ttft_ms",
    "mean_e2el_ms",
    "p99_e2el_ms",
    "mean_e2el_ms_longest_tenth",
    "p99_e2el_ms_longest_tenth",
)
LASTING = 16  # requests a slot

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class ReplayResult:
    """One measure of one arm at one load, over all draws.

    arrivals    how requests came: burst, poisson, bursty or trace
    load, rate  offered, as a share of what the engine can serve and in requests a second; None
                where all arrive at once, or as recorded
    metric      a measure; with _vs_fcfs or _vs_prompt its ratio, draw by draw, to that under plain
                fcfs or under the shortest (for longest-first, the longest) prompt first
    value       mean over draws, of ratios the geometric one
    low, high   its 95 % interval (Student's t); None for a single draw
    n           draws
    """

    engine: str
    policy: str
    predictor: str | None
    arrivals: str
    load: float | None
    rate: float | None
    ood_ratio: float | None
    metric: str
    value: float
    low: float | None
    high: float | None
    n: int


@dataclass(frozen=True)
class Replay:
    """One replay, for a picture."""

    work: Workload
    trace: Trace


@dataclass(frozen=True)
class Simulation:
    """Measures; what a reader has to know of them; and the first draw of the last scenario."""

    settings: SimulationSettings
    results: list[ReplayResult]
    notes: list[str]
    replays: Mapping[Arm, Replay]


def simulate(
    predictors: Mapping[str, Predictor | None],
    rows: Rows,
    policies: Sequence[str] = ("sjf",),
    settings: SimulationSettings | None = None,
    *,
    seconds: Mapping[str, float] | None = None,
    seed: int = 0,
    on_progress: Progress | None = None,
) -> Simulation:
    """Replay draws of `rows` under every policy with every predictor, and under the controls.

    `predictors` maps a name to a predictor, or to None where the name is that of a control that
    knows the truth. `seconds` is what one prediction of each takes; what it does not name is free.
    Always there: fcfs, fcfs with each predictor running but ignored, the shortest (for
    longest-first, the longest) prompt first, and each policy that predicts by the oracle and by
    the oracle with noise. All arms of a draw see the same requests, arrivals and true lengths.
    Raises SettingsError for unknown policies and settings out of range, DataError for no rows.
    """
    if not len(rows):
        raise DataError("there are no rows to simulate with")
    chosen, costs = settings or SimulationSettings(), seconds or {}
    arms = make_arms(policies, predictors, costs)
    prior = fit_constant(rows).predict([Request()])
    ask = Asked(predictors, rows)
    report = on_progress or (lambda what, done, total: None)
    measured: dict[tuple[Scenario, Arm], list[dict[str, float]]] = {}
    replays: dict[Arm, Replay] = {}
    scenarios = list(make_scenarios(chosen, rows, seed))
    steps, done = chosen.draws * len(scenarios) * len(arms), 0
    for number in range(chosen.draws):
        for scenario in scenarios:
            drawn, work = make_workload(chosen, scenario, rows, seed, number)
            known: dict[str, LengthDistribution] = {}
            for arm in arms:
                report(f"{arm.policy} {arm.predictor or ''}".strip(), done, steps)
                if arm.predictor is not None and arm.predictor not in known:
                    known[arm.predictor] = ask(arm.predictor, drawn, seed + number)
                taken = costs.get(arm.predictor or "", 0.0)
                order = make_order(arm, drawn, work, known, prior, taken, chosen)
                trace = replay(chosen, work, order)
                measured.setdefault((scenario, arm), []).append(measure_replay(work, trace))
                if number == 0 and scenario == scenarios[-1]:
                    replays[arm] = Replay(work, trace)
                done += 1
    report("done", steps, steps)
    results = list(compare_arms(chosen.engine, measured))
    notes = [*_notes(chosen, rows, costs), *_prompts_matter(chosen, measured)]
    notes += [
        f"{name} looks recorded samples up; its time is not that of a model."
        for name in costs
        if is_recorded(predictors[name])
    ]
    return Simulation(chosen, results, notes, replays)


def compare_arms(
    engine: str,
    measured: Mapping[tuple[Scenario, Arm], Sequence[Mapping[str, float]]],
    compared: Sequence[str] = COMPARED,
) -> Iterator[ReplayResult]:
    """Means over draws of what was measured of each arm, and ratios draw by draw of `compared`."""
    for (at, arm), draws in measured.items():
        found = {metric: mean_of([one[metric] for one in draws]) for metric in draws[0]}
        for name, other in (("fcfs", Arm("fcfs")), ("prompt", control_of(arm.policy))):
            if (at, other) in measured and (name == "fcfs" or arm.predictor is not None):
                pairs = list(zip(draws, measured[at, other], strict=True))
                for metric in compared:
                    ratios = [one[metric] / two[metric] for one, two in pairs]
                    found[f"{metric}_vs_{name}"] = ratio_of(ratios)
        for metric, (value, low, high) in found.items():
            yield ReplayResult(
                engine,
                arm.policy,
                arm.predictor,
                at.arrivals,
                at.load,
                at.rate,
                at.ood_ratio,
                metric,
                value,
                low,
                high,
                len(draws),
            )


def _prompts_matter(
    settings: SimulationSettings,
    measured: Mapping[tuple[Scenario, Arm], Sequence[Mapping[str, float]]],
) -> Iterator[str]:
    """Advice where even the truth about answers orders worse than the length of prompts."""

    def latency(at: Scenario, arm: Arm) -> float:
        return float(np.mean([one["mean_e2el_ms"] for one in measured[at, arm]]))

    oracle, prompts = Arm("sjf", "oracle"), control_of("sjf")
    both = [at for at, arm in measured if arm == oracle and (at, prompts) in measured]
    if not settings.ordering.prefill_weight and any(
        latency(at, prompts) < 0.99 * latency(at, oracle) for at in both
    ):
        yield (
            "Shortest prompt first does better here than shortest answer first by the truth: "
            "prompts cost much of the time. --prefill-weight 0.5 lets the order count both."
        )


def _notes(settings: SimulationSettings, rows: Rows, costs: Mapping[str, float]) -> list[str]:
    notes = []
    if settings.hardware.step_time == PRESET:
        notes.append(
            "Step times are the preset of a 7B model on two L40S, by roofline and not measured."
        )
    else:
        notes.append(f"A step takes {settings.hardware.step_time}.")
    zero = int((rows.lengths == 0).sum())
    if zero:
        notes.append(f"{zero:,} answers of no token are replayed as one token long.")
    lasting = LASTING * settings.hardware.slots
    if settings.requests < lasting and set(settings.arrivals) != {"burst"}:
        notes.append(
            f"{settings.requests:,} requests fill {settings.hardware.slots} slots only a few "
            f"times: a queue has little time to grow; {lasting:,} (--requests) show a lasting load."
        )
    weight = settings.ordering.prefill_weight
    if weight:
        notes.append(f"In the order a token of a prompt counts as {weight:g} of an answer.")
    censored = float(rows.censored.mean())
    if censored:
        notes.append(
            f"{censored:.1%} of the lengths were stopped by a limit and are replayed as they are."
        )
    if costs:
        how = "is charged" if settings.prediction == "charge" else "is hidden while requests wait"
        each = ", ".join(f"{name} {1e3 * taken:.2f} ms" for name, taken in costs.items())
        notes.append(f"The time of a prediction {how}: {each}.")
    return notes
