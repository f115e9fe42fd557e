"""Out-of-distribution detectors: distance to the training prompts, turned into p-values.

Conformal p-values (Vovk et al., "Algorithmic Learning in a Random World", 2005; for outliers,
Bates et al., arXiv:2104.08279): the share of calibration prompts that lie at least as far away.
The distances are the k nearest neighbours' of Sun et al. (arXiv:2204.06507) and the Mahalanobis
distance of Lee et al. (arXiv:1807.03888).
"""

from collections.abc import Sequence
from typing import ClassVar, Self

import numpy as np
import numpy.typing as npt

from lengthpred.artifact import Contents, Storable
from lengthpred.base import Request
from lengthpred.models.text_features import hashed, words

__all__ = ["HashedEmbedding", "Mahalanobis", "NearestNeighbours"]

# Further than any distance; finite, as the calibration distances must be.
NOWHERE = 1e30


class HashedEmbedding:
    """Hashed n-grams of a prompt, projected and scaled to length one.

    projection: float32 (2**bits, dims), the right singular vectors of the training prompts'
    n-grams, each slot weighted by its inverse document frequency.
    """

    def __init__(self, projection: npt.NDArray[np.float32]) -> None:
        if projection.ndim != 2 or len(projection) & (len(projection) - 1):
            raise ValueError(f"a projection has 2**bits rows, not {projection.shape}")
        self.projection = projection
        self._bits = len(projection).bit_length() - 1

    def __call__(self, requests: Sequence[Request]) -> npt.NDArray[np.float32]:
        """Embeddings, float32 (n, dims); all zero for a request without text."""
        out = np.zeros((len(requests), self.projection.shape[1]), np.float32)
        for row, request in zip(out, requests, strict=True):
            self.projection[hashed(words(request.prompt), self._bits)].sum(axis=0, out=row)
        out /= np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-12)
        return out


class Conformal(Storable):
    """A detector that ranks a request's distance among those of calibration prompts.

    calibration: float64 (m,), distances of prompts that no other part was fitted on.
    """

    kind: ClassVar[str]

    def __init__(self, embedding: HashedEmbedding, calibration: npt.NDArray[np.float64]) -> None:
        if not len(calibration) or not np.isfinite(calibration).all():
            raise ValueError("a detector needs finite calibration distances")
        self._embed = embedding
        self._calibration = np.sort(calibration.astype(np.float64))

    def p_value(self, requests: Sequence[Request]) -> npt.NDArray[np.float64]:
        """See `lengthpred.Detector`; a request without text cannot be judged and gets 1."""
        further = len(self._calibration) - np.searchsorted(
            self._calibration, self.distance(requests), side="left"
        )
        values = (1 + further) / (1 + len(self._calibration))
        return np.where([bool(request.prompt) for request in requests], values, 1.0)

    def distance(self, requests: Sequence[Request]) -> npt.NDArray[np.float64]:
        """How far each request lies from the training prompts, shape (n,)."""
        raise NotImplementedError

    def contents(self) -> Contents:
        """See `Storable`."""
        return Contents(
            arrays={"projection": self._embed.projection, "calibration": self._calibration}
        )


class NearestNeighbours(Conformal):
    """One minus the mean cosine similarity to the k nearest of the reference prompts.

    reference: float32 (r, dims), embeddings of training prompts.
    """

    kind = "knn"

    def __init__(
        self,
        embedding: HashedEmbedding,
        calibration: npt.NDArray[np.float64],
        reference: npt.NDArray[np.float32],
        k: int,
    ) -> None:
        super().__init__(embedding, calibration)
        self._reference = reference
        self._k = min(k, len(reference))

    def distance(self, requests: Sequence[Request]) -> npt.NDArray[np.float64]:
        """See `Conformal`."""
        return neighbour_distance(self._embed(requests), self._reference, self._k)

    def contents(self) -> Contents:
        """See `Storable`."""
        contents = super().contents()
        contents.config["k"] = self._k
        contents.arrays["reference"] = self._reference
        return contents

    @classmethod
    def from_contents(cls, contents: Contents) -> Self:
        """See `Storable`."""
        arrays = contents.arrays
        embedding = HashedEmbedding(arrays["projection"])
        return cls(embedding, arrays["calibration"], arrays["reference"], contents.config["k"])


class Mahalanobis(Conformal):
    """The squared Mahalanobis distance to the mean of the training prompts.

    mean: float32 (dims,); precision: float32 (dims, dims), the inverse of their covariance.
    """

    kind = "mahalanobis"

    def __init__(
        self,
        embedding: HashedEmbedding,
        calibration: npt.NDArray[np.float64],
        mean: npt.NDArray[np.float32],
        precision: npt.NDArray[np.float32],
    ) -> None:
        super().__init__(embedding, calibration)
        self._mean, self._precision = mean, precision

    def distance(self, requests: Sequence[Request]) -> npt.NDArray[np.float64]:
        """See `Conformal`."""
        return mahalanobis_distance(self._embed(requests), self._mean, self._precision)

    def contents(self) -> Contents:
        """See `Storable`."""
        contents = super().contents()
        contents.arrays |= {"mean": self._mean, "precision": self._precision}
        return contents

    @classmethod
    def from_contents(cls, contents: Contents) -> Self:
        """See `Storable`."""
        arrays = contents.arrays
        embedding = HashedEmbedding(arrays["projection"])
        return cls(embedding, arrays["calibration"], arrays["mean"], arrays["precision"])


def neighbour_distance(
    points: npt.NDArray[np.float32], reference: npt.NDArray[np.float32], k: int
) -> npt.NDArray[np.float64]:
    """One minus the mean cosine similarity of each point (n, dims) to its k nearest, (n,)."""
    similarity = points @ reference.T
    nearest = np.partition(similarity, similarity.shape[1] - k, axis=1)[:, -k:]
    distance: npt.NDArray[np.float64] = 1 - nearest.mean(axis=1, dtype=np.float64)
    return distance


def mahalanobis_distance(
    points: npt.NDArray[np.float32],
    mean: npt.NDArray[np.float32],
    precision: npt.NDArray[np.float32],
) -> npt.NDArray[np.float64]:
    """Squared Mahalanobis distance of each point (n, dims) to `mean`, (n,).

    A prompt that shares nothing with the training prompts is embedded as 0, which is nearer to
    their mean than any of them: it gets `NOWHERE`.
    """
    centred = (points - mean).astype(np.float64)
    distance = np.einsum("nd,de,ne->n", centred, precision, centred)
    return np.where(points.any(axis=1), distance, NOWHERE)
