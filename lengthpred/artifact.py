"""Artifacts: a trained predictor or detector as a folder that cannot run code.

    manifest.json   what it is: kind, format version, library version, grid, target models,
                    fingerprint of the training data, metrics, sha256 and size of every other file,
                    and the sha256 of the manifest itself without this last entry
    config.json     settings of the kind
    arrays.safetensors, *.txt, *.onnx, …    weights
    PART/…          an artifact inside this one (a cascade holds three)

Nothing is executed at load: the kind is looked up by its registry name and every file is checked
against the manifest first. A folder that has a manifest is complete, since the whole is written
beside its target and renamed.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from lengthpred.base import Predictor, Request
from lengthpred.distribution import LengthGrid
from lengthpred.errors import ArtifactError
from lengthpred.manifest import (
    FORMAT_VERSION,
    MANIFEST,
    Card,
    Manifest,
    is_inside,
    parse_json,
    read_manifest,
    sha256,
    to_json,
)
from lengthpred.sources import folder_of

__all__ = [
    "FORMAT_VERSION",
    "Card",
    "Contents",
    "Manifest",
    "Storable",
    "check_target",
    "load",
    "load_storable",
    "read_manifest",
    "unseen_models",
]

CONFIG, ARRAYS = "config.json", "arrays.safetensors"


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
    """What can be saved as an artifact: subclasses name their `kind` and describe themselves.

    origin  `org/name@commit` of what `load` took from the hub, else ""
    """

    kind: ClassVar[str]
    card: Card = Card()
    origin: str = ""

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
        import tempfile

        target = Path(os.path.abspath(path))
        check_target(target, force=force)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(
                dir=target.parent, prefix=f".{target.name}."
            ) as scratch:
                _write(self, Path(scratch, "new"))
                _move_in(Path(scratch, "new"), target, force=force)
        except OSError as error:
            raise ArtifactError(f"{path} cannot be written: {error}") from error
        return Path(path)


def check_target(path: Path, *, force: bool) -> None:
    """Raise ArtifactError when `path` cannot become an artifact: call it before long work."""
    if not os.path.lexists(path):
        return
    if not force:
        raise ArtifactError(f"{path} exists already: choose another folder, or add --force")
    if not (path / MANIFEST).is_file() and not (path.is_dir() and not any(path.iterdir())):
        raise ArtifactError(f"{path} is not an artifact, so --force does not replace it")


def load(path: str | os.PathLike[str]) -> Predictor:
    """The predictor that the artifact at `path` holds: a folder, or a name on the hub.

    A text `org/name` or `org/name@revision` that is no folder is fetched from the hub (extra
    `hub`), all files of one commit, which the predictor's `origin` tells. Raises ArtifactError,
    naming the file, for what is no artifact, damaged, of an unknown kind, or of a newer format, and
    for what the hub does not give; MissingExtraError.
    """
    loaded = load_storable(path)
    if not hasattr(loaded, "predict"):
        raise ArtifactError(f"{path} holds a {loaded.kind}, which is not a predictor")
    predictor: Predictor = loaded
    return predictor


def load_storable(path: str | os.PathLike[str]) -> Storable:
    """The predictor or detector that the artifact at `path` holds; see `load`."""
    with folder_of(path) as found:
        loaded = _load(found.folder)
    loaded.origin = found.origin
    return loaded


def _load(folder: Path) -> Storable:
    from lengthpred.registry import resolve

    manifest = read_manifest(folder)
    try:
        cls = resolve(manifest.kind)
    except ArtifactError as error:
        raise ArtifactError(f"{folder / MANIFEST}: {error}") from error
    contents = _read(folder, manifest)
    try:
        loaded = cls.from_contents(contents)
    except (KeyError, ValueError, TypeError, IndexError, AttributeError) as error:
        raise ArtifactError(f"{folder} does not hold a usable {manifest.kind}: {error}") from error
    loaded.card = manifest.card
    return loaded


def unseen_models(predictor: object, requests: Sequence[Request]) -> npt.NDArray[np.bool_] | None:
    """Where a request names a model that the predictor was not trained on, (n,).

    None when the predictor does not say which models it was trained on.
    """
    known = set(getattr(getattr(predictor, "card", None), "models", ()))
    if not known:
        return None
    return np.array([bool(r.model) and r.model not in known for r in requests], bool)


def _move_in(fresh: Path, target: Path, *, force: bool) -> None:
    """Put `fresh` where `target` is; whatever fails, one of the two is there.

    Should the process be killed between the two moves, the old one is beside the target.
    """
    import shutil
    import uuid

    old = target.with_name(f".{target.name}.old-{uuid.uuid4().hex}")
    if force and target.exists():
        target.rename(old)
    try:
        # Without force this fails where another process was faster.
        fresh.rename(target)
    except BaseException:
        if old.exists():
            old.rename(target)
        raise
    if old.exists():
        shutil.rmtree(old)


def _write(stored: Storable, folder: Path) -> None:
    from safetensors.numpy import save

    import lengthpred

    folder.mkdir()
    contents = stored.contents()
    files = {CONFIG: to_json(contents.config)}
    if contents.arrays:
        # Not ascontiguousarray: it makes a list of a single number.
        arrays = {name: np.asarray(a, order="C") for name, a in contents.arrays.items()}
        files[ARRAYS] = save(arrays)
    taken = {MANIFEST, CONFIG, ARRAYS}
    for name in (*contents.files, *contents.parts):
        if name in taken or not is_inside(name) or "/" in name:
            raise ValueError(f"'{name}' is no name for a file or part of an artifact")
        taken.add(name)
    files |= contents.files
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
            name: {"sha256": sha256(data), "size": len(data)}
            for name, data in sorted(files.items())
        },
    }
    # Last, and signed: a folder that has a manifest is complete.
    (folder / MANIFEST).write_bytes(to_json({**manifest, "sha256": sha256(to_json(manifest))}))


def _read(folder: Path, manifest: Manifest) -> Contents:
    from safetensors import SafetensorError
    from safetensors.numpy import load as parse

    files = {name: _checked(folder, name, entry) for name, entry in manifest.files.items()}
    try:
        config = parse_json(files.pop(CONFIG))
        arrays = parse(files.pop(ARRAYS)) if ARRAYS in files else {}
        grid = LengthGrid(np.array(manifest.grid))
    except (KeyError, ValueError, SafetensorError) as error:
        raise ArtifactError(f"{folder} is damaged: {error!r}") from error
    names = sorted({name.split("/")[0] for name in files if "/" in name})
    for name in names:
        if (folder / name).is_symlink():  # to a folder above it, there would be no end
            raise ArtifactError(f"{folder / name} is a link: a part must lie in the artifact")
    parts = {name: _load(folder / name) for name in names}
    own = {name: data for name, data in files.items() if "/" not in name}
    return Contents(config, grid, arrays, own, parts)


def _checked(folder: Path, name: str, entry: Mapping[str, Any]) -> bytes:
    """The bytes of one listed file, once its name, place, size and sha256 are right."""
    if not is_inside(name):
        raise ArtifactError(f"{folder / MANIFEST} lists the file '{name}', outside the artifact")
    file = folder / name
    if not os.path.isfile(file):
        raise ArtifactError(f"{file} is missing: the artifact is incomplete")
    if not file.resolve().is_relative_to(folder.resolve()):
        raise ArtifactError(f"{file} is a link that leads out of the artifact")
    try:
        # The size first: a file that grew to gigabytes is refused unread.
        whole = file.stat().st_size == entry["size"]
        data = file.read_bytes() if whole else b""
    except OSError as error:
        raise ArtifactError(f"{file} cannot be read: {error}") from error
    if not whole or sha256(data) != entry["sha256"]:
        raise ArtifactError(f"{file} is damaged: its content is not what {MANIFEST} lists")
    return data
