"""Corrected as it is used: what it learns, what it keeps, what it passes on."""

import tracemalloc
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lengthpred import LengthDistribution, LengthGrid, Predictor, Request, load
from lengthpred.artifact import Card
from lengthpred.base import Observer, Refiner
from lengthpred.data.table import Table
from lengthpred.errors import ArtifactError, SettingsError
from lengthpred.metrics import scores
from lengthpred.models.cascade import Cascade
from lengthpred.models.conformal import Conformal, RefiningConformal
from lengthpred.models.histogram import Histogram
from lengthpred.testing import FixedPredictor, check_predictor
from lengthpred.training.fit import train_kind
from lengthpred.training.recipe import read_recipe
from lengthpred.training.settings import ConformalSettings
from tests import builders
from tests.builders import synthetic_rows
from tests.row_tables import write_rows

GRID = LengthGrid()
ROWS = synthetic_rows(2500, seed=5)
STOPPED = np.zeros(100, bool)


def build(kind: str) -> Any:
    return builders.build(kind)


class Wide:
    """Not a part that can be saved; lognormal around 100 tokens, whatever is asked."""

    def predict(self, requests: Sequence[Request]) -> LengthDistribution:
        draws = 100 * np.exp(0.5 * np.random.default_rng(0).standard_normal(5000))
        one = LengthDistribution.from_samples(GRID, [draws.astype(np.int64)])
        return one[np.zeros(len(requests), int)]


def coverage(predictor: Predictor, lengths: np.ndarray) -> float:
    """Of answers to the synthetic rows, as they come, each observed once it is there."""
    found = []
    for start in range(0, len(lengths), 50):
        part = slice(start, start + 50)
        requests, truth = ROWS.requests[part], lengths[part]
        stopped = ROWS.truth_censored[part]
        answer = predictor.predict(requests)
        rng = np.random.default_rng(start)
        found.append(scores(answer, truth, stopped, rng)["coverage_80"])
        if isinstance(predictor, Observer):
            predictor.observe(requests, truth, stopped)
    return float(np.mean(found[10:]))


@pytest.mark.parametrize("factor", [0.2, 1.0, 3.0])
def test_intervals_keep_their_promise_when_traffic_shifts(factor: float) -> None:
    lengths = (ROWS.truth * factor).astype(np.int64)
    assert 0.76 < coverage(Conformal(build("boosted")), lengths) < 0.86
    assert (coverage(build("boosted"), lengths) > 0.75) == (factor == 1)


def test_nothing_changes_before_the_first_observation() -> None:
    base = build("boosted")
    made = Conformal(base)
    assert made.predict(ROWS.requests).pmf.tobytes() == base.predict(ROWS.requests).pmf.tobytes()
    assert made.card is base.card and isinstance(made, Observer)


def test_a_base_that_learns_is_told_and_one_that_refines_makes_one_that_refines() -> None:
    request = Request(prompt="Write a poem", model="a")
    learner = Histogram(GRID)
    made = Conformal(learner)
    before = made.predict([request]).median()[0]
    made.observe([request] * 100, np.full(100, 40), STOPPED)
    assert learner.predict([request]).median()[0] == pytest.approx(40, abs=10) != before
    made.correct([request] * 100, np.full(100, 4000), STOPPED)
    assert learner.predict([request]).median()[0] < 60 < made.predict([request]).median()[0]
    assert not isinstance(made, Refiner)
    assert type(Conformal(build("cascade"))) is RefiningConformal
    assert isinstance(Conformal(build("cascade")), Refiner)


def test_the_truth_is_held_against_what_was_said_before_it_was_learnt() -> None:
    request = Request(prompt="Write a poem", model="a")
    learner = Histogram(GRID)
    learner.observe([request] * 100, np.full(100, 400), STOPPED)
    apart = Conformal(Histogram.from_contents(learner.contents()))
    apart.correct([request] * 100, np.full(100, 40), STOPPED)
    made = Conformal(learner)
    made.observe([request] * 100, np.full(100, 40), STOPPED)
    assert np.array_equal(made.contents().arrays["first"], apart.contents().arrays["first"])


def test_first_and_second_answers_are_corrected_apart() -> None:
    class Sure:
        def p_value(self, requests: Sequence[Request]) -> np.ndarray:
            return np.array([0.01 if "odd" in request.prompt else 0.9 for request in requests])

    # The second opinion is a third of the truth, the first one is right.
    made = Conformal(Cascade(Wide(), Sure(), FixedPredictor(default=30)))
    assert isinstance(made, RefiningConformal)
    odd = [Request(prompt=f"odd {i}") for i in range(300)]
    plain = [Request(prompt=f"plain {i}") for i in range(300)]
    lengths = Wide().predict(odd).sample(np.random.default_rng(1))[:, 0]
    made.observe(odd, lengths, np.zeros(300, bool))
    assert made.predict(odd[:1]).median()[0] == pytest.approx(30, abs=3)  # none was remembered
    answer, refined = made.refine(odd, 30.0)
    assert refined.all() and answer.median()[0] == pytest.approx(30, abs=3)
    made.observe(odd + plain, np.concatenate([lengths, lengths]), np.zeros(600, bool))
    assert made.predict(odd[:1]).quantile(0.4)[0] > 31
    first, unsure = made.provisional([odd[0], plain[0]])
    assert unsure.tolist() == [True, False]
    assert first.median() == pytest.approx(Wide().predict(odd[:2]).median(), rel=0.1)
    kept, late = made.refine([odd[0]], 0.0)
    assert not late.any() and np.array_equal(kept.pmf, first.pmf[:1])
    check_predictor(Conformal(build("cascade")))


def test_second_answers_are_remembered_without_their_texts() -> None:
    class Unsure:
        def p_value(self, requests: Sequence[Request]) -> np.ndarray:
            return np.full(len(requests), 0.01)

    made: Any = Conformal(Cascade(Wide(), Unsure(), FixedPredictor(default=30)))
    long = "all that was said before " * 40_000
    tracemalloc.start()
    for i in range(30):
        made.predict([Request(prompt=f"ask {i}", context=long + str(i))])
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 5_000_000 < 30 * len(long)
    before = made._second
    # Equal requests are one; another context, or another model, is another request.
    asked = Request(prompt="ask 3", context=long + "3")
    for other in (replace(asked, context=long), replace(asked, model="a")):
        made.correct([other], np.array([50]), np.array([False]))
        assert made._second is before
    made.correct([asked], np.array([50]), np.array([False]))
    assert made._second is not before


def test_what_it_learnt_is_saved(tmp_path: Path) -> None:
    for kind in ("histogram", "cascade"):
        made = Conformal(load(build(kind).save(tmp_path / kind)))
        made.predict(ROWS.requests[:200])
        made.observe(ROWS.requests[:200], ROWS.truth[:200] * 3, ROWS.truth_censored[:200])
        loaded = load(made.save(tmp_path / f"conformal-{kind}"))
        assert type(loaded) is type(made)
        for _ in range(2):
            wanted = made.predict(ROWS.requests).pmf
            assert loaded.predict(ROWS.requests).pmf.tobytes() == wanted.tobytes()
            for one in (made, loaded):
                one.observe(ROWS.requests[:50], ROWS.truth[:50], ROWS.truth_censored[:50])


def test_wrong_lengths_are_refused() -> None:
    made = Conformal(build("boosted"))
    for lengths in (np.array([1, 2]), np.array([-1])):
        with pytest.raises(ValueError, match="length"):
            made.observe(ROWS.requests[:1], lengths, np.zeros(len(lengths), bool))
    with pytest.raises(ValueError, match="saved"):
        Conformal(Wide()).contents()
    with pytest.raises(ValueError, match="half_life"):
        Conformal(Wide(), half_life=0)


def test_trained_from_a_recipe(tmp_path: Path) -> None:
    trained = build("boosted")
    trained.card = Card(("model-a", "model-b"), "0" * 64, {})
    base = trained.save(tmp_path / "base")
    recipe = tmp_path / "r.toml"
    shifted = ROWS.truth * 3
    table = Table(write_rows(tmp_path / "t.parquet", ROWS, shifted))
    for warm, nearer in (("true", True), ("false", False)):
        recipe.write_text(f'kind = "conformal"\nbase = "{base}"\nwarm = {warm}\n')
        settings = read_recipe(recipe, "conformal", ConformalSettings)
        made = train_kind("conformal", table, None, settings, 0)
        answer = made.predict(ROWS.requests)  # type: ignore[attr-defined]
        found = scores(answer, shifted, ROWS.truth_censored, np.random.default_rng(0))
        assert (found["coverage_80"] > 0.72) == nearer
        assert made.card.models == ("model-a", "model-b")
    with pytest.raises(SettingsError, match="'base' is missing"):
        read_recipe(None, "conformal", ConformalSettings)
    missing = ConformalSettings(base=str(tmp_path / "nowhere"))
    with pytest.raises(ArtifactError, match="nowhere"):
        train_kind("conformal", table, None, missing, 0)
