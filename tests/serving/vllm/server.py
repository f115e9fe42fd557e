"""A real vLLM server with SmolLM2-135M on this machine, started by `lengthpred serve`."""

import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx

from lengthpred.eval.bench.server import RunningServer as Running
from lengthpred.eval.bench.server import running_server as started
from lengthpred.eval.bench.server import tail
from tests.smollm2 import smollm2_path

__all__ = [
    "CLIENT",
    "WAIT_S",
    "Running",
    "answer_behind_two",
    "placed",
    "running_server",
    "saved_model",
    "still",
    "two_long_answers",
    "wait_for",
]

WAIT_S = 120.0
LONG = 900  # tokens: half a minute, or less
Result = TypeVar("Result")
REACH_S = 1.0  # from the middleware to the engine, which is all that a call does meanwhile
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
    """A server until the block ends; `options` are ours, `more` vLLM's."""
    theirs = [str(model), "--served-model-name", "smol", "--enforce-eager"]
    theirs += ["--max-model-len", "1024", "--dtype", "bfloat16", *more]
    return started(str(artifact), theirs, options, log, {"VLLM_CPU_KVCACHE_SPACE": "1"})


def wait_for(server: Running, true: Callable[[], Any]) -> None:
    """Until it is true. What the server counted and said last is told where it never is."""
    end = time.monotonic() + WAIT_S
    while not true():
        if time.monotonic() > end:
            counted = {name: server.metric(name) for name in TOLD}
            raise AssertionError(f"after {WAIT_S:g} s: {counted}{tail(server.log)}")
        time.sleep(0.2)


TOLD = (
    "lengthpred_calls_total",
    "lengthpred_pending",
    "vllm:num_requests_running",
    "vllm:num_requests_waiting",
    "vllm:generation_tokens_total",
)


def answer_behind_two(
    server: Running, asks: Sequence[Callable[[], None]], headers: Mapping[str, str] | None = None
) -> None:
    """Ask all at once while two long answers hold the two slots of a server; until all are done.

    None is begun before all wait, however slow the machine: the engine stands still meanwhile.
    """
    with ThreadPoolExecutor(len(asks)) as pool:
        with two_long_answers(server, headers), still(server):
            calls = placed(server, pool, asks)
        for call in calls:
            call.result()


def placed(
    server: Running, pool: Executor, asks: Sequence[Callable[[], Result]]
) -> list[Future[Result]]:
    """Calls to a server that stands still, when all of them wait for it."""
    counted = server.metric("lengthpred_calls_total") + len(asks)
    calls = [pool.submit(ask) for ask in asks]
    wait_for(server, lambda: server.metric("lengthpred_calls_total") == counted)
    time.sleep(REACH_S)
    for call in calls:
        assert not call.done(), call.result()
    return calls


@contextmanager
def two_long_answers(
    server: Running, headers: Mapping[str, str] | None = None, tokens: int = LONG
) -> Iterator[list[Iterator[str]]]:
    """Named long0 and long1; they run when the block begins. Gives their lines."""
    body = {"model": "smol", "prompt": "x", "max_tokens": tokens, "ignore_eos": True}
    body |= {"stream": True, "stream_options": {"include_usage": True}}
    lines = []
    with ExitStack() as streams:
        for name in ("long0", "long1"):
            told = {**(headers or {}), "X-Request-Id": name}
            url = f"{server.url}/v1/completions"
            answer = streams.enter_context(CLIENT.stream("POST", url, json=body, headers=told))
            assert answer.status_code == 200, answer.read()
            lines.append(answer.iter_lines())  # which must be kept: without, the stream is closed
            next(lines[-1])
        yield lines


@contextmanager
def still(server: Running) -> Iterator[None]:
    """The engine is stopped until the block ends; what comes meanwhile waits for it."""
    engines = [pid for pid in _session_of(server.process.pid) if b"EngineCore" in _command(pid)]
    assert len(engines) == 1
    os.kill(engines[0], signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(engines[0], signal.SIGCONT)


def _session_of(leader: int) -> list[int]:
    pids = [int(folder.name) for folder in Path("/proc").glob("[0-9]*")]
    return [pid for pid in pids if _session(pid) == leader]


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
