"""From the hub to a folder: the files that a manifest lists, all of one commit.

They go through the hub's own cache, so that `hf download`, HF_HOME and HF_HUB_OFFLINE do what they
do elsewhere. A branch or tag is resolved each time; a commit that is in the cache asks nobody.
"""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lengthpred.errors import ArtifactError
from lengthpred.hub.client import TIMEOUT_S, Unreachable, client, hub_errors
from lengthpred.hub.names import COMMIT, HubName
from lengthpred.manifest import MANIFEST, Manifest, is_inside, read_manifest

__all__ = ["MAX_BYTES", "Snapshot", "fetch", "said_of"]

# A predictor is read into memory; a repository that says "artifact" and holds more is none.
MAX_BYTES, MAX_MANIFEST_BYTES = 2 * 2**30, 16 * 2**20


@dataclass(frozen=True)
class Snapshot:
    """An artifact in the hub's cache.

    name   with the commit as its revision
    files  where each is, the manifest among them; a cache links to what it holds
    """

    name: HubName
    files: Mapping[str, Path]

    def copy_to(self, folder: Path) -> None:
        """Make a folder of plain files, which passes the checks of any folder."""
        try:
            for name, file in self.files.items():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, folder / name)
        except OSError as error:
            raise ArtifactError(f"{self.name} cannot be copied: {error}") from error


def fetch(name: HubName) -> Snapshot:
    """The artifact of that name, from the hub, or from its cache where the hub cannot be asked.

    Raises ArtifactError for what is not there, not allowed, no artifact, too large or not to be
    reached, and MissingExtraError.
    """
    hub, _ = client()
    if COMMIT.fullmatch(name.revision) and (found := _cached(hub, name)):
        return found
    try:
        return _downloaded(name)
    except Unreachable as error:
        if found := _cached(hub, name):
            return found
        raise ArtifactError(
            f"{error}, and its cache does not hold it: run `hf download {name.repo}` where there "
            "is a network"
        ) from error


@contextmanager
def said_of(name: HubName, folder: Path) -> Iterator[None]:
    """Errors about a folder that nobody named are about what is in it."""
    try:
        yield
    except ArtifactError as error:
        raise ArtifactError(str(error).replace(str(folder), str(name))) from error


def _cached(hub: Any, name: HubName) -> Snapshot | None:
    """What the cache holds, None when it is not whole there."""
    manifest = hub.try_to_load_from_cache(name.repo, MANIFEST, revision=name.revision or None)
    if not isinstance(manifest, str):
        return None
    folder = Path(manifest).parent
    pinned = HubName(name.repo, folder.name)
    with said_of(pinned, folder):
        listed = _listed(folder)
    files = {file: folder / file for file in (MANIFEST, *listed.files)}
    return Snapshot(pinned, files) if all(file.is_file() for file in files.values()) else None


def _downloaded(name: HubName) -> Snapshot:
    hub, api = client()
    start = f"there is no folder '{name}' here, and"
    with hub_errors(name, start):
        info = api.model_info(
            name.repo, revision=name.revision or None, files_metadata=True, timeout=TIMEOUT_S
        )
    if not COMMIT.fullmatch(info.sha or ""):
        raise ArtifactError(f"{start} the hub does not say which commit '{name}' is")
    pinned = HubName(name.repo, info.sha)
    sizes = {file.rfilename: file.size for file in info.siblings or ()}
    if MANIFEST not in sizes:
        raise ArtifactError(f"{pinned} is not an artifact: there is no {MANIFEST} in it")
    _check_size(pinned, sizes[MANIFEST] or 0, MAX_MANIFEST_BYTES)
    with hub_errors(name, start):
        # By the name that was given: this makes the cache remember what it stands for.
        manifest = Path(hub.hf_hub_download(name.repo, MANIFEST, revision=name.revision or None))
        if manifest.parent.name != info.sha:  # moved on since
            manifest = Path(hub.hf_hub_download(name.repo, MANIFEST, revision=info.sha))
    with said_of(pinned, manifest.parent):
        listed = _listed(manifest.parent)
    _check_files(pinned, listed, sizes)
    files = {MANIFEST: manifest}
    with hub_errors(name, start):
        for file in listed.files:
            files[file] = Path(hub.hf_hub_download(name.repo, file, revision=info.sha))
    return Snapshot(pinned, files)


def _listed(folder: Path) -> Manifest:
    """The manifest, once no name in it leads out."""
    manifest = read_manifest(folder)
    for name in manifest.files:
        if not is_inside(name):
            raise ArtifactError(
                f"{folder / MANIFEST} lists the file '{name}', outside the artifact"
            )
    return manifest


def _check_files(name: HubName, manifest: Manifest, sizes: Mapping[str, int | None]) -> None:
    """Raise ArtifactError, before anything is downloaded, for what cannot be the artifact."""
    _check_size(name, sum(entry["size"] for entry in manifest.files.values()), MAX_BYTES)
    for file, entry in manifest.files.items():
        if file not in sizes:
            raise ArtifactError(f"{name}/{file} is missing: the artifact is incomplete")
        if sizes[file] not in (None, entry["size"]):
            raise ArtifactError(
                f"{name}/{file} is damaged: its content is not what {MANIFEST} lists"
            )


def _check_size(name: HubName, size: int, limit: int) -> None:
    if size > limit:
        raise ArtifactError(
            f"{name} holds {size:,} bytes, and {limit:,} are fetched at most: if you trust it, run "
            f"`hf download {name.repo} --revision {name.revision} --local-dir DIR` and load DIR"
        )
