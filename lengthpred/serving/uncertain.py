"""A bounded queue of requests that gives out the most uncertain first."""

from bisect import bisect_left, insort
from dataclasses import dataclass

from lengthpred.base import FloatArray, Request
from lengthpred.distribution import LengthDistribution

__all__ = ["Entry", "UncertainQueue", "uncertainty"]


@dataclass(eq=False)
class Entry:
    """A request that waits, and when (on the worker's clock) the server started it."""

    id: str
    request: Request
    key: tuple[float, int, str]  # (uncertainty, -number, id): the largest goes first
    started_at: float | None = None


def uncertainty(answers: LengthDistribution) -> FloatArray:
    """Width of the 80 % interval of each row, in tokens, (n,).

    In tokens, as that is what a wrong place in the queue costs the others: 800 +- 400 does more
    harm than 5 +- 4. An interval, as a variance would mostly tell of the far tail.
    """
    low, high = answers.quantile([0.1, 0.9]).T
    width: FloatArray = high - low
    return width


class UncertainQueue:
    """Up to `capacity` entries by id; of equally uncertain ones the oldest goes first.

    Not thread-safe: its owner holds a lock. An operation moves O(capacity) pointers.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._number = 0
        self._keys: list[tuple[float, int, str]] = []  # rising
        self._entries: dict[str, Entry] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, id: str) -> bool:
        return id in self._entries

    def put(self, id: str, request: Request, width: float) -> Entry | None:
        """Add one, under an id that is not there; returns what had to go, perhaps itself."""
        self._number += 1
        key = (width, -self._number, id)
        insort(self._keys, key)
        self._entries[id] = Entry(id, request, key)
        if len(self._keys) <= self._capacity:
            return None
        return self._entries.pop(self._keys.pop(0)[2])

    def remove(self, id: str) -> bool:
        """Forget an id; returns whether it was there."""
        entry = self._entries.pop(id, None)
        if entry:
            del self._keys[bisect_left(self._keys, entry.key)]
        return entry is not None

    def take(self, most: int) -> list[Entry]:
        """Remove and return up to `most` entries, the most uncertain first."""
        keys = self._keys[-most:][::-1]
        del self._keys[-most:]
        return [self._entries.pop(key[2]) for key in keys]
