"""Orders compared end to end on one vLLM server, driven by `vllm bench serve`."""

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from lengthpred.base import Predictor
from lengthpred.data.table import Rows
from lengthpred.eval.bench.driver import Driver
from lengthpred.eval.bench.plan import STOCK_ARM, Key, Plan, make_plan
from lengthpred.eval.bench.served import Served, compare_served, measure_served
from lengthpred.eval.bench.server import RunningServer, running_server
from lengthpred.eval.replay.arms import Arm
from lengthpred.eval.replay.scenarios import Scenario
from lengthpred.eval.replay.settings import SimulationSettings
from lengthpred.eval.simulate import Simulation

__all__ = ["Fleet", "bench_server"]

PREEMPTIONS = "vllm:num_preemptions_total"
FCFS = Arm("fcfs")
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Fleet:
    """What is compared, and on which server.

    artifacts   what `lengthpred.load` takes, by the name of a predictor; the server loads them
    predictors  the same in this process, and None for controls that know the truth
    arguments   the model and what else `vllm serve` takes
    options     what else `lengthpred serve` takes
    model       the name that the server gives the model
    tokenizer   where its tokenizer lies
    """

    artifacts: Mapping[str, str]
    predictors: Mapping[str, Predictor | None]
    arguments: Sequence[str]
    options: Sequence[str]
    model: str
    tokenizer: str


def bench_server(
    fleet: Fleet,
    rows: Rows,
    policies: Sequence[str],
    settings: SimulationSettings,
    *,
    seed: int = 0,
    on_progress: Progress | None = None,
    on_draw: Callable[[Simulation], None] | None = None,
) -> Simulation:
    """Serve draws of `rows` under every policy with every predictor, and under the controls.

    The arms are those of `simulate`, and `stock`: vLLM as if lengthpred was not there. A predictor
    with an artifact runs in the server and is timed with it; controls are told what requests cost
    and take no time. All arms of a draw see the same requests, arrivals and true lengths, one after
    the other in an order drawn anew for each draw, so that a machine that drifts favours none.
    Lengths are forced by max_tokens, which is kept from predictors. Loads are shares of the
    requests a second that the server takes in a burst. on_draw: told what is known after each draw,
    which is what is left where a later one fails.

    Raises DataError for no rows or rows of one sort only, BackendError where the server or a
    request fails, SettingsError for an unknown policy.
    """
    ignored = list(fleet.artifacts)
    plan = make_plan(fleet.predictors, rows, policies, settings, ignored=ignored, seed=seed)
    plan = replace(plan, arms=[STOCK_ARM, *plan.arms])
    with tempfile.TemporaryDirectory(prefix="lengthpred-bench-") as name:
        folder = Path(name)
        options = [*fleet.options, "--arms", str(plan.write_arms(folder, fleet.artifacts))]
        artifact = next(iter(fleet.artifacts.values()), "default")
        log = folder / "server.log"
        with (
            running_server(artifact, fleet.arguments, options, log) as server,
            Driver(server.url, fleet.model, fleet.tokenizer, folder) as driver,
        ):
            return _Bench(settings, plan, server, driver, seed, on_progress, on_draw).run()


class _Bench:
    def __init__(
        self,
        settings: SimulationSettings,
        plan: Plan,
        server: RunningServer,
        driver: Driver,
        seed: int,
        on_progress: Progress | None,
        on_draw: Callable[[Simulation], None] | None,
    ) -> None:
        self.settings, self.plan, self.server, self.driver = settings, plan, server, driver
        self._seed, self._report = seed, on_progress or (lambda what, done, total: None)
        self._on_draw = on_draw or (lambda simulation: None)
        self._done = 0
        self.notes: list[str] = []

    def run(self) -> Simulation:
        """Every arm in every scenario of every draw."""
        scenarios = list(self._scenarios(self._capacity()))
        total = self.settings.draws * len(scenarios) * len(self.plan.arms)
        rng = np.random.default_rng([self._seed, 2])
        found: dict[tuple[Scenario, Arm], list[dict[str, float]]] = {
            (at, arm): [] for at in scenarios for arm in self.plan.arms
        }
        for number in range(self.settings.draws):
            for at in scenarios:
                for i in rng.permutation(len(self.plan.arms)):
                    arm = self.plan.arms[i]
                    name = " ".join(filter(None, (arm.policy, arm.predictor)))
                    self._report(f"{at.arrivals}: {name}", self._done, total)
                    found[at, arm].append(self._measure(at, arm, (at.ood_ratio, number)))
                    self._done += 1
            self._on_draw(compare_served(self.settings, found, self.notes))
        self._report("done", total, total)
        return compare_served(self.settings, found, self.notes)

    def _measure(self, at: Scenario, arm: Arm, key: Key) -> dict[str, float]:
        measured = measure_served(self._serve(at, arm, key))
        if arm.predictor is not None:
            measured["tau"] = self.plan.taus[arm.predictor, key]
        return measured

    def _serve(self, at: Scenario, arm: Arm, key: Key) -> Served:
        preempted = self.server.metric(PREEMPTIONS)
        served = self.driver.run(
            self.plan.drawn[key],
            self.plan.label(arm),
            self.plan.name_of(key),
            rate=at.rate,
            burstiness=self.settings.burstiness if at.arrivals == "bursty" else 1.0,
            seed=self._seed + key[1],
        )
        return replace(served, preemptions=int(self.server.metric(PREEMPTIONS) - preempted))

    def _capacity(self) -> Mapping[float | None, float]:
        """Requests a second that are served while there are always more, by OOD ratio.

        Warms the engine up, too: a burst that is not counted.
        """
        found = {}
        for ratio in self.settings.ood_ratios:
            self._report("warming up", 0, 0)
            served = self._serve(Scenario("burst", None, None, ratio), FCFS, (ratio, 0))
            speed = measure_served(served)["total_token_throughput_before_drain"]
            work = served.work
            tokens = float((work.prompt_tokens + work.output_tokens).mean())
            found[ratio] = speed / tokens
            share = "" if ratio is None else f" at {ratio:.0%} out of distribution"
            self.notes.append(f"The server takes {found[ratio]:.2f} requests a second{share}.")
        return found

    def _scenarios(self, capacity: Mapping[float | None, float]) -> Iterator[Scenario]:
        for ratio in self.settings.ood_ratios:
            for kind in self.settings.arrivals:
                if kind == "burst":
                    yield Scenario(kind, None, None, ratio)
                elif self.settings.rates:
                    yield from (Scenario(kind, None, x, ratio) for x in sorted(self.settings.rates))
                else:
                    for load in sorted(self.settings.loads):
                        yield Scenario(kind, load, load * capacity[ratio], ratio)
