"""Real engines with SmolLM2: fixed batches, and a server that `vllm bench serve` drives."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from lengthpred.data.tokens import load_counter
from lengthpred.errors import BackendError
from lengthpred.eval.bench.fig1 import run_on_engine
from lengthpred.eval.bench.offline import LateKeys, OfflineEngine, bench_offline
from lengthpred.eval.bench.online import Fleet, bench_server
from lengthpred.eval.bench.plan import STOCK_ARM
from lengthpred.eval.bench.requests import rows_to_send
from lengthpred.eval.replay.arms import Arm
from lengthpred.eval.replay.settings import OFFLINE, SimulationSettings
from lengthpred.eval.simulate import Simulation
from lengthpred.eval.sqlm_fig1.setting import Fig1Result, Fig1Settings
from lengthpred.models.boosted import Boosted
from lengthpred.ordering import EPOCH_S, priority
from tests.builders import build, synthetic_rows
from tests.eval.fig1_cases import make_fold
from tests.row_tables import write_rows

pytestmark = pytest.mark.vllm
SMALL = ["--enforce-eager", "--max-model-len", "512", "--dtype", "bfloat16"]
TWO_SLOTS = [*SMALL, "--max-num-seqs", "2", "--no-enable-prefix-caching"]


@pytest.fixture(autouse=True)
def small_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")


def test_batches_run_in_the_order_of_their_keys(model: Path, tmp_path: Path) -> None:
    lengths = np.array([40, 5, 30, 12, 60, 20, 8, 50], np.int64)
    prompts = ["Say something"] * len(lengths)
    with OfflineEngine([str(model), *TWO_SLOTS], tmp_path / "log", hears=True) as engine:
        shortest = engine.run(prompts, lengths, lengths.tolist())
        longest = engine.run(prompts, lengths, (-lengths).tolist())
        assert shortest.work.output_tokens.tolist() == lengths.tolist()
        assert (shortest.work.prompt_tokens > 0).all() and shortest.preemptions == 0
        for served, order in ((shortest, lengths), (longest, -lengths)):
            first = served.first_token_s[np.argsort(order)]
            assert (np.diff(first) >= 0).all() and (served.finish_s >= served.first_token_s).all()
        assert shortest.finish_s.mean() < longest.finish_s.mean()
        # All alike at first; the last one is told to be the shortest while the first two run.
        keys = priority(np.full(8, 500.0), np.full(8, EPOCH_S)).tolist()
        late = LateKeys([7], priority([1.0], [EPOCH_S]).tolist(), 0.05)
        served = engine.run(prompts, np.full(8, 60, np.int64), keys, late)
        assert np.argsort(served.first_token_s, kind="stable").tolist().index(7) in (2, 3)


def test_an_engine_that_does_not_start_says_why(model: Path, tmp_path: Path) -> None:
    with (
        pytest.raises(BackendError, match=r"(?s)engine ended.*no-such-option"),
        OfflineEngine([str(model), "--no-such-option"], tmp_path / "log"),
    ):
        pass


def test_orders_are_compared_on_a_server(model: Path, tmp_path: Path) -> None:
    rows = rows_to_send(
        synthetic_rows(60), load_counter(str(model)), model="smol", scale=0.05, max_output_tokens=20
    )
    predictor = build("boosted")
    assert isinstance(predictor, Boosted)
    fleet = Fleet(
        artifacts={"mine": str(predictor.save(tmp_path / "mine"))},
        predictors={"mine": predictor},
        arguments=[str(model), *TWO_SLOTS, "--served-model-name", "smol"],
        options=["--deadline-ms=5000"],
        model="smol",
        tokenizer=str(model),
    )
    settings = SimulationSettings(requests=12, draws=1, engine="vllm-server", arrivals=("burst",))
    known: list[Simulation] = []
    found = bench_server(fleet, rows, ["sjf"], settings, on_draw=known.append)
    assert known == [found] and "requests a second" in found.notes[0]
    arms = {Arm(r.policy, r.predictor) for r in found.results}
    assert arms == {
        *(STOCK_ARM, Arm("fcfs"), Arm("fcfs", "mine"), Arm("prompt-sjf"), Arm("sjf", "mine")),
        *(Arm("sjf", "oracle"), Arm("sjf", "oracle-noise")),
    }
    values = {(r.policy, r.predictor, r.metric): r.value for r in found.results}
    assert values["sjf", "oracle", "mean_ttft_ms_vs_fcfs"] < 1
    assert values["sjf", "oracle", "tau"] == 1 > values["sjf", "mine", "tau"]
    tokens = {value for key, value in values.items() if key[2] == "total_output_tokens"}
    assert len(tokens) == 1


def test_batches_and_the_published_experiment(model: Path) -> None:
    """Every arm runs, once; what is told late arrives."""
    rows = rows_to_send(
        synthetic_rows(60), load_counter(str(model)), scale=0.05, max_output_tokens=20
    )
    settings = SimulationSettings(requests=8, draws=2, engine="vllm-offline", arrivals=("burst",))
    known: list[Simulation] = []
    found = bench_offline(
        {}, rows, ["longest-first"], settings, [str(model), *TWO_SLOTS], on_draw=known.append
    )
    assert [{r.n for r in one.results} for one in known] == [{1}, {2}]
    assert known[-1].results == found.results
    values = {(r.policy, r.predictor, r.metric): r.value for r in found.results}
    assert values["longest-first", "oracle", "mean_e2el_ms_vs_fcfs"] > 0.5
    chosen = Fig1Settings(ratios=(0.5,), engines=(OFFLINE,), requests=8, draws=1)
    kept: list[list[Fig1Result]] = []
    results = run_on_engine(
        [make_fold()], chosen, [str(model), *TWO_SLOTS], scale=0.02, on_draw=kept.append
    )
    assert kept == [results]
    arms = {(r.policy, r.predictor, r.slm) for r in results}
    assert ("sjf", "sqlm", "hidden") in arms and ("sjf", "sqlm-all", "added") in arms
    assert len(arms) == 12
    assert all(r.engine == OFFLINE and r.sum_limit == 2024 for r in results)


def test_a_kill_ends_all(model: Path, tmp_path: Path) -> None:
    table = write_rows(tmp_path / "t.parquet", synthetic_rows(50))
    command = [sys.executable, "-m", "lengthpred.cli", "bench", "--data", table, "--requests", "4"]
    run = subprocess.Popen(
        [*map(str, command), "--", str(model), *TWO_SLOTS],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stderr=subprocess.PIPE,
    )
    end = time.monotonic() + 300
    while not any("startup complete" in log.read_text() for log in tmp_path.glob("*/server.log")):
        assert run.poll() is None and time.monotonic() < end
        time.sleep(0.2)
    assert len(started_in(tmp_path)) > 1
    run.send_signal(signal.SIGTERM)
    run.communicate(timeout=120)
    assert run.returncode == 128 + signal.SIGTERM
    while started_in(tmp_path):
        assert time.monotonic() < end
        time.sleep(0.2)


def started_in(folder: Path) -> list[str]:
    """The processes that have this folder for what is temporary."""
    found = []
    for process in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"TMPDIR={folder}\0".encode() in process.read_bytes():
                found.append(process.parent.name)
        except OSError:  # of others, or gone by now
            pass
    return found
