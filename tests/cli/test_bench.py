"""What `lengthpred bench` refuses before anything is started, and what it keeps when it ends."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

from lengthpred.cli.bench import measure_and_tell
from lengthpred.errors import BackendError
from lengthpred.eval.replay.settings import SimulationSettings
from lengthpred.eval.simulate import Simulation
from tests.builders import synthetic_rows
from tests.cli.commands import refused
from tests.row_tables import write_rows


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "t.parquet", synthetic_rows(50))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--policy", "srpt", "--", "model"], "'srpt' is no policy of a server"),
        (["--policy", "sjv", "--", "model"], "Did you mean 'sjf'?"),
        (["--", "--max-num-seqs", "4"], "name the model"),
        (["--", "model", "--port", "80"], "--port is chosen here"),
        (["--", "model", "--served-model-name=x"], "--served-model-name is chosen here"),
        (["--load", "1", "--rate", "2", "--", "model"], "give one of them"),
        (["--scale", "0", "--", "model"], "--scale must be above 0"),
        (["--arrivals", "trace", "--", "model"], "recorded arrivals cannot be sent"),
        (["--arrivals", "rain", "--", "model"], "'rain' is no kind of arrivals"),
        (["--samples", "s", "--", "model"], "--samples has no effect here, it needs --experiment"),
        (["--offline", "--load", "1", "--", "model"], "--load has no effect here, --offline runs"),
        (["--offline", "--scheduler", "--", "model"], "--scheduler has no effect here"),
        (
            ["--experiment", "sqlm-fig1", "--policy", "sjf", "--", "model"],
            "--policy has no effect here, the experiment sets that itself",
        ),
        (
            ["--experiment", "sqlm-fig1", "--hold-ms", "5", "--", "model"],
            "--hold-ms has no effect here",
        ),
    ],
)
def test_what_cannot_be_measured(table: Path, options: list[str], said: str) -> None:
    assert said in refused("bench", "--data", table, *options)


@pytest.mark.skipif(find_spec("vllm") is not None, reason="vLLM is installed here")
def test_without_vllm_it_says_what_to_install(table: Path) -> None:
    assert "pip install 'lengthpred[vllm]'" in refused("bench", "--data", table, "--", "model")


@pytest.mark.parametrize("end", [KeyboardInterrupt(), SystemExit(143), BackendError("gone")])
@pytest.mark.parametrize("draws", [0, 2])
def test_what_ends_early_tells_its_draws(end: BaseException, draws: int) -> None:
    told: list[Simulation] = []

    def measure(
        on_progress: Callable[[str, int, int], None], on_draw: Callable[[Simulation], None]
    ) -> Simulation:
        for _ in range(draws):
            on_draw(Simulation(SimulationSettings(), [], ["of the engine"], {}))
        raise end

    with pytest.raises(type(end)):
        measure_and_tell(measure, ["of the rows"], 3, told.append)
    ended = "Ended after 2 of 3 draws, which are told here."
    assert [one.notes for one in told] == [["of the engine", "of the rows", ended]] * (draws > 0)


def test_what_ends_well_is_told_once() -> None:
    told: list[Simulation] = []

    def measure(
        on_progress: Callable[[str, int, int], None], on_draw: Callable[[Simulation], None]
    ) -> Simulation:
        known = [Simulation(SimulationSettings(), [], [], {}) for _ in range(3)]
        for one in known:
            on_draw(one)
        return known[-1]

    measure_and_tell(measure, ["of the rows"], 3, told.append)
    assert [one.notes for one in told] == [["of the rows"]]
