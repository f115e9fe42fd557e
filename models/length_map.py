"""From the lengths that a small model wrote to the length that the large one will write."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from lengthpred.base import FloatArray, IntArray, Request
from lengthpred.distribution import LengthDistribution, LengthGrid
from lengthpred.models.score_table import ScoreTable

__all__ = ["ALL_MODELS", "LengthMap", "apply_maps", "identity", "mean_logs", "prompt_length"]

ALL_MODELS = "*"

# A sample that was stopped, where no longer one is known, counts as twice as long.
DOUBLE = float(np.log(2))
SPREAD = 16  # quantiles that stand for all lengths that a stopped answer may have had
LEVELS = (np.arange(SPREAD) + 0.5) / SPREAD
IDENTITY_SIGMA, WIDE_SIGMA, MIDDLE = 0.5, 1.5, float(np.log(200.0))
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

        What a stopped sample would have become is not known: the answer is the mixture over it,
        all stopped ones of a request at the same quantile of the longer lengths. A sample of
        which nothing is known (0 and stopped) counts as the others do; where none is, that is the
        mixture over all lengths. Without a prompt's length (NaN) it is the prior.
        """
        answer = self.table(self._score(np.log1p(lengths), prompts))
        open_ = np.flatnonzero(censored.any(axis=1))
        if len(open_):
            few, stopped = lengths[open_], censored[open_]
            logs = np.repeat(np.log1p(few)[..., None], SPREAD, axis=2)
            logs[stopped] = longer(few[stopped], self.usual, LEVELS)
            means = _mean_of_known(logs, few, stopped)
            scores = self._score(means[..., None], prompts[open_, None])
            pmf = self.table(scores.ravel()).pmf.reshape(len(open_), SPREAD, -1).mean(axis=1)
            mixed = LengthDistribution.from_weights(self.table.grid, pmf)
            order = np.arange(len(lengths))
            order[open_] = len(lengths) + np.arange(len(open_))
            answer = LengthDistribution.concat([answer, mixed])[order]
        return answer

    def _score(self, samples: FloatArray, prompts: FloatArray) -> FloatArray:
        mean = samples.mean(axis=-1)
        score: FloatArray = self.weights[0] * mean + self.weights[1] * prompts + self.weights[2]
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


def mean_logs(lengths: IntArray, censored: npt.NDArray[np.bool_], usual: FloatArray) -> FloatArray:
    """The mean log length of each row of samples (p, n), stopped ones as longer ones on average.

    A sample of which nothing is known counts as the others of its row do.
    """
    logs = np.log1p(lengths)
    logs[censored] = longer(lengths[censored], usual, LEVELS).mean(axis=1)
    return _mean_of_known(logs[..., None], lengths, censored)[:, 0]


def longer(lengths: IntArray, usual: FloatArray, levels: FloatArray) -> FloatArray:
    """Log lengths that answers stopped at `lengths` (m,) may have had, (m, levels): at these
    quantiles of the longer `usual` ones, or twice as long where there are none."""
    least = np.log1p(lengths)[:, None]
    first = np.searchsorted(usual, least)
    last = len(usual) - 1
    at = (first + levels * (last + 1 - first)).astype(np.int64)
    found = np.maximum(usual[np.minimum(at, last)], least)
    return np.where(first > last, least + DOUBLE, found)


def _mean_of_known(
    logs: FloatArray, lengths: IntArray, censored: npt.NDArray[np.bool_]
) -> FloatArray:
    """Means over the samples of logs (p, n, k), those of which nothing is known left out, (p, k).

    Where nothing is known of any, all count.
    """
    known = ~(censored & (lengths == 0))
    known |= ~known.any(axis=1, keepdims=True)
    mean: FloatArray = (logs * known[..., None]).sum(axis=1) / known.sum(axis=1)[:, None]
    return mean


def prompt_length(requests: Sequence[Request]) -> FloatArray:
    """log(1 + characters) of each request's text, (p,); four a token where there is no text.

    NaN where neither is known.
    """
    known = [
        len(r.prompt) + len(r.context) or CHARS_A_TOKEN * min(max(r.prompt_tokens or 0, 0), 10**9)
        for r in requests
    ]
    found = np.array(known, np.float64)
    return np.where(found > 0, np.log1p(found), np.nan)


def identity(
    grid: LengthGrid, lengths: IntArray, censored: npt.NDArray[np.bool_]
) -> LengthDistribution:
    """Without any pair: the large model writes what the small one wrote, give or take a half.

    A log-normal distribution around each sample (sigma 0.5, about what two samples of one model
    differ by). One that was stopped gets a wide one above where it was, and so does a row of which
    nothing is known.
    """
    from scipy.special import ndtr

    nothing = censored & (lengths == 0)
    logs = np.log1p(lengths)
    centre = np.where(censored, np.maximum(logs + DOUBLE, MIDDLE), logs)[..., None]
    sigma = np.where(censored, WIDE_SIGMA, IDENTITY_SIGMA)[..., None]
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
