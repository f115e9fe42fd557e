"""Recorded lengths of several models on the same prompts, for tests marked shared_data.

CASTILLO: 13 models, seven corpora, ten samples of each prompt. Not part of the project: tests skip
where LENGTHPRED_SHARED_DATA does not name the folder that holds it.
"""

import os
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from lengthpred.base import Request
from lengthpred.data.table import SCHEMA, Rows, Table, write_table

__all__ = ["CHATS", "CORPORA", "LLAMA_1B", "LLAMA_3B", "MISTRAL", "castillo", "rows_of", "save"]

MISTRAL = "mistralai/Mistral-7B-Instruct-v0.3"
LLAMA_1B = "meta-llama/Llama-3.2-1B-Instruct"
LLAMA_3B = "meta-llama/Llama-3.2-3B-Instruct"
CHATS = ("Alpaca", "DollyDataset", "ShareGPT")
CORPORA = (*CHATS, "Apps", "BigCodeBench", "DS1000", "Mbpp")
SAMPLES = 10


def castillo() -> Path:
    """The file; skips the test where it is not there."""
    folder = os.environ.get("LENGTHPRED_SHARED_DATA")
    if not folder:
        pytest.skip("LENGTHPRED_SHARED_DATA does not name the folder of the measurement data")
    return Path(folder, "multimodel", "castillo_lengths.parquet")


@cache
def rows_of(model: str, corpora: tuple[str, ...] = CORPORA) -> Rows:
    """The rows of a model in some corpora, ten lengths each; the id names corpus and prompt."""
    table = pq.read_table(castillo())
    chosen = table.filter(pc.equal(table["model"].cast("string"), model)).to_pylist()
    picked = [row for row in chosen if row["dataset"] in corpora]
    n = len(picked)
    return Rows(
        requests=[
            Request(
                prompt=row["prompt"],
                prompt_tokens=row["input_tokens"],
                model=model,
                id=f"{row['dataset']}/{row['prompt_id']}",
            )
            for row in picked
        ],
        lengths=np.array([row["output_tokens"] for row in picked], np.int64).ravel(),
        censored=np.zeros(SAMPLES * n, bool),
        owner=np.repeat(np.arange(n), SAMPLES),
        groups=np.arange(n),
        columns={
            "domain": np.array([row["dataset"] for row in picked], object),
            "ood": np.zeros(n, bool),
        },
    )


def save(rows: Rows, path: Path) -> Table:
    """Write such rows to a table."""
    columns = {
        "id": [request.id for request in rows.requests],
        "group": [request.id for request in rows.requests],
        "prompt": [request.prompt for request in rows.requests],
        "prompt_tokens": [request.prompt_tokens for request in rows.requests],
        "output_tokens": rows.lengths.reshape(len(rows), -1).tolist(),
        "model": [request.model for request in rows.requests],
        "domain": rows.columns["domain"].tolist(),
        "ood": rows.columns["ood"].tolist(),
    }
    absent = {name: [None] * len(rows) for name in SCHEMA.names if name not in columns}
    write_table(path, [pa.record_batch(columns | absent, schema=SCHEMA)])
    return Table(path)
