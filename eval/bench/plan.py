"""What is compared on a real engine: requests, orders, and what each order says of a request."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lengthpred.base import Predictor
from lengthpred.data.table import Rows
from lengthpred.errors import DataError
from lengthpred.eval.replay.arms import Arm, Asked, make_arms
from lengthpred.eval.replay.draws import Drawn, draw
from lengthpred.eval.replay.settings import SimulationSettings
from lengthpred.metrics import tau
from lengthpred.ordering import cost
from lengthpred.serving.arms import STOCK

__all__ = ["STOCK_ARM", "Key", "Plan", "make_plan"]

STOCK_ARM = Arm(STOCK)  # vLLM as if lengthpred was not there
Key = tuple[float | None, int]


@dataclass(frozen=True)
class Plan:
    """Arms, the requests of each draw by OOD ratio and number, and what is known of them.

    costs  float64 lists of each arm and draw, in tokens: what `lengthpred.ordering.cost` says
    taus   Kendall's tau of each predictor and draw, by the forced lengths
    """

    arms: Sequence[Arm]
    drawn: Mapping[Key, Drawn]
    costs: Mapping[tuple[Arm, Key], list[float]]
    taus: Mapping[tuple[str, Key], float]

    @staticmethod
    def name_of(key: Key) -> str:
        """The name of a draw in the ids of its calls."""
        ratio, number = key
        return f"draw-{number}" if ratio is None else f"draw-{number}-ood-{ratio:g}"

    def label(self, arm: Arm) -> str:
        """The name of an arm in the header of a call."""
        return STOCK if arm == STOCK_ARM else f"arm-{self.arms.index(arm)}"

    def write_arms(self, folder: Path, artifacts: Mapping[str, str]) -> Path:
        """The file of arms for `lengthpred serve`: who has an artifact predicts in the server."""
        path = folder / "arms.toml"
        path.write_text("\n".join(self._tables(folder, artifacts)), "utf-8")
        return path

    def _tables(self, folder: Path, artifacts: Mapping[str, str]) -> Iterator[str]:
        for arm in self.arms:
            if arm == STOCK_ARM:
                continue
            yield f"[{self.label(arm)}]"
            if artifact := artifacts.get(arm.predictor or ""):
                yield f"artifact = {json.dumps(artifact)}"
                yield f'policy = "{arm.policy}"'
                continue
            told = {self.name_of(key): self.costs[arm, key] for key in self.drawn}
            costs = folder / f"{self.label(arm)}.json"
            costs.write_text(json.dumps(told), "utf-8")
            yield f"costs = {json.dumps(str(costs))}"


def make_plan(
    predictors: Mapping[str, Predictor | None],
    rows: Rows,
    policies: Sequence[str],
    settings: SimulationSettings,
    *,
    ignored: Sequence[str] = (),
    seed: int = 0,
) -> Plan:
    """Draw requests, and ask every predictor for them: None stands for a control by its name.

    The arms are those of `simulate`; ignored: predictors that also run under fcfs, ignored. Raises
    DataError for no rows, or rows of one sort only, SettingsError for an unknown policy.
    """
    if not len(rows):
        raise DataError("there are no rows to send")
    arms = make_arms(policies, predictors, dict.fromkeys(ignored, 1.0))
    drawn = {
        (ratio, number): draw(
            rows, settings.requests, np.random.default_rng([seed, 1, number]), ood_ratio=ratio
        )
        for ratio in settings.ood_ratios
        for number in range(settings.draws)
    }
    ask = Asked(predictors, rows)
    names = dict.fromkeys(arm.predictor for arm in arms if arm.predictor is not None)
    costs: dict[tuple[Arm, Key], list[float]] = {}
    taus: dict[tuple[str, Key], float] = {}
    for key, one in drawn.items():
        known = {name: ask(name, one, seed + key[1]) for name in names}
        for name, dist in known.items():
            taus[name, key] = tau(dist.median(), one.output_tokens)
        for arm in arms:
            dist_of = None if arm.predictor is None else known[arm.predictor]
            found = cost(arm.policy, dist_of, one.rows.requests, None, settings.ordering)
            costs[arm, key] = found.tolist()
    return Plan(arms, drawn, costs, taus)
