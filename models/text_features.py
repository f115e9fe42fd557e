"""Cheap features of a request: numbers for a booster and hashed n-grams for a linear model.

Both come from one pass of one regular expression over the head and the tail of the prompt, so
that the cost does not grow with the prompt.
"""

import math
import re
import zlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from lengthpred.base import Request

__all__ = ["NAMES", "hashed", "numeric", "words"]

HEAD, TAIL = 1200, 600
# Lines and fences are counted in so many characters: few prompts are longer.
COUNTED = 16_000
WORD = re.compile(
    r"[a-z\u00df-\u024f]+|\d+|[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\W\d_]+|[^\w\s]"
)
# What the words of a prompt say of the length of its answer; a word counts for its first group.
CUES = {
    "list": "list lists bullet bullets points examples ideas ways steps tips reasons table rows "
    "items topics titles names headlines options suggestions questions keywords facts",
    "long": "essay article story blog post chapter novel report detailed detail details long "
    "comprehensive thorough extensive elaborate depth plan outline course curriculum guide "
    "tutorial lesson proposal scene episode dialogue speech paper",
    "short": "short brief briefly concise concisely summary summarize summarise sentence shorter "
    "quick tldr only just single simply title name tweet slogan caption headline tagline",
    "verse": "poem song lyrics haiku rap letter email cover ad copy description",
    "explain": "explain describe why discuss analyze analyse compare contrast evaluate teach "
    "elaborate difference differences between example",
    "ask": "what who when where which whose how",
    "closed": "is are was were can could do does did will would should has have am",
    "code": "code function python javascript java html css sql class api program implement "
    "algorithm error bug fix debug component react typescript php method query script app "
    "const var return import def regex json",
    "rewrite": "rewrite rephrase translate paraphrase correct proofread edit improve convert "
    "reword grammar translation format revise fix change replace",
    "continue": "continue more next go proceed again keep rest finish part further another",
    "chat": "thanks thank ok okay hi hello yes great good nice cool sorry no hey perfect",
    "make": "write create generate make give provide compose draft develop design build produce "
    "show tell need want",
    "ready": "understand understood acknowledge ready wait reply respond say answer confirm",
    "maths": "calculate solve equation proof prove sum probability number integral value",
    "role": "act pretend role character imagine assume play persona you",
}
GROUPS = {
    word: i for i, words in reversed(list(enumerate(CUES.values()))) for word in words.split()
}
UNITS = {
    "word": 1.4,
    "words": 1.4,
    "character": 0.25,
    "characters": 0.25,
    "sentence": 25,
    "sentences": 25,
    "line": 15,
    "lines": 15,
    "paragraph": 100,
    "paragraphs": 100,
    "page": 600,
    "pages": 600,
    "point": 30,
    "points": 30,
    "bullet": 30,
    "bullets": 30,
    "minute": 180,
    "minutes": 180,
    "tweet": 40,
    "tweets": 40,
}
# Whatever is asked for by number and is no unit above ("5 ideas") counts as an item.
ITEM = 30.0
MARKS = ("?", "!", ",", ".", ":", ";", '"', "(", "{", "=", "<", "/", "-", "*", "#", "|", "`", "'")
MARK = {mark: i for i, mark in enumerate(MARKS)}
NAMES = (
    "characters", "words", "word_length", "unique_words", "lines", "digits", "upper", "non_ascii",
    "asked_tokens", "numbers", "ends_question", "ends_colon", "ends_stop", "fences",
    "context_characters", "replies", "last_reply", "mean_reply", "max_reply", "min_reply",
    "reply_slope", "first_cue", "last_cue",
    *(f"cue_{name}" for name in CUES), *(f"head_cue_{name}" for name in CUES),
    *(f"mark_{mark}" for mark in MARKS),
)  # fmt: skip
GROUP_NAMES = tuple(CUES)
NO_CUE = len(CUES)
HEAD_WORDS = 12


def words(prompt: str) -> list[str]:
    """The words and marks of a prompt's head and tail, in lower case."""
    if len(prompt) > HEAD + TAIL:
        prompt = f"{prompt[:HEAD]}\n{prompt[-TAIL:]}"
    found: list[str] = WORD.findall(prompt.lower())
    return found


def numeric(
    requests: Sequence[Request], tokens: Sequence[list[str]] | None = None
) -> npt.NDArray[np.float32]:
    """One row of NAMES for each request, float32 (n, len(NAMES)); `tokens` saves a second pass."""
    tokens = [words(request.prompt) for request in requests] if tokens is None else tokens
    table = np.empty((len(requests), len(NAMES)), np.float32)
    for row, request, found in zip(table, requests, tokens, strict=True):
        row[:] = _numbers(request, found)
    return table


def hashed(tokens: list[str], bits: int) -> npt.NDArray[np.int64]:
    """Slots, below 2**bits, of the distinct words, word pairs, and first and last words."""
    if not tokens:
        return np.zeros(0, np.int64)
    crc = zlib.crc32
    one = np.array([crc(token.encode("utf-8", "surrogatepass")) for token in tokens], np.uint64)
    two = (one[:-1] * np.uint64(0x9E3779B1) + one[1:]) * np.uint64(0x85EBCA6B)
    start, end = one[:3] * np.uint64(0xC2B2AE35), one[-3:] * np.uint64(0x27D4EB2F)
    pair = (one[:1] * np.uint64(0x165667B1) + one[-1:]) * np.uint64(0x9E3779B1)
    both = np.concatenate([one * np.uint64(0x9E3779B1), two, start, end, pair])
    return np.unique((both >> np.uint64(8)) & np.uint64((1 << bits) - 1)).astype(np.int64)


def _numbers(request: Request, tokens: list[str]) -> list[float]:
    prompt, log = request.prompt, math.log1p
    cues, head, marks = [0] * (NO_CUE + 1), [0] * (NO_CUE + 1), [0] * len(MARKS)
    get, mark = GROUPS.get, MARK.get
    groups = [get(token, NO_CUE) for token in tokens]
    for group in groups:
        cues[group] += 1
    for group in groups[:HEAD_WORDS]:
        head[group] += 1
    letters = digits = numbers = 0
    asked = 0.0
    for i, token in enumerate(tokens):
        if (at := mark(token)) is not None:
            marks[at] += 1
        elif token.isdecimal():
            digits += len(token)
            numbers += 1
            if len(token) < 6:
                asked = max(asked, _asked(int(token), tokens[i + 1 : i + 4]))
        else:
            letters += len(token)
    spelled = max(len(tokens) - sum(marks) - numbers, 1)
    sample = prompt[:HEAD]
    upper = sum(map(str.isupper, sample[:200]))
    last = prompt[-TAIL:].rstrip()[-1:]
    counted = prompt[:COUNTED]
    replies = request.reply_tokens
    return [
        log(len(prompt)), log(len(tokens)), letters / spelled,
        len(set(tokens)) / (len(tokens) or 1),
        log(counted.count("\n")), log(digits), upper / (len(sample[:200]) or 1),
        0.0 if sample.isascii() else sum(c > "\x7f" for c in sample) / len(sample),
        log(asked), numbers, last == "?", last == ":", last in ".!", counted.count("```"),
        log(len(request.context)), len(replies), *_conversation(replies),
        groups[0] if groups else -1, groups[-1] if groups else -1,
        *cues[:NO_CUE], *head[:NO_CUE], *marks,
    ]  # fmt: skip


def _asked(number: int, following: list[str]) -> float:
    """The tokens that "500 words" or "3 short paragraphs" asks for."""
    for word in following:
        if word in UNITS:
            return number * UNITS[word]
    plural = following and following[0].isalpha() and following[0].endswith("s")
    return number * ITEM if plural and number <= 100 else 0.0


def _conversation(replies: tuple[int, ...]) -> tuple[float, ...]:
    if not replies:
        return (math.nan,) * 5
    # A client can send any number: none is an error.
    logs = [math.log1p(min(max(reply, 0), 1 << 31)) for reply in replies]
    before = logs[-2] if len(logs) > 1 else logs[-1]
    return logs[-1], sum(logs) / len(logs), max(logs), min(logs), logs[-1] - before
