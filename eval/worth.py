"""What compared predictors are worth to a queue: the replay in the report of an evaluation."""

from collections.abc import Mapping
from dataclasses import replace
from typing import cast

import numpy as np

from lengthpred.base import Detector, Predictor
from lengthpred.data.table import Rows
from lengthpred.eval.compare import Comparison, Progress
from lengthpred.eval.controls import KNOWING
from lengthpred.eval.replay.settings import SimulationSettings
from lengthpred.eval.simulate import Simulation, simulate
from lengthpred.ordering import prompt_tokens

__all__ = ["BRIEF", "replay_compared"]

BRIEF = SimulationSettings(draws=5, loads=(1.5,))
PREFILL_WEIGHT = 0.5  # good on all traces of docs/simulation.md
FIRST_TURNS = 200  # rows that are enough to draw from


def replay_compared(
    comparison: Comparison,
    predictors: Mapping[str, Predictor | Detector],
    settings: SimulationSettings = BRIEF,
    *,
    seed: int,
    on_progress: Progress | None = None,
) -> Simulation | None:
    """Shortest first by each predictor, at the costs that were measured; None where no row fits.

    The order counts prompts, too. Where there are enough first turns, only those are replayed: the
    replay has no cache of prefixes, which spares a server most of a later prompt. Raises DataError
    as `simulate` does.
    """
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
    rows, notes = _replayable(comparison.rows, settings)
    if not len(rows):
        return None
    weighted = replace(settings.ordering, prefill_weight=PREFILL_WEIGHT)
    found = simulate(
        asked,
        rows,
        ("sjf",),
        replace(settings, ordering=weighted),
        seconds=seconds,
        seed=seed,
        on_progress=on_progress,
    )
    return replace(found, notes=[*notes, *found.notes])


def _replayable(rows: Rows, settings: SimulationSettings) -> tuple[Rows, list[str]]:
    """The rows to draw from, and what was left out."""
    notes = []
    first = np.asarray(rows.columns.get("turn", np.zeros(len(rows)))) == 0
    if not first.all() and first.sum() >= FIRST_TURNS:
        rows = rows.take(first)
        notes.append(
            f"Only the {len(rows):,} first turns are replayed: the replay has no cache of "
            "prefixes, which would spare a server most of a later prompt."
        )
    longest = np.zeros(len(rows))
    np.maximum.at(longest, rows.owner, rows.lengths)
    room = settings.hardware.blocks * settings.hardware.block_size
    fits = prompt_tokens(rows.requests) + longest + 1 <= room
    if not fits.all():
        notes.append(
            f"{(~fits).sum():,} requests do not fit into the replayed KV cache of {room:,} tokens "
            "and are left out."
        )
        rows = rows.take(fits)
    return rows, notes
