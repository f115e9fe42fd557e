"""`lengthpred zoo`, as a user runs it."""

import json
from pathlib import Path
from typing import Any

import pytest

from lengthpred.errors import require
from lengthpred.training import encoder
from tests.builders import synthetic_rows
from tests.cli.commands import answered, refused
from tests.data_files import lengthpred
from tests.tiny_encoders import torch_encoder
from tests.training.tables import table_on_disk, write_recipe


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return table_on_disk(tmp_path / "table.parquet")


def recipe(folder: Path, name: str, kind: str, text: str = "", paper: bool = False) -> Path:
    path = folder / f"{name}.toml"
    if not text:
        text = write_recipe(path, kind).read_text()
    said = "\n[paper]\ntitle = 'Of <b>forests</b>'\nauthors = 'Li'\ndiffers = 'All.'\n"
    path.write_text(f'kind = "{kind}"\n{text}' + paper * said)
    return path


def without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """For the encoder alone: others ask `sys.modules` for torch, and take a None there for it."""

    def require_other(module: str, extra: str, why: str) -> Any:
        return require("no_torch_here" if module == "torch" else module, extra, why)

    monkeypatch.setattr(encoder, "require", require_other)


def tau_of(out: Path) -> dict[str, float]:
    rows = json.loads((out / "eval.json").read_text())["rows"]
    return {r["predictor"]: r["value"] for r in rows if (r["metric"], r["split"]) == ("tau", "all")}


def test_recipes_are_trained_compared_and_shown(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_torch(monkeypatch)
    mine = recipe(tmp_path, "forest", "boosted", paper=True)
    out = tmp_path / "out"
    said, err = answered(
        "zoo", "--data", table, "--recipes", f"qlm, {mine},distilled,encoder", "--out", out
    )
    assert not err
    for word in ("forest", "qlm", "constant", "oracle", "all rows, 72 rows"):
        assert word in said
    assert "note: Left out: distilled: its teacher" in said
    assert "note: Only 72 rows are compared" in said
    assert {"forest", "qlm", "constant", "prompt-length", "oracle"} <= tau_of(out).keys()
    assert tau_of(out)["forest"] > 0.3
    rows = json.loads((out / "eval.json").read_text())["rows"]
    assert any(r["metric"] == "us_per_request_p50" and r["predictor"] == "qlm" for r in rows)
    zoo = json.loads((out / "zoo.json").read_text())
    assert [one["name"] for one in zoo["recipes"]] == ["qlm", "forest"]
    assert [one["name"] for one in zoo["left_out"]] == ["encoder", "distilled"]
    page = (out / "report.html").read_text("utf-8")
    page = page[: page.index("</main>")]
    assert "<h3>Accuracy against cost, all recipes</h3>" in page
    assert "<h3>Accuracy against cost</h3>" not in page
    assert "Of &lt;b&gt;forests&lt;/b&gt;" in page and "Left out: distilled" in page
    text, _ = answered("predict", "list of rivers", "--artifact", out / "forest")
    assert "tokens (median)" in text
    assert "--force" in refused("zoo", "--data", table, "--recipes", "qlm", "--out", out)


def test_a_test_table_mixes_and_json(table: Path, tmp_path: Path) -> None:
    test = table_on_disk(
        tmp_path / "test.parquet", synthetic_rows(100, 3), ood=[i >= 60 for i in range(100)]
    )
    given = ("--data", table, "--test", test, "--recipes", "qlm", "--ood-ratio", "0,0.5")
    said, err = answered("zoo", *given, "--out", tmp_path / "out", "--json", "--seed", 2)
    printed: dict[str, Any] = json.loads(said)
    assert printed["seed"] == 2 and [one["name"] for one in printed["recipes"]] == ["qlm"]
    assert {row["ood_ratio"] for row in printed["rows"]} == {None, 0.0, 0.5}
    assert {row["split"] for row in printed["rows"]} >= {"in", "ood", "mix"}
    assert "wrote " in err


def test_what_is_refused_before_any_work(table: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    given = ("--data", table, "--out", out)
    assert "Did you mean 'qlm'?" in refused("zoo", *given, "--recipes", "qlmm")
    bad = recipe(tmp_path, "bad", "conformal", 'base = "/nowhere/at-all"\n')
    for _ in range(2):  # nothing stays that would want --force
        assert "no recipe was trained. " in refused("zoo", *given, "--recipes", bad)
        assert not (out / "split").exists()
    assert "add the recipe 'encoder'" in refused("zoo", *given, "--recipes", "qlm,distilled")
    assert "500" in lengthpred("zoo", *given, "--max-rows", 499)[2]
    few = table_on_disk(tmp_path / "few.parquet", synthetic_rows(100))
    said = refused("zoo", "--data", few, "--recipes", "qlm", "--out", out)
    assert "100 rows are too few to split: 12 would be for calibration and 18 for the test" in said
    few = table_on_disk(tmp_path / "few.parquet", synthetic_rows(19))
    said = refused("zoo", *given, "--recipes", "qlm", "--test", few)
    assert "few.parquet has 19 rows, and a comparison needs 20" in said
    assert not (out / "split").exists()
    for name in ("split", "oracle", "ceiling", "samples-max", "eval.json"):
        mine = recipe(tmp_path, name, "histogram")
        said = refused("zoo", *given, "--recipes", mine)
        assert f"something else called '{name}'" in said
    assert "is not a file" in refused("zoo", "--data", tmp_path / "no", "--out", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_defect_of_ours_is_told_by_the_exit_code(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lengthpred.training.histogram.train", lambda *_: 1 / 0)
    bad = recipe(tmp_path, "bad", "conformal", 'base = "/nowhere/at-all"\n')
    code, _, err = lengthpred(
        "zoo", "--data", table, "--out", tmp_path / "out", "--recipes", f"qlm,{bad}"
    )
    assert code == 1 and "qlm: a defect in lengthpred: ZeroDivisionError" in err


@pytest.mark.parametrize(
    ("kind", "stopped_in"), [("ranker", "lengthpred.training.ranker.train"), ("", "")]
)
def test_ctrl_c_says_what_was_kept(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, stopped_in: str
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(stopped_in or "lengthpred.training.histogram.train", stop)
    out = tmp_path / "out"
    names = f"qlm,{recipe(tmp_path, 'mine', kind)}" if kind else "qlm"
    code, _, err = lengthpred("zoo", "--data", table, "--recipes", names, "--out", out)
    kept = f"stopped: {out} holds qlm; the same command with --force replaces"
    assert code == 130 and len(err.splitlines()) == 1
    assert err.startswith(kept if kind else "stopped before a recipe was finished")
    assert (out / "split").exists() == bool(kind)


def test_without_recipes_the_shipped_ones_are_meant(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "qlm").write_text("no recipe")
    monkeypatch.setattr("lengthpred.training.zoo.train_kind", lambda *_, **__: 1 / 0)
    _, _, err = lengthpred("zoo", "--data", table, "--out", tmp_path / "out")
    assert "qlm: a defect" in err and "s3: a defect" in err


@pytest.mark.slow
def test_encoders_share_a_run_and_are_cut_when_the_time_is_up(tmp_path: Path) -> None:
    table = table_on_disk(tmp_path / "t.parquet", synthetic_rows(1000))
    folder = torch_encoder(tmp_path / "tiny")
    plain = "tokens = 32\ncontext_tokens = 0\nlearning_rate = 3e-3\nhead_learning_rate = 3e-3\n"
    plain += "numbers = false\nint8 = false\n"
    heads = {
        "encoder": "epochs = 8",
        "classes": 'epochs = 8\nhead = "classes"\nclasses = 6',
    }
    files = [recipe(tmp_path, n, "encoder", plain + text + "\n") for n, text in heads.items()]
    last = recipe(tmp_path, "distilled", "distilled", "trees = 20\nbits = 8\n")
    out = tmp_path / "out"
    given = ("--data", table, "--encoder", folder)
    names = ",".join(map(str, ["qlm", last, *files]))
    answered("zoo", *given, "--recipes", names, "--out", out)
    found = tau_of(out)
    assert min(found[name] for name in (*heads, "distilled")) > max(0.3, found["prompt-length"])
    assert not any(one["cut"] for one in json.loads((out / "zoo.json").read_text())["recipes"])

    endless = recipe(tmp_path, "endless", "encoder", plain + "epochs = 5000\npatience = 50000\n")
    out = tmp_path / "cut"
    names = f"{endless},{files[1]}"
    said, _ = answered("zoo", *given, "--recipes", names, "--time-budget", 3, "--out", out)
    assert "ended the training of endless" in said and " cut" in said
    zoo = json.loads((out / "zoo.json").read_text())
    assert {one["name"]: one["cut"] for one in zoo["recipes"]} == {"endless": True}
    assert zoo["left_out"] == [{"name": "classes", "why": "the time budget was used up"}]
