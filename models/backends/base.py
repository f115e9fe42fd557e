"""What every backend keeps to: a language model writes answers, and their tokens are counted."""

import importlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
import numpy.typing as npt
from numpy import bool_, float32

from lengthpred.base import IntArray, Request
from lengthpred.errors import SettingsError, did_you_mean

__all__ = [
    "BACKENDS",
    "Backend",
    "ReadingBackend",
    "Source",
    "TextBackend",
    "answered",
    "is_recorded",
    "open_backend",
    "seconds_left",
    "stored_source",
]

BACKENDS = {
    "openai": "lengthpred.models.backends.openai:OpenAIBackend",
    "recorded": "lengthpred.models.backends.recorded:RecordedBackend",
    "transformers": "lengthpred.models.backends.transformers:TransformersBackend",
}


@dataclass(frozen=True)
class Source:
    """Which model answers, and where it is: what an artifact keeps of a model that it refers to.

    backend     transformers, openai or recorded
    model       transformers: a folder, a GGUF file or a hub id; openai: the name that the server
                serves it under; recorded: the model whose rows are meant, where there are several
    url         openai: base URLs of one or more servers that serve the model, ending in /v1
    samples     recorded: the table
    revision    transformers: of a hub id
    device      transformers: cpu, cuda, ...
    dtype       transformers: float32, bfloat16, float16
    batch       requests that are worked on at once: rows of a batch, connections to the servers
    checksum    sha256 of the model's files or of the table; "" where none is known (a server's).
                A backend that finds another one raises BackendError when it is first asked
    """

    backend: str
    model: str = ""
    url: tuple[str, ...] = ()
    samples: str = ""
    revision: str = ""
    device: str = "cpu"
    dtype: str = "float32"
    batch: int = 64
    checksum: str = ""

    def absolute(self) -> Self:
        """The same with absolute paths, to be used from other folders than this one."""
        here = self.backend == "transformers" and os.path.exists(self.model)
        return replace(
            self,
            model=os.path.abspath(self.model) if here else self.model,
            samples=os.path.abspath(self.samples) if self.samples else "",
        )

    def as_json(self) -> dict[str, Any]:
        """What an artifact stores."""
        return asdict(self) | {"url": list(self.url)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The opposite of `as_json`; raises ValueError for what is none."""
        known = {field.name for field in fields(cls)}
        if not set(values) <= known:
            raise ValueError(f"a source has no {', '.join(sorted(set(values) - known))}")
        urls = values.get("url", [])
        if not isinstance(urls, list | tuple) or not all(isinstance(url, str) for url in urls):
            raise ValueError("the url of a source must be a list of texts")
        batch, others = values.get("batch", 1), {"backend": None, **values}
        if type(batch) is not int or batch < 1:
            raise ValueError(f"the batch of a source must be 1 or more, not {batch!r}")
        for name in others.keys() - {"url", "batch"}:
            if not isinstance(others[name], str):
                raise ValueError(f"the {name} of a source must be a text, not {others[name]!r}")
        return cls(**{**values, "url": tuple(urls)})


def stored_source(config: Mapping[str, Any]) -> Source:
    """The source in an artifact's config; raises ValueError for a model that cannot be checked."""
    source = Source.from_json(config["source"])
    if source.backend == "transformers" and not source.checksum:
        raise ValueError(f"its model '{source.model}' has no checksum")
    return source


class Backend(Protocol):
    """A language model that can be asked how long its answers are. Thread-safe.

    Making one is cheap: nothing is read, loaded or connected before the first question.
    """

    def generate_lengths(
        self,
        requests: Sequence[Request],
        n: int,
        temperature: float,
        cap: int,
        deadline_s: float | None,
        seed: int,
    ) -> tuple[IntArray, npt.NDArray[bool_]]:
        """Write n answers to each of p requests and count them.

        temperature  of sampling; 0 takes the likeliest token
        cap          most tokens of an answer
        deadline_s   seconds after which it returns with what is there; None for no limit
        seed         the same one gives the same answers, where the backend can promise that

        Returns lengths, int64 (p, n), in tokens of the backend's model, the end token not
        counted, and censored, bool (p, n): the answer was stopped (by the cap, by the deadline, or
        because this request cannot be answered) and is at least that long; 0 and censored says
        nothing at all. Raises BackendError when the model cannot be used or the server is down.
        """
        ...

    def checksum(self) -> str:
        """sha256 of what answers, as in `Source.checksum`; "" where it cannot be known.

        Raises BackendError when there is nothing at the source.
        """
        ...

    def close(self) -> None:
        """Let go of the model, or of the connections; a later question opens it again."""
        ...


@runtime_checkable
class TextBackend(Protocol):
    """A backend that gives the text of answers, too."""

    def generate_texts(
        self,
        requests: Sequence[Request],
        n: int,
        temperature: float,
        cap: int,
        deadline_s: float | None,
        seed: int,
    ) -> list[list[str]]:
        """n texts for each request, as far as they were written; see `Backend`."""
        ...


@runtime_checkable
class ReadingBackend(Protocol):
    """A backend that can look at a prompt without writing anything."""

    def read(
        self, requests: Sequence[Request]
    ) -> tuple[npt.NDArray[float32], npt.NDArray[float32]]:
        """The state after the last prompt token, and how unsure the next token is.

        Returns the last layer's hidden state, float32 (p, d), and the entropy of the next token
        in nats, float32 (p,). A request without text gets NaN. Raises BackendError as `Backend`.
        """
        ...


def open_backend(source: Source) -> Backend:
    """The backend of a source. Raises SettingsError for an unknown one or one that lacks a part."""
    if source.backend not in BACKENDS:
        raise SettingsError(
            f"'{source.backend}' is no backend. {did_you_mean(source.backend, BACKENDS)}"
        )
    needed = {"transformers": "model", "openai": "url", "recorded": "samples"}[source.backend]
    if not getattr(source, needed):
        raise SettingsError(f"the backend '{source.backend}' needs '{needed}' to be set")
    module, _, name = BACKENDS[source.backend].partition(":")
    made: Backend = getattr(importlib.import_module(module), name)(source)
    return made


def is_recorded(predictor: object) -> bool:
    """Whether what a predictor, or a part of it, asks is a table: its time is not a model's."""
    asked = getattr(predictor, "fallback", predictor)
    return getattr(getattr(asked, "source", None), "backend", "") == "recorded"


def answered(lengths: IntArray, censored: npt.NDArray[bool_]) -> npt.NDArray[bool_]:
    """Of which requests lengths and censored (p, n) say anything at all, (p,)."""
    told: npt.NDArray[bool_] = np.any(~censored | (lengths > 0), axis=1)
    return told


def seconds_left(end: float | None, now: float) -> float | None:
    """Seconds until `end`, never below 0; None for no end."""
    return None if end is None else max(end - now, 0.0)
