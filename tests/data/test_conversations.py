"""Turns of a conversation are found by their texts alone."""

from typing import Any

import pytest

from lengthpred.data import conversations as module
from lengthpred.data.conversations import Conversations
from lengthpred.openai_body import request_from_body


def talk(*texts: str, system: str = "Be brief.") -> list[dict[str, Any]]:
    """A system prompt, then user and assistant in turn."""
    roles = ["user", "assistant"] * len(texts)
    turns = [{"role": role, "content": text} for role, text in zip(roles, texts, strict=False)]
    return [{"role": "system", "content": system}, *turns] if system else turns


def groups(*asked: list[dict[str, Any]]) -> list[str | None]:
    found = Conversations()
    requests = [request_from_body({"messages": messages}) for messages in asked]
    return [found.group(request.prompt, request.context) for request in requests]


def test_each_turn_is_of_the_conversation_before_it() -> None:
    long = "x" * 3000
    first, second, third, fourth, other, bare = groups(
        talk("Hi"),
        talk("Hi", "Hello", "Why?"),
        talk("Hi", "Hello", "Why?", long, "So?"),
        talk("Hi", "Hello", "Why?", long, "So?", "Yes.", "And?"),
        talk("Ho", "Hello", "Why?"),
        talk("Hi", system=""),
    )
    assert first == second == third == fourth
    assert len({first, other, bare}) == 3


def test_two_that_begin_alike_and_were_not_asked_so_are_two() -> None:
    """As where each call begins with the same instructions, and a reply that nobody asked for."""
    one, other = groups(talk("Rules", "OK", "A"), talk("Rules", "OK", "B"))
    assert one != other
    again, more = groups(talk("Rules", "OK", "A"), talk("Rules", "OK", "A", "x", "B"))
    assert again == more


def test_a_reply_that_fills_the_context_begins_another() -> None:
    first, second, third = groups(
        talk("Hi"), talk("Hi", "x" * 9000, "Why?"), talk("Hi", "x" * 9000, "Why?", "y", "So?")
    )
    assert first != second == third


def test_what_has_no_text_has_no_group(monkeypatch: pytest.MonkeyPatch) -> None:
    found = Conversations()
    assert found.group("", "") is None
    assert found.group("\ud800", "") == found.group("\ud800", "")
    monkeypatch.setattr(module, "REMEMBERED", 10)
    for i in range(50):
        found.group(f"{i}", "")
    assert len(found._groups) == 10
