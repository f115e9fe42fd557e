"""Our scheduler in a real engine, in a process that was spawned: order, late news, who yields."""

import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from lengthpred.metrics import tau
from lengthpred.models.conformal import Conformal
from lengthpred.ordering import OrderingSettings, priority
from lengthpred.serving.news import Outbox
from tests.builders import build
from tests.serving.vllm.server import Running, running_server

pytestmark = pytest.mark.vllm
LENGTHS = [60, 8, 44, 24, 4, 52, 16, 32, 12, 36]
LONG = 900  # which leaves half a minute to queue the others behind it
WAIT_S = 300.0


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the server makes its sockets; their paths must be short."""
    with tempfile.TemporaryDirectory() as made:
        monkeypatch.setenv("TMPDIR", made)
        yield Path(made)


def wait_until(server: Running, metric: str, value: float) -> None:
    end = time.monotonic() + WAIT_S
    while server.metric(metric) != value:
        assert time.monotonic() < end, server.log.read_text()[-5000:]
        time.sleep(0.1)


def test_a_spawned_engine_orders_hears_and_yields(
    folder: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two slots, held by two long answers, and ten shorter ones that wait."""
    monkeypatch.setenv("VLLM_WORKER_MULTIPROC_METHOD", "spawn")
    artifact = Conformal(build("boosted")).save(tmp_path / "artifact")  # type: ignore[arg-type]
    # Nobody is to gain by having come first, however slowly a busy machine takes them in.
    ageless = OrderingSettings(max_overtake_s=1e6)
    options = ["--scheduler", "--srpt", "--max-overtake-s", "1e6"]
    more, done = ["--max-num-seqs", "2"], list[str]()
    with (
        running_server(artifact, model, tmp_path / "log", options, more) as server,
        httpx.Client(base_url=server.url, timeout=WAIT_S) as client,
        ThreadPoolExecutor(16) as pool,
    ):

        def ask(name: str, length: int) -> int:
            body = {"model": "smol", "prompt": "x", "max_tokens": length, "ignore_eos": True}
            answer = client.post("/v1/completions", json=body, headers={"X-Request-Id": name})
            done.append(name)
            return int(answer.json()["usage"]["completion_tokens"])

        calls = {f"long{i}": pool.submit(ask, f"long{i}", LONG) for i in range(2)}
        wait_until(server, "vllm:num_requests_running", 2)
        calls |= {f"call{n}": pool.submit(ask, f"call{n}", n) for n in LENGTHS}
        wait_until(server, "vllm:num_requests_waiting", len(LENGTHS))
        outbox = Outbox(next(folder.glob("lengthpred-*")))
        # One will be short after all, and one that runs as long as can be: it yields.
        for name, cost in (("call52", 0.0), ("long1", 4000.0)):
            outbox.tell(name, int(priority([cost], [time.time()], ageless)[0]))
        written = {name: call.result() for name, call in calls.items()}
        assert server.metric("vllm:num_preemptions_total") == 1
        said = server.log.read_text()
    assert outbox.sent == 2 and outbox.dropped == 0
    assert written == {"long0": LONG, "long1": LONG} | {f"call{n}": n for n in LENGTHS}
    short = [int(name[4:]) for name in done if name.startswith("call")]
    assert short.index(52) < 3
    short.remove(52)
    assert tau(list(range(len(short))), short) > 0.8
    assert "Traceback" not in said and "ERROR" not in said
