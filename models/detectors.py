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


CONTEXT = 600  # characters


class HashedEmbedding:
    """Hashed n-grams of a prompt: their projection, and how rare they are.

    projection  float32 (2**bits, dims): right singular vectors of the training prompts' n-grams
    rarity      float32 (2**bits,): the inverse document frequency of each slot among them

    A prompt is a vector of length one over the slots, each weighted by its rarity. Its projection
    is shorter the less of it the training prompts explain, and is left so: scaled to length one,
    unknown words would vanish and leave a prompt that looks like any other.
    """

    def __init__(
        self, projection: npt.NDArray[np.float32], rarity: npt.NDArray[np.float32]
    ) -> None:
        slots = len(rarity)
        if projection.ndim != 2 or len(projection) != slots or slots & (slots - 1):
            raise ValueError(f"a projection of {slots} slots has {slots} rows, not 2**bits")
        self.projection, self.rarity = projection, rarity
        self._bits = slots.bit_length() - 1

    def __call__(self, requests: Sequence[Request]) -> npt.NDArray[np.float32]:
        """Float32 (n, dims + 1), the mean rarity last; all zero for a request without text."""
        out = np.zeros((len(requests), self.projection.shape[1] + 1), np.float32)
        for row, request in zip(out, requests, strict=True):
            slots = hashed(words(read(request)), self._bits)
            if len(slots):
                weights = self.rarity[slots]
                np.matmul(weights, self.projection[slots], out=row[:-1])
                row[:-1] /= np.sqrt(weights @ weights)
                row[-1] = weights.mean()
        return out


def read(request: Request) -> str:
    """What a detector reads: the prompt after the end of its context ("go on" alone says nothing).

    Empty for a request without text.
    """
    return f"{request.context[-CONTEXT:]}\n{request.prompt}" if request.prompt else ""


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
            arrays={
                "projection": self._embed.projection,
                "rarity": self._embed.rarity,
                "calibration": self._calibration,
            }
        )


class NearestNeighbours(Conformal):
    """The mean distance to the k nearest of the reference prompts, plus the mean rarity.

    reference  float32 (r, dims), projections of training prompts, scaled to length one
    scale      float64 (2,): what one unit of distance and of rarity count for: one over their
               spread among training prompts, so that neither rules the other
    """

    kind = "knn"

    def __init__(
        self,
        embedding: HashedEmbedding,
        calibration: npt.NDArray[np.float64],
        reference: npt.NDArray[np.float32],
        scale: npt.NDArray[np.float64],
        k: int,
    ) -> None:
        super().__init__(embedding, calibration)
        self._reference, self._scale = reference, scale
        self._k = min(k, len(reference))

    def distance(self, requests: Sequence[Request]) -> npt.NDArray[np.float64]:
        """See `Conformal`."""
        points = self._embed(requests)
        return neighbour_distance(points, self._reference, self._k) @ self._scale

    def contents(self) -> Contents:
        """See `Storable`."""
        contents = super().contents()
        contents.config["k"] = self._k
        contents.arrays |= {"reference": self._reference, "scale": self._scale}
        return contents

    @classmethod
    def from_contents(cls, contents: Contents) -> Self:
        """See `Storable`."""
        arrays = contents.arrays
        embedding = HashedEmbedding(arrays["projection"], arrays["rarity"])
        return cls(
            embedding,
            arrays["calibration"],
            arrays["reference"],
            arrays["scale"],
            contents.config["k"],
        )


class Mahalanobis(Conformal):
    """The squared Mahalanobis distance to the mean of the training prompts.

    mean: float32 (dims + 2,); precision: float32 (dims + 2, dims + 2): of direction and length of
    their projections, and of their rarity.
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
        embedding = HashedEmbedding(arrays["projection"], arrays["rarity"])
        return cls(embedding, arrays["calibration"], arrays["mean"], arrays["precision"])


def neighbour_distance(
    points: npt.NDArray[np.float32], reference: npt.NDArray[np.float32], k: int
) -> npt.NDArray[np.float64]:
    """Of each point (n, dims + 1): one minus its mean product with the k nearest of `reference`
    (r, dims), and its rarity, (n, 2)."""
    similarity = points[:, :-1] @ reference.T
    nearest = np.partition(similarity, similarity.shape[1] - k, axis=1)[:, -k:]
    return np.column_stack([1 - nearest.mean(axis=1, dtype=np.float64), points[:, -1]])


def described(points: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Points (n, dims + 1) as direction, length of the projection, and rarity, (n, dims + 2).

    The mean of unscaled projections lies near the origin, where what is unknown would lie too.
    """
    lengths = np.linalg.norm(points[:, :-1], axis=1, keepdims=True)
    directions = points[:, :-1] / np.maximum(lengths, 1e-12)
    return np.column_stack([directions, lengths, points[:, -1]])


def mahalanobis_distance(
    points: npt.NDArray[np.float32],
    mean: npt.NDArray[np.float32],
    precision: npt.NDArray[np.float32],
) -> npt.NDArray[np.float64]:
    """Squared Mahalanobis distance of each point (n, dims) to `mean`, (n,).

    A prompt that shares nothing with the training prompts is embedded as 0, which is nearer to
    their mean than any of them: it gets `NOWHERE`.
    """
    centred = (described(points) - mean).astype(np.float64)
    distance = np.einsum("nd,de,ne->n", centred, precision, centred)
    return np.where(points.any(axis=1), distance, NOWHERE)
