"""The boosted predictor: LightGBM on cheap features and the score of a linear model on n-grams.

One booster gives a score, and a table calibrated at training time turns it into a distribution.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from lengthpred.artifact import Contents, Storable
from lengthpred.base import Request
from lengthpred.distribution import LengthDistribution
from lengthpred.models import text_features
from lengthpred.models.score_table import ScoreTable

__all__ = ["Boosted", "features", "linear_scores"]


def linear_scores(slots: Sequence[npt.NDArray[np.int64]], weights: npt.NDArray[np.float32]) -> Any:
    """The mean-square-normalised sum of each row's weights, float64 (n,)."""
    scores = [weights[row].sum() / max(len(row), 1) ** 0.5 for row in slots]
    return np.array(scores, np.float64)


def features(
    requests: Sequence[Request],
    tokens: Sequence[list[str]],
    linear: npt.NDArray[np.float64],
    levels: Mapping[str, float],
) -> npt.NDArray[np.float32]:
    """What the booster sees, float32 (n, features): text, linear score, level of the model.

    levels: how far each target model's mean training target lies from the mean of all; a model
    that was never seen counts as the mean.
    """
    level = [levels.get(request.model, 0.0) for request in requests]
    return np.column_stack([text_features.numeric(requests, tokens), linear, level]).astype(
        np.float32
    )


class Boosted(Storable):
    """A LightGBM regressor of the length's rank, with a table from score to distribution.

    booster  LightGBM's text format
    weights  float32 (2**bits,): the linear model over hashed n-grams
    levels   by target model, how far its mean training target lies from the mean of all
    opening, following   from the booster's score to a distribution, for requests that open a
             conversation and for those with earlier replies: what is known of the latter is
             known better, so the same score means a narrower distribution

    Raises ValueError when the booster's text cannot be parsed.
    """

    kind = "boosted"

    def __init__(
        self,
        booster: str,
        weights: npt.NDArray[np.float32],
        levels: Mapping[str, float],
        opening: ScoreTable,
        following: ScoreTable,
    ) -> None:
        import lightgbm

        try:
            self._booster = lightgbm.Booster(model_str=booster)
        except lightgbm.basic.LightGBMError as error:
            raise ValueError(f"the booster cannot be parsed: {error}") from error
        expected = len(text_features.NAMES) + 2
        if self._booster.num_feature() != expected:
            raise ValueError(f"the booster reads {self._booster.num_feature()} features")
        if len(weights) & (len(weights) - 1) or not np.isfinite(weights).all():
            raise ValueError(f"the linear model has {len(weights)} slots, not 2**bits finite ones")
        self._text = booster
        self._weights = weights
        self._bits = len(weights).bit_length() - 1
        self._levels = {model: float(level) for model, level in levels.items()}
        self._opening, self._following = opening, following

    def predict(self, requests: Sequence[Request]) -> LengthDistribution:
        """See `lengthpred.Predictor`; a request without text gets the prior."""
        scores = self.score(requests)
        replied = np.array([bool(request.reply_tokens) for request in requests], bool)
        if replied.all():
            return self._following(scores)
        answer = self._opening(scores)
        if replied.any():
            answer.pmf[replied] = self._following(scores[replied]).pmf
        return answer

    def score(self, requests: Sequence[Request]) -> npt.NDArray[np.float64]:
        """The predicted rank of each length among the training lengths, (n,); NaN without text."""
        if not requests:
            return np.zeros(0)
        tokens = [text_features.words(request.prompt) for request in requests]
        slots = [text_features.hashed(row, self._bits) for row in tokens]
        table = features(requests, tokens, linear_scores(slots, self._weights), self._levels)
        # One thread: a server has better use for the others, and one row has no work for two.
        scores = np.asarray(self._booster.predict(table, num_threads=1), np.float64)
        scores[[not request.prompt for request in requests]] = np.nan
        return scores

    def contents(self) -> Contents:
        """See `Storable`."""
        return Contents(
            config={"levels": self._levels},
            grid=self._opening.grid,
            arrays={
                "weights": self._weights,
                **self._opening.arrays("opening"),
                **self._following.arrays("following"),
            },
            files={"booster.txt": self._text.encode()},
        )

    @classmethod
    def from_contents(cls, contents: Contents) -> Self:
        """See `Storable`."""
        arrays = contents.arrays
        return cls(
            contents.files["booster.txt"].decode(),
            arrays["weights"],
            contents.config["levels"],
            ScoreTable.from_arrays(contents.grid, arrays, "opening"),
            ScoreTable.from_arrays(contents.grid, arrays, "following"),
        )
