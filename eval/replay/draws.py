"""Requests to replay, drawn from a table's rows."""

from dataclasses import dataclass, replace

import numpy as np

from lengthpred.base import FloatArray, IntArray
from lengthpred.data.table import Rows
from lengthpred.errors import DataError, SettingsError
from lengthpred.ordering import prompt_tokens

__all__ = ["Drawn", "check_recorded", "draw", "draw_recorded"]

LEAST_OUTPUT = 124  # tokens of a sum limit that prompts must leave


@dataclass(frozen=True)
class Drawn:
    """n requests to replay.

    rows           the n rows drawn, the drawn sample of each in front, as long as it is replayed
    numbers        int64 (n,): which row of the table each is
    prompt_tokens  int64 (n,)
    output_tokens  int64 (n,): the true lengths
    """

    rows: Rows
    numbers: IntArray
    prompt_tokens: IntArray
    output_tokens: IntArray


def draw(
    rows: Rows,
    n: int,
    rng: np.random.Generator,
    *,
    sum_limit: int | None = None,
    ood_ratio: float | None = None,
) -> Drawn:
    """n cells (row, sample) with replacement: one answer of many, as the true one.

    `ood_ratio` is the share of rows that are marked as out of distribution; None takes rows as
    they come. Under a `sum_limit` a prompt is cut to leave 124 tokens (or half of a small limit),
    and the answer ends at the limit, of which predictors are not told. Raises DataError where rows
    of one sort are missing.
    """
    return _limited(rows, _pick(rows, n, rng, ood_ratio), rng, sum_limit)


def draw_recorded(
    rows: Rows, n: int, rng: np.random.Generator, *, sum_limit: int | None = None
) -> tuple[Drawn, FloatArray]:
    """n neighbours in the order of their recorded arrival, from a random place on; and its times.

    All rows where there are no more than n. Raises DataError where arrivals are not recorded.
    """
    times = check_recorded(rows)
    order = np.argsort(times, kind="stable")
    first = int(rng.integers(max(len(rows) - n, 0) + 1))
    picked = order[first : first + n]
    return _limited(rows, picked, rng, sum_limit), times[picked]


def check_recorded(rows: Rows) -> FloatArray:
    """The recorded arrivals (n,), in seconds; raises DataError where one is missing."""
    times = np.asarray(rows.columns.get("arrival_s", np.full(len(rows), np.nan)), np.float64)
    if np.isnan(times).any():
        raise DataError(
            "recorded arrivals need the column arrival_s in every row: choose other --arrivals"
        )
    return times


def _pick(rows: Rows, n: int, rng: np.random.Generator, ood_ratio: float | None) -> IntArray:
    if ood_ratio is None:
        return rng.integers(len(rows), size=n)
    if not 0 <= ood_ratio <= 1:
        raise SettingsError(f"an OOD ratio must lie between 0 and 1, not {ood_ratio:g}")
    marked = np.asarray(rows.columns.get("ood", np.zeros(len(rows))), bool)
    outside = round(n * ood_ratio)
    parts = []
    for wanted, count in ((False, n - outside), (True, outside)):
        there = np.flatnonzero(marked == wanted)
        if count and not len(there):
            sort = "out of" if wanted else "in"
            raise DataError(
                f"an OOD ratio of {ood_ratio:g} needs rows that are {sort} distribution, and the "
                "table has none: mark them with `lengthpred data split --by domain`"
            )
        parts.append(rng.choice(there, count) if count else there[:0])
    return rng.permutation(np.concatenate(parts))


def _limited(
    rows: Rows, picked: IntArray, rng: np.random.Generator, sum_limit: int | None
) -> Drawn:
    drawn = _sample_in_front(rows.take(picked), rng)
    prompts = np.maximum(np.rint(prompt_tokens(drawn.requests)).astype(np.int64), 1)
    outputs = np.maximum(drawn.truth, 1)
    if sum_limit is not None:
        if sum_limit < 2:
            raise SettingsError(f"a sum limit must be 2 tokens or more, not {sum_limit}")
        prompts = np.minimum(prompts, max(sum_limit - LEAST_OUTPUT, sum_limit // 2))
        outputs = np.minimum(outputs, sum_limit - prompts)
    lengths = drawn.lengths.copy()
    lengths[np.searchsorted(drawn.owner, np.arange(len(drawn)))] = outputs
    # Copies: a control knows a request by its identity, and a row may be drawn more than once.
    requests = [replace(request) for request in drawn.requests]
    return Drawn(replace(drawn, requests=requests, lengths=lengths), picked, prompts, outputs)


def _sample_in_front(rows: Rows, rng: np.random.Generator) -> Rows:
    """One of the samples of each row put in the place of the first, which is the truth."""
    counts = np.bincount(rows.owner, minlength=len(rows))
    starts = np.cumsum(counts) - counts
    chosen = starts + rng.integers(counts)
    order = np.arange(len(rows.owner))
    order[starts], order[chosen] = chosen, starts
    return replace(rows, lengths=rows.lengths[order], censored=rows.censored[order])
