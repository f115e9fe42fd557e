"""The average of several predictors: their distributions, mixed in equal parts.

A linear opinion pool (Stone, 1961): what several encoders get wrong differs from one to the other.
"""

from collections.abc import Sequence
from typing import Self, cast

from lengthpred.artifact import Contents, Storable
from lengthpred.base import Predictor, Request
from lengthpred.distribution import LengthDistribution

__all__ = ["Average"]


class Average(Storable):
    """Asks each of `parts`, one or more predictors on one grid. Raises ValueError for others."""

    kind = "average"

    def __init__(self, parts: Sequence[Predictor]) -> None:
        self.parts = list(parts)
        if not self.parts or not all(hasattr(part, "predict") for part in self.parts):
            raise ValueError("an average is one of one or more predictors")
        if len({self._grid(part) for part in self.parts}) > 1:
            raise ValueError("predictors on different grids cannot be averaged")

    def predict(self, requests: Sequence[Request]) -> LengthDistribution:
        """See `lengthpred.Predictor`."""
        answers = [part.predict(requests) for part in self.parts]
        return LengthDistribution.mixture(answers, [1.0] * len(answers))

    def contents(self) -> Contents:
        """See `Storable`; each part must be storable too."""
        parts = [cast(Storable, part) for part in self.parts]
        return Contents(
            grid=parts[0].contents().grid,
            parts={f"part-{i}": part for i, part in enumerate(parts)},
        )

    @classmethod
    def from_contents(cls, contents: Contents) -> Self:
        """See `Storable`."""
        names = sorted(contents.parts, key=lambda name: int(name.removeprefix("part-")))
        return cls([cast(Predictor, contents.parts[name]) for name in names])

    @staticmethod
    def _grid(part: Predictor) -> object:
        return part.predict([]).grid
