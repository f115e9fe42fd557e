"""Puts the answers of a labelling together with the rows that they answer."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa

from lengthpred.base import IntArray
from lengthpred.data.table import SCHEMA, Table
from lengthpred.training.shards import Answers

__all__ = ["Counts", "labelled"]


@dataclass
class Counts:
    """Sums over the rows of a new table; `unanswered` rows, number in T and id, are not in it."""

    samples: int = 0
    censored: int = 0
    tokens: int = 0
    unanswered: list[dict[str, Any]] = field(default_factory=list)

    def add(self, answers: Answers, name: str | None) -> None:
        """Count one row."""
        self.samples += len(answers.lengths)
        self.censored += sum(answers.censored)
        self.tokens += sum(answers.lengths)
        if not answers.lengths:
            self.unanswered.append({"row": answers.row, "id": name})


def labelled(
    table: Table,
    picked: IntArray,
    answers: Iterable[Answers],
    model: str,
    temperature: float,
    counts: Counts,
) -> Iterator[pa.RecordBatch]:
    """The picked rows of `table` with these answers, one for each, in place of their own.

    Rows without an answer are left out; all are added to `counts` on the way.
    """
    asked = np.zeros(len(table), bool)
    asked[picked] = True
    following, offset = iter(answers), 0
    for batch in table.batches():
        rows = batch.filter(pa.array(asked[offset : offset + len(batch)]))
        offset += len(batch)
        found = list(islice(following, len(rows)))
        ids = rows.column("id").to_pylist() if "id" in rows.schema.names else [None] * len(rows)
        for answer, name in zip(found, ids, strict=True):
            counts.add(answer, name)
        kept = [answer for answer in found if answer.lengths]
        if kept:
            some = pa.array([bool(answer.lengths) for answer in found])
            yield _labelled(rows.filter(some), kept, model, temperature)


def _labelled(
    rows: pa.RecordBatch, answers: list[Answers], model: str, temperature: float
) -> pa.RecordBatch:
    n = len(rows)
    held = dict(zip(rows.schema.names, rows.columns, strict=True))
    tokens = held["prompt_tokens"].to_pylist() if "prompt_tokens" in held else [None] * n
    models = held["model"].to_pylist() if "model" in held else [None] * n
    own = zip(tokens, models, strict=True)
    new = {
        "output_tokens": [answer.lengths for answer in answers],
        "censored": [answer.censored for answer in answers],
        "finish_reason": [
            ["length" if stopped else "stop" for stopped in answer.censored] for answer in answers
        ],
        "model": [model] * n,
        "temperature": [temperature] * n,
        # The cap is no limit that a client set: predictors would learn that answers end there.
        "max_tokens": [None] * n,
        # Another model's tokens: wrong for this one.
        "prompt_tokens": [count if name == model else None for count, name in own],
    }
    columns = [
        pa.array(new[column.name], column.type)
        if column.name in new
        else held.get(column.name, pa.nulls(n, column.type))
        for column in SCHEMA
    ]
    return pa.RecordBatch.from_arrays(columns, schema=SCHEMA)
