"""Recipes: TOML files that change the settings of a trainer.

A recipe holds the settings of one kind at its top level, and may name that `kind`. An unknown
key, or a value that does not fit, is an error that names the key.
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from lengthpred.errors import SettingsError, did_you_mean
from lengthpred.training.settings import Settings

__all__ = ["read_recipe"]

S = TypeVar("S", bound=Settings)


def read_recipe(
    path: Path | None, kind: str, settings: type[S], told: Mapping[str, Any] | None = None
) -> S:
    """The settings that the recipe at `path` gives, or the defaults without one.

    told: settings that go before those of the recipe. Raises SettingsError for a file that is no
    TOML, is meant for another kind, or holds an unknown key or a value that does not fit.
    """
    told = told or {}
    if path is None:
        try:
            return settings.model_validate(told)
        except ValidationError as error:
            raise SettingsError(
                f"'{kind}' has no defaults for everything: give it a recipe (--recipe R.toml), "
                f"{_explain(error, settings)}"
            ) from error
    try:
        values = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise SettingsError(f"there is no recipe at {path}") from error
    except (OSError, ValueError) as error:
        raise SettingsError(f"{path} is not a TOML file: {error}") from error
    meant = values.pop("kind", kind)
    if meant != kind:
        raise SettingsError(f"{path} is a recipe for '{meant}', not for '{kind}'")
    try:
        return settings.model_validate(values | dict(told))
    except ValidationError as error:
        raise SettingsError(f"{path}: {_explain(error, settings)}") from error


def _explain(error: ValidationError, settings: type[Settings]) -> str:
    first = error.errors()[0]
    where = [str(step) for step in first["loc"]]
    if first["type"] == "missing":
        return f"the setting '{'.'.join(where)}' is missing"
    if first["type"] != "extra_forbidden":
        return f"{'.'.join(where)} = {first['input']!r}: {first['msg'].lower()}"
    owner: type[BaseModel] = settings
    for step in where[:-1]:
        owner = _model_in(owner.model_fields[step].annotation)
    near = did_you_mean(where[-1], owner.model_fields)
    return f"there is no setting '{'.'.join(where)}'. {near}"


def _model_in(annotation: Any) -> type[BaseModel]:
    """The model of a field that holds one, or may."""
    choices = (annotation, *get_args(annotation))
    return next(c for c in choices if isinstance(c, type) and issubclass(c, BaseModel))
