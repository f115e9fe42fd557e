"""From the lengths that a small model wrote to the length that the large one will write."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from lengthpred.base import FloatArray, IntArray, Request
from lengthpred.distribution import LengthDistribution, LengthGrid
from lengthpred.models.score_table import ScoreTable

__all__ = ["ALL_MODELS", "LengthMap", "apply_maps", "fill_in", "identity", "prompt_length"]

ALL_MODELS = "*"

# A sample that was stopped, where no longer one is known, counts as twice as long.
DOUBLE = float(np.log(2))
SPREAD = 16  # quantiles that stand for all lengths that a stopped answer may have had
IDENTITY_SIGMA = 0.5
CHARS_A_TOKEN = 4


@dataclass(frozen=True, eq=False)
class LengthMap:
    """A conditional distribution of the large model's length.

    table    of distributions by score
    weights  float64 (3,): score = weights[0] * mean log length of the samples + weights[1] * log
             length of the prompt + weights[2]; weights[0] >= 0, so that longer samples never make
             a shorter answer likelier
    usual    float64 (k,), rising: log lengths of the small model in training: what a stopped
             answer may have become

    A log length is log(1 + tokens), of a prompt log(1 + characters).
    """

    table: ScoreTable
    weights: FloatArray
    usual: FloatArray

    def __post_init__(self) -> None:
        if self.weights.shape != (3,) or not self.weights[0] >= 0:
            raise ValueError("a length map has three weights, the first of them 0 or more")
        if not len(self.usual) or not (np.diff(self.usual) >= 0).all():
            raise ValueError("the usual lengths of a length map must rise")

    def __call__(
        self, lengths: IntArray, censored: npt.NDArray[np.bool_], prompts: FloatArray
    ) -> LengthDistribution:
        """One distribution for each request.

        lengths, censored: (p, n), what the small model wrote; prompts: (p,), log lengths.

        A stopped sample among others counts as what such ones became on average. Where all samples
        were stopped, the answer is the mixture over everything that they may have become: that of
        all lengths where nothing was written at all.
        """
        answer = self.table(self._score(fill_in(lengths, censored, self.usual), prompts))
        open_ = np.flatnonzero(censored.all(axis=1))
        if len(open_):
            least = np.log1p(lengths[open_].max(axis=1))
            first = np.minimum(np.searchsorted(self.usual, least), len(self.usual) - 1)
            levels = (np.arange(SPREAD) + 0.5) / SPREAD
            at = first[:, None] + levels * (len(self.usual) - 1 - first)[:, None]
            possible = np.maximum(self.usual[np.rint(at).astype(np.int64)], least[:, None])
            scores = self._score(possible[..., None], prompts[open_, None])
            pmf = self.table(scores.ravel()).pmf.reshape(len(open_), SPREAD, -1).mean(axis=1)
            mixed = LengthDistribution.from_weights(self.table.grid, pmf)
            order = np.arange(len(lengths))
            order[open_] = len(lengths) + np.arange(len(open_))
            answer = LengthDistribution.concat([answer, mixed])[order]
        return answer

    def _score(self, samples: FloatArray, prompts: FloatArray) -> FloatArray:
        score: FloatArray = (
            self.weights[0] * samples.mean(axis=-1) + self.weights[1] * prompts + self.weights[2]
        )
        return score

    def arrays(self, name: str) -> dict[str, npt.NDArray[Any]]:
        """What an artifact stores of the map `name`."""
        own = {f"{name}_weights": self.weights, f"{name}_usual": self.usual}
        return own | self.table.arrays(name)

    @classmethod
    def from_arrays(
        cls, grid: LengthGrid, arrays: Mapping[str, npt.NDArray[Any]], name: str
    ) -> Self:
        """The opposite of `arrays`; raises KeyError or ValueError for what does not fit."""
        table = ScoreTable.from_arrays(grid, arrays, name)
        return cls(table, arrays[f"{name}_weights"], arrays[f"{name}_usual"])


def apply_maps(
    maps: Mapping[str, LengthMap],
    requests: Sequence[Request],
    lengths: IntArray,
    censored: npt.NDArray[np.bool_],
) -> LengthDistribution:
    """Each request's distribution by its target model's map, ALL_MODELS' for other models."""
    prompts = prompt_length(requests)
    wanted = np.array([r.model if r.model in maps else ALL_MODELS for r in requests], object)
    order, parts = [], []
    for name in sorted(set(wanted)) or [ALL_MODELS]:
        rows = np.flatnonzero(wanted == name)
        order.append(rows)
        parts.append(maps[name](lengths[rows], censored[rows], prompts[rows]))
    return LengthDistribution.concat(parts)[np.argsort(np.concatenate(order))]


def fill_in(lengths: IntArray, censored: npt.NDArray[np.bool_], usual: FloatArray) -> FloatArray:
    """Log lengths (p, n), stopped ones in place of which stands the mean of longer `usual` ones."""
    logs = np.log1p(lengths)
    first = np.searchsorted(usual, logs[censored])
    sums = np.append(np.cumsum(usual[::-1])[::-1], 0.0)
    counts = len(usual) - first
    longer = np.divide(sums[first], counts, out=logs[censored] + DOUBLE, where=counts > 0)
    logs[censored] = np.maximum(longer, logs[censored])
    return logs


def prompt_length(requests: Sequence[Request]) -> FloatArray:
    """log(1 + characters) of each request's text, (p,); four a token where there is no text."""
    known = [
        len(r.prompt) + len(r.context) or CHARS_A_TOKEN * min(max(r.prompt_tokens or 0, 0), 10**9)
        for r in requests
    ]
    return np.log1p(np.array(known, np.float64))


def identity(
    grid: LengthGrid, lengths: IntArray, censored: npt.NDArray[np.bool_]
) -> LengthDistribution:
    """Without any pair: the large model writes what the small one wrote, give or take a half.

    A log-normal distribution around each sample (sigma 0.5, about what two samples of one model
    differ by), above where it was stopped; a row of which nothing is known gets one that is wide.
    """
    from scipy.special import ndtr

    centre = np.log1p(lengths)
    centre = np.where(censored, centre + DOUBLE, centre)
    nothing = censored & (lengths == 0)
    sigma = np.where(nothing, 1.5, IDENTITY_SIGMA)[..., None]
    centre = np.where(nothing, np.log(200.0), centre)[..., None]
    ends = np.log(grid.edges[1:] + 0.5)
    cdf = ndtr((ends - centre) / sigma)
    mass = np.diff(cdf, axis=2, prepend=0)
    above = grid.edges[1:] - 1 >= lengths[..., None]
    mass = np.where(censored[..., None] & ~above, 0, np.maximum(mass, 0))
    mass[..., -1] += 1e-12
    # A sample of which nothing is known must not blur those that are.
    share = np.where(nothing & ~nothing.all(axis=1, keepdims=True), 0.0, 1.0)[..., None]
    mass = share * mass / mass.sum(axis=2, keepdims=True)
    return LengthDistribution.from_weights(grid, mass.sum(axis=1))
