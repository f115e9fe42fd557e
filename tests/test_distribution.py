"""What holds for every distribution, whatever its numbers."""

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lengthpred import LengthDistribution, LengthGrid

GRID = LengthGrid()
SMALL = LengthGrid(np.array([0, 1, 2, 4, 8, 20, 50]))
Weights = npt.NDArray[np.float64]


def weights(grid: LengthGrid = SMALL, rows: int = 4) -> st.SearchStrategy[Weights]:
    """Rows of weights, some of them zero, at least one above zero in each row."""
    element = st.one_of(st.just(0.0), st.floats(2**-20, 1.0, width=32))
    shape = st.tuples(st.integers(1, rows), st.just(grid.bins))
    return arrays(np.float64, shape, elements=element).filter(lambda w: bool((w.sum(1) > 0).all()))


distributions = weights().map(lambda w: LengthDistribution.from_weights(SMALL, w))
levels = st.lists(st.floats(0, 1), min_size=1, max_size=6).map(sorted)


@given(distributions)
def test_pmf_sums_to_one(d: LengthDistribution) -> None:
    assert d.pmf.dtype == np.float32
    assert np.allclose(d.pmf.sum(axis=1), 1, atol=1e-5)
    assert (d.pmf >= 0).all()


@given(distributions, levels)
def test_quantiles_rise(d: LengthDistribution, q: list[float]) -> None:
    values = d.quantile(q)
    assert values.shape == (len(d), len(q))
    assert (np.diff(values, axis=1) >= 0).all()
    assert (values >= 0).all() and (values <= SMALL.edges[-1] - 1).all()


@given(distributions)
def test_cdf_rises_from_zero_to_one(d: LengthDistribution) -> None:
    values = np.array([d.cdf(x) for x in range(-1, int(SMALL.edges[-1]))])
    assert (np.diff(values, axis=0) >= 0).all()
    assert (values[0] == 0).all() and np.allclose(values[-1], 1)


@given(distributions, st.floats(0, 1))
def test_quantile_is_the_inverse_of_cdf(d: LengthDistribution, q: float) -> None:
    value = d.quantile(q)
    assert (d.cdf(np.ceil(value)) >= q - 1e-6).all()
    assert (d.cdf(np.floor(value) - 1) <= q + 1e-6).all()


@given(distributions, st.integers(0, 120))
def test_given_puts_no_mass_below(d: LengthDistribution, k: int) -> None:
    later = d.given(k)
    assert np.allclose(later.pmf.sum(axis=1), 1, atol=1e-5)
    assert (later.cdf(k - 1) == 0).all()
    assert (later.quantile(0.0) >= k).all() and (later.mean() >= k).all()
    assert (later.sample(np.random.default_rng(0), 20) >= k).all()
    assert (later.floor == k).all()


@given(distributions, st.integers(0, 19), st.integers(0, 30))
def test_given_is_conditional_probability(d: LengthDistribution, k: int, more: int) -> None:
    left = 1 - d.cdf(k - 1)
    later, usual = d.given(k), left > 1e-3
    expected = (d.cdf(k + more) - d.cdf(k - 1))[usual] / left[usual]
    assert np.allclose(later.cdf(k + more)[usual], expected, atol=1e-4)


@given(distributions, st.integers(0, 30), st.integers(0, 30))
def test_given_twice_is_given_the_larger(d: LengthDistribution, j: int, k: int) -> None:
    usual = d.cdf(max(j, k) - 1) < 0.999  # else what is left is a guess, and depends on the way
    twice, once = d.given(j).given(k).mean(), d.given(max(j, k)).mean()
    assert np.allclose(twice[usual], once[usual], rtol=1e-3)


def exact(grid: LengthGrid, probability: Weights) -> LengthDistribution:
    """The distribution on `grid` of lengths 0, 1, … with these probabilities."""
    return LengthDistribution.from_weights(
        grid, np.add.reduceat(np.append(probability, 0.0), grid.edges[:-1])[None, :]
    )


def widest(grid: LengthGrid, k: int) -> float:
    """The width of the bin that holds k."""
    i = int(grid.index(k))
    return float(grid.edges[i + 1] - grid.edges[i])


@given(st.floats(5, 2000), st.integers(0, 3000))
def test_mean_remaining_of_a_geometric(mean: float, k: int) -> None:
    p = 1 / (mean + 1)
    lengths = np.arange(GRID.edges[-1])
    d = exact(GRID, p * np.exp(lengths * np.log1p(-p)))
    if d.cdf(k - 1)[0] < 0.999:
        # Memoryless: the mean remaining is the mean, however many tokens exist.
        assert abs(d.given(k).mean()[0] - k - mean) <= widest(GRID, int(k + mean))


@given(st.integers(1, 20_000), st.floats(0, 1))
def test_mean_remaining_of_a_uniform(last: int, share: float) -> None:
    probability = np.zeros(GRID.edges[-1])
    probability[: last + 1] = 1
    k = int(share * last)
    remaining = exact(GRID, probability).given(k).mean()[0] - k
    assert abs(remaining - (last - k) / 2) <= widest(GRID, last)


@given(weights(), st.integers(0, 2**32 - 1))
def test_mean_is_within_the_resolution_of_the_grid(w: Weights, seed: int) -> None:
    rng = np.random.default_rng(seed)
    lengths = [rng.integers(0, SMALL.edges[-1], 30) for _ in range(3)]
    d = LengthDistribution.from_samples(SMALL, lengths)
    for row, mean in zip(lengths, d.mean(), strict=True):
        widths = np.diff(SMALL.edges)[SMALL.index(row)]
        assert abs(row.mean() - mean) <= widths.mean() / 2


@given(weights(rows=6), st.integers(0, 60), st.integers(0, 60), st.floats(0, 1))
def test_a_batch_equals_its_rows_one_by_one(w: Weights, k: int, limit: int, q: float) -> None:
    def asked(d: LengthDistribution) -> Weights:
        changed = d.given(k), d.clip(limit), d
        return np.stack([f for c in changed for f in (c.mean(), c.quantile(q), c.cdf(k))], axis=1)

    d = LengthDistribution.from_weights(SMALL, w)
    assert np.array_equal(asked(d), np.concatenate([asked(row) for row in d]))


@given(distributions, st.integers(0, 80))
def test_clip_never_exceeds_the_limit(d: LengthDistribution, limit: int) -> None:
    cut = d.clip(limit)
    assert np.allclose(cut.cdf(limit), 1, atol=1e-5)
    assert (cut.quantile(1.0) <= limit).all() and (cut.mean() <= limit + 1e-3).all()
    assert (cut.sample(np.random.default_rng(0), 20) <= limit).all()
    assert (cut.mean() <= d.mean() + widest(SMALL, limit)).all()


def test_a_limit_below_0_counts_as_0() -> None:
    d = LengthDistribution.from_samples(GRID, [[40]])
    assert d.clip(-1).mean() == d.clip(0).mean() == 0


def test_clip_above_everything_changes_nothing() -> None:
    d = LengthDistribution.from_samples(GRID, [[3, 700], [40]])
    assert np.array_equal(d.clip(10**9).pmf, d.pmf)
    assert np.array_equal(d.clip(np.array([10**12, 10**6])).mean(), d.mean())


def test_given_beyond_all_mass_expects_one_bin_more() -> None:
    d = LengthDistribution.from_samples(GRID, [[10]]).given(100)
    assert d.pmf[0, GRID.index(100) + 1] == 1
    far = d.given(10**6)
    assert far.mean()[0] >= 10**6 and np.isfinite(far.mean()).all()
    huge = d.given(np.array([2**40]))
    assert huge.floor[0] > 0 and np.isfinite(huge.mean()).all()


@given(weights(rows=3), weights(rows=3), st.floats(0, 1))
def test_mixture(a: Weights, b: Weights, share: float) -> None:
    n = min(len(a), len(b))
    p, q = (LengthDistribution.from_weights(SMALL, w[:n]) for w in (a, b))
    shares = np.array([share, 1 - share])
    mixed = LengthDistribution.mixture([p, q], shares)
    assert np.allclose(mixed.mean(), share * p.mean() + (1 - share) * q.mean(), rtol=1e-3)
    by_row = LengthDistribution.mixture([p, q], np.repeat(shares[:, None], n, axis=1))
    assert np.allclose(by_row.pmf, mixed.pmf)


@given(distributions, distributions)
def test_concat_and_slicing_are_opposites(a: LengthDistribution, b: LengthDistribution) -> None:
    both = LengthDistribution.concat([a, b.given(3)])
    assert len(both) == len(a) + len(b)
    assert np.array_equal(both[: len(a)].pmf, a.pmf)
    assert np.array_equal(both[len(a) :].floor, b.given(3).floor)


def test_rows_are_picked_as_in_numpy() -> None:
    d = LengthDistribution.from_samples(GRID, [[i] for i in range(5)])
    mask = np.array([True, False, False, True, False])
    for rows, wanted in (
        (0, [0]),
        (-1, [4]),
        (np.int64(-2), [3]),
        (slice(1, 3), [1, 2]),
        (slice(None, None, -1), [4, 3, 2, 1, 0]),
        (mask, [0, 3]),
        (mask.tolist(), [0, 3]),
        ([4, 0, 0], [4, 0, 0]),
        ((1, 2), [1, 2]),
        ([], []),
    ):
        assert d[rows].mean().tolist() == wanted  # type: ignore[index]
    assert [row.mean()[0] for row in d] == [0, 1, 2, 3, 4]
    for outside in (5, -6):
        with pytest.raises(IndexError):
            d[outside]


@given(distributions)
def test_samples_have_the_mean(d: LengthDistribution) -> None:
    drawn = d.sample(np.random.default_rng(0), 4000)
    assert drawn.shape == (len(d), 4000) and drawn.dtype == np.int64
    assert (drawn >= 0).all() and (drawn < SMALL.edges[-1]).all()
    assert np.allclose(drawn.mean(axis=1), d.mean(), atol=5 * 25 / np.sqrt(4000))
    assert (d.pmf[np.arange(len(d))[:, None], SMALL.index(drawn)] > 0).all()


def test_no_rows() -> None:
    d = LengthDistribution.from_weights(GRID, np.zeros((0, GRID.bins)))
    assert len(d) == len(d.mean()) == len(d.median()) == len(d.given(5)) == len(d.clip(5)) == 0
    assert d.quantile([0.1, 0.9]).shape == (0, 2)
    assert d.sample(np.random.default_rng(0), 3).shape == (0, 3)
    assert len(LengthDistribution.from_samples(GRID, [])) == 0


def uniform(n: int = 1) -> npt.NDArray[np.float32]:
    return np.full((n, SMALL.bins), 1 / SMALL.bins, np.float32)


@pytest.mark.parametrize(
    "pmf",
    [
        uniform()[0],
        uniform()[:, :-1],
        uniform() * 2,
        np.full((1, SMALL.bins), np.nan),
        [[2.0, -1.0, 0, 0, 0, 0]],
        [[np.inf, 0, 0, 0, 0, 0]],
        [[0.0] * SMALL.bins],
    ],
    ids=["one-dimensional", "short", "sums to two", "nan", "negative", "infinite", "zero"],
)
def test_what_is_no_distribution_is_refused(pmf: Any) -> None:
    with pytest.raises(ValueError):
        LengthDistribution(SMALL, pmf)


@pytest.mark.parametrize("bad", [np.nan, -1.0, np.inf])
def test_weights_that_cannot_be_scaled_are_refused(bad: float) -> None:
    w = np.ones((2, SMALL.bins))
    w[1, 2] = bad
    for wrong in (w, np.zeros_like(w), w[0], w[:, 1:]):
        with pytest.raises(ValueError):
            LengthDistribution.from_weights(SMALL, wrong)


def test_other_arguments_that_are_refused() -> None:
    d = LengthDistribution(SMALL, uniform(2))
    other = LengthDistribution.from_samples(GRID, [[1], [2]])
    for wrong in (
        lambda: d.quantile(1.1),
        lambda: d.quantile(float("nan")),
        lambda: d.cdf([1, 2, 3]),
        lambda: d.given([1, 2, 3]),
        lambda: d.given(float("nan")),
        lambda: d.clip([[1]] * 3),
        lambda: d.clip("many"),
        lambda: LengthDistribution(SMALL, uniform(2), [1, 2, 3]),  # type: ignore[arg-type]
        lambda: LengthDistribution(SMALL, uniform(2), -1),  # type: ignore[arg-type]
        lambda: LengthDistribution(SMALL, uniform(2), 4),  # type: ignore[arg-type]
        lambda: LengthDistribution.from_samples(SMALL, [[1], []]),
        lambda: LengthDistribution.from_samples(SMALL, [[1, -1]]),
        lambda: LengthDistribution.from_samples(SMALL, [[1.0, np.nan]]),
        lambda: LengthDistribution.mixture([d, d], [0.0, 0.0]),
        lambda: LengthDistribution.mixture([d, d], [1.5, -0.5]),
        lambda: LengthDistribution.mixture([d, other], [0.5, 0.5]),
        lambda: LengthDistribution.mixture([], []),
        lambda: LengthDistribution.concat([d, other]),
        lambda: LengthDistribution.concat([]),
        lambda: LengthGrid(np.array([0])),
        lambda: LengthGrid(np.array([1, 2])),
        lambda: LengthGrid(np.array([0, 2, 2])),
        lambda: LengthGrid(np.array([0, 1.5, 3])),
    ):
        with pytest.raises(ValueError):
            wrong()


@given(distributions)
def test_nothing_changes_a_distribution(d: LengthDistribution) -> None:
    before = d.pmf.copy(), d.floor.copy(), d.ceiling.copy()
    d.given(7), d.clip(5), d.median(), d.mean(), d.sample(np.random.default_rng(0))
    LengthDistribution.mixture([d, d.given(3)], [0.5, 0.5])
    for was, name in zip(before, ("pmf", "floor", "ceiling"), strict=True):
        assert np.array_equal(was, getattr(d, name))
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(d, name, was)


def test_a_distribution_is_its_own() -> None:
    pmf = uniform(1)
    d = LengthDistribution(SMALL, pmf)
    pmf[:] = 0
    assert np.isclose(d.pmf.sum(), 1)


def test_grid_is_as_documented() -> None:
    edges = GRID.edges
    assert GRID.bins == 83 and edges[:17].tolist() == list(range(17))
    assert edges[-2] == 32768 and (np.diff(edges) > 0).all()
    assert edges[16:83:6].tolist() == [2**i for i in range(4, 16)]
    assert LengthGrid() == GRID and hash(LengthGrid()) == hash(GRID) and SMALL != GRID
    assert GRID.index([0, 15, 16, 10**9]).tolist() == [0, 15, 16, 82]
    with pytest.raises(ValueError):
        GRID.edges[0] = 1


def test_a_limit_outlives_what_is_generated() -> None:
    made = LengthDistribution.from_samples(GRID, [[3]]).clip(1000)
    assert made.given(999).quantile([0, 1]).tolist() == [[999, 1000]]
    assert made.given(1000).mean()[0] == 1000
    assert made.given(1001).mean()[0] > 1001  # more exists than the limit allows: it is none
