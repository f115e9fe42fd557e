"""`lengthpred label`: ask a model for answers to a table's prompts, and keep their lengths."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from lengthpred.cli.console import print_json, progress, stderr, stdout
from lengthpred.errors import SettingsError

if TYPE_CHECKING:
    from lengthpred.models.backends.base import Source
    from lengthpred.training.label import LabelReport

__all__ = ["register"]

# Options that only one backend reads.
OWN = {"url": "openai", "samples_table": "recorded", "revision": "transformers"}
SHOWN = 5


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("label")(label)


def label(
    table: Annotated[Path, typer.Argument(metavar="T", help="A table; its prompts are asked.")],
    backend: Annotated[str, typer.Option(help="openai, transformers or recorded.")],
    out: Annotated[Path, typer.Option(help="The table to write, a Parquet file.")],
    model: Annotated[
        str,
        typer.Option(
            help="openai: the name it is served under; transformers: a folder, a GGUF file or a "
            "hub id; recorded: which of the table's models.",
            show_default=False,
        ),
    ] = "",
    url: Annotated[
        list[str] | None,
        typer.Option(help="openai: base URL of a server, ending in /v1; may be repeated."),
    ] = None,
    samples_table: Annotated[
        str, typer.Option(help="recorded: the table with the answers.", show_default=False)
    ] = "",
    samples: Annotated[int, typer.Option(help="Answers to each prompt.")] = 1,
    temperature: Annotated[float, typer.Option(help="Of sampling; 0 is the likeliest.")] = 1.0,
    cap: Annotated[int, typer.Option(help="Most tokens of an answer; longer is censored.")] = 2048,
    batch: Annotated[int, typer.Option(help="Answers that are worked on at once.")] = 64,
    deadline_s: Annotated[
        float | None,
        typer.Option(help="Seconds for one answer; unfinished is censored.", show_default=False),
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(help="Most prompts a second, over all workers.", show_default=False),
    ] = None,
    max_rows: Annotated[
        int | None,
        typer.Option(help="Ask a seeded sample of so many rows.", show_default=False),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the sampling.")] = 0,
    device: Annotated[str, typer.Option(help="transformers: cpu, cuda, ...")] = "cpu",
    dtype: Annotated[
        str, typer.Option(help="transformers: float32, bfloat16 or float16.")
    ] = "float32",
    revision: Annotated[
        str, typer.Option(help="transformers: of a hub id.", show_default=False)
    ] = "",
    runner: Annotated[str, typer.Option(help="local, or ray for Ray Data.")] = "local",
    workers: Annotated[
        int | None, typer.Option(help="ray: how many workers (2).", show_default=False)
    ] = None,
    shard_rows: Annotated[int, typer.Option(help="Rows that are kept together.")] = 64,
    force: Annotated[
        bool, typer.Option("--force", help="Replace --out; drop work of other settings.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Ask a model for answers to every prompt; goes on where a killed run stopped."""
    from lengthpred.models.backends.base import Source
    from lengthpred.training.label import LabelSettings
    from lengthpred.training.label import label as labelled

    for name, value in (("url", url), ("samples_table", samples_table), ("revision", revision)):
        if value and backend != OWN[name] and backend in OWN.values():
            option = name.replace("_", "-")
            raise SettingsError(f"--{option} is for --backend {OWN[name]}, not {backend}")
    source = Source(
        backend=backend,
        model=model,
        url=tuple(url or ()),
        samples=samples_table,
        revision=revision,
        device=device,
        dtype=dtype,
        batch=batch,
    )
    _check_named(source)
    settings = LabelSettings(
        source=source,
        samples=samples,
        temperature=temperature,
        cap=cap,
        deadline_s=deadline_s,
        rate=rate,
        max_rows=max_rows,
        seed=seed,
        shard_rows=shard_rows,
    )
    with progress(eta=True) as bar:
        task = bar.add_task("labelling", total=None, note="")
        begun, tokens = time.monotonic(), 0

        def begin(there: int, shards: int, rows_there: int, rows: int) -> None:
            # The rows that are there are no part of the bar: they took no time in this run.
            bar.update(task, total=rows - rows_there)
            if there:
                stderr.print(
                    f"{there:,} of {shards:,} shards are there: {rows - rows_there:,} of {rows:,} "
                    "rows are left",
                    highlight=False,
                    soft_wrap=True,
                )

        def told(more_rows: int, more_tokens: int) -> None:
            nonlocal tokens
            tokens += more_tokens
            speed = tokens / max(time.monotonic() - begun, 1e-9)
            bar.update(task, advance=more_rows, note=f"{speed:,.0f} tokens/s")

        report = labelled(
            table,
            out,
            settings,
            force=force,
            runner=runner,
            workers=workers,
            on_begin=begin,
            on_answers=told,
        )
    if as_json:
        print_json(report.as_json())
    else:
        _print_report(report)


def _check_named(source: "Source") -> None:
    """Raise SettingsError, in the words of the command line, for what the backend lacks."""
    needed = {
        "openai": ("--url", source.url),
        "transformers": ("--model", source.model),
        "recorded": ("--samples-table", source.samples),
    }
    option, value = needed.get(source.backend, ("", True))
    if not value:
        raise SettingsError(f"--backend {source.backend} needs {option}")


def _print_report(report: "LabelReport") -> None:
    said = [
        f"wrote {escape(report.out)}: {report.rows:,} rows answered by {escape(report.model)}, "
        f"{report.samples:,} samples, {report.tokens:,} tokens, "
        f"{report.censored / report.samples:.1%} censored"
    ]
    if report.unanswered:
        names = [str(row["id"] or f"row {row['row']}") for row in report.unanswered[:SHOWN]]
        more = ", …" if len(report.unanswered) > SHOWN else ""
        shown = escape(", ".join(names)) + more
        said.append(
            f"left out: {len(report.unanswered):,} rows without any answer ({shown}): refused, "
            "failed, or not done before the deadline"
        )
    for line in said:
        stdout.print(line, highlight=False, soft_wrap=True)
