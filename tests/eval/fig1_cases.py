"""Small folds of the experiment, and made-up results, as a run would give them."""

import itertools
from collections.abc import Iterator

import numpy as np

from lengthpred.base import Request
from lengthpred.data.table import Rows
from lengthpred.distribution import LengthDistribution, LengthGrid
from lengthpred.eval.sqlm_fig1.arms import ARMS
from lengthpred.eval.sqlm_fig1.setting import Fig1Result, Fig1Settings, Fold

__all__ = ["DOMAINS", "HELD_OUT", "SETTINGS", "make_fold", "make_results"]

DOMAINS = ("chat", "code", "sums")
TYPICAL = np.array([120, 400, 30])

SETTINGS = Fig1Settings(ratios=(0.0, 0.5, 0.8), sum_limits=(2024, 512), draws=4)
HELD_OUT = [("chat <b>", "code & more")]
LATENCY = {"fcfs": 1.0, "sjf": 0.8, "longest-first": 1.4}
SPEED = {"fcfs": 1.0, "sjf": 0.96, "longest-first": 1.15}
KNOWS = {None: 0.0, "qlm": 0.2, "sqlm": 0.25, "sqlm-all": 0.4, "oracle": 1.0}


def make_fold(number: int = 0, n: int = 240, held_out: tuple[str, ...] = ("code",)) -> Fold:
    """Three domains; the histogram knows the marginal, the small model the length, with noise."""
    rng = np.random.default_rng(number)
    domain = rng.integers(len(DOMAINS), size=n)
    lengths = np.rint(TYPICAL[domain, None] * rng.lognormal(0, 0.6, (n, 1))) + 1
    samples = np.rint(lengths * rng.lognormal(0, 0.2, (n, 3))).astype(np.int64)
    ood = np.isin(np.array(DOMAINS)[domain], held_out)
    rows = Rows(
        requests=[
            Request(prompt=f"question {i}", prompt_tokens=int(tokens), model="large", id=f"r{i}")
            for i, tokens in enumerate(rng.integers(5, 400, n))
        ],
        lengths=samples.ravel(),
        censored=np.zeros(3 * n, bool),
        owner=np.repeat(np.arange(n), 3),
        groups=np.arange(n),
        columns={"domain": np.array(DOMAINS, object)[domain], "ood": ood},
    )

    def told(noise: float) -> LengthDistribution:
        guess = lengths * rng.lognormal(0, noise, (n, 6))
        return LengthDistribution.from_samples(LengthGrid(), list(guess.astype(np.int64)))

    unsure = ood | (rng.random(n) < 0.05)
    return Fold(held_out, rows, told(1.5), told(0.4), unsure)


def make_results(settings: Fig1Settings = SETTINGS) -> list[Fig1Result]:
    """A result for each arm, engine, limit, ratio and measure that the pages ask for."""
    return list(_results(settings))


def _results(settings: Fig1Settings) -> Iterator[Fig1Result]:
    for engine, limit, arrivals, ratio in itertools.product(
        settings.engines, settings.sum_limits, ARMS, settings.ratios
    ):
        if arrivals == "poisson" and engine != "continuous":
            continue
        for arm in ARMS[arrivals]:
            knows = KNOWS[arm.predictor] * (0.5 + ratio)
            speed = 1 + (SPEED[arm.policy] - 1) * knows - 0.3 * (arm.slm == "added")
            latency = 1 + (LATENCY[arm.policy] - 1) * knows
            measures = {
                "tps": 7000 * speed,
                "tps_vs_fcfs": speed,
                "tps_vs_qlm": speed,
                "mean_e2el_ms": 30_000 * latency,
                "mean_e2el_ms_vs_fcfs": latency,
                "mean_e2el_ms_vs_qlm": latency,
                "slm_s": 40.0 * ratio,
                "slm_requests": 800 * ratio,
            }
            if arm.predictor:
                measures |= {"tau": knows / 2, "tau_minus_qlm": knows / 2 - 0.1}
            for metric, value in measures.items():
                yield Fig1Result(
                    engine,
                    arm.policy,
                    arm.predictor,
                    arrivals,
                    1.2 if arrivals == "poisson" else None,
                    None,
                    ratio,
                    limit,
                    arm.slm,
                    metric,
                    value,
                    value - 0.05 * abs(value),
                    value + 0.05 * abs(value),
                    settings.draws,
                )
