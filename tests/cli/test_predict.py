"""`lengthpred predict`, as a user runs it."""

import json
import sys
from io import BytesIO, TextIOWrapper
from pathlib import Path

import pytest

from lengthpred import Request, load
from lengthpred.cli.predict import _batches, _read, predict
from lengthpred.errors import DataError, SettingsError
from tests.cli.commands import answered, artifact, refused
from tests.data_files import write_lines

PROMPT = "poem of snow and rivers"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return artifact(tmp_path)


def test_a_text(folder: Path) -> None:
    out, err = answered("predict", PROMPT, "--artifact", folder, "--model", "model-a")
    expected = load(folder).predict([Request(prompt=PROMPT, model="model-a")])
    assert f"{expected.median()[0]:,.0f} tokens (median), mean {expected.mean()[0]:,.0f}" in out
    assert "80 % between" in out and "99 % below" in out and "█" in out and "64 - 127" in out
    assert not err


def test_a_text_as_json_for_a_model_that_was_never_seen(folder: Path) -> None:
    out, err = answered("predict", PROMPT, "--artifact", folder, "--model", "new", "--json")
    answer = json.loads(out)
    assert answer.keys() == {"id", "mean", "p10", "p50", "p90", "p99"}
    assert 0 < answer["p10"] <= answer["p50"] <= answer["p90"] <= answer["p99"]
    expected = load(folder).predict([Request(prompt=PROMPT)])
    assert answer["mean"] == pytest.approx(expected.mean()[0], abs=0.1)
    assert err.startswith("note: 1 of 1 requests name a model that this predictor never saw")


def test_a_file_of_bodies_and_prompts(folder: Path, tmp_path: Path) -> None:
    chat = {"model": "model-a", "messages": [{"role": "user", "content": PROMPT}]}
    rows: list[object] = [
        {"prompt": PROMPT, "model": "model-a", "id": "plain"},
        chat,
        {"prompt": [1, 2, 3], "model": "model-b"},
        {"prompt": "line>separator", "id": "<", "model": None},
        {"input": PROMPT, "model": "new"},
        {"prompt": "more", "reply_tokens": [4, 90], "model": "newer"},
    ]
    file = tmp_path / "requests.jsonl"
    text = "\n\n".join(map(json.dumps, rows)) + "\r\n"
    # A separator of lines unescaped in a string, and half a surrogate pair: JSON allows both.
    file.write_text(text.replace(">", "\u2028").replace("<", "\\ud800"), "utf-8")
    out, err = answered("predict", "--artifact", folder, "--file", file)
    answers = [json.loads(line) for line in out.splitlines()]
    assert [answer["id"] for answer in answers] == ["plain", "3", "5", "\ud800", "9", "11"]
    without_id = [{k: v for k, v in answer.items() if k != "id"} for answer in answers]
    assert without_id[0] == without_id[1] != without_id[2]
    assert err.startswith("note: 2 of 6 requests name a model")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"prompt": "x"', "line 2 is not JSON"),
        ("[1]", "line 2: it is not an object"),
        ('{"text": "x"}', "line 2: not a chat, completions or responses request"),
        ('{"prompt": "x", "reply_tokens": [-5]}', "line 2: 'reply_tokens' must be"),
        ('{"prompt": "x", "reply_tokens": 7}', "line 2: 'reply_tokens' must be"),
        (f'{{"prompt": "x", "reply_tokens": {10**400}}}', "line 2: 'reply_tokens' must be"),
        (f'{{"prompt": "x", "reply_tokens": [{10**400}]}}', "line 2: 'reply_tokens' must be"),
        ('{"prompt": "x", "model": {}}', "line 2: 'model' must be a text, not {}"),
        ("[" * 100_000, "line 2: "),
    ],
    ids=range(9),
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, said: str) -> None:
    file = tmp_path / "requests.jsonl"
    file.write_text(f'{{"prompt": "good"}}\n{line}\n')
    with pytest.raises(DataError) as error:
        list(_read(file))
    assert said in str(error.value)


def test_numbers_out_of_range_count_as_absent(tmp_path: Path) -> None:
    rows = [{"prompt": "x", "max_tokens": 10**400, "temperature": -1, "prompt_tokens": "many"}]
    (request,) = _read(write_lines(tmp_path / "a.jsonl", rows))
    assert request.max_tokens is request.temperature is request.prompt_tokens is None


def test_standard_input(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def given(text: str) -> None:
        monkeypatch.setattr(sys, "stdin", TextIOWrapper(BytesIO(text.encode("utf-8-sig"))))

    told = ("--artifact", folder, "--json")
    expected = json.loads(answered("predict", PROMPT, *told)[0])
    for ending in ("", "\n", "\r\n"):
        given(PROMPT + ending)
        assert json.loads(answered("predict", "-", *told)[0]) == expected
    given(json.dumps({"prompt": PROMPT}))
    assert json.loads(answered("predict", "--file", "-", *told)[0]) == {**expected, "id": "1"}
    given("{")
    assert "standard input, line 1 is not JSON" in refused("predict", "--file", "-", *told)


def test_a_line_has_a_name_and_a_model(folder: Path, tmp_path: Path) -> None:
    chat = {"messages": [{"role": "user", "content": PROMPT}]}
    rows = [{"id": "a", **chat}, {"custom_id": "b", "body": chat}, {"id": 7, **chat}, chat]
    rows += [{"model": "model-b", "prompt": "x"}, {"custom_id": "c", "body": {"prompt": "x"}}]
    file = write_lines(tmp_path / "a.jsonl", rows)
    (told,) = _batches(file, "model-a")
    assert [request.id for request in told] == ["a", "b", "3", "4", "5", "c"]
    assert [request.model for request in told] == ["model-a"] * 4 + ["model-b", "model-a"]


def test_before_a_bad_line_nothing_is_printed(folder: Path, tmp_path: Path) -> None:
    file = write_lines(tmp_path / "requests.jsonl", [{"prompt": "good"}, {"prompt": 7}])
    said = refused("predict", "--artifact", folder, "--file", file)
    assert "requests.jsonl, line 2: 'prompt' must be a text" in said


def test_files_that_hold_nothing(tmp_path: Path) -> None:
    empty = tmp_path / "empty.jsonl"
    for content in ("", "\n \n"):
        empty.write_text(content)
        with pytest.raises(DataError, match="is empty: give JSON lines"):
            list(_read(empty))
    empty.write_bytes(b"\xff")
    for path in (tmp_path, empty, tmp_path / "absent"):
        with pytest.raises(DataError, match="cannot be read"):
            list(_read(path))


def test_without_an_artifact_the_shipped_predictor_answers() -> None:
    short, err = answered("predict", "Is water wet? Answer yes or no.", "--json")
    long, _ = answered("predict", "Write a detailed essay on the Roman roads", "--json")
    assert json.loads(long)["p50"] > 2 * json.loads(short)["p50"]
    assert err.startswith("note: this is the predictor that comes with lengthpred;")


def test_what_is_asked_must_be_clear(folder: Path, tmp_path: Path) -> None:
    file = write_lines(tmp_path / "a.jsonl", [{"prompt": "x"}])
    said = refused("predict", "text", "--file", file, "--artifact", folder)
    assert "give either a prompt in quotes or --file" in said
    with pytest.raises(SettingsError, match="give either a prompt in quotes or --file"):
        predict(artifact=str(folder))


def test_a_detector_is_no_predictor(tmp_path: Path) -> None:
    said = refused("predict", "text", "--artifact", artifact(tmp_path, "knn"))
    assert "holds a knn, which is not a predictor" in said
