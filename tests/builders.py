"""A small trained one of every kind, from requests made here.

Whoever adds a kind adds a line to `BUILDERS`; tests/test_conformance.py fails until then.
"""

import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np

from lengthpred.artifact import Storable
from lengthpred.base import Request
from lengthpred.data.table import Rows
from lengthpred.models.average import Average
from lengthpred.models.cascade import Cascade
from lengthpred.models.conformal import Conformal
from lengthpred.models.controls import fit_constant, fit_prompt_length
from lengthpred.training import boosted, detectors, distilled, histogram, ranker, slm, slm_states
from lengthpred.training.settings import (
    BoostedSettings,
    DetectorSettings,
    DistilledSettings,
    HistogramSettings,
    RankerSettings,
    SlmSettings,
    SlmStatesSettings,
)
from tests.small_models import numbered, recorded_samples, stating_url
from tests.tiny_encoders import small_encoder

__all__ = ["BUILDERS", "ELSEWHERE", "build", "synthetic_rows"]

TOPICS = {"list": 300, "poem": 120, "sum": 6, "code": 500, "translate": 40}
WORDS = "rivers glass engine sort tax harbour proof snow bread 42 light seven".split()


def synthetic_rows(n: int = 400, seed: int = 0) -> Rows:
    """n rows of which the first word decides the mean length; a tenth are stopped at 400."""
    rng = np.random.default_rng(seed)
    topics = rng.choice(list(TOPICS), n)
    requests = [
        Request(
            prompt=f"{topic} of {' '.join(rng.choice(WORDS, int(rng.integers(1, 30))))}",
            model=("model-a", "model-b")[i % 2],
            reply_tokens=tuple(rng.integers(1, 300, i % 3).tolist()),
        )
        for i, topic in enumerate(topics)
    ]
    means = np.array([TOPICS[topic] for topic in topics])
    lengths = rng.gamma(2.0, means / 2).astype(np.int64)
    stopped = (lengths > 400) & (rng.random(n) < 0.5)
    return Rows(
        requests=requests,
        lengths=np.where(stopped, 400, lengths),
        censored=stopped,
        owner=np.arange(n),
        groups=np.arange(n),
        columns={
            "domain": topics.astype(object),
            "language": np.full(n, "en", object),
            "turn": np.zeros(n, np.int64),
            "ood": np.zeros(n, bool),
        },
    )


def _histogram(rows: Rows, held: Rows) -> Storable:
    return histogram.train(rows, held, HistogramSettings(), np.random.default_rng(0))


def _boosted(rows: Rows, held: Rows) -> Storable:
    settings = BoostedSettings(bits=10, trees=20, leaves=7)
    return boosted.train(rows, held, settings, np.random.default_rng(0))


def _ranker(rows: Rows, held: Rows) -> Storable:
    settings = RankerSettings(bits=10, trees=40, leaves=7)
    return ranker.train(rows, held, settings, np.random.default_rng(0))


def _knn(rows: Rows, held: Rows) -> Storable:
    settings = DetectorSettings(bits=10, dims=8)
    return detectors.train(rows, held, settings, np.random.default_rng(0))


def _mahalanobis(rows: Rows, held: Rows) -> Storable:
    settings = DetectorSettings(method="mahalanobis", bits=10, dims=8)
    return detectors.train(rows, held, settings, np.random.default_rng(0))


def _cascade(rows: Rows, held: Rows) -> Storable:
    primary = histogram.train(rows, held, HistogramSettings(), np.random.default_rng(0))
    settings = DetectorSettings(bits=10, dims=8)
    detector = detectors.train(rows, held, settings, np.random.default_rng(0))
    # An alpha far above the default, so that both ways are taken.
    return Cascade(primary, detector, fit_prompt_length(rows), alpha=0.5)


def _conformal(rows: Rows, held: Rows) -> Storable:
    settings = BoostedSettings(bits=10, trees=20, leaves=7)
    made = Conformal(boosted.train(rows, held, settings, np.random.default_rng(0)))
    made.correct(held.requests, held.truth * 2, held.truth_censored)
    return made


def _slm(rows: Rows, held: Rows) -> Storable:
    settings = SlmSettings(backend="recorded", samples=str(recorded_samples()), n=2, cap=900)
    return slm.train(numbered(rows), held, settings, np.random.default_rng(0))


def _slm_states(rows: Rows, held: Rows) -> Storable:
    settings = SlmStatesSettings(backend="openai", model="small", url=stating_url(), n=1, pairs=60)
    return slm_states.train(rows, held, settings, np.random.default_rng(0))


def _average(rows: Rows, held: Rows) -> Storable:
    return Average([fit_prompt_length(rows), fit_constant(rows)])


def _distilled(rows: Rows, held: Rows) -> Storable:
    with tempfile.TemporaryDirectory() as folder:
        teacher = small_encoder(rows, held).save(Path(folder, "teacher"))
        settings = DistilledSettings(teacher=[str(teacher)], bits=10, trees=20, leaves=7)
        return distilled.train(rows, held, settings, np.random.default_rng(0))


BUILDERS: dict[str, Callable[[Rows, Rows], Storable]] = {
    "average": _average,
    "boosted": _boosted,
    "cascade": _cascade,
    "conformal": _conformal,
    "constant": lambda rows, held: fit_constant(rows),
    "distilled": _distilled,
    "encoder": small_encoder,
    "histogram": _histogram,
    "knn": _knn,
    "mahalanobis": _mahalanobis,
    "prompt-length": lambda rows, held: fit_prompt_length(rows),
    "ranker": _ranker,
    "slm": _slm,
    "slm-states": _slm_states,
}
# Kinds that cannot be built here, and where the conformance suite is run on them instead.
ELSEWHERE = {
    "slm-prefill": "the one backend that reads runs a real model in torch, so test_slm_prefill.py "
    "puts another in its place, and test_slm_real.py (slow) takes the real one",
}


@cache
def build(kind: str) -> Storable:
    """The same small one for every test: what changes it must change a copy."""
    return BUILDERS[kind](synthetic_rows(400, 0), synthetic_rows(200, 1))
