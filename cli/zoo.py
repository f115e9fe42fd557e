"""`lengthpred zoo`: the literature's predictors and ours, trained and compared on one table."""

from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from lengthpred.cli.console import print_json, stderr, stdout, steps
from lengthpred.cli.named import parse_ratios
from lengthpred.errors import LengthPredError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lengthpred.eval.compare import Comparison
    from lengthpred.eval.report.pareto import Entry
    from lengthpred.training.zoo import LeftOut, Recipe, Trained
    from lengthpred.training.zoo_data import Parts

__all__ = ["register"]

SPLIT = "split"
FILES = ("eval.json", "eval.csv", "zoo.json", "report.html")


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("zoo")(zoo)


def zoo(
    data: Annotated[Path, typer.Option(help="The table; it is split by group.")],
    out: Annotated[
        Path, typer.Option(help="Folder for the artifacts, eval.json, eval.csv and report.html.")
    ],
    test: Annotated[
        Path | None,
        typer.Option(
            help="A table to compare on; all of --data is then for training.", show_default=False
        ),
    ] = None,
    recipes: Annotated[
        str,
        typer.Option(
            help="Names of shipped recipes, or files, with commas between; else all that are "
            "shipped.",
            show_default=False,
        ),
    ] = "",
    max_rows: Annotated[
        int | None,
        typer.Option(min=500, help="Use about so many rows of each table.", show_default=False),
    ] = None,
    time_budget: Annotated[
        float | None,
        typer.Option(
            min=1,
            help="Seconds for all training: what does not fit is left out, an encoder that is "
            "being trained is cut.",
            show_default=False,
        ),
    ] = None,
    originals: Annotated[
        bool,
        typer.Option("--originals", help="Train the papers' own models, by hub id; no stand-ins."),
    ] = False,
    encoder: Annotated[
        str | None,
        typer.Option(
            help="The transformer that stands in: a folder or hub id; else as the recipes say.",
            show_default=False,
        ),
    ] = None,
    ood_ratio: Annotated[
        str, typer.Option(help="Shares of OOD rows in the mixes, between 0 and 1.")
    ] = "0,0.2,0.5,0.8,1",
    seed: Annotated[int, typer.Option(min=0, help="Of the split, the training, the scores.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace what is in --out.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Train the predictors of the literature on one split of a table, and compare them all.

    Cheap ones come first. What fails, or does not fit into the time, is left out and named.
    """
    from lengthpred.artifact import check_target
    from lengthpred.cli.report import command_line, write_or_say
    from lengthpred.cli.zoo_table import print_zoo
    from lengthpred.data.table import Table
    from lengthpred.eval.ceiling import CEILINGS
    from lengthpred.eval.controls import CONTROLS
    from lengthpred.eval.output import Document, check_out, write_results, write_whole
    from lengthpred.eval.report.page import write_report
    from lengthpred.eval.report.pareto import zoo_section
    from lengthpred.training.recipe import shipped
    from lengthpred.training.zoo import read_recipes
    from lengthpred.training.zoo_data import make_parts

    ratios = parse_ratios(ood_ratio)
    names = [name.strip() for name in recipes.split(",") if name.strip()]
    names = names or [str(path) for path in shipped().values()]
    taken = (SPLIT, *FILES, *CONTROLS, *CEILINGS)
    plan = read_recipes(names, encoder=encoder, originals=originals, taken=taken)
    check_out(out, force=force)
    for recipe in plan:
        check_target(out / recipe.name, force=force)
    given = Table(data), None if test is None else Table(test)
    parts = make_parts(*given, out / SPLIT, max_rows=max_rows, seed=seed, force=force)
    try:
        trained, left_out = _train(plan, parts, out, time_budget, seed, force)
        comparison = _compare(trained, parts, max_rows, ratios, seed)
    except BaseException as end:  # a signal, too: the same command can then be given again
        kept = [recipe.name for recipe in plan if (out / recipe.name).exists()]
        if not kept:
            parts.discard()
        if isinstance(end, KeyboardInterrupt):
            _say_kept(kept, out)
        raise
    entries = [_entry(one) for one in trained]
    comparison = replace(comparison, notes=[*_notes(trained, left_out), *comparison.notes])
    document = Document(command_line(), parts.test.fingerprint, seed, comparison.results)
    summary = {
        "recipes": [asdict(entry) for entry in entries],
        "left_out": [{"name": one.name, "why": one.why} for one in left_out],
    }
    console = stderr if as_json else stdout
    if as_json:
        print_json(document.as_json() | summary)
    else:
        print_zoo(comparison.results, entries, stdout)
    for note in comparison.notes:
        console.print(f"note: {note}", highlight=False, markup=False)
    written = [*write_results(document, out, force=force), out / "zoo.json"]
    write_whole(written[-1], _text(summary))
    for path in written:
        console.print(f"wrote {escape(str(path))}", highlight=False, soft_wrap=True)
    write_or_say(
        lambda path, repeat: write_report(
            path,
            comparison=comparison,
            title="Recipes for output lengths, compared",
            repeat=repeat,
            first=partial(zoo_section, entries),
        ),
        out,
        document,
        console,
    )


def _train(
    plan: "Sequence[Recipe]",
    parts: "Parts",
    out: Path,
    time_budget: float | None,
    seed: int,
    force: bool,
) -> "tuple[list[Trained], list[LeftOut]]":
    from lengthpred.training.zoo import train_all

    with steps("training") as on_progress:
        trained, left_out = train_all(
            plan,
            parts.train,
            parts.calibration,
            out,
            budget_s=time_budget,
            seed=seed,
            force=force,
            on_progress=on_progress,
        )
    if not trained:
        reasons = dict.fromkeys(f"{one.name}: {one.why}" for one in left_out)
        said = f"no recipe was trained. {'; '.join(reasons)}"
        raise RuntimeError(said) if any(one.defect for one in left_out) else LengthPredError(said)
    return trained, left_out


def _compare(
    trained: "Sequence[Trained]",
    parts: "Parts",
    max_rows: int | None,
    ratios: list[float],
    seed: int,
) -> "Comparison":
    from lengthpred.eval.compare import compare

    with steps("comparing", "comparing ") as on_progress:
        return compare(
            {one.recipe.name: one.artifact for one in trained},  # type: ignore[misc]
            parts.test.rows(max_rows, seed),
            train_rows=parts.train.rows(max_rows, seed),
            ratios=ratios,
            seed=seed,
            on_progress=on_progress,
        )


def _say_kept(names: "Sequence[str]", out: Path) -> None:
    said = f"stopped: {out} holds {', '.join(names)}; the same command with --force replaces them"
    if not names:
        said = "stopped before a recipe was finished; nothing was kept"
    stderr.print(said, highlight=False, markup=False, soft_wrap=True)


def _entry(one: "Trained") -> "Entry":
    from lengthpred.eval.report.pareto import Entry
    from lengthpred.training.zoo import method

    paper = one.recipe.paper
    return Entry(
        one.recipe.name,
        paper.title if paper else "",
        ", ".join(filter(None, [paper.authors, paper.source])) if paper else "",
        method(one.recipe),
        one.recipe.stand_in,
        paper.differs if paper else "",
        one.seconds,
        one.cut,
    )


def _notes(trained: "Sequence[Trained]", left_out: "Sequence[LeftOut]") -> list[str]:
    """What was left out, those of one reason together, what was cut, and what training said."""
    by_why: dict[str, list[str]] = {}
    for one in left_out:
        by_why.setdefault(one.why, []).append(one.name)
    notes = [f"Left out: {', '.join(names)}: {why}" for why, names in by_why.items()]
    cut = ", ".join(one.recipe.name for one in trained if one.cut)
    if cut:
        notes.append(f"The time budget ended the training of {cut}: it could do better.")
    return notes + [f"{one.recipe.name}: {note}" for one in trained for note in one.notes]


def _text(summary: object) -> str:
    import json

    return json.dumps(summary, indent=1, ensure_ascii=False) + "\n"
