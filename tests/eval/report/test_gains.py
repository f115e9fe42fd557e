"""Sentences of a simulation, from made-up measures."""

from dataclasses import dataclass

from lengthpred.eval.replay.arms import Arm
from lengthpred.eval.replay.settings import SimulationSettings
from lengthpred.eval.report.gains import judge_simulation
from lengthpred.eval.simulate import ReplayResult, Simulation

FCFS, OWN, ORACLE, PROMPT = Arm("fcfs"), Arm("sjf", "own"), Arm("sjf", "oracle"), Arm("prompt-sjf")
MINUS = "\N{MINUS SIGN}"
MEASURES = ("mean_e2el_ms", "total_token_throughput", "mean_e2el_ms_longest_tenth")


@dataclass(frozen=True)
class At:
    """A scenario with changes against fcfs, by arm: (latency, tokens/s, longest tenth)."""

    load: float | None
    queue: float
    changes: dict[Arm, tuple[float, float, float]]
    half: float | None = 0.01

    def results(self) -> list[ReplayResult]:
        kind = "burst" if self.load is None else "poisson"

        def of(arm: Arm, metric: str, value: float, half: float | None) -> ReplayResult:
            return ReplayResult(
                engine="continuous",
                policy=arm.policy,
                predictor=arm.predictor,
                arrivals=kind,
                load=self.load,
                rate=self.load,
                ood_ratio=None,
                metric=metric,
                value=value,
                low=None if half is None else value - half,
                high=None if half is None else value + half,
                n=5,
            )

        found = [of(FCFS, "mean_queue_depth", self.queue, None)]
        for arm, changes in self.changes.items():
            found += [
                of(arm, f"{metric}_vs_fcfs", value, self.half)
                for metric, value in zip(MEASURES, changes, strict=True)
            ]
        return found


def judged(*scenarios: At) -> list[str]:
    results = [result for at in scenarios for result in at.results()]
    return judge_simulation(Simulation(SimulationSettings(requests=100), results, [], {}))


GAIN = {
    OWN: (0.82, 1.0, 1.06),
    ORACLE: (0.65, 1.0, 1.1),
    PROMPT: (0.97, 1.0, 1.0),
}


def test_a_gain_stands_beside_the_oracle_and_its_price() -> None:
    assert judged(At(1.1, 40, GAIN, half=0.009)) == [
        "With a queue of 40 waiting on average (Poisson arrivals, 110 % of capacity), shortest "
        f"first by own: mean latency {MINUS}18 % ({MINUS}19 to {MINUS}17 %; the oracle {MINUS}35 "
        "%), tokens/s unchanged and the longest tenth's latency +6 % (+5 to +7 %).",
        "For mean latency, shortest first by own is worth it where requests queue; the price is "
        "the longest tenth's latency.",
    ]


def test_with_no_queue_no_order_helps() -> None:
    quiet = At(0.7, 0.1, {OWN: (1, 1, 1), ORACLE: (0.999, 1, 1), PROMPT: (1, 1, 1)})
    assert judged(quiet) == [
        "With hardly a queue (Poisson arrivals, 70 % of capacity: at most 0.10 waiting on average) "
        "no order helps."
    ]
    some = At(0.7, 0.1, {OWN: (1, 1, 1), ORACLE: (0.95, 1, 1), PROMPT: (1, 1, 1)})
    assert judged(some)[0].endswith(f"even the oracle gains little: {MINUS}5 %.")


def test_an_interval_that_holds_no_effect_says_so() -> None:
    said = judged(At(1.1, 40, GAIN | {OWN: (0.98, 1.0, 1.0)}, half=0.03))
    assert f"({MINUS}5 to +1.0 %, which includes no effect; the oracle" in said[0]
    assert said[1] == "No gain in mean latency from shortest first by a predictor is more than " + (
        "chance here."
    )


def test_what_prompt_length_gives_for_free_is_no_gain_of_a_predictor() -> None:
    said = judged(At(1.1, 40, GAIN | {PROMPT: (0.81, 1.0, 1.0)}))
    assert "does no more than prompt-sjf" in said[-1]
    said = judged(At(1.1, 40, GAIN | {PROMPT: (0.7, 1.0, 1.0)}))
    assert said[-1] == (
        "prompt-sjf, which needs no predictor, does more for mean latency than shortest first by "
        "any."
    )


def test_a_single_draw_has_no_interval_and_proves_nothing() -> None:
    said = judged(At(1.1, 40, GAIN, half=None))
    assert "(of one draw; the oracle" in said[0]
    assert said[-1].startswith("No gain in mean latency")


def test_a_sweep_is_told_by_the_highest_load_that_can_be_borne_and_the_highest() -> None:
    said = judged(*(At(load, 40, GAIN) for load in (0.8, 0.9, 1.1, 1.4)))
    assert [("90 %" in one, "140 %" in one) for one in said[:2]] == [(True, False), (False, True)]
    assert len(said) == 3


def test_longest_first_is_about_throughput() -> None:
    arms = {
        Arm("longest-first", "own"): (1.2, 1.08, 0.9),
        Arm("longest-first", "oracle"): (1.3, 1.2, 0.8),
        Arm("longest-prompt-first"): (1.05, 1.01, 1.0),
    }
    said = judged(At(None, 90, arms))
    assert said[0].startswith("With 100 requests at once, longest first by own: tokens/s +8 % (+7")
    assert said[1] == (
        "For tokens/s, longest first by own is worth it where requests queue; the price is mean "
        "latency."
    )


def test_controls_alone_are_no_verdict() -> None:
    assert judged(At(1.1, 40, {ORACLE: (0.7, 1, 1)})) == [
        "No predictor was replayed: these are the controls alone."
    ]
