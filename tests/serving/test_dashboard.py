"""docs/grafana.json asks for what is exported, and shows all of it; docs/vllm.md names it all."""

import ast
import json
import re
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from lengthpred import LengthDistribution, LengthGrid
from lengthpred.serving import metrics
from lengthpred.serving.metrics import ServingMetrics
from lengthpred.serving.order import Place

ROOT = Path(__file__).parents[2]
BOARD: dict[str, Any] = json.loads((ROOT / "docs/grafana.json").read_text("utf-8"))
PANELS: list[dict[str, Any]] = BOARD["panels"]
GRAPHS = [panel for panel in PANELS if panel["type"] != "row"]
ASKED = [(panel["title"], target) for panel in GRAPHS for target in panel["targets"]]
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
SELECTOR = re.compile(
    r"(?P<name>lengthpred_\w+|vllm:\w+)\{(?P<matchers>[^}]*)\}(?P<range>\[.*?\])?"
)
MATCHER = re.compile(r'(\w+)(=~|!=|!~|=)"([^"]*)"')
GROUPED = re.compile(r"\bby \(([^)]*)\)")
SERVER = ("instance", "=~", "$instance")  # a label that comes with the scrape

Values = dict[str, set[str]]  # of a metric's labels


@pytest.fixture(scope="module")
def registry() -> CollectorRegistry:
    """What a server exports that has measured once."""
    served = ServingMetrics(CollectorRegistry())
    grid = LengthGrid()
    dist = LengthDistribution(grid, np.full((1, grid.bins), 1 / grid.bins, np.float32))
    served.observe([dist] * metrics.EVERY, range(metrics.EVERY), [False] * metrics.EVERY)
    return served.registry


@pytest.fixture(scope="module")
def exported(registry: CollectorRegistry) -> dict[str, Values]:
    """Names of samples, and the values of their labels."""
    found: dict[str, Values] = {}
    for family in registry.collect():
        for sample in family.samples:
            if sample.name.endswith("_created"):
                continue  # when a counter was made, which a server may leave out
            values = found.setdefault(sample.name, {})
            for label, value in sample.labels.items():
                values.setdefault(label, set()).add(value)
    return found


def selectors(expression: str) -> Iterator[tuple[str, list[tuple[str, str, str]], str]]:
    """The metrics of a query: the name, the matchers of its labels, and its range."""
    for found in SELECTOR.finditer(expression):
        yield found["name"], MATCHER.findall(found["matchers"]), found["range"] or ""


@pytest.mark.parametrize(("title", "target"), ASKED)
def test_what_is_asked_for_is_exported(
    exported: dict[str, Values], title: str, target: dict[str, str]
) -> None:
    expression = target["expr"]
    grouped = {label for labels in GROUPED.findall(expression) for label in labels.split(", ")}
    found = list(selectors(expression))
    assert found and len(found) == len(re.findall(r"lengthpred_|vllm:", expression))
    assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= grouped
    for name, matchers, _ in found:
        assert SERVER in matchers
        if name.startswith("vllm:"):
            continue  # tests/serving/vllm/test_api_servers.py asks a real vLLM
        for label, _, value in matchers:
            assert label == "instance" or value in exported[name][label]
        assert grouped <= exported[name].keys()


@pytest.mark.parametrize(("title", "target"), ASKED)
def test_what_only_grows_is_asked_for_its_rate(title: str, target: dict[str, str]) -> None:
    for name, _, window in selectors(target["expr"]):
        grows = name.endswith(("_total", "_bucket", "_sum", "_count"))
        asked = re.search(rf"(?:rate|increase)\({name}\{{", target["expr"])
        assert bool(asked) == grows and window == ("[$__rate_interval]" if grows else "")


def test_all_that_is_exported_is_shown(registry: CollectorRegistry) -> None:
    shown = {name for _, target in ASKED for name, *_ in selectors(target["expr"])}
    for family in registry.collect():
        assert shown & {sample.name for sample in family.samples}, family.name


def test_panels_have_places_of_their_own() -> None:
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    assert len({panel["title"] for panel in GRAPHS}) == len(GRAPHS)
    for panel in PANELS:
        at = panel["gridPos"]
        assert min(at["x"], at["y"]) >= 0 and at["x"] + at["w"] <= 24 and at["h"] > 0
    for one, other in combinations((panel["gridPos"] for panel in PANELS), 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        below = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or below, (one, other)


def test_panels_say_what_they_show_and_in_which_unit() -> None:
    for panel in GRAPHS:
        assert re.fullmatch(r"[A-Z].*[^.]\.", panel["description"]), panel["title"]
        assert ". " not in panel["description"], "one sentence"
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        letters = [target["refId"] for target in panel["targets"]]
        assert len(set(letters)) == len(letters) > 0


def test_the_data_source_is_chosen_when_it_is_looked_at() -> None:
    source, *others = BOARD["templating"]["list"]
    assert (source["name"], source["type"], source["query"]) == (
        "datasource",
        "datasource",
        "prometheus",
    )
    asking = [*others, *GRAPHS, *(target for _, target in ASKED)]
    assert all(one["datasource"] == SOURCE for one in asking)
    (server,) = others
    assert (server["name"], server["allValue"]) == ("instance", ".*")
    assert BOARD["id"] is None, "Grafana gives it one"


def test_the_page_names_what_is_exported(registry: CollectorRegistry) -> None:
    section = (ROOT / "docs/vllm.md").read_text("utf-8").split("## Metrics")[1].split("\n## ")[0]
    named: list[str] = re.findall(r"`(lengthpred_[^`]*)`", section.split("\n\n")[2])
    assert len(set(named)) == len(named)
    assert sorted(named) == sorted(_written(family) for family in registry.collect())
    values = {
        value
        for family in registry.collect()
        for sample in family.samples
        for label, value in sample.labels.items()
        if label != "le"
    }
    for value in values - {"unknown"}:  # which the page calls "or not"
        assert f"`{value}`" in section


def _written(family: Any) -> str:
    """A metric as docs/vllm.md writes it: with its labels, but for the bounds of a histogram."""
    name = family.name + ("_total" if family.type == "counter" else "")
    labels = sorted({label for sample in family.samples for label in sample.labels} - {"le"})
    return f"{name}{{{','.join(labels)}}}" if labels else name


def test_labels_have_no_values_that_are_not_there_from_the_start(
    exported: dict[str, Values],
) -> None:
    assert {*get_args(get_type_hints(Place)["how"])} <= {*metrics.PLACES}
    assert {*get_args(get_type_hints(Place)["how"])} - {"predicted"} == {*metrics.FAILURES}
    served = ServingMetrics(CollectorRegistry())
    counted = 0
    for path in (ROOT / "lengthpred/serving").rglob("*.py"):
        for call in ast.walk(ast.parse(path.read_text("utf-8"))):
            match call:
                case ast.Call(func=ast.Attribute(ast.Attribute(attr=name), "labels"), args=args):
                    known = exported[f"{getattr(served, name)._name}_total"]
                    chosen = [n for arg in args for n in _texts(arg)]
                    assert {*chosen} <= set().union(*known.values()), (path, name)
                    counted += len(chosen)
    assert counted >= 7


def _texts(value: ast.expr) -> list[str]:
    """The texts that an expression may be."""
    if isinstance(value, ast.IfExp):
        return [*_texts(value.body), *_texts(value.orelse)]
    return [value.value] if isinstance(value, ast.Constant) and isinstance(value.value, str) else []
