"""Our scheduler in a real engine, in a process that was spawned: order, late news, who yields."""

import json
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
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
    queued,
    running_server,
    still,
    two_long_answers,
)

pytestmark = pytest.mark.vllm
LONG = 280  # too little to yield for, by itself
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

    with (
        running_server(artifact, model, tmp_path / "log", options, more) as server,
        ThreadPoolExecutor(len(LENGTHS)) as pool,
        two_long_answers(server, tokens=LONG) as long_ones,
    ):
        calls = queued(server, pool, [partial(ask, server, length) for length in LENGTHS])
        with still(server):
            outbox = Outbox(next(folder.glob("lengthpred-*")))
            # One will be short after all, and one that runs as long as can be: it yields.
            for name, cost in (("call52", 0.0), ("long1", 4000.0)):
                outbox.tell(name, int(priority([cost], [time.time()], ageless)[0]))
        written = [call.result() for call in calls]
        assert [_written(lines) for lines in long_ones] == [LONG, LONG]
        assert server.metric("vllm:num_preemptions_total") == 1
        [order] = answers_in(server, tmp_path / "kept").values()
        said = server.log.read_text()
    assert outbox.sent == 2 and outbox.dropped == 0
    assert written == LENGTHS
    done = [length for length in order if length != LONG]
    assert done.index(52) < 3
    done.remove(52)
    assert done == sorted(set(LENGTHS) - {52})
    assert "Traceback" not in said and "ERROR" not in said


def _written(lines: Iterator[str]) -> int:
    """The tokens that a stream counts at its end."""
    told = [line.removeprefix("data: ") for line in lines if line.startswith("data: {")]
    return int(json.loads(told[-1])["usage"]["completion_tokens"])
