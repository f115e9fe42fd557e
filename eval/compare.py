"""Compares predictors and detectors on rows with known lengths.

Each is asked once for every row; splits, mixes and resamples then share its answers.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np

from lengthpred.base import Detector, FloatArray, Predictor
from lengthpred.data.table import Rows
from lengthpred.errors import DataError, SettingsError
from lengthpred.eval.bootstrap import Resamples
from lengthpred.eval.controls import ALWAYS, KNOWING, fit_control
from lengthpred.eval.cost import measure
from lengthpred.eval.mixes import RATIOS, Mix, make_mixes
from lengthpred.eval.output import Result
from lengthpred.eval.scoring import Answers, ask, ask_detector, score, score_detector

__all__ = ["Comparison", "compare"]

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Comparison:
    """The scores; and what a reader has to know of them, one sentence each."""

    results: list[Result]
    notes: list[str]


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
    """Score every predictor and detector on every split of `rows` and every mix of `ratios`.

    The controls constant, prompt-length and oracle are always there; those that learn are fitted
    on `train_rows`, else on `rows`. What only has `p_value` is scored as a detector at `alpha`; a
    cascade's own detector at the cascade's alpha, as "<name>/detector". `on_progress` is told
    what is worked on, how many steps are done, and of how many. The same seed gives the same
    scores, costs apart. Raises SettingsError for settings out of range, DataError for no rows.
    """
    _check(rows, alpha, resamples)
    mixes = make_mixes(rows, ratios, seed)
    report = on_progress or (lambda what, done, total: None)
    asked = {n: cast(Predictor, p) for n, p in predictors.items() if hasattr(p, "predict")}
    for name in ALWAYS:
        learns = train_rows is not None and name not in KNOWING
        asked.setdefault(name, fit_control(name, train_rows if learns and train_rows else rows))
    detectors = _detectors(predictors, alpha)
    steps = len(asked) + len(detectors) + len(mixes)

    uniform = np.random.default_rng(seed).random(len(rows))
    answers: dict[str, Answers] = {}
    costs: list[Result] = []
    for done, (name, predictor) in enumerate(asked.items()):
        report(name, done, steps)
        answers[name] = ask(name, predictor, rows, uniform)
        if cost and name not in KNOWING:
            costs += _costs(name, predictor, rows)
    values = {}
    for done, (name, (detector, _)) in enumerate(detectors.items(), start=len(asked)):
        report(name, done, steps)
        values[name] = ask_detector(name, detector, rows)
    results: list[Result] = []
    scored: dict[bytes, list[Result]] = {}  # the mixes of ratio 0 and 1 are splits once more
    for done, mix in enumerate(mixes, start=len(asked) + len(detectors)):
        report(f"scores, {mix.split}", done, steps)
        picked = mix.picked.tobytes()
        if picked not in scored:
            draws = Resamples(rows.groups[mix.picked], resamples, seed)
            ranked = (
                r for name, one in answers.items() for r in score(name, one, rows, mix, draws)
            )
            scored[picked] = [*ranked, *_detected(detectors, values, rows, mix, draws)]
        results += (
            replace(one, split=mix.split, ood_ratio=mix.ood_ratio) for one in scored[picked]
        )
    if len(mixes) > 1:  # what tells the two sorts apart is best known from all rows of both
        whole = Mix("all", None, np.arange(len(rows)))
        draws = Resamples(rows.groups, resamples, seed)
        results += _detected(detectors, values, rows, whole, draws)
    report("done", steps, steps)
    notes = _notes(rows, train_rows, ratios, predictors, answers)
    return Comparison([*results, *costs], notes)


def _check(rows: Rows, alpha: float, resamples: int) -> None:
    if not len(rows):
        raise DataError("there are no rows to evaluate on")
    if not 0 < alpha < 1:
        raise SettingsError(f"alpha must lie between 0 and 1, not {alpha:g}")
    if resamples < 0:
        raise SettingsError(f"the number of resamples must be 0 or more, not {resamples}")


def _detectors(
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


def _detected(
    detectors: Mapping[str, tuple[Detector, float]],
    values: Mapping[str, FloatArray],
    rows: Rows,
    mix: Mix,
    draws: Resamples,
) -> Iterator[Result]:
    for name, (_, level) in detectors.items():
        yield from score_detector(name, values[name], level, rows, mix, draws)


def _costs(name: str, predictor: Predictor, rows: Rows) -> list[Result]:
    costs = measure(predictor, rows.requests)
    return [Result(name, "all", None, m, v, None, None, n) for m, (v, n) in costs.items()]


def _notes(
    rows: Rows,
    train_rows: Rows | None,
    ratios: Sequence[float],
    given: Mapping[str, object],
    answers: Mapping[str, Answers],
) -> list[str]:
    notes = []
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
    censored = float(rows.truth_censored.mean())
    if censored:
        notes.append(
            f"{censored:.1%} of the answers were stopped by a limit; they are scored up to it."
        )
    for name, answer in answers.items():
        strange = 0 if answer.unseen is None else int(answer.unseen.sum())
        if strange:
            notes.append(
                f"{name} was not trained on the target model of {strange:,} of {len(rows):,} rows "
                "and answered them from all the models that it knows."
            )
    return notes
