"""The command line and environment that start vLLM with lengthpred in it."""

import hashlib
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lengthpred.errors import SettingsError, require
from lengthpred.serving.arms import ToldOrderer, read_arms
from lengthpred.serving.feedback import FeedbackLog
from lengthpred.serving.order import asker_of
from lengthpred.serving.settings import VARIABLES, ServingSettings
from lengthpred.serving.vllm.version import check_vllm

__all__ = ["WATERMARK", "check", "check_vllm", "command", "environment", "scheduler_class", "start"]

MIDDLEWARE = "lengthpred.serving.vllm.middleware.LengthPriorityMiddleware"
SCHEDULERS = tuple(
    f"lengthpred.serving.vllm.scheduler.{name}"
    for name in ("LengthAwareScheduler", "LengthAwareAsyncScheduler")
)
WATERMARK = "0.05"
PLUGIN = "lengthpred"


def command(arguments: Sequence[str], *, scheduler: bool = False) -> list[str]:
    """The command that starts vLLM, from what the user would give `vllm serve`.

    scheduler: with our scheduler in place of vLLM's own.

    A watermark is set where none is given: without, requests that run are preempted again and again
    for those that come, in any order. Raises SettingsError where priorities would be ignored.
    """
    given, said = list(arguments), _with_config(arguments)
    policy = _value(said, "--scheduling-policy")
    if policy is not None and policy != "priority":
        raise SettingsError(
            f"--scheduling-policy {policy} ignores priorities: leave the option out, `lengthpred "
            "serve` sets it"
        )
    if "--grpc" in said:
        raise SettingsError("--grpc has no middleware, so nothing would be ordered: leave it out")
    added = [] if policy else ["--scheduling-policy", "priority"]
    if _value(said, "--watermark") is None:
        added += ["--watermark", WATERMARK]
    if scheduler:
        if _value(said, "--scheduler-cls") is not None:
            raise SettingsError("--scheduler and --scheduler-cls are two schedulers: give one")
        added += ["--scheduler-cls", scheduler_class(said)]
    # As the command `vllm` does: without the current folder among the modules.
    start = [sys.executable, "-P", "-m", "vllm.entrypoints.cli.main", "serve"]
    return [*start, *given, *added, "--middleware", MIDDLEWARE]


def scheduler_class(given: Sequence[str]) -> str:
    """By whether vLLM will schedule asynchronously, as it does where it may: not on a CPU."""
    named = {argument.partition("=")[0].replace("_", "-") for argument in given}
    synchronous = "--no-async-scheduling" in named or check_vllm().endswith("+cpu")
    return SCHEDULERS[not synchronous]


def environment(
    settings: ServingSettings, arguments: Sequence[str], given: Mapping[str, str]
) -> dict[str, str]:
    """The variables that vLLM needs beside `given`: our settings, and digests of its API keys.

    Raises SettingsError where vLLM would leave our plugins out.
    """
    if given.get("VLLM_USE_RUST_FRONTEND", "0") not in ("", "0"):
        raise SettingsError(
            "VLLM_USE_RUST_FRONTEND has no middleware, so nothing would be ordered: unset it"
        )
    plugins = given.get("VLLM_PLUGINS")
    if plugins is not None and PLUGIN not in plugins.split(","):
        raise SettingsError(
            f"VLLM_PLUGINS leaves out '{PLUGIN}', which brings true lengths back: add it"
        )
    keys = _values(_with_config(arguments), "--api-key") or [given.get("VLLM_API_KEY", "")]
    digests = tuple(hashlib.sha256(key.encode()).hexdigest() for key in keys if key)
    return settings.model_copy(update={"api_key_digests": digests}).to_environment()


def check(settings: ServingSettings) -> None:
    """Raise what is wrong with the settings now, not in the log of a server that does not start.

    Raises ArtifactError, BackendError, SettingsError, MissingExtraError.
    """
    artifacts = [settings.artifact]
    for arm in read_arms(settings.arms).values():
        if arm.costs is None:
            artifacts.append(arm.artifact)
        else:
            ToldOrderer(arm.costs, settings.ordering)
    for artifact in dict.fromkeys(artifacts):
        asker_of(artifact, settings.deadline_ms / 1000).close()
    if settings.feedback is not None:
        FeedbackLog(settings.feedback).close()


def start(settings: ServingSettings, arguments: Sequence[str], *, scheduler: bool = False) -> None:
    """Become vLLM: does not return. Raises as the other functions here.

    The settings are those given, whatever the environment says.
    """
    check_vllm()
    if settings.srpt and not (scheduler and settings.policy == "sjf"):
        raise SettingsError("--srpt compares what is left: it needs --scheduler and --policy sjf")
    call = command(arguments, scheduler=scheduler)
    if scheduler:
        sockets = Path(tempfile.mkdtemp(prefix="lengthpred-"))
        settings = settings.model_copy(update={"sockets": sockets})
    variables = environment(settings, arguments, os.environ)
    check(settings)
    others = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    os.execve(call[0], call, {**others, **variables})


def _with_config(arguments: Sequence[str]) -> list[str]:
    """The arguments with those in front that a file given by --config says, as vLLM reads it.

    Raises SettingsError for a file that cannot be read.
    """
    if "--config" not in arguments[:-1]:
        return [*arguments]
    path = arguments[arguments.index("--config") + 1]
    yaml: Any = require("yaml", "vllm", "Reading vLLM's --config")
    try:
        told = yaml.safe_load(Path(path).read_text("utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise SettingsError(f"--config {path} cannot be read: {error}") from error
    said: list[str] = []
    for name, value in told.items() if isinstance(told, dict) else ():
        if isinstance(value, bool):
            said.append(f"--{name}" if value else f"--no-{name}")
        elif value is not None:
            values = value if isinstance(value, list) else [value]
            said += [f"--{name}", *map(str, values)]
    return [*said, *arguments]


def _value(arguments: Sequence[str], option: str) -> str | None:
    found = _values(arguments, option)
    return found[-1] if found else None


def _values(arguments: Sequence[str], option: str) -> list[str]:
    """What follows an option, as `--option a b` or `--option=a`; vLLM takes _ for -, too."""
    found: list[str] = []
    taking = False
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if name.startswith("--"):
            taking = name.replace("_", "-") == option
            if taking and equals:
                found.append(value)
                taking = False
        elif taking:
            found.append(argument)
    return found
