"""Recipes: what they change, and what they are refused for."""

from pathlib import Path

import pytest

from lengthpred.errors import SettingsError
from lengthpred.models.backends.base import Source
from lengthpred.training.fit import KINDS
from lengthpred.training.recipe import read_recipe
from lengthpred.training.settings import (
    BoostedSettings,
    SourceSettings,
    SqlmSettings,
)
from tests.training.tables import QUICK, write_recipe


def recipe(folder: Path, text: str) -> Path:
    path = folder / "recipe.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("kind", sorted(QUICK))
def test_without_a_recipe_there_are_defaults(kind: str) -> None:
    assert read_recipe(None, kind, KINDS[kind].settings) == KINDS[kind].settings()


@pytest.mark.parametrize("kind", ["slm", "slm-prefill", "slm-states"])
def test_a_small_model_has_to_be_named(tmp_path: Path, kind: str) -> None:
    settings = KINDS[kind].settings
    with pytest.raises(SettingsError, match=r"give it a recipe .*the setting 'backend' is missing"):
        read_recipe(None, kind, settings)
    path = recipe(tmp_path, 'backend = "transformers"\nmodel = "some/model"\nbatch = 3')
    read = read_recipe(path, kind, settings)
    assert isinstance(read, SourceSettings)
    assert read.source() == Source("transformers", "some/model", batch=3)


def test_a_recipe_changes_what_it_names(tmp_path: Path) -> None:
    path = recipe(tmp_path, 'kind = "boosted"\ntrees = 7\nl2 = 0\n')
    assert read_recipe(path, "boosted", BoostedSettings) == BoostedSettings(trees=7, l2=0)
    nested = read_recipe(recipe(tmp_path, "[boosted]\ntrees = 7"), "sqlm", SqlmSettings)
    assert nested == SqlmSettings(boosted=BoostedSettings(trees=7))


@pytest.mark.parametrize("kind", sorted(QUICK))
def test_the_recipes_of_these_tests_can_be_read(tmp_path: Path, kind: str) -> None:
    settings = KINDS[kind].settings
    read = read_recipe(write_recipe(tmp_path / "r.toml", kind), kind, settings)
    assert read == settings.model_validate(QUICK[kind])


@pytest.mark.parametrize(
    ("kind", "text", "said"),
    [
        ("boosted", "tres = 7", "no setting 'tres'. Did you mean 'trees'?"),
        ("sqlm", "[boosted]\nlearning_rte = 1", "no setting 'boosted.learning_rte'. Did you mean "),
        ("sqlm", "[detectr]\ndims = 3", "no setting 'detectr'. Did you mean 'detector'?"),
        ("histogram", "zzz = 1", "Choose one of: half_life, max_rows, strength."),
        ("boosted", "trees = 0", "trees = 0: input should be greater than or equal to 1"),
        ("boosted", 'trees = "many"', "trees = 'many': input should be a valid integer"),
        ("boosted", "trees = 2.5", "trees = 2.5: input should be a valid integer"),
        ("boosted", "learning_rate = inf", "learning_rate = inf: input should be a finite number"),
        ("histogram", "strength = nan", "strength = nan: input should be"),
        ("sqlm", "alpha = 1.5", "alpha = 1.5: input should be less than or equal to 1"),
        ("sqlm", "[detector]\nmethod = 'lof'", "detector.method = 'lof': input should be 'knn' or"),
        ("sqlm", "histogram = 3", "histogram = 3: input should be"),
        ("histogram", "max_rows = 5", "max_rows = 5: input should be greater than or equal to 100"),
        ("detector", "kind = 'boosted'", "is a recipe for 'boosted', not for 'detector'"),
        ("boosted", 'booster = "dart"', "booster = 'dart': input should be 'gbdt' or 'rf'"),
        (
            "boosted",
            'booster = "rf"\nrow_sample = 1.0',
            "booster = 'rf': a random forest needs a row_sample below 1",
        ),
        ("ranker", 'booster = "rf"', "no setting 'booster'"),
        ("ranker", "queue = 1", "queue = 1: input should be greater than or equal to 2"),
        ("boosted", "trees : 7", "is not a TOML file"),
        ("boosted", "trees = 7\ntrees = 8", "is not a TOML file"),
    ],
)
def test_what_is_refused(tmp_path: Path, kind: str, text: str, said: str) -> None:
    with pytest.raises(SettingsError) as error:
        read_recipe(recipe(tmp_path, text), kind, KINDS[kind].settings)
    assert said in str(error.value) and "recipe.toml" in str(error.value)
    assert "\n" not in str(error.value)


def test_files_that_are_no_recipe(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="there is no recipe at"):
        read_recipe(tmp_path / "no.toml", "boosted", BoostedSettings)
    with pytest.raises(SettingsError, match="is not a TOML file"):
        read_recipe(tmp_path, "boosted", BoostedSettings)
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsError, match="is not a TOML file"):
        read_recipe(tmp_path / "bytes.toml", "boosted", BoostedSettings)
