"""How long a running request should be open to preemption under srpt.

    lengthpred train boosted --data train.parquet --calibration calibration.parquet --out boosted
    python -m tests.benchmarks.preemption boosted test.parquet [--slots 256] [--loads 1.2 1.5]

Replays the same draws under fcfs, sjf and srpt at several preemption ratios, by the predictor and
by the truth. Prints a line for each: multiples of fcfs, preemptions a request, and what was
computed again as a share of the tokens of prompts.
"""

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from lengthpred import load
from lengthpred.base import Predictor
from lengthpred.data.table import Table
from lengthpred.eval.replay.arms import Arm, Asked, make_order
from lengthpred.eval.replay.estimates import ratio_of
from lengthpred.eval.replay.measures import measure_replay
from lengthpred.eval.replay.scenarios import make_scenarios, make_workload, replay
from lengthpred.eval.replay.settings import SimulationSettings
from lengthpred.eval.replay.step_time import PRESET
from lengthpred.eval.replay.workload import Engine
from lengthpred.models.controls import fit_constant
from lengthpred.ordering import OrderingSettings

RATIOS = (0.0, 0.2, 0.5, 0.8, 1.0)
MEASURES = (
    "mean_e2el_ms",
    "p99_e2el_ms",
    "mean_e2el_ms_longest_tenth",
    "total_token_throughput",
)
LASTING = 16  # requests a slot
Arms = dict[str, tuple[Arm, SimulationSettings]]


def main() -> None:
    """Read the arguments, replay, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("artifact", type=Path)
    parser.add_argument("table", type=Path)
    parser.add_argument("--slots", type=int, default=256)
    parser.add_argument("--prefill-ms", type=float, default=1e3 * PRESET.prefill_token_s)
    parser.add_argument("--loads", type=float, nargs="+", default=[1.2, 1.5])
    parser.add_argument("--draws", type=int, default=5)
    given = parser.parse_args()
    steps = replace(PRESET, prefill_token_s=given.prefill_ms / 1e3)
    settings = SimulationSettings(
        requests=LASTING * given.slots,
        draws=given.draws,
        hardware=Engine(slots=given.slots, step_time=steps),
        arrivals=("poisson",),
    )
    predictor = load(given.artifact)
    for at in given.loads:
        heads = "".join(f"{name:>28}" for name in MEASURES)
        print(f"{f'load {at:g}':20}{heads}{'preempted':>12}{'recomputed':>12}")
        for line in _lines(replace(settings, loads=(at,)), predictor, Table(given.table)):
            print(line, flush=True)


def _arms(settings: SimulationSettings) -> Arms:
    arms = {"fcfs": (Arm("fcfs"), settings)}
    for who in ("predictor", "oracle"):
        arms[f"sjf {who}"] = Arm("sjf", who), settings
        for ratio in RATIOS:
            ordering = OrderingSettings(preemption_ratio=ratio)
            arms[f"srpt {who} {ratio:g}"] = Arm("srpt", who), replace(settings, ordering=ordering)
    return arms


def _lines(settings: SimulationSettings, predictor: Predictor, table: Table) -> Iterator[str]:
    found: dict[str, list[dict[str, float]]] = {}
    rows = table.rows()
    (scenario,) = make_scenarios(settings, rows, 0)
    ask = Asked({"predictor": predictor}, rows)
    prior = fit_constant(rows).predict(rows.requests[:1])
    for number in range(settings.draws):
        drawn, work = make_workload(settings, scenario, rows, 0, number)
        known = {who: ask(who, drawn, number) for who in ("predictor", "oracle")}
        for name, (arm, own) in _arms(settings).items():
            trace = replay(own, work, make_order(arm, drawn, work, known, prior, 0.0, own))
            found.setdefault(name, []).append(measure_replay(work, trace))
    for name, draws in found.items():
        cells = [_against(draws, found["fcfs"], measure) for measure in MEASURES]
        preempted = np.mean([one["preemptions"] for one in draws]) / settings.requests
        again = np.mean([one["recomputed_tokens"] / one["total_input_tokens"] for one in draws])
        shown = "".join(f"{cell:>28}" for cell in cells)
        yield f"{name:20}{shown}{preempted:>12.2f}{again:>12.2f}"


def _against(draws: list[dict[str, float]], first: list[dict[str, float]], measure: str) -> str:
    """The ratio to fcfs, draw by draw, with its interval."""
    ratios = [one[measure] / two[measure] for one, two in zip(draws, first, strict=True)]
    value, low, high = ratio_of(ratios)
    return f"{value:.3f}" if low is None else f"{value:.3f} ({low:.3f}-{high:.3f})"


if __name__ == "__main__":
    main()
