"""`lengthpred data import | show | split`: make tables, look at them, split them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table as Grid

from lengthpred.cli.console import print_json, progress, stdout, warn

if TYPE_CHECKING:
    from lengthpred.data.report import ImportReport
    from lengthpred.data.splits import SplitReport

__all__ = ["register"]

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Force = Annotated[bool, typer.Option("--force", help="Replace what exists.")]


def register(app: typer.Typer) -> None:
    """Add the command group `data`."""
    data = typer.Typer(no_args_is_help=True, help="Make tables of requests and true lengths.")
    data.command("import")(import_)
    data.command("show")(show)
    data.command("split")(split)
    app.add_typer(data, name="data")


def import_(
    src: Annotated[
        str, typer.Argument(metavar="SRC", help="A file, folder or name; 'sharegpt': its package.")
    ],
    format: Annotated[
        str, typer.Option(help="sharegpt, alpaca, openai, jsonl, csv, parquet, datasets or served.")
    ],
    out: Annotated[Path, typer.Option(help="The table to write, a Parquet file.")],
    columns: Annotated[
        Path | None, typer.Option(help='A TOML file of lines our_column = "their column".')
    ] = None,
    tokenizer: Annotated[
        str,
        typer.Option(help="tokenizer.json, Mistral file, mistral-v3, hub id, or chars/4."),
    ] = "chars/4",
    model: Annotated[str | None, typer.Option(help="The model of rows that name none.")] = None,
    split_name: Annotated[
        str, typer.Option("--split", help="Which split of a data set (format datasets).")
    ] = "",
    requests: Annotated[
        str, typer.Option(help="The batch's input file, where SRC is its output (format openai).")
    ] = "",
    context_chars: Annotated[
        int, typer.Option(min=0, help="How many characters of the context to keep, at its end.")
    ] = 4096,
    force: Force = False,
    json: Json = False,
) -> None:
    """Make a table of conversations, logs or any data set."""
    from lengthpred.data.importing import import_table
    from lengthpred.data.readers.columns import load_columns

    with progress() as bar:
        task = bar.add_task("reading", total=None)

        def told(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total or None)

        report = import_table(
            src,
            format,
            out,
            tokenizer=tokenizer,
            columns=load_columns(columns) if columns else None,
            model=model,
            context_chars=context_chars,
            split=split_name,
            requests=requests,
            force=force,
            on_progress=told,
        )
    if json:
        print_json(report.as_json())
    else:
        _print_import(report)


def _print_import(report: "ImportReport") -> None:
    for warning in report.warnings:
        warn(warning)
    stdout.print(
        f"[bold]{report.rows:,} rows[/] from {report.records:,} records of {escape(report.source)}",
        soft_wrap=True,
    )
    if report.dropped:
        grid = Grid("dropped because", "count", "first places", title_justify="left")
        grid.columns[1].justify = "right"
        for reason, entry in sorted(report.dropped.items(), key=lambda item: -item[1].count):
            grid.add_row(escape(reason), f"{entry.count:,}", escape(", ".join(entry.examples)))
        stdout.print(grid)
    if not report.counted:
        stdout.print("All lengths are as the source says: no text was counted.")
    elif report.approximate:
        stdout.print(
            f"[yellow]Lengths of {report.counted:,} texts are approximate[/] ({report.tokenizer}: "
            "a token for four characters). Give --tokenizer for the target model's own tokens.",
            highlight=False,
        )
    else:
        stdout.print(f"Tokens counted with {escape(report.tokenizer)}.")
    stdout.print(f"Written: {escape(report.out)}", soft_wrap=True)


def show(
    table: Annotated[Path, typer.Argument(metavar="T", help="A table.")],
    rows: Annotated[int, typer.Option(min=0, help="How many rows to print.")] = 3,
    json: Json = False,
) -> None:
    """Show what a table holds."""
    from lengthpred.data.summary import summarize
    from lengthpred.data.table import Table

    found = summarize(Table(table), examples=rows)
    if json:
        print_json(found)
        return
    stdout.print(f"[bold]{escape(str(table))}[/]", soft_wrap=True)
    _print_summary(found)


def _print_summary(found: dict[str, Any]) -> None:
    facts = Grid(show_header=False)
    for name in ("rows", "samples", "groups", "first_turns", "ood_rows"):
        facts.add_row(name.replace("_", " "), f"{found[name]:,}")
    facts.add_row("censored", f"{found['censored_share']:.1%} of the samples")
    for name in ("models", "domains", "languages"):
        values = [f"{escape(value)} {count:,}" for value, count in list(found[name].items())[:8]]
        more = len(found[name]) - len(values)
        facts.add_row(name, ", ".join(values) + (f", … {more} more" if more else ""))
    stdout.print(facts)
    lengths = Grid("tokens", *next(iter(found["tokens"].values())))
    for name, values in found["tokens"].items():
        if name == "prompt_tokens" and not found["with_prompt_tokens"]:
            continue
        lengths.add_row(name.replace("_", " "), *(f"{value:,.0f}" for value in values.values()))
    for column in lengths.columns[1:]:
        column.justify = "right"
    stdout.print(lengths)
    missing = found["rows"] - found["with_prompt_tokens"]
    if missing:
        which = f"{missing:,} of {found['rows']:,}" if found["with_prompt_tokens"] else "all"
        stdout.print(f"The prompt tokens of {which} rows were not recorded.", highlight=False)
    if found["examples"]:
        grid = Grid("id", "turn", "prompt", "output tokens")
        for row in found["examples"]:
            outputs = ", ".join(map(str, row["output_tokens"]))
            grid.add_row(escape(row["id"]), str(row["turn"]), escape(row["prompt"]), outputs)
        stdout.print(grid)


def split(
    table: Annotated[Path, typer.Argument(metavar="T", help="A table.")],
    out: Annotated[Path, typer.Option(help="The folder for the three parts.")],
    by: Annotated[str, typer.Option(help="group, domain, cluster or language.")] = "group",
    hold_out: Annotated[
        list[str] | None, typer.Option(help="A value to hold out as OOD; may be repeated.")
    ] = None,
    ood_share: Annotated[
        float, typer.Option(help="About this share is held out, where no --hold-out is given.")
    ] = 0.2,
    fractions: Annotated[
        str, typer.Option(help="Shares of train, calibration and test.")
    ] = "0.70,0.12,0.18",
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same bytes.")] = 0,
    clusters: Annotated[int, typer.Option(help="How many clusters (by cluster).")] = 30,
    turns: Annotated[str, typer.Option(help="first or all.")] = "all",
    max_prompt_tokens: Annotated[
        int | None, typer.Option(min=0, help="Leave out longer prompts.")
    ] = None,
    max_output_tokens: Annotated[
        int | None, typer.Option(min=0, help="Leave out longer answers.")
    ] = None,
    unique_prompts: Annotated[
        bool, typer.Option("--unique-prompts", help="Keep each exact prompt once.")
    ] = False,
    force: Force = False,
    json: Json = False,
) -> None:
    """Split a table into train, calibration and test; no group is cut."""
    from lengthpred.data.splits import SplitSettings, split_table

    settings = SplitSettings(
        by=by,
        fractions=_shares(fractions),
        seed=seed,
        hold_out=tuple(hold_out or ()),
        ood_share=ood_share,
        clusters=clusters,
        turns=turns,
        max_prompt_tokens=max_prompt_tokens,
        max_output_tokens=max_output_tokens,
        unique_prompts=unique_prompts,
    )
    with progress() as bar:
        task = bar.add_task("splitting", total=None)

        def told(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        report = split_table(table, out, settings, force=force, on_progress=told)
    if json:
        print_json(report.as_json())
    else:
        _print_split(report)


def _shares(text: str) -> tuple[float, float, float]:
    from lengthpred.errors import SettingsError

    try:
        train, calibration, test = map(float, text.split(","))
    except ValueError as error:
        raise SettingsError(
            f"--fractions must be three numbers such as 0.70,0.12,0.18, not '{text}'"
        ) from error
    return train, calibration, test


def _print_split(report: "SplitReport") -> None:
    grid = Grid("part", "rows")
    grid.columns[1].justify = "right"
    for name, count in report.rows.items():
        grid.add_row(name, f"{count:,}")
    for reason, count in report.left_out.items():
        grid.add_row(f"left out: {reason}", f"{count:,}", style="dim")
    stdout.print(grid)
    if report.held_out:
        names = ", ".join(report.held_out)
        stdout.print(f"Held out as OOD: {escape(names)}", soft_wrap=True)
    stdout.print(f"{report.groups:,} groups, none cut. Written: {escape(report.out)}")
