"""What the numbers say, in sentences: only what their intervals bear out."""

from collections.abc import Iterator, Sequence

import numpy as np

from lengthpred.data.table import Rows
from lengthpred.eval.ceiling import CEILING
from lengthpred.eval.compare import Comparison
from lengthpred.eval.controls import KNOWING
from lengthpred.eval.output import Result
from lengthpred.eval.report.lookup import SIMPLE, Scores
from lengthpred.eval.report.words import duration, interval, listed, percent

__all__ = ["judge_comparison"]

PAIRS, DIFFERENCE = "pairwise_accuracy", "pairwise_accuracy_vs_best"
COVERAGE, COST = "coverage_80", "us_per_request_p50"
CHANCE = 0.5
ENOUGH = 30  # rows below which nothing is said
TELLING = 0.55  # AUROC from which a detector without an interval is taken to tell
HELD, SLACK = 0.8, 0.05  # what the intervals of 80 % should hold, give or take
WHERE = {"in": "in distribution", "ood": "out of distribution", "all": ""}
TOKEN_S = 0.02  # what a 7B model takes for a token where no simulation says otherwise


def judge_comparison(comparison: Comparison, answer_s: float | None = None) -> list[str]:
    """Who orders best, by how much, against what, and what it costs.

    `answer_s` is the time that a mean answer takes to write; without it, 20 ms a token.
    """
    scores = Scores(comparison.results)
    if not scores.predictors or not scores.splits:
        return ["No predictor was compared: these are the controls alone.", *_detectors(scores)]
    first = _first(scores)
    if first.n < ENOUGH:
        rows = "1 row is" if first.n == 1 else f"{first.n} rows are"
        return [f"{rows} too few to tell predictors apart: give {ENOUGH} or more."]
    if _all_tied(scores):
        return ["All answers are equally long: there is nothing to order."]
    tokens = float(comparison.rows.lengths.mean())
    control = scores.best(PAIRS, scores.splits[0], SIMPLE)
    leading = [*_best(scores), *_simple(scores)]
    if control and control.value >= first.value:
        leading = [*_simple(scores), *_best(scores)]
    return [
        *leading,
        *_runner_up(scores),
        *_ceiling(scores, comparison.rows),
        *_calibration(scores),
        *_cost(scores, tokens, answer_s),
        *_dominated(scores),
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
            has = f"{percent(other.value)}{interval(other, percent)}"
            lead = _lead(scores, split, other.predictor, found.predictor)
            if lead is None:
                yield f"{WHERE[split].capitalize()} {other.predictor} has {has}."
            elif lead[0] > 0:
                yield f"{WHERE[split].capitalize()} {other.predictor} does better with {has}."
            else:
                yield (
                    f"{WHERE[split].capitalize()} {other.predictor} has {has}, by which these rows "
                    f"do not tell it from {found.predictor}."
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
        lead = _lead(scores, split, own.predictor, control.predictor)
        if lead is None:
            how = "the difference may be chance"
        elif lead[0] > 0:
            how = f"{_points(lead)} less"
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
    lead = _lead(scores, split, best.predictor, second.predictor) if second else None
    if second is None or lead is None:
        return
    where = f" {WHERE[split]}".rstrip()
    if lead[0] > 0:
        yield (
            f"{best.predictor}'s lead over {second.predictor}{where} ({percent(second.value)}) is "
            f"real: {_points(lead)} on the same rows."
        )
    else:
        yield (
            f"These rows do not tell {best.predictor} from {second.predictor}{where} "
            f"({percent(second.value)}): the interval of the difference holds 0."
        )


def _ceiling(scores: Scores, rows: Rows) -> Iterator[str]:
    """How far the best predictor is from what a row's other samples tell."""
    best, split = _first(scores), scores.splits[0]
    most = scores.get(CEILING, PAIRS, split)
    if most is None:
        return
    others = int(np.bincount(rows.owner).max(initial=1)) - 1
    samples = f"up to {others} other samples" if others > 1 else "one other sample"
    said = (
        f"The noise ceiling {_where(split)} is {percent(most.value)}{interval(most, percent)}, "
        f"estimated from {samples}, so rather low"
    )
    if most.n != best.n:
        yield f"{said}, on the {most.n:,} of {best.n:,} rows that were answered several times."
    elif most.value <= CHANCE:
        yield f"{said}: they tell no order."
    elif best.value >= most.value:
        yield f"{said}: {best.predictor} reaches it."
    else:
        share = max((best.value - CHANCE) / (most.value - CHANCE), 0.0)
        yield f"{said}: {best.predictor} goes {percent(share)} of the way there from chance."


def _calibration(scores: Scores) -> Iterator[str]:
    """Whether the best predictor's intervals hold what they say."""
    name = _first(scores).predictor
    found = [one for split in scores.splits if (one := scores.get(name, COVERAGE, split))]
    if not found:
        return
    shares = [
        f"{percent(one.value)}{' of answers' * (not i)} {_where(one.split)}"
        for i, one in enumerate(found)
    ]
    narrow = [one for one in found if _off(one) and one.value < HELD]
    wide = [one for one in found if _off(one) and one.value > HELD]
    advice = []
    if narrow:
        advice.append(f"do not reserve by its quantiles{_there(narrow, found)}")
    if wide:
        advice.append(f"they are too wide{_there(wide, found)}")
    ending = f": {listed(advice)}." if advice else "."
    yield f"{name}'s 80 % intervals hold {listed(shares)}{ending}"


def _off(covered: Result) -> bool:
    """Whether a coverage is off by more than a little and, where that is known, than chance."""
    if abs(covered.value - HELD) <= SLACK:
        return False
    return covered.low is None or covered.high is None or not covered.low <= HELD <= covered.high


def _there(some: Sequence[Result], found: Sequence[Result]) -> str:
    """Which splits are meant, where it is not all: "there" for the one that was named last."""
    if len(some) == len(found):
        return ""
    return " there" if some[-1] is found[-1] else f" {WHERE[some[0].split]}"


def _cost(scores: Scores, tokens: float, answer_s: float | None) -> Iterator[str]:
    best = _first(scores)
    middle = scores.get(best.predictor, COST)
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


def _dominated(scores: Scores) -> Iterator[str]:
    """Who orders worse than the best predictor at no lower cost."""
    best, split = _first(scores), scores.splits[0]
    own = scores.get(best.predictor, COST)
    out = []
    for name in scores.predictors:
        cost, lead = scores.get(name, COST), _lead(scores, split, best.predictor, name)
        dear = own is not None and cost is not None and cost.value >= own.value
        if dear and lead is not None and lead[0] > 0 and not _ahead(scores, name, best.predictor):
            out.append(name)
    if len(out) == 1:
        yield f"{out[0]} costs no less and orders worse: leave it out here."
    elif out:
        yield f"{listed(out)} cost no less and order worse: leave them out here."


def _ahead(scores: Scores, name: str, other: str) -> bool:
    """Whether a predictor orders better than another on any split."""
    pairs = [(scores.get(name, PAIRS, s), scores.get(other, PAIRS, s)) for s in scores.splits]
    return any(one and two and one.value > two.value for one, two in pairs)


def _detectors(scores: Scores) -> Iterator[str]:
    for name in scores.detectors:
        split = next((s for s in ("all", *scores.splits) if scores.get(name, "auroc", s)), None)
        found = scores.get(name, "auroc", split) if split else None
        if found is None or found.n < ENOUGH:
            continue
        area = f"{found.value:.2f}{interval(found, '{:.2f}'.format)}"
        sure = found.value >= TELLING if found.low is None else found.low > CHANCE
        if sure and found.value > CHANCE:
            yield (
                f"{name} tells requests unlike the training data from others with AUROC {area}; "
                "chance is 0.50."
            )
        else:
            yield (
                f"{name} is not shown to tell requests unlike the training data from others: AUROC "
                f"{area}, where 0.50 is chance."
            )


def _all_tied(scores: Scores) -> bool:
    """Whether even who knows the true lengths cannot order any pair."""
    found = [scores.get("oracle", PAIRS, split) for split in scores.splits]
    return all(one is not None and one.value == CHANCE for one in found)


def _first(scores: Scores) -> Result:
    """The best predictor's score on the first split; scores without predictors have none."""
    best = scores.best(PAIRS, scores.splits[0], scores.predictors)
    if best is None:
        raise ValueError("there are no scores of pairs")
    return best


def _where(split: str) -> str:
    return WHERE[split] or "here"


def _lead(scores: Scores, split: str, name: str, rival: str) -> tuple[float, float] | None:
    """The interval of a lead over a rival, draw by draw; None where it is not known.

    Differences are kept only against a split's best candidate, and that may be a control. It is
    the one that has itself no difference.
    """
    candidates = [one for one in scores.names if one not in KNOWING]
    scored = [one for one in candidates if scores.get(one, PAIRS, split)]
    without = [one for one in scored if scores.get(one, DIFFERENCE, split) is None]
    behind = scores.get(rival, DIFFERENCE, split)
    if without != [name] or behind is None or behind.low is None or behind.high is None:
        return None
    return -behind.high, -behind.low


def _points(lead: tuple[float, float]) -> str:
    low, high = (100 * bound for bound in lead)
    digits = 1 if low < 1 else 0
    return f"{low:.{digits}f} to {high:.{digits}f} points"
