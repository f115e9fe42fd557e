"""Whom a labelling asks, and how; what of that its answers depend on."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lengthpred.data.table import Table
from lengthpred.errors import SettingsError
from lengthpred.models.backends.base import Source, open_backend

__all__ = ["LabelSettings", "model_name"]


@dataclass(frozen=True)
class LabelSettings:
    """Whom to ask, and how.

    samples     answers to each prompt
    temperature of sampling
    cap         most tokens of an answer; longer ones are censored there
    deadline_s  seconds for one answer (a local model: one batch); unfinished ones are censored
    rate        most prompts asked a second, over all workers
    max_rows    ask a seeded sample of this many rows of a longer table
    seed        of the sampling; a row's own follows from it and the row's number
    shard_rows  rows that are kept together; what a killed run loses at most, or little more
    """

    source: Source
    samples: int = 1
    temperature: float = 1.0
    cap: int = 2048
    deadline_s: float | None = None
    rate: float | None = None
    max_rows: int | None = None
    seed: int = 0
    shard_rows: int = 64

    def check(self) -> None:
        """Raise SettingsError for a value that cannot be."""
        counts = {name: getattr(self, name) for name in ("samples", "cap", "shard_rows")}
        counts |= {"batch": self.source.batch}
        counts |= {} if self.max_rows is None else {"max_rows": self.max_rows}
        for name, value in counts.items():
            if value < 1:
                raise SettingsError(f"--{name.replace('_', '-')} must be 1 or more, not {value}")
        for name in ("deadline_s", "rate"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise SettingsError(f"--{name.replace('_', '-')} must be above 0, not {value}")
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise SettingsError(f"--temperature must be 0 or more, not {self.temperature}")
        if self.seed < 0:
            raise SettingsError(f"--seed must be 0 or more, not {self.seed}")
        open_backend(self.source)
        if self.source.backend == "openai" and not self.source.model:
            raise SettingsError(
                "--model is needed: the name that the server serves the model under"
            )

    def identity(self, table: Table, model: str) -> dict[str, Any]:
        """What the answers depend on, by the names of the options.

        Where the servers are and how fast they are asked is left out: a labelling may go on with
        other ones.
        """
        source = self.source
        return {
            "format": 1,
            "table": table.fingerprint,
            "backend": source.backend,
            "model": model,
            "samples table" if source.samples else "model file": open_backend(source).checksum(),
            "revision": source.revision,
            "dtype": source.dtype,
            "samples": self.samples,
            "temperature": self.temperature,
            "cap": self.cap,
            "deadline-s": self.deadline_s,
            "max-rows": self.max_rows,
            "seed": self.seed,
            "shard-rows": self.shard_rows,
        }


def model_name(source: Source) -> str:
    """What the column `model` says."""
    if source.backend == "recorded" and not source.model:
        batches = Table(source.samples).batches(("model",))
        names = {name for batch in batches for name in batch.column("model").to_pylist()}
        if len(names) > 1:
            raise SettingsError(
                f"{source.samples} has samples of {len(names)} models: name one of them with "
                f"--model ({', '.join(sorted(map(str, names)))})"
            )
        return str(names.pop())
    # A folder or file by its own name: where it lies on this machine says nothing to others.
    path = Path(source.model)
    here = source.backend == "transformers" and path.exists()
    return path.resolve().name.removesuffix(".gguf") if here else source.model
