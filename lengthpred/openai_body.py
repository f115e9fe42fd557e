"""From the body of an OpenAI request (chat, completions, responses) to a `Request`.

The readers of `lengthpred.data` and the servers call the same functions, so that a predictor sees
in training the text that it is asked about later.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from lengthpred.base import Request
from lengthpred.errors import DataError

__all__ = [
    "CONTEXT_CHARS",
    "approximate_tokens",
    "as_count",
    "as_number",
    "clean",
    "extend_context",
    "replies_in",
    "request_from_body",
    "requests_from_body",
]

# What precedes the prompt is kept to this many characters, its end: tables stay small, and a
# server does not read a whole history for what lies furthest back.
CONTEXT_CHARS = 4096
# No number of a request is as large: what is, is a mistake.
OUT_OF_RANGE = 2**31
LIMITS = ("max_completion_tokens", "max_tokens", "max_output_tokens")
SAMPLING = (
    *("n", "best_of", "stop", "stop_token_ids", "min_tokens", "ignore_eos", "top_p", "top_k"),
    *("response_format", "text", "tools", "tool_choice", "functions", "function_call"),
    *("reasoning", "reasoning_effort", "chat_template_kwargs", "guided_json", "guided_regex"),
    *("guided_choice", "guided_grammar", "structured_outputs", "length_penalty"),
    *("frequency_penalty", "presence_penalty", "repetition_penalty", "verbosity"),
)
# What is larger or deeper is let go, as it bears on no length, and what comes after may recurse.
MOST_SAID, DEEPEST = 64_000, 32  # characters and values; lists and objects in each other
Turn = tuple[str, str]


def approximate_tokens(texts: Sequence[str]) -> list[int]:
    """A quarter of the characters, rounded up: what a text has in tokens when nobody counts."""
    return [-(-len(text) // 4) for text in texts]


def clean(text: str) -> str:
    """The text with surrogates that stand alone replaced: they cannot be stored as UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def extend_context(context: str, role: str, text: str, limit: int = CONTEXT_CHARS) -> str:
    """The context after one more turn: a line "role: text"; only the last `limit` characters.

    >>> extend_context("user: Hi", "assistant", "Hello.")
    'user: Hi\\nassistant: Hello.'
    """
    line = f"{role}: {text}"
    if limit <= 0:
        return ""
    return f"{context}\n{line}"[-limit:] if context else line[-limit:]


def request_from_body(
    body: Mapping[str, Any],
    *,
    id: str = "",
    tenant: str = "",
    count: Callable[[Sequence[str]], Sequence[int]] = approximate_tokens,
) -> Request:
    """The request in the body of a chat, completions or responses call.

    The prompt is the last user turn; every other turn and the instructions are the context.
    `count` tells the lengths of the assistant's earlier replies, in tokens. A prompt of token ids
    has no text: it becomes "" and its number of tokens. What is large or deep is not in `sampling`.

    Raises DataError when the body is none of the three, or holds several prompts.
    """
    return _request(body, _sampling(body), id, tenant, count)


def _request(
    body: Mapping[str, Any],
    sampling: Mapping[str, Any],
    id: str = "",
    tenant: str = "",
    count: Callable[[Sequence[str]], Sequence[int]] = approximate_tokens,
) -> Request:
    turns, prompt_tokens = _turns(body)
    last = max((i for i, (role, _) in enumerate(turns) if role == "user"), default=len(turns) - 1)
    context = ""
    for i, (role, text) in enumerate(turns):
        if i != last:
            context = extend_context(context, role, text)
    model, temperature = body.get("model"), as_number(body.get("temperature"))
    return Request(
        prompt=turns[last][1] if turns else "",
        context=context,
        reply_tokens=tuple(count(_replies(turns))),
        prompt_tokens=prompt_tokens,
        max_tokens=next((n for n in map(as_count, map(body.get, LIMITS)) if n is not None), None),
        model=clean(model) if isinstance(model, str) else "",
        temperature=temperature,
        tenant=tenant,
        id=id,
        sampling=sampling,
    )


def requests_from_body(body: Mapping[str, Any]) -> list[Request]:
    """All requests in the body: a completions call may hold several prompts, one request each.

    Raises DataError as request_from_body does, and for a list without a prompt in it.
    """
    if isinstance(body, Mapping) and not isinstance(body.get("messages"), list):
        prompts = body.get("prompt")
        if isinstance(prompts, list) and any(isinstance(one, str | list) for one in prompts):
            sampling = _sampling(body)  # one for all
            return [_request({**body, "prompt": one}, sampling) for one in prompts]
    return [request_from_body(body)]


def _sampling(body: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(body, Mapping):
        return {}
    said = {name: body[name] for name in SAMPLING if body.get(name) is not None}
    return {name: value for name, value in said.items() if _is_small(value)}


def _is_small(value: object) -> bool:
    """Whether JSON is within MOST_SAID and DEEPEST."""
    todo: list[tuple[object, int]] = [(value, 0)]
    size = 0
    while todo:
        one, depth = todo.pop()
        size += 1
        if isinstance(one, str | list | Mapping):
            size += len(one)
        if size > MOST_SAID or depth > DEEPEST:
            return False
        if isinstance(one, Mapping):
            size += sum(map(len, one))
            todo += [(inner, depth + 1) for inner in one.values()]
        elif isinstance(one, list):
            todo += [(inner, depth + 1) for inner in one]
    return True


def replies_in(body: Mapping[str, Any]) -> list[str]:
    """The assistant's earlier replies in the body, in order. Raises as request_from_body does."""
    return _replies(_turns(body)[0])


def _replies(turns: Iterable[Turn]) -> list[str]:
    return [text for role, text in turns if role == "assistant" and text]


def _turns(body: Mapping[str, Any]) -> tuple[list[Turn], int | None]:
    """The turns as (role, text), and the number of tokens of a prompt of token ids."""
    if not isinstance(body, Mapping):
        raise DataError(f"a request body must be a JSON object, not {type(body).__name__}")
    if isinstance(body.get("messages"), list):
        return [_turn(message) for message in body["messages"]], None
    if "prompt" in body:
        return _prompt(body["prompt"])
    if isinstance(body.get("input"), str | list):
        given, before = body["input"], []
        if isinstance(body.get("instructions"), str) and body["instructions"]:
            before = [("system", clean(body["instructions"]))]
        turns = [("user", clean(given))] if isinstance(given, str) else [*map(_turn, given)]
        return before + turns, None
    raise DataError(
        "not a chat, completions or responses request: it has no list 'messages', no 'prompt' "
        "and no 'input'"
    )


def _prompt(prompt: object) -> tuple[list[Turn], int | None]:
    """The prompt of a completions request: a text, token ids, or a list with one of them."""
    if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], str | list):
        prompt = prompt[0]
    if isinstance(prompt, str):
        return [("user", clean(prompt))], None
    if isinstance(prompt, list) and prompt and all(type(token) is int for token in prompt):
        return [], len(prompt)
    if isinstance(prompt, list) and len(prompt) > 1:
        raise DataError(f"a request with {len(prompt)} prompts at once: give one prompt a request")
    raise DataError("'prompt' must be a text or a list of token ids")


def _turn(message: object) -> Turn:
    if not isinstance(message, Mapping):
        raise DataError(f"a message must be a JSON object, not {type(message).__name__}")
    if message.get("type") == "function_call_output":
        return "tool", _text(message.get("output"))
    role = message.get("role")
    return (clean(role) if isinstance(role, str) else "user"), _text(message.get("content"))


def _text(content: object) -> str:
    """The text of a message; of one with several parts, the text parts, a line each."""
    if isinstance(content, str):
        return clean(content)
    if not isinstance(content, list):
        return ""
    parts = [part.get("text") if isinstance(part, Mapping) else part for part in content]
    return clean("\n".join(part for part in parts if isinstance(part, str)))


def as_number(value: object) -> float | None:
    """A number in range; anything else (NaN, too) counts as not given."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    # Compared before it is converted: an integer may be too large for a float.
    return float(value) if 0 <= value < OUT_OF_RANGE else None


def as_count(value: object) -> int | None:
    number = as_number(value)
    return None if number is None else int(number)
