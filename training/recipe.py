"""Recipes: TOML files that change the settings of a trainer.

A recipe holds the settings of one kind at its top level, and may name that `kind`. One that follows
a paper says so in the table `[paper]`. An unknown key, or a value that does not fit, is an error
that names the key. The recipes of the literature are shipped, and known by name.
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from lengthpred.errors import SettingsError, did_you_mean
from lengthpred.training.settings import Settings

__all__ = ["Paper", "find_recipe", "kind_of", "read_paper", "read_recipe", "shipped"]

S = TypeVar("S", bound=Settings)
SHIPPED = Path(__file__).with_name("recipes")


class Paper(BaseModel):
    """What a recipe follows: `source` is an arXiv number or where it appeared.

    differs: what is not as in the paper. original: the model that the paper trained, by hub id;
    "" where it had none, or it is not known.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str
    authors: str = ""
    source: str = ""
    differs: str
    original: str = ""


def shipped() -> dict[str, Path]:
    """The recipes that come with lengthpred, by name."""
    return {path.stem: path for path in sorted(SHIPPED.glob("*.toml"))}


def find_recipe(name: str) -> Path:
    """The file at the path `name`, or else the shipped recipe of that name.

    Raises SettingsError when there is neither.
    """
    path, known = Path(name), shipped()
    if path.is_file():  # a folder is an artifact, such as `--out encoder` made
        return path
    if name not in known:
        raise SettingsError(
            f"there is no recipe at {name}, and none of that name is shipped. "
            + did_you_mean(name, known)
        )
    return known[name]


def kind_of(path: Path) -> str:
    """The kind that a recipe is for; raises SettingsError when it does not say."""
    kind = _values(path).get("kind")
    if not isinstance(kind, str):
        raise SettingsError(f'{path} does not name its kind: add a line such as kind = "boosted"')
    return kind


def read_paper(path: Path) -> Paper | None:
    """What the recipe follows, where it follows a paper. Raises SettingsError as `read_recipe`."""
    return _paper(path, _values(path))


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
    values = _values(path)
    meant = values.pop("kind", kind)
    if meant != kind:
        raise SettingsError(f"{path} is a recipe for '{meant}', not for '{kind}'")
    _paper(path, values)
    values.pop("paper", None)
    try:
        return settings.model_validate(values | dict(told))
    except ValidationError as error:
        raise SettingsError(f"{path}: {_explain(error, settings)}") from error


def _values(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise SettingsError(f"there is no recipe at {path}") from error
    except (OSError, ValueError) as error:
        raise SettingsError(f"{path} is not a TOML file: {error}") from error


def _paper(path: Path, values: Mapping[str, Any]) -> Paper | None:
    if "paper" not in values:
        return None
    try:
        return Paper.model_validate(values["paper"])
    except ValidationError as error:
        raise SettingsError(f"{path}, [paper]: {_explain(error, Paper)}") from error


def _explain(error: ValidationError, settings: type[BaseModel]) -> str:
    first = error.errors()[0]
    where = [str(step) for step in first["loc"]]
    if first["type"] == "missing":
        return f"the setting '{'.'.join(where)}' is missing"
    if first["type"] != "extra_forbidden":
        return f"{'.'.join(where)} = {first['input']!r}: {first['msg'].lower()}"
    owner = settings
    for step in where[:-1]:
        owner = _model_in(owner.model_fields[step].annotation)
    near = did_you_mean(where[-1], owner.model_fields)
    return f"there is no setting '{'.'.join(where)}'. {near}"


def _model_in(annotation: Any) -> type[BaseModel]:
    """The model of a field that holds one, or may."""
    choices = (annotation, *get_args(annotation))
    return next(c for c in choices if isinstance(c, type) and issubclass(c, BaseModel))
