"""Results by what they are about."""

from collections.abc import Iterable, Mapping, Sequence

from lengthpred import metrics
from lengthpred.eval.ceiling import CEILINGS
from lengthpred.eval.controls import CONTROLS
from lengthpred.eval.output import Result
from lengthpred.eval.replay.arms import Arm
from lengthpred.eval.replay.scenarios import Scenario
from lengthpred.eval.replay.settings import REAL_ENGINES
from lengthpred.eval.simulate import ReplayResult, Simulation
from lengthpred.eval.slices import is_slice

__all__ = ["SIMPLE", "SPLIT_NAMES", "Replays", "Scenario", "Scores", "is_predictor"]

SIMPLE = ("constant", "prompt-length")
"""The controls that a predictor has to beat."""
SPLIT_NAMES = {"in": "in distribution", "ood": "out of distribution", "all": "all rows"}
Value = Result | ReplayResult


def is_predictor(name: str) -> bool:
    """Whether a name is neither a control's nor a ceiling's."""
    return name not in CONTROLS and name not in CEILINGS


class Scores:
    """The results of a comparison.

    names       who has a tau, in order, the ceilings left out
    predictors  those of them that are no controls
    splits      of "in", "ood" and "all", those that have scores of predictors
    ratios      OOD ratios of the mixes, rising
    slices      names of the slices
    detectors   who has an AUROC or a false alarm rate
    """

    def __init__(self, results: Iterable[Result]) -> None:
        self._found = {(r.predictor, r.metric, r.split, r.ood_ratio): r for r in results}
        taus = [r for r in self._found.values() if r.metric == "tau"]
        self.names = list(dict.fromkeys(r.predictor for r in taus if r.predictor not in CEILINGS))
        self.predictors = [name for name in self.names if is_predictor(name)]
        present = {r.split for r in taus}
        self.splits = [split for split in SPLIT_NAMES if split in present]
        self.ratios = sorted({r.ood_ratio for r in taus if r.ood_ratio is not None})
        self.slices = list(dict.fromkeys(r.split for r in taus if is_slice(r.split)))
        self.detectors = list(
            dict.fromkeys(
                r.predictor for r in self._found.values() if r.metric in metrics.DETECTOR_METRICS
            )
        )

    def get(
        self, name: str, metric: str, split: str = "all", ratio: float | None = None
    ) -> Result | None:
        return self._found.get((name, metric, split, ratio))

    def best(self, metric: str, split: str, among: Sequence[str]) -> Result | None:
        """The best score of those named; the first of equals."""
        found = [r for name in among if (r := self.get(name, metric, split))]
        sign = 1 if metric in metrics.HIGHER_IS_BETTER else -1
        return max(found, key=lambda r: sign * r.value, default=None)


class Replays:
    """The results of a simulation, by scenario and arm."""

    def __init__(self, simulation: Simulation) -> None:
        self.engine = simulation.settings.engine
        self.what = "Run" if self.engine in REAL_ENGINES else "Replay"
        self.requests = simulation.settings.requests
        self._found: dict[tuple[Scenario, Arm, str], ReplayResult] = {}
        for r in simulation.results:
            at = Scenario(r.arrivals, r.load, r.rate, r.ood_ratio)
            self._found[at, Arm(r.policy, r.predictor), r.metric] = r
        self.scenarios = list(dict.fromkeys(at for at, _, _ in self._found))
        self.arms = list(dict.fromkeys(arm for _, arm, _ in self._found))

    def get(self, at: Scenario, arm: Arm, metric: str) -> ReplayResult | None:
        return self._found.get((at, arm, metric))

    def value(self, at: Scenario, arm: Arm, metric: str) -> float:
        """The measure, which must be there."""
        return self._found[at, arm, metric].value

    def policies(self) -> Mapping[str, list[Arm]]:
        """The policies that predict, each with the arms of its predictors, controls left out."""
        found: dict[str, list[Arm]] = {}
        for arm in self.arms:
            if arm.predictor is not None and arm.policy != "fcfs" and is_predictor(arm.predictor):
                found.setdefault(arm.policy, []).append(arm)
        return found
