"""A look at the prompt by a small model: the contract, deadlines, and what is stored."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lengthpred import Request, load
from lengthpred.base import Refiner
from lengthpred.errors import ArtifactError, BackendError
from lengthpred.models import slm_prefill
from lengthpred.models.backends.base import Source
from lengthpred.models.slm_prefill import Prefill, features
from lengthpred.testing import PREDICTOR_CHECKS
from lengthpred.training.slm_prefill import fit_head
from tests.builders import synthetic_rows
from tests.small_models import Reader

SOURCE = Source("transformers", model="small", batch=8, checksum="0" * 64)
REQUESTS = [Request(prompt=f"{word} of snow") for word in ("sum", "poem", "code")]


def predictor(reader: Reader | None = None) -> Prefill:
    rows, reader = synthetic_rows(400), reader or Reader()
    table = features(reader, rows.requests)
    reader.asked.clear()
    return fit_head(SOURCE, table, rows, 5, np.random.default_rng(0), reader)


@pytest.fixture
def no_torch(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Another reader in place of the one that needs a real model."""
    monkeypatch.setattr(slm_prefill, "open_backend", Reader)
    yield


@pytest.mark.usefixtures("no_torch")
@pytest.mark.parametrize("check", PREDICTOR_CHECKS.values(), ids=PREDICTOR_CHECKS.keys())
def test_the_contract(check: Callable[[object], None]) -> None:
    check(predictor())


def test_it_reads_lengths_off_states() -> None:
    short, middle, long_ = predictor().predict(REQUESTS).median()
    assert short < 20 < middle < 200 < long_


def test_one_look_and_nothing_is_written() -> None:
    reader = Reader()
    asked = predictor(reader)
    assert isinstance(asked, Refiner)
    asked.predict([*REQUESTS, Request(prompt="x" * 100_000, context="y" * 100_000)])
    (seen,) = reader.asked
    assert [len(request.prompt) < 2100 for request in seen] == [True] * 4
    assert len(seen[-1].context) == 2000
    assert len(asked.predict([])) == 0 and len(reader.asked) == 1


def test_a_request_without_text_gets_the_prior() -> None:
    asked = predictor()
    requests = [REQUESTS[0], Request(prompt=" "), Request(prompt_tokens=900)]
    found, refined = asked.refine(requests, 5.0)
    assert refined.tolist() == [True, False, False]
    assert (found.pmf[1:] == asked.table.prior).all() and (found.pmf[0] != found.pmf[1]).any()
    assert (asked.predict(requests).pmf == found.pmf).all()


def test_the_first_answer_looks_at_nothing() -> None:
    reader = Reader()
    asked = predictor(reader)
    first, unsure = asked.provisional(REQUESTS)
    late, refined = asked.refine(REQUESTS, 0.0)
    assert not reader.asked and unsure.all() and not refined.any()
    assert (first.pmf == asked.table.prior).all() and (late.pmf == first.pmf).all()


class Slow(Reader):
    """Takes 20 ms a request."""

    def read(self, requests: Sequence[Request]) -> Any:
        time.sleep(0.02 * len(requests))
        return super().read(requests)


def test_refining_stops_at_its_deadline() -> None:
    reader = Slow()
    asked = predictor(Reader())
    asked._reader = reader
    requests = [replace(REQUESTS[i % 3], id=str(i)) for i in range(100)]
    begun = time.perf_counter()
    found, refined = asked.refine(requests, 0.5)
    assert time.perf_counter() - begun < 2.5
    count = int(refined.sum())
    assert 3 <= count <= 25 and refined[:count].all()  # the first ones, in the order asked
    sizes = [len(batch) for batch in reader.asked]
    assert sizes[:3] == [1, 2, 4] and max(sizes) <= SOURCE.batch
    assert (found.pmf[:3] == asked.predict(requests[:3]).pmf).all()
    assert (found.pmf[count:] == asked.table.prior).all()


def test_without_a_hurry_all_are_refined() -> None:
    asked = predictor()
    requests = [replace(REQUESTS[i % 3], id=str(i)) for i in range(40)]
    found, refined = asked.refine(requests, 60.0)
    assert refined.all() and (found.pmf == asked.predict(requests).pmf).all()


def test_what_is_stored_answers_alike(tmp_path: Path, no_torch: None) -> None:
    asked = predictor()
    stored = Prefill(
        replace(SOURCE, checksum="abc"), asked.weights, asked.bias, asked.levels, asked.table
    )
    path = stored.save(tmp_path / "prefill")
    assert {file.name for file in path.iterdir()} == {
        "manifest.json",
        "config.json",
        "arrays.safetensors",
    }
    loaded = load(path)
    assert isinstance(loaded, Prefill) and loaded.source.checksum == "abc"
    assert loaded.levels.keys() == {"model-a", "model-b"}
    assert (loaded.predict(REQUESTS).pmf == asked.predict(REQUESTS).pmf).all()


def test_the_level_of_a_model_moves_its_answers() -> None:
    asked = predictor()
    asked.levels["talker"] = 0.3
    plain, more = asked.predict([REQUESTS[1], replace(REQUESTS[1], model="talker")]).median()
    never_seen = asked.predict([replace(REQUESTS[1], model="new")]).median()[0]
    assert more > 1.5 * plain and never_seen == plain


def test_states_of_another_model_are_refused() -> None:
    asked = predictor()
    asked._reader = Reader(width=30)
    with pytest.raises(BackendError, match=r"has states of 30 numbers, .* trained on 24"):
        asked.predict(REQUESTS)


@pytest.mark.parametrize("backend", ["recorded", "openai"])
def test_a_backend_that_cannot_read_is_refused(backend: str) -> None:
    asked = predictor()
    source = Source(backend, model="m", url=("http://nowhere.invalid/v1",), samples="t.parquet")
    with pytest.raises(BackendError, match=rf"'{backend}' does not show .* take 'transformers'"):
        Prefill(source, asked.weights, asked.bias, asked.levels, asked.table)


def test_weights_that_are_none(tmp_path: Path, no_torch: None) -> None:
    asked = predictor()
    asked.weights = asked.weights * np.nan
    with pytest.raises(ArtifactError, match="holds finite weights"):
        load(asked.save(tmp_path / "prefill"))
