"""The published experiment on S-QLM on a real engine: fixed batches through vLLM's `LLM`."""

import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from lengthpred import metrics
from lengthpred.base import IntArray
from lengthpred.eval.bench.offline import LateKeys, OfflineEngine
from lengthpred.eval.bench.served import Served, measure_served
from lengthpred.eval.replay.continuous import replay_continuous
from lengthpred.eval.replay.draws import Drawn, draw
from lengthpred.eval.replay.order import Order
from lengthpred.eval.replay.scenarios import Scenario
from lengthpred.eval.replay.settings import OFFLINE
from lengthpred.eval.replay.workload import Workload
from lengthpred.eval.sqlm_fig1.arms import (
    ARMS,
    FCFS,
    Arm,
    Known,
    Place,
    added,
    known_of,
    order_of,
    results_of,
)
from lengthpred.eval.sqlm_fig1.setting import Fig1Result, Fig1Settings, Fold

__all__ = ["run_on_engine"]

Progress = Callable[[str, int, int], None]
Measured = dict[tuple[Place, Arm], list[dict[str, float]]]


def run_on_engine(
    folds: Iterable[Fold],
    settings: Fig1Settings,
    arguments: list[str],
    *,
    scale: float = 1.0,
    strata: int = 1,
    seed: int = 0,
    on_progress: Progress | None = None,
    on_draw: Callable[[list[Fig1Result]], None] | None = None,
) -> list[Fig1Result]:
    """Run every arm of the experiment, all requests at once, once with each fold.

    Answers are forced to `scale` times the recorded lengths. The small model's time is scaled to
    the machine: it takes the part of a run that it takes of the replay, where both have the
    published size. Hidden, its answers reach the scheduler (ours, in all arms) while the batch
    runs. Only the first sum limit is run. on_draw: told what is known whenever each of the `strata`
    was drawn as often, which is what stays when something ends it early. Raises BackendError where
    the engine fails.
    """
    report = on_progress or (lambda what, done, total: None)
    arms = [arm for arm in ARMS["burst"] if arm.slm != "added"]
    total, done = settings.draws * len(settings.ratios) * len(arms), 0
    measured: Measured = {}
    with (
        tempfile.TemporaryDirectory(prefix="lengthpred-bench-") as folder,
        OfflineEngine(arguments, Path(folder, "engine.log"), hears=True) as engine,
    ):
        for number, fold in enumerate(folds):
            for ratio in settings.ratios:
                rng = np.random.default_rng([seed, 1, number])
                limit = settings.sum_limits[0]
                drawn = draw(fold.rows, settings.requests, rng, sum_limit=limit, ood_ratio=ratio)
                batch = _Batch(engine, drawn, known_of(fold, drawn), settings, scale)
                if not done:
                    report("warming up", 0, 0)
                    batch.run(FCFS)  # not counted
                place = Place(OFFLINE, "burst", limit, Scenario("burst", None, None, ratio))
                # fcfs first, since it tells how much slower the machine is.
                for i in (0, *(1 + rng.permutation(len(arms) - 1))):
                    report(f"{arms[i].policy} {arms[i].predictor or ''}".strip(), done, total)
                    for arm, found in batch.run(arms[i]):
                        measured.setdefault((place, arm), []).append(found)
                    done += 1
            if on_draw is not None and (number + 1) % strata == 0:
                on_draw(list(results_of(measured, strata)))
    report("done", total, total)
    return list(results_of(measured, strata))


@dataclass
class _Batch:
    """Drawn requests on the engine. seconds: of the small model for one of them, scaled to it."""

    engine: OfflineEngine
    drawn: Drawn
    known: Known
    settings: Fig1Settings
    scale: float
    seconds: float = 0.0

    def run(self, arm: Arm) -> list[tuple[Arm, dict[str, float]]]:
        """What is measured of an arm; for one whose small model is apart, also of it added."""
        asked = self.known.asked.get(arm.predictor or "", np.zeros(len(self.lengths), bool))
        work = Workload(np.zeros(len(self.lengths)), self.drawn.prompt_tokens, self.lengths)
        order = order_of(arm, self.drawn, work, self.known, asked, self.seconds)
        served = self._serve(order)
        if arm == FCFS:
            self.seconds = self.settings.slm_s * self._slower(served)
        found = measure_served(served)
        if arm.predictor is not None:
            found["tau"] = metrics.tau(self.known.answers[arm.predictor].median(), self.lengths)
        count, hidden = int(asked.sum()), arm.slm == "hidden"
        if hidden and self.seconds:
            count = min(count, int(found["duration"] / self.seconds))
        found["slm_requests"], found["slm_s"] = count, self.seconds * count
        later = replace(arm, slm="added")
        if arm.slm != "apart" or later not in ARMS["burst"]:
            return [(arm, found)]
        return [(arm, found), (later, added(found, served.work, found["duration"]))]

    @property
    def lengths(self) -> IntArray:
        """Of the answers on this machine, (n,)."""
        scaled = np.rint(self.scale * self.drawn.output_tokens)
        return np.asarray(np.maximum(scaled, 1), np.int64)

    def _serve(self, order: Order) -> Served:
        prompts = [request.prompt for request in self.drawn.rows.requests]
        if order.refinement is None or order.early is None:
            return self.engine.run(prompts, self.lengths, order.keys.tolist())
        turn = np.argsort(order.refinement.rank, kind="stable")
        turn = turn[order.refinement.asked[turn]]
        late = LateKeys(turn.tolist(), order.keys[turn].tolist(), order.refinement.seconds)
        return self.engine.run(prompts, self.lengths, order.early.tolist(), late)

    def _slower(self, served: Served) -> float:
        """How much longer the machine takes for these requests than the replayed one for theirs."""
        work = Workload(
            np.zeros(len(self.lengths)), self.drawn.prompt_tokens, self.drawn.output_tokens
        )
        order = Order(np.arange(len(work)))
        replayed = replay_continuous(work, order, self.settings.hardware)
        return float(served.finish_s.max() / replayed.finish_s.max())
