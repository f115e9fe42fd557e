"""Small models for tests that have none: recorded samples, a server that states, a reader."""

import atexit
import hashlib
import re
import shutil
import tempfile
import zlib
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lengthpred.base import IntArray, Request
from lengthpred.data.table import Rows
from lengthpred.models.backends.base import Source

__all__ = [
    "Reader",
    "numbered",
    "recorded_samples",
    "small_lengths",
    "stating_server",
    "stating_url",
]

WIDTH = 24


def numbered(rows: Rows, start: int = 0) -> Rows:
    """The same rows, the requests with ids: recorded samples are found by them."""
    requests = [replace(r, id=str(start + i)) for i, r in enumerate(rows.requests)]
    return replace(rows, requests=requests)


def small_lengths(rows: Rows, k: int = 3, seed: int = 0) -> IntArray:
    """What a small model might write for rows of one length each: k samples, twice as long."""
    rng = np.random.default_rng(seed)
    found: IntArray = np.rint(2 * rows.truth[:, None] * rng.lognormal(0, 0.3, (len(rows), k)))
    return found.astype(np.int64)


@cache
def recorded_samples(seed: int = 0) -> Path:
    """A table of a small model's samples for `numbered(synthetic_rows(400, seed))`."""
    from tests.builders import synthetic_rows
    from tests.training.tables import table_on_disk

    folder = Path(tempfile.mkdtemp(prefix="samples-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    rows = synthetic_rows(400, seed)
    lengths = small_lengths(rows)
    return table_on_disk(
        folder / "samples.parquet",
        rows,
        output_tokens=lengths.tolist(),
        censored=(lengths > 2000).tolist(),
        model=["small"] * len(rows),
    )


@cache
def stating_url() -> str:
    """Of one server for all tests of this process."""
    server = stating_server()
    server.__enter__()
    atexit.register(server.stop)
    return str(server.url)


def stating_server() -> Any:
    """A ChatServer whose model states half of what `synthetic_rows` means, or nonsense."""
    from tests.builders import TOPICS
    from tests.models.backends.server import Body, ChatServer, Written

    def answer(body: Body) -> Written:
        asked = body["messages"][-1]["content"]
        topic = next((TOPICS[t] for t in TOPICS if asked.startswith(f"{t} of")), None)
        noise = zlib.crc32(asked.encode("utf-8", "replace")) % 40
        text = "I cannot say." if topic is None else f"About {topic // 2 + noise} words."
        return Written(text, 5)

    return ChatServer(answer)


class Reader:
    """A backend that reads: a state is made of counts of the prompt's words, by hash.

    asked: the requests of each question.
    """

    def __init__(self, source: Source | None = None, width: int = WIDTH) -> None:
        self.width = width
        self.asked: list[Sequence[Request]] = []

    def read(
        self, requests: Sequence[Request]
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """See `ReadingBackend`."""
        self.asked.append(requests)
        states = np.full((len(requests), self.width), np.nan, np.float32)
        for row, request in enumerate(requests):
            if request.prompt.strip():
                words = re.findall(r"\w+", request.prompt[:4000])
                slots = [_hash(word) % self.width for word in words]
                states[row] = np.bincount(slots, minlength=self.width) ** 0.5
        return states, states.mean(axis=1)

    def generate_lengths(self, *given: Any) -> tuple[IntArray, npt.NDArray[np.bool_]]:
        """See `Backend`; nobody shall ask for it."""
        raise AssertionError("a look at the prompt writes nothing")

    def checksum(self) -> str:
        """See `Backend`."""
        return "abc"

    def close(self) -> None:
        """See `Backend`."""


def _hash(word: str) -> int:
    return int.from_bytes(hashlib.blake2b(word.encode("utf-8", "replace")).digest()[:4], "big")
