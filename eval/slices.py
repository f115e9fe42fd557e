"""Slices: the rows of one domain, language, model or prompt length, scored by themselves."""

from collections import Counter
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from lengthpred.data.table import Rows
from lengthpred.eval.mixes import Mix
from lengthpred.ordering import prompt_tokens

__all__ = ["SLICE_METRICS", "is_slice", "make_slices"]

SLICE_METRICS = ("tau", "pairwise_accuracy", "mae", "crps", "coverage_80")
FEWEST, MOST = 30, 20  # rows of a slice, slices of a key
BINS = (32, 128, 512, 2048)  # tokens of a prompt at which the next slice begins
NAMES = ("<32", "32-127", "128-511", "512-2047", ">=2048")


def make_slices(rows: Rows) -> list[Mix]:
    """Slices of all rows by domain, language, model and prompt length, as "domain=NAME" and so on.

    A slice has 30 rows or more, and a key its 20 largest. A key of a single slice would say
    nothing that the whole does not, but that of a domain tells which domain it was. Rows without
    a domain, language or model are in no slice of that key.
    """
    slices = []
    for key, values in _keys(rows):
        # Texts of an object array: numpy's own would drop the zero characters at the end.
        values = np.array(["" if value is None else str(value) for value in values], object)
        names = _largest(values, single=key == "domain")
        if key == "prompt_tokens":
            names.sort(key=NAMES.index)
        for name in names:
            picked = np.flatnonzero(values == np.array(name, object))
            slices.append(Mix(f"{key}={name}", None, picked))
    return slices


def is_slice(split: str) -> bool:
    """Whether a result's split is a slice."""
    return "=" in split


def _keys(rows: Rows) -> Iterator[tuple[str, npt.NDArray[np.object_]]]:
    none = np.full(len(rows), "", object)
    yield "domain", rows.columns.get("domain", none)
    yield "language", rows.columns.get("language", none)
    yield "model", np.array([request.model for request in rows.requests], object)
    tokens = prompt_tokens(rows.requests)
    yield "prompt_tokens", np.array(NAMES, object)[np.searchsorted(BINS, tokens, side="right")]


def _largest(values: npt.NDArray[np.object_], *, single: bool) -> list[str]:
    """The values to slice by, the most frequent first."""
    counts = Counter(values.tolist())
    frequent = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    kept = [name for name, count in frequent if count >= FEWEST and name][:MOST]
    return kept if single or len(kept) > 1 else []
