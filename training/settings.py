"""Settings of the trainers, and recipes: TOML files that change them.

A recipe holds the settings of one kind at its top level, and may name that `kind`. An unknown
key, or a value that does not fit, is an error that names the key.
"""

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_core import PydanticCustomError

from lengthpred.errors import SettingsError, did_you_mean
from lengthpred.models.backends.base import Source

__all__ = [
    "BoostedSettings",
    "ConformalSettings",
    "DetectorSettings",
    "HistogramSettings",
    "RankerSettings",
    "Settings",
    "SlmPrefillSettings",
    "SlmSettings",
    "SlmStatesSettings",
    "SourceSettings",
    "SqlmSettings",
    "TreeSettings",
    "read_recipe",
]

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


class TreeSettings(Settings):
    """Of what boosted and ranker share.

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


class BoostedSettings(TreeSettings):
    """Of the boosted predictor.

    booster: "gbdt" boosts; "rf" is a random forest (Breiman, 2001): each tree is grown on a draw of
    `row_sample` of the rows, the trees are averaged, and the learning rate counts for nothing.
    """

    booster: Literal["gbdt", "rf"] = "gbdt"

    @field_validator("booster")
    @classmethod
    def _draws_rows(cls, booster: str, info: ValidationInfo) -> str:
        if booster == "rf" and info.data.get("row_sample") == 1:
            raise PydanticCustomError("rows", "a random forest needs a row_sample below 1")
        return booster


class RankerSettings(TreeSettings):
    """Of the ranker: queues of at most `queue` requests are put in order of `levels` of length."""

    learning_rate: Positive = 0.03
    l2: Annotated[float, Field(ge=0)] = 0.5
    queue: Annotated[int, Field(ge=2, le=10_000)] = 100
    levels: Annotated[int, Field(ge=2, le=1024)] = 32


class ConformalSettings(Settings):
    """Of the correction of an artifact's intervals: `base` is its folder.

    warm: the calibration rows are observed, in their order; else nothing is corrected yet.
    """

    base: str
    half_life: Positive = 150.0
    strength: Positive = 30.0
    warm: bool = True


class DetectorSettings(Settings):
    """Of the OOD detectors: an embedding of `dims` numbers, and a distance in it."""

    method: Literal["knn", "mahalanobis"] = "knn"
    bits: Annotated[int, Field(ge=8, le=18)] = 16
    dims: Annotated[int, Field(ge=2, le=512)] = 64
    neighbours: Annotated[int, Field(ge=1)] = 10
    reference_rows: Annotated[int, Field(ge=10)] = 5_000


class SourceSettings(Settings):
    """Of what asks a small language model: where it is, and how often in training.

    backend, model, url, samples, revision, device, dtype, batch: see `Source`. pairs: prompts that
    it is asked about in training, to learn what it says about the large model's lengths.
    """

    backend: Literal["transformers", "openai", "recorded"]
    model: str = ""
    url: str | list[str] = []
    samples: str = ""
    revision: str = ""
    device: str = "cpu"
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    batch: Annotated[int, Field(ge=1)] = 64
    pairs: Annotated[int, Field(ge=20)] = 500

    def source(self) -> Source:
        """Where the model is."""
        urls = [self.url] if isinstance(self.url, str) else self.url
        names = ("backend", "model", "samples", "revision", "device", "dtype", "batch")
        given = {name: getattr(self, name) for name in names}
        # An artifact is used from other folders than the one it was trained in.
        return Source(url=tuple(url for url in urls if url), **given).absolute()


class SlmSettings(SourceSettings):
    """Of generate-and-count: n answers of at most `cap` tokens."""

    n: Annotated[int, Field(ge=1, le=100)] = 1
    cap: Annotated[int, Field(ge=1)] = 1024
    temperature: Annotated[float, Field(ge=0)] = 1.0
    seed: Annotated[int, Field(ge=0)] = 0


class SlmPrefillSettings(SourceSettings):
    """Of the head on a small model's hidden state.

    folds: the scores that it is calibrated on come from heads that did not see the row's group.
    """

    # Prompts of unlike lengths are padded, and one alone keeps the cores of a CPU busy.
    batch: Annotated[int, Field(ge=1)] = 8
    pairs: Annotated[int, Field(ge=20)] = 2000
    folds: Annotated[int, Field(ge=2, le=20)] = 5


class SlmStatesSettings(SourceSettings):
    """Of asking for a length: n times; the median counts."""

    n: Annotated[int, Field(ge=1, le=100)] = 3
    temperature: Annotated[float, Field(ge=0)] = 1.0
    seed: Annotated[int, Field(ge=0)] = 0


class SqlmSettings(Settings):
    """Of S-QLM: the share `alpha` of in-distribution requests that get a second opinion.

    The second opinion is that of the small language model `slm`, or of an artifact (`fallback`, its
    folder); without either a boosted predictor is trained for it.
    """

    alpha: Annotated[float, Field(ge=0, le=1)] = 0.05
    fallback: str | None = None
    slm: SlmSettings | None = None
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
        try:
            return settings()
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
        return settings.model_validate(values)
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
