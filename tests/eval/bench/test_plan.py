"""What is compared on a real engine, and what a server is told of it."""

import asyncio
from pathlib import Path

import numpy as np
import pytest

from lengthpred.base import Request
from lengthpred.data.table import Rows
from lengthpred.errors import DataError
from lengthpred.eval.bench.plan import STOCK_ARM, Plan, make_plan
from lengthpred.eval.replay.arms import Arm
from lengthpred.eval.replay.settings import SimulationSettings
from lengthpred.models.controls import fit_prompt_length
from lengthpred.ordering import EPOCH_S, cost, priority
from lengthpred.serving.arms import ToldOrderer, read_arms
from tests.eval.cases import make_rows

SETTINGS = SimulationSettings(
    requests=20, draws=2, engine="vllm-server", arrivals=("burst",), ood_ratios=(0.0, 0.5)
)


@pytest.fixture(scope="module")
def rows() -> Rows:
    return make_rows(200)


@pytest.fixture(scope="module")
def plan(rows: Rows) -> Plan:
    predictors = {"lengths": fit_prompt_length(rows), "oracle-noise": None}
    return make_plan(predictors, rows, ["sjf"], SETTINGS, ignored=["lengths"])


def test_all_controls_are_there(plan: Plan) -> None:
    assert plan.arms == [
        Arm("fcfs"),
        Arm("fcfs", "lengths"),
        Arm("prompt-sjf"),
        Arm("sjf", "lengths"),
        Arm("sjf", "oracle-noise"),
        Arm("sjf", "oracle"),
    ]
    assert list(plan.drawn) == [(0.0, 0), (0.0, 1), (0.5, 0), (0.5, 1)]
    shares = [one.rows.columns["ood"].mean() for one in plan.drawn.values()]
    assert shares == [0, 0, 0.5, 0.5]
    for key in plan.drawn:
        assert plan.taus["oracle", key] == 1 > plan.taus["oracle-noise", key] > 0.3


def test_costs_are_those_of_the_order(rows: Rows, plan: Plan) -> None:
    for key, one in plan.drawn.items():
        dist = fit_prompt_length(rows).predict(one.rows.requests)
        expected = cost("sjf", dist, one.rows.requests)
        np.testing.assert_array_equal(plan.costs[Arm("sjf", "lengths"), key], expected)
        assert plan.costs[Arm("sjf", "oracle"), key] == one.output_tokens.tolist()
        assert not any(plan.costs[Arm("fcfs"), key])


def test_a_server_is_told_the_same(plan: Plan, tmp_path: Path) -> None:
    arms = read_arms(plan.write_arms(tmp_path, {"lengths": "/some/folder"}))
    labels = {arm: plan.label(arm) for arm in plan.arms}
    assert set(arms) == set(labels.values()) and plan.label(STOCK_ARM) == "stock"
    for arm, label in labels.items():
        runs = arms[label]
        if arm.predictor == "lengths":
            assert (runs.artifact, runs.policy, runs.blind) == ("/some/folder", arm.policy, True)
            assert runs.costs is None
            continue
        assert runs.costs is not None
        told = ToldOrderer(runs.costs, SETTINGS.ordering)
        for key, one in plan.drawn.items():
            keys = [
                asyncio.run(told.place([_named(plan, key, i)], EPOCH_S)).priority
                for i in range(len(one.numbers))
            ]
            arrived = np.full(len(keys), EPOCH_S)
            assert keys == priority(plan.costs[arm, key], arrived, SETTINGS.ordering).tolist()


def _named(plan: Plan, key: tuple[float | None, int], number: int) -> Request:
    return Request(id=f"{plan.name_of(key)}-{number}")


def test_without_rows_there_is_nothing_to_send(rows: Rows) -> None:
    with pytest.raises(DataError, match="no rows"):
        make_plan({}, rows.take(np.zeros(0, np.int64)), ["sjf"], SETTINGS)
