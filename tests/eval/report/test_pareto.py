"""The recipes of a zoo in a report: who is on the front, and names that can be read."""

from itertools import pairwise

import numpy as np
import pytest

from lengthpred.eval.compare import Comparison
from lengthpred.eval.report.lookup import Scores
from lengthpred.eval.report.panels import Panel, Table
from lengthpred.eval.report.pareto import LINE, _labels, _spread, front, zoo_section
from lengthpred.eval.report.theme import Looks
from tests.eval.cases import ENTRIES


def test_the_front_holds_who_is_not_beaten() -> None:
    drawn = front([(10, 0.1), (30, 0.05), (20, 0.3), (20, 0.2), (90, 0.3), (80, 0.4)])
    assert list(zip(drawn["x"], drawn["y"], strict=True)) == [(10, 0.1), (20, 0.3), (80, 0.4)]


def test_labels_stand_apart_and_move_as_little_as_they_must() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        wanted = np.sort(rng.uniform(0, 120, 8)).tolist()
        places = _spread(wanted)
        assert all(b - a > LINE - 1e-9 for a, b in pairwise(places))
        assert np.mean(places) == pytest.approx(np.mean(wanted), abs=1e-6)
    assert _spread([0.0, 50.0, 100.0]) == [0.0, 50.0, 100.0]


def test_labels_of_like_costs_stand_in_one_column() -> None:
    points = {"a": (9000.0, 0.40), "b": (11000.0, 0.401), "far": (20.0, 0.4)}
    notes = {n["text"]: n for n in _labels(points, {n: n for n in points}, 0.0, 0.5)}
    scale = (500 - 70) / 0.5
    bottom = {name: -notes[name]["y"] * scale + notes[name]["ay"] for name in points}
    assert bottom["a"] - bottom["b"] == pytest.approx(LINE)
    assert notes["far"]["ay"] == 0


def test_the_section_names_all_and_marks_what_was_cut(comparison: Comparison) -> None:
    scores = Scores(comparison.results)
    heading, parts = zoo_section(ENTRIES, scores, Looks(scores.predictors))
    plot, table, papers = parts
    assert heading == "Recipes" and isinstance(plot, Panel)
    assert isinstance(table, Table) and isinstance(papers, Table)
    layout = plot.plots[0].figure["layout"]
    texts = {note["text"] for note in layout["annotations"]}
    assert {"constructor, 12 s", "good, 340 s (cut)", "constant", "noise ceiling"} <= texts
    low, high = layout["yaxis"]["range"]
    ceiling = scores.get("ceiling", "tau", scores.splits[0])
    assert ceiling and low < ceiling.value < high
    assert [row[0] for row in table.rows] == ["good", "constructor"]  # the best first
    assert table.rows[1][-1] == "MiniLM in place of BERT" and table.rows[0][6] == "340 s (cut)"
    assert papers.rows == [["constructor", ("A title", "Li, 2024"), "Much."]]


def test_without_costs_there_is_no_plot_and_without_papers_no_table(comparison: Comparison) -> None:
    untimed = [r for r in comparison.results if not r.metric.startswith("us_")]
    scores = Scores(untimed)
    _, parts = zoo_section(ENTRIES[1:], scores, Looks(scores.predictors))
    assert [type(part) for part in parts] == [Table]
