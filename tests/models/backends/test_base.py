"""What a backend is asked by: sources as JSON, and opening them."""

import json
from typing import Any

import numpy as np
import pytest

from lengthpred.errors import SettingsError
from lengthpred.models.backends.base import (
    BACKENDS,
    Source,
    TextBackend,
    answered,
    open_backend,
    seconds_left,
)

WHOLE = Source(
    "openai",
    model="small",
    url=("http://one/v1", "http://two/v1"),
    samples="s.parquet",
    revision="main",
    device="cuda",
    dtype="bfloat16",
    batch=7,
    checksum="abc",
)


@pytest.mark.parametrize("source", [WHOLE, Source("recorded", samples="s.parquet"), Source("")])
def test_a_source_comes_back_from_json(source: Source) -> None:
    stored = json.loads(json.dumps(source.as_json()))
    assert Source.from_json(stored) == source
    assert isinstance(Source.from_json(stored).url, tuple)
    assert isinstance(stored["url"], list)


def test_what_is_left_out_has_its_default() -> None:
    assert Source.from_json({"backend": "recorded"}) == Source("recorded")


def test_what_no_source_has_is_named() -> None:
    with pytest.raises(ValueError, match=r"a source has no colour, modle$"):
        Source.from_json({"backend": "openai", "modle": "x", "colour": "red"})


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"backend": 3},
        {"backend": "openai", "url": "http://one/v1"},
        {"backend": "openai", "url": [1]},
        {"backend": "openai", "url": None},
        {"backend": "openai", "model": None},
        {"backend": "openai", "batch": "64"},
        {"backend": "openai", "batch": True},
        {"backend": "openai", "batch": 0},
        {"backend": "recorded", "samples": ["a"]},
    ],
)
def test_what_is_no_source(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="of a source must be"):
        Source.from_json(wrong)


def test_an_unknown_backend_is_told_the_next_one() -> None:
    with pytest.raises(SettingsError, match=r"'recoded' is no backend\. Did you mean 'recorded'\?"):
        open_backend(Source("recoded", samples="s.parquet"))


@pytest.mark.parametrize(
    ("backend", "needed"), [("transformers", "model"), ("openai", "url"), ("recorded", "samples")]
)
def test_a_source_that_lacks_its_part(backend: str, needed: str) -> None:
    with pytest.raises(SettingsError, match=f"the backend '{backend}' needs '{needed}' to be set"):
        open_backend(Source(backend))


@pytest.mark.parametrize("backend", BACKENDS)
def test_opening_reads_nothing(backend: str) -> None:
    nowhere = Source(
        backend, model="nowhere", url=("http://127.0.0.1:9/v1",), samples="nowhere.parquet"
    )
    opened = open_backend(nowhere)
    opened.close()
    opened.close()
    assert isinstance(opened, TextBackend) == (backend != "recorded")


def test_who_answered_anything() -> None:
    lengths = np.array([[0, 0], [0, 3], [0, 0], [4, 5]])
    censored = np.array([[True, True], [True, True], [True, False], [False, False]])
    assert answered(lengths, censored).tolist() == [False, True, True, True]
    assert answered(np.zeros((0, 2), np.int64), np.zeros((0, 2), bool)).tolist() == []


def test_the_time_that_is_left() -> None:
    assert seconds_left(None, 5.0) is None
    assert seconds_left(7.0, 5.0) == 2.0
    assert seconds_left(4.0, 5.0) == 0.0
