"""Runs the experiment: the same requests under every arm, engine, limit and OOD ratio."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, replace
from multiprocessing import get_context

import numpy as np
import numpy.typing as npt

from lengthpred import metrics
from lengthpred.base import IntArray
from lengthpred.distribution import LengthDistribution
from lengthpred.eval.controls import fit_control
from lengthpred.eval.replay.draws import Drawn
from lengthpred.eval.replay.estimates import Estimate, mean_of, ratio_of
from lengthpred.eval.replay.measures import measure_replay
from lengthpred.eval.replay.order import Order, Refinement
from lengthpred.eval.replay.scenarios import Scenario, make_scenarios, make_workload, replay
from lengthpred.eval.replay.settings import SimulationSettings
from lengthpred.eval.replay.workload import Workload
from lengthpred.eval.sqlm_fig1.setting import Fig1Result, Fig1Settings, Fold
from lengthpred.ordering import EPOCH_S, OrderingSettings, cost, priority
from lengthpred.serving.uncertain import uncertainty

__all__ = ["run"]

Progress = Callable[[str, int, int], None]
COMPARED = (
    *("tps", "total_token_throughput", "mean_e2el_ms", "p99_e2el_ms"),
    *("mean_e2el_ms_longest_tenth", "mean_ttft_ms"),
)
KEPT = (*COMPARED, "duration", "preemptions", "slm_s", "slm_requests", "tau")
ORDERING = OrderingSettings()


@dataclass(frozen=True)
class Arm:
    """A policy, the predictor it goes by, and how the small model's time is counted."""

    policy: str
    predictor: str | None = None
    slm: str | None = None


FCFS, QLM, ORACLE = Arm("fcfs"), Arm("sjf", "qlm"), Arm("sjf", "oracle")
SQLM = tuple(Arm("sjf", "sqlm", slm) for slm in ("apart", "added", "hidden"))
SQLM_ALL = tuple(Arm("sjf", "sqlm-all", slm) for slm in ("apart", "added", "hidden"))
LONGEST = tuple(
    Arm("longest-first", name, slm)
    for name, slm in (("qlm", None), ("sqlm", "apart"), ("oracle", None))
)
ARMS = {
    "burst": (FCFS, QLM, *SQLM, *SQLM_ALL, ORACLE, *LONGEST),
    "burst-long-at-head": (FCFS, QLM, *SQLM, ORACLE),
    "poisson": (FCFS, QLM, SQLM[0], SQLM[2], SQLM_ALL[0], SQLM_ALL[2], ORACLE),
}


@dataclass(frozen=True)
class Place:
    """Where arms are compared: an engine, a way to arrive, a limit, an OOD ratio."""

    engine: str
    arrivals: str
    sum_limit: int
    scenario: Scenario


@dataclass(frozen=True)
class Known:
    """What is predicted of drawn requests, by predictor, and which of them the SLM is asked for."""

    answers: Mapping[str, LengthDistribution]
    asked: Mapping[str, npt.NDArray[np.bool_]]
    rank: IntArray


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
    return list(_results(draws, strata))


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
    known = _known(fold, drawn)
    for arm in ARMS[place.arrivals]:
        asked = known.asked.get(arm.predictor or "", np.zeros(len(work), bool))
        if arm.slm == "added":
            continue  # the same replay as apart
        trace = replay(chosen, work, _order(arm, drawn, work, known, asked, settings.slm_s))
        found = measure_replay(work, trace)
        found["slm_requests"] = trace.refined if arm.slm == "hidden" else int(asked.sum())
        found["slm_s"] = trace.refining_s if arm.slm == "hidden" else settings.slm_s * asked.sum()
        if arm.predictor is not None:
            answer = known.answers[arm.predictor]
            found["tau"] = metrics.tau(answer.median(), work.output_tokens)
        yield arm, found
        if arm.slm == "apart" and replace(arm, slm="added") in ARMS[place.arrivals]:
            yield replace(arm, slm="added"), _added(found, work, trace.busy_s)


def _added(found: Mapping[str, float], work: Workload, busy_s: float) -> dict[str, float]:
    """The same replay when the engine waits until the small model is through with all."""
    first = found["slm_s"]
    times = {
        name: value + 1e3 * first
        for name, value in found.items()
        if name.endswith(("ttft_ms", "e2el_ms", "longest_tenth"))
    }
    tokens = int(work.prompt_tokens.sum() + work.output_tokens.sum())
    return {
        **found,
        **times,
        "duration": found["duration"] + first,
        "tps": tokens / (busy_s + first),
        "total_token_throughput": tokens / (found["duration"] + first),
    }


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


def _known(fold: Fold, drawn: Drawn) -> Known:
    """The answers for the requests as they are drawn, a row as often as it was."""
    first, second = fold.qlm[drawn.numbers], fold.slm[drawn.numbers]
    unsure = fold.unsure[drawn.numbers]
    place = np.arange(len(unsure)) + len(unsure) * unsure
    oracle = fit_control("oracle", drawn.rows).predict(drawn.rows.requests)
    return Known(
        answers={
            "qlm": first,
            "sqlm": LengthDistribution.concat([first, second])[place],
            "sqlm-all": second,
            "oracle": oracle,
        },
        asked={"sqlm": unsure, "sqlm-all": np.ones(len(unsure), bool)},
        rank=np.argsort(np.argsort(-uncertainty(first), kind="stable")),
    )


def _order(
    arm: Arm,
    drawn: Drawn,
    work: Workload,
    known: Known,
    asked: npt.NDArray[np.bool_],
    slm_s: float,
) -> Order:
    arrival = work.arrival_s + EPOCH_S

    def keys(predictor: str | None) -> IntArray:
        dist = None if predictor is None else known.answers[predictor]
        service = cost(arm.policy, dist, drawn.rows.requests, None, ORDERING)
        return priority(service, arrival, ORDERING)

    if arm.slm != "hidden":
        return Order(keys(arm.predictor))
    return Order(
        keys(arm.predictor), early=keys("qlm"), refinement=Refinement(asked, known.rank, slm_s)
    )


def _results(
    measured: Mapping[tuple[Place, Arm], Sequence[Mapping[str, float]]], strata: int
) -> Iterator[Fig1Result]:
    for (place, arm), draws in measured.items():
        found: dict[str, Estimate] = {
            name: mean_of([one[name] for one in draws], strata) for name in KEPT if name in draws[0]
        }
        for name, other in (("qlm", QLM), ("fcfs", FCFS)):
            pairs = list(zip(draws, measured[place, other], strict=True))
            for metric in COMPARED:
                ratios = [one[metric] / two[metric] for one, two in pairs]
                found[f"{metric}_vs_{name}"] = ratio_of(ratios, strata)
        if "tau" in found:
            pairs = list(zip(draws, measured[place, QLM], strict=True))
            found["tau_minus_qlm"] = mean_of(
                [one["tau"] - two["tau"] for one, two in pairs], strata
            )
        for metric, (value, low, high) in found.items():
            yield Fig1Result(
                place.engine,
                arm.policy,
                arm.predictor,
                place.arrivals,
                place.scenario.load,
                None,
                float(place.scenario.ood_ratio or 0.0),
                place.sum_limit,
                arm.slm,
                metric,
                value,
                low,
                high,
                len(draws),
            )
