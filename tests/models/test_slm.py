"""Generate-and-count: what it asks, what it makes of the answers, and what it keeps."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from lengthpred import Request, load
from lengthpred.base import IntArray, Refiner
from lengthpred.errors import ArtifactError, BackendError
from lengthpred.models.backends.base import Source
from lengthpred.models.length_map import ALL_MODELS
from lengthpred.models.slm import GenerateAndCount, Generation, shortened
from lengthpred.training.slm import fit_maps
from tests.builders import build, synthetic_rows
from tests.small_models import numbered, small_lengths
from tests.training.tables import table_on_disk

SOURCE = Source("recorded", samples="nowhere.parquet")
HOW = Generation(n=2, temperature=0.7, cap=500, seed=3)
REQUESTS = [Request(prompt="x" * size) for size in (10, 200, 35)]
Asked = tuple[int, float, int, float | None, int]


class Echo:
    """Writes as many tokens as the prompt has characters, cut by the cap; `late` writes nothing."""

    def __init__(self, late: Sequence[str] = ()) -> None:
        self.late = late
        self.asked: list[Asked] = []

    def generate_lengths(
        self,
        requests: Sequence[Request],
        n: int,
        temperature: float,
        cap: int,
        deadline_s: float | None,
        seed: int,
    ) -> tuple[IntArray, npt.NDArray[np.bool_]]:
        self.asked.append((n, temperature, cap, deadline_s, seed))
        written = [0 if r.prompt in self.late else len(r.prompt) for r in requests]
        lengths = np.repeat(np.array(written, np.int64)[:, None], n, axis=1)
        return np.minimum(lengths, cap), (lengths == 0) | (lengths > cap)

    def checksum(self) -> str:
        return ""

    def close(self) -> None:
        pass


class Broken(Echo):
    def __init__(self, lengths: IntArray) -> None:
        super().__init__()
        self.lengths = lengths

    def generate_lengths(
        self, *given: object, **named: object
    ) -> tuple[IntArray, npt.NDArray[np.bool_]]:
        return self.lengths, np.zeros(self.lengths.shape, bool)


def predictor(backend: Echo | None = None, fitted: bool = True) -> GenerateAndCount:
    rows = synthetic_rows(300)
    small = small_lengths(rows, 2)
    maps = fit_maps(rows, small, np.zeros(small.shape, bool)) if fitted else {}
    return GenerateAndCount(SOURCE, HOW, maps, backend or Echo())


def test_the_backend_is_asked_as_the_artifact_says() -> None:
    echo = Echo()
    asked = predictor(echo)
    assert isinstance(asked, Refiner)
    asked.predict(REQUESTS)
    asked.refine(REQUESTS, 1.5)
    assert echo.asked == [(2, 0.7, 500, None, 3), (2, 0.7, 500, 1.5, 3)]


def test_the_answer_follows_what_was_written() -> None:
    short, long_, middle = predictor().predict(REQUESTS).median()
    assert short < middle < long_
    # The small model of these rows writes twice as much as the large one.
    assert predictor().predict([Request(prompt="x" * 300)]).median()[0] == pytest.approx(
        150, rel=0.4
    )


def test_without_maps_the_length_is_taken_as_it_is() -> None:
    assert predictor(fitted=False).predict(REQUESTS).median() == pytest.approx(
        [10, 200, 35], rel=0.1
    )


def test_the_first_answer_asks_nobody() -> None:
    echo = Echo()
    first, unsure = predictor(echo).provisional(REQUESTS)
    late, refined = predictor(echo).refine(REQUESTS, 0.0)
    assert not echo.asked and unsure.all() and not refined.any()
    assert (first.pmf == late.pmf).all() and len(first) == 3
    empty, flags = predictor(echo).provisional([])
    assert len(empty) == len(flags) == 0


def test_what_was_not_answered_in_time_keeps_its_first_answer() -> None:
    asked = predictor(Echo(late=[REQUESTS[1].prompt]))
    found, refined = asked.refine(REQUESTS, 2.0)
    first, _ = asked.provisional(REQUESTS)
    assert refined.tolist() == [True, False, True]
    changed = (found.pmf != first.pmf).any(axis=1)
    assert changed.tolist() == [True, False, True]


def test_what_the_cap_stopped_is_longer_than_the_cap() -> None:
    asked = predictor(Echo(), fitted=False)
    found = asked.predict([Request(prompt="x" * 501), Request(prompt="x" * 499)])
    assert found.cdf(450)[0] < 1e-6 < 0.2 < found.cdf(450)[1]


@pytest.mark.parametrize(
    "lengths", [np.zeros((3, 1), np.int64), np.zeros((2, 2), np.int64), np.full((3, 2), -1)]
)
def test_a_backend_that_breaks_the_protocol_is_named(lengths: IntArray) -> None:
    with pytest.raises(BackendError, match=r"'recorded' answered 3 requests .* not keep the proto"):
        predictor(Broken(lengths)).predict(REQUESTS)


@pytest.mark.parametrize("wrong", [{"n": 0}, {"cap": 0}, {"temperature": -1}])
def test_generations_that_are_none(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="n and cap from 1"):
        replace(HOW, **wrong)
    with pytest.raises(ValueError, match="temperature of 0"):
        replace(HOW, temperature=float("nan"))


def test_the_artifact_keeps_where_the_model_is(tmp_path: Path) -> None:
    source = replace(SOURCE, model="small", checksum="abc", batch=7)
    stored = GenerateAndCount(source, HOW, predictor().maps, Echo())
    loaded = load(stored.save(tmp_path / "slm"))
    assert isinstance(loaded, GenerateAndCount)
    assert (loaded.source, loaded.generation) == (source, HOW)
    assert loaded.maps.keys() == {"model-a", "model-b", ALL_MODELS}
    # Loading opened nothing: there is no such table.
    with pytest.raises(BackendError, match=r"nowhere\.parquet cannot be read"):
        loaded.predict(REQUESTS)
    assert (loaded.provisional(REQUESTS)[0].pmf == stored.provisional(REQUESTS)[0].pmf).all()


def test_maps_without_one_for_other_models_are_refused(tmp_path: Path) -> None:
    maps = {name: one for name, one in predictor().maps.items() if name != ALL_MODELS}
    stored = GenerateAndCount(SOURCE, HOW, maps, Echo()).save(tmp_path / "slm")
    with pytest.raises(ArtifactError, match="no map for models that it was not trained on"):
        load(stored)


def test_samples_that_changed_since_training_are_refused(tmp_path: Path) -> None:
    rows = numbered(synthetic_rows(30))
    path = table_on_disk(tmp_path / "samples.parquet", rows, model=["small"] * 30)
    built = build("slm")
    assert isinstance(built, GenerateAndCount)
    source = replace(built.source, samples=str(path), checksum="")
    loaded = load(GenerateAndCount(source, HOW, built.maps).save(tmp_path / "a"))
    loaded.predict(rows.requests)
    stale = GenerateAndCount(replace(source, checksum="0" * 64), HOW, built.maps)
    with pytest.raises(BackendError, match="not the table of samples that this predictor"):
        load(stale.save(tmp_path / "b")).predict(rows.requests)


def test_what_is_only_looked_at_is_shortened() -> None:
    short = Request(prompt="What is it?", context="user: hello", id="7")
    assert shortened(short) == short
    long_ = shortened(Request(prompt="a" * 50_000 + "?" * 10, context="b" * 9_000 + "c", id="8"))
    assert len(long_.prompt) < 2_100 and long_.prompt.startswith("aaa")
    assert long_.prompt.endswith("a??????????") and long_.id == "8"
    assert len(long_.context) == 2_000 and long_.context.endswith("bc")
