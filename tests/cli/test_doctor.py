"""`lengthpred doctor`, as a user runs it."""

import json
from importlib import util

import pytest
import typer
from typer.testing import CliRunner

from lengthpred.cli import console, doctor
from lengthpred.registry import DETECTORS, PREDICTORS


def run(*arguments: str) -> str:
    app = typer.Typer()
    app.callback()(lambda: None)
    doctor.register(app)
    result = CliRunner().invoke(app, ["doctor", *arguments])
    assert result.exit_code == 0, result.output
    return result.output


def test_tables() -> None:
    output = run()
    for words in ("What is installed", "What works", "numpy", "train histogram", "boosted"):
        assert words in output


def test_json() -> None:
    report = json.loads(run("--json"))
    assert report["lengthpred"] and report["python"].startswith("3.")
    assert {kind["kind"] for kind in report["kinds"]} >= PREDICTORS.keys() | DETECTORS.keys()
    assert all(not kind["problem"] for kind in report["kinds"] if kind["kind"] in PREDICTORS)
    by_name = {package["name"]: package for package in report["packages"]}
    assert by_name["numpy"]["version"] and by_name["numpy"]["extra"] == ""
    assert by_name["scikit-learn"]["extra"] == "train"
    assert "lengthpred" not in by_name and "pytest" not in by_name


def test_what_is_missing_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console.stdout, "width", 200)  # what is folded would not be found
    find = util.find_spec
    monkeypatch.setattr(util, "find_spec", lambda name: None if name == "sklearn" else find(name))
    features = {feature["name"]: feature for feature in json.loads(run("--json"))["features"]}
    assert not features["train boosted"]["works"]
    assert features["train boosted"]["help"] == "pip install 'lengthpred[train]'"
    assert features["train histogram"]["works"] and not features["train histogram"]["help"]
    assert "pip install 'lengthpred[train,sharegpt]'" in run()
