"""Which rows are turns of one conversation, where nothing but their texts says so."""

import hashlib
from collections import OrderedDict
from collections.abc import Iterator

from lengthpred.openai_body import CONTEXT_CHARS, extend_context

__all__ = ["Conversations"]

REPLY = "\nassistant: "
TAIL = 1000  # characters up to a reply that a turn is known by
REMEMBERED = 200_000  # turns: the next one of a conversation comes within so many rows


class Conversations:
    """Gives rows a group as they come, in the order in which they were asked.

    A turn is of the conversation of an earlier row where all that was said up to one of its replies
    is what that row asked: the last TAIL characters of it, as long contexts are cut. One whose
    reply alone fills the context begins a group of its own.
    """

    def __init__(self) -> None:
        self._groups: OrderedDict[bytes, str] = OrderedDict()

    def group(self, prompt: str, context: str) -> str | None:
        """The group of a row, the texts as in `Request`; None for one without a text."""
        if not prompt:
            return None
        # Not cut any further.
        limit = len(context) + len(prompt) + CONTEXT_CHARS
        asked = extend_context(context, "user", prompt, limit)
        whole = len(context) < CONTEXT_CHARS
        own = _key(asked)
        known = [self._groups[key] for key in _earlier(asked, whole) if key in self._groups]
        group = known[-1] if known else self._groups.get(own, own.hex())
        self._groups[own] = group
        if len(self._groups) > REMEMBERED:
            self._groups.popitem(last=False)
        return group


def _earlier(asked: str, whole: bool) -> Iterator[bytes]:
    """What earlier turns would be known by."""
    at = asked.find(REPLY)
    while at >= 0:
        if whole or at >= TAIL:
            yield _key(asked[:at])
        at = asked.find(REPLY, at + 1)


def _key(asked: str) -> bytes:
    last = asked[-TAIL:].encode("utf-8", "replace")
    return hashlib.blake2b(last, digest_size=8).digest()
