"""A small model that is asked for a length: the question, and how a number is read."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lengthpred import Request, load
from lengthpred.base import Refiner
from lengthpred.errors import BackendError
from lengthpred.models.backends.base import Source
from lengthpred.models.slm import Generation
from lengthpred.models.slm_states import TOKENS_A_WORD, StatedLength, question, stated_words
from tests.builders import build
from tests.small_models import Reader

SOURCE = Source("openai", model="small", url=("http://nowhere.invalid/v1",))
HOW = Generation(n=3, temperature=0.5, cap=16, seed=4)


class Talker(Reader):
    """Says what it was made with, one text after another, to each request."""

    def __init__(self, *texts: str, rows: int | None = None) -> None:
        super().__init__()
        self.texts, self.rows = list(texts), rows
        self.how: tuple[Any, ...] = ()

    def generate_texts(self, requests: Sequence[Request], *how: Any) -> list[list[str]]:
        self.asked.append(requests)
        self.how = how
        count = len(requests) if self.rows is None else self.rows
        return [self.texts for _ in range(count)]


def samples(*texts: str) -> tuple[int, bool]:
    asked = StatedLength(SOURCE, HOW, {}, Talker(*texts))
    lengths, missing = asked.samples([Request(prompt="Write a poem.")], None)
    assert lengths.shape == missing.shape == (1, 1) and lengths.dtype == np.int64
    return int(lengths[0, 0]), bool(missing[0, 0])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("200", 200),
        ("about 1,200 words", 1200),
        ("1.200 words", 1200),
        ("Approximately 12,345 words.", 12345),
        ("**300**", 300),
        ("- 30", 30),
        ("~50", 50),
        ("0", 0),
        ("100words", 100),
        ("150 words or 10 lines", 150),
        ("1.5k", 1500),
        ("3.5 thousand", 3500),
        ("12 hundred", 1200),
        ("two hundred", 200),
        ("a hundred words", 100),
        ("An  hundred", 100),
        ("Twenty-five", 25),
        ("two thousand five hundred and twenty-five", 2525),
        ("two dozen", 24),
        ("200-300", 250),
        ("200 \u2013 300 words", 250),
        ("1,200-1,500", 1350),
        ("100 to 150", 125),
        ("50 or 60", 55),
        ("Between 200 and 300 words", 250),
        ("from two hundred to three hundred", 250),
        ("one hundred and fifty to two hundred words", 175),
        ("100 and 150", 100),  # no range without "between"
        ("3 sentences", 51),
        ("5-7 sentences", 102),
        ("1 page", 400),
        ("40 tokens", 30),
        ("Answer: 40", 40),
        ("\uff11\uff12\uff10", 120),
        ("\u0663\u0660\u0660", 300),
    ],
)
def test_numbers_that_are_stated(text: str, words: float) -> None:
    assert stated_words(text) == pytest.approx(words)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Sure! I can help you with that.",
        "someone often wrote a few",
        "1. First, you need flour",
        "2) Then bake",
        "- Take the bread",
        "# Introduction",
        "10,000,000 words",
        "9" * 5000,
        "\u00b2",
        "\ud83d half",
        "hundreds",
        "x" * 300 + " 40",  # far from the beginning it is no statement
    ],
)
def test_what_states_nothing(text: str) -> None:
    assert stated_words(text) is None


def test_the_median_of_what_was_stated_in_tokens() -> None:
    assert samples("100", "900 words", "about 200") == (round(200 * TOKENS_A_WORD), False)
    assert samples("100", "nonsense", "") == (round(100 * TOKENS_A_WORD), False)
    assert samples("50 words", "Hello!", "150") == (round(100 * TOKENS_A_WORD), False)
    assert samples("0", "0", "1") == (0, False)
    assert samples("no", "idea", "") == (0, True)


def test_it_is_asked_not_to_answer() -> None:
    talker = Talker("12", "12", "12")
    asked = StatedLength(SOURCE, HOW, {}, talker)
    assert isinstance(asked, Refiner)
    request = Request(prompt="What is water? {0} {prompt}", context="user: hi", id="5")
    asked.refine([request, Request(prompt=" \n")], 2.5)
    ((sent, blank),) = talker.asked
    assert talker.how == (3, 0.5, 16, 2.5, 4)
    assert sent.prompt.startswith("What is water? {0} {prompt}\n")
    assert "number only" in sent.prompt and "how many words" in sent.prompt
    assert (sent.id, sent.context) == ("5", "user: hi")
    assert blank.prompt == " \n"  # which no backend answers


def test_a_long_prompt_is_asked_about_by_its_head_and_tail() -> None:
    sent = question(Request(prompt="begin " + "x" * 100_000 + " end", context="y" * 100_000))
    assert len(sent.prompt) < 2500 and len(sent.context) <= 2000
    assert sent.prompt.startswith("begin") and " end\n" in sent.prompt


def test_nobody_is_asked_before_there_is_time() -> None:
    talker = Talker("12", "12", "12")
    asked = StatedLength(SOURCE, HOW, {}, talker)
    requests = [Request(prompt="a"), Request(prompt="b")]
    first, unsure = asked.provisional(requests)
    late, refined = asked.refine(requests, 0.0)
    assert not talker.asked and unsure.all() and not refined.any()
    assert (late.pmf == first.pmf).all()
    found, refined = asked.refine(requests, 1.0)
    assert refined.all() and found.median() == pytest.approx([16, 16], abs=2)


def test_nonsense_keeps_the_first_answer() -> None:
    asked = StatedLength(SOURCE, HOW, {}, Talker("Of course!"))
    found, refined = asked.refine([Request(prompt="a")], 1.0)
    assert not refined.any()
    assert (found.pmf == asked.provisional([Request(prompt="a")])[0].pmf).all()


def test_a_backend_that_gives_no_texts_is_refused() -> None:
    with pytest.raises(BackendError, match=r"'recorded' gives no texts, .* take 'transformers' or"):
        StatedLength(Source("recorded", samples="t.parquet"), HOW, {})


def test_a_backend_that_breaks_the_protocol_is_named() -> None:
    asked = StatedLength(SOURCE, HOW, {}, Talker("1", rows=3))
    with pytest.raises(BackendError, match="gave 3 answers to 1 requests: it does not keep"):
        asked.predict([Request(prompt="a")])


def test_what_was_saved_asks_the_same_server(tmp_path: Path) -> None:
    built = build("slm-states")
    assert isinstance(built, StatedLength)
    loaded = load(built.save(tmp_path / "states"))
    assert isinstance(loaded, StatedLength)
    assert (loaded.source, loaded.generation) == (built.source, built.generation)
    requests = [Request(prompt=f"{topic} of snow") for topic in ("sum", "poem", "code")]
    short, middle, long_ = loaded.predict(requests).median()
    assert short < middle < long_
    assert (loaded.predict(requests).pmf == built.predict(requests).pmf).all()
