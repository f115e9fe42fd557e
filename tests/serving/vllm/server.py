"""A real vLLM server with SmolLM2-135M on this machine, started by `lengthpred serve`."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.smollm2 import smollm2_path

__all__ = ["Running", "running_server", "saved_model"]

START_S = 400.0


@dataclass(frozen=True)
class Running:
    """A server that takes requests: where, its process, and what it has said so far."""

    url: str
    process: "subprocess.Popen[bytes]"
    log: Path

    def metric(self, name: str) -> float:
        """The sum of a metric over its labels; with labels, as `name{label="value"}`."""
        text = httpx.get(f"{self.url}/metrics", timeout=60).text
        lines = [line.rsplit(" ", 1) for line in text.splitlines() if line.startswith(name)]
        return sum(float(value) for key, value in lines if key == name or key[len(name)] == "{")


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


@contextmanager
def running_server(
    artifact: Path, model: Path, log: Path, options: Sequence[str] = (), more: Sequence[str] = ()
) -> Iterator[Running]:
    """A server until the block ends; `options` are ours, `more` vLLM's."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ours = [sys.executable, "-m", "lengthpred.cli", "serve", str(artifact), *options, "--"]
    theirs = [str(model), "--served-model-name", "smol", "--host", "127.0.0.1", "--port", str(port)]
    theirs += ["--enforce-eager", "--max-model-len", "1024", "--dtype", "bfloat16", *more]
    environment = {**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1"}
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*ours, *theirs],
            stdout=out,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
        try:
            running = Running(f"http://127.0.0.1:{port}", process, log)
            _wait(running)
            yield running
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _wait(running: Running) -> None:
    end = time.monotonic() + START_S
    while True:
        assert running.process.poll() is None, running.log.read_text()[-5000:]
        assert time.monotonic() < end, running.log.read_text()[-5000:]
        try:
            if httpx.get(f"{running.url}/health", timeout=5).status_code == 200:
                return
        except httpx.HTTPError:
            time.sleep(1)
