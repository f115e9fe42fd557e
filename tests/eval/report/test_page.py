"""The report as a file: what is in it, and what is kept out."""

import json
import re
from pathlib import Path

import pytest

from lengthpred.errors import MissingExtraError
from lengthpred.eval.compare import Comparison
from lengthpred.eval.report import write_report
from lengthpred.eval.simulate import Simulation


def text_of(path: Path) -> str:
    """The page without plotly's code."""
    page = path.read_text("utf-8")
    return page[: page.index("</main>")]


def test_a_report_holds_all_its_sections(
    tmp_path: Path, comparison: Comparison, simulation: Simulation
) -> None:
    page = text_of(
        write_report(
            tmp_path / "new" / "report.html",
            comparison=comparison,
            simulation=simulation,
            title="A <title>",
            repeat={"command": "lengthpred eval a --data <b>", "seed": "7"},
        )
    )
    headings = re.findall("<h2>(.*?)</h2>", page)
    assert headings == [
        "Verdict",
        "Accuracy",
        "Answers",
        "While an answer grows",
        "Scores",
        "Schedule",
        "Latency and throughput",
        "Replays",
        "Notes",
    ]
    for heading in (
        "Accuracy against cost",
        "Accuracy by OOD ratio",
        "Where it works",
        "Calibration",
        "Predicted against true lengths",
        "Error of what is left",
        "Detectors",
        "Worst misses of good",
        "Timeline",
        "Waiting and writing",
        "Who waits",
        "Queue over time",
    ):
        assert f"<h3>{heading}</h3>" in page
    assert "A &lt;title&gt;" in page
    assert "lengthpred eval a --data &lt;b&gt;" in page
    assert "orders" in page[page.index("Verdict") :][:400]


def test_prompts_are_shown_as_text(tmp_path: Path, comparison: Comparison) -> None:
    page = text_of(write_report(tmp_path / "r.html", comparison=comparison))
    assert "SECRET &lt;script&gt;alert(&#x27;&amp;&#x27;)" in page
    assert "<script>alert" not in page
    assert "word " * 60 not in page  # shortened


def test_without_prompts_none_is_in_the_file(
    tmp_path: Path, comparison: Comparison, simulation: Simulation
) -> None:
    path = write_report(
        tmp_path / "r.html", comparison=comparison, simulation=simulation, prompts=False
    )
    assert "SECRET" not in path.read_text("utf-8")
    assert "Worst misses of good" in text_of(path)
    assert "&lt;b&gt;code&lt;/b&gt; &amp; more" in text_of(path)  # the domain of a miss


@pytest.mark.parametrize("what", ["comparison", "simulation", "several", "nothing"])
def test_a_part_may_be_absent(
    tmp_path: Path, comparison: Comparison, simulation: Simulation, what: str
) -> None:
    path = tmp_path / "r.html"
    if what == "comparison":
        write_report(path, comparison=comparison)
    elif what == "simulation":
        write_report(path, simulation=simulation)
    elif what == "several":
        write_report(path, simulation={"Quiet": simulation, "Busy": simulation})
        assert "<h2>Schedule: Busy</h2>" in text_of(path)
    else:
        write_report(path)
    assert ("<h2>Accuracy</h2>" in text_of(path)) == (what == "comparison")


def test_every_plot_is_one_that_plotly_knows(
    tmp_path: Path, comparison: Comparison, simulation: Simulation
) -> None:
    graphs = pytest.importorskip("plotly.graph_objects")
    page = text_of(write_report(tmp_path / "r.html", comparison=comparison, simulation=simulation))
    plots = re.findall("<script type='application/json'>(.*?)</script>", page)
    assert len(plots) > 15
    for plot in plots:
        figure = json.loads(plot)
        for trace in figure["data"]:
            trace.pop("hovertemplate", None)
        graphs.Figure(figure)  # raises for an unknown or impossible property


def test_an_old_report_is_replaced_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text("old")
    assert write_report(path) == path
    assert path.read_text("utf-8").startswith("<!doctype html>")
    assert list(tmp_path.iterdir()) == [path]


def test_without_plotly_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "plotly.offline", None)
    with pytest.raises(MissingExtraError, match=r"lengthpred\[train\]"):
        write_report(tmp_path / "r.html")
    assert not (tmp_path / "r.html").exists()
