"""A small language model is asked how long its answer would be, and does not write it.

After Zheng et al., "Response Length Perception and Sequence Scheduling" (NeurIPS 2023,
arXiv:2305.13144), who let a model state the length in advance, best after training it to. Here it
is asked only that ("perception only"), and what it states is calibrated like a length that it
wrote: a small model's numbers are worth something in their order, and nothing as numbers.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from lengthpred.base import IntArray, Request
from lengthpred.errors import BackendError
from lengthpred.models.backends.base import Backend, Source, TextBackend
from lengthpred.models.length_map import LengthMap
from lengthpred.models.slm import Generation, MappedSamples, shortened

__all__ = ["STATED_TOKENS", "StatedLength", "question", "stated_words"]

STATED_TOKENS = 16  # of an answer: a number and its unit
QUESTION = (
    "{prompt}\n\n---\nDo not answer the above. Instead, estimate how many words your answer would "
    "have. Reply with a number only."
)
TOKENS_A_WORD = 1.33
MOST = 100_000  # words; who states more did not understand
READ = 200  # characters of what was stated


class StatedLength(MappedSamples):
    """Asks a small model n times how many words its answer would have; the median counts.

    See `MappedSamples` for maps. A request for which no number is stated gets what is known
    without one. Raises BackendError for a backend that gives no texts.
    """

    kind = "slm-states"

    def __init__(
        self,
        source: Source,
        generation: Generation,
        maps: Mapping[str, LengthMap],
        backend: Backend | None = None,
    ) -> None:
        super().__init__(source, generation, maps, backend)
        if not isinstance(self.backend, TextBackend):
            raise BackendError(
                f"the backend '{source.backend}' gives no texts, so that its model cannot state a "
                "length: take 'transformers' or 'openai'"
            )
        self._texts: TextBackend = self.backend

    def samples(
        self, requests: Sequence[Request], deadline_s: float | None
    ) -> tuple[IntArray, npt.NDArray[np.bool_]]:
        """See `MappedSamples`: the median of what was stated, as tokens, (p, 1)."""
        how = self.generation
        asked = [question(request) for request in requests]
        texts = self._texts.generate_texts(
            asked, how.n, how.temperature, how.cap, deadline_s, how.seed
        )
        if len(texts) != len(requests):
            raise BackendError(
                f"the backend '{self.source.backend}' gave {len(texts)} answers to "
                f"{len(requests)} requests: it does not keep the protocol"
            )
        found = [[w for text in row if (w := stated_words(text)) is not None] for row in texts]
        words = np.array([np.median(row) if row else 0.0 for row in found], np.float64)
        missing = np.array([not row for row in found], bool)
        return np.rint(TOKENS_A_WORD * words).astype(np.int64)[:, None], missing[:, None]


def question(request: Request) -> Request:
    """The request that asks for the length of the answer to another one.

    One without text stays as it is, and no backend answers it.
    """
    short = shortened(request)
    if not short.prompt.strip():
        return short
    return replace(short, prompt=QUESTION.format(prompt=short.prompt))


# What was stated

DIGITS = r"\d+(?:[,.]\d{3})+(?!\d)|\d+(?:\.\d+)?"
SMALL = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen"
).split()
TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
VALUES = {word: float(i) for i, word in enumerate(SMALL)} | {
    word: 10.0 * (i + 2) for i, word in enumerate(TENS)
}
SCALES = {"dozen": 12.0, "hundred": 100.0, "k": 1000.0, "thousand": 1000.0}
NAMED = "|".join(sorted(VALUES, key=len, reverse=True))
SCALE = "|".join(SCALES)
# "1,200", "1.2k", "a hundred", "two thousand five hundred and twenty-five"
TERM = rf"(?:(?:{DIGITS})\s*(?:(?:{SCALE})\b)?|\b(?:{NAMED}|an?(?=\s+(?:{SCALE})\b)|{SCALE})\b)"
NUMBER = rf"{TERM}(?:[\s-]+(?:and\s+)?\b(?:{NAMED}|{SCALE})\b)*"
RANGE = re.compile(
    rf"(?P<between>between\s+)?(?P<low>{NUMBER})"
    rf"(?:\s*(?:[-~\u2013\u2014]|\bto\b|\bor\b|(?(between)\band\b|(?!)))\s*(?P<high>{NUMBER}))?"
    r"\s*(?P<unit>[a-z]+)?",
    re.IGNORECASE,
)
# How many words such a thing has; what was not asked for is stated nevertheless.
UNITS = {
    "character": 1 / 6,
    "letter": 1 / 6,
    "line": 10.0,
    "page": 400.0,
    "paragraph": 75.0,
    "sentence": 17.0,
    "token": 0.75,
}
# "1. First, …" is the beginning of a list: the model answers.
LIST = re.compile(r"\s*(?:\d{1,2}[.):]|[-*#]+)\s+(?=\D)")


def stated_words(text: str) -> float | None:
    """The number of words that a text states, a range's middle; None where it states none.

    >>> [stated_words(t) for t in ("About 1,200 words.", "200-300", "two hundred", "Sure!")]
    [1200.0, 250.0, 200.0, None]
    """
    text = text[:READ]
    if LIST.match(text) or not (found := RANGE.search(text)):
        return None
    low = _value(found["low"])
    high = low if found["high"] is None else _value(found["high"])
    scale = UNITS.get((found["unit"] or "").lower().removesuffix("s"), 1.0)
    words = scale * (low + high) / 2
    return words if words <= MOST else None


def _value(number: str) -> float:
    """Of a text that NUMBER matches."""
    total = part = 0.0
    for word in re.findall(rf"{DIGITS}|[a-z]+", number.lower()):
        if word in SCALES:
            part = (part or 1.0) * SCALES[word]
            if SCALES[word] == 1000.0:
                total, part = total + part, 0.0
        elif word[0].isdigit():
            grouped = re.fullmatch(r"\d+(?:[,.]\d{3})+", word)
            part += float(re.sub(r"[,.]", "", word) if grouped else word)
        else:
            part += VALUES.get(word, 0.0)  # not "a", "and"
    return total + part
