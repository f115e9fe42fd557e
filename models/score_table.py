"""From a score to a distribution: what makes any ranker or regressor a length predictor."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from lengthpred.distribution import LengthDistribution, LengthGrid

__all__ = ["ScoreTable"]


@dataclass(frozen=True, eq=False)
class ScoreTable:
    """Distributions at rising scores, blended linearly between two neighbours.

    grid   the bins
    knots  float64 (k,), rising: the scores
    pmf    float32 (k, bins): the distribution at each; a higher score never makes a shorter
           answer likelier (`lengthpred.training.calibration` sees to that)
    prior  float32 (bins,): for what has no score
    """

    grid: LengthGrid
    knots: npt.NDArray[np.float64]
    pmf: npt.NDArray[np.float32]
    prior: npt.NDArray[np.float32]

    def __post_init__(self) -> None:
        if self.pmf.shape != (len(self.knots), self.grid.bins) or self.prior.shape != (
            self.grid.bins,
        ):
            raise ValueError(f"a score table of {len(self.knots)} knots holds {self.pmf.shape}")
        if not len(self.knots) or not (np.diff(self.knots) > 0).all():
            raise ValueError("the scores of a table must rise")
        LengthDistribution(self.grid, np.vstack([self.pmf, self.prior]))  # refuses what is none

    @classmethod
    def flat(cls, grid: LengthGrid, prior: npt.NDArray[np.float32]) -> Self:
        """A table that gives every score the prior: stands in until the real one is fitted."""
        return cls(grid, np.zeros(1), prior[None], prior)

    def __call__(self, scores: npt.NDArray[np.float64]) -> LengthDistribution:
        """One distribution for each score, shape (n,); NaN gets the prior."""
        known = ~np.isnan(scores)
        at = np.interp(
            np.where(known, scores, self.knots[0]), self.knots, np.arange(len(self.knots))
        )
        left = np.minimum(at.astype(np.int64), max(len(self.knots) - 2, 0))
        right = np.minimum(left + 1, len(self.knots) - 1)
        share = (at - left)[:, None]
        pmf = ((1 - share) * self.pmf[left] + share * self.pmf[right]).astype(np.float32)
        pmf[~known] = self.prior
        return LengthDistribution.trusted(self.grid, pmf)

    def arrays(self, name: str) -> dict[str, npt.NDArray[Any]]:
        """What an artifact stores of the table `name`."""
        return {f"{name}_knots": self.knots, f"{name}_pmf": self.pmf, f"{name}_prior": self.prior}

    @classmethod
    def from_arrays(
        cls, grid: LengthGrid, arrays: Mapping[str, npt.NDArray[Any]], name: str
    ) -> Self:
        """The opposite of `arrays`; raises KeyError or ValueError for what does not fit."""
        return cls(grid, arrays[f"{name}_knots"], arrays[f"{name}_pmf"], arrays[f"{name}_prior"])
