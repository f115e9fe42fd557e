"""Features of a prompt: what they say, what they cost, and that they stay the same."""

import math
import time

import numpy as np
import pytest

from lengthpred import Request
from lengthpred.models.text_features import HEAD, NAMES, TAIL, hashed, numeric, words

PROMPT = "List 5 rivers of Asia, in 200 words?"


def feature(prompt: str, name: str, **fields: object) -> float:
    request = Request(prompt=prompt, **fields)  # type: ignore[arg-type]
    return float(numeric([request])[0, NAMES.index(name)])


def test_a_name_for_each_column() -> None:
    assert len(set(NAMES)) == len(NAMES)
    table = numeric([Request(prompt=PROMPT), Request()])
    assert table.shape == (2, len(NAMES)) and table.dtype == np.float32
    assert numeric([]).shape == (0, len(NAMES))
    missing = np.isnan(table[0])
    conversation = {"last_reply", "mean_reply", "max_reply", "min_reply", "reply_slope"}
    assert {name for name, one in zip(NAMES, missing.tolist(), strict=True) if one} == conversation


def test_a_literal_prompt_gives_literal_numbers() -> None:
    # What a trained artifact counts on: a change here makes every old artifact wrong.
    row = numeric([Request(prompt=PROMPT)])[0]
    expected = {
        "characters": math.log1p(36), "words": math.log1p(10), "word_length": 23 / 6,
        "unique_words": 1.0, "digits": math.log1p(4), "upper": 2 / 36,
        "asked_tokens": math.log1p(280), "numbers": 2.0, "ends_question": 1.0, "last_cue": 15.0,
        "cue_list": 1.0, "head_cue_list": 1.0, "mark_?": 1.0, "mark_,": 1.0,
    }  # fmt: skip
    found = {n: float(v) for n, v in zip(NAMES, row, strict=True) if v and not math.isnan(v)}
    assert found == pytest.approx(expected)


def test_a_literal_prompt_gives_literal_slots() -> None:
    assert hashed(words(PROMPT), 12).tolist() == [
        47, 248, 440, 551, 769, 799, 833, 1108, 1315, 1373, 1501, 1596, 1610,
        1629, 1649, 1658, 1870, 2054, 2060, 2639, 2826, 2988, 3447, 3492, 3808, 4043,
    ]  # fmt: skip
    assert hashed(words("Naïve 東京 \ud800 x² ٣"), 18).tolist() == [
        18847, 25458, 35014, 49828, 52141, 52186, 73146, 89339, 113550, 137724, 140678, 167523,
        171544, 193659, 202014, 205340, 208281, 241103, 243269, 250565,
    ]  # fmt: skip
    assert hashed([], 12).tolist() == []
    many = hashed(words(PROMPT * 40), 8)
    assert many.min() >= 0 and many.max() < 256 and (np.diff(many) > 0).all()


@pytest.mark.parametrize(
    ("prompt", "tokens"),
    [
        ("Write 500 words on rivers", 500 * 1.4),
        ("in 3 short paragraphs", 300),
        ("give me 5 ideas", 150),
        ("a 2 page essay and then 10 sentences", 2 * 600),
        ("in 1999 we met", 0),
        ("write 1234567 words", 0),
        ("write ٣ paragraphs", 300),
        ("5²", 0),
    ],
)
def test_what_is_asked_by_number(prompt: str, tokens: float) -> None:
    assert feature(prompt, "asked_tokens") == pytest.approx(math.log1p(tokens), rel=1e-5)


def test_of_a_long_prompt_the_head_and_the_tail_are_read() -> None:
    long = f"List {'x ' * HEAD} middle {'y ' * TAIL} summarize?"
    found = words(long)
    assert found[0] == "list" and found[-2:] == ["summarize", "?"] and "middle" not in found
    assert len(found) < HEAD + TAIL
    # At the boundary nothing is cut and nothing is read twice.
    whole = "ab " * ((HEAD + TAIL) // 3)
    assert words(whole) == ["ab"] * ((HEAD + TAIL) // 3)


def test_the_cost_does_not_grow_with_the_prompt() -> None:
    # The same text at both ends, so that only the length differs.
    text = "List the rivers of Asia, please. "
    short, long = (Request(prompt=(text * (n // len(text)))) for n in (10_000, 1_000_000))

    def cost(request: Request) -> float:
        best = math.inf
        for _ in range(15):
            begun = time.perf_counter()
            hashed(words(request.prompt), 18)
            numeric([request])
            best = min(best, time.perf_counter() - begun)
        return best

    assert cost(long) <= 5 * cost(short)


@pytest.mark.parametrize(
    "prompt",
    [
        "\ud800",
        "x\udfffy",
        "²³¹",
        "½ ⅷ ①",
        "٣٤",
        "e\u0301",
        "\0",
        " \t\n",
        "___",
        "İI\u0130",
        "🙂" * 50,
    ],
)
def test_no_text_is_too_odd(prompt: str) -> None:
    table = numeric([Request(prompt=prompt, reply_tokens=(1,))])
    assert np.isfinite(table).all()
    assert (hashed(words(prompt), 10) < 1024).all()


def test_superscripts_are_no_numbers() -> None:
    assert feature("x² + y³", "numbers") == 0 and feature("x2 + y3", "numbers") == 2


def test_the_conversation() -> None:
    replies = {"reply_tokens": (10, 99, 400)}
    assert feature("more", "replies", **replies) == 3
    for name, value in (("last_reply", 400), ("max_reply", 400), ("min_reply", 10)):
        assert feature("more", name, **replies) == pytest.approx(math.log1p(value))
    slope = math.log1p(400) - math.log1p(99)
    assert feature("more", "reply_slope", **replies) == pytest.approx(slope)
    assert feature("more", "reply_slope", reply_tokens=(7,)) == 0
    assert feature("more", "context_characters", context="x" * 9) == pytest.approx(math.log(10))
