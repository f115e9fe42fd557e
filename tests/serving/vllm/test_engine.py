"""Our scheduler in a real engine, in a process that was spawned: order, late news, who yields."""

import json
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import pytest

from lengthpred.models.conformal import Conformal
from lengthpred.ordering import OrderingSettings, priority
from lengthpred.serving.news import Outbox
from tests.builders import build
from tests.serving.vllm.server import (
    AGELESS,
    AGELESS_S,
    CLIENT,
    Running,
    answers_in,
    forced,
    paused,
    queued,
    running_server,
)

pytestmark = pytest.mark.vllm
LONG = 500  # tokens: they run on while the others come, however busy the machine
LENGTHS = [60, 8, 44, 24, 4, 52, 16, 32, 12, 36]


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the server makes its sockets; their paths must be short."""
    with tempfile.TemporaryDirectory() as made:
        monkeypatch.setenv("TMPDIR", made)
        yield Path(made)


def test_a_spawned_engine_orders_hears_and_yields(
    folder: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two slots, held by two long answers, and ten shorter ones that wait."""
    monkeypatch.setenv("VLLM_WORKER_MULTIPROC_METHOD", "spawn")
    artifact = Conformal(build("boosted")).save(tmp_path / "artifact")  # type: ignore[arg-type]
    ageless = OrderingSettings(max_overtake_s=AGELESS_S)
    options = ["--scheduler", "--srpt", *AGELESS, "--feedback", str(tmp_path / "kept")]
    more = ["--max-num-seqs", "2"]

    def ask(server: Running, length: int) -> int:
        body = forced(length)
        name = {"X-Request-Id": f"call{length}"}
        answer = CLIENT.post(f"{server.url}/v1/completions", json=body, headers=name)
        return int(answer.json()["usage"]["completion_tokens"])

    def tell(name: str, cost: float) -> None:
        outbox.tell(name, int(priority([cost], [time.time()], ageless)[0]))

    with (
        running_server(artifact, model, tmp_path / "log", options, more) as server,
        ThreadPoolExecutor(len(LENGTHS)) as pool,
        two_long_answers(server) as long_ones,
    ):
        outbox = Outbox(next(folder.glob("lengthpred-*")))
        for name in ("long0", "long1"):
            tell(name, 1.0)  # has written nearly all, as it seems, and keeps its slot
        with paused(server):
            calls = queued(server, pool, [partial(ask, server, length) for length in LENGTHS])
            tell("call52", 0.0)  # will be short after all
            tell("long1", 4000.0)  # runs as long as can be: it yields
        written = [call.result() for call in calls]
        assert [_written(lines) for lines in long_ones] == [LONG, LONG]
        assert server.metric("vllm:num_preemptions_total") == 1
        [order] = answers_in(server, tmp_path / "kept").values()
        said = server.log.read_text()
    assert outbox.sent == 4 and outbox.dropped == 0
    assert written == LENGTHS
    done = [length for length in order if length != LONG]
    assert done == [52, *sorted(set(LENGTHS) - {52})]
    assert "Traceback" not in said and "ERROR" not in said


@contextmanager
def two_long_answers(server: Running) -> Iterator[list[Iterator[str]]]:
    """Named long0 and long1; they run when the block begins. Gives their lines."""
    body = forced(LONG, stream=True, stream_options={"include_usage": True})
    lines = []
    with ExitStack() as streams:
        for name in ("long0", "long1"):
            url, told = f"{server.url}/v1/completions", {"X-Request-Id": name}
            answer = streams.enter_context(CLIENT.stream("POST", url, json=body, headers=told))
            assert answer.status_code == 200, answer.read()
            lines.append(answer.iter_lines())  # which must be kept: without, the stream is closed
            next(lines[-1])
        yield lines


def _written(lines: Iterator[str]) -> int:
    """The tokens that a stream counts at its end."""
    told = [line.removeprefix("data: ") for line in lines if line.startswith("data: {")]
    return int(json.loads(told[-1])["usage"]["completion_tokens"])
