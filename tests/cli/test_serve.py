"""`lengthpred serve`: what it refuses before a server is started, and what it hands over."""

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from lengthpred.serving.settings import ServingSettings
from lengthpred.serving.vllm import launch
from tests.cli.commands import answered, refused


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


def test_vllm_finds_the_environment_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the other commands set for their own libraries would slow vLLM down."""
    ours = ("OMP_WAIT_POLICY", "TQDM_DISABLE")
    for name in ours:
        monkeypatch.delenv(name, raising=False)
    started: list[Mapping[str, str]] = []
    monkeypatch.setattr(os, "execve", lambda path, call, variables: started.append(variables))
    answered("serve", "default", "--policy", "gittins", "--", "m")
    (variables,) = started
    assert variables["LENGTHPRED_POLICY"] == "gittins" and variables.keys().isdisjoint(ours)


def test_what_is_said_outdoes_the_environment_even_where_it_is_the_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said = {"ARTIFACT": "nowhere", "POLICY": "fcfs", "SOCKETS": "/x", "FEEDBACK_MB": "7"}
    for name, value in {**said, "DEADLINE_MS": "40"}.items():
        monkeypatch.setenv(f"LENGTHPRED_{name}", value)
    started: list[Mapping[str, str]] = []
    monkeypatch.setattr(os, "execve", lambda path, call, variables: started.append(variables))
    answered("serve", "default", "--policy", "sjf", "--deadline-ms", "25", "--", "m")
    answered("serve", "default", "--", "m")
    found = [ServingSettings.from_environment(variables) for variables in started]
    assert [one.policy for one in found] == ["sjf", "fcfs"]
    assert [one.deadline_ms for one in found] == [25, 40]
    for one in found:
        assert (one.artifact, one.sockets, one.feedback_mb) == ("default", None, 7)


def test_a_misspelt_variable_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LENGTHPRED_POLICI", "fcfs")
    assert "Did you mean 'LENGTHPRED_POLICY'?" in refused("serve", "default", "--", "m")
