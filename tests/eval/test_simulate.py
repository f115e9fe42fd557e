"""Comparisons of schedules: which arms there are, and what they share."""

import dataclasses
from functools import cache
from typing import Any

import numpy as np
import pytest

from lengthpred.data.table import Rows
from lengthpred.errors import DataError, SettingsError
from lengthpred.eval.replay.arms import Arm
from lengthpred.eval.replay.settings import REAL_ENGINES, SimulationSettings
from lengthpred.eval.replay.step_time import StepTime
from lengthpred.eval.replay.workload import Engine
from lengthpred.eval.simulate import Simulation, simulate
from lengthpred.ordering import OrderingSettings
from lengthpred.testing import FixedPredictor
from tests.eval.cases import make_rows

ROWS = make_rows(80, samples=3)
SMALL = Engine(slots=8, step_time=StepTime(0.02, 1e-4, 1e-7))
PREDICTORS = {"fixed": FixedPredictor(), "samples-mean": None}
Key = tuple[str, str | None]


@pytest.fixture(autouse=True)
def small_capacity(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine's capacity from fewer requests, to save time."""
    monkeypatch.setattr("lengthpred.eval.replay.scenarios.CAPACITY_REQUESTS", 300)


def run(
    policies: tuple[str, ...] = ("sjf",),
    rows: Rows = ROWS,
    seconds: dict[str, float] | None = None,
    seed: int = 0,
    **options: Any,
) -> Simulation:
    """A small simulation, of a burst unless told otherwise."""
    chosen: dict[str, Any] = {"requests": 60, "draws": 2, "hardware": SMALL, "arrivals": ("burst",)}
    settings = SimulationSettings(**chosen | options)
    return simulate(PREDICTORS, rows, policies, settings, seconds=seconds, seed=seed)


@cache
def loaded() -> Simulation:
    """Every policy near the engine's capacity."""
    policies = ("sjf", "longest-first", "srpt", "mlfq", "random")
    return run(policies, requests=200, draws=3, arrivals=("poisson",), loads=(1.2,))


def values(found: Simulation, metric: str) -> dict[Key, float]:
    """One metric by arm, of the last scenario."""
    return {(r.policy, r.predictor): r.value for r in found.results if r.metric == metric}


def test_the_controls_are_there_unasked() -> None:
    found = run(("sjf",), seconds={"fixed": 0.01})
    assert set(found.replays) == {
        Arm("fcfs"),
        Arm("fcfs", "fixed"),  # runs and is ignored; what costs nothing needs no such line
        Arm("prompt-sjf"),
        *(Arm("sjf", name) for name in ("fixed", "samples-mean", "oracle", "oracle-noise")),
    }
    longest = run(("longest-first", "mlfq", "fcfs"))
    assert set(longest.replays) == {
        Arm("fcfs"),
        Arm("longest-prompt-first"),
        *(Arm("longest-first", name) for name in ("fixed", "samples-mean")),
        *(Arm("longest-first", name) for name in ("oracle", "oracle-noise")),
        Arm("mlfq"),
    }


def test_all_arms_see_the_same_requests() -> None:
    works = [replay.work for replay in loaded().replays.values()]
    for work in works:
        assert work.arrival_s.tolist() == works[0].arrival_s.tolist()
        assert work.prompt_tokens.tolist() == works[0].prompt_tokens.tolist()
        assert work.output_tokens.tolist() == works[0].output_tokens.tolist()
    totals = values(loaded(), "total_output_tokens")
    assert len(totals) == len(works) > 10 and len(set(totals.values())) == 1


def test_every_load_replays_the_same_requests() -> None:
    found = run(arrivals=("poisson",), loads=(0.5, 1.0))
    for metric in ("total_output_tokens", "total_input_tokens"):
        assert len({r.value for r in found.results if r.metric == metric}) == 1
    assert {r.load for r in found.results} == {0.5, 1.0}
    rates = {r.load: r.rate or 0 for r in found.results}
    assert rates[1.0] == pytest.approx(2 * rates[0.5])


def test_fcfs_is_compared_with_itself() -> None:
    versus = [r for r in loaded().results if r.metric.endswith("_vs_fcfs") and r.policy == "fcfs"]
    assert len(versus) == 8
    assert all((r.value, r.low, r.high) == (1, 1, 1) for r in versus)


def test_ratios_are_of_each_draw() -> None:
    found = run(draws=1)
    times = values(found, "mean_e2el_ms")
    ratios = values(found, "mean_e2el_ms_vs_fcfs")
    for arm, time in times.items():
        assert ratios[arm] == pytest.approx(time / times["fcfs", None])


def test_shortest_first_by_the_truth_is_fastest_and_noise_costs_some_of_it() -> None:
    mean = values(loaded(), "mean_e2el_ms_vs_fcfs")
    assert mean["sjf", "oracle"] < mean["sjf", "oracle-noise"] < 1
    assert mean["sjf", "samples-mean"] < 0.95
    assert mean["longest-first", "oracle"] > 1.1
    # A predictor that says the same of all leaves the order of arrival, ties and all.
    assert mean["sjf", "fixed"] == 1
    # Knowing more can only help the mean.
    assert mean["srpt", "oracle"] < mean["srpt", "oracle-noise"]


def test_a_bound_keeps_the_longest_from_waiting_for_ever() -> None:
    def slowest(overtake: float) -> float:
        ordering = OrderingSettings(max_overtake_s=overtake)
        found = run(requests=300, arrivals=("poisson",), loads=(1.4,), ordering=ordering)
        return values(found, "p99_e2el_ms_longest_tenth")["sjf", "oracle"]

    assert slowest(1.0) < slowest(10_000.0)


@pytest.mark.parametrize("policy", ["sjf", "srpt", "mlfq", "longest-first", "random", "slo", "edf"])
def test_in_an_empty_system_all_are_exactly_equal(policy: str) -> None:
    found = run((policy,), requests=25, arrivals=("poisson",), rates=(0.001,))
    for metric in ("mean_e2el_ms", "p99_ttft_ms", "total_token_throughput"):
        assert len(set(values(found, metric).values())) == 1, metric


@pytest.mark.parametrize("engine", ["continuous", "gang", "slices"])
def test_prediction_is_charged_or_hidden(engine: str) -> None:
    def ttft(prediction: str) -> dict[Key, float]:
        found = run(
            seconds={"fixed": 0.5},
            prediction=prediction,
            engine=engine,
            requests=25,
            arrivals=("poisson",),
            rates=(0.001,),
        )
        return values(found, "mean_ttft_ms")

    charged, hidden = ttft("charge"), ttft("hide")
    free = charged["fcfs", None]
    # In an empty system each waits for its own prediction, and for nothing where that is hidden.
    assert charged["fcfs", "fixed"] == pytest.approx(free + 500)
    assert charged["sjf", "fixed"] == pytest.approx(free + 500)
    assert charged["sjf", "oracle"] == free
    assert set(hidden.values()) == {free}


def test_what_comes_together_is_predicted_together() -> None:
    found = run(seconds={"fixed": 0.5}, requests=20)
    trace = found.replays[Arm("sjf", "fixed")].trace
    assert trace.start_s.min() == pytest.approx(20 * 0.5)


def test_predictions_are_made_one_after_the_other() -> None:
    options: dict[str, Any] = {"arrivals": ("poisson",), "rates": (1000.0,), "requests": 20}
    trace = run(seconds={"fixed": 0.5}, **options).replays[Arm("fcfs", "fixed")].trace
    assert (trace.start_s >= 0.5 * np.arange(1, 21)).all()
    assert trace.start_s[-1] < 11


def test_hidden_predictions_reorder_what_still_waits() -> None:
    quick = run(seconds={"samples-mean": 0.001}, requests=200, prediction="hide")
    mean = values(quick, "mean_e2el_ms_vs_fcfs")
    assert mean["fcfs", "samples-mean"] == 1
    assert mean["sjf", "samples-mean"] < 0.95
    slow = run(seconds={"samples-mean": 1e6}, requests=200, prediction="hide")
    assert values(slow, "mean_e2el_ms_vs_fcfs")["sjf", "samples-mean"] == 1  # never in time


def test_progress_does_not_tell_what_is_not_known_yet() -> None:
    # With one key for all, srpt by the prior is the same whatever the true lengths are.
    late = run(("srpt",), seconds={"samples-mean": 1e6, "fixed": 1e6}, prediction="hide")
    mean = values(late, "mean_e2el_ms")
    assert mean["srpt", "samples-mean"] == mean["srpt", "fixed"]
    soon = run(("srpt",), seconds={"samples-mean": 1e-6, "fixed": 1e-6}, prediction="hide")
    mean = values(soon, "mean_e2el_ms")
    assert mean["srpt", "samples-mean"] < mean["srpt", "fixed"]


def test_a_predictor_is_held_against_the_length_of_the_prompt_draw_by_draw() -> None:
    found = loaded()
    ratio = values(found, "mean_e2el_ms_vs_prompt")
    assert ("sjf", "samples-mean") in ratio and ("prompt-sjf", None) not in ratio
    fcfs = values(found, "mean_e2el_ms_vs_fcfs")
    own, control = fcfs["sjf", "samples-mean"], fcfs["prompt-sjf", None]
    assert ratio["sjf", "samples-mean"] == pytest.approx(own / control)
    assert fcfs["longest-first", "oracle"] / fcfs["longest-prompt-first", None] == pytest.approx(
        ratio["longest-first", "oracle"]
    )


def test_intervals_need_two_draws() -> None:
    assert all(r.low is None and r.high is None and r.n == 1 for r in run(draws=1).results)
    for r in loaded().results:
        assert r.n == 3 and r.low is not None and r.high is not None
        assert r.low <= r.value <= r.high
    spread = [r for r in loaded().results if r.metric == "mean_e2el_ms"]
    assert all(r.low is not None and r.low < r.value for r in spread)


def test_a_seed_repeats_exactly() -> None:
    options: dict[str, Any] = {"arrivals": ("bursty",), "loads": (1.0,)}
    first, again, other = (run(seed=seed, **options) for seed in (5, 5, 6))
    assert first.results == again.results
    assert first.results != other.results


def test_bursts_make_queues() -> None:
    def depth(kind: str) -> float:
        found = run(requests=300, arrivals=(kind,), loads=(0.8,))
        return values(found, "mean_queue_depth")["fcfs", None]

    assert depth("bursty") > 1.5 * depth("poisson")


def test_recorded_arrivals_are_replayed_and_scaled() -> None:
    times = np.cumsum(np.random.default_rng(0).exponential(1, 80)) + 1000
    rows = dataclasses.replace(ROWS, columns={**ROWS.columns, "arrival_s": times})
    plain = run(rows=rows, arrivals=("trace",), requests=80)
    work = plain.replays[Arm("fcfs")].work
    assert work.arrival_s == pytest.approx(times - times[0])
    assert {(r.load, r.rate, r.arrivals) for r in plain.results} == {(None, None, "trace")}
    scaled = run(rows=rows, arrivals=("trace",), requests=80, rates=(4.0,))
    assert scaled.replays[Arm("fcfs")].work.arrival_s[-1] == pytest.approx(79 / 4)
    with pytest.raises(DataError, match="arrival_s"):
        run(arrivals=("trace",))


def test_shares_out_of_distribution_are_scenarios() -> None:
    found = run(ood_ratios=(0.0, 1.0))
    assert {r.ood_ratio for r in found.results} == {0.0, 1.0}
    out = {
        r.ood_ratio: r.value
        for r in found.results
        if (r.policy, r.metric) == ("fcfs", "total_output_tokens")
    }
    assert out[0.0] != out[1.0]
    with pytest.raises(SettingsError, match="leave out OOD ratios"):
        run(arrivals=("trace",), ood_ratios=(0.5,))


def test_kinds_of_arrivals_and_loads_are_scenarios() -> None:
    found = run(arrivals=("burst", "poisson"), loads=(0.9, 0.5))
    seen = list(dict.fromkeys((r.arrivals, r.load) for r in found.results))
    assert seen == [("burst", None), ("poisson", 0.5), ("poisson", 0.9)]


def test_sorting_gangs_raises_throughput_and_slices_compute_again() -> None:
    gang = values(run(engine="gang", requests=200), "tps_vs_fcfs")
    assert gang["sjf", "oracle"] > 1.1
    sliced = values(run(engine="slices", slice_tokens=16), "recomputed_tokens")
    assert min(sliced.values()) > 0


def test_a_reader_is_told_what_to_know() -> None:
    stopped = np.arange(len(ROWS.lengths)) % 4 == 0
    rows = dataclasses.replace(ROWS, censored=stopped)
    notes = run(rows=rows, hardware=Engine(), seconds={"fixed": 0.01}).notes
    assert len(notes) == 3
    assert "not measured" in notes[0]
    assert "25.0% of the lengths were stopped" in notes[1]
    assert "charged: fixed 10.00 ms" in notes[2]
    assert run().notes == ["A step takes 20 ms + 0.1 ms a prompt token + 0.1 µs a KV token."]


def test_progress_is_reported_to_the_end() -> None:
    told: list[tuple[int, int]] = []
    simulate(
        {},
        ROWS,
        ("sjf",),
        SimulationSettings(requests=10, draws=2, hardware=SMALL, arrivals=("burst",)),
        on_progress=lambda what, done, total: told.append((done, total)),
    )
    arms = 4
    assert told == [(i, 2 * arms) for i in range(2 * arms + 1)]


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(DataError, match="no rows"):
        run(rows=ROWS.take([]))
    with pytest.raises(SettingsError, match="is no policy"):
        run(("sfj",))
    with pytest.raises(SettingsError, match="there is no predictor 'nobody'"):
        simulate({"nobody": None}, ROWS, settings=SimulationSettings(requests=5))
    for wrong in ({"engine": "gnag"}, {"prediction": "hid"}, {"arrivals": ("brust",)}):
        with pytest.raises(SettingsError, match="is no "):
            run(**wrong)
    for real in REAL_ENGINES:
        with pytest.raises(SettingsError, match=f"'{real}' is measured, not replayed"):
            run(engine=real)
    for low in ({"requests": 0}, {"draws": 0}, {"loads": (0.0,)}, {"rates": (-1.0,)}):
        with pytest.raises(SettingsError):
            run(**low)
