"""S-QLM's second opinion: a small language model (SLM) writes the answer; its tokens are counted.

A map fitted on pairs of lengths (`lengthpred.training.slm`) turns what the small model wrote into a
distribution of what the large one will write. The model itself is not part of the artifact, which
keeps where it is and a checksum of it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import numpy.typing as npt

from lengthpred.artifact import Contents, Storable
from lengthpred.base import IntArray, Request
from lengthpred.distribution import LengthDistribution, LengthGrid
from lengthpred.errors import BackendError
from lengthpred.models.backends.base import Backend, Source, answered, open_backend, stored_source
from lengthpred.models.length_map import ALL_MODELS, LengthMap, apply_maps, identity

__all__ = ["GenerateAndCount", "Generation", "MappedSamples", "shortened"]

# Of a prompt that a small model shall look at but not answer: the end tells most of what is asked.
HEAD, TAIL = 1500, 500
CONTEXT = 2000
MOST = 1_000_000


@dataclass(frozen=True)
class Generation:
    """How the small model writes: n answers of at most `cap` tokens; see `Backend`."""

    n: int = 1
    temperature: float = 1.0
    cap: int = 1024
    seed: int = 0

    def __post_init__(self) -> None:
        whole = (self.n, self.cap, self.seed)
        if any(type(number) is not int or number < 0 for number in whole) or not (
            1 <= self.n <= MOST and 1 <= self.cap <= MOST and 0 <= self.temperature <= MOST
        ):
            raise ValueError(
                f"a generation has n and cap from 1 to {MOST:,}, a temperature of 0 or more and a "
                "seed that is a whole number"
            )


class MappedSamples(Storable):
    """What a small model says of each request as lengths, mapped to the large model's.

    maps: by target model, and ALL_MODELS for any other; none at all is the identity.

    Subclasses say how the model is asked (`samples`). A request that it cannot answer (it has no
    text, its prompt is too long) gets what is known without an answer. Nothing is loaded or
    connected before the first question. Raises BackendError when the model cannot be used or its
    server is down.
    """

    def __init__(
        self,
        source: Source,
        generation: Generation,
        maps: Mapping[str, LengthMap],
        backend: Backend | None = None,
    ) -> None:
        self.source, self.generation, self.maps = source, generation, dict(maps)
        self.backend = backend or open_backend(source)
        self._grid = next((m.table.grid for m in maps.values()), LengthGrid())

    def predict(self, requests: Sequence[Request]) -> LengthDistribution:
        """See `lengthpred.Predictor`; waits for every answer."""
        return self._answer(requests, *self.samples(requests, None))

    def provisional(
        self, requests: Sequence[Request]
    ) -> tuple[LengthDistribution, npt.NDArray[np.bool_]]:
        """See `lengthpred.Refiner`: what is known before the model is asked; all are unsure."""
        nothing = np.zeros((len(requests), 1), np.int64), np.ones((len(requests), 1), bool)
        return self._answer(requests, *nothing), np.ones(len(requests), bool)

    def refine(
        self, requests: Sequence[Request], deadline_s: float
    ) -> tuple[LengthDistribution, npt.NDArray[np.bool_]]:
        """See `lengthpred.Refiner`; what is half written at the deadline was stopped there."""
        if deadline_s <= 0:
            first, unsure = self.provisional(requests)
            return first, ~unsure
        lengths, censored = self.samples(requests, deadline_s)
        return self._answer(requests, lengths, censored), answered(lengths, censored)

    def samples(
        self, requests: Sequence[Request], deadline_s: float | None
    ) -> tuple[IntArray, npt.NDArray[np.bool_]]:
        """Ask the model; lengths in tokens and whether each is a lower bound only, (p, k).

        0 and censored: it said nothing. deadline_s: as `Backend` has it.
        """
        raise NotImplementedError

    def _answer(
        self, requests: Sequence[Request], lengths: IntArray, censored: npt.NDArray[np.bool_]
    ) -> LengthDistribution:
        if not self.maps:
            return identity(self._grid, lengths, censored)
        return apply_maps(self.maps, requests, lengths, censored)

    def contents(self) -> Contents:
        """See `Storable`."""
        contents = Contents(
            config={
                "source": self.source.as_json(),
                "generation": vars(self.generation),
                "maps": list(self.maps),
            },
            grid=self._grid,
        )
        for number, one in enumerate(self.maps.values()):
            contents.arrays |= one.arrays(f"map{number}")
        return contents

    @classmethod
    def from_contents(cls, contents: Contents) -> Self:
        """See `Storable`."""
        config = contents.config
        maps = {
            str(name): LengthMap.from_arrays(contents.grid, contents.arrays, f"map{number}")
            for number, name in enumerate(config["maps"])
        }
        if maps and ALL_MODELS not in maps:
            raise ValueError("it has no map for models that it was not trained on")
        generation = Generation(**config["generation"])
        return cls(stored_source(config), generation, maps)


class GenerateAndCount(MappedSamples):
    """Lets a small model write n answers and maps their lengths to the large model's.

    With a small `cap` "longer than x" is known early and cheaply: a stopped answer is censored,
    and never taken for one of `cap` tokens.
    """

    kind = "slm"

    def samples(
        self, requests: Sequence[Request], deadline_s: float | None
    ) -> tuple[IntArray, npt.NDArray[np.bool_]]:
        """See `MappedSamples`: lengths of the n answers, (p, n)."""
        how = self.generation
        lengths, censored = self.backend.generate_lengths(
            requests, how.n, how.temperature, how.cap, deadline_s, how.seed
        )
        shape = (len(requests), how.n)
        if lengths.shape != shape or censored.shape != shape or (lengths < 0).any():
            raise BackendError(
                f"the backend '{self.source.backend}' answered {len(requests)} requests with "
                f"lengths of shape {lengths.shape}: it does not keep the protocol"
            )
        return lengths, censored


def shortened(request: Request) -> Request:
    """What a model reads that shall not answer: head and tail of the prompt, end of the context.

    A look at a prompt is worth little more than its price, which grows with the prompt.
    """
    prompt, context = request.prompt, request.context
    if len(prompt) > HEAD + TAIL:
        prompt = f"{prompt[:HEAD]}\n...\n{prompt[-TAIL:]}"
    return replace(request, prompt=prompt, context=context[-CONTEXT:])
