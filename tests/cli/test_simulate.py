"""`lengthpred simulate`, as a user runs it."""

import csv
import json
from pathlib import Path

import pytest

from tests.cli.commands import answered, artifact, refused
from tests.training.tables import table_on_disk

SMALL = ("--requests", 60, "--draws", 2, "--slots", 4, "--token-budget", 512, "--seed", 1)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return table_on_disk(tmp_path / "t.parquet")


def test_it_prints_a_table_and_writes_its_files(table: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    names = ("--predictor", artifact(tmp_path), "--policy", "sjf,longest-first")
    said, _ = answered("simulate", "--data", table, *names, *SMALL, "--load", 1.5, "--out", out)
    for line in ("all at once", "Poisson, load 150%", "sjf by histogram", "histogram ignored"):
        assert line in said
    rows = json.loads((out / "simulate.json").read_text())["rows"]
    arms = {(row["policy"], row["predictor"]) for row in rows}
    by = {name: {policy for policy, one in arms if one == name} for name in ("oracle", "histogram")}
    assert by["oracle"] == {"sjf", "longest-first"}
    assert by["histogram"] == {"fcfs", "sjf", "longest-first"}
    assert {("prompt-sjf", None), ("longest-prompt-first", None)} <= arms
    loads = {(row["arrivals"], row["load"]) for row in rows}
    assert loads == {("burst", None), ("poisson", 1.5)}
    with (out / "simulate.csv").open() as file:
        assert len(list(csv.DictReader(file))) == len(rows)
    assert "sjf" in (out / "report.html").read_text("utf-8")


def test_the_same_seed_gives_the_same_numbers(table: Path) -> None:
    asked = (
        "simulate",
        "--data",
        table,
        "--policy",
        "sjf",
        *SMALL,
        "--arrivals",
        "burst",
        "--json",
    )
    first, again = (json.loads(answered(*asked)[0])["rows"] for _ in range(2))
    assert first == again
    assert {row["engine"] for row in first} == {"continuous"}


def test_predictors_and_policies_may_follow_one_option(table: Path) -> None:
    asked = ("--predictor", "oracle", "constant", "--policy", "sjf", "gittins", "--json")
    said, _ = answered("simulate", "--data", table, *asked, *SMALL, "--arrivals", "burst")
    arms = {(row["policy"], row["predictor"]) for row in json.loads(said)["rows"]}
    assert {("gittins", "constant"), ("sjf", "constant"), ("gittins", "oracle")} <= arms


def test_a_low_preemption_ratio_keeps_what_runs(table: Path) -> None:
    asked = ("--predictor", "oracle", "--policy", "srpt", *SMALL, "--arrivals", "poisson")

    def preempted(ratio: float) -> float:
        more = ("--load", 1.5, "--preemption-ratio", ratio, "--json")
        rows = json.loads(answered("simulate", "--data", table, *asked, *more)[0])["rows"]
        (found,) = (
            row["value"]
            for row in rows
            if (row["policy"], row["predictor"], row["metric"]) == ("srpt", "oracle", "preemptions")
        )
        return float(found)

    assert 0 < 1.5 * preempted(0) < preempted(1)


@pytest.mark.parametrize("engine", ["gang", "slices"])
def test_other_engines(table: Path, engine: str) -> None:
    asked = ("--engine", engine, "--arrivals", "burst", "--json", *SMALL)
    rows = json.loads(answered("simulate", "--data", table, *asked)[0])["rows"]
    assert {row["engine"] for row in rows} == {engine}


def test_step_times_are_fitted_to_measured_steps(table: Path, tmp_path: Path) -> None:
    steps = tmp_path / "steps.csv"
    lines = ["seconds,prefill_tokens,kv_tokens"]
    lines += [f"{0.5 + 1e-3 * p + 1e-5 * k},{p},{k}" for p in (0, 10, 90) for k in (5, 70, 900)]
    steps.write_text("\n".join(lines) + "\n")
    asked = ("simulate", "--data", table, *SMALL, "--arrivals", "burst", "--json")

    def slowest(*more: object) -> float:
        rows = json.loads(answered(*asked, *more)[0])["rows"]
        return float(max(row["value"] for row in rows if row["metric"] == "duration"))

    assert slowest("--step-times", steps) > 10 * slowest()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--policy", "sjff"), "'sjff' is no policy. Did you mean 'sjf'?"),
        (("--predictor", "orcle"), "Did you mean 'oracle'?"),
        (("--arrivals", "trace"), "need the column arrival_s"),
        (
            ("--policy", "srpt", "--preemption-ratio", "1.5"),
            "preemption_ratio must lie between 0 and 1, not 1.5",
        ),
        (
            ("--policy", "sjf", "--preemption-ratio", "0.5"),
            "--preemption-ratio is for the policy srpt, not for sjf",
        ),
        (("--kv-tokens", "64"), "does not fit into a KV cache of 64"),
        (("--step-times", "nowhere.csv"), "nowhere.csv has no measured steps"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(
    table: Path, tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    asked = ("simulate", "--data", table, "--requests", 40, "--out", tmp_path / "never", *options)
    assert message in refused(*asked)
    assert not (tmp_path / "never").exists()


def test_a_detector_orders_nothing(table: Path, tmp_path: Path) -> None:
    said = refused("simulate", "--data", table, "--predictor", artifact(tmp_path, "knn"))
    assert "holds a detector, which orders nothing" in said


def test_results_are_not_overwritten(table: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "simulate.json").write_text("mine")
    said = refused("simulate", "--data", table, "--out", tmp_path / "out")
    assert "exists already" in said
    assert (tmp_path / "out" / "simulate.json").read_text() == "mine"
