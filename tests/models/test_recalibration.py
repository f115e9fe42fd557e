"""Mending distributions by the levels at which truths fell."""

import numpy as np
import pytest

from lengthpred import LengthDistribution, LengthGrid
from lengthpred.metrics import pit
from lengthpred.models.recalibration import LEVELS, Recalibration, levels_of, smoothed

GRID = LengthGrid()


def lognormal(median: float, sigma: float, n: int, seed: int = 0) -> np.ndarray:
    draws = median * np.exp(sigma * np.random.default_rng(seed).standard_normal(n))
    return draws.astype(np.int64)


def predicted(n: int, median: float = 100, sigma: float = 0.5) -> LengthDistribution:
    one = LengthDistribution.from_samples(GRID, [lognormal(median, sigma, 20_000)])
    return one[np.zeros(n, int)]


def learnt(
    dist: LengthDistribution, lengths: np.ndarray, stopped: np.ndarray | None = None
) -> Recalibration:
    flags = np.zeros(len(lengths), bool) if stopped is None else stopped
    empty = Recalibration(half_life=200, strength=30)
    return empty.learnt(dist, [()] * len(lengths), lengths, flags)


def coverage(dist: LengthDistribution, lengths: np.ndarray) -> float:
    uniform = np.random.default_rng(9).random(len(lengths))
    level = pit(dist, lengths, np.zeros(len(lengths), bool), uniform)
    return float((np.abs(level - 0.5) <= 0.4).mean())


@pytest.mark.parametrize(
    ("median", "sigma"), [(300, 0.5), (30, 0.5), (100, 1.5), (100, 0.1), (9000, 0.2), (2, 0.4)]
)
def test_intervals_cover_after_500_of_any_shift(median: float, sigma: float) -> None:
    later = lognormal(median, sigma, 4000, seed=9)
    covered = []
    for seed in range(4):
        mended = learnt(predicted(500), lognormal(median, sigma, 500, seed))
        shown = mended(predicted(1), [()])[np.zeros(len(later), int)]
        covered.append(coverage(shown, later))
    assert 0.76 < np.mean(covered) < 0.89
    assert abs(coverage(predicted(len(later)), later) - 0.8) > 0.1  # so there was much to mend
    LengthDistribution(GRID, shown.pmf[:1])  # a distribution, as its checks see it


def test_what_was_right_stays_nearly_as_it_was() -> None:
    mended = learnt(predicted(3000), lognormal(100, 0.5, 3000, seed=1))
    before, after = predicted(1), mended(predicted(1), [()])
    levels = [0.1, 0.5, 0.9]
    assert after.quantile(levels) == pytest.approx(before.quantile(levels), rel=0.12)


def test_a_longer_answer_stays_the_longer_one() -> None:
    short, long = predicted(1, 90, 0.5), predicted(1, 110, 0.5)
    mended = learnt(predicted(500), lognormal(300, 1.0, 500, seed=1))
    both = mended(LengthDistribution.concat([short, long]), [(), ()])
    assert (np.diff(both.pmf.cumsum(axis=1), axis=0) <= 1e-6).all()


def test_stopped_answers_say_only_that_the_truth_is_no_shorter() -> None:
    # All answers are as predicted, but a limit of 100 stops half of them.
    truth = lognormal(100, 0.5, 4000, seed=1)
    stopped = truth >= 100
    seen = np.minimum(truth, 100)
    levels = [0.1, 0.5, 0.9]
    known = learnt(predicted(4000), seen, stopped)(predicted(1), [()]).quantile(levels)
    taken_as_whole = learnt(predicted(4000), seen)(predicted(1), [()]).quantile(levels)
    assert known == pytest.approx(predicted(1).quantile(levels), rel=0.15)
    assert taken_as_whole[0, 2] < 120 < known[0, 2]


def test_models_are_mended_apart_and_an_unknown_one_as_all_are() -> None:
    paths = [("a",), ("b",)] * 1000
    lengths = np.where(
        np.arange(2000) % 2 == 0, lognormal(100, 0.5, 2000, 1), lognormal(400, 0.5, 2000, 2)
    )
    empty = Recalibration(200, 30)
    mended = empty.learnt(predicted(2000), paths, lengths, np.zeros(2000, bool))
    a, b, other = mended(predicted(3), [("a",), ("b",), ("c",)]).median()
    assert a == pytest.approx(100, rel=0.2) and b == pytest.approx(400, rel=0.2)
    assert a < other < b
    assert empty.cells == {}  # what made it is as it was


def test_a_batch_counts_as_its_rows_one_by_one() -> None:
    lengths = lognormal(200, 0.7, 60, seed=3)
    stopped = np.arange(60) % 5 == 0
    dist = predicted(60)
    whole = learnt(dist, lengths, stopped)
    single = Recalibration(200, 30)
    for i in range(60):
        single = single.learnt(dist[i], [()], lengths[i : i + 1], stopped[i : i + 1])
    assert np.allclose(whole.cells[()], single.cells[()])
    ended = sum(0.5 ** (k / 200) for k in range(60) if not stopped[59 - k])
    assert whole.cells[()][0].sum() == pytest.approx(ended)


def test_bounds_are_kept() -> None:
    dist = predicted(1).given(50).clip(400)
    mended = learnt(predicted(500), lognormal(5000, 0.5, 500, seed=1))(dist, [()])
    LengthDistribution(GRID, mended.pmf, floor=mended.floor, ceiling=mended.ceiling)
    assert dist.quantile(0.9)[0] < mended.quantile(0.9)[0] <= 400
    edges = predicted(1).clip(0)
    assert mended.mean()[0] > 50 and smoothed(edges).mean()[0] == 0


def test_levels_of_a_truth_are_those_of_its_own_mass() -> None:
    dist = LengthDistribution.from_samples(GRID, [[3, 3, 9, 9]])[[0, 0, 0]]
    low, high = levels_of(dist, np.array([3, 9, 9]), np.array([False, False, True]))
    assert low.tolist() == [0, 0.5, 0.5] and high.tolist() == [0.5, 1, 1]
    assert (np.diff(LEVELS) > 0).all() and LEVELS[0] == 0 and LEVELS[-1] == 1


@pytest.mark.parametrize(
    ("paths", "cells"),
    [
        ([[]], np.zeros((1, 2, 3))),
        ([["a"]], np.zeros((1, 2, len(LEVELS) - 1))),
        ([[]], np.full((1, 2, len(LEVELS) - 1), -1.0)),
    ],
)
def test_damaged_cells_are_refused(paths: list[list[str]], cells: np.ndarray) -> None:
    with pytest.raises(ValueError, match="cell"):
        Recalibration.from_array(150, 30, paths, cells)
