"""Settings of the trainers, and recipes: TOML files that change them.

A recipe holds the settings of one kind at its top level, and may name that `kind`. An unknown
key, or a value that does not fit, is an error that names the key.
"""

import tomllib
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lengthpred.errors import SettingsError, did_you_mean

__all__ = [
    "BoostedSettings",
    "DetectorSettings",
    "HistogramSettings",
    "Settings",
    "SqlmSettings",
    "read_recipe",
]

Share = Annotated[float, Field(gt=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]


class Settings(BaseModel):
    """What every trainer can be told.

    max_rows: rows that are held in memory; a longer table is sampled with the seed.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    max_rows: Annotated[int, Field(ge=100)] = 200_000


class HistogramSettings(Settings):
    """Of `lengthpred.models.histogram.Histogram`."""

    strength: Positive = 30.0
    half_life: Positive = 20_000.0


class BoostedSettings(Settings):
    """Of the boosted predictor.

    bits: the linear model has 2**bits slots. alpha: its ridge penalty. folds: its scores for the
    booster's training rows come from models that did not see the row's group.
    """

    bits: Annotated[int, Field(ge=8, le=22)] = 18
    alpha: Positive = 1.0
    folds: Annotated[int, Field(ge=2, le=20)] = 4
    trees: Annotated[int, Field(ge=1, le=5000)] = 300
    leaves: Annotated[int, Field(ge=2, le=1024)] = 31
    learning_rate: Positive = 0.04
    column_sample: Annotated[float, Field(gt=0, le=1)] = 0.4
    row_sample: Annotated[float, Field(gt=0, le=1)] = 0.8
    l2: Annotated[float, Field(ge=0)] = 5.0
    min_leaf_rows: Annotated[int, Field(ge=1)] = 30


class DetectorSettings(Settings):
    """Of the OOD detectors: an embedding of `dims` numbers, and a distance in it."""

    method: Literal["knn", "mahalanobis"] = "knn"
    bits: Annotated[int, Field(ge=8, le=18)] = 16
    dims: Annotated[int, Field(ge=2, le=512)] = 64
    neighbours: Annotated[int, Field(ge=1)] = 10
    reference_rows: Annotated[int, Field(ge=10)] = 5_000


class SqlmSettings(Settings):
    """Of S-QLM: the share `alpha` of in-distribution requests that get a second opinion.

    fallback: the folder of an artifact; without one a boosted predictor is trained.
    """

    alpha: Share = 0.05
    fallback: str | None = None
    histogram: HistogramSettings = HistogramSettings()
    detector: DetectorSettings = DetectorSettings()
    boosted: BoostedSettings = BoostedSettings()


S = TypeVar("S", bound=Settings)


def read_recipe(path: Path | None, kind: str, settings: type[S]) -> S:
    """The settings that the recipe at `path` gives, or the defaults without one.

    Raises SettingsError for a file that is no TOML, is meant for another kind, or holds an
    unknown key or a value that does not fit.
    """
    if path is None:
        return settings()
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
        return settings.model_validate(values)
    except ValidationError as error:
        raise SettingsError(f"{path}: {_explain(error, settings)}") from error


def _explain(error: ValidationError, settings: type[Settings]) -> str:
    first = error.errors()[0]
    where = [str(step) for step in first["loc"]]
    if first["type"] != "extra_forbidden":
        return f"{'.'.join(where)} = {first['input']!r}: {first['msg'].lower()}"
    owner: type[BaseModel] = settings
    for step in where[:-1]:
        owner = type(owner.model_fields[step].default)
    near = did_you_mean(where[-1], owner.model_fields)
    return f"there is no setting '{'.'.join(where)}'. {near}"
