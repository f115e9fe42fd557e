"""With what vLLM can switch on beside it: each call answers, in order, and tells its length."""

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.builders import build
from tests.serving.vllm.server import (
    AGELESS,
    CLIENT,
    WAIT_S,
    Running,
    answers_in,
    answers_of,
    forced,
    known,
    running_server,
    wait_for,
)

pytestmark = pytest.mark.vllm
TOOLS = ["--enable-auto-tool-choice", "--tool-call-parser", "hermes"]
# A small model else fills JSON with white space until its limit.
TIGHT = {"backend": "xgrammar", "disable_any_whitespace": True}
TOOLS += ["--structured-outputs-config", json.dumps(TIGHT)]
SHARED = ["--enable-prefix-caching", "--enable-chunked-prefill", "--max-num-batched-tokens", "128"]
SEVERAL = ["--api-server-count", "2"]
DRAFTS = {"method": "ngram", "num_speculative_tokens": 3, "prompt_lookup_max": 4}
SPECULATING = ["--speculative-config", json.dumps(DRAFTS)]
LENGTHS = [48, 8, 32, 20, 4, 40, 14]

HI: dict[str, Any] = {"model": "smol", "messages": [{"role": "user", "content": "Hi"}]}
CHAT = {**HI, "max_tokens": 6, "temperature": 0}
LONG = {"model": "smol", "prompt": "word " * 600, "max_tokens": 4}
AGE: dict[str, Any] = {"type": "object", "properties": {"age": {"enum": [7, 42]}}}
AGE |= {"required": ["age"], "additionalProperties": False}
FORMAT = {"type": "json_schema", "json_schema": {"name": "age", "schema": AGE}}
TOOL = {"type": "function", "function": {"name": "tell_age", "parameters": AGE}}
CHOSEN = {"type": "function", "function": {"name": "tell_age"}}
CALLS: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": ("/v1/chat/completions", CHAT),
    "several answers": ("/v1/chat/completions", {**HI, "max_tokens": 6, "n": 3}),
    "several prompts": ("/v1/completions", {"model": "smol", "prompt": ["a", "b"]}),
    "a prompt in chunks": ("/v1/completions", LONG),
    "a prompt that is known": ("/v1/completions", LONG),
    "JSON": ("/v1/chat/completions", {**CHAT, "max_tokens": 60, "response_format": FORMAT}),
    "a tool": (
        "/v1/chat/completions",
        {**CHAT, "max_tokens": 60, "tools": [TOOL], "tool_choice": CHOSEN},
    ),
    "a tool or none": ("/v1/chat/completions", {**CHAT, "tools": [TOOL]}),
    "a stop": ("/v1/completions", {"model": "smol", "prompt": "1 2 3", "stop": ["e"]}),
    "messages": ("/v1/messages", CHAT),
    "response": ("/v1/responses", {"model": "smol", "input": "Hi", "max_output_tokens": 4}),
    "invocation": ("/invocations", CHAT),
}
ANSWERS = {"several answers": 3, "several prompts": 2}


@pytest.fixture(scope="module", params=["shared", "speculating"])
def server(
    request: pytest.FixtureRequest, model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp(request.param)
    artifact = build("histogram").save(folder / "artifact")
    more = ["--max-num-seqs", "2", *TOOLS]
    if request.param == "shared":
        named = f"tiny={adapter(model, folder / 'tiny')}"
        more += [
            *SHARED,
            *SEVERAL,
            "--enable-lora",
            "--max-lora-rank",
            "8",
            "--lora-modules",
            named,
        ]
    else:
        more += SPECULATING
    ours = ["--feedback", str(folder / "kept"), *AGELESS]
    with running_server(artifact, model, folder / "log", ours, more) as running:
        yield running


def adapter(model: Path, folder: Path) -> Path:
    """A LoRA adapter of noise, in the form of PEFT's."""
    told = json.loads((model / "config.json").read_text())
    width, rng = told["hidden_size"], np.random.default_rng(0)
    parts = {}
    for layer in range(told["num_hidden_layers"]):
        for name, heads in (("q", "num_attention_heads"), ("v", "num_key_value_heads")):
            stem = f"base_model.model.model.layers.{layer}.self_attn.{name}_proj"
            out = told[heads] * told["head_dim"]
            for part, shape in (("A", (8, width)), ("B", (out, 8))):
                noise = 0.1 * rng.standard_normal(shape)
                parts[f"{stem}.lora_{part}.weight"] = noise.astype(np.float32)
    folder.mkdir()
    save_file(parts, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 8, "lora_alpha": 16, "bias": "none"}
    config |= {"task_type": "CAUSAL_LM", "target_modules": ["q_proj", "v_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def post(server: Running, path: str, body: object) -> Any:
    answer = CLIENT.post(f"{server.url}{path}", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def stream(server: Running, path: str, body: dict[str, Any]) -> list[str]:
    url, streaming = f"{server.url}{path}", {**body, "stream": True}
    with httpx.stream("POST", url, json=streaming, timeout=WAIT_S) as answer:
        assert answer.status_code == 200
        return [line for line in answer.iter_lines() if line.startswith("data:")]


def test_each_call_answers_and_its_length_comes_back(server: Running) -> None:
    before = known(server)
    with ThreadPoolExecutor(4) as pool:
        waiting = {name: pool.submit(post, server, *call) for name, call in CALLS.items()}
        answers = {name: call.result() for name, call in waiting.items()}
    told = before + sum(ANSWERS.get(name, 1) for name in CALLS)
    wait_for(server, lambda: known(server) == told)
    assert server.metric("lengthpred_pending") == 0
    written = answers["JSON"]["choices"][0]["message"]["content"]
    assert json.loads(written).keys() == {"age"}


def test_so_does_each_that_streams(server: Running) -> None:
    before = known(server)
    streaming = ("chat", "several answers", "several prompts", "a tool", "messages", "response")
    for name in streaming:
        assert len(stream(server, *CALLS[name])) > 1
    told = before + sum(ANSWERS.get(name, 1) for name in streaming)
    wait_for(server, lambda: known(server) == told)
    assert server.metric('lengthpred_true_lengths_total{result="unknown"}') == 0


def test_short_ones_come_first(server: Running) -> None:
    """Of what waits for one of two slots the shortest is done first."""
    models = ["smol", "tiny"] if _on(server, "--enable-lora") else ["smol"]

    def ask(length: int, model: str) -> None:
        post(server, "/v1/completions", forced(length, model=model))

    asks = [partial(ask, n, models[i % len(models)]) for i, n in enumerate(LENGTHS)]
    orders = answers_of(server, server.log.parent / "kept", asks)
    assert sorted(length for order in orders for length in order) == sorted(LENGTHS)
    assert disordered(orders) <= 1, orders


def disordered(orders: Sequence[Sequence[int]]) -> int:
    """How many pairs in a list came the longer first."""
    return sum(one > other for order in orders for one, other in combinations(order, 2))


def test_all_of_it_was_switched_on(server: Running) -> None:
    if _on(server, "--speculative-config"):
        said = "the cat sat on the mat and the dog sat on the mat. " * 8
        post(server, "/v1/completions", {"model": "smol", "prompt": said, "max_tokens": 20})
        assert server.metric("vllm:spec_decode_num_drafts_total") > 0
    else:
        assert server.metric("vllm:prefix_cache_hits_total") >= 512
        assert "enabled with max_num_batched_tokens=128" in server.log.read_text()
        one, other = ({**CHAT, "model": name} for name in ("smol", "tiny"))
        texts = [
            post(server, "/v1/chat/completions", body)["choices"][0]["message"]["content"]
            for body in (one, other)
        ]
        assert texts[0] != texts[1]
        # Each API server predicted, and had lengths told.
        small = {"model": "smol", "prompt": "a", "max_tokens": 2}
        ask = partial(post, server, "/v1/completions", small)
        with ThreadPoolExecutor(8) as pool:
            for call in [pool.submit(ask) for _ in range(16)]:
                call.result()
        kept = answers_in(server, server.log.parent / "kept")
        assert [bool(lengths) for lengths in kept.values()] == [True, True]
    # vLLM logs as an error what this small model writes in place of a tool call.
    log = server.log.read_text()
    assert "lengthpred/serving" not in log and "Exception in ASGI" not in log


def _on(server: Running, option: str) -> bool:
    return option.encode() in Path(f"/proc/{server.process.pid}/cmdline").read_bytes()
