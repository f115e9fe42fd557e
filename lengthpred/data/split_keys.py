"""The first pass of a split: a few numbers for each row, no texts.

A million rows take about 100 MB.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lengthpred.base import IntArray
from lengthpred.data.groups import content_keys, group_keys, hashes
from lengthpred.data.language import languages
from lengthpred.data.table import Table
from lengthpred.openai_body import approximate_tokens

__all__ = ["Keys", "read_keys"]

COLUMNS = ("group", "prompt", "context", "turn", "reply_tokens", "prompt_tokens", "output_tokens")


@dataclass(frozen=True)
class Keys:
    """What a split needs to know of n rows.

    group     int64 (n,): a hash of the group; rows without one have one of their own
    content   int64 (n,): a hash of context and prompt
    prompt    int64 (n,): a hash of the prompt alone
    first     bool (n,): the first human turn of a conversation, with no reply before it
    tokens    int64 (n,): length of the prompt itself, in tokens
    longest   int64 (n,): the longest sample of the answer, in tokens
    value     str (n,): what is held out by: the domain or the language
    """

    group: IntArray
    content: IntArray
    prompt: IntArray
    first: npt.NDArray[np.bool_]
    tokens: IntArray
    longest: IntArray
    value: npt.NDArray[np.str_]


def read_keys(table: Table, by: str) -> Keys:
    """One pass over the table. `by` "domain" or "language" fills `value`, else it is empty."""
    parts: list[Keys] = []
    offset = 0
    for batch in table.batches((*COLUMNS, "domain", "language")):
        columns = batch.to_pydict()
        parts.append(_keys(columns, len(batch), offset, by))
        offset += len(batch)
    names = Keys.__dataclass_fields__
    return Keys(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})


def _keys(columns: Mapping[str, list[Any]], n: int, offset: int, by: str) -> Keys:
    def column(name: str) -> list[Any]:
        return columns.get(name) or [None] * n

    prompts = [prompt or "" for prompt in column("prompt")]
    contexts = [context or "" for context in column("context")]
    turns = zip(column("turn"), column("reply_tokens"), strict=True)
    return Keys(
        group=group_keys(columns, n, offset),
        content=content_keys(columns, n, offset),
        prompt=hashes(prompts),
        first=np.array([not turn and not replies for turn, replies in turns], bool),
        tokens=_own_tokens(prompts, contexts, column("prompt_tokens")),
        longest=np.array(
            [max(filter(None, lengths or ()), default=0) for lengths in column("output_tokens")],
            np.int64,
        ),
        value=np.array(_values(column(by), prompts, by), dtype=np.str_),
    )


def _own_tokens(prompts: Sequence[str], contexts: Sequence[str], whole: Sequence[Any]) -> IntArray:
    """The prompt's own length: the whole input's where no context precedes it, else estimated."""
    guess = approximate_tokens(prompts)
    exact = [
        given if given is not None and not context else None
        for given, context in zip(whole, contexts, strict=True)
    ]
    return np.array([g if e is None else e for e, g in zip(exact, guess, strict=True)], np.int64)


def _values(given: Sequence[Any], prompts: Sequence[str], by: str) -> list[str]:
    if by == "language" and not all(given):
        found = languages(prompts)
        return [value or guess for value, guess in zip(given, found, strict=True)]
    if by in ("domain", "language"):
        return [value or "" for value in given]
    return [""] * len(given)
