"""Intervals by a paired bootstrap over groups.

Groups (conversations, say) are drawn with replacement, since rows of one group are no independent
evidence; and every predictor is scored on the same draws, so that their scores can be compared
draw by draw.
"""

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt

from lengthpred.base import FloatArray, IntArray

__all__ = ["Resamples", "interval"]

CELLS = 4_000_000  # numbers held at once, so that memory does not grow with the rows


class Resamples:
    """`resamples` draws of as many groups as there are, from `groups` (n,), a number for each row.

    Fewer than two groups tell nothing about chance: then there are no draws.
    """

    def __init__(self, groups: IntArray, resamples: int, seed: int) -> None:
        _, place = np.unique(groups, return_inverse=True)
        self._place = place.reshape(-1)
        self._groups = int(self._place.max(initial=-1)) + 1
        self._seed = seed
        self.count = resamples if self._groups > 1 else 0
        self._kept: list[FloatArray] | None = None

    def sums(self, columns: FloatArray) -> FloatArray:
        """The sums of columns (n, m) over the rows of each draw, (count, m)."""
        by_group = np.zeros((self._groups, columns.shape[1]))
        np.add.at(by_group, self._place, columns)
        parts = [counts @ by_group for counts in self._counts()]
        return np.concatenate([np.zeros((0, columns.shape[1])), *parts])

    def medians(self, values: FloatArray) -> FloatArray:
        """The (upper) median of values (n,) over the rows of each draw, (count,)."""
        order = np.argsort(values)
        parts = []
        for weights in self.weights():
            mass = np.cumsum(weights[:, order], axis=1)
            parts.append(values[order][np.argmax(2 * mass >= mass[:, -1:], axis=1)])
        return np.concatenate([np.zeros(0), *parts])

    def weights(self) -> Iterator[FloatArray]:
        """How often each draw holds each row, a few draws at a time: (draws, n)."""
        for counts in self._counts():
            yield counts[:, self._place]

    def _counts(self) -> Iterable[FloatArray]:
        """How often each draw holds each group, (draws, groups); kept where they are few."""
        if self.count * self._groups > CELLS:
            return self._drawn()
        if self._kept is None:
            self._kept = list(self._drawn())
        return self._kept

    def _drawn(self) -> Iterator[FloatArray]:
        """The draws, a few at a time; the same every time."""
        rng = np.random.default_rng(self._seed)
        step = max(CELLS // max(len(self._place), 1), 1)
        for start in range(0, self.count, step):
            draws = min(step, self.count - start)
            drawn = rng.integers(self._groups, size=(draws, self._groups))
            cells = drawn + np.arange(draws)[:, None] * self._groups
            counts = np.bincount(cells.ravel(), minlength=draws * self._groups)
            yield counts.reshape(draws, self._groups).astype(np.float64)


def interval(draws: npt.ArrayLike) -> tuple[float, float] | tuple[None, None]:
    """The middle 95 % of the scores of all draws; nothing where there are none."""
    values = np.asarray(draws, np.float64)
    values = values[np.isfinite(values)]
    if not len(values):
        return None, None
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)
