"""Requests as chat messages: what a chat template or a chat server takes."""

import re

from lengthpred.base import Request

__all__ = ["messages_of"]

# How `lengthpred.openai_body.extend_context` writes a turn.
TURN = re.compile(r"^(system|developer|user|assistant|tool): ", re.MULTILINE)
ROLES = {"developer": "system", "tool": "user"}


def messages_of(request: Request) -> list[dict[str, str]]:
    """The turns of the context, then the prompt, as {"role", "content"}.

    A context is kept as text: what stands before its first turn (it may be cut) becomes the
    beginning of the conversation, and a line of an answer that looks like a turn becomes one.
    Templates want user and assistant by turns: neighbours of one role are joined, and what an
    assistant said first is left out. Developers are the system, tools the user.

    >>> messages_of(Request(prompt="And 3?", context="user: 2 + 2?\\nassistant: 4"))[1]
    {'role': 'assistant', 'content': '4'}
    """
    head, *rest = TURN.split(request.context)
    turns = [("user", head), *zip(rest[::2], rest[1::2], strict=True), ("user", request.prompt)]
    messages: list[dict[str, str]] = []
    for role, text in turns:
        role, text = ROLES.get(role, role), text.strip()
        if not text or (role == "assistant" and not any(m["role"] == "user" for m in messages)):
            continue
        if role == "system" and any(m["role"] != "system" for m in messages):
            role = "user"  # templates want the system first
        if messages and messages[-1]["role"] == role:
            messages[-1]["content"] += f"\n{text}"
        else:
            messages.append({"role": role, "content": text})
    return messages
