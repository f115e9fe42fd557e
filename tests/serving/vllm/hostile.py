"""Calls that somebody means ill with, from a random generator."""

import gzip
import json
import random
from collections.abc import Iterable
from http.client import HTTPConnection
from typing import Any

__all__ = ["ODD_TARGETS", "hostile", "sent"]

PATHS = ["/v1/chat/completions", "/v1/completions", "/v1/responses", "/invocations", "/v1/messages"]
Call = tuple[str, bytes, list[tuple[str, str]]]
# Other ways to write /v1/completions, of which a server may understand some.
ODD_TARGETS = [
    *("/v1/completions/", "//v1/completions", "/v1//completions", "/v1/../v1/completions"),
    *("/v1/./completions", "/v1%2Fcompletions", "/%761/completions", "/v1/completions%2F"),
    *(
        "/V1/completions",
        "/v1/completions;a=b",
        "/v1/completions?priority=-1",
        "/v1/completions%00",
    ),
    *("/v1/completions%20", "/v1/completions#a", "http://other/v1/completions", "/v1\\completions"),
    *(
        "/llm/v1/completions",
        "/llm/llm/v1/completions",
        "/llmv1/completions",
        "/llm//v1/completions",
    ),
    *("/v1/responses/../completions/cancel", "/v1/responses/%2e%2e/completions", "/metrics/v1"),
]


def hostile(rng: random.Random, *, prompts: int = 400, limit: int | None = None) -> Call:
    """A path, a body and headers.

    prompts: how many one call may hold. limit: of tokens, where the body says none that holds.
    """
    body = rng.choice(_shapes(rng, prompts))
    if isinstance(body, dict) and limit is not None:
        body = {"max_tokens": limit, "max_output_tokens": limit, **body}
    raw = json.dumps(body).encode()
    if rng.random() > 0.6:
        raw = rng.choice(_torn(rng, raw))
    priority = str(rng.choice([-(2**63), -1, 0, "x", 10**40]))
    headers = [(name, priority) for name in rng.choice(NAMES)]
    headers.append(("content-type", rng.choice(TYPES)))
    if rng.random() < 0.5:
        id = rng.choice(["", "a", "x" * 4000, "cmpl-0-0", "\x7f", "1_2", "resp_1"])
        headers.append(("x-request-id", id))
    if rng.random() < 0.1:
        headers.append(("content-encoding", "gzip"))
        raw = rng.choice([raw, gzip.compress(raw)])
    return rng.choice(PATHS), raw, headers


NAMES = [
    ["x-vllm-priority"],
    ["X-Vllm-Priority", "x-vllm-priority"],
    ["X-VLLM-PRIORITY", "x_vllm_priority", "priority"],
]
TYPES = ["application/json"] * 5 + [
    *("application/json; charset=utf-16", "text/plain", "", "application/vnd.api+json"),
    "application/x-www-form-urlencoded",
]


def _shapes(rng: random.Random, prompts: int) -> list[Any]:
    text = rng.choice(["", "a" * rng.randrange(5000), "\ud800", "\x00", "光" * 300, "🙂" * 50])
    first = -(2**63)
    return [
        {"prompt": text, "max_tokens": rng.choice([-1, 0, 10**30, "x", None, 1.5, True, [1]])},
        {"messages": rng.choice([None, {}, [None], [[]], "x", [{"content": [1, {"text": 3}]}]])},
        {"messages": [{"role": rng.choice([1, None, "user"]), "content": text}], "n": -3},
        {"prompt": rng.choice([[], [[]], [None], [1, "a"], [-1], [[1], "x"], {"a": 1}, 7])},
        {"prompt": [text] * rng.randrange(prompts), "n": rng.choice([10**9, "2", 0])},
        {"input": rng.choice([None, [], [{}], [{"type": "function_call_output"}], text])},
        {"prompt": text, "temperature": rng.choice(["NaN", -1, {}]), "model": rng.choice([1, []])},
        {"prompt": text, "sampling": {"priority": first}, "priority": first},
        {"messages": [{"role": "user", "content": text, "priority": first}], "priority": "0"},
        {"messages": [{"role": "user", "content": "a"}], "prompt": text, "input": text},
        {"prompt": text, "tools": _deep(rng.randrange(600)), "stop": _deep(rng.randrange(300))},
        {"prompt": text, "tools": [{"a": text}] * 20, "vllm_xargs": {"priority": first}},
        {"messages": [{"role": "user", "content": text}], "response_format": {"type": "json"}},
        *([], None, 1, "x", {}),
    ]


def _deep(depth: int) -> list[Any]:
    made: list[Any] = []
    for _ in range(depth):
        made = [made]
    return made


def _torn(rng: random.Random, raw: bytes) -> list[bytes]:
    text = raw.decode()
    return [
        *(raw[: rng.randrange(len(raw) + 1)], b"", b"[" * 3000, b"\xff\xfe" + raw, raw + raw),
        *(b'{"prompt": NaN, "max_tokens": Infinity}', b'{"a":' * 500, rng.randbytes(64)),
        *(text.encode("utf-16"), text.encode("utf-32-le"), b"\xef\xbb\xbf" + raw),
        text.replace('"priority"', '"\\u0070riority"').encode(),
    ]


def sent(
    host: str, method: str, target: str, headers: Iterable[tuple[str, str]], body: bytes = b""
) -> int:
    """The status of a call whose target and headers go out as they are written here; 0 where the
    server hung up."""
    connection = HTTPConnection(host, timeout=60)
    try:
        connection.putrequest(method, target)
        for name, value in headers:
            connection.putheader(name, value)
        whole = not any(name == "transfer-encoding" for name, _ in headers)
        if whole:
            connection.putheader("content-length", str(len(body)))
            connection.endheaders(body)
        else:
            pieces = (body[i : i + 7] for i in range(0, len(body), 7))
            connection.endheaders(pieces, encode_chunked=True)
        return connection.getresponse().status
    except ConnectionError:
        return 0
    finally:
        connection.close()
