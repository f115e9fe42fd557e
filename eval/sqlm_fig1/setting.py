"""What is replayed, what was published, and the rows of the result."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

import numpy as np
import numpy.typing as npt

from lengthpred.data.table import Rows
from lengthpred.distribution import LengthDistribution
from lengthpred.errors import SettingsError
from lengthpred.eval.replay.settings import OFFLINE
from lengthpred.eval.replay.workload import Engine
from lengthpred.models.cascade import Cascade

__all__ = ["PUBLISHED_GAIN", "PUBLISHED_SLM_S", "Fig1Result", "Fig1Settings", "Fold"]

# S-QLM against QLM in tokens a second of LLM time, by OOD ratio; at 0 with the SLM on every query.
PUBLISHED_GAIN = {0.0: 0.988, 0.5: 1.097, 0.8: 1.115}
# Seconds of the SLM for 1,000 requests, by OOD ratio.
MOST_S = 1_000_000
PUBLISHED_SLM_S = {0.5: 27.8, 0.8: 41.4}


@dataclass(frozen=True)
class Fold:
    """One split that keeps corpora from training, and what was predicted of its other rows.

    held_out  the corpora
    rows      n requests to replay; their column `ood` says which are of these corpora
    qlm, slm  what the histogram and the small model say of them
    unsure    bool (n,): for which S-QLM asks the small model
    """

    held_out: tuple[str, ...]
    rows: Rows
    qlm: LengthDistribution
    slm: LengthDistribution
    unsure: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, held_out: tuple[str, ...], rows: Rows, sqlm: Cascade) -> Self:
        """Ask all parts of S-QLM for every row. Raises BackendError as the small model does."""
        qlm, unsure = sqlm.provisional(rows.requests)
        return cls(held_out, rows, qlm, sqlm.fallback.predict(rows.requests), unsure)


@dataclass(frozen=True)
class Fig1Settings:
    """The settings of the publication, as far as it gives them.

    ratios      shares of requests from corpora that training never saw
    sum_limits  most tokens of a request, in and out; the first is the one that all else is told for
    engines     continuous, gang (static batches); or vllm-offline alone, which is measured
    draws       replays of each arm, each on another split and other requests
    slm_s       seconds that the small model takes for one request. 54 ms are the published 52 to
                56 for each request that was asked
    load        Poisson arrivals as a share of capacity, for latency: 1,000 at once, as published,
                are a queue that only empties
    """

    ratios: Sequence[float] = (0.0, 0.5, 0.8)
    sum_limits: Sequence[int] = (2024, 1024, 512)
    engines: Sequence[str] = ("continuous", "gang")
    requests: int = 1000
    draws: int = 20
    slm_s: float = 0.054
    load: float = 1.2
    hardware: Engine = field(default_factory=Engine)

    def __post_init__(self) -> None:
        if self.draws < 1 or self.requests < 1:
            raise SettingsError("the experiment needs 1 draw and 1 request or more")
        for engine in self.engines:
            if engine not in ("continuous", "gang", OFFLINE):
                raise SettingsError(
                    f"the experiment runs on the engines continuous and gang, not on '{engine}'"
                )
        if not 0 <= self.slm_s <= MOST_S:
            raise SettingsError(
                f"the small model's time must lie between 0 and {MOST_S:,} s, not {self.slm_s:g}"
            )


@dataclass(frozen=True)
class Fig1Result:
    """One measure of one arm in one setting, over all draws; the fields as in `ReplayResult`.

    arrivals   burst, burst-long-at-head or poisson
    predictor  qlm, sqlm, sqlm-all (the small model on every query) or oracle; None for none
    slm        how the small model's time is counted: apart, added or hidden; None where none runs
    metric     a measure of `measure_replay`, its ratio to shortest first by QLM in the same setting
               (_vs_qlm) or to first come first served (_vs_fcfs), draw by draw; slm_s, the small
               model's seconds; slm_requests, how many it was asked for; tau of the predicted
               median (of a hidden arm: once the small model is through), and tau_minus_qlm
    """

    engine: str
    policy: str
    predictor: str | None
    arrivals: str
    load: float | None
    rate: float | None
    ood_ratio: float
    sum_limit: int
    slm: str | None
    metric: str
    value: float
    low: float | None
    high: float | None
    n: int
