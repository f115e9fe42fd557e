"""Sentences of a simulation, from made-up measures."""

from dataclasses import dataclass

import pytest

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
    beyond: float | None = None  # the goal of "own" against the prompt's length
    ood: float | None = None

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
                ood_ratio=self.ood,
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
        if self.beyond is not None:
            own = next(arm for arm in self.changes if arm.predictor == "own")
            goal = MEASURES[own.policy == "longest-first"]
            found.append(of(own, f"{goal}_vs_prompt", self.beyond, self.half))
        return found


def judged(*scenarios: At) -> list[str]:
    results = [result for at in scenarios for result in at.results()]
    draws = 1 if scenarios[0].half is None else 5
    settings = SimulationSettings(requests=100, draws=draws)
    return judge_simulation(Simulation(settings, results, ["a note"], {}))


GAIN = {
    OWN: (0.82, 1.0, 1.06),
    ORACLE: (0.65, 1.0, 1.1),
    PROMPT: (0.97, 1.0, 1.0),
}


END = "100 requests on a replayed engine of 256 slots; what it assumes is in the notes."


def test_a_gain_stands_beside_the_control_and_the_oracle() -> None:
    assert judged(At(1.1, 40, GAIN, beyond=0.85)) == [
        f"Shortest first by own: mean latency {MINUS}18 % with a queue of 40 (Poisson arrivals, "
        "110 % of capacity); shortest prompt first (prompt-sjf), which needs no predictor, "
        f"{MINUS}3 %, the oracle {MINUS}35 %.",
        f"Against prompt-sjf that is {MINUS}15.0 % ({MINUS}16.0 to {MINUS}14.0 %) with a queue of "
        "40.",
        "It is worth it with a queue of 40, at the price of the longest tenth's latency (+6 %).",
        f"Mean of 5 draws of {END}",
    ]


@pytest.mark.parametrize(
    ("own", "beyond", "said"),
    [
        (0.82, 0.995, "What it adds to prompt-sjf is real, and hardly worth a predictor."),
        (0.82, 0.999, "These draws do not tell it from prompt-sjf."),
        (0.82, 1.1, "It does less than prompt-sjf."),
        (0.999, 0.9, "These draws do not tell it from first come, first served."),
        (1.1, 0.9, "It makes mean latency worse than first come, first served."),
        (0.82, None, "It beats first come, first served, and was not compared with prompt-sjf"),
    ],
)
def test_what_intervals_do_not_bear_out_is_not_claimed(
    own: float, beyond: float | None, said: str
) -> None:
    told = judged(At(1.1, 40, GAIN | {OWN: (own, 1, 1)}, half=0.002, beyond=beyond))
    assert told[-2].startswith(said)


def test_scenarios_that_differ_are_named() -> None:
    said = judged(At(None, 90, GAIN, beyond=0.9), At(1.5, 39, GAIN, beyond=0.999))
    assert f"{MINUS}18 % with 100 requests at once and {MINUS}18 % with a queue of 39 (P" in said[0]
    assert f"{MINUS}0.1 % ({MINUS}1.1 to +0.9 %, which includes no effect) with a queue" in said[1]
    assert said[2] == (
        "It is worth it with 100 requests at once, at the price of the longest tenth's latency "
        "(+6 %); these draws do not tell it from prompt-sjf with a queue of 39."
    )


def test_losses_and_what_may_be_chance_are_marked() -> None:
    lost = At(None, 90, GAIN | {OWN: (1.2, 1, 1)})
    doubtful = At(1.5, 39, GAIN | {OWN: (1.002, 1, 1)})
    said = judged(lost, doubtful)
    assert "+20 % (a loss) with 100 requests at once and +0.2 % (may be chance)" in said[0]


def test_with_no_queue_no_order_matters() -> None:
    quiet = At(0.7, 0.1, {OWN: (1, 1, 1), ORACLE: (0.985, 1, 1), PROMPT: (1, 1, 1)})
    assert judged(quiet)[0] == (
        "With hardly a queue (Poisson arrivals, 70 % of capacity: at most 0.10 waiting on average) "
        f"no order matters: the oracle's is {MINUS}1.5 % at most."
    )
    noisy = At(0.7, 0.1, {OWN: (1, 1, 1), ORACLE: (0.95, 1, 1)}, half=0.1)
    assert judged(noisy)[0].endswith(f"{MINUS}5 % at most, which may be chance.")
    single = At(0.7, 0.1, {OWN: (1, 1, 1), ORACLE: (0.99, 1, 1)}, half=None)
    assert judged(single)[0].endswith(f"{MINUS}1.0 % at most, in one draw.")


@pytest.mark.parametrize("half", [0.01, None])
def test_a_short_queue_of_a_small_engine_is_not_quiet(half: float | None) -> None:
    small = At(0.9, 1.4, GAIN | {ORACLE: (0.72, 1, 1)}, half=half)
    assert judged(small)[0].startswith("Shortest first by own")


def test_a_single_draw_has_no_interval_and_proves_nothing() -> None:
    said = judged(At(1.1, 40, GAIN, half=None, beyond=0.9))
    assert said[1:] == [
        f"Against prompt-sjf that is {MINUS}10.0 % with a queue of 40.",
        "One draw cannot tell a gain from chance: give two draws or more.",
        f"One draw of {END}",
    ]


def test_a_sweep_is_told_by_its_highest_load() -> None:
    said = judged(*(At(load, 40, GAIN, beyond=0.9) for load in (0.8, 1.4, 0.9)))
    assert "140 %" in said[0]
    assert not any("90 %" in one or "80 %" in one for one in said)


def test_other_ratios_are_told_in_one_sentence() -> None:
    def at(ratio: float, own: float, beyond: float) -> list[At]:
        changes = GAIN | {OWN: (own, 1, 1)}
        return [At(x, 40 + ratio, changes, beyond=beyond, ood=ratio) for x in (None, 1.5)]

    said = judged(*at(0.0, 0.8, 0.9), *at(0.5, 0.85, 0.95), *at(1.0, 1.05, 1.001))
    assert said[0].startswith("Shortest first by own, in distribution: mean latency")
    assert said[3] == (
        f"At 50 % and 100 % out of distribution: {MINUS}15 % and +5 % (a loss) with 100 requests "
        f"at once, against prompt-sjf {MINUS}5 % and +0.1 % (may be chance); {MINUS}15 % and +5 % "
        f"(a loss) with queues of 40 and 41, against prompt-sjf {MINUS}5 % and +0.1 % (may be "
        "chance)."
    )
    assert len(said) == 5


def test_longest_first_is_about_throughput() -> None:
    arms = {
        Arm("longest-first", "own"): (1.2, 1.08, 0.9),
        Arm("longest-first", "oracle"): (1.3, 1.2, 0.8),
        Arm("longest-prompt-first"): (1.05, 1.01, 1.0),
    }
    said = judged(At(None, 90, arms, beyond=1.07))
    assert said[0].startswith("Longest first by own: tokens/s +8 % with 100 requests at once")
    assert said[2] == (
        "It is worth it with 100 requests at once, at the price of mean latency (+20 %)."
    )


def test_controls_alone_are_no_verdict() -> None:
    assert judged(At(1.1, 40, {ORACLE: (0.7, 1, 1)})) == [
        "No predictor was replayed: these are the controls alone."
    ]
