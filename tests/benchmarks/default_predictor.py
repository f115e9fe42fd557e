"""Makes the predictor that ships with the package, from sources whose licences allow that.

    python -m tests.benchmarks.default_predictor SOURCES OUT

SOURCES holds the measured lengths as Parquet files: CASTILLO, the Open Assistant sampling reports,
ZeroEval, Rakuda (all Apache-2.0) and GPTeacher (MIT); models/default/README.md says where each is
published. Writes one table, splits it by prompt, trains an encoder, and distils it. OUT/default is
what models/default holds.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lengthpred.data.splits import SplitSettings, split_table
from lengthpred.data.table import SCHEMA, write_table
from lengthpred.training.fit import fit

Row = dict[str, Any]
# Of the many models of a prompt, so many: the same prompt again says little that is new.
MODELS_A_PROMPT = 8
GENERIC_A_PROMPT = 4
TOOL_CALLS = 2000
ENCODER = "context_tokens = 0\nepochs = 1\nchecks = 4\nmax_rows = 32000\n"
DISTILLED = "trees = 500\nmax_rows = 40000\n"


def main() -> None:
    """Read the arguments, and make the table, the encoder and the predictor."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("sources", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--table-only", action="store_true")
    arguments = parser.parse_args()
    out: Path = arguments.out
    table = out / "table.parquet"
    rng = np.random.default_rng(0)
    parts = (castillo, zeroeval, oasst, gpteacher)
    rows = [row for part in parts for row in part(arguments.sources, rng)]
    batch = pa.RecordBatch.from_pylist(rows, schema=SCHEMA)
    print(f"{write_table(table, [batch], force=True)} rows")
    split_table(
        table, out / "split", SplitSettings(by="group", fractions=(0.8, 0.1, 0.1)), force=True
    )
    if arguments.table_only:
        return
    data, held = out / "split" / "train.parquet", out / "split" / "calibration.parquet"
    for name, text in (("encoder", ENCODER), ("distilled", DISTILLED)):
        (out / f"{name}.toml").write_text(text)
    settings: dict[str, Any] = {"calibration": held, "force": True}
    fit("encoder", data, out / "encoder", recipe=out / "encoder.toml", **settings)
    told = {"teacher": [str(out / "encoder")]}
    fit("distilled", data, out / "default", recipe=out / "distilled.toml", told=told, **settings)


def castillo(sources: Path, rng: np.random.Generator) -> Iterator[Row]:
    """13 models, 7 corpora, ten samples a prompt and model, in native tokens."""
    for row in pq.read_table(sources / "multimodel/castillo_lengths.parquet").to_pylist():
        lengths = row["output_tokens"]
        # The cap of the measurement; what reaches it was stopped.
        stopped = [length >= 15_000 for length in lengths]
        yield _row(row["prompt"], row["model"].split("/")[-1], row["dataset"], lengths, stopped)


def zeroeval(sources: Path, rng: np.random.Generator) -> Iterator[Row]:
    """Mathematics, code reading and number sense, greedy, at most 4,096 tokens; and Rakuda."""
    names = ("zeroeval_gsm", "zeroeval_math-l5", "zeroeval_crux", "zeroeval_numersense-v2")
    for prompt, domain, runs in _prompts(sources, (*names, "rakuda_v1", "rakuda_v2")):
        for i in rng.permutation(len(runs))[:MODELS_A_PROMPT]:
            length = runs[i]["resp_tokens"]
            yield _row(prompt, runs[i]["model"], domain, [length], [length >= 4000])


def oasst(sources: Path, rng: np.random.Generator) -> Iterator[Row]:
    """Open Assistant's prompts, answered by its experiments of 2023: models without a name."""
    for prompt, domain, runs in _prompts(sources, ("oasst_lottery",)):
        for i in rng.permutation(len(runs))[:GENERIC_A_PROMPT]:
            limit = "".join(c for c in str(runs[i]["config"]).split("max")[-1] if c.isdigit())
            length = runs[i]["resp_tokens"]
            # Counted in another tokenizer than the limit's.
            stopped = bool(limit) and length >= 0.85 * int(limit)
            named = runs[i]["model"].startswith("deepseek")
            yield _row(prompt, "deepseek-v3" if named else "", domain, [length], [stopped])


def gpteacher(sources: Path, rng: np.random.Generator) -> Iterator[Row]:
    """GPT-4's answers to roles, tool descriptions and programming tasks."""
    for name in ("gpteacher_roleplay", "gpteacher_toolformer", "code"):
        rows = pq.read_table(sources / f"text/{name}.parquet").to_pylist()
        rows = [row for row in rows if row["source"] == "teknium1/GPTeacher"]
        if name == "gpteacher_toolformer":
            rows = [rows[i] for i in np.sort(rng.choice(len(rows), TOOL_CALLS, replace=False))]
        for row in rows:
            yield _row(row["prompt"], "gpt-4", name, [row["response_tokens"]], [False])


def _prompts(sources: Path, names: tuple[str, ...]) -> Iterator[tuple[str, str, list[Row]]]:
    """Each prompt of some data sets, with the runs that answered it."""
    wanted = pa.array(names)

    def read(file: str) -> list[Row]:
        table = pq.read_table(sources / "multimodel" / file)
        keep = pa.compute.is_in(table["dataset"].cast(pa.string()), value_set=wanted)
        rows: list[Row] = table.filter(keep).to_pylist()
        return rows

    runs: dict[tuple[str, str], list[Row]] = {}
    for row in read("multimodel_lengths.parquet"):
        if row["resp_tokens"] is not None:
            runs.setdefault((row["dataset"], row["prompt_id"]), []).append(row)
    for row in read("multimodel_prompts.parquet"):
        key = (row["dataset"], row["prompt_id"])
        if row["prompt"] and key in runs:
            yield row["prompt"], row["dataset"], runs[key]


def _row(prompt: str, model: str, domain: str, lengths: list[int], stopped: list[bool]) -> Row:
    empty: Row = dict.fromkeys(SCHEMA.names)
    known = {"prompt": prompt, "model": model, "domain": domain}
    return empty | known | {"output_tokens": lengths, "censored": stopped}


if __name__ == "__main__":
    main()
