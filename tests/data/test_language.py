"""The language of a text."""

import pytest

from lengthpred.data.language import UNKNOWN, language_of, languages

SAID = {
    "en": "Write a poem about the sea",
    "es": "Escribe un poema sobre el mar",
    "fr": "Écris un poème sur la mer pour moi",
    "de": "Schreibe mir ein Gedicht über das Meer",
    "pt": "Escreva um poema sobre o mar para mim, você não",
    "it": "Scrivi una poesia sul mare per la mia amica",
    "nl": "Schrijf een gedicht over de zee voor mijn moeder",
    "pl": "Napisz wiersz o morzu dla mojej mamy, jak się da",
    "ru": "Напиши стихотворение о море",  # noqa: RUF001
    "uk": "Напиши вірш про море і про її хвилі",  # noqa: RUF001
    "ar": "اكتب قصيدة عن البحر",
    "he": "כתוב שיר על הים",
    "el": "Γράψε ένα ποίημα για τη θάλασσα",  # noqa: RUF001
    "hi": "समुद्र पर एक कविता लिखो",
    "th": "เขียนบทกวีเกี่ยวกับทะเล",
    "ko": "바다에 대한 시를 써줘",
    "ja": "海についての詩を書いてください",
    "zh": "请写一首关于大海的诗 (poem)",
    UNKNOWN: "1 + 1 = ?",
}


@pytest.mark.parametrize(("code", "text"), SAID.items())
def test_languages(code: str, text: str) -> None:
    assert language_of(text) == code


def test_a_batch_keeps_its_order() -> None:
    assert languages(list(SAID.values())) == list(SAID)
    assert languages(["", "\ud800", "😀"]) == [UNKNOWN] * 3
