"""Predictors as a user names them: artifacts in folders and on the hub, and controls by name."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, cast

from lengthpred.artifact import Storable
from lengthpred.errors import ArtifactError, SettingsError, did_you_mean

if TYPE_CHECKING:
    from lengthpred.base import Detector, Predictor
    from lengthpred.data.table import Rows, Table

__all__ = [
    "fitted",
    "is_control",
    "labels",
    "load_named",
    "parse_ratios",
    "say_origin",
    "seen_in_training",
]


def parse_ratios(text: str) -> list[float]:
    """The numbers of "0,0.5,1"; raises SettingsError for what is no number from 0 to 1."""
    ratios = []
    for part in text.split(","):
        try:
            ratio = float(part)
        except ValueError:
            ratio = float("nan")
        if not 0 <= ratio <= 1:
            raise SettingsError(
                f"--ood-ratio has '{part.strip()}': give numbers from 0 to 1 with commas between, "
                "such as 0,0.5,0.8"
            )
        ratios.append(ratio)
    return ratios


def is_control(name: str) -> bool:
    """Whether a DIR names a control; `./constant` is a folder of that name."""
    from lengthpred.eval.controls import CONTROLS

    return name in CONTROLS


def load_named(name: str) -> "Predictor | Detector":
    """The predictor or detector that `name` means; raises ArtifactError as `load` does."""
    from lengthpred.artifact import load_storable
    from lengthpred.eval.controls import CONTROLS
    from lengthpred.hub.names import hub_name
    from lengthpred.sources import DEFAULT

    if not Path(name).exists() and name != DEFAULT and hub_name(name) is None:
        raise ArtifactError(
            f"there is no folder '{name}', and no control of that name. "
            + did_you_mean(name, (DEFAULT, *CONTROLS))
        )
    loaded = load_storable(name)
    say_origin(loaded)
    if not hasattr(loaded, "predict") and not hasattr(loaded, "p_value"):
        raise ArtifactError(f"{name} holds a {loaded.kind}, which is no predictor and no detector")
    return cast("Predictor | Detector", loaded)


def say_origin(loaded: object) -> None:
    """Say of what came from the hub which commit it is, and where it sends prompts.

    And of what came with the package, that there is better.
    """
    from lengthpred.cli.console import stderr
    from lengthpred.sources import DEFAULT

    if getattr(loaded, "origin", "") == DEFAULT:
        stderr.print(
            "note: this is the predictor that comes with lengthpred; one trained on your own logs "
            "(`lengthpred train`) knows your traffic",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
    elif origin := getattr(loaded, "origin", ""):
        urls = ", ".join(dict.fromkeys(_urls(loaded)))
        sends = f", which sends prompts to {urls}" if urls else ""
        stderr.print(f"note: loaded {origin}{sends}", highlight=False, markup=False, soft_wrap=True)


def seen_in_training(artifacts: Mapping[str, object], table: "Table") -> Iterator[str]:
    """A sentence for each artifact that was trained on the very table."""
    for name, one in artifacts.items():
        if getattr(getattr(one, "card", None), "fingerprint", "") == table.fingerprint:
            yield (
                f"{name} was trained on this very table, which flatters it: `lengthpred data "
                "split` keeps a part for the comparison."
            )


def _urls(part: object) -> Iterator[str]:
    """Where an artifact, or a part of it however deep, sends prompts to."""
    yield from getattr(getattr(part, "source", None), "url", ())
    for value in getattr(part, "__dict__", {}).values():
        for inner in value if isinstance(value, list | tuple) else (value,):
            if isinstance(inner, Storable):
                yield from _urls(inner)


def labels(names: list[str]) -> dict[str, str]:
    """A label for each DIR: its last part, or more of it where two would share one."""
    from lengthpred.eval.ceiling import CEILINGS
    from lengthpred.eval.controls import ALWAYS

    labelled: dict[str, str] = {}
    for name in dict.fromkeys(names):
        parts = (name,) if is_control(name) else Path(name).resolve().parts
        taken = {*labelled, *(other for other in names if is_control(other) and other != name)}
        # The table has rows of these names in any case.
        taken |= set() if is_control(name) else {*ALWAYS, *CEILINGS}
        tails = ("/".join(parts[-k:]) for k in range(1, len(parts) + 1))
        labelled[next((tail for tail in tails if tail not in taken), name)] = name
    return labelled


def fitted(
    labelled: "dict[str, Predictor | Detector | None]",
    rows: "Rows",
    train: "Rows | None",
    seed: int,
) -> "dict[str, Predictor | Detector]":
    """The loaded ones, and in place of None the control of that label, where compare lacks it."""
    from lengthpred.eval.controls import ALWAYS, KNOWING, fit_control

    made: dict[str, Predictor | Detector] = {}
    for label, one in labelled.items():
        if one is not None:
            made[label] = one
        elif label not in ALWAYS:
            learns_from = rows if label in KNOWING or train is None else train
            made[label] = fit_control(label, learns_from, seed=seed)
    return made
