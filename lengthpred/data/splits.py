"""Splits: train, calibration and test, and what is held out as out of distribution (OOD).

Rows that share a group are never split, nor are rows with the same context and prompt. The table
is read twice and never held in memory: first a few numbers a row, then the rows are written.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lengthpred.base import IntArray
from lengthpred.data.clusters import cluster_rows
from lengthpred.data.groups import joined_groups
from lengthpred.data.importing import Progress
from lengthpred.data.language import UNKNOWN
from lengthpred.data.split_keys import Keys, read_keys
from lengthpred.data.split_parts import DROPPED, PARTS, write_parts
from lengthpred.data.table import Table
from lengthpred.errors import DataError, SettingsError, did_you_mean

__all__ = ["KINDS", "PARTS", "SplitReport", "SplitSettings", "split_table"]

KINDS = ("group", "domain", "cluster", "language")


@dataclass(frozen=True)
class SplitSettings:
    """How a table is split.

    by                 "group": at random; "domain", "cluster", "language": whole values held out
    fractions          of the rows in distribution: train, calibration, test
    hold_out           the values to hold out; none: chosen at random
    ood_share          about this share of all rows is held out when they are chosen
    clusters           how many clusters, for by "cluster"
    turns              "first" keeps first turns only, of conversations that the user began
    max_prompt_tokens  rows whose prompt itself is longer are left out
    max_output_tokens  rows with a sample longer than this are left out
    unique_prompts     of rows with the same prompt, only the first is kept
    """

    by: str = "group"
    fractions: tuple[float, float, float] = (0.70, 0.12, 0.18)
    seed: int = 0
    hold_out: Sequence[str] = ()
    ood_share: float = 0.2
    clusters: int = 30
    turns: str = "all"
    max_prompt_tokens: int | None = None
    max_output_tokens: int | None = None
    unique_prompts: bool = False

    def __post_init__(self) -> None:
        if self.by not in KINDS:
            raise SettingsError(f"no split by '{self.by}'. {did_you_mean(self.by, KINDS)}")
        if self.turns not in ("first", "all"):
            raise SettingsError(f"turns must be 'first' or 'all', not '{self.turns}'")
        if self.hold_out and self.by == "group":
            raise SettingsError("a split by group holds nothing out: split by domain or language")
        if len(self.fractions) != 3 or not all(0 < share < 1 for share in self.fractions):
            raise SettingsError(f"fractions must be three shares above 0, not {self.fractions}")
        if abs(sum(self.fractions) - 1) > 1e-6:
            raise SettingsError(f"fractions must sum to 1, not {sum(self.fractions):g}")
        if not 0 < self.ood_share < 1:
            raise SettingsError(f"the OOD share must lie between 0 and 1, not {self.ood_share}")
        if self.clusters < 2:
            raise SettingsError(f"the number of clusters must be at least 2, not {self.clusters}")


@dataclass
class SplitReport:
    """What a split wrote.

    rows      by part; "test (OOD)" counts the held-out rows, which are in test.parquet
    left_out  rows that the filters or the split left out, by reason
    held_out  the values that are out of distribution
    """

    out: str
    by: str
    rows: dict[str, int] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)
    held_out: list[str] = field(default_factory=list)
    groups: int = 0

    def as_json(self) -> dict[str, Any]:
        """The report as plain values."""
        return dict(vars(self))


def split_table(
    table: Table | str | os.PathLike[str],
    out: str | os.PathLike[str],
    settings: SplitSettings | None = None,
    *,
    force: bool = False,
    on_progress: Progress | None = None,
) -> SplitReport:
    """Write train.parquet, calibration.parquet and test.parquet to the folder `out`.

    Test holds rows in distribution (`ood` false) and the held-out ones (`ood` true). The same
    table, settings and seed give the same bytes. on_progress is called with (done, total) rows.

    Raises DataError when a part would be empty, or exists and not `force`; SettingsError for a
    value to hold out that the table does not have; MissingExtraError for by "cluster" without
    scikit-learn.
    """
    settings = settings or SplitSettings()
    table = table if isinstance(table, Table) else Table(table)
    for part in PARTS:
        if Path(out, f"{part}.parquet").exists() and not force:
            raise DataError(f"{Path(out, part)}.parquet exists already: add --force")
    keys = read_keys(table, settings.by)
    report = SplitReport(os.fspath(out), settings.by)
    kept = _filtered(keys, settings, report)
    if not kept.any():
        raise DataError(f"{table.path}: the filters leave no row out of {len(table):,}")
    values = keys.value
    groups = joined_groups(keys.group, keys.content)
    if settings.by == "cluster":
        values = _clusters(table, groups, kept, settings)
    chosen = _held_out(values[kept], settings)
    report.held_out = sorted(chosen)
    held = _apart(groups, kept, np.isin(values, chosen), report)
    side = _sides(groups, kept, held, settings, report)
    for number, name in enumerate(PARTS):
        report.rows[name] = int(np.sum((side == number) & ~held))
        if not report.rows[name]:
            raise DataError(
                f"{table.path}: {report.groups} groups are too few for a {name} part: "
                "give more rows, other fractions, or hold out less"
            )
    if settings.by != "group":
        report.rows["test (OOD)"] = int(held.sum())
    domains = values if settings.by == "cluster" else None
    write_parts(table, Path(out), side, held, domains, on_progress)
    return report


def _clusters(
    table: Table, groups: IntArray, kept: npt.NDArray[np.bool_], settings: SplitSettings
) -> npt.NDArray[np.str_]:
    """The cluster of each row's group, that of the group's first row: it stands for the topic."""
    rows = np.flatnonzero(kept)
    _, first = np.unique(groups[rows], return_index=True)
    opening = np.zeros(len(groups), bool)
    opening[rows[first]] = True
    numbers = cluster_rows(table, opening, settings.clusters, settings.seed)
    of_group = np.full(int(groups.max()) + 1, -1)
    of_group[groups[opening]] = numbers[opening]
    return np.array([f"cluster-{number:02d}" for number in of_group[groups]], dtype=np.str_)


def _filtered(keys: Keys, settings: SplitSettings, report: SplitReport) -> npt.NDArray[np.bool_]:
    """Which rows pass the filters, shape (n,); what each filter leaves out is counted."""
    kept = np.ones(len(keys.group), bool)

    def leave_out(mask: npt.NDArray[np.bool_], reason: str) -> None:
        count = int(np.sum(mask & kept))
        if count:
            report.left_out[reason] = count
            kept[mask] = False

    if settings.turns == "first":
        leave_out(~keys.first, "not a first turn")
    if (limit := settings.max_prompt_tokens) is not None:
        leave_out(keys.tokens > limit, f"prompt over {limit:,} tokens")
    if (limit := settings.max_output_tokens) is not None:
        leave_out(keys.longest > limit, f"answer over {limit:,} tokens")
    if settings.unique_prompts:
        rows = np.flatnonzero(kept)
        _, first = np.unique(keys.prompt[rows], return_index=True)
        repeated = np.ones(len(kept), bool)
        repeated[rows[first]] = False
        leave_out(repeated, "prompt seen before")
    return kept


def _held_out(values: npt.NDArray[np.str_], settings: SplitSettings) -> list[str]:
    """The values that are out of distribution."""
    if settings.by == "group":
        return []
    found, counts = np.unique(values, return_counts=True)
    sizes = {str(v): int(c) for v, c in zip(found, counts, strict=True) if v not in ("", UNKNOWN)}
    if len(found) < 2 or not sizes:
        raise DataError(
            f"a split by {settings.by} needs two or more {settings.by}s; the table has "
            f"{', '.join(sizes) or 'none'}: fill the column '{settings.by}', or split by cluster"
        )
    for name in settings.hold_out:
        if name not in sizes:
            raise SettingsError(f"no {settings.by} '{name}' in it. {did_you_mean(name, sizes)}")
    return list(settings.hold_out) or _chosen(sizes, len(values), settings)


def _chosen(sizes: dict[str, int], rows: int, settings: SplitSettings) -> list[str]:
    """Values in seeded order as long as they fit into the share; at least the smallest.

    Clusters are numbered outward from a seeded one, so they are taken in order.
    """
    names = sorted(sizes)
    order = np.random.default_rng(settings.seed).permutation(len(names))
    chosen, total, wanted = [], 0, settings.ood_share * rows
    for i in sorted(order) if settings.by == "cluster" else order:
        size = sizes[names[i]]
        if total < 0.9 * wanted and total + size <= 1.1 * wanted:
            chosen.append(names[i])
            total += size
    return chosen or [min(names, key=lambda name: sizes[name])]


def _apart(
    groups: IntArray,
    kept: npt.NDArray[np.bool_],
    unlike: npt.NDArray[np.bool_],
    report: SplitReport,
) -> npt.NDArray[np.bool_]:
    """Which rows are held out, shape (n,): those unlike the rest, of groups that mostly are.

    The other rows of such a group, and rows unlike the rest in other groups, can be on neither
    side: they are taken out of `kept` and counted.
    """
    n = int(groups.max()) + 1
    share = np.bincount(groups[kept & unlike], minlength=n) * 2
    mostly = (share >= np.bincount(groups[kept], minlength=n)) & (share > 0)
    strays = kept & (mostly[groups] != unlike)
    if strays.any():
        report.left_out["in a group that is partly held out"] = int(strays.sum())
        kept[strays] = False
    return kept & unlike


def _sides(
    groups: IntArray,
    kept: npt.NDArray[np.bool_],
    held: npt.NDArray[np.bool_],
    settings: SplitSettings,
    report: SplitReport,
) -> IntArray:
    """The part of each row, shape (n,): a number of PARTS, or DROPPED."""
    usable = kept & ~held
    sizes = np.bincount(groups[usable], minlength=int(groups.max()) + 1)
    present = np.flatnonzero(sizes)
    order = np.random.default_rng([settings.seed, 1]).permutation(present)
    # A group goes where its middle falls.
    middle = (np.cumsum(sizes[order]) - sizes[order] / 2) / max(1, usable.sum())
    part = np.full(len(sizes), DROPPED)
    part[order] = np.searchsorted(np.cumsum(settings.fractions)[:2], middle, side="right")
    report.groups = len(present)
    side = np.where(usable, part[groups], DROPPED)
    side[held] = PARTS.index("test")
    return side
