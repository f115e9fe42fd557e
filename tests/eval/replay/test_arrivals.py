"""When requests arrive."""

import numpy as np
import pytest

from lengthpred.errors import DataError, SettingsError
from lengthpred.eval.replay.arrivals import arrive, recorded

N = 40_000


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.parametrize(("kind", "shape"), [("poisson", 1.0), ("bursty", 0.25), ("bursty", 4.0)])
def test_gaps_have_the_rate_and_the_spread_of_their_kind(kind: str, shape: float) -> None:
    times = arrive(kind, N, 5.0, rng(), burstiness=shape)
    gaps = np.diff(times, prepend=0)
    assert times.shape == (N,) and (gaps >= 0).all()
    assert gaps.mean() == pytest.approx(1 / 5, rel=0.03)
    # A gamma's coefficient of variation is one over the root of its shape.
    assert gaps.std() / gaps.mean() == pytest.approx(shape**-0.5, rel=0.04)


def test_a_burst_comes_at_once() -> None:
    assert arrive("burst", 3, None, rng()).tolist() == [0, 0, 0]


def test_poisson_ignores_burstiness() -> None:
    assert (arrive("poisson", 9, 2, rng(), burstiness=0.1) == arrive("poisson", 9, 2, rng())).all()


@pytest.mark.parametrize("rate", [None, 0.0, -1.0, float("inf"), float("nan")])
def test_a_rate_that_is_none_is_refused(rate: float | None) -> None:
    with pytest.raises(SettingsError, match="rate above 0"):
        arrive("poisson", 3, rate, rng())


def test_an_unknown_kind_or_burstiness_is_refused() -> None:
    with pytest.raises(SettingsError, match="'poison' is no kind of arrivals"):
        arrive("poison", 3, 1.0, rng())
    with pytest.raises(SettingsError, match="burstiness must be above 0"):
        arrive("bursty", 3, 1.0, rng(), burstiness=0.0)


def test_recorded_times_begin_at_zero() -> None:
    assert recorded(np.array([7.0, 7.5, 9.0]), None).tolist() == [0, 0.5, 2]


def test_recorded_times_are_stretched_to_a_rate() -> None:
    times = recorded(np.array([7.0, 7.5, 9.0]), 4.0)
    assert times.tolist() == [0, 0.125, 0.5]  # two gaps, 4 a second


@pytest.mark.parametrize("times", [[], [1.0, np.nan], [2.0, 1.0]])
def test_recorded_times_that_are_none_are_refused(times: list[float]) -> None:
    with pytest.raises(DataError, match="arrival_s"):
        recorded(np.array(times), None)


def test_one_moment_has_no_rate() -> None:
    assert recorded(np.array([3.0, 3.0]), None).tolist() == [0, 0]
    with pytest.raises(DataError, match="at one time"):
        recorded(np.array([3.0, 3.0]), 1.0)
