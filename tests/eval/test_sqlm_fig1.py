"""The published experiment, replayed on small folds made here, and what is said of results."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from lengthpred.errors import DataError, SettingsError
from lengthpred.eval.replay.order import Order
from lengthpred.eval.replay.scenarios import replay
from lengthpred.eval.replay.settings import SimulationSettings
from lengthpred.eval.replay.workload import Engine, Trace, Workload
from lengthpred.eval.sqlm_fig1 import arms as fig1_arms
from lengthpred.eval.sqlm_fig1 import replays
from lengthpred.eval.sqlm_fig1.reading import Found, read_fig1
from lengthpred.eval.sqlm_fig1.replays import run
from lengthpred.eval.sqlm_fig1.setting import Fig1Result, Fig1Settings, Fold
from tests.eval.fig1_cases import make_fold

SLOTS = 32
SETTINGS = Fig1Settings(
    ratios=(0.0, 0.5),
    sum_limits=(2024, 512),
    requests=120,
    draws=2,
    hardware=Engine(slots=SLOTS),
)
GANG = replace(SETTINGS, engines=("gang",), sum_limits=(2024,), ratios=(0.5,))
ONE = replace(SETTINGS, sum_limits=(2024,), ratios=(0.5,), draws=1)
HELD_OUT = [("code",), ("sums",)]
Measures = dict[str, tuple[float, float | None, float | None]]


@pytest.fixture(autouse=True)
def small_capacity(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine's capacity from fewer requests, to save time."""
    monkeypatch.setattr("lengthpred.eval.replay.scenarios.CAPACITY_REQUESTS", 300)


def folds(settings: Fig1Settings, **changes: Any) -> list[Fold]:
    """One for each draw, each of another stratum in turn."""
    made = (make_fold(i, held_out=HELD_OUT[i % len(HELD_OUT)]) for i in range(settings.draws))
    return [replace(one, **changes) for one in made]


@cache
def results() -> tuple[Fig1Result, ...]:
    return tuple(run(folds(SETTINGS), SETTINGS))


def arm_of(r: Fig1Result) -> tuple[str, str | None, str | None]:
    return r.policy, r.predictor, r.slm


def by_place(
    found: Sequence[Fig1Result], policy: str, predictor: str | None, slm: str | None = None
) -> dict[tuple[str, str, int, float], Measures]:
    """All measures of an arm, by where it was replayed."""
    places: dict[tuple[str, str, int, float], Measures] = {}
    for r in found:
        if arm_of(r) == (policy, predictor, slm):
            place = places.setdefault((r.engine, r.arrivals, r.sum_limit, r.ood_ratio), {})
            assert r.metric not in place
            place[r.metric] = r.value, r.low, r.high
    assert places
    return places


def test_every_arm_is_replayed_everywhere() -> None:
    times = ("apart", "added", "hidden")
    short = {("fcfs", None, None), ("sjf", "qlm", None), ("sjf", "oracle", None)}
    sqlm = {("sjf", "sqlm", slm) for slm in times}
    every = {("sjf", "sqlm-all", slm) for slm in times}
    longest = {
        *(("longest-first", "qlm", None), ("longest-first", "oracle", None)),
        ("longest-first", "sqlm", "apart"),
    }
    stream = {arm for arm in sqlm | every if arm[2] != "added"}
    wanted = {
        (engine, arrivals, limit, ratio, arm)
        for engine, limit, ratio in itertools.product(("continuous", "gang"), (2024, 512), (0, 0.5))
        for arrivals, arms in (
            ("burst", short | sqlm | every | longest),
            ("burst-long-at-head", short | sqlm if limit == 2024 else set()),
            ("poisson", short | stream if (engine, limit) == ("continuous", 2024) else set()),
        )
        for arm in arms
    }
    found = {(r.engine, r.arrivals, r.sum_limit, r.ood_ratio, arm_of(r)) for r in results()}
    assert found == wanted
    assert all(r.n == 2 for r in results())
    assert {(r.arrivals, r.load) for r in results()} == {
        *(("burst", None), ("burst-long-at-head", None), ("poisson", SETTINGS.load))
    }


def test_every_arm_has_every_measure() -> None:
    compared = {
        f"{metric}_vs_{other}" for metric in fig1_arms.COMPARED for other in ("qlm", "fcfs")
    } | set(fig1_arms.KEPT)
    for arm in {arm_of(r) for r in results()}:
        for measures in by_place(results(), *arm).values():
            predicts = {"tau", "tau_minus_qlm"} if arm[1] else set()
            assert measures.keys() == (compared - {"tau"}) | predicts
            for value, low, high in measures.values():
                assert low is not None and high is not None and low <= value <= high


def test_qlm_is_compared_with_itself() -> None:
    for measures in by_place(results(), "sjf", "qlm").values():
        for metric in fig1_arms.COMPARED:
            assert measures[f"{metric}_vs_qlm"] == (1, 1, 1)
        assert measures["tau_minus_qlm"] == (0, 0, 0)
        assert measures["slm_s"] == measures["slm_requests"] == (0, 0, 0)
    for measures in by_place(results(), "fcfs", None).values():
        assert all(measures[f"{metric}_vs_fcfs"] == (1, 1, 1) for metric in fig1_arms.COMPARED)


def test_the_oracle_orders_all_pairs() -> None:
    for policy in ("sjf", "longest-first"):
        for measures in by_place(results(), policy, "oracle").values():
            assert measures["tau"] == pytest.approx((1, 1, 1))


def test_who_knows_more_orders_better() -> None:
    taus = [
        by_place(results(), "sjf", *arm)["continuous", "burst", 2024, 0.5]["tau"][0]
        for arm in (("qlm", None), ("sqlm", "apart"), ("sqlm-all", "apart"), ("oracle", None))
    ]
    assert taus == sorted(taus) and taus[1] > taus[0] + 0.05
    longest = by_place(results(), "longest-first", "oracle")
    assert longest["continuous", "burst", 2024, 0.5]["tps_vs_fcfs"][0] > 1.02
    gangs = by_place(results(), "sjf", "oracle")
    assert gangs["gang", "burst", 2024, 0.5]["tps_vs_qlm"][0] > 1.1


@pytest.mark.parametrize("predictor", ["sqlm", "sqlm-all"])
def test_added_is_apart_with_the_small_models_time_in_front(predictor: str) -> None:
    settings = replace(ONE, slm_s=0.05)
    found = run(folds(settings), settings)
    apart = by_place(found, "sjf", predictor, "apart")
    for place, added in by_place(found, "sjf", predictor, "added").items():
        before = {metric: value for metric, (value, _, _) in apart[place].items()}
        after = {metric: value for metric, (value, _, _) in added.items()}
        seconds = before["slm_s"]
        assert seconds == pytest.approx(0.05 * before["slm_requests"]) and seconds > 0
        tokens = before["total_token_throughput"] * before["duration"]
        busy = tokens / before["tps"]
        assert after["duration"] == pytest.approx(before["duration"] + seconds)
        assert after["tps"] == pytest.approx(tokens / (busy + seconds))
        assert after["total_token_throughput"] == pytest.approx(
            tokens / (before["duration"] + seconds)
        )
        late = (
            *("mean_e2el_ms", "p99_e2el_ms", "mean_e2el_ms_longest_tenth"),
            "mean_ttft_ms",
        )
        for metric in late:
            assert after[metric] == pytest.approx(before[metric] + 1e3 * seconds)
        for metric in ("tau", "preemptions", "slm_s", "slm_requests"):
            assert after[metric] == before[metric]
        ratio = before["tps_vs_qlm"] * after["tps"] / before["tps"]
        assert after["tps_vs_qlm"] == pytest.approx(ratio)


def without_names(found: Sequence[Fig1Result], predictor: str, slm: str | None = None) -> Any:
    """An arm's measures where all were replayed, but for what the small model did."""
    return {
        place: {name: one for name, one in measures.items() if not name.startswith("slm_")}
        for place, measures in by_place(found, "sjf", predictor, slm).items()
    }


def test_a_gate_that_flags_nothing_is_qlm() -> None:
    settings = ONE
    found = run(folds(settings, unsure=np.zeros(240, bool)), settings)
    for slm in ("apart", "hidden", "added"):
        qlm = without_names(found, "qlm")
        for place, measures in without_names(found, "sqlm", slm).items():
            assert measures == qlm[place]
        for measures in by_place(found, "sjf", "sqlm", slm).values():
            assert measures["slm_s"][0] == measures["slm_requests"][0] == 0


def test_a_gate_that_flags_everything_is_the_small_model_on_every_query() -> None:
    settings = ONE
    found = run(folds(settings, unsure=np.ones(240, bool)), settings)
    for slm in ("apart", "hidden", "added"):
        some, every = (by_place(found, "sjf", name, slm) for name in ("sqlm", "sqlm-all"))
        assert every and all(some[place] == measures for place, measures in every.items())
    asked = by_place(found, "sjf", "sqlm", "apart")["gang", "burst", 2024, 0.5]["slm_requests"]
    assert asked[0] == settings.requests


def test_a_small_model_that_takes_no_time_is_hidden_whole() -> None:
    settings = replace(ONE, slm_s=0.0)
    found = run(folds(settings), settings)
    for predictor in ("sqlm", "sqlm-all"):
        apart = by_place(found, "sjf", predictor, "apart")
        assert by_place(found, "sjf", predictor, "hidden") == apart
        added = by_place(found, "sjf", predictor, "added")
        for place, measures in added.items():
            for metric, one in measures.items():
                assert one[0] == pytest.approx(apart[place][metric][0], rel=1e-12)


def test_a_small_model_that_is_never_done_is_qlm_when_hidden() -> None:
    settings = replace(ONE, slm_s=1e6)
    found = run(folds(settings), settings)
    for predictor in ("sqlm", "sqlm-all"):
        for place, measures in by_place(found, "sjf", predictor, "hidden").items():
            assert place[1] == "poisson" or measures["slm_requests"][0] == 1
            assert measures["tps_vs_qlm"][0] == measures["mean_e2el_ms_vs_qlm"][0] == 1


def test_what_is_hidden_asks_for_fewer_and_never_for_more() -> None:
    for predictor in ("sqlm", "sqlm-all"):
        apart = by_place(results(), "sjf", predictor, "apart")
        for place, hidden in by_place(results(), "sjf", predictor, "hidden").items():
            requests, seconds = hidden["slm_requests"][0], hidden["slm_s"][0]
            assert requests <= apart[place]["slm_requests"][0]
            assert seconds == pytest.approx(SETTINGS.slm_s * requests)
            assert hidden["tau"] == apart[place]["tau"]


def replayed(monkeypatch: pytest.MonkeyPatch, settings: Fig1Settings) -> list[Workload]:
    """What is replayed, in that order."""
    works: list[Workload] = []

    def watched(chosen: SimulationSettings, work: Workload, order: Order) -> Trace:
        works.append(work)
        return replay(chosen, work, order)

    monkeypatch.setattr(replays, "replay", watched)
    run(folds(settings), settings)
    return works


def test_a_queue_with_the_long_ones_at_its_head_begins_with_the_longest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    works = replayed(monkeypatch, replace(GANG, draws=1))
    assert len(works) == 10 + 5
    plain, moved = works[0], works[-1]
    assert all((work.output_tokens == plain.output_tokens).all() for work in works[:10])
    assert all((work.output_tokens == moved.output_tokens).all() for work in works[10:])
    head, rest = moved.output_tokens[:SLOTS], moved.output_tokens[SLOTS:]
    assert head.min() >= rest.max()
    # The same requests, and both parts in the order in which they came.
    assert sorted(moved.output_tokens) == sorted(plain.output_tokens)
    both = list(zip(plain.prompt_tokens, plain.output_tokens, strict=True))
    there = list(zip(moved.prompt_tokens, moved.output_tokens, strict=True))
    assert sorted(both) == sorted(there)
    bound = head.min()
    assert [pair for pair in both if pair[1] < bound] == [p for p in there if p[1] < bound]
    assert [pair for pair in both if pair[1] > bound] == [p for p in there if p[1] > bound]


def test_engines_replay_the_same_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    works = replayed(monkeypatch, replace(ONE, sum_limits=(512,)))
    continuous, gang = works[0], works[-15]
    assert (continuous.output_tokens == gang.output_tokens).all()
    assert all((work.prompt_tokens + work.output_tokens).max() <= 512 for work in works)


def test_the_share_out_of_distribution_is_as_asked() -> None:
    settings = replace(GANG, ratios=(0.0, 0.25, 1.0))
    flagged = [replace(fold, unsure=fold.rows.columns["ood"]) for fold in folds(settings)]
    asked = by_place(run(flagged, settings), "sjf", "sqlm", "apart")
    for ratio in settings.ratios:
        found = asked["gang", "burst", 2024, ratio]
        assert found["slm_requests"][0] == ratio * settings.requests
        assert found["slm_s"][0] == pytest.approx(SETTINGS.slm_s * ratio * settings.requests)
    # Where QLM answers for all, S-QLM is no better.
    assert asked["gang", "burst", 2024, 0.0]["tps_vs_qlm"][0] == 1


def test_a_seed_repeats_exactly_however_many_share_the_work() -> None:
    first = run(folds(GANG), GANG, seed=5)
    assert run(folds(GANG), GANG, seed=5) == first
    assert run(folds(GANG), GANG, seed=6) != first
    assert run(iter(folds(GANG)), GANG, seed=5, jobs=2) == first


def test_progress_is_told_by_draw() -> None:
    told: list[tuple[str, int, int]] = []
    run(folds(GANG), GANG, on_progress=lambda *args: told.append(args))
    assert told == [("replaying", 0, 2), ("replaying", 1, 2)]


def test_intervals_need_two_draws_of_a_stratum() -> None:
    assert all(r.low is r.high is None for r in run(folds(GANG), GANG, strata=2))
    assert all(r.low is not None for r in run(folds(GANG), GANG, strata=1))


def test_what_cannot_be_is_refused() -> None:
    wrong: list[dict[str, Any]] = [{"draws": 0}, {"requests": 0}, {"slm_s": -1}, {"slm_s": np.nan}]
    for one in wrong:
        with pytest.raises(SettingsError):
            replace(SETTINGS, **one)
    with pytest.raises(SettingsError, match="engines continuous and gang, not on 'slices'"):
        replace(SETTINGS, engines=("gang", "slices"))
    with pytest.raises(DataError, match="needs rows that are out of distribution"):
        run([make_fold(held_out=())] * 2, GANG)


# Sentences


def made(
    gains: Mapping[float, tuple[float, float | None, float | None]],
    engine: str = "gang",
    metric: str = "tps_vs_qlm",
    slm: str = "apart",
) -> Iterator[Fig1Result]:
    for ratio, (value, low, high) in gains.items():
        yield Fig1Result(
            *(engine, "sjf", "sqlm", "burst", None, None, ratio, 2024),
            *(slm, metric, value, low, high, 4),
        )


def first_sentence(*found: tuple[float, float | None, float | None], engine: str = "gang") -> str:
    gains = dict(zip((0.5, 0.8), found, strict=False))
    return read_fig1(list(made(gains, engine)), SETTINGS, HELD_OUT)[0]


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (
            [(1.09, 1.05, 1.13), (1.1, 1.06, 1.14)],
            "the published gain lies inside these intervals.",
        ),
        ([(1.09, 1.05, 1.13)], "the published gain lies inside this interval."),
        (
            [(1.05, 0.95, 1.15), (1.1, 1.06, 1.14)],
            "the published gain lies inside these intervals, and so does none at all.",
        ),
        (
            [(1.09, 1.05, 1.13), (1.05, 1.01, 1.09)],
            "the published gain lies inside 1 of these intervals.",
        ),
        (
            [(1.05, 1.02, 1.08), (1.3, 1.2, 1.4)],
            "the sign is the published one, the size is not.",
        ),
        ([(1.01, 0.99, 1.03), (1.02, 1.01, 1.03)], "this does not show the published gain."),
        ([(0.98, 0.97, 0.99), (0.97, 0.96, 0.98)], "this does not show the published gain."),
        (
            [(1.097, None, None), (1.115, None, None)],
            "a single draw of each set of corpora has no interval",
        ),
    ],
)
def test_whether_the_published_gain_is_shown(found: list[Any], words: str) -> None:
    assert words in first_sentence(*found)


def test_the_gain_is_told_with_its_sign_and_beside_the_published_one() -> None:
    said = first_sentence((0.982, 0.97, 1.004), (1.1234, 1.1, 1.15), engine="continuous")
    assert said.startswith("With continuous batching, S-QLM changes tokens a second")
    assert "by -1.8 % (-3.0 to +0.4) at 50% (published +9.7%), " in said
    assert "+12.3 % (+10.0 to +15.0) at 80% (published +11.5%): " in said
    assert "+9.7 % at 50%" in first_sentence((1.097, None, None))


def test_what_was_not_published_is_held_against_nothing() -> None:
    # At 0 the publication had the small model predict every query.
    gain = {0.0: (1.0, 0.9, 1.1), 0.3: (1.1, 1.0, 1.2)}
    assert not any("published +" in said for said in read_fig1(list(made(gain)), SETTINGS, []))


def test_the_small_models_time_is_told_in_all_three_ways() -> None:
    found = [
        *made({0.8: (1.1, 1.05, 1.15)}),
        *made({0.8: (0.7, 0.6, 0.8)}, slm="added"),
        *made({0.8: (1.02, 1.01, 1.03)}, slm="hidden"),
        *made({0.8: (39.6, 39, 40)}, metric="slm_s"),
    ]
    said = read_fig1(found, replace(SETTINGS, slm_s=0.05), HELD_OUT)
    (line,) = (one for one in said if "is at work for" in one)
    assert "With gang batches at 80% the small model is at work for 40 s (published 41 s" in line
    assert "50 ms for each request" in line
    for part in (
        "+10.0 % (+5.0 to +15.0) with its time not counted",
        "-30.0 % (-40.0 to -20.0) with its time added in front",
        "+2.0 % (+1.0 to +3.0) with its time spent while requests wait",
    ):
        assert part in line
    assert any("(50 ms, one after the other" in one for one in said)


def test_sentences_fit_the_numbers_of_a_run() -> None:
    found, said = Found(results()), read_fig1(results(), SETTINGS, HELD_OUT)
    assert found.engines == ["continuous", "gang"] and found.ratios == [0.0, 0.5]
    assert found.limits == [2024, 512]
    text = "\n".join(said)
    for engine, words in (("continuous", "continuous batching"), ("gang", "gang batches")):
        gain = found.get(engine, 0.5, "sjf", "sqlm", "tps_vs_qlm")
        assert gain is not None
        (line,) = (one for one in said if one.startswith(f"With {words}, S-QLM changes"))
        assert f"by {100 * (gain.value - 1):+.1f} % (" in line and "(published +9.7%)" in line
        oracle = found.get(engine, 0.5, "longest-first", "oracle", "tps_vs_fcfs")
        assert oracle is not None
        (line,) = (one for one in said if one.startswith(f"With {words}, against first come"))
        assert f"longest first by the truth gives {oracle.value:.2f} times the tokens" in line
    for ratio in (0.0, 0.5):
        taus = [
            found.get("continuous", ratio, "sjf", name, "tau")
            for name in ("qlm", "sqlm", "sqlm-all")
        ]
        qlm, sqlm, every = (one.value for one in taus if one is not None)
        assert f"tau is {qlm:.2f} by QLM, {sqlm:.2f} by S-QLM" in text
        assert f"{every:.2f} with the small model on every query" in text
    stream = found.get(
        *("continuous", 0.5, "sjf", "sqlm", "mean_e2el_ms_vs_qlm"), arrivals="poisson"
    )
    assert stream is not None and f"{100 * (stream.value - 1):+.1f} % (" in text
    assert "kept from training (code; sums)" in text and "mean of 2 draws" in text
    assert len(set(said)) == len(said)


def test_one_ratio_and_one_engine_are_told_once() -> None:
    said = read_fig1(run(folds(GANG), GANG), GANG, HELD_OUT)
    assert len(set(said)) == len(said)
    assert "\n".join(said).count("tau is ") == 1
    assert not any("continuous" in one for one in said)
