"""Makes the distilled predictor: boosted trees that learn what an encoder says of each prompt.

A teacher's distribution says more of a prompt than the one answer that was written to it, and it
says it of prompts without an answer, too (Hinton et al., "Distilling the Knowledge in a Neural
Network", arXiv:1503.02531).
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lengthpred.artifact import load
from lengthpred.base import FloatArray, Predictor, Request
from lengthpred.data.rows import Rows, joined, request_from_row, sampled
from lengthpred.data.table import Table
from lengthpred.distribution import LengthDistribution, LengthGrid
from lengthpred.errors import SettingsError
from lengthpred.models.average import Average
from lengthpred.models.distilled import Distilled
from lengthpred.survival import marginal
from lengthpred.training.boosted import rank_targets, regression, train_trees
from lengthpred.training.progress import OnProgress, silent
from lengthpred.training.settings import DistilledSettings

__all__ = ["soft_ranks", "train"]

ASKED = 500


def train(
    rows: Rows,
    calibration: Rows,
    settings: DistilledSettings,
    rng: np.random.Generator,
    on_progress: OnProgress = silent,
) -> Distilled:
    """Ask the teachers about `rows` and the unlabelled prompts, and fit trees to the average.

    Calibrated on `calibration` as `boosted` is. Raises SettingsError without a teacher,
    ArtifactError or DataError for what cannot be read.
    """
    if not settings.teacher:
        raise SettingsError(
            "distilling needs a teacher: add --teacher DIR; any predictor will do, an encoder is "
            "what it is for"
        )
    teacher = Average([load(path) for path in settings.teacher])
    rows = rows.with_prompt()
    known = rank_targets(rows)
    prior = marginal(LengthGrid(), rows.lengths, rows.censored, rows.weights)
    labelled = len(rows)
    if settings.unlabelled:
        rows = joined([rows, _unlabelled(Path(settings.unlabelled), rows, settings, rng)])
    targets = _asked(teacher, rows.requests, prior, on_progress)
    share = settings.label_share
    targets[:labelled] = (1 - share) * targets[:labelled] + share * known
    return train_trees(
        Distilled, regression(settings), rows, calibration, settings, rng, on_progress, targets
    )


def soft_ranks(answer: LengthDistribution, prior: FloatArray) -> FloatArray:
    """The rank that each distribution expects among lengths of `prior` (bins,), (n,) in (0, 1)."""
    middle = np.cumsum(prior) - prior / 2
    ranks: FloatArray = answer.pmf.astype(np.float64) @ middle
    return ranks


def _asked(
    teacher: Predictor, requests: Sequence[Request], prior: FloatArray, on_progress: OnProgress
) -> FloatArray:
    """The teacher's soft ranks of all requests, (n,), some at a time: its answers are large."""
    ranks = np.zeros(len(requests))
    for start in range(0, len(requests), ASKED):
        on_progress("asking the teacher", start, len(requests))
        answer = teacher.predict(requests[start : start + ASKED])
        if answer.grid != LengthGrid():
            raise SettingsError("the teacher answers on another grid than the default one")
        ranks[start : start + ASKED] = soft_ranks(answer, prior)
    return ranks


def _unlabelled(
    path: Path, rows: Rows, settings: DistilledSettings, rng: np.random.Generator
) -> Rows:
    """Prompts of a table that may have no lengths, those of `rows` left out; at most `max_rows`.

    Their groups are numbered after those of `rows`.
    """
    table = Table(path, needs=("prompt",))
    wanted = sampled(len(table), settings.max_rows, rng)
    known = {(request.context, request.prompt) for request in rows.requests}
    requests, groups, offset = [], table.groups() + int(rows.groups.max()) + 1, 0
    kept: list[int] = []
    for batch in table.batches():
        inside = wanted[(wanted >= offset) & (wanted < offset + len(batch))]
        for number, row in zip(inside, batch.take(inside - offset).to_pylist(), strict=True):
            request = request_from_row(row)
            if request.prompt and (request.context, request.prompt) not in known:
                requests.append(request)
                kept.append(int(number))
        offset += len(batch)
    n = len(kept)
    # Their lengths are never read: the teacher's word stands for them.
    return Rows(
        requests=requests,
        lengths=np.zeros(n, np.int64),
        censored=np.ones(n, bool),
        owner=np.arange(n),
        groups=groups[kept],
        columns={name: np.zeros(n, values.dtype) for name, values in rows.columns.items()},
    )
