"""Splits of a table by what is out of distribution, and mixes of the two."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lengthpred.base import IntArray
from lengthpred.data.table import Rows
from lengthpred.errors import SettingsError

__all__ = ["RATIOS", "Mix", "make_mixes"]

RATIOS = (0.0, 0.2, 0.5, 0.8, 1.0)


@dataclass(frozen=True)
class Mix:
    """Rows to score together.

    split      "in" or "ood" (all rows of that sort), "mix", or "all" where nothing is marked
    ood_ratio  share of out-of-distribution rows of a "mix"; None for the others
    picked     int64: numbers of the rows, rising
    """

    split: str
    ood_ratio: float | None
    picked: IntArray


def make_mixes(rows: Rows, ratios: Sequence[float] = RATIOS, seed: int = 0) -> list[Mix]:
    """The splits of `rows` by their column `ood`, and between them a mix for each ratio.

    A mix holds as many rows as can be drawn without replacement at its ratio, so that of ratio 0
    is all of "in", and that of ratio 1 all of "ood". Where there are rows of one sort only, there
    are no mixes. Raises SettingsError for a ratio outside [0, 1].
    """
    for ratio in ratios:
        if not 0 <= ratio <= 1:
            raise SettingsError(f"an OOD ratio must lie between 0 and 1, not {ratio:g}")
    marked = np.asarray(rows.columns.get("ood", np.zeros(len(rows))), bool)
    inside, outside = np.flatnonzero(~marked), np.flatnonzero(marked)
    if not len(outside):
        return [Mix("all", None, inside)]
    if not len(inside):
        return [Mix("ood", None, outside)]
    mixes = [Mix("mix", r, _drawn(inside, outside, r, seed)) for r in sorted(set(ratios))]
    return [Mix("in", None, inside), *mixes, Mix("ood", None, outside)]


def _drawn(inside: IntArray, outside: IntArray, ratio: float, seed: int) -> IntArray:
    # A generator of its own for each ratio: which others are asked for changes nothing.
    rng = np.random.default_rng([seed, round(ratio * 1e6)])
    size = min(
        len(inside) / (1 - ratio) if ratio < 1 else np.inf,
        len(outside) / ratio if ratio > 0 else np.inf,
    )
    wanted = (
        (inside, min(round(size * (1 - ratio)), len(inside))),
        (outside, min(round(size * ratio), len(outside))),
    )
    return np.sort(np.concatenate([rng.choice(rows, n, replace=False) for rows, n in wanted]))
