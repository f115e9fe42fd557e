"""The ranker: LambdaMART on the features of the boosted predictor.

Trained for the order alone; the table from score to distribution makes it a length predictor.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from lengthpred.base import Request
from lengthpred.models.boosted import Boosted

__all__ = ["Ranker"]


class Ranker(Boosted):
    """`Boosted`, with a booster that puts the shortest answer first (Burges, 2010)."""

    kind = "ranker"

    def score(self, requests: Sequence[Request]) -> npt.NDArray[np.float64]:
        """Higher for what is expected to be longer, on a scale of its own, (n,); NaN without text.

        What runs first is the most relevant to the booster, so its scores fall with the length.
        """
        return -super().score(requests)
