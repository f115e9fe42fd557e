"""A look at the prompt by a small language model: its state after the last token, and a small head.

One forward pass, nothing is written: what the model would say, and so how long, is in part decided
before its first token. That lengths can be read off hidden states is known from TRAIL (Shahout et
al., arXiv:2410.01035), there of the large model itself.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Self

import numpy as np
import numpy.typing as npt

from lengthpred.artifact import Contents, Storable
from lengthpred.base import FloatArray, Request
from lengthpred.distribution import LengthDistribution
from lengthpred.errors import BackendError
from lengthpred.models.backends.base import (
    Backend,
    ReadingBackend,
    Source,
    open_backend,
    stored_source,
)
from lengthpred.models.length_map import prompt_length
from lengthpred.models.score_table import ScoreTable
from lengthpred.models.slm import shortened

__all__ = ["Prefill", "features"]


class Prefill(Storable):
    """A linear score of what a small model makes of the prompt, and a table to distributions.

    weights  float64 (d + 2,): of the state, the entropy of the next token, and the log length of
             the prompt; see `features`
    bias     added to the score
    levels   by target model, what is added for it; a model that was never seen gets 0
    table    of distributions by score

    A request without text gets the prior. Nothing is loaded before the first question. Raises
    BackendError for a backend that cannot read, and when the model cannot be used.
    """

    kind = "slm-prefill"

    def __init__(
        self,
        source: Source,
        weights: FloatArray,
        bias: float,
        levels: Mapping[str, float],
        table: ScoreTable,
        backend: Backend | None = None,
    ) -> None:
        if weights.ndim != 1 or not np.isfinite(weights).all() or not np.isfinite(bias):
            raise ValueError("the head of a small model holds finite weights, one for each feature")
        self.source, self.weights, self.bias = source, weights, float(bias)
        self.levels = {model: float(level) for model, level in levels.items()}
        self.table = table
        self.backend = backend or open_backend(source)
        self._reader = reading(self.backend, source)

    def predict(self, requests: Sequence[Request]) -> LengthDistribution:
        """See `lengthpred.Predictor`."""
        return self.table(self.score(requests))

    def provisional(
        self, requests: Sequence[Request]
    ) -> tuple[LengthDistribution, npt.NDArray[np.bool_]]:
        """See `lengthpred.Refiner`: the prior, before the model is asked; all are unsure."""
        return self.table(np.full(len(requests), np.nan)), np.ones(len(requests), bool)

    def refine(
        self, requests: Sequence[Request], deadline_s: float
    ) -> tuple[LengthDistribution, npt.NDArray[np.bool_]]:
        """See `lengthpred.Refiner`.

        A pass through the model cannot be stopped: batches grow from one request on, as far as the
        time that the last one took leaves room for. Only the first, which may have to load the
        model, can be late.
        """
        end = time.monotonic() + deadline_s
        scores = np.full(len(requests), np.nan)
        done, size, each_s = 0, 1, 0.0
        while done < len(requests):
            begun = time.monotonic()
            if begun + each_s >= end:
                break
            if each_s:
                size = min(2 * size, self.source.batch, int((end - begun) / each_s))
            scores[done : done + size] = self.score(requests[done : done + size])
            done = min(done + size, len(requests))
            each_s = (time.monotonic() - begun) / size
        return self.table(scores), ~np.isnan(scores)

    def score(self, requests: Sequence[Request]) -> FloatArray:
        """The predicted rank of each length, about 0 to 1, (p,); NaN without text."""
        if not requests:
            return np.zeros(0)
        table = features(self._reader, requests)
        if table.shape[1] != len(self.weights):
            raise BackendError(
                f"the model {self.source.model} has states of {table.shape[1] - 2} numbers, and "
                f"the predictor was trained on {len(self.weights) - 2}: it is another model"
            )
        level = np.array([self.levels.get(request.model, 0.0) for request in requests])
        score: FloatArray = table @ self.weights + self.bias + level
        return score

    def contents(self) -> Contents:
        """See `Storable`."""
        return Contents(
            config={"source": self.source.as_json(), "bias": self.bias, "levels": self.levels},
            grid=self.table.grid,
            arrays={"weights": self.weights, **self.table.arrays("table")},
        )

    @classmethod
    def from_contents(cls, contents: Contents) -> Self:
        """See `Storable`."""
        config = contents.config
        return cls(
            stored_source(config),
            contents.arrays["weights"],
            config["bias"],
            config["levels"],
            ScoreTable.from_arrays(contents.grid, contents.arrays, "table"),
        )


def reading(backend: Backend, source: Source) -> ReadingBackend:
    """The backend as one that reads; raises BackendError where it cannot."""
    if not isinstance(backend, ReadingBackend):
        raise BackendError(
            f"the backend '{source.backend}' does not show what its model makes of a prompt: take "
            "'transformers'"
        )
    return backend


def features(backend: ReadingBackend, requests: Sequence[Request]) -> FloatArray:
    """What the head sees, float64 (p, d + 2); NaN in the rows of requests without text.

    The d numbers of the state after the last token of the prompt, the entropy of the next token in
    nats, and the log length of the whole prompt: a long one is read in part only.
    """
    states, entropies = backend.read([shortened(request) for request in requests])
    return np.column_stack([states, entropies, prompt_length(requests)]).astype(np.float64)
