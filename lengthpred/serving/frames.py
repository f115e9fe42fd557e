"""What a server and the process of its predictor say to each other: JSON, and rows of floats."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from lengthpred.base import Request
from lengthpred.distribution import LengthDistribution, LengthGrid

__all__ = ["Answer", "Reply", "pack_answer", "pack_call", "unpack_answer", "unpack_call"]

FIELDS = tuple(field.name for field in fields(Request) if field.name != "sampling")


class Answer(NamedTuple):
    """n distributions, and a flag of each: for `predict` whether the predictor is unsure of it, for
    `refine` whether it was refined."""

    dist: LengthDistribution
    flags: npt.NDArray[np.bool_]


class Reply(NamedTuple):
    """To the call of this number: an answer, an error, or neither where nothing was asked."""

    number: int
    answer: Answer | None
    error: str


def pack_call(number: int, ask: str, requests: Sequence[Request], **more: Any) -> bytes:
    """A call, with a number that its answer repeats.

    What requests say besides their texts is sent once where they share it, as those of one body do.
    """
    said = {id(r.sampling): r.sampling for r in requests}
    place = {key: i for i, key in enumerate(said)}
    rows = [[getattr(r, name) for name in FIELDS] + [place[id(r.sampling)]] for r in requests]
    body = {"number": number, "ask": ask, "requests": rows, "said": [*said.values()], **more}
    return json.dumps(body, default=_plain).encode()


def unpack_call(data: bytes) -> tuple[dict[str, Any], list[Request]]:
    """All that was said of a call, and its requests."""
    body = json.loads(data)
    requests = []
    for *values, place in body["requests"]:
        known = dict(zip(FIELDS, values, strict=True))
        known["reply_tokens"] = tuple(known["reply_tokens"])
        requests.append(Request(**known, sampling=body["said"][place]))
    return body, requests


def _plain(value: object) -> object:
    return dict(value) if isinstance(value, Mapping) else str(value)


def pack_answer(number: int, answer: Answer | None, error: str = "") -> bytes:
    """The answer to a call: rows, an error, or neither where nothing was to be answered."""
    head: dict[str, Any] = {"number": number, "rows": 0, "error": error}
    if answer is None:
        return json.dumps(head).encode() + b"\n"
    pmf, floor = answer.dist.pmf.astype(np.float32), answer.dist.floor.astype(np.int32)
    head["rows"] = len(pmf)
    parts = (json.dumps(head).encode(), b"\n", pmf.tobytes(), floor.tobytes())
    return b"".join(parts) + answer.flags.astype(np.bool_).tobytes()


def unpack_answer(data: bytes, grid: LengthGrid) -> Reply:
    """The opposite of `pack_answer`. Raises ValueError for a message that is none."""
    first, _, rest = data.partition(b"\n")
    head = json.loads(first)
    n, bins = head["rows"], grid.bins
    if len(rest) != n * (4 * bins + 5):
        raise ValueError("an answer of the wrong size")
    if not n:
        return Reply(head["number"], None, head["error"])
    pmf = np.frombuffer(rest, np.float32, n * bins).reshape(n, bins)
    floor = np.frombuffer(rest, np.int32, n, 4 * n * bins)
    flags = np.frombuffer(rest, np.bool_, n, 4 * n * (bins + 1))
    return Reply(head["number"], Answer(LengthDistribution(grid, pmf, floor), flags), "")
