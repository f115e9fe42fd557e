"""Alarms: when, which way, on which traffic; and none where nothing changes."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from lengthpred import LengthDistribution, LengthGrid, Request
from lengthpred.models.drift import (
    ALL_TRAFFIC,
    Alarm,
    DriftMonitor,
    DriftSettings,
    domains_of,
    pit_scores,
)

DRAWS = 100 * np.exp(0.5 * np.random.default_rng(0).standard_normal(20_000))
ONE = LengthDistribution.from_samples(LengthGrid(), [DRAWS.astype(np.int64)])
A = Request(prompt="Write a poem about rivers", model="a", tenant="acme")
B = Request(prompt="Write a poem about rivers", model="b")


def truths(n: int, median: float = 100, sigma: float = 0.5, seed: int = 1) -> np.ndarray:
    draws = median * np.exp(sigma * np.random.default_rng(seed).standard_normal(n))
    return draws.astype(np.int64)


def told(
    monitor: DriftMonitor,
    requests: list[Request],
    lengths: np.ndarray,
    stopped: np.ndarray | None = None,
) -> list[Alarm]:
    flags = np.zeros(len(lengths), bool) if stopped is None else stopped
    return monitor.observe(requests, ONE[np.zeros(len(lengths), int)], lengths, flags)


def test_no_alarm_while_lengths_are_as_predicted() -> None:
    for seed in range(2):
        assert told(DriftMonitor(), [A, B] * 2500, truths(5000, seed=seed)) == []


@pytest.mark.parametrize(
    ("median", "sigma", "direction", "within"),
    [(200, 0.5, "longer", 80), (50, 0.5, "shorter", 80), (100, 1.5, "wider", 150)],
)
def test_a_shift_is_told_once_with_its_direction(
    median: float, sigma: float, direction: str, within: int
) -> None:
    monitor = DriftMonitor()
    assert told(monitor, [A] * 2000, truths(2000)) == []
    alarms = told(monitor, [A] * 1000, truths(1000, median, sigma, seed=2))
    assert [(one.key, one.direction) for one in alarms] == [(ALL_TRAFFIC, direction)]
    assert 2000 < alarms[0].at <= 2000 + within
    # The change is dated: not much more than what came since it.
    assert 0.5 < alarms[0].since / (alarms[0].at - 2000) < 2
    # Back as it was: that is a drift of what became usual, unless it only became narrower.
    back = [one.direction for one in told(monitor, [A] * 1000, truths(1000, seed=3))]
    assert back == {"longer": ["shorter"], "shorter": ["longer"], "wider": []}[direction]


@pytest.mark.parametrize("factor", [4.0, 0.5])
def test_one_shift_is_one_alarm_whatever_the_seed(factor: float) -> None:
    """Usual is not what the few extreme observations say that raised the alarm."""
    early = repeated = 0
    for seed in range(30):
        monitor = DriftMonitor(domains=lambda request: [])
        lengths = np.concatenate(
            [truths(500, seed=seed), truths(2000, 100 * factor, seed=seed + 1000)]
        )
        found = [alarm.at for alarm in told(monitor, [A] * 2500, lengths)]
        early += sum(at <= 500 for at in found)
        repeated += len([at for at in found if at > 500]) - 1
    assert (early, repeated) == (0, 0)


def test_only_the_traffic_that_drifted_is_named() -> None:
    monitor = DriftMonitor()
    told(monitor, [A, B] * 500, truths(1000))
    lengths = truths(800, seed=2)
    lengths[1::2] = truths(400, 250, seed=3)
    alarms = told(monitor, [A, B] * 400, lengths)
    keys = {one.key for one in alarms}
    assert "model b" in keys and not keys & {"model a", "tenant acme"}
    sentence = str(next(one for one in alarms if one.key == "model b"))
    assert sentence.startswith("model b: lengths run longer than predicted; over the last ")
    assert sentence.endswith("50 when that is right: retrain with recent rows of it")


def test_a_domain_that_was_never_right_is_told_too() -> None:
    alarms = told(DriftMonitor(), [A, B] * 300, np.where(np.arange(600) % 2, 300, truths(600)))
    assert "model b" in {one.key for one in alarms}


def test_one_key_for_all_says_nothing_twice() -> None:
    alarms = told(DriftMonitor(domains=lambda request: ["same"]), [A] * 300, truths(300, 300))
    assert [one.key for one in alarms] == [ALL_TRAFFIC]


def test_answers_that_a_limit_stopped_are_no_drift() -> None:
    lengths = truths(4000)
    stopped = lengths > 100
    assert told(DriftMonitor(), [A] * 4000, np.minimum(lengths, 101), stopped) == []
    as_whole = told(DriftMonitor(), [A] * 4000, np.minimum(lengths, 101))
    assert as_whole  # taken for whole answers they are one


def test_scores_are_means_over_the_levels_of_a_truth() -> None:
    dist = LengthDistribution.from_samples(LengthGrid(), [[3, 3, 9, 9]])[[0, 0, 0, 0]]
    lengths, stopped = np.array([3, 9, 9, 5]), np.array([False, False, True, False])
    side, spread = pit_scores(dist, lengths, stopped)
    assert side.tolist() == [-0.5, 0.5, 0.5, 0.0]
    assert spread.tolist() == pytest.approx([0, 0, 0, -1])
    uniform = np.random.default_rng(0).random(100_000)
    assert (4 * np.abs(uniform - 0.5) - 1).mean() == pytest.approx(0, abs=0.01)


def test_the_table_of_domains_is_bounded() -> None:
    monitor = DriftMonitor(DriftSettings(most_keys=10))
    strangers = [Request(prompt="", model=f"model {i}") for i in range(500)]
    told(monitor, strangers, truths(500))
    assert len(monitor._tracks) == 10 and "model model 499" in monitor._tracks


def test_threads_and_batches_count_alike() -> None:
    lengths = truths(400, 130)
    whole = DriftMonitor()
    wanted = told(whole, [A] * 400, lengths)
    single = DriftMonitor()
    assert [one for i in range(400) for one in told(single, [A], lengths[i : i + 1])] == wanted
    shared = DriftMonitor()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda i: told(shared, [A], lengths[i : i + 1]), range(400)))
    assert shared._all.seen == whole._all.seen


def test_domains_and_wrong_values() -> None:
    assert domains_of(A) == ["model a", "tenant acme", "prompts of task 'verse', ascii, chars<32"]
    assert domains_of(Request()) == []
    for bad in ({"tolerance": 1.0}, {"threshold": 0.0}, {"least": 0}):
        with pytest.raises(ValueError, match=r"tolerance|least"):
            DriftSettings(**bad)
    with pytest.raises(ValueError, match="one length"):
        told(DriftMonitor(), [A, A], truths(1))
