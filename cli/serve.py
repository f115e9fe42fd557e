"""`lengthpred serve`: vLLM, with its requests ordered by a predictor."""

from pathlib import Path
from typing import Annotated

import typer

from lengthpred.errors import SettingsError

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("serve")(serve)


def serve(
    context: typer.Context,
    artifact: Annotated[str, typer.Argument(metavar="DIR", help="A predictor, ORG/NAME, default.")],
    arguments: Annotated[
        list[str],
        typer.Argument(metavar="-- MODEL [VLLM ARGUMENTS]", help="As for `vllm serve`."),
    ],
    policy: Annotated[str, typer.Option(help="Which requests run first: sjf, gittins, …")] = "sjf",
    deadline_ms: Annotated[float, typer.Option(help="No request waits longer to be predicted.")] = (
        25.0
    ),
    hold_ms: Annotated[
        float,
        typer.Option(
            help="Hold an unsure request so long for a second opinion, while others wait."
        ),
    ] = 0.0,
    max_overtake_s: Annotated[
        float, typer.Option(help="Only what arrives so many seconds later can overtake a request.")
    ] = 1800.0,
    prefill_weight: Annotated[
        float, typer.Option(help="What a token of the prompt costs, in tokens of the answer.")
    ] = 0.0,
    allow_unordered: Annotated[
        bool, typer.Option(help="Let through what takes no priority: it runs before all others.")
    ] = False,
    max_body_mb: Annotated[float, typer.Option(help="Refuse larger bodies.")] = 64.0,
    scheduler: Annotated[
        bool,
        typer.Option(
            "--scheduler", help="With our scheduler: late second opinions move what waits."
        ),
    ] = False,
    srpt: Annotated[
        bool,
        typer.Option(
            "--srpt", help="With --scheduler: preempt the longest for what is far shorter."
        ),
    ] = False,
    feedback: Annotated[
        Path | None,
        typer.Option(help="Folder to keep true lengths in, to train on.", show_default=False),
    ] = None,
    keep_prompts: Annotated[
        bool, typer.Option("--keep-prompts", help="With the texts of prompts.")
    ] = False,
    arms: Annotated[
        Path | None,
        typer.Option(help="TOML: orders to choose from by a header.", show_default=False),
    ] = None,
) -> None:
    """Start a vLLM server whose requests run in the order of their predicted lengths.

    An option that is left out is as its variable says (LENGTHPRED_POLICY, …), where there is one.
    """
    from lengthpred.cli.options import is_given
    from lengthpred.serving.settings import ServingSettings
    from lengthpred.serving.vllm.launch import start

    if not arguments:
        raise SettingsError("name the model: lengthpred serve DIR -- MODEL [vllm arguments]")
    told = {
        "artifact": artifact,
        "policy": policy,
        "deadline_ms": deadline_ms,
        "hold_ms": hold_ms,
        "max_overtake_s": max_overtake_s,
        "prefill_weight": prefill_weight,
        "allow_unordered": allow_unordered,
        "max_body_mb": max_body_mb,
        "srpt": srpt,
        "feedback": feedback and feedback.absolute(),
        "keep_prompts": keep_prompts,
        "arms": arms and arms.absolute(),
    }
    given = {name: value for name, value in told.items() if is_given(context, name)}
    left = ServingSettings.from_environment().model_dump(exclude_unset=True)
    # Sockets are of one server alone.
    settings = ServingSettings.checked({**left, **given, "sockets": None})
    start(settings, arguments, scheduler=scheduler)
