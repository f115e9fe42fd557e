"""From a table on disk to an artifact on disk: what `lengthpred train` does."""

import glob
import importlib
import json
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lengthpred.artifact import Card, Storable, check_target
from lengthpred.base import Refiner
from lengthpred.data.groups import content_keys
from lengthpred.data.table import Rows, Table
from lengthpred.errors import DataError, SettingsError, did_you_mean
from lengthpred.manifest import sha256
from lengthpred.metrics import scores
from lengthpred.models.average import Average
from lengthpred.models.conformal import Conformal
from lengthpred.training.encoder_session import Session
from lengthpred.training.progress import OnProgress, silent
from lengthpred.training.recipe import read_recipe
from lengthpred.training.settings import (
    AverageSettings,
    BoostedSettings,
    ConformalSettings,
    DetectorSettings,
    DistilledSettings,
    EncoderSettings,
    HistogramSettings,
    RankerSettings,
    Settings,
    SlmPrefillSettings,
    SlmSettings,
    SlmStatesSettings,
    SqlmSettings,
)

__all__ = ["KINDS", "fit", "train_kind"]

CALIBRATION_SHARE = 0.15
CALIBRATION_ROWS = 30_000
REFINED_ROWS = 100
SLOW_ROWS = 5_000
FEW_ROWS = 50


@dataclass(frozen=True)
class Kind:
    """A kind that can be trained.

    module    whose `train` makes it
    settings  of a recipe
    streams   whether it learns from a stream, of any length
    resumes   whether a run that was killed can go on, and one can be cut short: it is given a file
              and a session for that
    slow      whether an answer takes milliseconds, so that fewer rows tell the metrics
    texts     whether rows without a prompt teach it nothing
    """

    module: str
    settings: type[Settings]
    streams: bool = False
    resumes: bool = False
    slow: bool = False
    texts: bool = False


KINDS = {
    "average": Kind("lengthpred.training.average", AverageSettings, slow=True),
    "boosted": Kind("lengthpred.training.boosted", BoostedSettings, texts=True),
    "conformal": Kind("lengthpred.training.conformal", ConformalSettings),
    "detector": Kind("lengthpred.training.detectors", DetectorSettings),
    "distilled": Kind("lengthpred.training.distilled", DistilledSettings, texts=True),
    "encoder": Kind(
        "lengthpred.training.encoder", EncoderSettings, resumes=True, slow=True, texts=True
    ),
    "histogram": Kind("lengthpred.training.histogram", HistogramSettings, streams=True),
    "ranker": Kind("lengthpred.training.ranker", RankerSettings, texts=True),
    "slm": Kind("lengthpred.training.slm", SlmSettings),
    "slm-prefill": Kind("lengthpred.training.slm_prefill", SlmPrefillSettings),
    "slm-states": Kind("lengthpred.training.slm_states", SlmStatesSettings),
    "sqlm": Kind("lengthpred.training.sqlm", SqlmSettings),
}


def fit(
    kind: str,
    data: Path,
    out: Path,
    *,
    calibration: Path | None = None,
    recipe: Path | None = None,
    told: Mapping[str, Any] | None = None,
    seed: int = 0,
    force: bool = False,
    on_progress: OnProgress = silent,
) -> Storable:
    """Train a `kind` on the table `data` and save it to the folder `out`.

    told: settings that go before those of the recipe.
    Without `calibration`, a seeded 15 % of the groups of `data` are kept from training for it. Of a
    `calibration`, rows with the context and prompt of a training row are left out, with a warning.
    Everything that can be refused is refused before the work: raises SettingsError, DataError or
    ArtifactError.
    """
    if kind not in KINDS:
        raise SettingsError(f"'{kind}' cannot be trained. {did_you_mean(kind, KINDS)}")
    settings = read_recipe(recipe, kind, KINDS[kind].settings, told)
    check_target(out, force=force)
    table = Table(data)
    held = Table(calibration) if calibration is not None else None
    if held is not None and held.fingerprint == table.fingerprint:
        raise DataError(
            f"{calibration} holds the very rows of {data}: calibrate on rows that training does "
            "not see, or leave --calibration out"
        )
    checkpoint = _checkpoint(kind, table, held, settings, seed, out)
    trained = train_kind(kind, table, held, settings, seed, on_progress, checkpoint)
    trained.save(out, force=force)
    if checkpoint is not None:
        # Those of runs with other settings, too: what they were for is there.
        for left in checkpoint.parent.glob(f"{glob.escape(f'.{out.name}.training-')}*"):
            left.unlink()
    return trained


def train_kind(
    kind: str,
    table: Table,
    calibration: Table | None,
    settings: Settings,
    seed: int,
    on_progress: OnProgress = silent,
    checkpoint: Path | None = None,
    session: Session | None = None,
) -> Storable:
    """A trained `kind`, its card filled in; see `fit`.

    The card names the target models of the table, and its fingerprint. An average or a correction
    learns of no model: theirs are those of the artifacts that it is made of, and so is the
    fingerprint, where they have one and the same. A correction has observed the calibration rows:
    its metrics are those of its base, before it was corrected.

    checkpoint: where a kind that `resumes` keeps its state; None keeps none. session: what such a
    kind shares with others, and when it has to end.
    """
    rng = np.random.default_rng(seed)
    trainer: Any = importlib.import_module(KINDS[kind].module)
    on_progress("reading the table", 0, 0)
    fingerprint = table.fingerprint
    rows, held = _halves(table, calibration, settings.max_rows, seed)
    if KINDS[kind].texts:
        _check_prompts(rows, table)
    source: Rows | Iterator[Rows] = rows
    models = {request.model for request in rows.requests}
    if KINDS[kind].streams and len(table) > settings.max_rows:
        source = _stream(table, calibration, seed, models)
    resumed = {"checkpoint": checkpoint, "session": session} if KINDS[kind].resumes else {}
    trained: Storable = trainer.train(source, held, settings, rng, on_progress, **resumed)
    if source is rows and len(rows) < FEW_ROWS and not isinstance(trained, (Average, Conformal)):
        warnings.warn(
            f"there were {len(rows)} rows to train on: little can be learnt of fewer than "
            f"{FEW_ROWS}",
            stacklevel=2,
        )
    if isinstance(trained, Average):
        cards = [_card(part) for part in trained.parts]
        models = {name for card in cards for name in card.models}
        prints = {card.fingerprint for card in cards}
        fingerprint = prints.pop() if len(prints) == 1 else ""
    judged: Any = trained
    if isinstance(trained, Conformal):
        judged, card = trained.base, _card(trained.base)
        if calibration is None and card.fingerprint == fingerprint:
            warnings.warn(
                f"the base was trained on {table.path}, so the rows that correct it may be those "
                "that it learnt, and its intervals get too narrow: give rows that it did not see",
                stacklevel=2,
            )
        models, fingerprint = set(card.models), card.fingerprint
    named = tuple(sorted(models - {""}))
    on_progress("scoring", 0, 0)
    # What refines takes its time over an answer.
    refines = isinstance(getattr(judged, "fallback", judged), Refiner)
    if refines or KINDS[kind].slow:
        most = REFINED_ROWS if refines else SLOW_ROWS
        held = held.sample(most, np.random.default_rng([seed, 2]))
    trained.card = Card(named, fingerprint, _scores(judged, held, rng))
    return trained


def _checkpoint(
    kind: str, table: Table, held: Table | None, settings: Settings, seed: int, out: Path
) -> Path | None:
    """Beside `out`, named by all that decides the result, so that no other run goes on from it."""
    if not KINDS[kind].resumes:
        return None
    prints = [table.fingerprint, held.fingerprint if held is not None else ""]
    decides = json.dumps([kind, prints, settings.model_dump_json(), seed])
    name = sha256(decides.encode())[:12]
    return out.absolute().parent / f".{out.name}.training-{name}"


def _halves(table: Table, calibration: Table | None, most: int, seed: int) -> tuple[Rows, Rows]:
    """Training rows and calibration rows, in memory; no group is in both."""
    rows = table.rows(most, seed)
    if calibration is not None:
        held_rows = calibration.rows(CALIBRATION_ROWS, seed)
        # Of a longer table only a sample is here, which would tell little.
        return rows, held_rows if len(table) > most else _unseen(held_rows, rows, calibration)
    held = _held(len(table), seed)[rows.groups]
    if held.all() or not held.any():
        if not any(request.prompt for request in rows.requests):
            raise DataError(_no_prompts(table))
        raise DataError(
            f"{table.path} has too few groups ({len(set(rows.groups.tolist()))}) to keep some for "
            "calibration: give a larger table, or one of its own with --calibration"
        )
    rng = np.random.default_rng([seed, 2])
    return rows.take(~held), rows.take(held).sample(CALIBRATION_ROWS, rng)


def _check_prompts(rows: Rows, table: Table) -> None:
    """Raise DataError when all prompts are empty; warn when some are."""
    empty = sum(not request.prompt for request in rows.requests)
    if empty == len(rows):
        raise DataError(_no_prompts(table))
    if empty:
        warnings.warn(
            f"{table.path}: {empty:,} of {len(rows):,} rows to train on have an empty prompt, and "
            "are left out",
            stacklevel=2,
        )


def _no_prompts(table: Table) -> str:
    return f"{table.path}: all prompts are empty: give a table with the texts that were asked"


def _unseen(held: Rows, rows: Rows, calibration: Table) -> Rows:
    """The held rows whose context and prompt no training row has; warns of the others."""
    seen = np.isin(_contents(held, len(rows)), _contents(rows, 0))
    if not seen.any():
        return held
    if seen.all():
        raise DataError(
            f"{calibration.path}: all of its rows have the context and prompt of training rows: "
            "calibrate on rows that training does not see, or leave --calibration out"
        )
    warnings.warn(
        f"{calibration.path}: {int(seen.sum()):,} of {len(held):,} rows have the context and "
        "prompt of training rows, and are left out",
        stacklevel=2,
    )
    return held.take(~seen)


def _contents(rows: Rows, offset: int) -> Any:
    columns = {name: [getattr(r, name) for r in rows.requests] for name in ("context", "prompt")}
    return content_keys(columns, len(rows), offset)


def _card(part: object) -> Card:
    """What is known of the training of an artifact's part."""
    card: Card = getattr(part, "card", Card())
    return card


def _stream(table: Table, calibration: Table | None, seed: int, models: set[str]) -> Iterator[Rows]:
    """All training rows of a table that does not fit in memory, piece by piece.

    Their target models join `models`: a sample may lack the rare ones.
    """
    held = _held(len(table), seed)
    for piece in table.chunks():
        rows = piece if calibration is not None else piece.take(~held[piece.groups])
        models |= {request.model for request in rows.requests}
        yield rows


def _held(groups: int, seed: int) -> Any:
    """Which group numbers are kept for calibration, bool (groups,)."""
    return np.random.default_rng([seed, 1]).random(groups) < CALIBRATION_SHARE


def _scores(trained: Any, held: Rows, rng: np.random.Generator) -> dict[str, float]:
    """The metrics that the manifest records: of the calibration rows."""
    if not hasattr(trained, "predict"):
        return {}
    answer = trained.predict(held.requests)
    return scores(answer, held.truth, held.truth_censored, rng)
