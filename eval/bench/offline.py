"""Fixed batches on a real engine: vLLM's `LLM.generate`, in a process that is kept for all."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from lengthpred.base import IntArray, Predictor
from lengthpred.data.table import Rows
from lengthpred.eval.bench.child import Child
from lengthpred.eval.bench.plan import Key, Plan, make_plan
from lengthpred.eval.bench.served import Served, compare_served, measure_served
from lengthpred.eval.replay.arms import Arm
from lengthpred.eval.replay.scenarios import Scenario
from lengthpred.eval.replay.settings import SimulationSettings
from lengthpred.eval.replay.workload import Workload
from lengthpred.eval.simulate import Simulation
from lengthpred.ordering import EPOCH_S, priority
from lengthpred.serving.vllm.launch import scheduler_class

__all__ = ["LateKeys", "OfflineEngine", "bench_offline"]

CHILD = "lengthpred.eval.bench.engine_child"
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class LateKeys:
    """Keys that are told while a batch runs, one every so many seconds: of which request, which."""

    requests: Sequence[int]
    keys: Sequence[int]
    seconds: float


class OfflineEngine(Child):
    """An `LLM` in a process of its own, while it is entered.

    arguments  the model and what else `vllm serve` takes
    log        file for what it says
    hears      with our scheduler, which hears of late keys

    Raises BackendError, with the end of the log, where it does not start or dies.
    """

    def __init__(self, arguments: Sequence[str], log: Path, *, hears: bool = False) -> None:
        # In one process the whole batch is there before the first step.
        variables = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
        arguments = list(arguments)
        if hears:
            variables["LENGTHPRED_SOCKETS"] = str(log.parent)
            arguments += ["--scheduler-cls", scheduler_class(arguments)]
        super().__init__(CHILD, "the engine", arguments, log, variables)

    def run(
        self,
        prompts: Sequence[str],
        lengths: IntArray,
        keys: Sequence[int],
        late: LateKeys | None = None,
    ) -> Served:
        """Write answers (n,) of these lengths, the smallest key first; all are there at once.

        Keys, also late ones, are those of `lengthpred.ordering.priority` for an arrival at EPOCH_S.
        """
        job = {
            "prompts": list(prompts),
            "lengths": lengths.tolist(),
            "keys": list(keys),
            "late": None if late is None else asdict(late),
        }
        told = self.ask(job)
        first, last = (np.array(told[name], np.float64) for name in ("first_token_s", "finish_s"))
        work = Workload(np.zeros(len(first)), np.array(told["prompt_tokens"]), lengths)
        return Served(work, first, last, told["preemptions"])


def bench_offline(
    predictors: Mapping[str, Predictor | None],
    rows: Rows,
    policies: Sequence[str],
    settings: SimulationSettings,
    arguments: Sequence[str],
    *,
    seed: int = 0,
    on_progress: Progress | None = None,
    on_draw: Callable[[Simulation], None] | None = None,
) -> Simulation:
    """Run fixed batches drawn from `rows` in the order of each policy and predictor.

    The arms are those of `simulate`, each with the same batches, in an order drawn anew for each
    draw; a first batch, which is not counted, warms the engine up. Keys are there before the batch
    begins: the time of predictions is not in it. on_draw: told what is known after each draw, which
    is what is left where a later one fails. Raises DataError for no rows, BackendError where the
    engine fails, SettingsError for an unknown policy.
    """
    plan = make_plan(predictors, rows, policies, settings, seed=seed)
    report = on_progress or (lambda what, done, total: None)
    rng, done = np.random.default_rng([seed, 2]), 0
    total = settings.draws * len(settings.ood_ratios) * len(plan.arms)
    scenarios = [Scenario("burst", None, None, ratio) for ratio in settings.ood_ratios]
    measured: dict[tuple[Scenario, Arm], list[dict[str, float]]] = {
        (at, arm): [] for at in scenarios for arm in plan.arms
    }
    with (
        tempfile.TemporaryDirectory(prefix="lengthpred-bench-") as folder,
        OfflineEngine(arguments, Path(folder, "engine.log")) as engine,
    ):
        report("warming up", 0, 0)
        _run(engine, plan, plan.arms[0], next(iter(plan.drawn)), settings)
        for number in range(settings.draws):
            for at in scenarios:
                for i in rng.permutation(len(plan.arms)):
                    arm, key = plan.arms[i], (at.ood_ratio, number)
                    report(f"{arm.policy} {arm.predictor or ''}".strip(), done, total)
                    found = measure_served(_run(engine, plan, arm, key, settings))
                    if arm.predictor is not None:
                        found["tau"] = plan.taus[arm.predictor, key]
                    measured[at, arm].append(found)
                    done += 1
            if on_draw is not None:
                on_draw(compare_served(settings, measured))
    report("done", total, total)
    return compare_served(settings, measured)


def _run(
    engine: OfflineEngine, plan: Plan, arm: Arm, key: Key, settings: SimulationSettings
) -> Served:
    drawn, costs = plan.drawn[key], plan.costs[arm, key]
    keys = priority(costs, np.full(len(costs), EPOCH_S), settings.ordering).tolist()
    prompts = [request.prompt for request in drawn.rows.requests]
    return engine.run(prompts, drawn.output_tokens, keys)
