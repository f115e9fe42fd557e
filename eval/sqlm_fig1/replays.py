"""Runs the experiment: the same requests under every arm, engine, limit and OOD ratio."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from multiprocessing import get_context

import numpy as np

from lengthpred import metrics
from lengthpred.eval.replay.draws import Drawn
from lengthpred.eval.replay.measures import measure_replay
from lengthpred.eval.replay.scenarios import make_scenarios, make_workload, replay
from lengthpred.eval.replay.settings import SimulationSettings
from lengthpred.eval.replay.workload import Workload
from lengthpred.eval.sqlm_fig1.arms import ARMS, Arm, Place, added, known_of, order_of, results_of
from lengthpred.eval.sqlm_fig1.setting import Fig1Result, Fig1Settings, Fold

__all__ = ["run"]

Progress = Callable[[str, int, int], None]


def run(
    folds: Iterable[Fold],
    settings: Fig1Settings,
    *,
    strata: int = 1,
    seed: int = 0,
    jobs: int = 1,
    on_progress: Progress | None = None,
) -> list[Fig1Result]:
    """Replay every arm everywhere, once with each fold: draw i takes the i-th of them.

    All arms of a draw see the same requests and true lengths. Fold i is of stratum i modulo
    `strata` (the same corpora kept from training): see `mean_of`. `jobs` processes share the draws;
    the result does not depend on their number. Raises DataError for a fold without requests of
    one sort.
    """
    report = on_progress or (lambda what, done, total: None)
    replayed: list[dict[tuple[Place, Arm], dict[str, float]]] = []
    # Not forked: numpy and LightGBM may hold threads.
    with ProcessPoolExecutor(jobs, get_context("spawn")) if jobs > 1 else nullcontext() as pool:
        waiting = []
        for number, fold in enumerate(folds):
            report("replaying", number, settings.draws)
            if pool is None:
                replayed.append(_draw(settings, fold, seed, number))
            else:
                waiting.append(pool.submit(_draw, settings, fold, seed, number))
        for number, one in enumerate(waiting):
            report("replaying", number, settings.draws)
            replayed.append(one.result())
    draws = {key: [one[key] for one in replayed] for key in replayed[0]}
    return list(results_of(draws, strata))


def _draw(
    settings: Fig1Settings, fold: Fold, seed: int, number: int
) -> dict[tuple[Place, Arm], dict[str, float]]:
    measured = {}
    for place in _places(settings, fold, seed):
        for arm, found in _replayed(place, settings, fold, seed, number):
            # A rate follows from a fold's capacity; places are compared across folds.
            key = replace(place, scenario=replace(place.scenario, rate=None))
            measured[key, arm] = found
    return measured


def _places(settings: Fig1Settings, fold: Fold, seed: int) -> Iterator[Place]:
    first = settings.sum_limits[0]
    for engine in settings.engines:
        for limit in settings.sum_limits:
            ways = ["burst"]
            if limit == first:
                ways += ["burst-long-at-head", *(["poisson"] if engine == "continuous" else [])]
            for way in ways:
                chosen = _chosen(settings, engine, limit, way)
                for scenario in make_scenarios(chosen, fold.rows, seed):
                    yield Place(engine, way, limit, scenario)


def _chosen(settings: Fig1Settings, engine: str, limit: int, way: str) -> SimulationSettings:
    return SimulationSettings(
        requests=settings.requests,
        draws=settings.draws,
        engine=engine,
        hardware=settings.hardware,
        arrivals=("poisson" if way == "poisson" else "burst",),
        loads=(settings.load,),
        sum_limit=limit,
        ood_ratios=tuple(settings.ratios),
    )


def _replayed(
    place: Place, settings: Fig1Settings, fold: Fold, seed: int, number: int
) -> Iterator[tuple[Arm, dict[str, float]]]:
    chosen = _chosen(settings, place.engine, place.sum_limit, place.arrivals)
    drawn, work = make_workload(chosen, place.scenario, fold.rows, seed, number)
    if place.arrivals == "burst-long-at-head":
        drawn, work = _long_at_head(drawn, settings.hardware.slots)
    known = known_of(fold, drawn)
    for arm in ARMS[place.arrivals]:
        asked = known.asked.get(arm.predictor or "", np.zeros(len(work), bool))
        if arm.slm == "added":
            continue  # the same replay as apart
        trace = replay(chosen, work, order_of(arm, drawn, work, known, asked, settings.slm_s))
        found = measure_replay(work, trace)
        found["slm_requests"] = trace.refined if arm.slm == "hidden" else int(asked.sum())
        found["slm_s"] = trace.refining_s if arm.slm == "hidden" else settings.slm_s * asked.sum()
        if arm.predictor is not None:
            answer = known.answers[arm.predictor]
            found["tau"] = metrics.tau(answer.median(), work.output_tokens)
        yield arm, found
        if arm.slm == "apart" and replace(arm, slm="added") in ARMS[place.arrivals]:
            yield replace(arm, slm="added"), added(found, work, trace.busy_s)


def _long_at_head(drawn: Drawn, slots: int) -> tuple[Drawn, Workload]:
    """A queue that begins with its longest answers, as many as run at once."""
    long = np.zeros(len(drawn.output_tokens), bool)
    long[np.argsort(-drawn.output_tokens, kind="stable")[:slots]] = True
    order = np.argsort(~long, kind="stable")
    moved = Drawn(
        drawn.rows.take(order),
        drawn.numbers[order],
        drawn.prompt_tokens[order],
        drawn.output_tokens[order],
    )
    arrival = np.zeros(len(order))
    return moved, Workload(arrival, moved.prompt_tokens, moved.output_tokens)
