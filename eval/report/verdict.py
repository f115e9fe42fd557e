"""What the numbers say, in sentences: only what their intervals bear out."""

from collections.abc import Iterator

from lengthpred.eval.ceiling import CEILING
from lengthpred.eval.compare import Comparison
from lengthpred.eval.output import Result
from lengthpred.eval.report.lookup import SIMPLE, Scores
from lengthpred.eval.report.words import duration, interval, listed, percent

__all__ = ["judge_comparison"]

PAIRS, DIFFERENCE = "pairwise_accuracy", "pairwise_accuracy_vs_best"
CHANCE = 0.5
WHERE = {"in": "in distribution", "ood": "out of distribution", "all": ""}
TOKEN_S = 0.02  # what a 7B model takes for a token where no simulation says otherwise


def judge_comparison(comparison: Comparison, answer_s: float | None = None) -> list[str]:
    """Who orders best, by how much, against what, and what it costs.

    `answer_s` is the time that a mean answer takes to write; without it, 20 ms a token.
    """
    scores = Scores(comparison.results)
    if not scores.predictors or not scores.splits:
        return ["No predictor was compared: these are the controls alone.", *_detectors(scores)]
    tokens = float(comparison.rows.lengths.mean())
    first, control = _first(scores), scores.best(PAIRS, scores.splits[0], SIMPLE)
    leading = [*_best(scores), *_simple(scores)]
    if control and control.value >= first.value:
        leading = [*_simple(scores), *_best(scores)]
    return [
        *leading,
        *_runner_up(scores),
        *_ceiling(scores),
        *_cost(scores, tokens, answer_s),
        *_detectors(scores),
    ]


def _best(scores: Scores) -> Iterator[str]:
    """Who is best on the first split, there and on the others; and who is best on those."""
    found = _first(scores)
    shares = [
        f"{percent(one.value)}{' of pairs right' * (not i)} {_where(split)}{interval(one, percent)}"
        for i, split in enumerate(scores.splits)
        if (one := scores.get(found.predictor, PAIRS, split))
    ]
    best = "" if len(scores.predictors) == 1 else " is the best predictor: it"
    yield f"{found.predictor}{best} orders {listed(shares)}; chance is {percent(CHANCE)}."
    for split in scores.splits[1:]:
        other = scores.best(PAIRS, split, scores.predictors)
        if other and other.predictor != found.predictor:
            behind = scores.get(found.predictor, DIFFERENCE, split)
            real = behind is not None and _sign(behind) < 0
            yield (
                f"{WHERE[split].capitalize()} {other.predictor} does better with "
                f"{percent(other.value)}{interval(other, percent)}"
                + ("." if real else ", by no more than chance could do.")
            )


def _simple(scores: Scores) -> Iterator[str]:
    """The best predictor of each split against the best control that knows nothing of answers."""
    below: dict[str, list[str]] = {}
    above: dict[str, list[str]] = {}
    for split in scores.splits:
        own = scores.best(PAIRS, split, scores.predictors)
        control = scores.best(PAIRS, split, SIMPLE)
        if own is None or control is None:
            continue
        has = f"{percent(control.value)} {_where(split)}"
        if control.value >= own.value:
            rival = f"{has} ({own.predictor} {percent(own.value)})"
            above.setdefault(control.predictor, []).append(rival)
            continue
        behind = scores.get(control.predictor, DIFFERENCE, split)
        if behind is None or behind.low is None or behind.high is None:
            how = "without intervals the difference may be chance"
        elif behind.high < 0:
            how = f"{-100 * behind.high:.0f} to {-100 * behind.low:.0f} points less"
        else:
            how = f"these rows do not tell {own.predictor} from it"
        below.setdefault(control.predictor, []).append(f"{has} ({how})")
    for name, shares in above.items():
        yield f"No predictor orders better than the control {name}: it has {listed(shares)}."
    for name, shares in below.items():
        yield f"The best simple control, {name}, has {listed(shares)}."


def _runner_up(scores: Scores) -> Iterator[str]:
    """Whether the lead on the first split is more than chance."""
    best, split = _first(scores), scores.splits[0]
    rest = [name for name in scores.predictors if name != best.predictor]
    second = scores.best(PAIRS, split, rest)
    if second is None:
        return
    behind = scores.get(second.predictor, DIFFERENCE, split)
    if behind is None or behind.low is None or behind.high is None:
        return
    if behind.high < 0:
        yield (
            f"{best.predictor}'s lead over {second.predictor} ({percent(second.value)}) is real: "
            f"{-100 * behind.high:.0f} to {-100 * behind.low:.0f} points on the same rows."
        )
    else:
        yield (
            f"These rows do not tell {best.predictor} from {second.predictor} "
            f"({percent(second.value)}): the interval of the difference holds 0."
        )


def _ceiling(scores: Scores) -> Iterator[str]:
    """How much of what can be known the best predictor knows."""
    best, split = _first(scores), scores.splits[0]
    most = scores.get(CEILING, PAIRS, split)
    if most is None:
        return
    said = f"The noise ceiling {_where(split)} is {percent(most.value)}{interval(most, percent)}"
    if most.n != best.n:
        yield f"{said}, on the {most.n:,} of {best.n:,} rows that were answered several times."
    elif most.value <= CHANCE:
        yield f"{said}: what can be known of these answers orders none of them."
    elif best.value >= most.value:
        yield f"{said}, estimated from few samples; {best.predictor} reaches it."
    else:
        share = max((best.value - CHANCE) / (most.value - CHANCE), 0.0)
        yield f"{said}: {best.predictor} goes {percent(share)} of the way there from chance."


def _cost(scores: Scores, tokens: float, answer_s: float | None) -> Iterator[str]:
    best = _first(scores)
    middle = scores.get(best.predictor, "us_per_request_p50")
    if middle is None:
        return
    high = scores.get(best.predictor, "us_per_request_p99")
    slow = f" (99 in 100 stay under {duration(high.value / 1e6)})" if high else ""
    whole = tokens * TOKEN_S if answer_s is None else answer_s
    share = middle.value / 1e6 / whole
    small = "under 0.01 %" if share < 1e-4 else percent(share, 2 if share < 0.01 else 0)
    told = "at 20 ms a token" if answer_s is None else "in the simulation"
    yield (
        f"A prediction of {best.predictor} takes {duration(middle.value / 1e6)} on one core{slow}: "
        f"{small} of the {duration(whole)} that a mean answer of {tokens:,.0f} tokens takes {told}."
    )


def _detectors(scores: Scores) -> Iterator[str]:
    for name in scores.detectors:
        split = next((s for s in ("all", *scores.splits) if scores.get(name, "auroc", s)), None)
        found = scores.get(name, "auroc", split) if split else None
        if found is None:
            continue
        if found.low is None or found.low > CHANCE:
            yield (
                f"{name} tells requests unlike the training data from others with AUROC "
                f"{found.value:.2f}{interval(found, '{:.2f}'.format)}; chance is 0.50."
            )
        else:
            yield (
                f"{name} tells requests unlike the training data from others no better than chance "
                f"(AUROC {found.value:.2f})."
            )


def _first(scores: Scores) -> Result:
    """The best predictor's score on the first split; scores without predictors have none."""
    best = scores.best(PAIRS, scores.splits[0], scores.predictors)
    if best is None:
        raise ValueError("there are no scores of pairs")
    return best


def _where(split: str) -> str:
    return WHERE[split] or "here"


def _sign(result: Result) -> int:
    """Below or above 0, or 0 where its interval does not say."""
    if result.low is None or result.high is None:
        return 0
    return (result.low > 0) - (result.high < 0)
