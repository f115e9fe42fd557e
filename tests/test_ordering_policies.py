"""What each policy makes of lengths, prompts, progress and objectives, by hand."""

from dataclasses import replace
from math import inf

import numpy as np
import pytest

from lengthpred import LengthDistribution, LengthGrid, Request
from lengthpred.errors import SettingsError
from lengthpred.ordering import EPOCH_S, OrderingSettings, cost, priority, prompt_tokens

GRID = LengthGrid()


def certain(*lengths: int) -> LengthDistribution:
    """Certain of these lengths, to the token."""
    exact = np.array(lengths, np.int32)
    pmf = np.eye(GRID.bins, dtype=np.float32)[GRID.index(exact)]
    return LengthDistribution(GRID, pmf, floor=exact, ceiling=exact)


def plain(n: int) -> list[Request]:
    return [Request(prompt="x" * 40, prompt_tokens=10)] * n


def mixed(*parts: tuple[int, float]) -> LengthDistribution:
    """One distribution on lengths below 16, where a bin is a length, or on whole bins."""
    weights = np.zeros((1, GRID.bins))
    for length, share in parts:
        weights[0, GRID.index(length)] += share
    return LengthDistribution.from_weights(GRID, weights)


def test_sjf_is_the_length_that_is_left() -> None:
    dist = certain(700, 20, 300)
    assert cost("sjf", dist, plain(3)).tolist() == [700, 20, 300]
    assert cost("sjf", dist, plain(3), [100, 0, 299]).tolist() == [600, 20, 1]


def test_sjf_counts_answers_limits_and_prompts() -> None:
    asked = [
        Request(prompt_tokens=10, sampling={"n": 3}),
        Request(prompt_tokens=10, max_tokens=50),
        Request(prompt_tokens=10, sampling={"n": 3}, max_tokens=50),
    ]
    weighed = OrderingSettings(prefill_weight=0.5)
    assert cost("sjf", certain(200, 200, 200), asked, None, weighed).tolist() == [605, 55, 155]


def test_a_length_that_the_client_forces_counts_whatever_is_predicted() -> None:
    dist = LengthDistribution.concat([mixed((12, 0.5), (200, 0.5))] * 6)
    asked = [
        Request(),
        Request(max_tokens=700, sampling={"ignore_eos": True}),
        Request(max_tokens=700, sampling={"ignore_eos": False}),
        Request(sampling={"ignore_eos": True}),
        Request(sampling={"min_tokens": 100}),
        Request(max_tokens=700, sampling={"min_tokens": 2**70}),
    ]
    free, exact, unforced, endless, least, refused = cost("sjf", dist, asked)
    assert exact == refused == 700 and endless == 4096
    assert unforced == free < 150 < least < 250  # of the two only the longer one is left
    assert cost("gittins", dist, asked)[1] == 700
    assert cost("longest-first", dist, asked)[1] == 4096 - 700
    left = cost("srpt", dist, asked, [0, 300, 0, 0, 150, 0])
    assert left[1] == 400 and left[4] < 100


@pytest.mark.parametrize("said", [None, "7", -1, 0, float("nan"), [5], {}])
def test_what_forces_nothing_is_passed_over(said: object) -> None:
    asked = [Request(sampling={"min_tokens": said, "ignore_eos": said})]
    assert cost("sjf", certain(20), asked) == 20


def test_longest_first_is_the_reverse_of_shortest_first() -> None:
    dist = certain(700, 20, 300)
    assert cost("longest-first", dist, plain(3)).tolist() == [3396, 4076, 3796]
    short = np.argsort(cost("sjf", dist, plain(3)))
    assert np.argsort(cost("longest-first", dist, plain(3))).tolist() == short[::-1].tolist()


def test_what_is_risky_goes_by_the_quantile_that_is_asked_for() -> None:
    risky, sure = mixed((2, 0.7), (1000, 0.3)), mixed((12, 1))
    dist = LengthDistribution.concat([risky, sure])
    by_mean = cost("sjf", dist, plain(2))
    by_median = cost("sjf", dist, plain(2), None, OrderingSettings(quantile=0.5))
    assert by_mean[0] > by_mean[1]
    assert by_median.tolist() == [2, 12]
    # longest-first takes the 0.9 quantile of itself, sjf the mean.
    long = cost("longest-first", dist, plain(2))
    assert long.tolist() == (4096 - dist.quantile(0.9)).tolist()
    middle = cost("longest-first", dist, plain(2), None, OrderingSettings(quantile=0.5))
    assert middle.tolist() == [4094, 4084]


def test_srpt_goes_by_what_is_left_until_little_is() -> None:
    chosen = OrderingSettings(preemption_ratio=0.8)
    dist = certain(100, 100, 100, 100)
    assert cost("srpt", dist, plain(4), [0, 50, 79, 81], chosen).tolist() == [100, 50, 21, 0]
    never = replace(chosen, preemption_ratio=1.0)
    assert cost("srpt", dist, plain(4), [0, 50, 79, 81], never).tolist() == [100, 50, 21, 19]


def test_srpt_expects_more_once_an_answer_has_run_on() -> None:
    dist = mixed((2, 0.9), (12, 0.1))
    assert cost("srpt", dist, plain(1))[0] == pytest.approx(3.0)
    assert cost("srpt", dist, plain(1), [3])[0] == pytest.approx(9.0)


# Gittins: the best ratio of expected service to the chance of being done by then.


@pytest.mark.parametrize("length", [1, 12, 300, 4000])
def test_gittins_of_a_certain_length_is_that_length(length: int) -> None:
    assert cost("gittins", certain(length), plain(1))[0] == pytest.approx(length)


def test_gittins_of_a_certain_length_falls_by_what_is_written() -> None:
    assert cost("gittins", certain(300), plain(1), [120])[0] == pytest.approx(180)


@pytest.mark.parametrize("p", [0.05, 0.5, 0.9])
def test_gittins_of_two_lengths_is_the_better_of_two_stops(p: float) -> None:
    short, long = 3, 13
    # Stop at the short one: it takes 3 tokens either way. Or go on to the end.
    at_once, to_the_end = short / p, p * short + (1 - p) * long
    found = cost("gittins", mixed((short, p), (long, 1 - p)), plain(1))[0]
    assert found == pytest.approx(min(at_once, to_the_end), rel=1e-6)


def test_gittins_prefers_a_gamble_that_pays_to_the_same_mean() -> None:
    gamble, sure = mixed((1, 0.5), (13, 0.5)), mixed((7, 1.0))
    dist = LengthDistribution.concat([gamble, sure])
    by_mean, by_index = cost("sjf", dist, plain(2)), cost("gittins", dist, plain(2))
    assert by_mean[0] == pytest.approx(by_mean[1])
    assert by_index[0] == pytest.approx(2) and by_index[1] == pytest.approx(7)


def test_gittins_of_a_memoryless_length_hardly_changes_with_progress() -> None:
    lengths = np.arange(1, GRID.edges[-1])
    mass = np.bincount(GRID.index(lengths), 0.99 ** (lengths - 1.0), GRID.bins)
    geometric = LengthDistribution.from_weights(GRID, mass[None])
    written = [0, 16, 40, 64]
    found = cost("gittins", geometric[[0] * 4], plain(4), written)
    # The mean is 100, and so is the index; whole bins are coarse.
    assert found == pytest.approx(100, rel=0.12)


def test_gittins_times_answers_and_prompts() -> None:
    asked = [Request(prompt_tokens=40, sampling={"n": 3})]
    weighed = OrderingSettings(prefill_weight=0.25)
    assert cost("gittins", certain(20), asked, None, weighed)[0] == pytest.approx(70)


# Policies that do not predict


def test_fcfs_costs_nothing_so_that_arrival_decides() -> None:
    assert cost("fcfs", None, plain(3)).tolist() == [0, 0, 0]


def test_random_stays_for_a_request_and_differs_by_seed() -> None:
    asked = [Request(id=str(i), prompt="same") for i in range(200)]
    first = cost("random", None, asked)
    assert first.tolist() == cost("random", None, asked, np.full(200, 7)).tolist()
    other = cost("random", None, asked, None, OrderingSettings(seed=1))
    assert abs(np.corrcoef(first, other)[0, 1]) < 0.2
    assert len(np.unique(first)) == 200
    assert first.mean() == pytest.approx(2048, rel=0.15)


def test_prompts_by_their_tokens_or_by_a_quarter_of_their_characters() -> None:
    asked = [Request(prompt="a" * 40, context="b" * 40), Request(prompt="a", prompt_tokens=7)]
    assert prompt_tokens(asked).tolist() == [20, 7]
    assert cost("prompt-sjf", None, asked).tolist() == [20, 7]
    assert cost("longest-prompt-first", None, asked).tolist() == [4076, 4089]


def test_levels_of_mlfq_double() -> None:
    chosen = OrderingSettings(quantum=32)
    written = [0, 31, 32, 63, 64, 127, 128, 10**6]
    asked = [Request(prompt_tokens=0)] * len(written)
    found = cost("mlfq", None, asked, written, chosen)
    assert found.tolist() == [32, 32, 64, 64, 128, 128, 256, 4096]


def test_a_long_prompt_enters_mlfq_further_down() -> None:
    asked = [Request(prompt_tokens=tokens) for tokens in (8, 400, 4000)]
    assert cost("mlfq", None, asked).tolist() == [32, 128, 1024]


def test_classes_of_objectives_come_before_lengths() -> None:
    objectives = [None, 61.0, 60.0, 10.0, 2.0, 0.1]
    asked = [Request(slo_s=slo) for slo in objectives]
    chosen = OrderingSettings(slo_classes_s=(2.0, 10.0, 60.0))
    found = cost("slo", certain(1, 2, 3000, 3000, 4000, 3000), asked, None, chosen)
    # Inside the first class and the last one the shorter is first.
    assert np.argsort(found).tolist() == [5, 4, 3, 2, 0, 1]


def test_an_objective_that_is_none_is_the_last_class() -> None:
    asked = [Request(slo_s=slo) for slo in (None, float("nan"), inf)]
    assert len(set(cost("slo", certain(9, 9, 9), asked).tolist())) == 1
    assert len(set(cost("edf", None, asked).tolist())) == 1


def test_edf_orders_by_deadline() -> None:
    chosen = OrderingSettings(max_overtake_s=3600)
    rng = np.random.default_rng(0)
    arrivals, objectives = rng.uniform(0, 100, 50), rng.uniform(0, 200, 50)
    asked = [Request(slo_s=float(slo)) for slo in objectives]
    keys = priority(cost("edf", None, asked, None, chosen), arrivals + EPOCH_S, chosen)
    assert np.argsort(keys).tolist() == np.argsort(arrivals + objectives).tolist()
    # An objective beyond the bound waits like the bound.
    far = cost("edf", None, [Request(slo_s=9999), Request()], None, chosen)
    assert far.tolist() == [chosen.cap, chosen.cap]


def test_edf_needs_a_bound() -> None:
    with pytest.raises(SettingsError, match="max_overtake_s"):
        cost("edf", None, plain(1), None, OrderingSettings(max_overtake_s=inf))
