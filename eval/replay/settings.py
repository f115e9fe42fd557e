"""What a simulation replays."""

from dataclasses import dataclass, field

import numpy as np

from lengthpred.errors import SettingsError, did_you_mean
from lengthpred.eval.replay.arrivals import ARRIVALS, BURSTINESS
from lengthpred.eval.replay.workload import Engine
from lengthpred.ordering import OrderingSettings

__all__ = [
    "ENGINES",
    "OFFLINE",
    "PREDICTION_TIMES",
    "REAL_ENGINES",
    "SERVER",
    "SimulationSettings",
]

SERVER, OFFLINE = "vllm-server", "vllm-offline"
REAL_ENGINES = (SERVER, OFFLINE)  # not replayed: see `lengthpred.eval.bench`
ENGINES = ("continuous", "gang", "slices", "vllm", *REAL_ENGINES)
PREDICTION_TIMES = ("charge", "hide")


@dataclass(frozen=True)
class SimulationSettings:
    """What is replayed.

    requests    requests of a replay, drawn from the rows with replacement
    draws       replays of each arm, each on other requests; the arms of a draw share them
    engine      continuous, gang (static batches), slices (of `slice_tokens`) or vllm (its own
                scheduler); vllm-server and vllm-offline are measured rather than replayed
    hardware    the engine's slots, room and step times
    arrivals    one or more of burst (all at once), poisson, bursty and trace (as recorded)
    loads       arrival rates of poisson and bursty, as shares of what the engine can serve
    rates       arrival rates in requests a second, in place of loads; recorded ones are scaled
    burstiness  of bursty arrivals
    sum_limit   most tokens of a request, in and out
    ood_ratios  shares of rows out of distribution; None for rows as they come
    prediction  charge: a request joins the queue when its prediction is there; hide: it joins at
                once at the cost of an average one, and moves when its prediction is there
    ordering    what bears on the order besides lengths

    Raises SettingsError for what cannot be.
    """

    requests: int = 1000
    draws: int = 5
    engine: str = "continuous"
    hardware: Engine = field(default_factory=Engine)
    slice_tokens: int = 128
    arrivals: tuple[str, ...] = ("burst", "poisson")
    loads: tuple[float, ...] = (0.8, 1.0, 1.2, 1.5)
    rates: tuple[float, ...] = ()
    burstiness: float = BURSTINESS
    sum_limit: int | None = None
    ood_ratios: tuple[float | None, ...] = (None,)
    prediction: str = "charge"
    ordering: OrderingSettings = field(default_factory=OrderingSettings)

    def __post_init__(self) -> None:
        named = (
            ("engine", self.engine, ENGINES),
            *(("kind of arrivals", arrivals, ARRIVALS) for arrivals in self.arrivals),
            ("way to count prediction time", self.prediction, PREDICTION_TIMES),
        )
        for what, value, known in named:
            if value not in known:
                raise SettingsError(f"'{value}' is no {what}. {did_you_mean(value, known)}")
        for what, number in (("requests", self.requests), ("draws", self.draws)):
            if number < 1:
                raise SettingsError(f"the number of {what} must be 1 or more, not {number}")
        for load in (*self.loads, *self.rates):
            if not 0 < load < np.inf:
                raise SettingsError(f"a load or rate must be above 0, not {load:g}")
        if not self.burstiness > 0:
            raise SettingsError(f"the burstiness must be above 0, not {self.burstiness:g}")
        if "trace" in self.arrivals and self.ood_ratios != (None,):
            raise SettingsError("recorded arrivals come with their own rows: leave out OOD ratios")
