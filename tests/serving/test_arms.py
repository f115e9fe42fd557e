"""Several orders on one server: which call gets which key."""

import asyncio
import json
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from lengthpred.base import Request
from lengthpred.errors import SettingsError
from lengthpred.ordering import EPOCH_S, OrderingSettings, priority
from lengthpred.serving.arms import ToldOrderer, read_arms
from lengthpred.serving.metrics import ServingMetrics
from lengthpred.serving.service import Service
from lengthpred.serving.settings import ServingSettings
from tests.builders import build

NOW = EPOCH_S + 1000.0


def file_of(folder: Path, text: str, name: str = "arms.toml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def costs_of(folder: Path, **lists: list[float]) -> Path:
    return file_of(folder, json.dumps(lists), "costs.json")


def test_a_call_costs_what_its_id_says(tmp_path: Path) -> None:
    settings = OrderingSettings()
    told = ToldOrderer(costs_of(tmp_path, first=[5.0, 7.0], other=[1.0]), settings)
    expected = {"first-1": 7.0, "first-0": 5.0, "other-0": 1.0, "other-4": 0.0, "x": 0.0, "": 0.0}
    for id, cost in expected.items():
        place = asyncio.run(told.place([Request(id=id), Request(id=id)], NOW))
        assert place.priority == priority([cost], [NOW], settings)[0]
        assert len(place.dist) == 2


def test_an_arm_is_chosen_by_its_name(tmp_path: Path) -> None:
    artifact = build("boosted").save(tmp_path / "boosted")
    costs = costs_of(tmp_path, draw=[3.0])
    arms = file_of(
        tmp_path,
        f'[blind]\nartifact = "{artifact}"\n[seeing]\nartifact = "{artifact}"\nblind = false\n'
        f'[told]\ncosts = "{costs}"\n[late]\nartifact = "{artifact}"\npolicy = "fcfs"\n',
    )
    settings = ServingSettings(artifact=str(artifact), arms=arms)
    service = Service(settings, ServingMetrics(CollectorRegistry()))
    request = Request(prompt="list of rivers", max_tokens=1)

    def cost(arm: str) -> float:
        place = asyncio.run(service.place([request], "draw-0", NOW, arm))
        return place.priority / 16 - settings.ordering.aging * 1000

    assert cost("blind") > 50
    assert cost("seeing") <= 1.1 and cost("") <= 1.1 and cost("nobody") <= 1.1
    assert cost("told") == pytest.approx(3, abs=0.1) and cost("late") == pytest.approx(0, abs=0.1)
    service.close()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[a", "cannot be read"),
        ("[a]\npolicy = 'fast'", "cannot be read"),
        ("[a]\nwho = 1", "cannot be read"),
        ("[stock]\npolicy = 'sjf'", "the order without lengthpred"),
    ],
)
def test_what_is_no_file_of_arms_is_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        read_arms(file_of(tmp_path, text))


@pytest.mark.parametrize("text", ["[", "[1]", '{"a": ["x"]}', '{"a": 1}'])
def test_what_holds_no_costs_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(SettingsError, match="holds no costs"):
        ToldOrderer(file_of(tmp_path, text, "costs.json"), OrderingSettings())
    assert read_arms(None) == {}
