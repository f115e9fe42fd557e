"""Labelling: asks a model for the answers to a table's prompts; their lengths make a new table.

Work is cut into shards that are kept beside the target as they are finished
(`lengthpred.training.shards`), so that a run that was killed goes on where it stopped.
"""

import math
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from lengthpred.data.table import Table, write_table
from lengthpred.errors import BackendError, DataError
from lengthpred.manifest import file_sha256
from lengthpred.models.backends.chat_servers import AllDownError
from lengthpred.runner import check_runner, over_ray
from lengthpred.training.asking import NEEDS, Asker, Job, OnAnswers, ask_all, picked_rows
from lengthpred.training.label_settings import LabelSettings, model_name
from lengthpred.training.label_table import Counts, labelled
from lengthpred.training.shards import Answers, ShardFolder, digest_of

__all__ = ["LabelReport", "LabelSettings", "label"]

OnBegin = Callable[[int, int, int, int], None]
"""Called once with the shards that are there, all shards, the rows that are there, all rows."""


@dataclass(frozen=True)
class LabelReport:
    """What became of a labelling.

    rows        of the table that was written
    tokens      of all answers together
    censored    samples that were stopped
    samples     of all rows
    unanswered  rows that are left out because no sample of them says anything: number in T, id
    workers     how many shards each worker made, in this run and those before
    """

    out: str
    model: str
    rows: int
    samples: int
    censored: int
    tokens: int
    unanswered: list[dict[str, Any]] = field(default_factory=list)
    workers: dict[str, int] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """For machines."""
        return asdict(self)


def label(
    table: str | os.PathLike[str],
    out: str | os.PathLike[str],
    settings: LabelSettings,
    *,
    force: bool = False,
    runner: str = "local",
    workers: int | None = None,
    on_begin: OnBegin | None = None,
    on_answers: OnAnswers | None = None,
) -> LabelReport:
    """Ask for answers to every row of `table` and write the table `out`.

    Goes on with an unfinished labelling of the same settings. force: an `out` that exists is
    replaced at the end, and an unfinished labelling of other settings is discarded at once.

    Raises SettingsError and DataError before anything is written; BackendError when the model
    cannot be used or has answered nothing: finished shards stay for the next run.
    """
    settings.check()
    count = check_runner(runner, workers)
    asked, target, folder = Table(table, NEEDS), Path(out), ShardFolder(out)
    unfinished = folder.exists()
    _check_target(target, asked, settings, force=force or unfinished)
    model = model_name(settings.source)
    identity = settings.identity(asked, model)
    with folder.locked():
        done = folder.done()
        if done is not None and not folder.table.exists():
            # A run was killed when all was done but removing the folder.
            if done["settings"] == digest_of(identity) and _is_file_of(target, done["sha256"]):
                folder.clear()
                return LabelReport(**done["report"])
            folder.empty()
        _check_target(target, asked, settings, force=force)
        folder.claim(identity, force=force)
        work = _Work(asked, target, folder, settings, model)
        missing = work.missing()
        if on_begin is not None:
            size, rows = settings.shard_rows, len(work.picked)
            left = sum(min(size, rows - shard * size) for shard in missing)
            on_begin(work.shards - len(missing), work.shards, rows - left, rows)
        try:
            work.ask(missing, runner, count, on_answers)
            # A server may have failed at some rows while it answered others: once more.
            again = work.lacking() if settings.source.backend == "openai" else []
            try:
                told = on_answers and (lambda _, tokens: on_answers(0, tokens))
                work.ask(again, runner, count, told)
            except AllDownError:
                # They may be what kills it: then no repetition would ever come to an end.
                if not work.any_answer():
                    raise
        except BackendError as error:
            if not folder.shards():
                raise
            kept = f"{len(folder.shards()):,} of {work.shards:,} shards are kept"
            raise BackendError(
                f"{error}. {kept}: repeat the command and it goes on where it stopped"
            ) from error
        return work.assemble(force=force)


class _Work:
    """One labelling whose folder is locked."""

    def __init__(
        self, table: Table, out: Path, folder: ShardFolder, settings: LabelSettings, model: str
    ) -> None:
        self.table, self.out, self.folder = table, out, folder
        self.settings, self.model = settings, model
        self.picked = picked_rows(len(table), settings.max_rows, settings.seed)
        self.shards = math.ceil(len(self.picked) / settings.shard_rows)
        self.by_worker: dict[str, int] = {}

    def missing(self) -> list[int]:
        """Shards that are not there, or not whole."""
        return [shard for shard in range(self.shards) if not self._read(shard)]

    def lacking(self) -> list[int]:
        """Shards that are there and have a row without all of its samples."""
        n = self.settings.samples
        found = {k: self._read(k) for k in range(self.shards)}
        return [k for k, answers in found.items() if any(len(a.lengths) < n for a in answers)]

    def any_answer(self) -> bool:
        """Whether any row of any shard has one."""
        return any(a.lengths for shard in range(self.shards) for a in self._read(shard))

    def _read(self, shard: int) -> list[Answers]:
        size = self.settings.shard_rows
        answers, worker = self.folder.read(shard)
        expected = self.picked[shard * size : (shard + 1) * size]
        if not np.array_equal([answer.row for answer in answers], expected):
            return []
        self.by_worker[worker] = self.by_worker.get(worker, 0) + 1
        return answers

    def _kept(self, shard: int) -> list[Answers]:
        answers = self._read(shard)
        if not answers:
            raise DataError(
                f"shard {shard} is not in {self.folder.path}: the folder must be on storage that "
                "all workers share; repeat the command to go on"
            )
        return answers

    def ask(
        self, shards: list[int], runner: str, workers: int, on_answers: OnAnswers | None
    ) -> None:
        """Make these shards."""
        settings = self.settings
        job = Job(
            table=os.path.abspath(self.table.path),
            out=os.path.abspath(self.out),
            digest=self.folder.digest,
            source=settings.source.absolute(),  # workers run in other folders
            **{name: getattr(settings, name) for name in _SHARED},
        )
        if not shards:
            return
        if runner == "local":
            ask_all(Asker(job, on_answers), shards)
            return
        if job.rate is not None:
            job = replace(job, rate=job.rate / workers)
        gpus = int(job.source.device.startswith("cuda"))
        for _, (rows, tokens) in over_ray(partial(Asker, job), shards, workers, gpus=gpus):
            if on_answers is not None:
                on_answers(rows, tokens)

    def assemble(self, *, force: bool) -> LabelReport:
        """Put the table together from the shards, in its place, and remove the folder."""
        self.by_worker.clear()
        answers = chain.from_iterable(map(self._kept, range(self.shards)))
        counts = Counts()
        rows = write_table(
            self.folder.table,
            labelled(
                self.table, self.picked, answers, self.model, self.settings.temperature, counts
            ),
            force=True,
        )
        if not rows:
            self.folder.empty()
            why = (
                f"{self.settings.source.samples} has none with these ids and prompts"
                if self.settings.source.samples
                else "it may refuse the prompts, or the deadline may be too short"
            )
            raise BackendError(
                f"{self.model} answered none of the {len(self.picked):,} rows: {why}"
            )
        workers = dict(sorted(self.by_worker.items()))
        report = LabelReport(os.fspath(self.out), self.model, rows, workers=workers, **vars(counts))
        _check_target(self.out, self.table, self.settings, force=force)
        self.folder.finish(self.out, report.as_json())
        return report


# What the settings and a job both have.
_SHARED = "samples temperature cap deadline_s rate seed shard_rows max_rows".split()


def _check_target(out: Path, table: Table, settings: LabelSettings, *, force: bool) -> None:
    """Raise DataError when `out` cannot become the new table."""
    if out.is_dir() or (out.exists() and not force):
        raise DataError(f"{out} exists already: choose another name, or add --force")
    for path in (table.path, Path(settings.source.samples)):
        if out.exists() and path.is_file() and os.path.samefile(out, path):
            raise DataError(f"{out} is a table that is read: choose another --out")


def _is_file_of(path: Path, sha256: str) -> bool:
    return path.is_file() and file_sha256(path) == sha256
