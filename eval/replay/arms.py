"""The lines of a comparison of schedules: policies, and the predictors they go by."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from lengthpred.base import FloatArray, IntArray, Predictor
from lengthpred.data.table import Rows
from lengthpred.distribution import LengthDistribution
from lengthpred.errors import SettingsError, did_you_mean
from lengthpred.eval.controls import KNOWING, fit_control
from lengthpred.eval.replay.draws import Drawn
from lengthpred.eval.replay.order import Order
from lengthpred.eval.replay.settings import SimulationSettings
from lengthpred.eval.replay.workload import Workload
from lengthpred.ordering import EPOCH_S, POLICIES, PREDICTING, PREEMPTIVE, cost, priority

__all__ = ["Arm", "Asked", "control_of", "make_arms", "make_order"]

BATCH = 1024


@dataclass(frozen=True)
class Arm:
    """A policy, and the predictor it goes by.

    fcfs with a predictor runs that and ignores it: what predicting costs, apart from the order.
    """

    policy: str
    predictor: str | None = None


def make_arms(
    policies: Sequence[str], predictors: Mapping[str, Predictor | None], costs: Mapping[str, float]
) -> list[Arm]:
    arms = [Arm("fcfs"), *(Arm("fcfs", name) for name in predictors if costs.get(name))]
    for policy in policies:
        if policy not in POLICIES:
            raise SettingsError(f"'{policy}' is no policy. {did_you_mean(policy, POLICIES)}")
        if policy not in PREDICTING:
            arms.append(Arm(policy))
            continue
        arms.append(control_of(policy))
        arms += (Arm(policy, name) for name in (*predictors, "oracle-noise", "oracle"))
    return list(dict.fromkeys(arms))


def control_of(policy: str) -> Arm:
    """What a policy comes to without a predictor: the same by the length of the prompt."""
    return Arm("longest-prompt-first" if policy == "longest-first" else "prompt-sjf")


class Asked:
    """Asks each predictor once for every row, and a control that knows the truth for each draw."""

    def __init__(self, predictors: Mapping[str, Predictor | None], rows: Rows) -> None:
        self._predictors, self._rows = predictors, rows
        self._asked: dict[str, tuple[LengthDistribution, IntArray]] = {}

    def __call__(self, name: str, drawn: Drawn, seed: int) -> LengthDistribution:
        predictor = self._predictors.get(name)
        if predictor is None and name in KNOWING:
            return fit_control(name, drawn.rows, seed=seed).predict(drawn.rows.requests)
        if predictor is None:
            raise SettingsError(f"there is no predictor '{name}'")
        answers, place = self._asked.get(name, (None, np.full(len(self._rows), -1)))
        new = np.unique(drawn.numbers[place[drawn.numbers] < 0])
        if len(new):
            parts = [] if answers is None else [answers]
            place[new] = np.arange(len(new)) + (0 if answers is None else len(answers))
            for start in range(0, len(new), BATCH):
                asked = [self._rows.requests[i] for i in new[start : start + BATCH]]
                parts.append(predictor.predict(asked))
            answers = LengthDistribution.concat(parts)
            self._asked[name] = answers, place
        assert answers is not None  # a draw has rows
        return answers[place[drawn.numbers]]


def make_order(
    arm: Arm,
    drawn: Drawn,
    work: Workload,
    known: Mapping[str, LengthDistribution],
    prior: LengthDistribution,
    seconds: float,
    settings: SimulationSettings,
) -> Order:
    dist = None if arm.predictor is None else known[arm.predictor]
    requests, ordering, arrival = drawn.rows.requests, settings.ordering, work.arrival_s + EPOCH_S
    keys = priority(cost(arm.policy, dist, requests, None, ordering), arrival, ordering)
    hides, ready = settings.prediction == "hide", _done(work.arrival_s, seconds)
    guess = prior[np.zeros(len(work), np.int64)]
    order = Order(keys, preempts=arm.policy in PREEMPTIVE)
    if arm.policy in PREEMPTIVE:

        def with_progress(numbers: IntArray, written: IntArray, now: float) -> IntArray:
            asked = [requests[i] for i in numbers]
            part = None if dist is None else dist[numbers]
            if part is not None and hides:  # what is not told yet must not be used
                told = (ready[numbers] <= now).astype(np.int64)
                both = LengthDistribution.concat([guess[numbers], part])
                part = both[np.arange(len(numbers)) + told * len(numbers)]
            service = cost(arm.policy, part, asked, written, ordering)
            return priority(service, arrival[numbers], ordering)

        order = replace(order, with_progress=with_progress)
    if not seconds:
        return order
    if not hides:
        return replace(order, ready_s=ready)
    early = priority(
        cost(arm.policy, None if dist is None else guess, requests, None, ordering),
        arrival,
        ordering,
    )
    return replace(order, known_s=ready, early=early)


def _done(arrival_s: FloatArray, seconds: float) -> FloatArray:
    """When each prediction is there, (n,): one worker, and what came together is done together."""
    turn = np.arange(len(arrival_s))
    idle = np.maximum.accumulate(arrival_s - turn * seconds)
    last = np.searchsorted(arrival_s, arrival_s, side="right") - 1
    done: FloatArray = (idle + (turn + 1) * seconds)[last]
    return done
