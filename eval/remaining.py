"""What is left of an answer that is being written: known how well, and ordered how well.

A scheduler that goes by remaining time asks for `given(generated)` again and again. The error is
taken at fixed shares of each answer, and the order where requests are at mixed progress, as those
of a running batch are.
"""

from collections.abc import Iterator

import numpy as np

from lengthpred.base import FloatArray, IntArray
from lengthpred.data.table import Rows
from lengthpred.eval.bootstrap import Resamples
from lengthpred.eval.mixes import Mix
from lengthpred.eval.output import Result
from lengthpred.eval.scoring import Answers, Score, means_of, order_of

__all__ = ["NAIVE", "PROGRESS", "VS_NAIVE", "moments", "remaining_results"]

PROGRESS = (0, 25, 50, 75)
"""Percent of an answer that exist when the error is taken."""
NAIVE, VS_NAIVE = "_naive", "_vs_naive"


def moments(rows: Rows, rng: np.random.Generator) -> IntArray:
    """Tokens that exist at each share of PROGRESS, then at a moment of chance, int64 (n, 5).

    That moment is a random share of another row's answer: drawn from the row's own, it would tell
    of its length, and in a batch nothing does but that the answer has come so far. Where it is not
    below the row's length, the answer is done by then.
    """
    written = np.empty((len(rows), len(PROGRESS) + 1))
    written[:, :-1] = rows.truth[:, None] * np.divide(PROGRESS, 100)
    written[:, -1] = rng.permutation(rows.truth) * rng.random(len(rows))
    whole: IntArray = np.floor(written).astype(np.int64)
    return whole


def remaining_results(
    name: str, answers: Answers, written: IntArray, rows: Rows, mix: Mix, draws: Resamples
) -> Iterator[Result]:
    """remaining_mae_0 … _75 of the mix, and remaining_tau of its rows that are not done by then.

    From the first token on each stands beside that of the naive rule, predicted total (never asked
    again) less what exists, at least 0; and beside the difference to it. `draws` are of the rows
    of the mix, none of which a limit may have stopped: their progress is not known.
    """
    picked = mix.picked
    truth = (rows.truth[:, None] - written)[picked]
    naive = np.maximum(answers.median[:, None] - written, 0)[picked]
    own, simple = (_scores(left, truth, draws) for left in (answers.remaining[picked], naive))
    counts = dict.fromkeys(own, len(picked)) | {"remaining_tau": int((truth[:, -1] > 0).sum())}
    for metric, one in own.items():
        yield one.result(name, mix, metric, counts[metric])
        if metric != "remaining_mae_0":  # nothing exists, so that both say the same
            other = simple[metric]
            change = Score(one.value - other.value, one.replicates - other.replicates)
            yield other.result(name, mix, f"{metric}{NAIVE}", counts[metric])
            yield change.result(name, mix, f"{metric}{VS_NAIVE}", counts[metric])


def _scores(left: FloatArray, truth: IntArray, draws: Resamples) -> dict[str, Score]:
    """The scores of what is said to be left (n, 5)."""
    errors = np.abs(left - truth).T
    by_row = {f"remaining_mae_{at}": error for at, error in zip(PROGRESS, errors, strict=False)}
    at_work, whole = truth[:, -1] > 0, np.zeros(len(truth), bool)
    order = order_of(left[:, -1], truth[:, -1], whole, draws, at_work)
    return {**means_of(by_row, draws), "remaining_tau": order["tau"]}
