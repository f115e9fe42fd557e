"""Token counts: what a text has in tokens of a given model, without special tokens."""

import os
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

from lengthpred.errors import DataError, SettingsError, did_you_mean, require
from lengthpred.openai_body import approximate_tokens

__all__ = ["APPROXIMATE", "MISTRAL", "TokenCounter", "load_counter"]

APPROXIMATE = "chars/4"
# The files inside the package mistral_common.
MISTRAL = {
    "mistral-v1": "tokenizer.model.v1",
    "mistral-v2": "mistral_instruct_tokenizer_240216.model.v2",
    "mistral-v3": "mistral_instruct_tokenizer_240323.model.v3",
    "mistral-v7": "mistral_instruct_tokenizer_241114.model.v7",
    "mistral-tekken": "tekken_240911.json",
}
MISTRAL_NAME = re.compile(r"mistral-v?\d+|mistral-tekken\w*")
MARK = "\N{LOWER ONE EIGHTH BLOCK}"  # SentencePiece writes a space as this


class TokenCounter(Protocol):
    """Counts tokens. `approximate` when it only estimates."""

    name: str
    approximate: bool

    def count(self, texts: Sequence[str]) -> list[int]:
        """The number of tokens of each text, in order; special tokens are not counted."""
        ...


class _Counter:
    def __init__(
        self, name: str, count: Callable[[Sequence[str]], list[int]], approximate: bool = False
    ) -> None:
        self.name, self.count, self.approximate = name, count, approximate


def load_counter(spec: str) -> TokenCounter:
    """The counter that `spec` names.

    A path to a `tokenizer.json`, to a Mistral file (`*.model*`, `tekken*.json`), a name of
    `MISTRAL`, an id on the hub, or `chars/4`, a declared approximation.

    Raises MissingExtraError, DataError for a file that is no tokenizer, SettingsError for a name
    that is nowhere to be found.
    """
    if spec == APPROXIMATE:
        return _Counter(spec, approximate_tokens, approximate=True)
    if spec in MISTRAL or f"mistral-{spec}" in MISTRAL:
        spec = spec if spec in MISTRAL else f"mistral-{spec}"
        package = require("mistral_common", "mistral", f"the tokenizer '{spec}'")
        path = Path(next(iter(package.__path__)), "data", MISTRAL[spec])
        return _Counter(spec, _from_file(path))
    path = Path(spec)
    if path.is_dir() and (path / "tokenizer.json").is_file():
        path = path / "tokenizer.json"
    if path.is_file():
        return _Counter(spec, _from_file(path))
    if path.exists() or path.suffix in (".json", ".model") or spec.startswith((".", "/", "~")):
        raise DataError(f"{spec} is not a tokenizer file: give a tokenizer.json or a Mistral file")
    if MISTRAL_NAME.fullmatch(spec):  # no hub has it
        raise SettingsError(f"no tokenizer '{spec}'. {did_you_mean(spec, MISTRAL)}")
    return _Counter(spec, _from_hub(spec))


def _from_file(path: Path) -> Callable[[Sequence[str]], list[int]]:
    try:
        if path.name.startswith("tekken") and path.suffix == ".json":
            return _tekken(path)
        if ".model" in path.suffixes:
            return _sentencepiece(path)
        from tokenizers import Tokenizer

        return _tokenizers(Tokenizer.from_file(str(path)))
    except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is not a tokenizer file: {_first_line(error)}") from error
    except Exception as error:  # tokenizers raises a bare Exception
        if type(error) is not Exception:
            raise
        raise DataError(f"{path} is not a tokenizer file: {_first_line(error)}") from error


def _from_hub(name: str) -> Callable[[Sequence[str]], list[int]]:
    from tokenizers import Tokenizer

    try:
        return _tokenizers(Tokenizer.from_pretrained(name))
    except Exception as error:  # offline, not found, not allowed: a bare Exception each time
        known = did_you_mean(name, [*MISTRAL, APPROXIMATE])
        raise SettingsError(
            f"no tokenizer '{name}' here, and the hub did not give one "
            f"({_first_line(error)}): give the path of a tokenizer.json. {known}"
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


def _tokenizers(tokenizer: Any) -> Callable[[Sequence[str]], list[int]]:
    tokenizer.no_truncation()
    tokenizer.no_padding()

    def count(texts: Sequence[str]) -> list[int]:
        found = tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [len(encoding) for encoding in found]

    return count


def _tekken(path: Path) -> Callable[[Sequence[str]], list[int]]:
    module = "mistral_common.tokens.tokenizers.tekken"
    encode = require(module, "mistral", "a Mistral tokenizer").Tekkenizer.from_file(path).encode
    pool = ThreadPoolExecutor(os.cpu_count())  # it encodes without the interpreter's lock

    def count(texts: Sequence[str]) -> list[int]:
        return list(pool.map(lambda text: len(encode(text, bos=False, eos=False)), texts))

    return count


def _sentencepiece(path: Path) -> Callable[[Sequence[str]], list[int]]:
    library = require("sentencepiece", "mistral", "a SentencePiece tokenizer")
    model = library.SentencePieceProcessor(model_file=str(path))
    if not _splits_at_spaces(model):
        return lambda texts: [len(ids) for ids in model.encode(list(texts))]
    words = _Words(model)
    return lambda texts: [words.total(text) for text in texts]


def _splits_at_spaces(model: Any) -> bool:
    """Whether no piece crosses from a word to the space after it, and spaces are kept as they are.

    Then the tokens of a text are those of its words, and each word need be counted only once.
    """
    pieces = (model.id_to_piece(i) for i in range(model.get_piece_size()))
    if any(MARK in piece.lstrip(MARK) for piece in pieces):
        return False
    probe = "a  b c   d "
    whole = "".join(model.encode(probe, out_type=str))
    return bool(whole == MARK + probe.replace(" ", MARK))


class _Words(dict[str, int]):
    """Tokens of a word with the spaces before it, remembered: five times faster than whole texts.

    A key is the word with all but the first of its spaces: the model itself puts one in front,
    except before "", which stands for a single space at the end of a text.
    """

    LIMIT = 400_000  # words, about 60 MB

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def __missing__(self, word: str) -> int:
        count = len(self.model.encode(word)) if word else 1
        if len(word) <= 32 and len(self) < self.LIMIT:
            self[word] = count
        return count

    def total(self, text: str) -> int:
        if not text:
            return 0
        return sum(map(self.__getitem__, _words(text)))


def _words(text: str) -> list[str]:
    """The text cut before each run of spaces, the first space of a run left out."""
    words = text.split(" ")
    if "" not in words:
        return words
    # An empty part stands for one more space before what follows it.
    joined, spaces = [], 0
    for word in words:
        if word:
            joined.append(" " * spaces + word)
            spaces = 0
        else:
            spaces += 1
    if spaces:
        joined.append(" " * (spaces - 1))
    return joined
