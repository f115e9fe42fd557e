"""What an encoder is trained to, and the losses of its heads.

A row may have several samples, which make a soft target, and samples that a limit stopped, of which
only what they survived is known.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lengthpred.base import FloatArray, IntArray
from lengthpred.data.table import Rows
from lengthpred.distribution import LengthGrid
from lengthpred.errors import DataError, require
from lengthpred.survival import count, marginal
from lengthpred.training.boosted import rank_targets
from lengthpred.training.settings import EncoderSettings

__all__ = ["Targets", "class_bins", "class_lengths", "first_answer", "loss_of", "targets"]

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Targets:
    """Of n rows.

    ended, stopped  float32 (n, k): the share of a row's samples that ended in each class, and of
                    those that were stopped in it; (n, 0) where the head has no classes
    level           float32 (n,): the mean log length
    rank            float32 (n,): the mean rank of the length, in (0, 1)
    open            bool (n,): all samples were stopped, so that level and rank are lower bounds
    """

    ended: Floats
    stopped: Floats
    level: Floats
    rank: Floats
    open: npt.NDArray[np.bool_]

    def take(self, rows: IntArray) -> "Targets":
        """Those of some rows."""
        return Targets(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))


def class_bins(rows: Rows, settings: EncoderSettings) -> IntArray:
    """The class of each bin of the grid, (bins,), rising.

    Classes by number hold equal shares of the training lengths, as nearly as bins allow. Raises
    DataError when the lengths are too few or too alike for so many classes.
    """
    grid = LengthGrid()
    if settings.head != "classes":
        return np.arange(grid.bins)
    if isinstance(settings.classes, list):
        starts = np.unique(grid.index(settings.classes))
    else:
        cdf = np.cumsum(marginal(grid, rows.lengths, rows.censored, rows.weights))
        levels = np.arange(1, settings.classes) / settings.classes
        starts = np.unique(np.searchsorted(cdf, levels) + 1)
        starts = starts[cdf[starts - 1] < 1 - 1e-9]
    starts = starts[(starts > 0) & (starts < grid.bins)]
    wanted = settings.classes if isinstance(settings.classes, int) else len(settings.classes) + 1
    if len(starts) + 1 != wanted:
        raise DataError(
            f"the training lengths fill {len(starts) + 1} classes, and not {wanted}: ask for fewer"
        )
    found: IntArray = np.searchsorted(starts, np.arange(grid.bins), side="right")
    return found


def first_answer(wanted: Targets, settings: EncoderSettings) -> Floats:
    """What the head answers best to all rows alike, float32 (outputs,)."""
    if settings.head in ("distribution", "classes"):
        shares = (wanted.ended + wanted.stopped).mean(axis=0)
        found: Floats = np.log(shares + 1e-4).astype(np.float32)
        return found
    mean = wanted.level.mean() if settings.head == "point" else 0.0
    return np.array([mean], np.float32)


def targets(rows: Rows, settings: EncoderSettings, classes: IntArray) -> Targets:
    """The targets of `rows`; classes as of `class_bins`."""
    kinds = int(classes[-1]) + 1 if settings.head in ("distribution", "classes") else 0
    bins = classes[LengthGrid().index(rows.lengths)]
    ended, stopped = np.zeros((2, len(rows), kinds), np.float32)
    if kinds:
        np.add.at(ended, (rows.owner, bins), rows.weights * ~rows.censored)
        np.add.at(stopped, (rows.owner, bins), rows.weights * rows.censored)
        if settings.head == "distribution":
            ended = ended @ _blur(kinds, settings.smoothing)
    logs = np.log1p(rows.lengths)
    return Targets(
        ended,
        stopped,
        np.bincount(rows.owner, logs * rows.weights, len(rows)).astype(np.float32),
        rank_targets(rows).astype(np.float32),
        np.bincount(rows.owner, ~rows.censored, len(rows)) == 0,
    )


def loss_of(settings: EncoderSettings) -> Any:
    """loss(outputs (n, k), targets as tensors) -> the mean of a batch, a scalar tensor."""
    torch = require("torch", "torch", "training an encoder")
    functional = torch.nn.functional

    def classes(outputs: Any, wanted: Any) -> Any:
        logs = functional.log_softmax(outputs, dim=1)
        # What was stopped in a class ends in it or above it.
        beyond = logs.flip(1).logcumsumexp(1).flip(1)
        return -(wanted.ended * logs + wanted.stopped * beyond).sum(1).mean()

    def point(outputs: Any, wanted: Any) -> Any:
        off = outputs[:, 0] - wanted.level
        # Beyond what a stopped answer reached, nothing is wrong.
        off = torch.where(wanted.open & (off > 0), torch.zeros_like(off), off)
        return functional.huber_loss(off, torch.zeros_like(off))

    def listmle(outputs: Any, wanted: Any) -> Any:
        """Xia et al., "Listwise Approach to Learning to Rank" (2008): longest first."""
        scores = outputs[:, 0][wanted.rank.argsort(descending=True, stable=True)]
        return (scores.flip(0).logcumsumexp(0).flip(0) - scores).mean()

    def pairwise(outputs: Any, wanted: Any) -> Any:
        """A hinge on each pair whose order is known and whose lengths differ enough."""
        score, level = outputs[:, 0], wanted.level
        apart = level[:, None] - level[None] > -np.log1p(-settings.gap)
        known = (apart & ~wanted.open[None]).to(score.dtype)
        short = functional.relu(settings.margin - (score[:, None] - score[None]))
        return (known * short).sum() / known.sum().clamp(min=1)

    return {"distribution": classes, "classes": classes, "point": point, "listmle": listmle,
            "pairwise": pairwise}[settings.head]  # fmt: skip


def class_lengths(rows: Rows, classes: IntArray) -> Floats:
    """The distribution over the grid that each class means, float32 (k, bins)."""
    grid = LengthGrid()
    prior = marginal(grid, rows.lengths, rows.censored, rows.weights)
    ended = count(grid, rows.lengths, rows.censored, rows.weights)[0] + 1e-3 * prior + 1e-9
    found = (classes == np.arange(classes[-1] + 1)[:, None]) * ended
    scaled: FloatArray = found / found.sum(axis=1, keepdims=True)
    return scaled.astype(np.float32)


def _blur(bins: int, width: float) -> Floats:
    """Rows that spread a bin over its neighbours, float32 (bins, bins); each sums to one."""
    if not width:
        return np.eye(bins, dtype=np.float32)
    apart = np.arange(bins)[:, None] - np.arange(bins)
    weights = np.exp(-0.5 * (apart / width) ** 2)
    scaled: FloatArray = weights / weights.sum(axis=1, keepdims=True)
    return scaled.astype(np.float32)
