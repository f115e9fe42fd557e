"""Costs of every policy, and the keys made of them."""

from math import inf, isfinite

import hypothesis
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lengthpred import LengthDistribution, LengthGrid, Request, prioritize
from lengthpred.errors import SettingsError
from lengthpred.ordering import (
    EPOCH_S,
    MOST,
    POLICIES,
    PREDICTING,
    SCALE,
    OrderingSettings,
    cost,
    priority,
)
from lengthpred.testing import FixedPredictor

GRID = LengthGrid()

# Anything that a server may see


@st.composite
def distributions(draw: st.DrawFn, n: int) -> LengthDistribution:
    """Odd ones: far apart, all overflow, cut from below or above, or both."""
    bins = st.integers(0, GRID.bins - 1)
    mass = st.floats(2**-20, 1)
    parts = st.dictionaries(bins, mass, min_size=1, max_size=4)
    weights = np.zeros((n, GRID.bins))
    for row in weights:
        for at, share in draw(parts).items():
            row[at] = share
    dist = LengthDistribution.from_weights(GRID, weights)
    tokens = st.one_of(st.integers(0, 40), st.integers(0, 2**31 - 1))
    if draw(st.booleans()):
        dist = dist.given(np.array(draw(st.lists(tokens, min_size=n, max_size=n)), np.int64))
    if draw(st.booleans()):
        dist = dist.clip(np.array(draw(st.lists(tokens, min_size=n, max_size=n)), np.int64))
    return dist


requests = st.builds(
    Request,
    prompt=st.one_of(st.text(max_size=9), st.just("\ud800")),
    prompt_tokens=st.one_of(st.none(), st.integers(0, 9000), st.just(10**30)),
    max_tokens=st.one_of(st.none(), st.integers(0, 3000), st.just(2**70)),
    slo_s=st.one_of(st.none(), st.floats()),
    sampling=st.sampled_from([{}, {"n": 1}, {"n": 5}, {"n": 10**400}, {"n": "x"}, {"n": 0}]),
)
settings = st.builds(
    OrderingSettings,
    max_overtake_s=st.floats(min_value=0, exclude_min=True, allow_infinity=False),
    cap=st.floats(1, 2**31),
    prefill_weight=st.floats(0, 10),
    quantile=st.one_of(st.none(), st.floats(0.001, 0.999)),
    preemption_ratio=st.floats(0, 1),
    slo_classes_s=st.sampled_from([(), (5.0,), (2.0, 10.0, 60.0)]),
    quantum=st.integers(1, 10**6),
)


@pytest.mark.parametrize("policy", POLICIES)
@hypothesis.settings(max_examples=25)
@given(st.data())
def test_costs_are_finite_and_within_the_cap(policy: str, data: st.DataObject) -> None:
    asked = data.draw(st.lists(requests, max_size=3))
    n = len(asked)
    written = st.one_of(st.just(0), st.integers(0, 5000), st.just(2**31))
    generated = data.draw(st.lists(written, min_size=n, max_size=n))
    chosen = data.draw(settings)
    costs = cost(policy, data.draw(distributions(n)), asked, generated, chosen)
    assert costs.dtype == np.float64 and costs.shape == (n,)
    assert np.isfinite(costs).all()
    assert (costs >= 0).all() and (costs <= chosen.cap).all()


@given(
    st.lists(st.tuples(st.floats(0, 2**31), st.floats(allow_nan=False)), max_size=5),
    st.floats(min_value=0, exclude_min=True),
)
def test_keys_are_whole_and_bounded(pairs: list[tuple[float, float]], overtake: float) -> None:
    costs, arrivals = [a for a, _ in pairs], [b for _, b in pairs]
    keys = priority(costs, arrivals, OrderingSettings(max_overtake_s=overtake))
    assert keys.dtype == np.int64 and keys.shape == (len(pairs),)
    assert (np.abs(keys) <= MOST).all()


# The starvation bound


@given(
    st.lists(
        st.tuples(st.floats(0, 1), st.floats(0, 3 * 10**9)),
        min_size=2,
        max_size=2,
    ),
    st.floats(1e-3, 1e9),
    st.floats(1, 2**31),
    st.floats(0, 3),
)
def test_a_later_request_overtakes_only_within_the_bound(
    pair: list[tuple[float, float]], overtake: float, cap: float, apart: float
) -> None:
    (first, arrived), (second, _) = pair
    chosen = OrderingSettings(max_overtake_s=overtake, cap=cap)
    # Around the bound, where it may break.
    arrivals = np.array([arrived, arrived + apart * overtake])
    keys = priority(np.array([first, second]) * cap, arrivals, chosen)
    rounding = 1 / SCALE / chosen.aging + 1e-12 * (1 + arrivals[1] + overtake)
    if keys[1] < keys[0]:
        assert arrivals[1] - arrivals[0] <= overtake + rounding


def test_the_bound_is_reached_and_not_passed() -> None:
    chosen = OrderingSettings(max_overtake_s=60, cap=4096)
    late = priority([4096.0, 0, 0], np.array([0, 59.9, 60.1]) + EPOCH_S, chosen)
    assert late[1] < late[0] < late[2]


def test_without_a_bound_arrival_does_not_count() -> None:
    keys = priority([5.0, 4.0], [EPOCH_S, 10.0**9 + EPOCH_S], OrderingSettings(max_overtake_s=inf))
    assert keys.tolist() == [5 * SCALE, 4 * SCALE]


@given(st.lists(st.floats(0, 4e9), min_size=2, max_size=9).map(sorted), st.floats(0, 4096))
def test_of_equal_cost_the_key_never_falls_with_arrival(times: list[float], same: float) -> None:
    assert (np.diff(priority(np.full(len(times), same), times)) >= 0).all()


def test_waiting_moves_all_keys_alike() -> None:
    keys = priority([10.0, 400.0], [EPOCH_S + 50, EPOCH_S + 50])
    later = priority([10.0, 400.0], [EPOCH_S + 90, EPOCH_S + 90])
    assert keys[1] - keys[0] == later[1] - later[0] == 390 * SCALE


# Asking


def plain(n: int) -> list[Request]:
    return [Request(prompt="x" * 40, prompt_tokens=10)] * n


def test_a_batch_of_strings_is_given_priorities() -> None:
    class ByPrompt(FixedPredictor):
        def predict(self, requests: object) -> LengthDistribution:
            assert isinstance(requests, list)
            return super().predict([Request(id=request.prompt) for request in requests])

    lengths = ByPrompt({"long": 900, "short": 5, "middle": 60})
    asked: list[Request | str] = ["middle", "long", Request(prompt="short")]
    keys = prioritize(asked, lengths)
    assert all(type(key) is int for key in keys)
    assert sorted(range(3), key=keys.__getitem__) == [2, 0, 1]
    reverse = prioritize(asked, lengths, "longest-first")
    assert sorted(range(3), key=reverse.__getitem__) == [1, 0, 2]
    assert prioritize([], lengths) == []
    # Of a batch nothing has to be bounded: what reasons for long is told apart, too.
    reasoning = ByPrompt({"a": 9000, "b": 30_000, "c": 5000})
    keys = prioritize(["a", "b", "c"], reasoning, "longest-first")
    assert np.argsort(keys).tolist() == [1, 0, 2]


def test_one_string_is_no_batch() -> None:
    with pytest.raises(SettingsError, match="give a list of them"):
        prioritize("abc", FixedPredictor())


def test_an_unknown_policy_is_told_the_nearest() -> None:
    with pytest.raises(SettingsError, match=r"'sjff' is no policy.*sjf"):
        cost("sjff", None, plain(1))


@pytest.mark.parametrize("policy", PREDICTING)
def test_what_predicts_needs_a_predictor(policy: str) -> None:
    with pytest.raises(SettingsError, match="give it a predictor"):
        cost(policy, None, plain(1))


@pytest.mark.parametrize("policy", sorted(set(POLICIES) - set(PREDICTING)))
def test_what_does_not_predict_needs_none(policy: str) -> None:
    assert isfinite(cost(policy, None, plain(1))[0])


def test_distributions_of_other_requests_are_refused() -> None:
    with pytest.raises(SettingsError, match="2 distributions were given for 1"):
        cost("sjf", FixedPredictor().predict(plain(2)), plain(1))


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_overtake_s": 0.0},
        {"max_overtake_s": float("nan")},
        {"cap": 0.5},
        {"cap": inf},
        {"prefill_weight": -1.0},
        {"prefill_weight": inf},
        {"quantile": 1.1},
        {"preemption_ratio": -0.1},
        {"quantum": 0},
        {"slo_classes_s": (10.0, 2.0)},
        {"slo_classes_s": (2.0, 2.0)},
    ],
)
def test_settings_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(SettingsError, match=next(iter(wrong))):
        OrderingSettings(**wrong)  # type: ignore[arg-type]
