"""On a real vLLM of two API servers: each answers /metrics for both, as docs/grafana.json asks."""

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.builders import build
from tests.serving.vllm.server import WAIT_S, Running, known, running_server, wait_for

pytestmark = pytest.mark.vllm
BOARD = Path(__file__).parents[3] / "docs/grafana.json"
CALLS = 24


@pytest.fixture(scope="module")
def server(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("servers")
    artifact = build("boosted").save(folder / "artifact")
    more = ["--api-server-count", "2"]
    with running_server(artifact, model, folder / "log", more=more) as running:
        yield running


def ask(server: Running) -> None:
    """By a connection of its own: that is what is shared out between the API servers."""
    body = {"model": "smol", "prompt": "list of x", "max_tokens": 3}
    answer = httpx.post(f"{server.url}/v1/completions", json=body, timeout=WAIT_S)
    assert answer.status_code == 200, answer.text


def test_what_both_count_is_one_number(server: Running) -> None:
    with ThreadPoolExecutor(8) as pool:
        for call in [pool.submit(ask, server) for _ in range(CALLS)]:
            call.result()
    wait_for(server, lambda: known(server) == CALLS)
    for _ in range(8):  # whichever of them answers
        assert server.metric('lengthpred_calls_total{place="predicted"}') == CALLS
        assert server.metric("lengthpred_prediction_seconds_count") == CALLS
        assert server.metric("lengthpred_pending") == 0
    text = httpx.get(f"{server.url}/metrics", timeout=60).text
    assert len(set(re.findall(r'^lengthpred_tau\{pid="(\d+)"\}', text, re.MULTILINE))) == 2


def test_the_dashboard_asks_for_what_is_served(server: Running) -> None:
    ask(server)
    panels = json.loads(BOARD.read_text("utf-8"))["panels"]
    asked = " ".join(t["expr"] for panel in panels for t in panel.get("targets", ()))
    names = set(re.findall(r"(?:lengthpred_|vllm:)\w+", asked))
    text = httpx.get(f"{server.url}/metrics", timeout=60).text
    served = set(re.findall(r"^([\w:]+)[{ ]", text, re.MULTILINE))
    assert len(names) > 15 and names <= served, names - served
