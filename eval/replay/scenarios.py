"""The ways in which the requests of a simulation come, and the requests themselves."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from lengthpred.data.table import Rows
from lengthpred.errors import SettingsError
from lengthpred.eval.replay.arrivals import arrive, recorded
from lengthpred.eval.replay.batches import replay_batches
from lengthpred.eval.replay.continuous import replay_continuous
from lengthpred.eval.replay.draws import Drawn, draw, draw_recorded
from lengthpred.eval.replay.order import Order
from lengthpred.eval.replay.settings import REAL_ENGINES, SimulationSettings
from lengthpred.eval.replay.workload import Trace, Workload

__all__ = ["Scenario", "make_scenarios", "make_workload", "replay"]

CAPACITY_REQUESTS = 4096


@dataclass(frozen=True)
class Scenario:
    """How requests come in a replay: see ReplayResult."""

    arrivals: str
    load: float | None
    rate: float | None
    ood_ratio: float | None

    @property
    def x(self) -> float | None:
        """What a sweep sweeps."""
        return self.rate if self.load is None else self.load


def make_scenarios(settings: SimulationSettings, rows: Rows, seed: int) -> Iterator[Scenario]:
    """Each kind of arrivals at each load and OOD ratio, the quiet ones first."""
    for ratio in settings.ood_ratios:
        for kind in settings.arrivals:
            if kind == "burst" or (kind == "trace" and not settings.rates):
                yield Scenario(kind, None, None, ratio)
            elif settings.rates:
                yield from (Scenario(kind, None, rate, ratio) for rate in sorted(settings.rates))
            else:
                most = _capacity(settings, rows, ratio, seed)
                yield from (Scenario(kind, x, x * most, ratio) for x in sorted(settings.loads))


def _capacity(settings: SimulationSettings, rows: Rows, ratio: float | None, seed: int) -> float:
    """Requests a second that the engine serves when there are always more than it can take."""
    n = max(CAPACITY_REQUESTS, 8 * settings.hardware.slots)
    rng = np.random.default_rng([seed, 0])
    drawn = draw(rows, n, rng, sum_limit=settings.sum_limit, ood_ratio=ratio)
    work = Workload(np.zeros(n), drawn.prompt_tokens, drawn.output_tokens)
    return n / float(replay(settings, work, Order(np.arange(n))).finish_s.max())


def make_workload(
    settings: SimulationSettings, scenario: Scenario, rows: Rows, seed: int, number: int
) -> tuple[Drawn, Workload]:
    """The requests of a draw, the same at every load."""
    rng = np.random.default_rng([seed, 1, number])
    if scenario.arrivals == "trace":
        drawn, times = draw_recorded(rows, settings.requests, rng, sum_limit=settings.sum_limit)
        arrivals = recorded(times, scenario.rate)
    else:
        drawn = draw(
            rows,
            settings.requests,
            rng,
            sum_limit=settings.sum_limit,
            ood_ratio=scenario.ood_ratio,
        )
        arrivals = arrive(
            scenario.arrivals,
            settings.requests,
            scenario.rate,
            rng,
            burstiness=settings.burstiness,
        )
    return drawn, Workload(arrivals, drawn.prompt_tokens, drawn.output_tokens)


def replay(settings: SimulationSettings, work: Workload, order: Order) -> Trace:
    """Run the requests on the engine that is asked for; raises SettingsError for a real one."""
    if settings.engine in REAL_ENGINES:
        raise SettingsError(
            f"'{settings.engine}' is measured, not replayed: use lengthpred bench or the functions "
            "of lengthpred.eval.bench"
        )
    if settings.engine == "continuous":
        return replay_continuous(work, order, settings.hardware)
    if settings.engine == "vllm":
        from lengthpred.eval.replay.vllm_scheduler import replay_vllm

        return replay_vllm(work, order, settings.hardware)
    slices = settings.slice_tokens if settings.engine == "slices" else None
    return replay_batches(work, order, settings.hardware, slices)
