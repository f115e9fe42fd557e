"""Sentences of a comparison, from made-up scores: each claim and each refusal to claim."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from lengthpred.eval.compare import Comparison
from lengthpred.eval.output import Result
from lengthpred.eval.report.verdict import judge_comparison
from tests.eval.cases import make_rows

PAIRS, DIFFERENCE = "pairwise_accuracy", "pairwise_accuracy_vs_best"


def scored(
    predictor: str, value: float, split: str = "all", metric: str = PAIRS, half: float = 0.02
) -> list[Result]:
    """A score, and the tau without which nobody is listed."""
    low, high = value - half, value + half
    own = Result(predictor, split, None, metric, value, low, high, 100)
    if metric != PAIRS:
        return [own]
    return [own, Result(predictor, split, None, "tau", 2 * value - 1, None, None, 100)]


def behind(predictor: str, low: float, high: float, split: str = "all") -> Result:
    return Result(predictor, split, None, DIFFERENCE, (low + high) / 2, low, high, 100)


def cost(predictor: str, us: float, metric: str = "us_per_request_p50") -> Result:
    return Result(predictor, "all", None, metric, us, None, None, 500)


def judged(results: Sequence[Result], answer_s: float | None = None) -> list[str]:
    rows = make_rows(20)
    return judge_comparison(Comparison(list(results), [], rows, {}, {}), answer_s)


GOOD = [
    *scored("boosted", 0.79),
    *scored("histogram", 0.7),
    *scored("constant", 0.5),
    *scored("prompt-length", 0.55),
    behind("histogram", -0.12, -0.06),
    behind("constant", -0.31, -0.25),
    behind("prompt-length", -0.28, -0.2),
]


def test_the_best_predictor_its_lead_and_the_control_below_it() -> None:
    assert judged(GOOD) == [
        "boosted is the best predictor: it orders 79 % of pairs right here (77 to 81 %); chance is "
        "50 %.",
        "The best simple control, prompt-length, has 55 % here (20 to 28 points less).",
        "boosted's lead over histogram (70 %) is real: 6 to 12 points on the same rows.",
    ]


def test_both_splits_stand_in_one_sentence() -> None:
    said = judged([*scored("boosted", 0.79, "in"), *scored("boosted", 0.64, "ood")])
    assert said[0] == (
        "boosted orders 79 % of pairs right in distribution (77 to 81 %) and 64 % out of "
        "distribution (62 to 66 %); chance is 50 %."
    )


OTHER = [
    *scored("boosted", 0.79, "in"),
    *scored("sqlm", 0.7, "in"),
    *scored("boosted", 0.6, "ood"),
    *scored("sqlm", 0.64, "ood"),
]


@pytest.mark.parametrize(
    ("high", "claim"),
    [
        (-0.01, "sqlm does better with 64 % (62 to 66 %)."),
        (0.01, "sqlm has 64 % (62 to 66 %), by which these rows do not tell it from boosted."),
        (None, "sqlm has 64 % (62 to 66 %)."),
    ],
)
def test_another_predictor_may_be_best_out_of_distribution(high: float | None, claim: str) -> None:
    known = [] if high is None else [behind("boosted", -0.08, high, "ood")]
    assert judged([*OTHER, *known])[1] == f"Out of distribution {claim}"


def test_a_difference_to_a_control_is_no_lead_of_a_predictor() -> None:
    control = [*scored("prompt-length", 0.9), behind("boosted", -0.13, -0.09)]
    said = judged([*scored("boosted", 0.79), *control, *scored("b", 0.7), behind("b", -0.3, -0.2)])
    assert not any("lead" in one or "do not tell" in one for one in said)
    ood = [*scored("constant", 0.7, "ood"), behind("boosted", -0.12, -0.08, "ood")]
    said = judged([*OTHER, *ood, behind("sqlm", -0.08, -0.04, "ood")])
    assert "Out of distribution sqlm has 64 % (62 to 66 %)." in said


def test_a_lead_says_on_which_split_it_is() -> None:
    assert (
        "boosted's lead over sqlm in distribution (70 %) is real: 7 to 11 points on the same rows."
        in judged([*OTHER, behind("sqlm", -0.11, -0.07, "in")])
    )


@pytest.mark.parametrize(("n", "rows"), [(29, "29 rows are"), (1, "1 row is")])
def test_few_rows_say_nothing(n: int, rows: str) -> None:
    few = [replace(one, n=n) for one in [*GOOD, *scored("knn", 0.9, metric="auroc")]]
    assert judged(few) == [f"{rows} too few to tell predictors apart: give 30 or more."]


def test_equally_long_answers_have_no_order() -> None:
    tied = [*scored("boosted", 0.5), *scored("constant", 0.5), *scored("oracle", 0.5)]
    assert judged(tied) == ["All answers are equally long: there is nothing to order."]


@pytest.mark.parametrize(
    ("inside", "outside", "said"),
    [
        (0.8, 0.68, "and 68 % out of distribution: do not reserve by its quantiles there."),
        (0.7, 0.68, "and 68 % out of distribution: do not reserve by its quantiles."),
        (0.7, 0.79, "distribution: do not reserve by its quantiles in distribution."),
        (0.78, 0.82, "hold 78 % of answers in distribution and 82 % out of distribution."),
        (0.8, 0.93, "and 93 % out of distribution: they are too wide there."),
    ],
)
def test_intervals_that_hold_too_little(inside: float, outside: float, said: str) -> None:
    covered = [
        *scored("boosted", inside, "in", "coverage_80"),
        *scored("boosted", outside, "ood", "coverage_80"),
    ]
    assert any(one.endswith(said) for one in judged([*OTHER, *covered]))


def test_a_coverage_off_by_chance_is_not_held_against_anyone() -> None:
    wide = scored("boosted", 0.7, metric="coverage_80", half=0.12)
    assert "boosted's 80 % intervals hold 70 % of answers here." in judged([*GOOD, *wide])


def test_who_orders_worse_at_no_lower_cost_is_left_out() -> None:
    dear = [*GOOD, cost("boosted", 300.0), cost("histogram", 300.0)]
    assert judged(dear)[-1] == "histogram costs no less and orders worse: leave it out here."
    cheap = [*GOOD, cost("boosted", 300.0), cost("histogram", 20.0)]
    assert not any("leave it out" in one for one in judged(cheap))
    elsewhere = [*OTHER, behind("sqlm", -0.11, -0.07, "in"), cost("boosted", 3), cost("sqlm", 9)]
    assert not any("leave it out" in one for one in judged(elsewhere))


def test_a_lead_within_chance_is_none() -> None:
    said = judged([*scored("a", 0.71), *scored("b", 0.7), behind("b", -0.03, 0.01)])
    assert said[-1].startswith("These rows do not tell a from b (70 %): the interval")


def test_a_lead_without_intervals_is_not_mentioned() -> None:
    assert not any("lead" in one for one in judged([*scored("a", 0.71), *scored("b", 0.6)]))


def test_a_control_that_is_as_good_is_said_plainly() -> None:
    said = judged([*scored("boosted", 0.53), *scored("prompt-length", 0.56)])
    assert said[0] == (
        "No predictor orders better than the control prompt-length: it has 56 % here (boosted 53 "
        "%)."
    )
    split = judged(
        [
            *scored("boosted", 0.7, "in"),
            *scored("prompt-length", 0.6, "in"),
            *scored("boosted", 0.53, "ood"),
            *scored("prompt-length", 0.56, "ood"),
        ]
    )
    assert split[0].startswith("boosted orders 70 %")
    assert split[1].endswith("it has 56 % out of distribution (boosted 53 %).")
    assert split[2].startswith("The best simple control, prompt-length, has 60 % in distribution")


def test_a_control_within_chance_is_not_beaten() -> None:
    results = [*scored("boosted", 0.57), *scored("prompt-length", 0.56)]
    assert "do not tell boosted from it" in judged([*results, behind("prompt-length", -0.03, 0)])[1]
    assert "(the difference may be chance)" in judged(results)[1]


@pytest.mark.parametrize(
    ("ceiling", "said"),
    [
        (0.84, "boosted goes 85 % of the way there from chance."),
        (0.75, "estimated from one other sample, so rather low: boosted reaches it."),
        (0.5, "so rather low: they tell no order."),
    ],
)
def test_the_ceiling(ceiling: float, said: str) -> None:
    assert judged([*GOOD, *scored("ceiling", ceiling)])[3].endswith(said)


def test_a_ceiling_of_other_rows_is_no_measure() -> None:
    few = Result("ceiling", "all", None, PAIRS, 0.84, 0.82, 0.86, 40)
    assert judged([*GOOD, few])[3].endswith("40 of 100 rows that were answered several times.")


def test_what_a_prediction_costs() -> None:
    results = [*GOOD, cost("boosted", 330.0), cost("boosted", 1400.0, "us_per_request_p99")]
    assert "takes 0.33 ms on one core (99 in 100 stay under 1.4 ms)" in judged(results)[3]
    assert "at 20 ms a token" in judged(results)[3]
    assert "3.30 %" not in judged(results, 0.01)[3]
    assert "3 % of the 10 ms that a mean answer" in judged(results, 0.01)[3]


@pytest.mark.parametrize(
    ("area", "half", "tells"),
    [
        (0.8, 0.02, True),
        (0.51, 0.02, False),
        (0.4, 0.02, False),
        (0.56, None, True),
        (0.54, None, False),
    ],
)
def test_a_detector_at_chance_tells_nothing(area: float, half: float | None, tells: bool) -> None:
    found = scored("knn", area, metric="auroc", half=half or 0.0)
    if half is None:
        found = [replace(one, low=None, high=None) for one in found]
    said = judged([*GOOD, *found])[-1]
    assert said.startswith("knn tells requests") == tells
    assert ("is not shown to tell" in said) != tells


def test_controls_alone_are_no_verdict() -> None:
    assert judged(scored("constant", 0.5)) == [
        "No predictor was compared: these are the controls alone."
    ]


def test_every_number_of_a_sentence_is_finite() -> None:
    assert np.all(["nan" not in one and "inf" not in one for one in judged(GOOD)])
