"""`lengthpred train`, as a user runs it."""

import json
from pathlib import Path

import pytest

from lengthpred.artifact import read_manifest
from lengthpred.cli.train import train
from lengthpred.data.table import Table
from tests.builders import synthetic_rows
from tests.cli.commands import answered, refused
from tests.training.tables import table_on_disk, write_recipe


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return table_on_disk(tmp_path / "table.parquet")


def test_it_writes_an_artifact_and_says_how_good_it_is(table: Path, tmp_path: Path) -> None:
    # Square brackets are markup to the console, and part of a name to the user.
    out = tmp_path / "new" / "mine[a]"
    said, err = answered("train", "histogram", "--data", table, "--out", out)
    assert f"wrote {out} (histogram)" in said
    assert "on the calibration rows: tau " in said and "coverage_80 0." in said and not err
    assert read_manifest(out).kind == "histogram"
    assert "exists already" in refused("train", "histogram", "--data", table, "--out", out)
    answered("train", "histogram", "--data", table, "--out", out, "--force")


def test_a_recipe_a_seed_and_a_calibration_table(table: Path, tmp_path: Path) -> None:
    held = table_on_disk(tmp_path / "held.parquet", synthetic_rows(90, 5))
    recipe = write_recipe(tmp_path / "recipe.toml", "sqlm")
    said, _ = answered(
        *("train", "sqlm", "--data", table, "--calibration", held, "--recipe", recipe),
        *("--seed", 3, "--out", tmp_path / "out", "--json"),
    )
    printed = json.loads(said)
    assert printed["kind"] == "cascade" and printed["models"] == ["model-a", "model-b"]
    assert printed["fingerprint"] == Table(table).fingerprint
    manifest = read_manifest(tmp_path / "out")
    assert manifest.kind == "cascade" and dict(manifest.metrics) == printed["metrics"]


def test_a_detector_has_no_scores(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = write_recipe(tmp_path / "recipe.toml", "detector")
    out = tmp_path / "out"
    train("detector", table, out, recipe=str(recipe), as_json=False)
    said = capsys.readouterr().out
    assert f"wrote {out} (detector)" in said and "calibration rows" not in said


def test_settings_that_do_not_fit(table: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text("[boosted]\ntres = 3\n")
    to = ("--data", table, "--out", tmp_path / "never")
    said = refused("train", "sqlm", *to, "--recipe", recipe)
    assert "no setting 'boosted.tres'. Did you mean 'trees'?" in said
    assert not (tmp_path / "never").exists()


def test_options_of_another_kind_are_refused(table: Path, tmp_path: Path) -> None:
    to = ("--data", table, "--out", tmp_path / "never")
    said = refused("train", "boosted", *to, "--teacher", "b")
    assert "--teacher is for distilled, not for 'boosted'" in said
    said = refused("train", "sqlm", *to, "--unlabelled", table)
    assert "--unlabelled is for distilled, not for 'sqlm'" in said
    assert "Did you mean 'boosted'?" in refused("train", "bosted", *to, "--teacher", "b")


def test_a_teacher_is_named_as_it_was_given(table: Path, tmp_path: Path) -> None:
    """Without its dot, ./runs/enc would be a name on the hub."""
    given = ("--data", table, "--out", tmp_path / "never", "--teacher", "./runs/enc")
    said = refused("train", "distilled", *given, env={"HF_HUB_OFFLINE": "1"})
    assert "runs/enc is not an artifact" in said


def test_a_shipped_recipe_by_its_name(table: Path, tmp_path: Path) -> None:
    to = ("--data", table, "--out", tmp_path / "out")
    said, _ = answered("train", "histogram", *to, "--recipe", "qlm")
    assert "(histogram)" in said
    assert "a recipe for 'histogram', not for 'boosted'" in refused(
        "train", "boosted", *to, "--recipe", "qlm"
    )
    assert "Did you mean 'magnus'?" in refused("train", "boosted", *to, "--recipe", "magnas")
