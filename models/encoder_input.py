"""What an encoder reads of a request: token ids of its head and tail, and numbers beside them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from lengthpred.base import Request

__all__ = ["Reader"]

# Characters a token has at most, as a rule: what is cut before it is split into tokens leaves
# enough of them, and a prompt of a megabyte costs no more than a long one.
MOST_CHARACTERS = 12
# What a tokenizer returns of a text is many times as large as its ids.
AT_ONCE = 1000


@dataclass
class Reader:
    """Token ids of requests: the prompt, and behind it the end of what came before it.

    tokenizer       the bytes of a `tokenizer.json`
    tokens          token ids of the prompt at most, special ones included; of a longer prompt
                    two thirds are its head and a third its tail
    context_tokens  ids of the context's end at most, in a segment of its own; 0 leaves it out
    pad             the id that fills up a batch

    Raises ValueError when the bytes are no tokenizer.
    """

    tokenizer: bytes
    tokens: int
    context_tokens: int = 0
    pad: int = 0
    _parsed: Any = field(init=False, repr=False)
    _before: list[int] = field(init=False, repr=False)
    _after: list[int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        from tokenizers import Tokenizer

        try:
            self._parsed = Tokenizer.from_str(self.tokenizer.decode())
        except Exception as error:  # the library raises a bare Exception
            raise ValueError(f"the tokenizer cannot be read: {error}") from error
        self._parsed.no_truncation()
        self._parsed.no_padding()
        bare = self._parsed.encode("a", add_special_tokens=False).ids
        whole = self._parsed.encode("a").ids
        start = next((i for i in range(len(whole)) if whole[i : i + len(bare)] == bare), len(whole))
        self._before, self._after = whole[:start], whole[start + len(bare) :]
        if self.tokens < len(self._before) + len(self._after) + 2:
            raise ValueError(f"an encoder that reads {self.tokens} tokens reads nothing")

    @property
    def vocabulary(self) -> int:
        """The number of token ids."""
        size: int = self._parsed.get_vocab_size()
        return size

    def ids(self, requests: Sequence[Request]) -> list[npt.NDArray[np.int64]]:
        """Token ids of each request, int64 (t,), t at most tokens + context_tokens."""
        room = self.tokens - len(self._before) - len(self._after)
        tail = room // 3
        prompts = self._split([_ends(r.prompt, MOST_CHARACTERS * self.tokens) for r in requests])
        found = [[*self._before, *_cut(ids, room - tail, tail), *self._after] for ids in prompts]
        if self.context_tokens:
            most = MOST_CHARACTERS * self.context_tokens
            after = self._after[-1:]
            contexts = self._split([r.context[-most:] for r in requests])
            for row, ids in zip(found, contexts, strict=True):
                row.extend([*ids[-(self.context_tokens - len(after)) :], *after] if ids else [])
        # A tokenizer without special tokens makes nothing of some prompts.
        return [np.array(row or [self.pad], np.int64) for row in found]

    def padded(
        self, rows: Sequence[npt.NDArray[np.int64]], width: int = 0
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Ids and mask, both int64 (n, t), of rows of unlike lengths; t is `width` at least."""
        width = max(width, *map(len, rows))
        ids = np.full((len(rows), width), self.pad, np.int64)
        mask = np.zeros((len(rows), width), np.int64)
        for i, row in enumerate(rows):
            ids[i, : len(row)], mask[i, : len(row)] = row, 1
        return ids, mask

    def _split(self, texts: list[str]) -> list[list[int]]:
        # Half of a surrogate pair, which JSON may hold, is no text to a tokenizer.
        clean = [text.encode("utf-8", "replace").decode() for text in texts]
        if len(clean) == 1:
            return [self._parsed.encode(clean[0], add_special_tokens=False).ids]
        found: list[list[int]] = []
        for start in range(0, len(clean), AT_ONCE):
            part = clean[start : start + AT_ONCE]
            found += [row.ids for row in self._parsed.encode_batch(part, add_special_tokens=False)]
        return found


def _ends(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most * 2 // 3] + " " + text[-(most // 3) :]


def _cut(ids: list[int], head: int, tail: int) -> list[int]:
    return ids if len(ids) <= head + tail else [*ids[:head], *ids[len(ids) - tail :]]
