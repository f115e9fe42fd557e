"""The report in a real browser: it draws, says no error, loads nothing, and fits a phone."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from lengthpred.eval.compare import Comparison
from lengthpred.eval.report import write_report
from lengthpred.eval.report.pareto import zoo_section
from lengthpred.eval.simulate import Simulation
from lengthpred.eval.sqlm_fig1.page import write_fig1
from tests.browser import Page, find_chromium, open_page
from tests.eval.cases import ENTRIES
from tests.eval.fig1_cases import HELD_OUT, SETTINGS, make_results

BROWSER = find_chromium()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="no chromium or google-chrome on PATH"),
]

DRAWN = "document.documentElement.dataset.drawn === 'yes'"
EMPTY_PLOTS = """
[...document.querySelectorAll(".plot")].filter((plot) => {
  const marks = plot.querySelectorAll(".point path, path.point, .points path, path.js-line");
  const seen = [...marks].filter((mark) => (mark.getAttribute("d") || "").length > 8);
  return !plot.classList.contains("js-plotly-plot") || seen.length === 0;
}).map((plot) => plot.getAttribute("aria-label").slice(0, 80))
"""
LABELS = "[...document.querySelectorAll('.annotation text')].map((text) => text.textContent)"
CUT = """
[...document.querySelectorAll(".annotation text")].filter((text) => {
  const mine = text.getBoundingClientRect();
  const whole = text.closest(".plot").getBoundingClientRect();
  return mine.left < whole.left || mine.right > whole.right;
}).map((text) => text.textContent)
"""
TITLE_COLOURS = """
[...new Set([...document.querySelectorAll(".plot .xtitle")].map((t) => getComputedStyle(t).fill))]
"""


@pytest.fixture(scope="module")
def report(
    tmp_path_factory: pytest.TempPathFactory, comparison: Comparison, simulation: Simulation
) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    return write_report(path, comparison=comparison, simulation=simulation, title="A report")


@pytest.fixture(scope="module")
def recipes(tmp_path_factory: pytest.TempPathFactory, comparison: Comparison) -> Path:
    path = tmp_path_factory.mktemp("recipes") / "report.html"
    return write_report(path, comparison=comparison, first=partial(zoo_section, ENTRIES))


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("experiment") / "report.html"
    return write_fig1(path, make_results(), SETTINGS, HELD_OUT)


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with open_page(BROWSER or "") as opened:
        yield opened


def troubles(page: Page) -> list[str]:
    """All that the page complained of."""
    said = ("Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled")
    return [str(event["params"])[:400] for event in page.events if event.get("method") in said]


def requested(page: Page) -> list[str]:
    sent = "Network.requestWillBeSent"
    return [e["params"]["request"]["url"] for e in page.events if e.get("method") == sent]


@pytest.mark.parametrize("width", [1200, 390])
@pytest.mark.parametrize(("which", "plots"), [("report", 18), ("experiment", 7), ("recipes", 9)])
def test_all_plots_are_drawn_without_a_word_and_without_network(
    page: Page, request: pytest.FixtureRequest, which: str, plots: int, width: int
) -> None:
    page.events.clear()
    page.show(request.getfixturevalue(which), width=width)
    page.wait_for(DRAWN)
    assert page.run("document.querySelectorAll('.plot').length") >= plots
    assert page.run(EMPTY_PLOTS) == []
    assert troubles(page) == []
    assert [url for url in requested(page) if not url.startswith(("file:", "data:", "blob:"))] == []
    assert requested(page), "the browser reports what it loads"
    assert page.run("document.scrollingElement.scrollWidth") <= width


@pytest.mark.parametrize("which", ["report", "experiment"])
def test_the_plots_follow_the_scheme_of_the_system_and_the_button(
    page: Page, request: pytest.FixtureRequest, which: str
) -> None:
    page.show(request.getfixturevalue(which), width=800, dark=True)
    page.wait_for(DRAWN)
    dark = page.run(TITLE_COLOURS)
    ground = page.run("getComputedStyle(document.body).backgroundColor")
    page.prefer(dark=False)
    page.wait_for(f"JSON.stringify({TITLE_COLOURS}) !== '{_json(dark)}'")
    light = page.run(TITLE_COLOURS)
    assert len(dark) == len(light) == 1
    assert ground != page.run("getComputedStyle(document.body).backgroundColor")
    page.run("document.querySelector('.theme').click()")
    page.wait_for(f"JSON.stringify({TITLE_COLOURS}) === '{_json(dark)}'")


def test_names_beside_marks_stand_where_there_is_room(page: Page, recipes: Path) -> None:
    page.show(recipes, width=390)
    page.wait_for(DRAWN)
    assert "noise ceiling" in page.run(LABELS) and "constructor, 12 s" not in page.run(LABELS)
    assert page.run(CUT) == []
    page.resize(1200)
    page.wait_for(f"{LABELS}.includes('constructor, 12 s')")
    assert page.run(CUT) == []


def test_a_name_in_the_legend_hides_its_marks(page: Page, report: Path) -> None:
    page.events.clear()
    page.show(report, width=800)
    page.wait_for(DRAWN)
    lines = "document.querySelectorAll('#accuracy .panel:nth-of-type(2) .scatter').length"
    before = page.run(lines)
    page.run("document.querySelector('#accuracy .panel:nth-of-type(2) .legend button').click()")
    page.wait_for(f"{lines} === {before - 1}")
    assert troubles(page) == []


def _json(values: list[str]) -> str:
    return "[" + ",".join(f'"{value}"' for value in values) + "]"
