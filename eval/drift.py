"""A table replayed in its time order: where intervals stop holding, and what drifted."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lengthpred.base import FloatArray, IntArray, Predictor, Request
from lengthpred.data.table import Rows
from lengthpred.distribution import LengthDistribution
from lengthpred.metrics import pit
from lengthpred.models.conformal import Conformal, paths_of
from lengthpred.models.drift import Alarm, DriftMonitor, DriftSettings, domains_of
from lengthpred.models.recalibration import Recalibration

__all__ = ["DriftReplay", "Window", "replay_drift", "time_order"]

BATCH = 256


@dataclass(frozen=True)
class Window:
    """Shares of the rows start, …, end - 1 (in time order) inside their 80 % interval.

    coverage   as the predictor answers
    corrected  with the conformal correction, which had seen what came before
    """

    start: int
    end: int
    coverage: float
    corrected: float


@dataclass(frozen=True)
class DriftReplay:
    """What a replay found; `alarms` come with the time of their request (NaN: not recorded)."""

    windows: list[Window]
    alarms: list[tuple[Alarm, float]]
    coverage: float
    corrected: float


def replay_drift(
    predictor: Predictor,
    rows: Rows,
    *,
    window: int = 100,
    late: int = 10,
    seed: int = 0,
    settings: DriftSettings | None = None,
    on_progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> DriftReplay:
    """Replay rows by `arrival_s`, or as they stand where one has none.

    The predictor is left as it is: it learns nothing. Its correction (that of a Conformal, or else
    a new one) is given the true lengths of `late` requests at a time, after they were answered.
    A table's column `domain` names domains, too. seed: of the randomised PIT.
    """
    rows = rows.take(time_order(rows))
    fixed = predictor.base if isinstance(predictor, Conformal) else predictor
    # Of a predictor that refines, whole answers are replayed: of those nothing was learnt yet.
    correction = predictor.correction if type(predictor) is Conformal else Recalibration()
    truths, flags, paths = rows.truth, rows.truth_censored, paths_of(rows.requests)
    monitor = DriftMonitor(settings, domains=_domains_with_column(rows))
    uniform = np.random.default_rng(seed).random(len(rows))
    alarms: list[Alarm] = []
    plain, mended = [np.zeros(0, bool)], [np.zeros(0, bool)]
    for start in range(0, len(rows), BATCH):
        on_progress("replaying", start, len(rows))
        at = np.arange(start, min(start + BATCH, len(rows)))
        dist = fixed.predict([rows.requests[i] for i in at])
        for step in range(0, len(at), late):
            some = at[step : step + late]
            part, requests = dist[step : step + late], [rows.requests[i] for i in some]
            truth, stopped, cells = truths[some], flags[some], [paths[i] for i in some]
            plain.append(_inside(part, truth, stopped, uniform[some]))
            mended.append(_inside(correction(part, cells), truth, stopped, uniform[some]))
            alarms += monitor.observe(requests, part, truth, stopped)
            correction = correction.learnt(part, cells, truth, stopped)
    before, after = (np.concatenate(parts) for parts in (plain, mended))
    times = rows.columns["arrival_s"]
    return DriftReplay(
        windows=[
            Window(
                start=int(part[0]),
                end=int(part[-1]) + 1,
                coverage=float(before[part].mean()),
                corrected=float(after[part].mean()),
            )
            for part in np.split(np.arange(len(rows)), range(window, len(rows), window))
        ],
        alarms=[(alarm, float(times[alarm.at - 1])) for alarm in alarms],
        coverage=float(before.mean()),
        corrected=float(after.mean()),
    )


def time_order(rows: Rows) -> IntArray:
    """Row numbers by arrival, or 0, 1, … where a row has no time of arrival."""
    times = rows.columns["arrival_s"]
    known = np.isfinite(times).all()
    return np.argsort(times, kind="stable") if known else np.arange(len(rows))


def _domains_with_column(rows: Rows) -> Callable[[Request], list[str]]:
    column = rows.columns["domain"]
    names = {id(r): f"domain {name}" for r, name in zip(rows.requests, column, strict=True) if name}

    def domains(request: Request) -> list[str]:
        name = names.get(id(request))
        return [*([name] if name else []), *domains_of(request)]

    return domains


def _inside(
    dist: LengthDistribution, truth: IntArray, stopped: npt.NDArray[np.bool_], uniform: FloatArray
) -> npt.NDArray[np.bool_]:
    covered: npt.NDArray[np.bool_] = np.abs(pit(dist, truth, stopped, uniform) - 0.5) <= 0.4
    return covered
