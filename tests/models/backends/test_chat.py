"""Requests as chat messages."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lengthpred import Request
from lengthpred.models.backends.chat import messages_of
from lengthpred.openai_body import CONTEXT_CHARS, request_from_body

Message = dict[str, str]
ROLES = ("system", "developer", "user", "assistant", "tool")


def turns(*said: str) -> list[Message]:
    """Messages of "role: text" each."""
    parts = (one.split(": ", 1) for one in said)
    return [{"role": role, "content": text} for role, text in parts]


def asked(context: str, prompt: str = "now") -> list[Message]:
    return messages_of(Request(prompt=prompt, context=context))


def test_a_prompt_alone() -> None:
    assert messages_of(Request(prompt=" hello ")) == turns("user: hello")
    assert messages_of(Request()) == []


@pytest.mark.parametrize(
    "said",
    [
        ["user: hello"],
        ["system: be kind", "user: hello"],
        ["user: 1", "assistant: 2", "user: 3"],
        [
            "system: be kind",
            "user: 1",
            "assistant: 2\nand a line",
            "user: 3",
            "assistant: 4",
            "user: 5",
        ],
    ],
)
def test_a_conversation_comes_back_as_it_was(said: list[str]) -> None:
    messages = turns(*said)
    assert messages_of(request_from_body({"messages": messages})) == messages


def test_other_bodies_come_back_too() -> None:
    completion = request_from_body({"prompt": "once upon"})
    assert messages_of(completion) == turns("user: once upon")
    answer = request_from_body({"instructions": "be kind", "input": "hello"})
    assert messages_of(answer) == turns("system: be kind", "user: hello")
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    several = request_from_body({"messages": [{"role": "user", "content": parts}]})
    assert messages_of(several) == turns("user: one\ntwo")
    # Of token ids nothing can be said.
    assert messages_of(request_from_body({"prompt": [1, 2, 3]})) == []


def test_developers_are_the_system_and_tools_the_user() -> None:
    body = {
        "messages": turns(
            "developer: be brief",
            "user: weather?",
            "assistant: I shall look.",
            "tool: 7 degrees",
            "user: so?",
        )
    }
    assert messages_of(request_from_body(body)) == turns(
        "system: be brief",
        "user: weather?",
        "assistant: I shall look.",
        "user: 7 degrees\nso?",
    )


def test_the_system_is_first_or_the_user() -> None:
    assert asked("system: one\nsystem: two\nuser: hi") == turns("system: one\ntwo", "user: hi\nnow")
    late = asked("user: hi\nassistant: ho\nsystem: be brief")
    assert late == turns("user: hi", "assistant: ho", "user: be brief\nnow")


def test_neighbours_of_one_role_are_joined() -> None:
    found = asked("user: a\nuser: b\nassistant: c\nassistant: d")
    assert found == turns("user: a\nb", "assistant: c\nd", "user: now")


def test_what_an_assistant_says_first_is_left_out() -> None:
    assert asked("assistant: Welcome!\nuser: hi") == turns("user: hi\nnow")
    assert asked("system: s\nassistant: Welcome!") == turns("system: s", "user: now")


def test_what_is_empty_is_left_out() -> None:
    assert asked("system: \nuser: a\nassistant:  \nuser: b") == turns("user: a\nb\nnow")
    assert asked("user: a\nassistant: b", prompt=" ") == turns("user: a", "assistant: b")


def test_a_context_that_is_cut_begins_in_the_middle() -> None:
    found = asked("e end of what was asked\nassistant: b")
    assert found == turns("user: e end of what was asked", "assistant: b", "user: now")
    long = {"messages": turns(f"user: {'x' * 5000}", "assistant: yes", "user: now")}
    request = request_from_body(long)
    assert len(request.context) == CONTEXT_CHARS
    first, *rest = messages_of(request)
    assert first["role"] == "user" and set(first["content"]) == {"x"}
    assert rest == turns("assistant: yes", "user: now")


def test_only_a_line_that_begins_with_a_role_is_a_turn() -> None:
    said = "user: say it\nassistant: the user: she\n user: indented\nusers: many\nUser: large"
    found = asked(said)
    assert [message["role"] for message in found] == ["user", "assistant", "user"]
    assert found[1]["content"] == said.split("assistant: ")[1]
    # A line that looks like one becomes one.
    split = asked("user: quote me\nassistant: you said\nuser: quote me")
    assert split == turns("user: quote me", "assistant: you said", "user: quote me\nnow")


@given(st.lists(st.tuples(st.sampled_from(ROLES), st.text(max_size=12)), max_size=8), st.text())
def test_templates_get_what_they_want(said: list[tuple[str, str]], prompt: str) -> None:
    messages = [{"role": role, "content": text} for role, text in said]
    body = {"messages": [*messages, {"role": "user", "content": prompt}]}
    found = messages_of(request_from_body(body))
    assert all(message["content"].strip() for message in found)
    talk = found[1:] if found and found[0]["role"] == "system" else found
    for number, message in enumerate(talk):
        assert message["role"] == ("assistant" if number % 2 else "user")
    if prompt.strip():
        assert found[-1]["role"] == "user"
        assert found[-1]["content"].endswith(request_from_body(body).prompt.strip())
