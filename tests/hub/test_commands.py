"""The hub from the command line."""

import json
import os
from pathlib import Path

import pytest
from huggingface_hub import constants

from lengthpred import Request, load
from lengthpred.cli.named import _urls
from lengthpred.models.average import Average
from lengthpred.models.backends.base import Source
from lengthpred.models.conformal import Conformal
from lengthpred.models.slm import GenerateAndCount, Generation
from lengthpred.training.settings import SqlmSettings
from lengthpred.training.sqlm import _fallback
from tests.builders import build
from tests.cli.commands import answered, artifact, refused
from tests.data_files import lengthpred
from tests.hub.server import TOKEN, HubServer
from tests.training.tables import table_on_disk

NAME = "org/lengths"


@pytest.fixture
def pushed(hub: HubServer, tmp_path: Path) -> str:
    """`org/lengths@commit` of a histogram."""
    out, _ = answered("push", artifact(tmp_path), NAME, "--json")
    return str(json.loads(out)["name"])


def test_push_and_predict_as_a_user_does(hub: HubServer, tmp_path: Path) -> None:
    env = {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(tmp_path / "home"),
        "HF_TOKEN": TOKEN,
        "PYTHONPATH": os.pathsep.join([os.environ.get("PYTHONPATH", ""), str(tmp_path)]),
    }
    made = artifact(tmp_path)
    out, err = answered("push", made, NAME, "--license", "mit", "--message", "First", env=env)
    name = f"{NAME}@{hub.repos[NAME].branches['main']}"
    assert out == f"pushed {hub.url}/{NAME}\nload it as {name}\n" and not err
    assert hub.repos[NAME].messages[-1] == "First"
    out, err = answered("predict", "poem of snow", "--artifact", NAME, "--json", env=env)
    expected = load(made).predict([Request(prompt="poem of snow")]).mean()[0]
    assert json.loads(out)["mean"] == pytest.approx(expected, abs=0.1)
    assert err == f"note: loaded {name}\n"
    offline = {**env, "HF_HUB_OFFLINE": "1", "HF_ENDPOINT": "http://127.0.0.1:9"}
    again, _ = answered("predict", "poem of snow", "--artifact", NAME, "--json", env=offline)
    assert again == out


def test_eval_and_simulate_take_it(pushed: str, tmp_path: Path) -> None:
    table = table_on_disk(tmp_path / "t.parquet")
    quick = ("--no-cost", "--resamples", 0, "--json")
    out, err = answered("eval", NAME, "constant", "--data", table, *quick)
    assert {"lengths", "constant"} <= {row["predictor"] for row in json.loads(out)["rows"]}
    assert f"note: loaded {pushed}\n" in err
    few = ("--requests", 50, "--draws", 1, "--arrivals", "burst", "--prediction-time", "none")
    out, err = answered("simulate", "--data", table, "--predictor", NAME, *few, "--json")
    assert f"note: loaded {pushed}\n" in err and '"lengths"' in out


def test_a_server_that_gets_the_prompts_is_said(hub: HubServer, tmp_path: Path) -> None:
    source = Source("openai", "small", ("http://127.0.0.1:9/v1",))
    made = GenerateAndCount(source, Generation(), {}).save(tmp_path / "asking")
    _, err = answered("push", made, NAME)
    assert err.startswith("note: it sends prompts to http://127.0.0.1:9/v1")
    code, _, err = lengthpred("predict", "poem", "--artifact", NAME)
    assert code == 2
    assert ", which sends prompts to http://127.0.0.1:9/v1\n" in err.splitlines(True)[0]


def test_so_is_one_that_a_part_of_a_part_asks(tmp_path: Path) -> None:
    source = Source("openai", "small", ("http://127.0.0.1:9/v1",))
    asking = GenerateAndCount(source, Generation(), {})
    plain = build("histogram")
    for made in (Conformal(asking), Average([asking, Conformal(asking)])):
        assert {*_urls(made)} == {"http://127.0.0.1:9/v1"}
    assert not list(_urls(Conformal(plain)))  # type: ignore[arg-type]


def test_a_recipe_names_a_fallback_on_the_hub(pushed: str) -> None:
    fallback = _fallback(SqlmSettings(fallback=pushed).fallback or "")
    assert getattr(fallback, "origin", "") == pushed


def test_a_typo_in_a_folder_is_said_as_before(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    table = table_on_disk(tmp_path / "t.parquet")
    artifact(tmp_path / "runs")
    for name in ("runs/histogran", "histogran", "./runs/histogran"):
        said = refused("eval", name, "--data", table)
        assert f"there is no folder '{name}', and no control of that name" in said
        assert "is not an artifact" in refused("predict", "x", "--artifact", name)
    assert not hub.asked
    said = refused("eval", "rums/histogram", "--data", table)
    assert "there is no folder 'rums/histogram' here, and the hub has no 'rums/histogram'" in said


def test_refusals_end_with_two(
    pushed: str, hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "is no name on the hub" in refused("push", tmp_path / "histogram", "lengths")
    assert "there is no folder" in refused("push", tmp_path / "none", NAME)
    hub.status = 500
    assert "is not pushed: the hub fails" in refused("push", tmp_path / "histogram", NAME)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE" in refused("push", tmp_path / "histogram", NAME)
