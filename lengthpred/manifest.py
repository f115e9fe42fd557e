"""manifest.json: what an artifact is, and what its files must hold."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from lengthpred.errors import ArtifactError

__all__ = ["FORMAT_VERSION", "MANIFEST", "Card", "Manifest", "read_manifest"]

FORMAT_VERSION = 1
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Card:
    """What an artifact says of its training: for people, and for warnings at serving time.

    models       target models that the training data holds
    fingerprint  sha256 of the training data
    metrics      scores on the calibration rows, by metric name
    """

    models: tuple[str, ...] = ()
    fingerprint: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Manifest:
    """The parsed manifest.json of an artifact."""

    kind: str
    format_version: int
    library_version: str
    grid: tuple[int, ...]
    models: tuple[str, ...]
    fingerprint: str
    metrics: Mapping[str, float]
    files: Mapping[str, Mapping[str, Any]]

    @property
    def card(self) -> Card:
        """What it says of its training."""
        return Card(self.models, self.fingerprint, self.metrics)


def read_manifest(path: str | os.PathLike[str]) -> Manifest:
    """The manifest of the artifact at `path`; raises ArtifactError as `load` does."""
    file = Path(path) / MANIFEST
    if not os.path.isfile(file):  # false, too, for a name that no file can have
        lacks = f"{MANIFEST} in it" if os.path.exists(path) else "such folder"
        raise ArtifactError(f"{path} is not an artifact: there is no {lacks}")
    try:
        raw = parse_json(file.read_bytes())
        version = raw["format_version"]
        if version != FORMAT_VERSION:
            raise ArtifactError(
                f"{file} has format version {version}; this lengthpred reads version "
                f"{FORMAT_VERSION}: install the lengthpred that wrote it, or train it again"
            )
        if raw.pop("sha256") != sha256(to_json(raw)):
            raise ValueError("its content is not what its own sha256 says")
        return _manifest(raw)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ArithmeticError) as error:
        raise ArtifactError(f"{file} is damaged: {error!r}") from error


def _manifest(raw: Mapping[str, Any]) -> Manifest:
    return Manifest(
        kind=str(raw["kind"]),
        format_version=raw["format_version"],
        library_version=str(raw["library_version"]),
        grid=tuple(int(edge) for edge in raw["grid"]),
        models=tuple(str(model) for model in raw["models"]),
        fingerprint=str(raw["fingerprint"]),
        metrics={str(name): float(value) for name, value in raw["metrics"].items()},
        files={
            str(name): {"sha256": str(entry["sha256"]), "size": int(entry["size"])}
            for name, entry in raw["files"].items()
        },
    )


def is_inside(name: str) -> bool:
    """Whether a listed name stays inside the artifact, on every operating system."""
    pure = PurePosixPath(name)
    # Written otherwise, as ./x, a name could lead back to where it stands.
    bad = pure.is_absolute() or ".." in pure.parts or not pure.parts or str(pure) != name
    return not bad and not any(letter in name for letter in "\\:\0")


def to_json(value: object) -> bytes:
    import json

    # Escapes: a name learned from live traffic may hold half a surrogate pair, which is no UTF-8.
    return (json.dumps(value, indent=1, allow_nan=False) + "\n").encode("ascii")


def parse_json(data: bytes) -> dict[str, Any]:
    """A JSON object; ValueError for anything else."""
    import json

    try:
        value = json.loads(data)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if not isinstance(value, dict):
        raise ValueError(f"it holds a {type(value).__name__}, not an object")
    return value


def file_sha256(path: str | os.PathLike[str]) -> str:
    """sha256 of a file, hexadecimal, without holding it in memory; raises OSError."""
    import hashlib

    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256(data: bytes) -> str:
    import hashlib

    return hashlib.sha256(data).hexdigest()
