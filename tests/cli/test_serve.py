"""`lengthpred serve`: what it refuses before a server is started."""

from pathlib import Path

import pytest

from lengthpred.serving.vllm import launch
from tests.cli.commands import refused


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if vLLM were there: what is tested comes before it would be started."""
    monkeypatch.setattr(launch, "check_vllm", lambda: "0.32.0")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere", "--", "m"], "no such folder"),
        (["default", "--", "m", "--scheduling-policy", "fcfs"], "ignores priorities"),
        (["default", "--policy", "srpt", "--", "m"], "policy"),
        (["default", "--deadline-ms", "0", "--", "m"], "deadline_ms"),
        (["default", "--feedback", "FILE", "--", "m"], "FILE"),
        (["default", "--arms", "FILE.toml", "--", "m"], "FILE.toml"),
    ],
)
def test_bad_input_is_said_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("FILE").write_text("")
    assert said in refused("serve", *arguments)
