"""The filter over looks at growing answers: nothing learned, all learned, and noise."""

import numpy as np
import pytest

from lengthpred.distribution import LengthDistribution, LengthGrid
from lengthpred.smoothing import smooth, spread

BINS = LengthGrid(np.array([0, 10, 25, 50, 100, 200, 400, 800]))
TOKENS = LengthGrid(np.arange(1025))


def some(n: int, seed: int = 0, grid: LengthGrid | None = None) -> LengthDistribution:
    """n distributions around lengths of some hundred tokens, none of them impossible."""
    rng = np.random.default_rng(seed)
    samples = rng.lognormal(rng.uniform(3, 6, (n, 1)), 0.7, (n, 400)).clip(0, 1000)
    every = np.tile(np.arange(0, 1001, 4), (n, 1))
    return LengthDistribution.from_samples(grid or LengthGrid(), list(np.hstack([samples, every])))


@pytest.mark.parametrize("grid", [LengthGrid(), TOKENS])
def test_looks_that_say_nothing_leave_given(grid: LengthGrid) -> None:
    first = now = some(20, grid=grid)
    rng = np.random.default_rng(0)
    generated = np.zeros(20, np.int64)
    for _ in range(6):
        generated += rng.integers(0, 60, 20)
        equal = np.repeat(rng.uniform(0.1, 9, (20, 1)), BINS.bins, axis=1)
        now = smooth(now, generated, equal, BINS)
    wanted = first.given(generated)
    assert np.allclose(now.pmf, wanted.pmf, atol=1e-5)
    assert (now.floor == generated).all()
    assert np.allclose(now.mean(), wanted.mean(), rtol=1e-4)


def test_no_trust_is_given_as_well() -> None:
    dist, looks = some(5), np.random.default_rng(0).random((5, BINS.bins))
    assert np.allclose(smooth(dist, 30, looks, BINS, trust=0).pmf, dist.given(30).pmf, atol=1e-6)
    half = smooth(dist, 30, looks, BINS, trust=0.5).pmf
    twice = smooth(smooth(dist, 30, looks, BINS, trust=0.5), 30, looks, BINS, trust=0.5).pmf
    once = smooth(spread(dist, TOKENS), 30, looks, BINS)
    assert not np.allclose(half, twice, atol=1e-3)
    again = smooth(spread(dist, TOKENS), 30, looks, BINS, trust=0.5)
    assert np.allclose(smooth(again, 30, looks, BINS, trust=0.5).pmf, once.pmf, atol=1e-6)


def test_on_a_grid_of_tokens_it_is_bayes_by_hand() -> None:
    prior = some(3, grid=TOKENS)
    rng = np.random.default_rng(2)
    wanted, now = prior.pmf.astype(np.float64), prior
    for generated in (np.array([0, 5, 0]), np.array([7, 30, 90]), np.array([8, 31, 200])):
        looks = rng.random((3, BINS.bins))
        for row in range(3):
            for total in range(TOKENS.bins):
                left = total - generated[row]
                wanted[row, total] *= looks[row, BINS.index(left)] if left >= 0 else 0
        now = smooth(now, generated, looks, BINS)
    assert np.allclose(now.pmf, wanted / wanted.sum(axis=1, keepdims=True), atol=1e-6)


def test_a_look_cuts_a_bin_where_its_own_ends() -> None:
    """All of it in one bin of 100, and the look says that fewer than 25 are left of it."""
    grid = LengthGrid(np.array([0, 100, 200, 300]))
    even = LengthDistribution(grid, np.full((1, 3), 1 / 3, np.float32))
    short = (np.arange(BINS.bins) < 2).astype(float)[None]
    found = smooth(even, 90, short, BINS)
    # Ten lengths of the first bin are left, all of them near enough; 15 in 100 of the second are.
    assert found.pmf[0] == pytest.approx([10 / 25, 15 / 25, 0], abs=1e-6)


def test_noisy_looks_together_beat_each_alone_and_none() -> None:
    rng, n = np.random.default_rng(5), 600
    lengths = rng.lognormal(5, 0.8, n).clip(20, 1000).astype(np.int64)
    one = LengthDistribution.from_samples(TOKENS, [rng.lognormal(5, 0.8, 4000).clip(20, 1000)])
    prior = flat = one[np.zeros(n, np.int64)]
    flat = LengthDistribution.from_weights(TOKENS, np.ones((n, TOKENS.bins)))
    confused = np.exp(-np.abs(np.subtract.outer(np.arange(BINS.bins), np.arange(BINS.bins))) / 1.5)
    confused /= confused.sum(axis=1, keepdims=True)  # a row: what is seen of a true bin
    now = prior
    for generated in range(0, 160, 20):
        met = lengths > generated
        true = BINS.index(np.maximum(lengths - generated, 0))
        seen = (np.cumsum(confused[true], axis=1) < rng.random((n, 1))).sum(axis=1)
        looks = confused[:, np.minimum(seen, BINS.bins - 1)].T
        now = smooth(now, generated, looks, BINS)
        rivals = [prior.given(generated)]
        rivals += [smooth(alone, generated, looks, BINS) for alone in (prior, flat)]
        errors = [np.abs(d.median() - lengths)[met].mean() for d in (now, *rivals)]
        if generated >= 40:
            assert errors[0] < 0.9 * min(errors[1:]), generated
    assert met.sum() > 200


def test_an_impossible_look_is_passed_over() -> None:
    dist = LengthDistribution.from_samples(TOKENS, [[300], [300]])
    looks = np.zeros((2, BINS.bins))
    looks[1, 4] = 1e-300  # 100 to 199 left: true of 300 when 150 exist
    found = smooth(dist, 150, looks, BINS)
    assert found.median().tolist() == [300, 300]
    looks[:, 4], looks[:, 0] = 0, 1
    assert smooth(dist, 150, looks, BINS).median().tolist() == [300, 300]


def test_spreading_keeps_what_lies_below_each_edge() -> None:
    dist = some(4).given([0, 33, 100, 7]).clip([900, 500, 2000, 300])
    fine = spread(dist, TOKENS)
    for at in (0, 9, 33, 50, 128, 299, 300, 499, 777):
        assert fine.cdf(at) == pytest.approx(dist.cdf(at), abs=1e-5)
    assert (fine.floor == dist.floor).all() and (fine.ceiling == dist.ceiling).all()
    # Those checks that `trusted` leaves out.
    LengthDistribution(fine.grid, fine.pmf, fine.floor, fine.ceiling)
    short = spread(dist, LengthGrid(np.array([0, 20, 40])))
    assert short.pmf[:, 1] == pytest.approx(1 - dist.cdf(19), abs=1e-5)


@pytest.mark.parametrize(
    ("looks", "trust", "message"),
    [
        (np.ones((2, 3)), 1.0, "must have shape"),
        (-np.ones((2, 7)), 1.0, "non-negative"),
        (np.full((2, 7), np.nan), 1.0, "non-negative and finite"),
        (np.ones((2, 7)), 1.5, "trust must lie"),
    ],
)
def test_what_is_no_evidence(looks: np.ndarray, trust: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        smooth(some(2), 0, looks, BINS, trust=trust)


def test_nothing_asked_nothing_answered() -> None:
    assert len(smooth(some(3)[[]], 0, np.ones((0, BINS.bins)), BINS)) == 0
    assert len(spread(some(3)[[]], TOKENS)) == 0
