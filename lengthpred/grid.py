"""The bins that lengths are counted in."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

__all__ = ["LengthGrid"]


@dataclass(frozen=True, eq=False)
class LengthGrid:
    """Bin edges over output tokens.

    Bin i holds the lengths edges[i], …, edges[i + 1] - 1. The last bin is the overflow; it is
    given the width of everything below it, so that means and quantiles stay finite.

    edges: int64 (bins + 1,), rising, from 0. The default has one bin for each length below 16,
    then six bins an octave up to 32,768, then the overflow.

    >>> LengthGrid().bins
    83
    """

    edges: npt.NDArray[np.int64] = field(default_factory=lambda: default_edges())

    def __post_init__(self) -> None:
        given = np.asarray(self.edges)
        edges = given.astype(np.int64)
        whole = given.ndim == 1 and len(given) > 1 and np.array_equal(edges, given)
        if not whole or edges[0] != 0 or (np.diff(edges) <= 0).any():
            raise ValueError("edges must be a rising list of whole numbers that begins with 0")
        edges.flags.writeable = False
        object.__setattr__(self, "edges", edges)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LengthGrid) and np.array_equal(self.edges, other.edges)

    def __hash__(self) -> int:
        return hash(self.edges.tobytes())

    @property
    def bins(self) -> int:
        """The number of bins, the overflow included."""
        return len(self.edges) - 1

    def index(self, lengths: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """The bin of each length, same shape; what lies beyond the last edge is overflow."""
        found = np.searchsorted(self.edges, np.asarray(lengths), side="right") - 1
        return np.clip(found, 0, self.bins - 1)


def default_edges() -> npt.NDArray[np.int64]:
    """0, 1, …, 16, six bins an octave up to 32,768, and the end of the overflow bin."""
    octaves = np.rint(16 * 2 ** (np.arange(1, 67) / 6)).astype(np.int64)
    return np.concatenate([np.arange(17), octaves, [2 * octaves[-1]]])
