"""Did anything get worse than in an earlier evaluation of the same rows?"""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from lengthpred.errors import DataError
from lengthpred.eval.ceiling import CEILINGS
from lengthpred.eval.controls import CONTROLS
from lengthpred.eval.mixes import Mix
from lengthpred.eval.output import Document, Result, read_results
from lengthpred.metrics import DETECTOR_METRICS, HIGHER_IS_BETTER, METRICS

__all__ = ["Baseline", "Regression", "read_baseline"]

COMPARED = (*METRICS, *DETECTOR_METRICS)
COVERAGE = 0.8
NOISE = 1e-9  # what an interval of no width has to allow for: sums in another order
DETECTOR = "/detector"  # ends the name of a cascade's own detector


@dataclass(frozen=True)
class Regression:
    """A score that lies beyond the worse end of the interval that it had."""

    old: Result
    new: Result


@dataclass(frozen=True)
class Baseline:
    """An earlier evaluation, and which of its predictors each new one stands against.

    pairs  new label -> old label
    """

    path: str
    document: Document
    pairs: Mapping[str, str]

    def check_rows(self, mixes: Iterable[Mix]) -> None:
        """Raise DataError unless `mixes` hold as many rows as they did: call it before long work.

        One split at least must be in both.
        """
        sizes = {(mix.split, mix.ood_ratio): len(mix.picked) for mix in mixes}
        earlier = [
            row
            for row in self.document.rows
            if _family(row.predictor, self.pairs.values())
            and row.metric in COMPARED
            and (row.split, row.ood_ratio) in sizes
        ]
        for row in earlier:
            self._check_size(row, sizes[row.split, row.ood_ratio])
        if not earlier:
            raise DataError(
                f"{self.path} has none of this evaluation's splits: use the --ood-ratio and "
                "--turns of that one"
            )

    def regressions(
        self, results: Iterable[Result], levels: Mapping[str, float] | None = None
    ) -> list[Regression]:
        """What is worse than it was by more than its interval, in the order of `results`.

        `levels` are those at which detectors flag, by new label; else 0. Raises DataError where a
        score is of another number of rows than it was.
        """
        earlier = {(r.predictor, r.split, r.ood_ratio, r.metric): r for r in self.document.rows}
        found = []
        for new in results:
            label = _family(new.predictor, self.pairs)
            if label is None or new.metric not in COMPARED:
                continue
            before = self.pairs[label] + new.predictor.removeprefix(label)
            old = earlier.get((before, new.split, new.ood_ratio, new.metric))
            if old is not None:
                self._check_size(old, new.n)
                if _is_worse(new, old, (levels or {}).get(new.predictor, 0.0)):
                    found.append(Regression(old, new))
        return found

    def _check_size(self, old: Result, rows: int) -> None:
        if old.n != rows:
            raise DataError(
                f"{self.path} scored {old.n:,} rows of the split '{old.split}' and this evaluation "
                f"has {rows:,}: use the --turns, --max-rows and --ood-ratio of that one"
            )


def read_baseline(
    path: str | os.PathLike[str], *, data_sha256: str, seed: int, labels: Sequence[str]
) -> Baseline:
    """The evaluation in the eval.json at `path`, to hold the predictors `labels` against.

    Predictors stand against those of the same label. Where no label is common but both
    evaluations have one predictor each, controls apart, these two are a pair: a new version under
    a new name. Raises DataError when it cannot be read, is of other data or of another seed
    (which draws other mixes), or has no predictor to compare with.
    """
    document = read_results(path)
    if document.data_sha256 != data_sha256:
        raise DataError(
            f"{path} is of other data (sha256 {document.data_sha256[:12]}…, here "
            f"{data_sha256[:12]}…): give the --data of that evaluation, or evaluate the old "
            "predictor on this table first"
        )
    if document.seed != seed:
        raise DataError(f"{path} was made with another seed: add --seed {document.seed}")
    return Baseline(os.fspath(path), document, _pairs(os.fspath(path), document.rows, labels))


def _pairs(path: str, earlier: Iterable[Result], labels: Sequence[str]) -> dict[str, str]:
    names = dict.fromkeys(row.predictor for row in earlier)
    scored = [
        name
        for name in names
        if name not in (*CONTROLS, *CEILINGS)
        and not (name.endswith(DETECTOR) and name.removesuffix(DETECTOR) in names)
    ]
    common = {label: label for label in labels if label in scored}
    if common:
        return common
    if len(labels) == len(scored) == 1:
        return {labels[0]: scored[0]}
    raise DataError(
        f"{path} has no predictor to compare with: it holds {_listed(scored)} and this evaluation "
        f"{_listed(labels)}; give folders of the same names, or one predictor in each"
    )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "only controls"


def _family(name: str, labels: Iterable[str]) -> str | None:
    """The label that a result's predictor goes by: its own, or that of the cascade it is in."""
    return next((label for label in labels if name in (label, f"{label}{DETECTOR}")), None)


def _is_worse(new: Result, old: Result, level: float) -> bool:
    ends = [old.value, *(end for end in (old.low, old.high) if end is not None)]
    worst = max(_badness(old.metric, end, level) for end in ends)
    return _badness(new.metric, new.value, level) > worst + NOISE


def _badness(metric: str, value: float, level: float) -> float:
    """How bad a score is: more is worse."""
    if metric in HIGHER_IS_BETTER:
        return -value
    if metric == "coverage_80":
        return abs(value - COVERAGE)
    if metric == "false_alarm_rate":  # the promise is to flag no more than the level
        return max(value - level, 0.0)
    return value
