"""From a score to a distribution."""

import numpy as np
import pytest

from lengthpred import LengthGrid
from lengthpred.models.score_table import ScoreTable
from tests.training.scored import scored_lengths, table_of

GRID = LengthGrid(np.array([0, 1, 2, 4, 8]))
PMF = np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]], np.float32)
PRIOR = np.full(4, 0.25, np.float32)
TABLE = ScoreTable(GRID, np.array([-1.0, 0.0, 3.0]), PMF, PRIOR)


def test_it_blends_two_neighbours() -> None:
    answer = TABLE(np.array([-1.0, -0.25, 0.0, 1.0]))
    assert answer.pmf == pytest.approx(
        np.array([[1, 0, 0, 0], [0.25, 0.75, 0, 0], [0, 1, 0, 0], [0, 2 / 3, 0, 1 / 3]])
    )


def test_beyond_its_ends_it_answers_as_at_them() -> None:
    answer = TABLE(np.array([-50.0, 3.0, np.inf, -np.inf]))
    assert answer.pmf.argmax(axis=1).tolist() == [0, 3, 3, 0]


def test_no_score_gets_the_prior() -> None:
    answer = TABLE(np.array([np.nan, 0.0]))
    assert answer.pmf.tolist() == [PRIOR.tolist(), PMF[1].tolist()]
    assert len(TABLE(np.zeros(0))) == 0


def test_one_knot_is_a_constant() -> None:
    single = ScoreTable(GRID, np.zeros(1), PMF[1:2], PRIOR)
    assert single(np.array([-9.0, 0.0, 9.0])).pmf.tolist() == [PMF[1].tolist()] * 3


def test_a_higher_score_never_means_a_shorter_answer() -> None:
    table = table_of(*scored_lengths(3000, seed=3))
    scores = np.linspace(-0.2, 1.2, 500)
    answer = table(scores)
    for q in (0.1, 0.5, 0.9):
        assert (np.diff(answer.quantile(q)) >= -1e-3).all()


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="3 knots"):
        ScoreTable(GRID, TABLE.knots, PMF[:2], PRIOR)
    with pytest.raises(ValueError, match="knots"):
        ScoreTable(GRID, TABLE.knots, PMF, PRIOR[:2])


def test_arrays_and_back() -> None:
    again = ScoreTable.from_arrays(GRID, TABLE.arrays("x"), "x")
    scores = np.array([-2, 0.7, np.nan])
    assert (again(scores).pmf == TABLE(scores).pmf).all()
    with pytest.raises(KeyError):
        ScoreTable.from_arrays(GRID, TABLE.arrays("x"), "y")
