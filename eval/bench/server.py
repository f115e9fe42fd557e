"""A vLLM server that is started for an experiment, by `lengthpred serve`."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lengthpred.errors import BackendError, SettingsError, require

__all__ = ["ADDRESS", "RunningServer", "check_free", "running_server", "tail"]

ADDRESS = ("--host", "--port", "--uds")

START_S = 1200.0  # large models take their time to load
LOOK_S, STOP_S, ASK_S = 0.5, 30.0, 60.0
LINES = 15


@dataclass(frozen=True)
class RunningServer:
    """A server that answers: where, its process, and the file of what it says."""

    url: str
    process: "subprocess.Popen[bytes]"
    log: Path

    def metric(self, name: str) -> float:
        """The sum of a metric over its labels, or of `name{label="value"}`.

        Raises BackendError where the server is gone.
        """
        httpx = _httpx()
        try:
            text = httpx.get(f"{self.url}/metrics", timeout=ASK_S).text
        except httpx.HTTPError as error:
            raise BackendError(f"the server is gone ({error}){tail(self.log)}") from error
        lines = [line.rsplit(" ", 1) for line in text.splitlines() if line.startswith(name)]
        return sum(float(value) for key, value in lines if name in (key, key.partition("{")[0]))


@contextmanager
def running_server(
    artifact: str,
    arguments: Sequence[str],
    options: Sequence[str],
    log: Path,
    variables: Mapping[str, str] | None = None,
) -> Iterator[RunningServer]:
    """`lengthpred serve ARTIFACT OPTIONS -- ARGUMENTS` until the block ends, on a free port.

    arguments: the model and what else `vllm serve` takes. variables: of the environment, beside
    this process' own. Raises BackendError, with the end of its log, where it does not start, and
    SettingsError for an address among the arguments.
    """
    check_free(arguments, ADDRESS)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "lengthpred.cli", "serve", artifact, *options, "--"]
    command += [*arguments, "--host", "127.0.0.1", "--port", str(port)]
    with log.open("wb") as out:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            env={**os.environ, **(variables or {})},
            start_new_session=True,
        )
        server = RunningServer(f"http://127.0.0.1:{port}", process, log)
        try:
            _wait(server)
            yield server
        finally:
            _stop(process)


def check_free(arguments: Sequence[str], chosen: Sequence[str]) -> None:
    """Raise SettingsError for an argument of vLLM's that is chosen here."""
    for one in arguments:
        name = one.partition("=")[0]
        if name.replace("_", "-") in chosen:
            raise SettingsError(f"{name} is chosen here: leave it out")


def _wait(server: RunningServer) -> None:
    httpx, end = _httpx(), time.monotonic() + START_S
    while server.process.poll() is None and time.monotonic() < end:
        try:
            if httpx.get(f"{server.url}/health", timeout=ASK_S).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        time.sleep(LOOK_S)
    raise BackendError(f"the server did not start{tail(server.log)}")


def _httpx() -> Any:
    return require("httpx", "openai", "Talking to a server")


def _stop(process: "subprocess.Popen[bytes]") -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def tail(log: Path) -> str:
    """The end of a log, to be told after a failure."""
    lines = log.read_text("utf-8", "replace").splitlines()[-LINES:]
    return ":\n" + "\n".join(lines) if lines else ""
