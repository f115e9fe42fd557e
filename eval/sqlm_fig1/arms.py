"""The experiment's arms: policies, what they go by, and how the small model's time is counted."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lengthpred.base import IntArray
from lengthpred.distribution import LengthDistribution
from lengthpred.eval.controls import fit_control
from lengthpred.eval.replay.draws import Drawn
from lengthpred.eval.replay.estimates import Estimate, mean_of, ratio_of
from lengthpred.eval.replay.order import Order, Refinement
from lengthpred.eval.replay.scenarios import Scenario
from lengthpred.eval.replay.workload import Workload
from lengthpred.eval.sqlm_fig1.setting import Fig1Result, Fold
from lengthpred.ordering import EPOCH_S, OrderingSettings, cost, priority
from lengthpred.serving.uncertain import uncertainty

__all__ = ["ARMS", "Arm", "Known", "Place", "added", "known_of", "order_of", "results_of"]

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


def added(found: Mapping[str, float], work: Workload, busy_s: float) -> dict[str, float]:
    """The same run when the engine waits until the small model is through with all."""
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


def known_of(fold: Fold, drawn: Drawn) -> Known:
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


def order_of(
    arm: Arm,
    drawn: Drawn,
    work: Workload,
    known: Known,
    asked: npt.NDArray[np.bool_],
    slm_s: float,
) -> Order:
    """The keys of drawn requests, and when those of a hidden small model are known."""
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


def results_of(
    measured: Mapping[tuple[Place, Arm], Sequence[Mapping[str, float]]], strata: int
) -> Iterator[Fig1Result]:
    """Means over draws, and ratios to QLM and fcfs draw by draw; see `Fig1Result`."""
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
