"""`lengthpred simulate --experiment sqlm-fig1`, as a user runs it."""

import csv
import json
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lengthpred.cli.sqlm_fig1 import Given, Keep, Tell, run_experiment
from lengthpred.data.table import Table
from lengthpred.errors import DataError
from lengthpred.eval.output import FORMAT_VERSION, read_results
from lengthpred.eval.sqlm_fig1.setting import Fig1Result
from tests.builders import synthetic_rows
from tests.cli.commands import answered, refused
from tests.eval.fig1_cases import SETTINGS, make_results
from tests.small_models import small_lengths
from tests.training.tables import table_on_disk

FEW = ("--requests", 60, "--draws", 2, "--slots", 16, "--ood-ratio", "0,0.5", "--sum-limit", 512)
QUICK = """\
[detector]
bits = 8
dims = 4
[slm]
backend = "openai"
url = ["http://127.0.0.1:9/v1"]
cap = 600
pairs = 100
"""


def write(path: Path, **columns: Any) -> Path:
    """Four hundred requests of five domains; `columns` replace or remove some."""
    rows = synthetic_rows(400)
    return table_on_disk(path, rows, **{"domain": rows.columns["domain"].tolist(), **columns})


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """With tables t, and samples of the same ids; a command must leave no scraps."""
    write(tmp_path / "t.parquet")
    lengths = small_lengths(synthetic_rows(400), 2)
    samples = {"output_tokens": lengths.tolist(), "censored": (lengths < 0).tolist()}
    write(tmp_path / "samples.parquet", **samples, model=["small"] * 400, domain=None)
    (tmp_path / "quick.toml").write_text(QUICK)
    yield tmp_path
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def experiment(folder: Path, *options: object, data: str = "t.parquet") -> tuple[object, ...]:
    return (
        *("simulate", "--experiment", "sqlm-fig1", "--data", folder / data, *FEW),
        *("--recipe", folder / "quick.toml", *options),
    )


@pytest.mark.parametrize(
    "engines", [("gang",), pytest.param(("continuous", "gang"), marks=pytest.mark.slow)]
)
def test_from_two_tables_to_a_page(folder: Path, engines: tuple[str, ...]) -> None:
    out = folder / "out"
    # In a process, and in several.
    draws, only = (1, ("--engine", *engines)) if len(engines) == 1 else (2, ())
    asked = ("--samples", folder / "samples.parquet", "--hold-out", "code, sum", "--seed", 3)
    told = (*asked, *only, "--draws", draws)
    said, notes = answered(*experiment(folder, *told, "--out", out, "--json"))
    document = json.loads(said)
    assert document == json.loads((out / "simulate.json").read_text("utf-8"))
    assert document["format_version"] == FORMAT_VERSION and document["seed"] == 3
    assert document["data_sha256"] == Table(folder / "t.parquet").fingerprint
    assert "--experiment sqlm-fig1" in document["command"]
    rows = [Fig1Result(**row) for row in document["rows"]]
    columns = [field.name for field in fields(Fig1Result)]
    assert all(list(row) == columns for row in document["rows"])
    assert {row.engine for row in rows} == set(engines)
    stream = {"poisson"} if "continuous" in engines else set()
    assert {row.arrivals for row in rows} == {"burst", "burst-long-at-head"} | stream
    assert {row.ood_ratio for row in rows} == {0.0, 0.5}
    assert {(row.sum_limit, row.n) for row in rows} == {(512, draws)}
    assert {row.predictor for row in rows} == {None, "qlm", "sqlm", "sqlm-all", "oracle"}
    gain = [row for row in rows if (row.predictor, row.metric) == ("sqlm", "tps_vs_qlm")]
    assert gain and all((row.low is None) == (draws == 1) for row in gain)
    with (out / "simulate.csv").open() as file:
        assert len(list(csv.DictReader(file))) == len(rows)
    # It is no evaluation, and is not taken for one.
    with pytest.raises(DataError, match=r"simulate\.json is a simulate\.json"):
        read_results(out / "simulate.json")
    # With --json what it means is said on stderr.
    assert "kept from training (code + sum)" in notes and "simulate.json" in notes
    assert refused(*experiment(folder, *told, "--out", out)).count("exists already") == 1


@pytest.mark.slow
def test_each_domain_in_turn_and_the_same_again(folder: Path) -> None:
    told = ("--samples", folder / "samples.parquet", "--engine", "gang", "--ood-ratio", "0.5")
    first, _ = answered(*experiment(folder, *told))
    again, _ = answered(*experiment(folder, *told))
    assert first == again
    for part in (
        "gang, in + out up to 512",
        "S-QLM, hidden",
        "longest first, oracle",
        "With gang batches, S-QLM changes tokens a second",
        # Two draws are asked for; five make one of each domain.
        "(code; list; poem; sum; translate)",
        "mean of 5 draws",
    ):
        assert part in first
    assert "continuous" not in first


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "--samples T2.parquet"),
        pytest.param(
            ("--samples", "none.parquet"), "none.parquet is not a file", marks=pytest.mark.slow
        ),
        (
            ("--samples", "samples.parquet", "--hold-out", "cod"),
            "--hold-out has 'cod', which is no domain of the rows that both tables have. "
            "Did you mean 'code'?",
        ),
        pytest.param(
            ("--samples", "samples.parquet", "--engine", "slices"),
            "not on 'slices'",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            ("--samples", "samples.parquet", "--hold-out", "code,list,poem,sum,translate"),
            "needs others to train on",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            ("--samples", "samples.parquet", "--ood-ratio", "1.5"),
            "--ood-ratio has '1.5'",
            marks=pytest.mark.slow,
        ),
        (("--samples", "t.parquet"), "--samples is the table of --data itself"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(
    folder: Path, options: tuple[str, ...], message: str
) -> None:
    told = [folder / one if one.endswith(".parquet") else one for one in options]
    assert message in refused(*experiment(folder, *told, "--out", folder / "never"))
    assert not (folder / "never").exists()


def test_an_unknown_experiment(folder: Path) -> None:
    asked = ("simulate", "--experiment", "sqml-fig1", "--data", folder / "t.parquet")
    said = refused(*asked, "--out", folder / "never")
    assert "'sqml-fig1' is no experiment. Did you mean 'sqlm-fig1'?" in said
    assert not (folder / "never").exists()


def test_options_without_an_effect_are_refused(folder: Path) -> None:
    asked = experiment(folder, "--samples", folder / "samples.parquet")
    assert "--policy has no effect here" in refused(*asked, "--policy", "srpt")
    assert "a name has no effect here" in refused(*asked, "oracle")
    own = ("simulate", "--data", folder / "t.parquet", "--hold-out", "chat")
    assert "--hold-out has no effect here, it needs --experiment" in refused(*own)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"id": [f"other {i}" for i in range(400)]}, "no row of --data has an id that --samples"),
        pytest.param({"id": None}, "no row of --data has an id", marks=pytest.mark.slow),
        ({"domain": ["chat"] * 400}, "are of 1 domain(s)"),
        pytest.param({"domain": None}, "are of 0 domain(s)", marks=pytest.mark.slow),
    ],
)
def test_tables_that_do_not_fit(folder: Path, columns: dict[str, Any], message: str) -> None:
    write(folder / "other.parquet", **columns)
    told = ("--samples", folder / "samples.parquet", "--out", folder / "never")
    assert message in refused(*experiment(folder, *told, data="other.parquet"))
    assert not (folder / "never").exists()


@pytest.mark.slow
def test_too_little_to_train_on(folder: Path) -> None:
    domains = np.array(["chat"] * 399 + ["code"], object).tolist()
    write(folder / "other.parquet", domain=domains)
    told = ("--samples", folder / "samples.parquet", "--hold-out", "chat")
    asked = experiment(folder, *told, "--out", folder / "never", data="other.parquet")
    assert "a detector needs 20 rows" in refused(*asked)
    assert not (folder / "never").exists()


def test_results_are_not_overwritten(folder: Path) -> None:
    (folder / "out").mkdir()
    (folder / "out" / "simulate.json").write_text("mine")
    told = ("--samples", folder / "samples.parquet", "--out", folder / "out")
    assert "exists already" in refused(*experiment(folder, *told))
    assert [path.name for path in (folder / "out").iterdir()] == ["simulate.json"]
    assert (folder / "out" / "simulate.json").read_text() == "mine"


def test_what_ends_early_tells_its_draws(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = folder / "out"
    given = Given(
        folder / "t.parquet",
        folder / "samples.parquet",
        hold_out="code",
        recipe=folder / "quick.toml",
        out=out,
        seed=0,
        force=False,
        as_json=True,
    )
    half = make_results(replace(SETTINGS, draws=2))

    def ends(folds: object, settings: object, strata: int, tell: Tell, keep: Keep) -> Any:
        keep(half)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_experiment(given, replace(SETTINGS, draws=4), runs=ends)
    said, notes = capsys.readouterr()
    assert json.loads(said) == json.loads((out / "simulate.json").read_text("utf-8"))
    assert {row["n"] for row in json.loads(said)["rows"]} == {2}
    assert "Ended after 2 of 4 draws" in notes and "2 draws of" in (out / "report.html").read_text()
