"""Whatever is wrong with what a user gives: one sentence, exit code 2, and nothing written.

What `lengthpred data` refuses is in tests/data/test_cli.py.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from lengthpred.data.table import Table
from lengthpred.errors import DataError
from lengthpred.manifest import sha256, to_json
from tests.builders import synthetic_rows
from tests.cli.commands import answered, artifact, refused
from tests.training.tables import table_on_disk

BOOSTED_FILES = ("manifest.json", "config.json", "arrays.safetensors", "booster.txt")


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Where a command may write to `never`, and must not write anything."""
    yield tmp_path
    assert not (tmp_path / "never").exists()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def train(kind: str, data: Path, env: dict[str, str] | None = None) -> str:
    return refused("train", kind, "--data", data, "--out", data.parent / "never", env=env)


def evaluate(name: object, data: Path) -> str:
    return refused("eval", name, "--data", data, "--out", data.parent / "never")


@pytest.mark.parametrize(("package", "kind"), [("sklearn", "boosted"), ("scipy", "detector")])
def test_a_missing_extra_names_the_install(folder: Path, package: str, kind: str) -> None:
    # A module of that name that fails as an absent one does stands before the real one.
    hidden = f"raise ModuleNotFoundError('hidden', name='{package}')"
    (folder / f"{package}.py").write_text(hidden)
    said = train(kind, table_on_disk(folder / "t.parquet"), env={"PYTHONPATH": str(folder)})
    assert f"needs the package '{package}': pip install 'lengthpred[train]'" in said


def test_a_wrong_column(folder: Path) -> None:
    table = table_on_disk(folder / "t.parquet", prompt=None, promt=["x"] * 400)
    for said in (train("histogram", table), evaluate("oracle", table)):
        assert "t.parquet has no column 'prompt'. Did you mean 'promt'?" in said
    table = table_on_disk(folder / "t.parquet", output_tokens=None, prompt_tokens=[3] * 400)
    assert "has no column 'output_tokens'. `data import` makes" in train("histogram", table)
    words = table_on_disk(folder / "t.parquet", output_tokens=["many"] * 400)
    with pytest.raises(DataError, match="column 'output_tokens' holds list<"):
        Table(words).rows()


def test_an_empty_file(folder: Path) -> None:
    empty = folder / "empty"
    empty.touch()
    for said in (train("histogram", empty), evaluate("oracle", empty)):
        assert f"{empty} is not a Parquet file" in said
    to = ("--out", folder / "never", "--format", "sharegpt")
    assert f"{empty} is empty" in refused("data", "import", empty, *to)
    to_ask = ("--artifact", artifact(folder), "--file", empty)
    assert f"{empty} is empty: give JSON lines" in refused("predict", *to_ask)
    table = table_on_disk(folder / "t.parquet", synthetic_rows(0))
    with pytest.raises(DataError, match="has no rows"):
        Table(table)


def test_a_folder_that_is_no_artifact(folder: Path) -> None:
    table = table_on_disk(folder / "t.parquet")
    (folder / "notes").mkdir()
    for said in (
        refused("predict", "text", "--artifact", folder / "notes"),
        evaluate(folder / "notes", table),
    ):
        assert "notes is not an artifact: there is no manifest.json in it" in said
    recipe = folder / "r.toml"
    recipe.write_text(f'fallback = "{folder / "notes"}"')
    to = ("--data", table, "--out", folder / "never", "--recipe", recipe)
    assert "notes is not an artifact" in refused("train", "sqlm", *to)
    to = ("--data", table, "--out", folder / "never", "--teacher", folder / "nosuch")
    for said in (
        refused("predict", "text", "--artifact", folder / "nosuch"),
        refused("drift", folder / "nosuch", "--data", table),
        refused("train", "distilled", *to),
    ):
        assert "nosuch is not an artifact: there is no such folder" in said


def test_an_artifact_of_another_format_version(folder: Path) -> None:
    made = artifact(folder)
    manifest = json.loads((made / "manifest.json").read_bytes())
    del manifest["sha256"]
    manifest["format_version"] = 99
    whole = {**manifest, "sha256": sha256(to_json(manifest))}
    (made / "manifest.json").write_bytes(to_json(whole))
    for said in (
        refused("predict", "text", "--artifact", made),
        evaluate(made, table_on_disk(folder / "t.parquet")),
    ):
        assert "manifest.json has format version 99; this lengthpred reads version 1" in said


@pytest.mark.parametrize("name", BOOSTED_FILES)
def test_one_flipped_byte(folder: Path, name: str) -> None:
    made = artifact(folder, "boosted")
    assert sorted(path.name for path in made.iterdir()) == sorted(BOOSTED_FILES)
    data = bytearray((made / name).read_bytes())
    data[len(data) // 2] ^= 1
    (made / name).write_bytes(data)
    said = refused("predict", "text", "--artifact", made)
    assert name in said and "is damaged" in said


def test_a_baseline_that_breaks_off(folder: Path) -> None:
    table = table_on_disk(folder / "t.parquet")
    quick = ("--data", table, "--no-cost", "--no-replay", "--resamples", 0)
    answered("eval", artifact(folder), *quick, "--out", folder / "out")
    old = folder / "out" / "eval.json"
    old.write_bytes(old.read_bytes()[:-40])
    against = ("--baseline", old, "--out", folder / "never")
    said = refused("eval", folder / "histogram", *quick, *against)
    assert "eval.json is not the eval.json of an evaluation" in said


def test_lengths_that_are_none(folder: Path) -> None:
    good = [[float(i)] for i in range(399)]
    table = table_on_disk(folder / "nan.parquet", output_tokens=[*good, [float("nan")]])
    assert "column 'output_tokens' holds list<" in train("histogram", table)
    for bad in (float("inf"), 2.5):
        table = table_on_disk(folder / "t.parquet", output_tokens=[*good, [bad]])
        with pytest.raises(DataError, match="'output_tokens' holds"):
            Table(table).rows()
    table = table_on_disk(folder / "minus.parquet", output_tokens=[*good, [-3.0]])
    for said in (train("histogram", table), evaluate("oracle", table)):
        assert "row 399: output_tokens must be one or more lengths >= 0, not [-3]" in said


def test_a_model_that_was_never_seen_is_counted(folder: Path) -> None:
    made = artifact(folder)
    models = ["model-a", "new", "newer", "model-b"] * 100
    table = table_on_disk(folder / "t.parquet", model=models)
    quick = ("--no-cost", "--resamples", 0)
    out, _ = answered("eval", made, "--data", table, *quick)
    said = "histogram was not trained on the target model of 200 of 400 rows and answered them"
    assert said in " ".join(out.split())
    rows = "".join(json.dumps({"prompt": "poem", "model": model}) + "\n" for model in models)
    (folder / "r.jsonl").write_text(rows)
    out, err = answered("predict", "--artifact", made, "--file", folder / "r.jsonl")
    assert len(out.splitlines()) == 400
    assert "200 of 400 requests name a model that this predictor never saw" in err
