"""The product-limit estimate, against numbers worked out by hand."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lengthpred import LengthGrid
from lengthpred.survival import count, hazards, hazards_of, marginal, pmf_of

# Bins 0, 1, 2-3, 4-7 and the overflow.
GRID = LengthGrid(np.array([0, 1, 2, 4, 8, 16]))


def estimate(
    lengths: list[int],
    stopped: list[int],
    weights: list[float] | None = None,
    **options: object,
) -> npt.NDArray[np.float64]:
    """The marginal of `lengths`, of which those numbered in `stopped` are censored."""
    return marginal(
        GRID,
        np.array(lengths, np.int64),
        np.isin(np.arange(len(lengths)), stopped),
        np.array(weights or [1.0] * len(lengths)),
        **options,  # type: ignore[arg-type]
    )


def test_counts_are_by_bin_and_by_what_ended_them() -> None:
    counted = count(
        GRID, np.array([0, 3, 3, 99]), np.array([0, 0, 1, 1], bool), np.array([1.0, 2, 3, 4])
    )
    assert counted.tolist() == [[1, 0, 2, 0, 0], [0, 0, 3, 0, 4]]


def test_product_limit_by_hand() -> None:
    # Ended: 0, 1, 2, 5; stopped: 1, 3. At risk: 6 in bin 0; 5 - 1 in bin 1; 3 - 1 in bin 2; 1.
    found = estimate([0, 1, 2, 5, 1, 3], [4, 5])
    survive = np.cumprod([5 / 6, 3 / 4, 1 / 2, 0])
    assert found == pytest.approx([*-np.diff([1, *survive]), 0])


def test_without_censoring_it_is_the_histogram() -> None:
    assert estimate([0, 1, 1, 5], []) == pytest.approx([0.25, 0.5, 0, 0.25, 0])


def test_an_unseen_tail_without_a_parent_ends_one_bin_above() -> None:
    # Half ended at 0; the rest was stopped in bin 2, so that nobody is at risk there.
    assert estimate([0, 0, 2, 3], [2, 3]) == pytest.approx([0.5, 0, 0, 0.5, 0])


def test_what_is_stopped_in_the_overflow_ends_there() -> None:
    assert estimate([100, 100], [0, 1]) == pytest.approx([0, 0, 0, 0, 1])


def test_an_unseen_tail_is_the_parents() -> None:
    parent = np.array([0.2, 0.2, 0.2, 0.1, 0.3])
    found = estimate([0] * 500 + [1] * 500, list(range(500, 1000)), parent=parent, strength=1e-9)
    assert found[0] == pytest.approx(0.5)
    # Nothing is at risk from bin 1 on, so the rest has the parent's shape.
    assert found[1:] == pytest.approx(0.5 * parent[1:] / 0.8)


def test_no_data_is_the_parent_or_uniform() -> None:
    parent = np.array([0.1, 0.2, 0.3, 0.4, 0.0])
    assert estimate([], [], parent=parent) == pytest.approx(parent)
    assert estimate([], []) == pytest.approx([0.2] * 5)


def test_a_parent_counts_for_its_strength() -> None:
    parent = np.array([0.0, 1.0, 0.0, 0.0, 0.0])
    found = estimate([0] * 30, [], parent=parent, strength=10)
    assert found == pytest.approx([0.75, 0.25, 0, 0, 0])
    weak = estimate([0] * 30, [], parent=parent, strength=1)
    assert weak == pytest.approx([30 / 31, 1 / 31, 0, 0, 0])


def test_a_weight_is_so_many_lengths() -> None:
    assert estimate([0, 1, 5], [1], [2.0, 3.0, 1.0]) == pytest.approx(
        estimate([0, 0, 1, 1, 1, 5], [2, 3, 4])
    )
    assert estimate([0, 1], [], [0.0, 0.5]) == pytest.approx([0, 1, 0, 0, 0])


def test_fractions_never_lift_a_hazard_over_one() -> None:
    found = hazards(np.array([[0.1] * 5, [0.0] * 5]) / 3)
    assert (found <= 1).all() and found[-1] == 1


@given(st.lists(st.floats(0.001, 1), min_size=5, max_size=5))
def test_from_distribution_to_hazards_and_back(weights: list[float]) -> None:
    pmf = np.array(weights) / sum(weights)
    assert pmf_of(hazards_of(pmf)) == pytest.approx(pmf)


def test_hazards_where_nothing_survives_are_one() -> None:
    assert hazards_of(np.array([0.5, 0.5, 0.0, 0.0, 0.0])).tolist() == [0.5, 1, 1, 1, 1]


def test_it_recovers_what_censoring_hides() -> None:
    rng = np.random.default_rng(0)
    lengths = rng.geometric(0.25, 20_000) - 1
    limits = rng.geometric(0.1, 20_000)
    found = marginal(GRID, np.minimum(lengths, limits), lengths > limits, np.ones(len(lengths)))
    truth = np.diff(1 - 0.75 ** np.array([0, 1, 2, 4, 8]))
    # Whole bins: what is stopped inside one is not counted as at risk in it, a small bias.
    assert found[:4] == pytest.approx(truth, abs=0.04)
    naive = np.bincount(GRID.index(np.minimum(lengths, limits)), minlength=5)[4] / 20_000
    assert abs(found[4] - 0.75**8) < abs(naive - 0.75**8)
