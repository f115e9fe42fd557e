"""The language of a text, told by its script and, in Latin script, by its commonest words.

Good enough to hold a language out of a split; no substitute for a trained identifier.
"""

import re
from collections.abc import Sequence

import numpy as np

__all__ = ["UNKNOWN", "language_of", "languages"]

UNKNOWN = "und"  # ISO 639-2: undetermined
READ = 1000  # characters; more does not change the answer

# First code point of a block and the language that stands for its script ("" no letters of its
# own, "latin" decided by words, "han" and "cyrillic" and "arabic" by their neighbours).
_BLOCKS = [
    *[(0x0000, ""), (0x0041, "latin"), (0x005B, ""), (0x0061, "latin"), (0x007B, "")],
    *[(0x00C0, "latin"), (0x0250, ""), (0x0370, "el"), (0x0400, "cyrillic"), (0x0530, "hy")],
    *[(0x0590, "he"), (0x0600, "arabic"), (0x0700, ""), (0x0900, "hi"), (0x0980, "bn")],
    *[(0x0A00, "pa"), (0x0A80, "gu"), (0x0B00, ""), (0x0B80, "ta"), (0x0C00, "te")],
    *[(0x0C80, "kn"), (0x0D00, "ml"), (0x0D80, "si"), (0x0E00, "th"), (0x0E80, "lo")],
    *[(0x0F00, ""), (0x1000, "my"), (0x10A0, "ka"), (0x1100, "ko"), (0x1200, "am")],
    *[(0x1380, ""), (0x1780, "km"), (0x1800, ""), (0x1E00, "latin"), (0x1F00, "el")],
    *[(0x2000, ""), (0x3040, "ja"), (0x3100, ""), (0x3400, "han"), (0xA000, "")],
    *[(0xAC00, "ko"), (0xD7B0, ""), (0xF900, "han"), (0xFB00, ""), (0xFF66, "ja")],
    *[(0xFFA0, ""), (0x20000, "han"), (0x32000, "")],
]
_STARTS = np.array([start for start, _ in _BLOCKS])
_SCRIPTS = sorted({script for _, script in _BLOCKS})
_SCRIPT_OF = np.array([_SCRIPTS.index(script) for _, script in _BLOCKS])

_COMMON = {
    "en": "the of and to is in that it for you with this are what how can my write please me "
    "your from be have do as no so to on not if which explain give create an make list let all "
    "at by about would should was has its their they but or in use using",
    "es": "el la de que y en los del las por con para una es como qué cómo un se su más lo al "
    "escribe quiero hola esta sobre",
    "fr": "le la les de des et est un une dans que pour qui sur avec vous je pas au ce en du "
    "plus comment moi ne écris bonjour cette",
    "de": "der die das und ist ein eine nicht ich zu den mit von für auf wie im dem des bitte "
    "sie es was schreibe einen mir auch",
    "pt": "o a os de que e do da em um uma para com não por como é mais dos ao se na no você me "
    "sobre crie olá escreva",
    "it": "il di che la e un una per con non è sono del della le gli come mi in da scrivi dei "
    "nel alla più ciao questo",
    "nl": "de het een en van is dat niet in op te met voor zijn ik je wat hoe aan er schrijf",
    "pl": "i w na z się nie jest do to że jak co dla o po od przez napisz są czy",
    "sv": "och att det är en som på för med av den inte till jag ett hur vad har skriv",
    "tr": "ve bir bu için ile ne da de mi olarak daha çok olan bana yaz var",
    "id": "dan yang di dengan untuk ini adalah dari apa saya tidak dalam pada itu buatkan",
    "vi": "và của là cho một có không các những được trong với tôi bạn người hãy viết về",
    "ro": "și de la în care este pe cu un o nu din că pentru să ce mai cum",
    "cs": "a se na je že v s to jak pro co ve do jsou jako napiš být není",
}
_VOTES: dict[str, tuple[str, ...]] = {}
for _code, _words in _COMMON.items():
    for _word in _words.split():
        if len(_word) == 1:
            continue  # in code and lists, single letters belong to no language
        _VOTES[_word] = (*_VOTES.get(_word, ()), _code)
_WORD = re.compile(r"[^\W\d_]+")


def languages(texts: Sequence[str]) -> list[str]:
    """The language of each text, in order: a two-letter code, or UNKNOWN."""
    return [language_of(text) for text in texts]


def language_of(text: str) -> str:
    """The language of the head of a text: a two-letter code, or UNKNOWN.

    >>> language_of("Wie schreibe ich einen Brief?"), language_of("こんにちは")
    ('de', 'ja')
    >>> language_of("1 + 1")
    'und'
    """
    text = text[:READ]
    if text.isascii():
        return _latin(text)
    points = np.frombuffer(text.encode("utf-32-le", "replace"), np.uint32)
    blocks = np.searchsorted(_STARTS, points, side="right") - 1
    counts = np.bincount(_SCRIPT_OF[blocks], minlength=len(_SCRIPTS))
    share = dict(zip(_SCRIPTS, counts.tolist(), strict=True))
    share.pop("")
    # A Japanese text has kana among its Chinese characters; a Chinese one has none.
    if share["ja"] * 10 > share["han"]:
        share["ja"] += share.pop("han")
    # A sign of a dense script says as much as several Latin letters.
    share["latin"] /= 4
    best = max(share, key=lambda script: share[script])
    if not share[best]:
        return UNKNOWN
    if best == "latin":
        return _latin(text)
    if best == "cyrillic":
        return "uk" if re.search("[іїєґІЇЄҐ]", text) else "ru"
    if best == "arabic":
        return "fa" if re.search("[پچژگ]", text) else "ar"
    return "zh" if best == "han" else best


def _latin(text: str) -> str:
    """The language whose common words are met most often; a tie goes to the first of the list."""
    votes = dict.fromkeys(_COMMON, 0)
    for word in _WORD.findall(text.lower()):
        for code in _VOTES.get(word, ()):
            votes[code] += 1
    best = max(votes, key=lambda code: votes[code])
    return best if votes[best] else UNKNOWN
