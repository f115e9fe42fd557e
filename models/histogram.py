"""QLM's predictor: a histogram of past lengths for each model and class of request.

Source: Patke et al., "Queue Management for SLO-Oriented Large Language Model Serving"
(arXiv:2407.00047), which predicts a request's output from the distribution of past ones like it.
"""

import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Self

import numpy as np
import numpy.typing as npt

from lengthpred import survival
from lengthpred.artifact import Contents, Storable
from lengthpred.base import FloatArray, IntArray, Request
from lengthpred.distribution import LengthDistribution, LengthGrid
from lengthpred.models.request_class import path_of

__all__ = ["Histogram"]

ALL_MODELS = "*"
ROOT = (ALL_MODELS,)
MEMO = 10_000


class Histogram(Storable):
    """Counts of past lengths in nested cells, each backed off to its parent when it is thin.

    A request's cell is its class (length of the prompt, script, kind of task) under its target
    model, and beside that under all models together. A cell's distribution is a product of
    hazards, P(length in bin b | length reaches b) = (events + strength x parent's hazard) / (at
    risk + strength): a thin cell leans on its parent, and where answers were stopped by a limit
    nothing is at risk beyond it, so that the tail is the parent's (`lengthpred.survival`).

    strength   observations that the parent's distribution counts for
    half_life  observations after which one that was learnt online counts half, by cell
    cells      by path (model, class, …): bins with an answer's end and with a stopped answer,
               float64 (2, bins)
    """

    kind = "histogram"

    def __init__(
        self,
        grid: LengthGrid,
        strength: float = 30.0,
        half_life: float = 20_000.0,
        cells: Mapping[tuple[str, ...], FloatArray] | None = None,
    ) -> None:
        if strength <= 0 or half_life <= 0:
            raise ValueError("strength and half_life must be above 0")
        self._grid = grid
        self._strength = strength
        self._half_life = half_life
        self._cells = {ROOT: np.zeros((2, grid.bins))} | dict(cells or {})
        self._lock = threading.Lock()
        self._memo: dict[tuple[str, ...], npt.NDArray[np.float32]] = {}

    def predict(self, requests: Sequence[Request]) -> LengthDistribution:
        """See `lengthpred.Predictor`."""
        memo = self._memo
        rows = [
            found if (found := memo.get(path := path_of(request))) is not None
            else self._remembered(path, memo)
            for request in requests
        ]  # fmt: skip
        pmf = np.array(rows, np.float32).reshape(len(rows), self._grid.bins)
        return LengthDistribution.trusted(self._grid, pmf)

    def observe(
        self, requests: Sequence[Request], lengths: IntArray, censored: npt.NDArray[np.bool_]
    ) -> None:
        """See `lengthpred.Observer`; older observations fade with `half_life`."""
        self.learn(requests, lengths, censored, fade=0.5 ** (1 / self._half_life))

    def learn(
        self,
        requests: Sequence[Request],
        lengths: IntArray,
        censored: npt.NDArray[np.bool_],
        weights: FloatArray | None = None,
        fade: float = 1.0,
    ) -> None:
        """Count lengths, (n,), with `weights` (n,); what is there already fades for each one."""
        lengths, censored = np.asarray(lengths, np.int64), np.asarray(censored, bool)
        if lengths.shape != (len(requests),) or censored.shape != lengths.shape:
            raise ValueError("each request needs one length, and whether it is censored")
        if (lengths < 0).any():
            raise ValueError("a length cannot be below 0")
        bins = self._grid.index(lengths)
        weights = np.ones(len(bins)) if weights is None else weights
        members: dict[tuple[str, ...], list[int]] = {}
        for i, request in enumerate(requests):
            for path in _learnt_by(path_of(request)):
                members.setdefault(path, []).append(i)
        with self._lock:
            for path, rows in members.items():
                cell = self._cells.setdefault(path, np.zeros((2, self._grid.bins)))
                # As if they had come one by one: the last one of a batch has not faded yet.
                faded = weights[rows] * fade ** np.arange(len(rows) - 1, -1, -1)
                cell *= fade ** len(rows)
                np.add.at(cell, (censored[rows].astype(np.int64), bins[rows]), faded)
            # A fresh dict: a thread that predicts now may still write what it computed before.
            self._memo = {}

    def contents(self) -> Contents:
        """See `Storable`."""
        with self._lock:
            paths = sorted(self._cells)
            return Contents(
                config={
                    "strength": self._strength,
                    "half_life": self._half_life,
                    "paths": [list(path) for path in paths],
                },
                grid=self._grid,
                arrays={"cells": np.array([self._cells[path] for path in paths])},
            )

    @classmethod
    def from_contents(cls, contents: Contents) -> Self:
        """See `Storable`."""
        config, cells = contents.config, contents.arrays["cells"]
        if cells.shape != (len(config["paths"]), 2, contents.grid.bins):
            raise ValueError(f"cells have shape {cells.shape}")
        if not (np.isfinite(cells).all() and (cells >= 0).all()):
            raise ValueError("cells must be finite and not below 0")
        paths = [tuple(str(step) for step in path) for path in config["paths"]]
        # Copies: what is loaded may be read-only, and these are counted up in place.
        named = {path: np.array(cell, np.float64) for path, cell in zip(paths, cells, strict=True)}
        return cls(contents.grid, config["strength"], config["half_life"], named)

    def _remembered(
        self, path: tuple[str, ...], memo: dict[tuple[str, ...], npt.NDArray[np.float32]]
    ) -> npt.NDArray[np.float32]:
        with self._lock:
            found = survival.pmf_of(self._hazards(path)).astype(np.float32)
        # Names of models come from clients: what is kept for them must have an end.
        if len(memo) < MEMO:
            memo[path] = found
        return found

    def _hazards(self, path: tuple[str, ...]) -> FloatArray:
        """P(length in bin b | it reaches b), (bins,), of the cell nearest to `path`."""
        hazards = survival.hazards(self._cells[ROOT])
        for step in _ancestry(path):
            if step != ROOT and (cell := self._cells.get(step)) is not None:
                hazards = survival.hazards(cell, hazards, self._strength)
        return hazards


def _learnt_by(path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Every cell that an observation of `path` counts in."""
    for end in range(1, len(path) + 1):
        yield (ALL_MODELS, *path[1:end])
        if path[0] != ALL_MODELS:
            yield path[:end]


def _ancestry(path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """The cells to read for `path`, from the widest: the class under all models, then its own.

    A model that was never seen ends with the class under all models.
    """
    for end in range(1, len(path) + 1):
        yield (ALL_MODELS, *path[1:end])
    if path[0] != ALL_MODELS:
        for end in range(1, len(path) + 1):
            yield path[:end]
