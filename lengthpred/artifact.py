"""Artifacts: a trained predictor or detector as a folder that cannot run code.

    manifest.json   what it is: kind, format version, library version, grid, target models,
                    fingerprint of the training data, metrics, sha256 and size of every other file
    config.json     settings of the kind
    arrays.safetensors, *.txt, *.onnx, …    weights
    PART/…          an artifact inside this one (a cascade holds three)

Nothing is executed at load: the kind is looked up by its registry name and every file is checked
against the manifest first. A folder that has a manifest is complete, since the whole is written
beside its target and renamed.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from lengthpred.base import Predictor
from lengthpred.distribution import LengthGrid
from lengthpred.errors import ArtifactError

__all__ = ["FORMAT_VERSION", "Card", "Contents", "Manifest", "Storable", "load", "read_manifest"]

FORMAT_VERSION = 1
MANIFEST, CONFIG, ARRAYS = "manifest.json", "config.json", "arrays.safetensors"


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


@dataclass
class Contents:
    """What a kind puts into an artifact and gets back at load.

    config  JSON values; arrays go to one safetensors file; files are kept as they are, by name;
    parts are whole artifacts of their own.
    """

    config: dict[str, Any] = field(default_factory=dict)
    grid: LengthGrid = field(default_factory=LengthGrid)
    arrays: dict[str, npt.NDArray[Any]] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    parts: dict[str, "Storable"] = field(default_factory=dict)


class Storable:
    """What can be saved as an artifact: subclasses name their `kind` and describe themselves."""

    kind: ClassVar[str]
    card: Card = Card()

    def contents(self) -> Contents:
        """Everything that `from_contents` needs to make an equal one."""
        raise NotImplementedError

    @classmethod
    def from_contents(cls, contents: Contents) -> Self:
        """The opposite of `contents`. May raise KeyError or ValueError for what does not fit."""
        raise NotImplementedError

    def save(self, path: str | os.PathLike[str], *, force: bool = False) -> Path:
        """Write the artifact to the folder `path`.

        It is written beside the target and renamed, so that a folder is whole or absent. Raises
        ArtifactError when `path` exists, unless `force`; then the old one stays until the new one
        is in place.
        """
        target = Path(path)
        check_target(target, force=force)
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as scratch:
            fresh = Path(scratch, "new")
            _write(self, fresh)
            if target.exists():
                target.rename(Path(scratch, "old"))
            fresh.rename(target)
        return target


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


def check_target(path: Path, *, force: bool) -> None:
    """Raise ArtifactError when `path` cannot become an artifact: call it before long work."""
    if not path.exists():
        return
    if not force:
        raise ArtifactError(f"{path} exists already: choose another folder, or add --force")
    if not (path / MANIFEST).is_file() and not (path.is_dir() and not any(path.iterdir())):
        raise ArtifactError(f"{path} is not an artifact, so --force does not replace it")


def load(path: str | os.PathLike[str]) -> Predictor:
    """The predictor that the artifact at `path` holds.

    Raises ArtifactError, naming the file, for what is no artifact, damaged, of an unknown kind,
    or of a newer format.
    """
    loaded = load_storable(path)
    if not hasattr(loaded, "predict"):
        raise ArtifactError(f"{path} holds a {loaded.kind}, which is not a predictor")
    predictor: Predictor = loaded
    return predictor


def load_storable(path: str | os.PathLike[str]) -> Storable:
    """The predictor or detector that the artifact at `path` holds; raises as `load`."""
    from lengthpred.registry import resolve

    folder = Path(path)
    manifest = read_manifest(folder)
    cls = resolve(manifest.kind)
    contents = _read(folder, manifest)
    try:
        loaded = cls.from_contents(contents)
    except (KeyError, ValueError, TypeError, IndexError) as error:
        raise ArtifactError(f"{folder} does not hold a usable {manifest.kind}: {error}") from error
    loaded.card = manifest.card
    return loaded


def read_manifest(path: str | os.PathLike[str]) -> Manifest:
    """The manifest of the artifact at `path`; raises ArtifactError as `load` does."""
    file = Path(path) / MANIFEST
    if not file.is_file():
        raise ArtifactError(f"{path} is not an artifact: there is no {MANIFEST} in it")
    try:
        raw = json.loads(file.read_text("utf-8"))
        version = raw["format_version"]
        if version != FORMAT_VERSION:
            raise ArtifactError(
                f"{file} has format version {version}; this lengthpred reads version "
                f"{FORMAT_VERSION}: install the lengthpred that wrote it, or train it again"
            )
        return Manifest(
            kind=str(raw["kind"]),
            format_version=version,
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
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(f"{file} is damaged: {error!r}") from error


def _write(stored: Storable, folder: Path) -> None:
    from safetensors.numpy import save

    import lengthpred

    folder.mkdir()
    contents = stored.contents()
    files = {CONFIG: _json(contents.config), **contents.files}
    if contents.arrays:
        files[ARRAYS] = save(
            {name: np.ascontiguousarray(array) for name, array in contents.arrays.items()}
        )
    for name, data in files.items():
        (folder / name).write_bytes(data)
    for name, part in contents.parts.items():
        _write(part, folder / name)
        inner = (file for file in sorted((folder / name).rglob("*")) if file.is_file())
        files |= {file.relative_to(folder).as_posix(): file.read_bytes() for file in inner}
    manifest = {
        "kind": stored.kind,
        "format_version": FORMAT_VERSION,
        "library_version": lengthpred.__version__,
        "grid": contents.grid.edges.tolist(),
        **asdict(stored.card),
        "files": {
            name: {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
            for name, data in sorted(files.items())
        },
    }
    (folder / MANIFEST).write_bytes(_json(manifest))


def _json(value: object) -> bytes:
    return (json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _read(folder: Path, manifest: Manifest) -> Contents:
    from safetensors import SafetensorError
    from safetensors.numpy import load as parse

    files = {name: _checked(folder, name, entry) for name, entry in manifest.files.items()}
    try:
        config = json.loads(files.pop(CONFIG))
        arrays = parse(files.pop(ARRAYS)) if ARRAYS in files else {}
        grid = LengthGrid(np.array(manifest.grid))
    except (KeyError, ValueError, SafetensorError) as error:
        raise ArtifactError(f"{folder} is damaged: {error!r}") from error
    names = sorted({name.split("/")[0] for name in files if "/" in name})
    parts = {name: load_storable(folder / name) for name in names}
    own = {name: data for name, data in files.items() if "/" not in name}
    return Contents(config, grid, arrays, own, parts)


def _checked(folder: Path, name: str, entry: Mapping[str, Any]) -> bytes:
    """The bytes of one listed file, once its name, place, size and sha256 are right."""
    pure = PurePosixPath(name)
    if pure.is_absolute() or ".." in pure.parts or "\\" in name or ":" in name or not pure.parts:
        raise ArtifactError(f"{folder / MANIFEST} lists the file '{name}', outside the artifact")
    file = folder / pure
    if not file.is_file():
        raise ArtifactError(f"{file} is missing: the artifact is incomplete")
    if not file.resolve().is_relative_to(folder.resolve()):
        raise ArtifactError(f"{file} is a link that leads out of the artifact")
    data = file.read_bytes()
    if len(data) != entry["size"] or hashlib.sha256(data).hexdigest() != entry["sha256"]:
        raise ArtifactError(f"{file} is damaged: its content is not what {MANIFEST} lists")
    return data
