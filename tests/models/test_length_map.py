"""The map from what a small model wrote to what the large one will write."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from lengthpred import LengthGrid, Request
from lengthpred.base import FloatArray
from lengthpred.distribution import LengthDistribution
from lengthpred.models.length_map import (
    ALL_MODELS,
    DOUBLE,
    LengthMap,
    apply_maps,
    identity,
    mean_logs,
    prompt_length,
)
from lengthpred.models.score_table import ScoreTable

GRID = LengthGrid()
USUAL = np.log1p(np.array([10.0, 20, 40, 80, 160, 320]))
NONE = np.array([[0]]), np.array([[True]])
PROMPT = np.log1p(np.array([50.0]))


def point_table(factor: float = 1.0) -> ScoreTable:
    """At the score log(1 + x) all the mass is on factor * x."""
    knots = np.log1p(np.array([5.0, 10, 20, 40, 80, 160, 320, 640]))
    lengths = np.rint(factor * np.expm1(knots)).astype(np.int64)
    pmf = np.eye(GRID.bins, dtype=np.float32)[GRID.index(lengths)]
    return ScoreTable(GRID, knots, pmf, pmf.mean(axis=0, dtype=np.float32))


def made(samples: float = 1.0, prompts: float = 0.0, factor: float = 1.0) -> LengthMap:
    return LengthMap(point_table(factor), np.array([samples, prompts, 0.0]), USUAL)


def answer(one: LengthMap, lengths: list[int], censored: list[bool]) -> LengthDistribution:
    return one(np.array([lengths]), np.array([censored]), PROMPT)


def medians(one: LengthMap, rows: list[list[int]], stopped: bool = False) -> list[float]:
    lengths = np.array(rows)
    found = one(lengths, np.full(lengths.shape, stopped), np.repeat(PROMPT, len(lengths)))
    return [float(median) for median in found.median()]


def never_shorter(answers: Iterator[LengthDistribution]) -> bool:
    """Whether no cumulative probability of a later answer is above that of an earlier one."""
    cdf = np.array([one.pmf[0].cumsum(dtype=np.float64) for one in answers])
    return bool((np.diff(cdf, axis=0) <= 1e-6).all())


def test_a_longer_sample_never_makes_a_shorter_answer_likelier() -> None:
    one, steps = made(0.7, 0.2), (1, 7, 15, 60, 61, 200, 5000)
    assert never_shorter(answer(one, [x], [False]) for x in steps)
    assert never_shorter(answer(one, [30, x], [False, False]) for x in steps)
    assert never_shorter(answer(one, [x], [True]) for x in steps)
    assert medians(one, [[7]]) < medians(one, [[60]]) < medians(one, [[200]])


def test_samples_count_by_their_mean_log() -> None:
    assert medians(made(), [[40, 40], [20, 80], [39, 41]]) == pytest.approx([40] * 3, rel=0.1)


def test_a_stopped_sample_counts_for_longer_than_it_is() -> None:
    one = made()
    stopped, ended = medians(one, [[40]], stopped=True)[0], medians(one, [[40]])[0]
    assert 1.5 * ended < stopped < 320
    # Nothing of it lies below what was seen.
    assert answer(one, [40], [True]).cdf(30).max() < 1e-6
    # Beside one that ended it counts as what such ones became on average.
    became = np.log1p(np.array([40.0, 80, 160, 320])).mean()
    both = mean_logs(np.array([[40, 40]]), np.array([[True, False]]), USUAL)
    assert both == pytest.approx((became + np.log1p(40)) / 2)


def test_beyond_all_that_was_seen_a_stopped_sample_counts_double() -> None:
    found = mean_logs(np.array([[1000]]), np.array([[True]]), USUAL)
    assert found == pytest.approx(np.log1p(1000) + DOUBLE)
    assert medians(made(), [[500]], stopped=True)[0] > medians(made(), [[330]])[0]


def test_where_nothing_is_known_the_answer_is_the_mixture_over_all_lengths() -> None:
    one = made()
    nothing = one(*NONE, PROMPT)
    scores = np.log1p(np.array([10.0, 20, 40, 80, 160, 320]))
    wanted = point_table()(scores).pmf.mean(axis=0)
    # 16 levels stand for six lengths: each counts for two or three of them.
    assert np.abs(nothing.pmf[0] - wanted).max() < 0.05
    assert nothing.pmf[0, GRID.index(np.array([10, 320]))].min() > 0.05
    assert (nothing.pmf == answer(one, [0, 0, 0], [True, True, True]).pmf).all()


def test_a_sample_that_says_nothing_counts_as_the_others_do() -> None:
    one = made()
    for x in (20, 300):
        known = answer(one, [x], [False])
        assert np.allclose(answer(one, [x, 0], [False, True]).pmf, known.pmf, atol=1e-6)


@pytest.mark.parametrize("lengths", [[200, 200], [10, 90], [40, 320]])
def test_to_be_stopped_never_makes_a_shorter_answer_likelier(lengths: list[int]) -> None:
    one = made()
    ways = [[False, False], [True, False], [True, True]]
    assert never_shorter(answer(one, lengths, way) for way in ways)


def test_without_text_and_count_it_is_the_prior() -> None:
    one = made(0.7, 0.2)
    length = prompt_length([Request()])
    assert np.isnan(length).all()
    for stopped in (True, False):
        found = one(np.array([[50]]), np.array([[stopped]]), length)
        assert np.allclose(found.pmf[0], one.table.prior, atol=1e-6)


def test_a_map_that_no_sample_can_move_is_the_prompts() -> None:
    one = LengthMap(point_table(), np.array([0.0, 1.0, 0.0]), USUAL)
    found = one(
        np.array([[3], [900], [0]]),
        np.array([[False], [False], [True]]),
        np.log1p(np.array([20.0, 20, 160])),
    )
    assert found.median()[0] == found.median()[1] < found.median()[2]


@pytest.mark.parametrize(
    ("weights", "usual", "said"),
    [
        (np.array([-0.1, 0, 0]), USUAL, "three weights"),
        (np.array([1.0, 0]), USUAL, "three weights"),
        (np.array([np.nan, 0, 0]), USUAL, "three weights"),
        (np.array([1.0, 0, 0]), USUAL[::-1], "must rise"),
        (np.array([1.0, 0, 0]), np.zeros(0), "must rise"),
    ],
)
def test_what_is_no_map(weights: FloatArray, usual: FloatArray, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        LengthMap(point_table(), weights, usual)


def test_each_request_is_answered_by_its_models_map() -> None:
    maps = {"big": made(factor=2.0), "other": made(factor=0.5), ALL_MODELS: made()}
    names = ["big", "", "other", "never seen", "big", "other"]
    requests = [Request(prompt="x" * 50, model=name) for name in names]
    lengths = np.array([[80], [80], [80], [80], [20], [20]])
    found = apply_maps(maps, requests, lengths, np.zeros(lengths.shape, bool)).median()
    assert found == pytest.approx([160, 80, 40, 80, 40, 10], rel=0.15)
    assert len(apply_maps(maps, [], np.zeros((0, 1), np.int64), np.zeros((0, 1), bool))) == 0


def test_the_length_of_a_prompt() -> None:
    known = Request(prompt="12345", context="123")
    assert prompt_length([known]) == pytest.approx(np.log1p(8))
    # Of a request that is known by its token ids only, four characters a token.
    for tokens, characters in ((30, 120), (10**400, 4 * 10**9)):
        found = prompt_length([Request(prompt_tokens=tokens)])
        assert found == pytest.approx(np.log1p(characters))
    assert np.isnan(prompt_length([Request(prompt_tokens=None), Request(prompt_tokens=-1)])).all()
    assert prompt_length([replace(known, prompt_tokens=999)]) == prompt_length([known])
    assert len(prompt_length([])) == 0


def test_the_identity_takes_the_small_models_length() -> None:
    lengths, ended = np.array([[100], [700], [0]]), np.zeros((3, 1), bool)
    found = identity(GRID, lengths, ended)
    assert found.median() == pytest.approx([100, 700, 0], rel=0.05, abs=1)
    low, high = found.quantile([0.16, 0.84])[0]
    assert (low, high) == pytest.approx((100 * np.exp(-0.5), 100 * np.exp(0.5)), rel=0.1)


def test_the_identity_of_stopped_and_missing_samples() -> None:
    stopped = identity(GRID, np.array([[256]]), np.array([[True]]))
    assert stopped.cdf(240).max() < 1e-6 and stopped.median()[0] > 400
    nothing = identity(GRID, *NONE)
    low, high = nothing.quantile([0.1, 0.9])[0]
    assert low < 50 and high > 1000
    both = identity(GRID, np.array([[100, 0]]), np.array([[False, True]]))
    assert np.allclose(both.pmf, identity(GRID, np.array([[100]]), np.array([[False]])).pmf)
    two = identity(GRID, np.array([[50, 400]]), np.array([[False, False]]))
    assert 50 < two.mean()[0] < 500 and two.cdf(150)[0] == pytest.approx(0.5, abs=0.1)
    huge = identity(GRID, np.array([[2**40]]), np.array([[True]]))
    assert np.isfinite(huge.pmf).all() and huge.pmf[0, -1] == pytest.approx(1)


def test_arrays_there_and_back() -> None:
    one = made(0.8, 0.1)
    again = LengthMap.from_arrays(GRID, one.arrays("m"), "m")
    lengths, censored = np.array([[5, 9], [80, 300], [40, 0]]), np.zeros((3, 2), bool)
    censored[1:, 1] = True
    prompts = np.log1p(np.array([3.0, 90, 1000]))
    assert (again(lengths, censored, prompts).pmf == one(lengths, censored, prompts).pmf).all()
    with pytest.raises(KeyError):
        LengthMap.from_arrays(GRID, one.arrays("m"), "another")
