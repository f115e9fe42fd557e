"""Clusters of prompts, to hold some out of a split.

The embedding is character n-grams inside words, so that it differs from the detectors', which
read whole words: a detector must not be judged by the very distance it computes.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from lengthpred.base import IntArray
from lengthpred.data.table import Table
from lengthpred.errors import require

__all__ = ["cluster_rows"]

SAMPLE = 20_000  # prompts that the clusters are fitted on; memory and time stay bounded
READ = 256  # characters of a prompt
DIMENSIONS = 64


def cluster_rows(
    table: Table, rows: npt.NDArray[np.bool_], clusters: int = 30, seed: int = 0
) -> IntArray:
    """The cluster of each row, shape (n,), where the mask `rows`, shape (n,), is true; else -1.

    k-means on hashed n-grams + SVD, fitted on a seeded sample, then asked in a stream. Numbers
    rise with the distance from cluster 0, a seeded one of the outer half: what is held out from
    there on is one region of topics, and no near neighbour of it stays in training. Raises
    MissingExtraError without scikit-learn.
    """
    wanted = np.flatnonzero(rows)
    picked = np.random.default_rng(seed).permutation(wanted)[:SAMPLE]
    sample = np.zeros(len(rows), bool)
    sample[picked] = True
    hashing = require(
        "sklearn.feature_extraction.text", "train", "a split by cluster"
    ).HashingVectorizer(
        analyzer="char_wb", ngram_range=(3, 5), n_features=2**16, alternate_sign=False
    )
    texts = [prompt for batch, _ in _prompts(table, sample) for prompt in batch]
    model = _fitted(hashing.transform(texts), clusters, seed)
    number = _outward(model[-1].cluster_centers_, seed)
    found = np.full(len(rows), -1, np.int64)
    for prompts, at in _prompts(table, rows):
        found[at] = number[model.predict(hashing.transform(prompts))]
    return found


def _outward(centres: npt.NDArray[np.float64], seed: int) -> IntArray:
    """A number for each cluster, shape (k,), from the centres, shape (k, dims)."""
    outer = np.argsort(np.linalg.norm(centres - centres.mean(axis=0), axis=1))[len(centres) // 2 :]
    start = centres[np.random.default_rng([seed, 2]).choice(outer)]
    order = np.argsort(np.linalg.norm(centres - start, axis=1), kind="stable")
    return np.argsort(order)


def _prompts(table: Table, rows: npt.NDArray[np.bool_]) -> Iterator[tuple[list[str], IntArray]]:
    """The heads of the prompts of the rows that are wanted, and the numbers of these rows."""
    offset = 0
    for batch in table.batches(("prompt",)):
        at = np.flatnonzero(rows[offset : offset + len(batch)])
        prompts = batch.column(0).take(at).to_pylist()
        if prompts:
            yield [(prompt or "")[:READ] for prompt in prompts], at + offset
        offset += len(batch)


def _fitted(hashed: Any, clusters: int, seed: int) -> Any:
    """A pipeline from hashed n-grams to clusters, fitted on shape (rows, 2**16)."""
    why, n = "a split by cluster", hashed.shape[0]
    text = require("sklearn.feature_extraction.text", "train", why)
    decomposition = require("sklearn.decomposition", "train", why)
    cluster = require("sklearn.cluster", "train", why)
    model = require("sklearn.pipeline", "train", why).make_pipeline(
        text.TfidfTransformer(sublinear_tf=True),
        decomposition.TruncatedSVD(min(DIMENSIONS, n), n_iter=2, random_state=seed),
        require("sklearn.preprocessing", "train", why).Normalizer(),
        cluster.MiniBatchKMeans(min(clusters, n), random_state=seed, n_init=3, batch_size=2048),
    )
    return model.fit(hashed)
