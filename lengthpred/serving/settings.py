"""What a server is told of its predictor: by the environment, since plugins take no arguments."""

import os
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lengthpred.errors import SettingsError
from lengthpred.ordering import POLICIES, PREEMPTIVE, OrderingSettings

__all__ = ["MB", "PREFIX", "VARIABLES", "ServingSettings"]

PREFIX = "LENGTHPRED_"
MB = 1_000_000  # bytes
NEAR = 0.85  # so alike is a misspelt name
# Keys are given once, at arrival: policies that look at what is written need a scheduler.
Policy = Literal[
    "fcfs",
    "random",
    "prompt-sjf",
    "sjf",
    "gittins",
    "slo",
    "edf",
    "longest-first",
    "longest-prompt-first",
]
Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(gt=0, lt=1)]


class ServingSettings(BaseModel):
    """Settings of a server, each also `LENGTHPRED_` and its name in capitals in the environment.

    artifact          what `lengthpred.load` takes
    policy            in which order requests run; `fcfs` predicts, and changes nothing
    deadline_ms       no request waits longer for its prediction
    hold_ms           how long an unsure request may wait for a second opinion while others queue
    max_overtake_s    starvation bound; see `OrderingSettings`, as for the three that follow
    max_body_mb       larger bodies are refused (413)
    read_mb           of larger bodies nothing is predicted: they are ordered by the prior
    allow_unordered   let through what cannot carry a priority: it runs before all that waits
    feedback          folder for the true lengths; none are kept without
    keep_prompts      with the texts of requests
    feedback_mb       what the folder may hold; the oldest goes
    api_key_digests   sha256 of the keys that the server takes, in hex; without any, all are let in
    pending           how many requests are remembered until their length is known
    pending_s         and for how long
    pending_mb        and what they may hold, texts included
    sockets           folder where engines with our scheduler hear of late second opinions
    srpt              our scheduler preempts one that runs for one with much less left
    arms              a TOML file of policies and artifacts to choose from, for experiments
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    artifact: str = "default"
    policy: Policy = "sjf"
    deadline_ms: Positive = 25.0
    hold_ms: Annotated[float, Field(ge=0)] = 0.0
    max_overtake_s: Positive = 1800.0
    cap: Annotated[float, Field(ge=1, le=2**31)] = 4096.0
    prefill_weight: Annotated[float, Field(ge=0)] = 0.0
    quantile: Share | None = None
    max_body_mb: Positive = 64.0
    read_mb: Positive = 1.0
    allow_unordered: bool = False
    feedback: Path | None = None
    keep_prompts: bool = False
    feedback_mb: Positive = 1024.0
    api_key_digests: tuple[str, ...] = ()
    pending: Annotated[int, Field(ge=1)] = 100_000
    pending_s: Positive = 3600.0
    pending_mb: Positive = 256.0
    sockets: Path | None = None
    srpt: bool = False
    arms: Path | None = None

    @property
    def ordering(self) -> OrderingSettings:
        """Those that bear on the order."""
        return OrderingSettings(
            max_overtake_s=self.max_overtake_s,
            cap=self.cap,
            prefill_weight=self.prefill_weight,
            quantile=self.quantile,
        )

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> "ServingSettings":
        """From variables such as LENGTHPRED_ARTIFACT; what has no variable keeps its default.

        Raises SettingsError for a value that does not fit, and for a name that is nearly one of
        ours: a misspelt setting must not be passed over.
        """
        given = os.environ if environment is None else environment
        known = {PREFIX + name.upper(): name for name in cls.model_fields}
        values: dict[str, object] = {}
        for variable, text in given.items():
            if variable in known:
                values[known[variable]] = text.split(",") if variable == KEYS and text else text
            elif near := get_close_matches(variable, known, n=1, cutoff=NEAR):
                raise SettingsError(f"{variable} is no setting. Did you mean '{near[0]}'?")
        return cls.checked({name: value for name, value in values.items() if value != ""})

    @classmethod
    def checked(cls, values: Mapping[str, object]) -> "ServingSettings":
        """From values by name. Raises SettingsError for one that does not fit."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            first = error.errors()[0]
            name = str(first["loc"][0]) if first["loc"] else "settings"
            raise SettingsError(f"{name}: {first['msg']}, not {first['input']!r:.80}") from None

    def to_environment(self) -> dict[str, str]:
        """The variables that make these settings; the opposite of `from_environment`."""
        told = self.model_dump(mode="json", exclude_defaults=True)
        return {
            PREFIX + name.upper(): ",".join(value) if isinstance(value, list) else str(value)
            for name, value in told.items()
        }


KEYS = PREFIX + "API_KEY_DIGESTS"
VARIABLES = frozenset(PREFIX + name.upper() for name in ServingSettings.model_fields)
assert set(Policy.__args__) == set(POLICIES) - set(PREEMPTIVE)  # type: ignore[attr-defined]
