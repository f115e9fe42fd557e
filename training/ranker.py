"""Makes the ranker: LambdaMART, boosted trees with the gradients of LambdaRank.

Source: Burges, "From RankNet to LambdaRank to LambdaMART: An Overview" (2010), as LightGBM's
objective `lambdarank` has it. A query is a queue of requests dealt at random, and what should run
first, the shortest, is the most relevant. Everything else is as the boosted predictor has it.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from lengthpred.base import FloatArray, IntArray
from lengthpred.data.table import Rows
from lengthpred.models.ranker import Ranker
from lengthpred.training.boosted import train_trees
from lengthpred.training.progress import OnProgress, silent
from lengthpred.training.settings import RankerSettings

__all__ = ["deal", "relevance", "train"]


def train(
    rows: Rows,
    calibration: Rows,
    settings: RankerSettings,
    rng: np.random.Generator,
    on_progress: OnProgress = silent,
) -> Ranker:
    """Fit on `rows`, calibrate on `calibration`; the same seed gives the same bytes.

    Raises DataError when there is too little to learn from.
    """

    def lambdarank(
        table: npt.NDArray[np.float32], targets: FloatArray
    ) -> tuple[dict[str, Any], Any]:
        import lightgbm

        order, sizes = deal(len(targets), settings.queue, rng)
        labels = relevance(targets[order], settings.levels)
        parameters = {
            "objective": "lambdarank",
            # Linear: the default, 2**label, sees nothing but the few shortest.
            "label_gain": list(range(settings.levels)),
            # Every pair of a queue counts, not those at its head alone.
            "lambdarank_truncation_level": settings.queue,
        }
        return parameters, lightgbm.Dataset(table[order], labels, group=sizes)

    return train_trees(Ranker, lambdarank, rows, calibration, settings, rng, on_progress)


def deal(n: int, queue: int, rng: np.random.Generator) -> tuple[IntArray, IntArray]:
    """The n rows in a random order, (n,), and the sizes of the queues that they fall into.

    The sizes differ by one at most, and none is above `queue`.
    """
    queues = -(-n // queue)
    return rng.permutation(n), np.diff(np.arange(queues + 1) * n // queues)


def relevance(targets: FloatArray, levels: int) -> IntArray:
    """How early a row should run, 0 to levels - 1, of its mean rank in (0, 1); shape (n,)."""
    return levels - 1 - (targets * levels).astype(np.int64)
