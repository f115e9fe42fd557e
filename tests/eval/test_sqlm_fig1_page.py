"""The experiment's page as a file: its sentences, its plots with marks, its tables."""

import json
import re
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from lengthpred.eval.report.panels import flowing
from lengthpred.eval.sqlm_fig1.page import write_fig1
from lengthpred.eval.sqlm_fig1.reading import read_fig1
from lengthpred.eval.sqlm_fig1.setting import PUBLISHED_GAIN
from tests.eval.fig1_cases import HELD_OUT, SETTINGS, make_results

PLOTS = re.compile("aria-label='(.*?)'[^>]*></div><script type='application/json'>(.*?)</script>")
HEADINGS = (
    "Tokens a second, S-QLM against QLM",
    "What each order buys",
    "By the limit on tokens",
    "Who orders best",
)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("fig1") / "new" / "report.html"
    repeat = {"command": "lengthpred simulate --hold-out <b>"}
    assert write_fig1(path, make_results(), SETTINGS, HELD_OUT, repeat=repeat) == path
    return _text(path)


def test_all_that_is_said_is_on_the_page(page: str) -> None:
    sentences = read_fig1(make_results(), SETTINGS, HELD_OUT)
    assert len(sentences) > 5
    for sentence in sentences:
        assert f"<p>{flowing(sentence)}</p>" in page
    assert "lengthpred simulate --hold-out &lt;b&gt;" in page
    assert "<b>" not in page


def test_every_plot_has_marks_for_all_that_it_names(page: str) -> None:
    for heading in HEADINGS:
        assert f"<h3>{heading}</h3>" in page
    panels = page.split("<section class='panel'>")[1:]
    plots = 0
    for panel in panels:
        found = PLOTS.findall(panel)
        plots += len(found)
        named = {unescape(name) for name in re.findall("data-name='(.*?)'", panel)}
        for _, text in found:
            traces = json.loads(text)["data"]
            assert {trace["name"] for trace in traces} == named
            for trace in traces:
                assert len(trace["x"]) == len(trace["y"]) > 0
    assert plots == 7


def test_the_published_gains_stand_beside_ours(page: str) -> None:
    for figure in _plots_of(page, "Tokens a second, S-QLM against QLM"):
        published, *ours = figure["data"]
        assert published["name"] == "published"
        assert published["y"] == pytest.approx([100 * (g - 1) for g in PUBLISHED_GAIN.values()])
        assert published["marker"]["symbol"][0] != published["marker"]["symbol"][1]
        assert len(ours) == 3
        low, high = figure["layout"]["yaxis"]["range"]
        for trace in ours:
            assert len(trace["y"]) == len(SETTINGS.ratios)
            error = trace["error_y"]
            tops = [y + up for y, up in zip(trace["y"], error["array"], strict=True)]
            assert min(error["array"]) > 0
            assert low < min(trace["y"]) and max(tops) < high


def test_engines_share_a_scale(page: str) -> None:
    for heading in (HEADINGS[0], HEADINGS[2]):
        ranges = [f["layout"]["yaxis"]["range"] for f in _plots_of(page, heading)]
        assert len(ranges) == 2 and ranges[0] == ranges[1]


def test_the_tables_are_folded_and_whole(page: str) -> None:
    tables = re.findall("<details class='panel'>(.*?)</details>", page, re.DOTALL)
    titles = [re.search("<summary>(.*?)</summary>", table)[1] for table in tables]  # type: ignore[index]
    assert titles == [
        "Continuous batching, in + out up to 2,024 tokens",
        "Continuous batching, in + out up to 512 tokens",
        "Gang batches, in + out up to 2,024 tokens",
        "Gang batches, in + out up to 512 tokens",
        "Continuous batching, long ones at the head",
        "Gang batches, long ones at the head",
        "Continuous batching, in a stream",
    ]
    assert "1.097" in tables[0] and "longest first, oracle" in tables[0]
    assert "S-QLM, added" in tables[0] and "S-QLM, added" not in tables[-1]


def test_a_short_run_has_a_page_too(tmp_path: Path) -> None:
    settings = replace(
        SETTINGS, ratios=(0.3,), sum_limits=(2024,), engines=("continuous",), draws=1
    )
    results = [replace(one, low=None, high=None) for one in make_results(settings)]
    page = _text(write_fig1(tmp_path / "r.html", results, settings, [("a",), ("b",)]))
    assert "kept from training: a; b, each in turn" in page
    assert HEADINGS[2] not in page
    assert len(PLOTS.findall(page)) == 3


def test_every_plot_is_one_that_plotly_knows(page: str) -> None:
    graphs = pytest.importorskip("plotly.graph_objects")
    for _, text in PLOTS.findall(page):
        figure = json.loads(text)
        for trace in figure["data"]:
            trace.pop("hovertemplate", None)
        graphs.Figure(figure)  # raises for an unknown or impossible property


def _text(path: Path) -> str:
    """The page without plotly's code."""
    text = path.read_text("utf-8")
    return text[: text.index("</main>")]


def _plots_of(page: str, heading: str) -> list[dict[str, Any]]:
    panel = page[page.index(f"<h3>{heading}</h3>") :].split("</section>")[0]
    return [json.loads(text) for _, text in PLOTS.findall(panel)]
