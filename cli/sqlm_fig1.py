"""`lengthpred simulate --experiment sqlm-fig1`: trains S-QLM without some corpora, and replays."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lengthpred.cli.console import steps, told_at_the_end
from lengthpred.errors import DataError, SettingsError, did_you_mean

if TYPE_CHECKING:
    from lengthpred.data.table import Rows
    from lengthpred.eval.sqlm_fig1.setting import Fig1Result, Fig1Settings, Fold
    from lengthpred.training.settings import SqlmSettings

__all__ = [
    "EXPERIMENT",
    "Given",
    "check_experiment",
    "hold_outs",
    "make_folds",
    "paired",
    "run_experiment",
]

EXPERIMENT = "sqlm-fig1"
TRAINED, CALIBRATED = 0.5, 0.15  # of the rows whose corpus is not kept from training
PAIRS = 5000
MOST_SETS = 10


@dataclass(frozen=True)
class Given:
    """What the experiment is given on the command line; the fields as its options."""

    data: Path
    samples: Path | None
    hold_out: str | None
    recipe: Path | None
    out: Path | None
    seed: int
    force: bool
    as_json: bool


Tell = Callable[[str, int, int], None]
Keep = Callable[["list[Fig1Result]"], None]
Runs = Callable[["Iterator[Fold]", "Fig1Settings", int, Tell, Keep], "list[Fig1Result]"]
"""Runs the arms: with folds and settings, the number of strata, who is told of progress, and who
of what is known after a draw."""


def run_experiment(
    given: Given,
    settings: "Fig1Settings",
    *,
    name: str = "simulate",
    runs: "Runs | None" = None,
    prepare: "Callable[[Rows], Rows] | None" = None,
) -> None:
    """Train, run, print, and write results and their page where `out` is given: of all draws, or
    of those that were kept until something or somebody ended it.

    name: of the results. runs: in place of the replay. prepare: makes rows fit to be sent.
    """
    from lengthpred.data.table import Table
    from lengthpred.eval.output import check_out

    samples, seed = _samples(given), given.seed
    if given.out is not None:
        check_out(given.out, force=given.force, name=name)
    table = Table(given.data)
    chosen = _recipe(given.recipe, samples)
    known: list[list[Fig1Result]] = []
    try:
        with told_at_the_end(), steps("training") as tell:
            tell("reading the small model's lengths", 0, 0)
            rows = paired(table.rows(), chosen)
            rows = rows if prepare is None else prepare(rows)
            held_out = hold_outs(rows, _names(given.hold_out))
            draws = -(-settings.draws // len(held_out)) * len(held_out)  # each as often
            settings = replace(settings, draws=draws)
            folds = make_folds(rows, chosen, held_out, draws, seed)
            runs = runs or _replays(seed)
            known.append(runs(folds, settings, len(held_out), tell, known.append))
    finally:
        if known:
            _tell(given, name, table.fingerprint, known[-1], settings, held_out)


def _tell(
    given: Given,
    name: str,
    sha256: str,
    results: "list[Fig1Result]",
    settings: "Fig1Settings",
    held_out: Sequence[Sequence[str]],
) -> None:
    from lengthpred.cli.report import command_line, tell_results, write_or_say
    from lengthpred.cli.sqlm_fig1_table import print_fig1
    from lengthpred.eval.output import Document
    from lengthpred.eval.sqlm_fig1.page import write_fig1
    from lengthpred.eval.sqlm_fig1.reading import Found, read_fig1

    asked, settings = settings.draws, replace(settings, draws=results[0].n)
    read = read_fig1(results, settings, held_out)
    if settings.draws < asked:
        read.append(f"Ended after {settings.draws} of {asked} draws, which are told here.")
    document = Document(command_line(), sha256, given.seed, results)
    console = tell_results(
        document,
        lambda: print_fig1(Found(results)),
        read,
        name=name,
        out=given.out,
        force=given.force,
        as_json=given.as_json,
    )
    if given.out is not None:
        write_or_say(
            lambda path, repeat: write_fig1(path, results, settings, held_out, repeat=repeat),
            given.out,
            document,
            console,
        )


def check_experiment(name: str) -> None:
    """Raise SettingsError for the name of no experiment."""
    if name != EXPERIMENT:
        raise SettingsError(f"'{name}' is no experiment. {did_you_mean(name, [EXPERIMENT])}")


def _replays(seed: int) -> Runs:
    from lengthpred.eval.sqlm_fig1.replays import run

    def replayed(
        folds: "Iterator[Fold]",
        settings: "Fig1Settings",
        strata: int,
        tell: Tell,
        keep: Keep,
    ) -> "list[Fig1Result]":
        jobs = min(os.cpu_count() or 1, settings.draws)
        return run(folds, settings, strata=strata, seed=seed, jobs=jobs, on_progress=tell)

    return replayed


def _samples(given: Given) -> Path:
    """The table of the small model's lengths; raises SettingsError where it is none."""
    if given.samples is None:
        raise SettingsError(
            "the experiment needs the small model's lengths for the same ids: --samples T2.parquet "
            "(`lengthpred label` makes one)"
        )
    data, samples = given.data, given.samples
    if samples.exists() and data.exists() and samples.samefile(data):
        raise SettingsError(
            "--samples is the table of --data itself, which would give the truth away: give the "
            "small model's table"
        )
    return samples


def _recipe(path: Path | None, samples: Path) -> "SqlmSettings":
    """Settings of S-QLM with the recorded samples for its small model."""
    from lengthpred.training.recipe import read_recipe
    from lengthpred.training.settings import SlmSettings, SqlmSettings

    own = read_recipe(path, "sqlm", SqlmSettings)
    recorded = {"backend": "recorded", "samples": str(samples)}
    slm = own.slm or SlmSettings.model_validate({**recorded, "cap": 2024, "pairs": PAIRS})
    return own.model_copy(update={"slm": slm.model_copy(update=recorded), "fallback": None})


def _names(hold_out: str | None) -> tuple[str, ...]:
    return () if hold_out is None else tuple(part.strip() for part in hold_out.split(","))


def paired(rows: "Rows", settings: "SqlmSettings") -> "Rows":
    """The rows that the small model answered, too; raises DataError where there are none."""
    from lengthpred.models.backends.base import answered, open_backend

    assert settings.slm is not None
    backend = open_backend(settings.slm.source())
    both = rows.take(answered(*backend.generate_lengths(rows.requests, 1, 1.0, 2**31, None, 0)))
    if not len(both):
        raise DataError("no row of --data has an id that --samples has, too: nothing can be paired")
    return both


def hold_outs(rows: "Rows", asked: Sequence[str]) -> list[tuple[str, ...]]:
    """The sets of domains to keep from training: that which is asked, or each domain in turn."""
    known = sorted({str(domain) for domain in rows.columns["domain"] if domain})
    for name in asked:
        if name not in known:
            raise SettingsError(
                f"--hold-out has '{name}', which is no domain of the rows that both tables have. "
                + did_you_mean(name, known)
            )
    if len(known) < 2 or len(set(asked)) >= len(known):
        raise DataError(
            f"the rows that both tables have are of {len(known)} domain(s) (column 'domain'): the "
            "experiment keeps some from training and needs others to train on"
        )
    return [tuple(asked)] if asked else [(name,) for name in known[:MOST_SETS]]


def make_folds(
    rows: "Rows",
    settings: "SqlmSettings",
    held_out: Sequence[tuple[str, ...]],
    draws: int,
    seed: int,
) -> "Iterator[Fold]":
    """So many splits, each with another of the sets kept from training, and S-QLM trained on it.

    Of the other rows half are trained on, 15 % calibrate, by group; the rest are replayed. Raises
    DataError where there are too few.
    """
    from lengthpred.eval.sqlm_fig1.setting import Fold
    from lengthpred.training import sqlm

    for number in range(draws):
        held = held_out[number % len(held_out)]
        rng = np.random.default_rng([seed, number])
        outside = np.isin(rows.columns["domain"], held)
        place = rng.random(int(rows.groups.max()) + 1)[rows.groups]
        train, calibration = ~outside & (place < TRAINED), ~outside & (place >= 1 - CALIBRATED)
        trained = sqlm.train(rows.take(train), rows.take(calibration), settings, rng)
        picked = np.flatnonzero(~train & ~calibration)
        asked = rows.take(picked)
        asked = replace(asked, columns={**asked.columns, "ood": outside[picked]})
        yield Fold.of(held, asked, trained)
