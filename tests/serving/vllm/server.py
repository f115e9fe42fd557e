"""A real vLLM server with SmolLM2-135M on this machine, started by `lengthpred serve`."""

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx

from lengthpred.eval.bench.server import RunningServer as Running
from lengthpred.eval.bench.server import running_server as started
from lengthpred.eval.bench.server import tail
from tests.smollm2 import smollm2_path

__all__ = [
    "AGELESS",
    "AGELESS_S",
    "CLIENT",
    "WAIT_S",
    "Running",
    "answers_in",
    "answers_of",
    "forced",
    "known",
    "paused",
    "process_of",
    "queued",
    "running_server",
    "saved_model",
    "wait_for",
]

WAIT_S = 120.0
LOOK_S = 0.05
ADDED = "Added request"  # what vLLM says of one that it handed to its engine
# Nobody is to gain by having come first, however slowly a busy machine takes them in.
AGELESS_S = 1e6
AGELESS = ["--max-overtake-s", f"{AGELESS_S:g}"]
Result = TypeVar("Result")
# One for all, as making it takes so long that calls would arrive seconds apart; a connection each,
# as several API servers share those out.
CLIENT = httpx.Client(timeout=WAIT_S, headers={"connection": "close"})


def saved_model(folder: Path) -> Path:
    """SmolLM2-135M-Instruct as vLLM reads it: from the GGUF file to safetensors."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    gguf = smollm2_path()
    told = {"gguf_file": gguf.name}
    AutoTokenizer.from_pretrained(gguf.parent, **told).save_pretrained(folder)
    as_floats = GgufConfig(dequantize=True)
    model = AutoModelForCausalLM.from_pretrained(gguf.parent, quantization_config=as_floats, **told)
    model.bfloat16().save_pretrained(folder)
    return folder


def running_server(
    artifact: Path, model: Path, log: Path, options: Sequence[str] = (), more: Sequence[str] = ()
) -> AbstractContextManager[Running]:
    """A server until the block ends; `options` are ours, `more` vLLM's. It can be paused."""
    theirs = [str(model), "--served-model-name", "smol", "--enforce-eager"]
    theirs += ["--max-model-len", "1024", "--dtype", "bfloat16", "--enable-log-requests", *more]
    variables = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_SERVER_DEV_MODE": "1"}
    return started(str(artifact), theirs, options, log, variables)


def wait_for(server: Running, true: Callable[[], Any]) -> None:
    """Until it is true. What the server counted and said last is told where it never is."""
    end = time.monotonic() + WAIT_S
    while not true():
        if time.monotonic() > end:
            counted = {name: server.metric(name) for name in TOLD}
            raise AssertionError(f"after {WAIT_S:g} s: {counted}{tail(server.log)}")
        time.sleep(LOOK_S)


TOLD = (
    "lengthpred_calls_total",
    "lengthpred_pending",
    "vllm:num_requests_running",
    "vllm:num_requests_waiting",
    "vllm:generation_tokens_total",
)


def answers_of(
    server: Running,
    kept: Path,
    asks: Sequence[Callable[[], None]],
    headers: Mapping[str, str] | None = None,
) -> list[list[int]]:
    """Ask while a server is paused, so that all wait in its engine when it goes on.

    Gives the lengths of the answers in the order in which the server had them, a list for each of
    its API servers: when a client has an answer says little on a busy machine.
    """
    before = answers_in(server, kept)
    with ThreadPoolExecutor(len(asks)) as pool:
        with paused(server, headers):
            calls = queued(server, pool, asks)
        for call in calls:
            call.result()
    after = answers_in(server, kept)
    return [lengths[len(before.get(file, [])) :] for file, lengths in after.items()]


def answers_in(server: Running, kept: Path) -> dict[str, list[int]]:
    """The lengths in each file of a folder of feedback, in order, when all calls are in it."""
    wait_for(
        server,
        lambda: (
            server.metric("lengthpred_pending") == 0
            and sum(map(len, _lengths(kept).values())) == known(server)
        ),
    )
    return _lengths(kept)


def known(server: Running) -> float:
    """How many answers' true lengths came back."""
    return server.metric('lengthpred_true_lengths_total{result="known"}')


def _lengths(kept: Path) -> dict[str, list[int]]:
    texts = {file.name: file.read_text() for file in sorted(kept.glob("lengths-*.jsonl"))}
    return {
        name: [json.loads(row)["output_tokens"][0] for row in text.splitlines()]
        for name, text in texts.items()
    }


@contextmanager
def paused(server: Running, headers: Mapping[str, str] | None = None) -> Iterator[None]:
    """The engine takes calls in and makes no step until the block ends."""
    keep = {"mode": "keep", "clear_cache": "false"}
    CLIENT.post(f"{server.url}/pause", params=keep, headers=headers).raise_for_status()
    try:
        yield
    finally:
        CLIENT.post(f"{server.url}/resume", headers=headers).raise_for_status()


def queued(
    server: Running, pool: Executor, asks: Sequence[Callable[[], Result]]
) -> list[Future[Result]]:
    """Calls to a server that is paused, when all of them were handed to its engine."""
    handed = server.log.read_text().count(ADDED) + len(asks)
    calls = [pool.submit(ask) for ask in asks]
    wait_for(server, lambda: server.log.read_text().count(ADDED) == handed)
    return calls


def forced(tokens: int, **more: object) -> dict[str, object]:
    """A completion of so many tokens, whatever the model would write."""
    body = {"model": "smol", "prompt": "x", "max_tokens": tokens, "ignore_eos": True}
    return {**body, **more}


def process_of(server: Running, name: bytes) -> int:
    """The one process of a server whose command has a name in it."""
    pids = [int(folder.name) for folder in Path("/proc").glob("[0-9]*")]
    found = [p for p in pids if name in _command(p) and _session(p) == server.process.pid]
    assert len(found) == 1
    return found[0]


def _session(pid: int) -> int:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return -1


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
