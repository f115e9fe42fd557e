"""From request bodies to requests."""

from typing import Any

import pytest

from lengthpred.errors import DataError
from lengthpred.openai_body import (
    CONTEXT_CHARS,
    clean,
    extend_context,
    request_from_body,
    requests_from_body,
)

TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello there"},
    {"role": "user", "content": [{"type": "text", "text": "Tell"}, {"type": "text", "text": "me"}]},
]


def test_chat() -> None:
    body = {"messages": TALK, "model": "m", "max_completion_tokens": 9, "temperature": 0, "n": 2}
    request = request_from_body(body, id="x", tenant="t")
    assert request.prompt == "Tell\nme"
    assert request.context == "system: Be brief.\nuser: Hi\nassistant: Hello there"
    assert request.reply_tokens == (3,)
    assert (request.max_tokens, request.temperature, request.model) == (9, 0.0, "m")
    assert (request.id, request.tenant, request.sampling) == ("x", "t", {"n": 2})


def test_what_is_large_or_deep_bears_on_no_length() -> None:
    deep: Any = "x"
    for _ in range(600):
        deep = [deep]
    tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
    for said, kept in (
        ([tool] * 20, True),
        (deep, False),
        ([{"a": "x" * 100_000}], False),
        ({"x" * 100_000: 1}, False),
        ([0] * 100_000, False),
        ([[0] * 300] * 300, False),
    ):
        body = {"prompt": ["a", "b"], "tools": said, "n": 2}
        one, other = requests_from_body(body)
        assert one.sampling == ({"n": 2, "tools": said} if kept else {"n": 2})
        assert one.sampling is other.sampling  # 256 prompts have one list of tools


def test_what_follows_the_last_user_turn_is_context() -> None:
    later = [*TALK, {"role": "assistant", "content": None}, {"role": "tool", "content": "42"}]
    request = request_from_body({"messages": later}, count=lambda texts: [len(t) for t in texts])
    assert request.prompt == "Tell\nme" and request.context.endswith("tool: 42")
    assert request.reply_tokens == (11,)


@pytest.mark.parametrize("prompt", ["Once", ["Once"]])
def test_completions(prompt: Any) -> None:
    assert request_from_body({"prompt": prompt}).prompt == "Once"


@pytest.mark.parametrize("prompt", [[5, 6, 7], [[5, 6, 7]]])
def test_token_ids_have_no_text(prompt: Any) -> None:
    request = request_from_body({"prompt": prompt})
    assert (request.prompt, request.prompt_tokens) == ("", 3)


def test_responses() -> None:
    request = request_from_body({"input": "Go", "instructions": "Rhyme.", "max_output_tokens": 7})
    assert (request.prompt, request.context, request.max_tokens) == ("Go", "system: Rhyme.", 7)
    items = [
        {"role": "user", "content": [{"type": "input_text", "text": "Go"}]},
        {"type": "function_call_output", "output": "sunny"},
    ]
    assert request_from_body({"input": items}).context == "tool: sunny"


@pytest.mark.parametrize(
    "body",
    [{}, {"messages": "x"}, {"prompt": 5}, {"prompt": ["a", "b"]}, {"messages": [1]}, [1], None],
)
def test_what_is_no_request(body: Any) -> None:
    with pytest.raises(DataError):
        request_from_body(body)


def test_nonsense_in_optional_fields_counts_as_absent() -> None:
    body = {"prompt": "a", "max_tokens": "many", "temperature": float("nan"), "model": 3}
    request = request_from_body(body)
    assert (request.max_tokens, request.temperature, request.model) == (None, None, "")


@pytest.mark.parametrize("given", [10**400, 2**31, -1, float("inf"), float("nan"), True])
def test_numbers_out_of_range_count_as_absent(given: Any) -> None:
    request = request_from_body({"prompt": "x", "max_tokens": given, "temperature": given})
    assert (request.max_tokens, request.temperature) == (None, None)
    assert request_from_body({"prompt": "x", "max_tokens": 2**31 - 1}).max_tokens == 2**31 - 1


def test_context_keeps_its_end() -> None:
    long = request_from_body(
        {"messages": [{"role": "user", "content": "y" * 9000}, {"role": "user", "content": "q"}]}
    )
    assert len(long.context) == CONTEXT_CHARS and long.prompt == "q"
    assert extend_context("abc", "user", "d", 3) == ": d"
    assert extend_context("abc", "user", "d", 0) == ""


def test_lone_surrogates_are_replaced() -> None:
    assert clean("a\ud83d") == "a\ufffd"
    assert clean("\ud83d\ude00") == "\U0001f600"
    clean(request_from_body({"prompt": "\udc00"}).prompt).encode()
