"""Trains many recipes on the same rows, so that they can be compared: `lengthpred zoo`."""

import time
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lengthpred.artifact import Storable
from lengthpred.data.table import Table
from lengthpred.errors import LengthPredError, SettingsError
from lengthpred.training.encoder_session import Reading, Session
from lengthpred.training.fit import KINDS, train_kind
from lengthpred.training.progress import OnProgress, silent
from lengthpred.training.recipe import Paper, find_recipe, kind_of, read_paper, read_recipe
from lengthpred.training.settings import (
    BoostedSettings,
    DistilledSettings,
    EncoderSettings,
    Settings,
    SlmSettings,
    SqlmSettings,
)

__all__ = ["LeftOut", "Recipe", "Trained", "method", "read_recipes", "train_all"]

CHEAP = ("average", "boosted", "conformal", "detector", "histogram", "ranker", "sqlm")
TEACHER = "encoder"
# What has less than this share of the time that its like took is not begun: it would be a sketch.
LEAST_SHARE = 0.25


@dataclass(frozen=True)
class Recipe:
    """One that can be trained; `stand_in` says what is in the place of the paper's model."""

    name: str
    kind: str
    settings: Settings
    paper: Paper | None = None
    stand_in: str = ""


@dataclass(frozen=True)
class Trained:
    """What came of a recipe.

    seconds  that training took; cut: it ended because the time was up
    notes    what training warned of
    """

    recipe: Recipe
    artifact: Storable
    seconds: float
    cut: bool = False
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class LeftOut:
    """A recipe that was not trained, and why; `defect`: it is ours, no fault of the input."""

    name: str
    why: str
    defect: bool = False


def read_recipes(
    names: Sequence[str],
    *,
    encoder: str | None = None,
    originals: bool = False,
    taken: Collection[str] = (),
) -> list[Recipe]:
    """The recipes of these names or paths, the cheap ones first.

    encoder: a transformer in the place of the recipes' own. originals: with the models that the
    papers had, where these are known. taken: names that no recipe may have. Raises SettingsError
    for what is no recipe, for one with such a name, for two of one name, or for one that has
    nothing to learn from.
    """
    found: dict[str, Recipe] = {}
    for given in dict.fromkeys(names):
        path = find_recipe(given)
        if path.stem in found:
            raise SettingsError(f"two recipes are called '{path.stem}': rename one of the files")
        if path.stem in taken:
            raise SettingsError(
                f"{path}: the results have something else called '{path.stem}': rename the file"
            )
        found[path.stem] = _recipe(path, encoder, originals)
    for recipe in found.values():
        if _lacks_teacher(recipe) and TEACHER not in found:
            raise SettingsError(
                f"the recipe '{recipe.name}' learns from another: add the recipe '{TEACHER}', or a "
                "teacher to its file"
            )
    return sorted(found.values(), key=lambda recipe: _rank(recipe.kind))


def method(recipe: Recipe) -> str:
    """What a recipe does, in a few words."""
    settings = recipe.settings
    if isinstance(settings, EncoderSettings):
        classes = settings.classes if isinstance(settings.classes, int) else "given"
        head = f"{classes} classes" if settings.head == "classes" else settings.head
        frozen = ", frozen" if settings.freeze else ""
        return f"{recipe.kind}: {head}, pooling {settings.pooling}{frozen}"
    if isinstance(settings, BoostedSettings) and settings.booster == "rf":
        return f"{recipe.kind}: random forest"
    return recipe.kind


def train_all(
    recipes: Sequence[Recipe],
    train: Table,
    calibration: Table | None,
    out: Path,
    *,
    budget_s: float | None = None,
    seed: int = 0,
    force: bool = False,
    on_progress: OnProgress = silent,
) -> tuple[list[Trained], list[LeftOut]]:
    """Train the recipes in their order, each into the folder of its name in `out`.

    budget_s: seconds after which nothing is begun, and what can be cut is cut. What goes wrong
    with one leaves out that one.
    """
    until = None if budget_s is None else time.monotonic() + budget_s
    reading, longest = Reading(), dict[str, float]()
    done: list[Trained] = []
    left_out: list[LeftOut] = []
    for recipe in recipes:
        try:
            settings = _taught(recipe, {one.recipe.name: out / one.recipe.name for one in done})
            _check_time(recipe.kind, until, longest)
            one = _train(
                recipe, settings, train, calibration, seed, Session(reading, until), on_progress
            )
            one.artifact.save(out / recipe.name, force=force)
        except LengthPredError as error:
            left_out.append(LeftOut(recipe.name, str(error)))
        except Exception as error:  # a defect in one must not lose hours of the others
            defect = f"a defect in lengthpred: {type(error).__name__}: {error}"
            left_out.append(LeftOut(recipe.name, defect, True))
        else:
            longest[recipe.kind] = max(one.seconds, longest.get(recipe.kind, 0.0))
            done.append(one)
    return done, left_out


def _train(
    recipe: Recipe,
    settings: Settings,
    rows: Table,
    calibration: Table | None,
    seed: int,
    session: Session,
    on_progress: OnProgress,
) -> Trained:
    def told(step: str, done: int, total: int) -> None:
        on_progress(f"{recipe.name}: {step}", done, total)

    begun = time.monotonic()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", UserWarning)
        artifact = train_kind(recipe.kind, rows, calibration, settings, seed, told, session=session)
    notes = dict.fromkeys(str(w.message) for w in said if issubclass(w.category, UserWarning))
    return Trained(recipe, artifact, time.monotonic() - begun, session.cut, tuple(notes))


def _rank(kind: str) -> int:
    """Cheap kinds first, and last what learns from another."""
    return 0 if kind in CHEAP else 2 if kind == "distilled" else 1


def _recipe(path: Path, encoder: str | None, originals: bool) -> Recipe:
    kind, paper = kind_of(path), read_paper(path)
    if kind not in KINDS:
        raise SettingsError(f"{path} is a recipe for '{kind}', which cannot be trained")
    told = {"encoder": encoder} if encoder and kind == "encoder" else {}
    settings = read_recipe(path, kind, KINDS[kind].settings, told)
    original = paper.original if paper else ""
    if originals and original:
        settings = _with_original(settings, original)
    return Recipe(path.stem, kind, settings, paper, _stand_in(settings, original) if paper else "")


def _with_original(settings: Settings, original: str) -> Settings:
    """With the paper's model, where the settings have a place for one."""
    if isinstance(settings, EncoderSettings):
        return settings.model_copy(update={"encoder": original})
    if isinstance(settings, SqlmSettings):
        slm = SlmSettings(backend="transformers", model=original)
        return settings.model_copy(update={"slm": slm})
    return settings


def _stand_in(settings: Settings, original: str) -> str:
    """What is in the place of the paper's model; "" where it is that model, or there is none."""
    short = original.split("/")[-1]
    if isinstance(settings, EncoderSettings):
        mine = "MiniLM" if settings.encoder == "minilm" else settings.encoder.split("/")[-1]
        if settings.encoder == original:
            return ""
        return f"{mine} in place of {short}" if original else mine
    if not original or (isinstance(settings, SqlmSettings) and settings.slm is not None):
        return ""
    mine = "boosted" if isinstance(settings, SqlmSettings) else "text features"
    return f"{mine} in place of {short}"


def _taught(recipe: Recipe, trained: Mapping[str, Path]) -> Settings:
    """The settings, with a teacher where one is needed and none is named."""
    if not _lacks_teacher(recipe):
        return recipe.settings
    if TEACHER not in trained:
        raise SettingsError(f"its teacher, the recipe '{TEACHER}', was not trained")
    return recipe.settings.model_copy(update={"teacher": [str(trained[TEACHER])]})


def _lacks_teacher(recipe: Recipe) -> bool:
    return isinstance(recipe.settings, DistilledSettings) and not recipe.settings.teacher


def _check_time(kind: str, until: float | None, longest: Mapping[str, float]) -> None:
    """Raise SettingsError when too little of the budget is left to begin."""
    if until is None:
        return
    left, needs = max(until - time.monotonic(), 0.0), longest.get(kind)
    if left == 0:
        raise SettingsError("the time budget was used up")
    if needs and left < LEAST_SHARE * needs:
        raise SettingsError(
            f"{left:.0f} s of the time budget were left, and one of its kind took {needs:.0f} s"
        )
