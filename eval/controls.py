"""The controls: what a predictor has to beat, and predictors that know the truth.

Those that know the truth answer only for the rows they were made of. They find a row by the
identity of its request, so that rows which say the same but were answered differently stay apart.
"""

from collections.abc import Callable, Sequence
from statistics import NormalDist

import numpy as np

from lengthpred.base import FloatArray, IntArray, Predictor, Request
from lengthpred.data.table import Rows
from lengthpred.distribution import LengthDistribution, LengthGrid
from lengthpred.errors import DataError, SettingsError, did_you_mean
from lengthpred.models.controls import fit_constant, fit_prompt_length

__all__ = ["ALWAYS", "CONTROLS", "KNOWING", "Knowing", "fit_control"]

NOISE_SIGMA = 0.5
Z = np.linspace(-8, 8, 3201)
NORMAL_CDF = np.array([NormalDist().cdf(z) for z in Z])


def fit_control(name: str, rows: Rows, *, seed: int = 0, sigma: float = NOISE_SIGMA) -> Predictor:
    """The control of that name.

    `constant` and `prompt-length` learn from `rows`; the others know the truth of these `rows`,
    and answer others with their marginal. `sigma` is the standard deviation of `oracle-noise`'s
    error, in natural logarithms of the length; `seed` draws it. Raises SettingsError for an
    unknown name, and DataError where `samples-mean` or `samples-max` find no other samples.
    """
    makers: dict[str, Callable[[], Predictor]] = {
        "constant": lambda: fit_constant(rows),
        "prompt-length": lambda: fit_prompt_length(rows),
        "oracle": lambda: _oracle(rows),
        "oracle-noise": lambda: _oracle_noise(rows, sigma, seed),
        "samples-mean": lambda: _from_samples(rows, np.add, "samples-mean"),
        "samples-max": lambda: _from_samples(rows, np.maximum, "samples-max"),
    }
    if name not in makers:
        raise SettingsError(f"'{name}' is no control. {did_you_mean(name, makers)}")
    return makers[name]()


ALWAYS = ("constant", "prompt-length", "oracle")
KNOWING = ("oracle", "oracle-noise", "samples-mean", "samples-max")
CONTROLS = ("constant", "prompt-length", *KNOWING)


class Knowing:
    """Answers for the rows numbered `known` with `answers`, and for any other with the prior.

    A request that is none of the rows' objects but equals one gets the first such row's answer.
    """

    def __init__(self, rows: Rows, answers: LengthDistribution, known: IntArray) -> None:
        prior = fit_constant(rows, answers.grid).predict([Request()])
        self._answers = LengthDistribution.concat([answers, prior])
        self._requests = rows.requests  # kept alive: an identity is unique only while it lives
        self._by_identity: dict[int, int] = {}
        self._by_value: dict[Request, int] = {}
        for answer, row in enumerate(known.tolist()):
            request = rows.requests[row]
            self._by_identity.setdefault(id(request), answer)
            self._by_value.setdefault(request, answer)

    def predict(self, requests: Sequence[Request]) -> LengthDistribution:
        """The known answers, in the order asked."""
        return self._answers[np.array([self._find(request) for request in requests], np.int64)]

    def _find(self, request: Request) -> int:
        found = self._by_identity.get(id(request))
        if found is None:
            found = self._by_value.get(request, len(self._answers) - 1)
        return found


def _oracle(rows: Rows) -> Knowing:
    """Certain of the truth, to the token."""
    grid, truth = LengthGrid(), rows.truth
    pmf = np.eye(grid.bins, dtype=np.float32)[grid.index(truth)]
    exact = truth.astype(np.int32)
    answers = LengthDistribution(grid, pmf, floor=exact, ceiling=exact)
    return Knowing(rows, answers, np.arange(len(rows)))


def _oracle_noise(rows: Rows, sigma: float, seed: int) -> Knowing:
    """The truth times log-normal noise, and as unsure as that noise makes it."""
    if not sigma > 0:
        raise SettingsError(f"the noise of oracle-noise must be above 0, not {sigma}")
    noise = np.random.default_rng(seed).normal(0, sigma, len(rows))
    guess = np.maximum(rows.truth, 0.5) * np.exp(noise)
    return Knowing(rows, _log_normal(guess, sigma), np.arange(len(rows)))


def _from_samples(rows: Rows, combine: np.ufunc, name: str) -> Knowing:
    """The mean or the maximum of a row's other samples, as unsure as it turns out to be.

    A row without other samples gets the marginal.
    """
    first = np.searchsorted(rows.owner, np.arange(len(rows)))
    other = np.ones(len(rows.owner), bool)
    other[first] = False
    counts = np.bincount(rows.owner[other], minlength=len(rows))
    several = np.flatnonzero(counts)
    if not len(several):
        raise DataError(
            f"{name} needs rows with two or more lengths in output_tokens; no row here has them"
        )
    starts = np.cumsum(counts) - counts
    values = combine.reduceat(rows.lengths[other], starts[several]).astype(np.float64)
    if combine is np.add:
        values /= counts[several]
    centre = np.maximum(values, 0.5)
    error = np.log(np.maximum(rows.truth[several], 0.5)) - np.log(centre)
    sigma = max(float(np.sqrt(np.mean(error**2))), 0.01)
    return Knowing(rows, _log_normal(centre, sigma), several)


def _log_normal(median: FloatArray, sigma: float) -> LengthDistribution:
    """Log-normal distributions with these medians (n,), in tokens, rounded to whole lengths."""
    grid = LengthGrid()
    ends = np.log(grid.edges[1:] - 0.5)
    cdf = np.interp((ends - np.log(median)[:, None]) / sigma, Z, NORMAL_CDF)
    cdf[:, -1] = 1
    mass = np.diff(cdf, axis=1, prepend=0)
    # Far beyond the grid all mass is overflow, and rounding must not make any of it negative.
    return LengthDistribution.from_weights(grid, np.maximum(mass, 0))
