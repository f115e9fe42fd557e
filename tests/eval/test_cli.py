"""The real command."""

import json
from dataclasses import dataclass
from pathlib import Path

from lengthpred.models.controls import fit_constant, fit_prompt_length
from tests.builders import build
from tests.data_files import lengthpred
from tests.eval.cases import make_rows, write_rows


@dataclass(frozen=True)
class Done:
    stdout: str
    stderr: str


def run(*arguments: object, code: int = 0) -> Done:
    found, out, err = lengthpred("eval", *arguments, columns=100)
    assert found == code, out + err
    assert "Traceback" not in err
    return Done(out, err)


def test_it_prints_a_table_and_writes_its_files(table: Path, tmp_path: Path) -> None:
    for parent in ("a", "b"):
        fit_constant(make_rows()).save(tmp_path / parent / "model")
    names = [tmp_path / "a" / "model", tmp_path / "b" / "model", "samples-mean", "oracle"]
    done = run(*names, "--data", table, "--out", tmp_path / "out", "--resamples", 20, "--no-cost")
    for line in ("in distribution, 72 rows", "mix, 50% out", "b/model", "samples-mean", "note: "):
        assert line in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 120  # paths of files are never wrapped
    document = json.loads((tmp_path / "out" / "eval.json").read_text())
    assert document["command"].startswith("lengthpred eval ")
    named = {row["predictor"] for row in document["rows"]}
    controls = {"samples-mean", "oracle", "constant", "prompt-length"}
    assert named == {"model", "b/model", "ceiling", "ceiling-median"} | controls
    assert (tmp_path / "out" / "eval.csv").is_file()
    again = run("oracle", "--data", table, "--out", tmp_path / "out", code=2)
    assert "--force" in again.stderr


def test_a_score_on_the_training_table_is_said_to_flatter(table: Path, tmp_path: Path) -> None:
    other = write_rows(tmp_path / "other.parquet", make_rows(seed=1), 1)
    for name, rows in (("own", table), ("others", other)):
        code, _, err = lengthpred("train", "histogram", "--data", rows, "--out", tmp_path / name)
        assert code == 0, err
    done = run(
        tmp_path / "own", tmp_path / "others", "--data", table, "--no-cost", "--resamples", 5
    )
    said = " ".join((done.stdout + done.stderr).split())
    assert "own was trained on this very table" in said
    assert "others was trained" not in said


def test_a_fall_against_a_baseline_ends_with_3(table: Path, tmp_path: Path) -> None:
    given = ("--data", table, "--no-cost", "--resamples", 50)
    out, mine = tmp_path / "out", tmp_path / "mine"
    fit_prompt_length(make_rows()).save(mine)
    run(mine, *given, "--no-replay", "--out", out)
    against = ("--baseline", out / "eval.json")
    same = run(mine, *given, *against)
    assert "No metric fell by more than its interval" in same.stdout
    fit_constant(make_rows()).save(mine, force=True)
    # The very file that is replaced is the baseline; what is worse is said after it is written.
    worse = run(mine, *given, *against, "--no-replay", "--out", out, "--force", code=3)
    assert "Worse than the baseline by" in worse.stdout and "in distribution" in worse.stdout
    rows = json.loads((out / "eval.json").read_text())["rows"]
    ours = [row for row in rows if (row["predictor"], row["metric"]) == ("mine", "tau")]
    assert max(row["value"] for row in ours) < 0.2
    now = run(mine, *given, *against, "--json")
    assert "No metric fell" in now.stderr
    json.loads(now.stdout)


def test_a_baseline_of_other_rows_is_refused_before_any_work(table: Path, tmp_path: Path) -> None:
    fit_constant(make_rows()).save(tmp_path / "mine")
    given = (tmp_path / "mine", "--no-cost", "--no-replay", "--resamples", 5, "--data")
    run(*given, table, "--out", tmp_path / "out")
    run(*given, table, "--resamples", 0, "--out", tmp_path / "bare")
    bare = ("--baseline", tmp_path / "bare" / "eval.json", "--out", tmp_path / "never")
    against = ("--baseline", tmp_path / "out" / "eval.json", "--out", tmp_path / "never")
    other = write_rows(tmp_path / "other.parquet", make_rows(120, samples=2, seed=1), 2)
    cases: list[tuple[tuple[object, ...], str]] = [
        ((*given, other, *against), "is of other data"),
        ((*given, table, "--max-rows", 60, *against), "use the --turns and --max-rows"),
        ((*given, table, *bare), "run it again with --resamples 200"),
        ((*given, table, "--seed", 4, *against), "add --seed 0"),
        (("oracle", "--data", table, *against), "this evaluation only controls"),
        ((*given, table, "--baseline", table, "--out", tmp_path / "never"), "is not the eval.json"),
    ]
    for arguments, message in cases:
        assert message in " ".join(run(*arguments, code=2).stderr.split())
        assert not (tmp_path / "never").exists()


def test_domains_and_the_ceiling_are_in_the_table(tmp_path: Path) -> None:
    rows = make_rows(120, samples=3)
    table = write_rows(tmp_path / "t.parquet", rows, 3, domain=["law"] * 50 + ["code"] * 70)
    done = run("samples-mean", "--data", table, "--no-cost", "--resamples", 20)
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 100
    (heading,) = (line for line in lines if line.startswith("tau by domain"))
    assert heading.split()[3:] == ["rows", "samples-mean", "prompt-length", "ceiling"]
    assert any(line.split()[:2] == ["law", "50"] for line in lines)
    assert any(line.startswith("ceiling-median") for line in lines)
    assert "language=" not in done.stdout and "prompt_tokens=" not in done.stdout


def test_json_is_all_that_stdout_holds(table: Path) -> None:
    done = run(
        "oracle-noise", "--data", table, "--train-data", table, "--turns", "first", "--json",
        "--max-rows", 30, "--resamples", 0, "--ood-ratio", "0.5",
    )  # fmt: skip
    document = json.loads(done.stdout)
    assert set(document) == {"format_version", "command", "data_sha256", "seed", "rows"}
    oracle = [r for r in document["rows"] if (r["predictor"], r["metric"]) == ("oracle", "tau")]
    assert sum(row["n"] for row in oracle if row["split"] in ("in", "ood")) == 30


def test_a_detector_can_be_evaluated_alone(table: Path, tmp_path: Path) -> None:
    build("knn").save(tmp_path / "knn")
    done = run(tmp_path / "knn", "--data", table, "--no-cost", "--resamples", 5)
    assert "AUROC" in done.stdout and "alarms" in done.stdout


def test_bad_input_is_one_sentence_and_exit_code_2(table: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    text = tmp_path / "notes.parquet"
    text.write_text("no table")
    cases: list[tuple[list[object], str]] = [
        (["oracel", "--data", table], "Did you mean 'oracle'?"),
        ([empty, "--data", table], "is not an artifact"),
        (["oracle", "--data", text], "is not a Parquet file"),
        (["oracle", "--data", tmp_path / "absent"], "is not a file"),
        (["oracle", "--data", table, "--ood-ratio", "0,half"], "--ood-ratio has 'half'"),
        (["oracle", "--data", table, "--ood-ratio", "1.5"], "--ood-ratio has '1.5'"),
        (["oracle", "--data", table, "--alpha", "2"], "alpha must lie"),
    ]
    for arguments, message in cases:
        out = tmp_path / "never"
        done = run(*arguments, "--out", out, code=2)
        assert message in " ".join(done.stderr.split())
        assert not out.exists()


def test_a_control_that_lacks_samples_says_so(tmp_path: Path) -> None:
    single = write_rows(tmp_path / "single.parquet", make_rows(20), 1)
    done = run("samples-max", "--data", single, code=2)
    assert "two or more lengths" in done.stderr


def test_a_missing_option_is_named(tmp_path: Path) -> None:
    assert "--data" in run("oracle", code=2).stderr
