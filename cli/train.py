"""`lengthpred train`: from a table to an artifact."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from lengthpred.cli.console import print_json, stdout, steps, told_at_the_end
from lengthpred.errors import SettingsError

__all__ = ["register"]

SHOWN = ("tau", "mae", "crps", "coverage_80")


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("train")(train)


def train(
    kind: Annotated[
        str,
        typer.Argument(
            metavar="KIND",
            help="histogram, boosted, ranker, encoder, distilled, average, conformal, detector, "
            "sqlm, slm, slm-prefill or slm-states.",
        ),
    ],
    data: Annotated[Path, typer.Option(help="The table to train on.")],
    out: Annotated[Path, typer.Option(help="The folder that becomes the artifact.")],
    calibration: Annotated[
        Path | None,
        typer.Option(
            help="A table to calibrate on; else 15 % of the groups of --data.", show_default=False
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            help="A TOML file of settings, or the name of a shipped recipe, such as s3.",
            show_default=False,
        ),
    ] = None,
    teacher: Annotated[
        list[str] | None,
        typer.Option(
            help="A predictor to learn from (distilled): any will do, an encoder is what it is "
            "for; may be repeated.",
            show_default=False,
        ),
    ] = None,
    unlabelled: Annotated[
        Path | None,
        typer.Option(
            help="A table of prompts that the teacher is asked about, too.", show_default=False
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, help="On one machine the same seed gives the same bytes.")
    ] = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace the artifact at --out.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Train a predictor or a detector on a table of past requests."""
    from lengthpred.training.fit import fit
    from lengthpred.training.recipe import find_recipe

    told: dict[str, object] = {"teacher": teacher} if teacher else {}
    if unlabelled is not None:
        told["unlabelled"] = str(unlabelled)
    _check_told(kind, told)
    with told_at_the_end(), steps("training") as on_progress:
        trained = fit(
            kind,
            data,
            out,
            calibration=calibration,
            recipe=None if recipe is None else find_recipe(recipe),
            told=told,
            seed=seed,
            force=force,
            on_progress=on_progress,
        )
    card = trained.card
    if as_json:
        print_json(
            {
                "kind": trained.kind,
                "out": str(out),
                "models": list(card.models),
                "fingerprint": card.fingerprint,
                "metrics": dict(card.metrics),
            }
        )
        return
    scores = ", ".join(f"{name} {card.metrics[name]:.3g}" for name in SHOWN if name in card.metrics)
    stdout.print(f"wrote {escape(str(out))} ({kind})", highlight=False, soft_wrap=True)
    if scores:
        stdout.print(f"on the calibration rows: {scores}", highlight=False, soft_wrap=True)


def _check_told(kind: str, told: Mapping[str, object]) -> None:
    """Raise SettingsError for an option that is none of this kind's settings."""
    from lengthpred.training.fit import KINDS

    takers = {name: one.settings.model_fields for name, one in KINDS.items()}
    for option in told:
        if option not in takers.get(kind, told):
            meant = ", ".join(name for name, fields in takers.items() if option in fields)
            raise SettingsError(f"--{option} is for {meant}, not for '{kind}': leave it out")
