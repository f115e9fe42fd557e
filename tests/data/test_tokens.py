"""Token counters."""

import sys
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from lengthpred.data import tokens
from lengthpred.data.tokens import MISTRAL, load_counter
from lengthpred.errors import DataError, MissingExtraError, SettingsError

TEXTS = ["", " ", "   ", "a", " a", "a ", "a  b   c", "def f():\n    return 1\n\n  x", "é 日本 \t!"]


def tokenizer_file(folder: Path) -> Path:
    tokenizer = Tokenizer(models.WordLevel({"[S]": 0, "a": 1, "b": 2, "[U]": 3}, unk_token="[U]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing("[S] $0", special_tokens=[("[S]", 0)])
    tokenizer.enable_truncation(2)
    tokenizer.enable_padding()
    path = folder / "tokenizer.json"
    tokenizer.save(str(path))
    return path


def test_characters() -> None:
    counter = load_counter("chars/4")
    assert counter.count(["", "abcd", "abcde"]) == [0, 1, 2]
    assert counter.approximate and counter.name == "chars/4"


def test_tokenizer_json_without_special_tokens_padding_or_cuts(tmp_path: Path) -> None:
    path = tokenizer_file(tmp_path)
    for spec in (str(path), str(tmp_path)):
        counter = load_counter(spec)
        assert counter.count(["a b a", "", "b"]) == [3, 0, 1]
        assert not counter.approximate


@pytest.mark.parametrize("name", ["mistral-v1", "v3"])
def test_mistral_by_words_equals_whole_texts(name: str) -> None:
    library = pytest.importorskip("sentencepiece")
    package = pytest.importorskip("mistral_common")
    file = MISTRAL[f"mistral-{name.removeprefix('mistral-')}"]
    path = Path(package.__path__[0], "data", file)
    whole = library.SentencePieceProcessor(model_file=str(path))
    texts = [*TEXTS, Path(tokens.__file__).read_text(), "x" * 500]
    expected = [len(whole.encode(text)) for text in texts]
    assert load_counter(name).count(texts) == expected
    assert load_counter(str(path)).count(texts) == expected


def test_tekken() -> None:
    pytest.importorskip("mistral_common")
    assert load_counter("mistral-tekken").count(["hello world", ""]) == [2, 0]


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mistral_common", None)
    with pytest.raises(MissingExtraError, match=r"lengthpred\[mistral\]"):
        load_counter("mistral-v3")


@pytest.mark.parametrize("name", ["tokenizer.json", "x.model", "x.model.v3", "tekken.json"])
def test_what_is_no_tokenizer(tmp_path: Path, name: str) -> None:
    pytest.importorskip("sentencepiece")
    path = tmp_path / name
    path.write_text('{"a": 1}')
    with pytest.raises(DataError, match="is not a tokenizer file"):
        load_counter(str(path))


def test_a_mistaken_version_of_mistral_is_not_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tokenizer, "from_pretrained", None)
    with pytest.raises(SettingsError, match=r"no tokenizer 'mistral-v9'\. Did you mean 'mistral-v"):
        load_counter("mistral-v9")


def test_names_that_are_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="is not a tokenizer file"):
        load_counter(str(tmp_path / "no.json"))

    class Offline:
        @staticmethod
        def from_pretrained(name: str) -> None:
            raise Exception("no route to the hub\nlong trace")

    monkeypatch.setattr("tokenizers.Tokenizer", Offline)
    with pytest.raises(SettingsError, match=r"no route to the hub\).*Did you mean 'mistral-v3'"):
        load_counter("mistrl-v3")
