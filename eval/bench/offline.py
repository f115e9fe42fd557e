"""Fixed batches on a real engine: vLLM's `LLM.generate`, in a process that is kept for all."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from lengthpred.base import IntArray, Predictor
from lengthpred.data.table import Rows
from lengthpred.errors import BackendError
from lengthpred.eval.bench.plan import Key, Plan, make_plan
from lengthpred.eval.bench.served import BENCH_COMPARED, Served, measure_served
from lengthpred.eval.bench.server import tail
from lengthpred.eval.replay.arms import Arm
from lengthpred.eval.replay.scenarios import Scenario
from lengthpred.eval.replay.settings import SimulationSettings
from lengthpred.eval.replay.workload import Workload
from lengthpred.eval.simulate import Simulation, compare_arms
from lengthpred.ordering import EPOCH_S, priority
from lengthpred.serving.vllm.launch import scheduler_class

__all__ = ["LateKeys", "OfflineEngine", "bench_offline"]

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class LateKeys:
    """Keys that are told while a batch runs, one every so many seconds: of which request, which."""

    requests: Sequence[int]
    keys: Sequence[int]
    seconds: float


class OfflineEngine:
    """An `LLM` in a process of its own, while it is entered.

    arguments  the model and what else `vllm serve` takes
    log        file for what it says
    hears      with our scheduler, which hears of late keys

    Raises BackendError, with the end of the log, where it does not start or dies.
    """

    def __init__(self, arguments: Sequence[str], log: Path, *, hears: bool = False) -> None:
        self._arguments, self._log, self._hears = list(arguments), log, hears

    def __enter__(self) -> Self:
        # In one process the whole batch is there before the first step.
        environment = {**os.environ, "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
        if self._hears:
            environment["LENGTHPRED_SOCKETS"] = str(self._log.parent)
            self._arguments += ["--scheduler-cls", scheduler_class(self._arguments)]
        ours, theirs = os.pipe()
        command = [sys.executable, "-P", "-m", "lengthpred.eval.bench.engine_child", str(theirs)]
        with self._log.open("wb") as out:
            self._process = subprocess.Popen(
                [*command, *self._arguments],
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=out,
                pass_fds=[theirs],
                env=environment,
                text=True,
            )
        os.close(theirs)
        self._answers = os.fdopen(ours, encoding="utf-8")
        self._hear()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.wait()
        self._answers.close()

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
        assert self._process.stdin is not None
        job = {
            "prompts": list(prompts),
            "lengths": lengths.tolist(),
            "keys": list(keys),
            "late": None if late is None else asdict(late),
        }
        try:
            self._process.stdin.write(json.dumps(job) + "\n")
            self._process.stdin.flush()
        except OSError:
            pass  # it is gone, and its log says why
        told = self._hear()
        first, last = (np.array(told[name], np.float64) for name in ("first_token_s", "finish_s"))
        work = Workload(np.zeros(len(first)), np.array(told["prompt_tokens"]), lengths)
        return Served(work, first, last, told["preemptions"])

    def _hear(self) -> dict[str, Any]:
        line = self._answers.readline()
        if not line:
            raise BackendError(f"the engine ended{tail(self._log)}")
        told: dict[str, Any] = json.loads(line)
        return told


def bench_offline(
    predictors: Mapping[str, Predictor | None],
    rows: Rows,
    policies: Sequence[str],
    settings: SimulationSettings,
    arguments: Sequence[str],
    *,
    seed: int = 0,
    on_progress: Progress | None = None,
) -> Simulation:
    """Run fixed batches drawn from `rows` in the order of each policy and predictor.

    The arms are those of `simulate`, each with the same batches, in an order drawn anew for each
    draw. Keys are there before the batch begins: the time of predictions is not in it. Raises
    DataError for no rows, BackendError where the engine fails, SettingsError for an unknown policy.
    """
    plan = make_plan(predictors, rows, policies, settings, seed=seed)
    report = on_progress or (lambda what, done, total: None)
    rng, done = np.random.default_rng([seed, 2]), 0
    total = settings.draws * len(settings.ood_ratios) * len(plan.arms)
    measured: dict[tuple[Scenario, Arm], list[dict[str, float]]] = {
        (Scenario("burst", None, None, ratio), arm): []
        for ratio in settings.ood_ratios
        for arm in plan.arms
    }
    with (
        tempfile.TemporaryDirectory(prefix="lengthpred-bench-") as folder,
        OfflineEngine(arguments, Path(folder, "engine.log")) as engine,
    ):
        for ratio, number in sorted(plan.drawn, key=lambda key: key[1]):
            key = ratio, number
            for i in rng.permutation(len(plan.arms)):
                arm = plan.arms[i]
                report(f"{arm.policy} {arm.predictor or ''}".strip(), done, total)
                found = measure_served(_run(engine, plan, arm, key, settings))
                if arm.predictor is not None:
                    found["tau"] = plan.taus[arm.predictor, key]
                measured[Scenario("burst", None, None, ratio), arm].append(found)
                done += 1
    report("done", total, total)
    results = list(compare_arms(settings.engine, measured, BENCH_COMPARED))
    return Simulation(settings, results, [], {})


def _run(
    engine: OfflineEngine, plan: Plan, arm: Arm, key: Key, settings: SimulationSettings
) -> Served:
    drawn, costs = plan.drawn[key], plan.costs[arm, key]
    keys = priority(costs, np.full(len(costs), EPOCH_S), settings.ordering).tolist()
    prompts = [request.prompt for request in drawn.rows.requests]
    return engine.run(prompts, drawn.output_tokens, keys)
