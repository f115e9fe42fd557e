"""The controls that can be deployed: the training marginal, and the length of the prompt.

A predictor that does not beat both has learned nothing from what the prompt says.
"""

import math
from bisect import bisect_right
from collections.abc import Sequence
from typing import TYPE_CHECKING, Self

import numpy as np
import numpy.typing as npt

from lengthpred.artifact import Card, Contents, Storable
from lengthpred.base import FloatArray, IntArray, Request
from lengthpred.distribution import LengthDistribution, LengthGrid
from lengthpred.survival import marginal

if TYPE_CHECKING:  # tables need pyarrow, which a server that only predicts can do without
    from lengthpred.data.table import Rows

__all__ = ["Constant", "PromptLength", "fit_constant", "fit_prompt_length"]

MODEL_ROWS = 200  # rows that a model needs for a prompt-length table of its own
KNOT_ROWS, KNOTS = 50, 32


class Constant(Storable):
    """One distribution for each target model, and one of all of them for any other model.

    pmf: float32 (1 + models, bins); row 0 is the one of all.
    """

    kind = "constant"

    def __init__(
        self, grid: LengthGrid, pmf: npt.NDArray[np.float32], models: Sequence[str] = ()
    ) -> None:
        self.grid, self.models = grid, tuple(models)
        self.pmf = LengthDistribution(grid, pmf).pmf
        if len(self.pmf) != 1 + len(self.models):
            raise ValueError(f"{len(self.models)} models need as many rows and one, not {len(pmf)}")
        self._row = {model: i for i, model in enumerate(self.models, start=1)}

    def predict(self, requests: Sequence[Request]) -> LengthDistribution:
        """The marginal of each request's model."""
        rows = [self.row(request.model) for request in requests]
        return LengthDistribution.trusted(self.grid, self.pmf[np.array(rows, np.int64)])

    def row(self, model: str) -> int:
        """The row of pmf that answers for a target model."""
        return self._row.get(model, 0)

    def contents(self) -> Contents:
        return Contents({"models": list(self.models)}, self.grid, {"pmf": self.pmf})

    @classmethod
    def from_contents(cls, contents: Contents) -> Self:
        return cls(contents.grid, contents.arrays["pmf"], contents.config["models"])


class PromptLength(Storable):
    """A table from the length of the prompt to a distribution, for each model and for all.

    knots   float64 (knots,): lengths of prompts, in tokens, rising inside each table
    pmf     float32 (knots, bins): the distribution at each knot; between two it is their mixture
    starts  int64 (1 + models + 1,): where the tables begin; table 0 is the one of all
    prior   the answer to a request whose prompt is unknown

    Nothing makes it rise with the prompt: where long prompts get short answers, it falls.
    """

    kind = "prompt-length"

    def __init__(
        self,
        knots: FloatArray,
        pmf: npt.NDArray[np.float32],
        starts: IntArray,
        models: Sequence[str],
        prior: Constant,
    ) -> None:
        self.knots, self.starts, self.prior = knots, starts, prior
        self.pmf = LengthDistribution(prior.grid, pmf).pmf
        self.models = tuple(models)
        sizes = np.diff(starts)
        if len(sizes) != 1 + len(self.models) or (sizes < 1).any() or starts[-1] != len(knots):
            raise ValueError("the tables do not fit their models")
        if len(knots) != len(self.pmf):
            raise ValueError(f"{len(knots)} knots need as many distributions, not {len(self.pmf)}")
        self._table = {model: i for i, model in enumerate(self.models, start=1)}
        self._begin, self._sorted = starts.tolist(), knots.tolist()
        self._all = np.concatenate([self.pmf, prior.pmf])

    def predict(self, requests: Sequence[Request]) -> LengthDistribution:
        """The distribution at each request's prompt length."""
        places = np.array([self._place(request) for request in requests], np.float64)
        below, above, share = places.reshape(-1, 3).T
        part = share[:, None].astype(np.float32)
        lower, upper = self._all[below.astype(np.int64)], self._all[above.astype(np.int64)]
        return LengthDistribution.trusted(self.prior.grid, (1 - part) * lower + part * upper)

    def _place(self, request: Request) -> tuple[int, int, float]:
        """Two rows of all distributions, and how far the request lies from the first to the second.

        Plain Python: for one request, which is what a server asks for, it is faster than numpy.
        """
        length = prompt_length(request)
        if math.isnan(length):
            prior = len(self.knots) + self.prior.row(request.model)
            return prior, prior, 0.0
        table = self._table.get(request.model, 0)
        first, end = self._begin[table], self._begin[table + 1]
        above = min(bisect_right(self._sorted, length, first, end), end - 1)
        below = max(above - 1, first)
        low, high = self._sorted[below], self._sorted[above]
        share = (length - low) / (high - low) if high > low else 0.0
        return below, above, min(max(share, 0.0), 1.0)

    def contents(self) -> Contents:
        return Contents(
            {"models": list(self.models)},
            self.prior.grid,
            {"knots": self.knots, "pmf": self.pmf, "starts": self.starts},
            parts={"prior": self.prior},
        )

    @classmethod
    def from_contents(cls, contents: Contents) -> Self:
        prior, arrays = contents.parts["prior"], contents.arrays
        if not isinstance(prior, Constant):
            raise ValueError(f"the prior is a {prior.kind}, not a constant")
        models = contents.config["models"]
        return cls(arrays["knots"], arrays["pmf"], arrays["starts"], models, prior)


def prompt_length(request: Request) -> float:
    """Tokens of the input, or about so many (a quarter of the characters); NaN when unknown."""
    if request.prompt_tokens is not None:
        return float(request.prompt_tokens)
    return len(request.prompt) / 4 if request.prompt else float("nan")


# Fitting: little enough to live beside what it makes, since `eval` may not import `training`.


def fit_constant(rows: "Rows", grid: LengthGrid | None = None) -> Constant:
    """The marginal of all rows and of each model's, thin ones drawn towards that of all."""
    grid = grid or LengthGrid()
    whole = marginal(grid, rows.lengths, rows.censored, rows.weights)
    parts, models = [whole], _models(rows)
    names = np.array([request.model for request in rows.requests], object)[rows.owner]
    for model in models:
        mine = names == model
        parts.append(
            marginal(grid, rows.lengths[mine], rows.censored[mine], rows.weights[mine], whole)
        )
    fitted = Constant(grid, np.array(parts, np.float32), models)
    fitted.card = Card(models=models)
    return fitted


def fit_prompt_length(rows: "Rows", grid: LengthGrid | None = None) -> PromptLength:
    """Tables with up to 32 knots, at quantiles of the prompt lengths; neighbours are smoothed."""
    prior = fit_constant(rows, grid)
    length = np.array([prompt_length(request) for request in rows.requests], np.float64)
    names = np.array([request.model for request in rows.requests], object)
    masks = {"": np.ones(len(rows), bool)} | {model: names == model for model in _models(rows)}
    known = ~np.isnan(length)
    tables, models = [], []
    for number, (model, mask) in enumerate(masks.items()):
        mine = mask & known
        if number == 0 or (len(masks) > 2 and mine.sum() >= MODEL_ROWS):
            tables.append(_table(rows.take(mine), length[mine], prior.grid, prior.pmf[number]))
            models.append(model)
    knots = np.concatenate([table[0] for table in tables])
    starts = np.cumsum([0, *(len(table[0]) for table in tables)])
    pmf = np.concatenate([table[1] for table in tables])
    fitted = PromptLength(knots, pmf, starts, models[1:], prior)
    fitted.card = prior.card
    return fitted


def _models(rows: "Rows") -> tuple[str, ...]:
    return tuple(sorted({request.model for request in rows.requests} - {""}))


def _table(
    rows: "Rows", length: FloatArray, grid: LengthGrid, prior: npt.NDArray[np.float32]
) -> tuple[FloatArray, npt.NDArray[np.float32]]:
    """Knots and their distributions; one knot with the prior where no prompt is known."""
    if not len(rows):
        return np.zeros(1), prior[None]
    wanted = int(np.clip(len(rows) // KNOT_ROWS, 1, KNOTS))
    levels = (np.arange(wanted) + 0.5) / wanted
    knots = np.unique(np.quantile(length, levels, method="nearest"))
    cell = np.searchsorted((knots[1:] + knots[:-1]) / 2, length)[rows.owner]
    parts = []
    for knot in range(len(knots)):
        apart = np.abs(cell - knot)
        near = apart <= 1
        weights = rows.weights[near] * np.where(apart[near] == 1, 0.5, 1.0)
        parts.append(
            marginal(grid, rows.lengths[near], rows.censored[near], weights, prior.astype(float))
        )
    return knots, np.array(parts, np.float32)
