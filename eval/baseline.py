"""Did anything get worse than in an earlier evaluation of the same rows?"""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from lengthpred.errors import DataError
from lengthpred.eval.ceiling import CEILINGS
from lengthpred.eval.controls import CONTROLS
from lengthpred.eval.mixes import Mix
from lengthpred.eval.output import Document, Result, read_results
from lengthpred.metrics import DETECTOR_METRICS, HIGHER_IS_BETTER, LOSSES, METRICS

__all__ = ["Baseline", "Regression", "read_baseline"]

COMPARED = (*METRICS, *DETECTOR_METRICS)
SPLITS = ("in", "ood", "all")  # mixes and slices repeat their rows: more tests, more false alarms
COVERAGE = 0.8
NOISE = 1e-9  # relative: sums in another order
UNBOUNDED = {"median_ae", *LOSSES} - {"coverage_80"}
LEEWAY = 0.01  # what an interval of no width allows for in a score between 0 and 1, or -1 and 1
DETECTOR = "/detector"  # ends the name of a cascade's own detector


@dataclass(frozen=True)
class Regression:
    """A score that lies beyond the worse end of the interval that it had."""

    old: Result
    new: Result


@dataclass(frozen=True)
class Baseline:
    """An earlier evaluation, and which of its predictors each new one stands against.

    pairs     new label -> old label
    left_out  labels of predictors, controls apart, that it holds and none is held against
    """

    path: str
    document: Document
    pairs: Mapping[str, str]
    left_out: tuple[str, ...] = ()

    def check_rows(self, mixes: Iterable[Mix]) -> None:
        """Raise DataError unless `mixes` hold as many rows as they did: call it before long work.

        One split at least must be in both.
        """
        sizes = {mix.split: len(mix.picked) for mix in mixes if mix.split in SPLITS}
        wanted = [row for row in self.document.rows if _is_compared(row, self.pairs.values())]
        earlier = [row for row in wanted if row.split in sizes]
        if {"in", "ood"} <= sizes.keys():  # then only detectors are scored on all rows
            sizes["all"] = sizes["in"] + sizes["ood"]
            of_both = [row for row in wanted if row.split == "all"]
            earlier += [row for row in of_both if row.metric in DETECTOR_METRICS]
        for row in earlier:
            self._check_size(row, sizes[row.split])
        if not earlier:
            raise DataError(
                f"{self.path} has no scores of this evaluation's splits ({', '.join(sizes)}): "
                "use the --turns and --max-rows of that one"
            )

    def regressions(
        self, results: Iterable[Result], levels: Mapping[str, float] | None = None
    ) -> list[Regression]:
        """What is worse than it was by more than its interval, in the order of `results`.

        Only what has an interval in the earlier evaluation is compared; a coverage also needs one
        in `results`, outside which the old coverage lies. `levels` are those at which detectors
        flag, by new label; else 0. Raises DataError where a score is of another number of rows
        than it was.
        """
        earlier = {
            (row.predictor, row.split, row.metric): row
            for row in self.document.rows
            if _is_compared(row, self.pairs.values())
        }
        found = []
        for new in results:
            label = _family(new.predictor, self.pairs)
            if label is None or not _is_compared(new, (label,)):
                continue
            before = self.pairs[label] + new.predictor.removeprefix(label)
            old = earlier.get((before, new.split, new.metric))
            if old is not None:
                self._check_size(old, new.n)
                if _is_worse(new, old, (levels or {}).get(new.predictor, 0.0)):
                    found.append(Regression(old, new))
        return found

    def _check_size(self, old: Result, rows: int) -> None:
        if old.n != rows:
            raise DataError(
                f"{self.path} scored {old.n:,} rows of the split '{old.split}' and this evaluation "
                f"has {rows:,}: use the --turns and --max-rows of that one"
            )


def read_baseline(
    path: str | os.PathLike[str], *, data_sha256: str, seed: int, labels: Sequence[str]
) -> Baseline:
    """The evaluation in the eval.json at `path`, to hold the predictors `labels` against.

    Predictors stand against those of the same label. Where no label is common but both
    evaluations have one predictor each, controls apart, these two are a pair: a new version under
    a new name. Raises DataError when it cannot be read, is of other data or of another seed
    (which draws other noise), or has no predictor or no interval to compare with.
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
    scored = _scored(document.rows)
    pairs = _pairs(os.fspath(path), scored, labels)
    compared = [row for row in document.rows if _is_compared(row, pairs.values())]
    if compared and all(row.low is None for row in compared):
        raise DataError(
            f"{path} has no intervals to hold scores against: run it again with --resamples 200 "
            "(rows of one group have none)"
        )
    left_out = tuple(name for name in scored if name not in pairs.values())
    return Baseline(os.fspath(path), document, pairs, left_out)


def _scored(rows: Iterable[Result]) -> list[str]:
    """The labels of what was evaluated, without controls and the detectors of cascades."""
    names = dict.fromkeys(row.predictor for row in rows)
    return [
        name
        for name in names
        if name not in (*CONTROLS, *CEILINGS)
        and not (name.endswith(DETECTOR) and name.removesuffix(DETECTOR) in names)
    ]


def _pairs(path: str, scored: Sequence[str], labels: Sequence[str]) -> dict[str, str]:
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


def _is_compared(row: Result, labels: Iterable[str]) -> bool:
    """Whether a row is a score of quality, of whole splits, of one of the labels."""
    return (
        row.split in SPLITS
        and row.metric in COMPARED
        and _family(row.predictor, labels) is not None
    )


def _is_worse(new: Result, old: Result, level: float) -> bool:
    if old.low is None or old.high is None:
        return False
    if old.metric == "coverage_80" and not _excludes(new, old.value):
        return False
    ends = (old.low, old.value, old.high)
    worst = max(_badness(old.metric, end, level) for end in ends)
    rounding = NOISE * max(1.0, abs(old.value))
    flat = old.high - old.low <= rounding
    allowed = LEEWAY + rounding if flat and old.metric not in UNBOUNDED else rounding
    return _badness(new.metric, new.value, level) > worst + allowed


def _excludes(new: Result, value: float) -> bool:
    """Whether a score has an interval and `value` lies outside it."""
    return new.low is not None and new.high is not None and not new.low <= value <= new.high


def _badness(metric: str, value: float, level: float) -> float:
    """How bad a score is: more is worse."""
    if metric in HIGHER_IS_BETTER:
        return -value
    if metric == "coverage_80":
        return abs(value - COVERAGE)
    if metric == "false_alarm_rate":  # the promise is to flag no more than the level
        return max(value - level, 0.0)
    return value
