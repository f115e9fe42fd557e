"""A predictor whose intervals keep their promise when traffic shifts: it is mended as it is used.

Sources: Kuleshov, Fenner & Ermon (2018) and Chernozhukov, Wüthrich & Zhu (2021) for the mending
(`lengthpred.models.recalibration`); Gibbs & Candès, "Adaptive Conformal Inference Under
Distribution Shift" (2021), for doing it online. Adapting the levels of one interval would let the
quantiles of others cross; here the whole distribution moves.
"""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from lengthpred.artifact import Card, Contents, Storable
from lengthpred.base import IntArray, Observer, Predictor, Refiner, Request
from lengthpred.distribution import LengthDistribution
from lengthpred.models.recalibration import LEVELS, Recalibration

__all__ = ["Conformal", "RefiningConformal", "paths_of"]

REMEMBERED = 4_096


class Conformal(Storable):
    """Answers as `base` does, corrected by where the true lengths of past requests fell.

    half_life  observations after which one counts half
    strength   observations that the correction of all traffic counts for in that of one target
               model, which has its own

    Nothing is corrected before the first `observe`. Each target model is corrected by its own
    answers, backed off to those of all: one that drifts does not spoil the others. Of two answers
    of one model that is at least as long (by its whole cdf) which was so before.

    A base that is a Refiner makes this one, too (the class is then RefiningConformal).
    """

    kind = "conformal"

    def __new__(cls, base: Predictor, *_: Any, **__: Any) -> Self:
        """One that refines where the base does."""
        refines = cls is Conformal and isinstance(base, Refiner)
        made: Self = object.__new__(RefiningConformal if refines else cls)  # type: ignore[assignment]
        return made

    def __init__(self, base: Predictor, half_life: float = 150.0, strength: float = 30.0) -> None:
        self.base = base
        self.card = getattr(base, "card", Card())
        # Replaced, never changed: a thread that predicts holds the one that it began with.
        self._first = Recalibration(half_life, strength)
        self._lock = threading.Lock()

    @property
    def correction(self) -> Recalibration:
        """Of first answers, as it is now."""
        return self._first

    def predict(self, requests: Sequence[Request]) -> LengthDistribution:
        """See `lengthpred.Predictor`; raises what the base raises."""
        return self._first(self.base.predict(requests), paths_of(requests))

    def observe(
        self, requests: Sequence[Request], lengths: IntArray, censored: npt.NDArray[np.bool_]
    ) -> None:
        """See `lengthpred.Observer`: mends the base as it is, then passes on to one that learns.

        The base is asked once more what it predicts. Raises ValueError for lengths that are none.
        """
        self.correct(requests, lengths, censored)
        if isinstance(self.base, Observer):
            self.base.observe(requests, lengths, censored)

    def correct(
        self, requests: Sequence[Request], lengths: IntArray, censored: npt.NDArray[np.bool_]
    ) -> None:
        """As `observe`, but the base learns nothing: for rows that it was trained on."""
        lengths, censored = checked_lengths(requests, lengths, censored)
        if not len(requests):
            return
        dist, paths = self._first_answer(requests), paths_of(requests)
        with self._lock:
            self._first = self._first.learnt(dist, paths, lengths, censored)

    def contents(self) -> Contents:
        """See `Storable`. Raises ValueError when the base is not Storable."""
        if not isinstance(self.base, Storable):
            raise ValueError("the base of this predictor cannot be saved")
        config: dict[str, Any] = {
            "half_life": self._first.half_life,
            "strength": self._first.strength,
        }
        arrays: dict[str, npt.NDArray[Any]] = {"levels": LEVELS}
        with self._lock:
            for name, one in self._recalibrations().items():
                config[f"{name}_paths"] = [list(path) for path in one.paths()]
                arrays[name] = one.array()
        grid = self.base.predict([]).grid
        return Contents(config=config, grid=grid, arrays=arrays, parts={"base": self.base})

    @classmethod
    def from_contents(cls, contents: Contents) -> Self:
        """See `Storable`."""
        config, arrays = contents.config, contents.arrays
        if not np.array_equal(arrays["levels"], LEVELS):
            raise ValueError("its corrections are counted at other levels than this version's")
        base: Any = contents.parts["base"]
        made = cls(base, float(config["half_life"]), float(config["strength"]))
        for name, one in made._recalibrations().items():
            read = one.from_array(
                one.half_life, one.strength, config[f"{name}_paths"], arrays[name]
            )
            setattr(made, f"_{name}", read)
        return made

    def _first_answer(self, requests: Sequence[Request]) -> LengthDistribution:
        return self.base.predict(requests)

    def _recalibrations(self) -> dict[str, Recalibration]:
        """What an artifact keeps, by the name of its attribute."""
        return {"first": self._first}


class RefiningConformal(Conformal):
    """One whose base refines: first and second answers are corrected each by their own.

    True lengths teach the correction of second answers only where that answer is remembered (the
    last 4,096 that were given): asking a small language model once more would cost too much.
    """

    base: Any  # a Predictor that is a Refiner

    def __init__(self, base: Predictor, half_life: float = 150.0, strength: float = 30.0) -> None:
        super().__init__(base, half_life, strength)
        self._second = Recalibration(half_life, strength)
        self._given: OrderedDict[bytes, LengthDistribution] = OrderedDict()

    def predict(self, requests: Sequence[Request]) -> LengthDistribution:
        """See `lengthpred.Predictor`: the second answer to what the base is unsure of."""
        first, unsure = self.base.provisional(requests)
        rows = np.flatnonzero(unsure)
        asked = [requests[i] for i in rows.tolist()]
        second = self.base.predict(asked)
        self._remember(asked, second)
        return self._joined(requests, first, rows, second)

    def provisional(
        self, requests: Sequence[Request]
    ) -> tuple[LengthDistribution, npt.NDArray[np.bool_]]:
        """See `lengthpred.Refiner`."""
        first, unsure = self.base.provisional(requests)
        return self._first(first, paths_of(requests)), unsure

    def refine(
        self, requests: Sequence[Request], deadline_s: float
    ) -> tuple[LengthDistribution, npt.NDArray[np.bool_]]:
        """See `lengthpred.Refiner`: keeps to the deadline as the base does."""
        answer, refined = self.base.refine(requests, deadline_s)
        rows = np.flatnonzero(refined)
        self._remember([requests[i] for i in rows.tolist()], answer[rows])
        return self._joined(requests, answer, rows, answer[rows]), refined

    def correct(
        self, requests: Sequence[Request], lengths: IntArray, censored: npt.NDArray[np.bool_]
    ) -> None:
        """See `Conformal`."""
        super().correct(requests, lengths, censored)
        lengths, censored = checked_lengths(requests, lengths, censored)
        keys = [_digest(request) for request in requests]
        with self._lock:
            known = [i for i, key in enumerate(keys) if key in self._given]
            if known:
                dist = LengthDistribution.concat([self._given[keys[i]] for i in known])
                paths = paths_of([requests[i] for i in known])
                self._second = self._second.learnt(dist, paths, lengths[known], censored[known])

    def _first_answer(self, requests: Sequence[Request]) -> LengthDistribution:
        first: LengthDistribution = self.base.provisional(requests)[0]
        return first

    def _remember(self, requests: Sequence[Request], given: LengthDistribution) -> None:
        keys = [_digest(request) for request in requests]
        with self._lock:
            for key, one in zip(keys, given, strict=True):
                self._given[key] = one
                self._given.move_to_end(key)
            while len(self._given) > REMEMBERED:
                self._given.popitem(last=False)

    def _joined(
        self,
        requests: Sequence[Request],
        first: LengthDistribution,
        rows: npt.NDArray[np.int64],
        second: LengthDistribution,
    ) -> LengthDistribution:
        """Both corrected, the given rows taken from the second answers."""
        paths = paths_of(requests)
        mended = self._first(first, paths)
        if not len(rows):
            return mended
        better = self._second(second, [paths[i] for i in rows.tolist()])
        order = np.arange(len(first))
        order[rows] = len(first) + np.arange(len(rows))
        return LengthDistribution.concat([mended, better])[order]

    def _recalibrations(self) -> dict[str, Recalibration]:
        return {"first": self._first, "second": self._second}


def _digest(request: Request) -> bytes:
    """Stands for the whole of a request, whose context alone may be 100 KB.

    Without its tokens: a server counts them after the answer was given, and before it is observed.
    """
    asked = repr(replace(request, prompt_tokens=None))
    return hashlib.blake2b(asked.encode(), digest_size=16).digest()


def paths_of(requests: Sequence[Request]) -> list[tuple[str, ...]]:
    """The cell of each request: its target model's, or that of all traffic where it names none."""
    return [(request.model,) if request.model else () for request in requests]


def checked_lengths(
    requests: Sequence[Request], lengths: npt.ArrayLike, censored: npt.ArrayLike
) -> tuple[IntArray, npt.NDArray[np.bool_]]:
    """As arrays; raises ValueError unless each request has one length of 0 or more, and a flag."""
    tokens, stopped = np.asarray(lengths, np.int64), np.asarray(censored, bool)
    if tokens.shape != (len(requests),) or stopped.shape != tokens.shape:
        raise ValueError("each request needs one length, and whether it is censored")
    if (tokens < 0).any():
        raise ValueError("a length cannot be below 0")
    return tokens, stopped
