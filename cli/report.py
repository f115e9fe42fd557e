"""The report beside other results, and the replay that it shows of an evaluation."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
from rich.markup import escape

from lengthpred.errors import MissingExtraError

if TYPE_CHECKING:
    from rich.console import Console

    from lengthpred.base import Detector, Predictor
    from lengthpred.eval.compare import Comparison
    from lengthpred.eval.output import Document
    from lengthpred.eval.replay.settings import SimulationSettings
    from lengthpred.eval.simulate import Simulation

FIRST_TURNS = 200
PREFILL_WEIGHT = 0.5  # docs/simulation.md: good on all traces

__all__ = ["replay_compared", "write_report_or_say"]


def write_report_or_say(
    out: Path,
    document: "Document",
    console: "Console",
    *,
    comparison: "Comparison | None" = None,
    simulation: "Simulation | None" = None,
    prompts: bool = True,
) -> None:
    """Write report.html into the folder `out`, or say what to install for it."""
    from lengthpred.eval.output import REPORT
    from lengthpred.eval.report.page import write_report

    repeat = {
        "command": document.command,
        "seed": str(document.seed),
        "sha256 of the table": document.data_sha256,
    }
    try:
        path = write_report(
            out / REPORT,
            comparison=comparison,
            simulation=simulation,
            prompts=prompts,
            repeat=repeat,
        )
    except MissingExtraError as error:
        console.print(f"note: {error}", highlight=False, markup=False)
        return
    console.print(f"wrote {escape(str(path))}", highlight=False, soft_wrap=True)


def replay_compared(
    comparison: "Comparison",
    predictors: "Mapping[str, Predictor | Detector]",
    settings: "SimulationSettings | None" = None,
    *,
    seed: int,
    on_progress: Callable[[str, int, int], None] | None = None,
) -> "Simulation":
    """What the compared predictors mean for a queue, at the costs that were measured.

    By default all requests at once, and a load with a queue; two draws. The order counts prompts,
    too. Where there are enough first turns, only those are replayed: the replay has no cache of
    prefixes, which spares a server most of a later prompt.
    """
    from lengthpred.eval.controls import KNOWING
    from lengthpred.eval.replay.settings import SimulationSettings
    from lengthpred.eval.simulate import simulate

    asked = {
        name: None if name in KNOWING else cast("Predictor", one)
        for name, one in predictors.items()
        if hasattr(one, "predict")
    }
    seconds = {
        result.predictor: result.value / 1e6
        for result in comparison.results
        if result.metric == "us_per_request_p50" and result.predictor in asked
    }
    chosen = settings or SimulationSettings(draws=2, loads=(1.5,))
    first = np.asarray(comparison.rows.columns.get("turn", 0)) == 0
    return simulate(
        asked,
        comparison.rows.take(first) if first.sum() >= FIRST_TURNS else comparison.rows,
        ("sjf",),
        replace(chosen, ordering=replace(chosen.ordering, prefill_weight=PREFILL_WEIGHT)),
        seconds=seconds,
        seed=seed,
        on_progress=on_progress,
    )
