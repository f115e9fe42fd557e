"""From a folder to the hub: a checked artifact and its model card, in one commit."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lengthpred.artifact import load_storable
from lengthpred.errors import ArtifactError, SettingsError
from lengthpred.hub.client import client, hub_errors
from lengthpred.hub.model_card import CARD, MARK, model_card, role_of
from lengthpred.hub.names import COMMIT, HubName, parse_hub_name
from lengthpred.hub.references import References, references
from lengthpred.manifest import MANIFEST, is_inside, parse_json, read_manifest

__all__ = ["Pushed", "push"]

# What the hub or a person puts into a repository that is still to be filled.
HARMLESS = {".gitattributes", ".gitignore", "LICENSE", CARD}


@dataclass(frozen=True)
class Pushed:
    """What is on the hub now.

    name   with the commit as its revision: what to load
    url    of the repository's page
    notes  sentences that whoever pushed should read
    """

    name: HubName
    url: str
    notes: tuple[str, ...] = ()


def push(
    folder: str | os.PathLike[str],
    repo: str,
    *,
    private: bool = False,
    branch: str = "",
    message: str = "",
    license: str = "",
) -> Pushed:
    """Publish the artifact in `folder` as `repo` ("org/name") on the hub.

    The repository and the branch are made where they are not there yet. One commit holds all files
    and the model card: README.md of the folder, else that of the repository where a person wrote
    it, else one made from the manifest with the given `license`. Files of the artifact that was
    there before are taken away; what else is in the repository stays.

    Raises, before anything is sent, ArtifactError for a folder that is no whole artifact or needs
    what is on this machine only, and SettingsError; then ArtifactError for what the hub refuses, a
    repository that holds something else, or a public one where `private` was wanted.
    """
    folder, target = Path(folder), _target(repo, branch)
    if not folder.is_dir():
        raise ArtifactError(f"there is no folder '{folder}' to push")
    load_storable(folder)
    manifest = read_manifest(folder)
    needs = references(folder, manifest)
    own_card = (folder / CARD).is_file()
    _check_license(license, own_card)
    hub, api = client()
    start = f"{folder} is not pushed:"
    with hub_errors(target, start):
        url = str(api.create_repo(repo, private=private or None, exist_ok=True))
        if branch:
            api.create_branch(repo, branch=branch, exist_ok=True)
        info = api.model_info(repo, revision=branch or None)
    if private and not info.private:
        raise ArtifactError(
            f"{start} '{repo}' is there already and is public: choose another name, or leave out "
            "--private"
        )
    there = {file.rfilename for file in info.siblings or ()}
    if MANIFEST not in there and there - HARMLESS:
        raise ArtifactError(
            f"{start} '{repo}' holds no lengthpred artifact but {sorted(there - HARMLESS)[0]}: "
            "choose another name"
        )
    sent = {name: folder / name for name in (MANIFEST, *manifest.files)}
    with hub_errors(target, start):
        kept = not own_card and _wrote_own_card(hub, repo, info.sha, there)
        _check_license(license, kept)
        gone = (_listed_before(hub, repo, info.sha, there) & there) - sent.keys()
        card = model_card(repo, manifest, needs, license).encode()
        adds: dict[str, Any] = {name: str(file) for name, file in sent.items()}
        if not kept:
            adds[CARD] = str(folder / CARD) if own_card else card
        commit = api.create_commit(
            repo,
            [
                *(hub.CommitOperationAdd(name, content) for name, content in adds.items()),
                *(hub.CommitOperationDelete(name) for name in sorted(gone)),
            ],
            commit_message=message or f"A {manifest.kind} {role_of(manifest)}, by lengthpred",
            revision=branch or None,
            # What was decided here holds for this state only.
            parent_commit=info.sha,
        )
    notes = [f"the model card that '{repo}' had was kept"] if kept else []
    return Pushed(HubName(repo, commit.oid), url, (*notes, *_notes(needs)))


def _target(repo: str, branch: str) -> HubName:
    target = parse_hub_name(repo)
    if target is None or target.revision:
        more = ", and a branch with --revision" if target else ""
        raise SettingsError(f"'{repo}' is no name on the hub: give ORG/NAME{more}")
    if branch and (parse_hub_name(f"{repo}@{branch}") is None or COMMIT.fullmatch(branch)):
        raise SettingsError(f"--revision '{branch}' is no name of a branch")
    return HubName(repo, branch)


def _check_license(license: str, own_card: bool) -> None:
    if license and own_card:
        raise SettingsError(
            f"there is a {CARD} that you wrote: name the licence at its top, not with --license"
        )
    if license and not re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", license):
        raise SettingsError(
            f"--license '{license}' is no identifier of the hub: give one such as apache-2.0 or mit"
        )


def _wrote_own_card(hub: Any, repo: str, commit: str, there: set[str]) -> bool:
    """Whether a person wrote the repository's card."""
    if CARD not in there:
        return False
    text = Path(hub.hf_hub_download(repo, CARD, revision=commit)).read_text("utf-8", "replace")
    return bool(text.strip()) and MARK not in text


def _listed_before(hub: Any, repo: str, commit: str, there: set[str]) -> set[str]:
    """The files of the artifact that a push replaces, as far as its manifest can be read."""
    if MANIFEST not in there:
        return set()
    file = Path(hub.hf_hub_download(repo, MANIFEST, revision=commit))
    try:
        listed = parse_json(file.read_bytes())["files"]
        return {name for name in listed if is_inside(name)}
    except (ValueError, KeyError, TypeError):
        return set()


def _notes(needs: References) -> list[str]:
    return [
        f"it sends prompts to {url}, also those of everyone who loads it"
        for url, _ in needs.servers
    ]
