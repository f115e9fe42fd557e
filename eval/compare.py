"""Compares predictors and detectors on rows with known lengths.

Each is asked once for every row; splits, mixes, slices and resamples then share its answers.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np

from lengthpred.base import Detector, FloatArray, IntArray, Predictor
from lengthpred.data.table import Rows
from lengthpred.errors import DataError, SettingsError
from lengthpred.eval.bootstrap import Resamples
from lengthpred.eval.ceiling import LeaveOneOut, leave_one_out, score_ceilings
from lengthpred.eval.controls import ALWAYS, KNOWING, fit_control
from lengthpred.eval.cost import can_be_measured_apart, measure_best
from lengthpred.eval.mixes import RATIOS, Mix, make_mixes
from lengthpred.eval.output import Result
from lengthpred.eval.remaining import moments, remaining_results
from lengthpred.eval.scoring import (
    Answers,
    Score,
    Scores,
    against_best,
    ask,
    ask_detector,
    score,
    score_detector,
)
from lengthpred.eval.slices import SLICE_METRICS, make_slices
from lengthpred.models.backends.base import is_recorded

__all__ = ["Comparison", "compare", "detectors_in"]

FEW_ROWS = 100

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Comparison:
    """The scores, and what they were made of.

    notes     what a reader has to know of the scores, one sentence each
    rows      the n rows that were asked for
    answers   what each predictor said of them, by name
    p_values  float64 (n,): what each detector said of them, by name
    """

    results: list[Result]
    notes: list[str]
    rows: Rows
    answers: Mapping[str, Answers]
    p_values: Mapping[str, FloatArray]


def compare(
    predictors: Mapping[str, Predictor | Detector],
    rows: Rows,
    *,
    train_rows: Rows | None = None,
    ratios: Sequence[float] = RATIOS,
    alpha: float = 0.05,
    resamples: int = 200,
    seed: int = 0,
    cost: bool = True,
    on_progress: Progress | None = None,
) -> Comparison:
    """Score every predictor and detector on every split, mix of `ratios`, and slice of `rows`.

    The controls constant, prompt-length and oracle are always there; those that learn are fitted
    on `train_rows`, else on `rows`. Where rows have several samples, so is the noise ceiling. What
    only has `p_value` is scored as a detector at `alpha`; a cascade's own detector at the
    cascade's alpha, as "<name>/detector". `on_progress` is told what is worked on, how many steps
    are done, and of how many. The same seed gives the same scores, costs apart.

    Raises SettingsError for settings out of range, DataError for no rows, LengthPredError when
    the process that times a predictor fails.
    """
    _check(rows, alpha, resamples)
    splits, slices = make_mixes(rows, ratios, seed), make_slices(rows)
    asked = _asked(predictors, rows, train_rows)
    timed = {n: p for n, p in asked.items() if cost and n not in KNOWING}
    detectors = detectors_in(predictors, alpha)
    step = _steps(on_progress, len(asked) + len(timed) + len(detectors) + len(splits) + 1)

    rng = np.random.default_rng(seed)
    uniform, written = rng.random(len(rows)), moments(rows, rng)
    answers, p_values = {}, {}
    for name, predictor in asked.items():
        step(name)
        answers[name] = ask(name, predictor, rows, uniform, written)
    for name, (detector, _) in detectors.items():
        step(name)
        p_values[name] = ask_detector(name, detector, rows)
    costs: list[Result] = []
    for name, predictor in timed.items():
        step(f"time of {name}")
        costs += _costs(name, predictor, rows)
    levels = {name: level for name, (_, level) in detectors.items()}
    known = leave_one_out(rows)
    scorer = _Scorer(rows, answers, written, p_values, levels, known, resamples, seed)
    results = [*scorer.splits(splits, step)]
    if len(splits) > 1:  # what tells the two sorts apart is best known from all rows of both
        results += scorer.detectors(Mix("all", None, np.arange(len(rows))))
    step("scores of slices")
    for part in slices:
        results += scorer.slice(part)
    step("done")
    notes = _notes(rows, train_rows, predictors, answers, timed)
    return Comparison([*results, *costs], notes, rows, answers, p_values)


def detectors_in(
    given: Mapping[str, Predictor | Detector], alpha: float
) -> dict[str, tuple[Detector, float]]:
    """The detectors by name, each with its level: those given, and those inside cascades."""
    found: dict[str, tuple[Detector, float]] = {}
    for name, one in given.items():
        inner = getattr(one, "detector", None)
        if hasattr(inner, "p_value"):
            found[f"{name}/detector"] = (cast(Detector, inner), float(getattr(one, "alpha", alpha)))
        elif hasattr(one, "p_value") and not hasattr(one, "predict"):
            found[name] = (one, alpha)
    return found


@dataclass(frozen=True)
class _Scorer:
    """Scores all answers on a mix of rows, all on the same resamples.

    written  int64 (n, moments): the tokens of each row that exist when asked what is left
    levels   at which each detector flags, by name
    known    the rows that have several samples, for the noise ceiling
    """

    rows: Rows
    answers: Mapping[str, Answers]
    written: IntArray
    p_values: Mapping[str, FloatArray]
    levels: Mapping[str, float]
    known: LeaveOneOut | None
    resamples: int
    seed: int

    def splits(self, mixes: Sequence[Mix], step: Callable[[str], None]) -> Iterator[Result]:
        """Every score on every mix, and how far each predictor is from the best."""
        done: dict[bytes, list[Result]] = {}  # the mixes of ratio 0 and 1 are splits once more
        for mix in mixes:
            step(f"scores, {mix.split}")
            picked = mix.picked.tobytes()
            if picked not in done:
                scored = self._scored(mix)
                done[picked] = [
                    *_results(scored, mix),
                    *self._ceilings(mix),
                    *self._against_best(scored, mix),
                    *self._remaining(mix),
                    *self.detectors(mix),
                ]
            yield from (replace(r, split=mix.split, ood_ratio=mix.ood_ratio) for r in done[picked])

    def slice(self, mix: Mix) -> Iterator[Result]:
        """The scores of SLICE_METRICS."""
        whole = (*_results(self._scored(mix), mix), *self._ceilings(mix))
        return (result for result in whole if result.metric in SLICE_METRICS)

    def detectors(self, mix: Mix) -> Iterator[Result]:
        """The detectors' scores."""
        draws = self._draws(mix)
        scored = {
            name: score_detector(values, self.levels[name], self.rows, mix, draws)
            for name, values in self.p_values.items()
        }
        return _results(scored, mix)

    def _scored(self, mix: Mix) -> dict[str, dict[str, Score]]:
        draws = self._draws(mix)
        return {name: score(one, self.rows, mix, draws) for name, one in self.answers.items()}

    def _against_best(self, scored: Mapping[str, Scores], mix: Mix) -> Iterator[Result]:
        candidates = [name for name in scored if name not in KNOWING]
        for name, metric, difference in against_best(scored, candidates):
            yield difference.result(name, mix, metric, len(mix.picked))

    def _remaining(self, mix: Mix) -> Iterator[Result]:
        """Of the rows that no limit stopped: how far the others had come is not known."""
        whole = replace(mix, picked=mix.picked[~self.rows.truth_censored[mix.picked]])
        if len(whole.picked):
            draws = self._draws(whole)
            for name, one in self.answers.items():
                yield from remaining_results(name, one, self.written, self.rows, whole, draws)

    def _ceilings(self, mix: Mix) -> Iterator[Result]:
        if self.known is not None:
            scored, n = score_ceilings(self.known, self.rows, mix.picked, self.resamples, self.seed)
            for name, scores in scored.items():
                for metric, one in scores.items():
                    yield one.result(name, mix, metric, n)

    def _draws(self, mix: Mix) -> Resamples:
        return Resamples(self.rows.groups[mix.picked], self.resamples, self.seed)


def _results(scored: Mapping[str, Scores], mix: Mix) -> Iterator[Result]:
    for name, scores in scored.items():
        for metric, one in scores.items():
            yield one.result(name, mix, metric, len(mix.picked))


def _check(rows: Rows, alpha: float, resamples: int) -> None:
    if not len(rows):
        raise DataError("there are no rows to evaluate on")
    if not 0 < alpha < 1:
        raise SettingsError(f"alpha must lie between 0 and 1, not {alpha:g}")
    if resamples < 0:
        raise SettingsError(f"the number of resamples must be 0 or more, not {resamples}")


def _asked(
    given: Mapping[str, Predictor | Detector], rows: Rows, train_rows: Rows | None
) -> dict[str, Predictor]:
    """The predictors among those given, and the controls that are always there."""
    asked = {name: cast(Predictor, p) for name, p in given.items() if hasattr(p, "predict")}
    for name in ALWAYS:
        learns = train_rows is not None and name not in KNOWING
        asked.setdefault(name, fit_control(name, train_rows if learns and train_rows else rows))
    return asked


def _steps(on_progress: Progress | None, total: int) -> Callable[[str], None]:
    """Tells what comes next, and counts the steps before it."""
    done = itertools.count()
    return lambda what: on_progress(what, next(done), total) if on_progress else None


def _costs(name: str, predictor: Predictor, rows: Rows) -> Iterator[Result]:
    for metric, (us, calls) in measure_best(name, predictor, rows.requests).items():
        yield Result(name, "all", None, metric, us, None, None, calls)


def _notes(
    rows: Rows,
    train_rows: Rows | None,
    given: Mapping[str, object],
    answers: Mapping[str, Answers],
    timed: Mapping[str, Predictor],
) -> list[str]:
    notes = []
    if len(rows) < FEW_ROWS:
        notes.append(f"Only {len(rows)} rows are compared: differences between so few say little.")
    learning = [name for name in ALWAYS if name not in KNOWING and name not in given]
    if train_rows is None and learning:
        notes.append(
            f"The controls {' and '.join(learning)} were fitted on the evaluated rows themselves, "
            "which flatters them; give training rows to avoid that."
        )
    if not np.any(rows.columns.get("ood", False)):
        notes.append(
            "No row is marked as out of distribution, so all rows are one split and OOD ratios "
            "have no effect; `lengthpred data split --by domain` marks such rows."
        )
    if len(rows.lengths) == len(rows):
        notes.append(
            "No row has several samples in output_tokens, so the noise ceiling, the best that any "
            "predictor could reach, is not known."
        )
    censored = int(rows.truth_censored.sum())
    if censored:
        notes.append(
            f"{censored / len(rows):.1%} of the answers were stopped by a limit; they are scored "
            f"up to it. The scores of what is left of an answer leave these {censored:,} rows out."
        )
    for name, answer in answers.items():
        strange = 0 if answer.unseen is None else int(answer.unseen.sum())
        if strange:
            notes.append(
                f"{name} was not trained on the target model of {strange:,} of {len(rows):,} rows "
                "and answered them from all the models that it knows."
            )
    for name, predictor in timed.items():
        if not can_be_measured_apart(predictor):
            notes.append(
                f"{name} cannot be saved, so its cost was measured within this process, beside "
                "whatever else it holds."
            )
        if is_recorded(predictor):
            notes.append(f"{name} looks recorded samples up; its cost is not that of a model.")
    return notes
