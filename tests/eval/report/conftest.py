"""A comparison and a simulation of few rows, made once."""

import dataclasses

import numpy as np
import pytest

from lengthpred.base import FloatArray, Request
from lengthpred.data.table import Rows
from lengthpred.eval.compare import Comparison, compare
from lengthpred.eval.output import Result
from lengthpred.eval.replay.settings import SimulationSettings
from lengthpred.eval.replay.workload import Engine
from lengthpred.eval.simulate import Simulation, simulate
from lengthpred.models.controls import fit_prompt_length
from tests.eval.cases import make_rows

PROMPT = "SECRET <script>alert('&')</script> %{x} "


class Stranger:
    """A detector that finds long prompts strange."""

    def p_value(self, requests: list[Request]) -> FloatArray:
        return np.array([1 / (1 + len(request.prompt)) for request in requests])


@pytest.fixture(scope="session")
def told_rows() -> Rows:
    """Rows of two domains and several samples, whose prompts would break a careless page."""
    rows = make_rows(240, samples=3)
    requests = [dataclasses.replace(r, prompt=PROMPT + r.prompt) for r in rows.requests]
    domain = np.where(np.arange(240) % 3 == 0, "<b>code</b> & more", "text").astype(object)
    return dataclasses.replace(rows, requests=requests, columns={**rows.columns, "domain": domain})


@pytest.fixture(scope="session")
def comparison(told_rows: Rows) -> Comparison:
    predictors = {
        "good": fit_prompt_length(told_rows),
        "constructor": fit_prompt_length(told_rows.take(np.arange(20))),
        "stranger": Stranger(),
    }
    made = compare(predictors, told_rows, resamples=20, ratios=(0.0, 0.5, 1.0), cost=False)  # type: ignore[arg-type]
    costs = [
        Result(name, "all", None, metric, us, None, None, 500)
        for name, us in {"good": 300.0, "constructor": 20.0, "constant": 10.0}.items()
        for metric in ("us_per_request_p50", "us_per_request_p99", "us_per_request_batch64")
    ]
    return dataclasses.replace(made, results=[*made.results, *costs])


@pytest.fixture(scope="session")
def simulation(told_rows: Rows) -> Simulation:
    settings = SimulationSettings(
        requests=150, draws=2, hardware=Engine(slots=8, token_budget=512), loads=(0.5, 1.3)
    )
    return simulate({"good": fit_prompt_length(told_rows)}, told_rows, ["sjf"], settings)
