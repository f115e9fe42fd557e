"""Loading by a name on the hub, with the real client and a hub of our own."""

import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from huggingface_hub import constants

from lengthpred import Request, load, registry
from lengthpred.artifact import Card, Storable
from lengthpred.errors import ArtifactError, MissingExtraError
from lengthpred.hub import fetch
from lengthpred.manifest import sha256, to_json
from lengthpred.sources import folder_of
from tests.builders import build
from tests.hub.server import HubServer, Repo
from tests.test_artifact import golden

NAME = "org/lengths"
REQUESTS = [Request(prompt="poem of snow"), Request(prompt="code of engine")]


def files_of(built: Storable, folder: Path) -> dict[str, bytes]:
    built.card = Card(("model-a",), "0" * 64, {"tau": 0.5})
    saved = built.save(folder / f"a-{built.kind}")
    found = (path for path in sorted(saved.rglob("*")) if path.is_file())
    return {path.relative_to(saved).as_posix(): path.read_bytes() for path in found}


def signed(files: dict[str, bytes], change: Callable[[dict[str, Any]], None]) -> dict[str, bytes]:
    """With another manifest, signed as one who means harm would."""
    raw = json.loads(files["manifest.json"])
    del raw["sha256"]
    change(raw)
    return {**files, "manifest.json": to_json({**raw, "sha256": sha256(to_json(raw))})}


@pytest.fixture
def files(tmp_path: Path) -> dict[str, bytes]:
    return files_of(build("histogram"), tmp_path)


@pytest.fixture
def repo(hub: HubServer, files: dict[str, bytes]) -> Repo:
    repo = hub.repos[NAME] = Repo()
    repo.commit({**files, "README.md": b"# hello", "model.py": b"1 / 0", "big.bin": b"0" * 1000})
    return repo


def refused(name: str) -> str:
    with pytest.raises(ArtifactError) as error:
        load(name)
    said = str(error.value)
    assert "\n" not in said and "/tmp" not in said and str(Path.cwd().parent) not in said
    return said


def origin_of(predictor: object) -> str:
    assert hasattr(predictor, "origin")
    return str(predictor.origin)


def test_it_is_the_same_predictor_and_says_its_commit(
    repo: Repo, hub: HubServer, tmp_path: Path
) -> None:
    loaded, here = load(NAME), load(tmp_path / "a-histogram")
    assert np.array_equal(loaded.predict(REQUESTS).pmf, here.predict(REQUESTS).pmf)
    assert origin_of(loaded) == f"{NAME}@{repo.branches['main']}"
    assert not origin_of(here)
    # What the manifest does not list is left there.
    asked = {line.rsplit("/", 1)[1] for line in hub.asked if "/resolve/" in line}
    assert asked == {"manifest.json", "config.json", "arrays.safetensors"}
    gets = [line for line in hub.asked if line.startswith("GET") and "/resolve/" in line]
    assert gets[0].endswith("manifest.json")


def test_parts_come_too(hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.PREDICTORS, "toy", "tests.test_artifact:Toy")
    files = files_of(golden(), tmp_path)
    assert "inner/manifest.json" in files
    hub.repos[NAME] = Repo()
    hub.repos[NAME].commit(files)
    loaded = load(NAME)
    assert getattr(loaded, "inner").text == b"\x00\xff"  # noqa: B009
    # What was loaded from the hub can be saved and loaded again, beside a card.
    again = loaded.save(tmp_path / "again")  # type: ignore[attr-defined]
    (again / "README.md").write_text("# a card")
    assert np.array_equal(load(again).predict(REQUESTS).pmf, loaded.predict(REQUESTS).pmf)


def test_a_branch_a_tag_or_a_commit_is_what_it_was(repo: Repo, tmp_path: Path) -> None:
    first = repo.branches["v1"] = repo.branches["main"]
    second = repo.commit(files_of(build("constant"), tmp_path))
    for revision, sha, kind in (
        ("", second, "constant"),
        ("@main", second, "constant"),
        ("@v1", first, "histogram"),
        (f"@{first}", first, "histogram"),
    ):
        loaded = load(NAME + revision)
        assert origin_of(loaded) == f"{NAME}@{sha}"
        assert loaded.kind == kind  # type: ignore[attr-defined]


def test_a_branch_that_moves_is_asked_for_again(repo: Repo, tmp_path: Path) -> None:
    first = origin_of(load(NAME))
    sha = repo.commit(files_of(build("constant"), tmp_path))
    assert origin_of(load(NAME)) == f"{NAME}@{sha}" != first


def test_a_branch_that_moves_in_between_gives_files_of_one_commit(
    repo: Repo, hub: HubServer, files: dict[str, bytes], tmp_path: Path
) -> None:
    first = repo.branches["main"]
    other = files_of(build("constant"), tmp_path)
    hub.meanwhile["info"] = lambda: repo.commit(other)
    loaded = load(NAME)
    assert origin_of(loaded) == f"{NAME}@{first}" != f"{NAME}@{repo.branches['main']}"
    assert loaded.kind == "histogram"  # type: ignore[attr-defined]


def test_a_commit_in_the_cache_asks_nobody(repo: Repo, hub: HubServer) -> None:
    pinned = origin_of(load(NAME))
    hub.asked.clear()
    assert origin_of(load(pinned)) == pinned
    assert not hub.asked


@pytest.mark.parametrize("how", ["offline", "dead", "failing"])
def test_the_cache_serves_where_the_hub_cannot(
    repo: Repo, hub: HubServer, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    pinned = origin_of(load(NAME))

    def cut() -> None:
        if how == "offline":
            monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        elif how == "dead":
            monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
        else:
            hub.status = 503

    cut()
    assert origin_of(load(NAME)) == pinned
    assert origin_of(load(pinned)) == pinned
    said = refused("org/other")
    why = {
        "offline": "while HF_HUB_OFFLINE is set",
        "dead": "the hub at http://127.0.0.1:9 cannot be reached",
        "failing": "the hub fails",
    }[how]
    assert said.startswith("there is no folder 'org/other' here, and") and why in said
    assert "run `hf download org/other` where there is a network" in said
    assert "run `hf download" in refused(f"{NAME}@v9")


def test_what_is_half_in_the_cache_is_not_taken(
    repo: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load(NAME)
    (gone,) = (tmp_path / "cache").rglob("snapshots/*/arrays.safetensors")
    gone.unlink()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "its cache does not hold it" in refused(NAME)


def test_the_cache_is_links_and_what_is_loaded_is_not(repo: Repo, tmp_path: Path) -> None:
    with folder_of(NAME) as found:
        inside = sorted(path.name for path in found.folder.iterdir())
        assert inside == ["arrays.safetensors", "config.json", "manifest.json"]
        assert not any(path.is_symlink() for path in found.folder.iterdir())
    assert not found.folder.exists()
    (snapshot,) = (tmp_path / "cache").glob("*/snapshots/*")
    assert any(path.is_symlink() for path in snapshot.iterdir())
    # The check of folders is as strict as before.
    with pytest.raises(ArtifactError, match="leads out of the artifact"):
        load(str(snapshot))


def test_no_such_repository(hub: HubServer) -> None:
    said = refused("org/no")
    assert said.startswith("there is no folder 'org/no' here, and the hub has no 'org/no'")
    assert "or it is private: check the name, or run `hf auth login`" in said


def test_a_private_one(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    repo.private = True
    load(NAME)
    monkeypatch.delenv("HF_TOKEN")
    assert "or it is private: check the name, or run `hf auth login`" in refused(NAME)


def test_a_gated_one(repo: Repo, hub: HubServer) -> None:
    repo.gated = True
    said = refused(NAME)
    assert f"accepted its terms: do so at {hub.url}/{NAME}, then run `hf auth login`" in said


def test_no_such_revision(repo: Repo) -> None:
    assert "'org/lengths' on the hub has no branch, tag or commit 'v2'" in refused(f"{NAME}@v2")


def test_what_is_no_artifact(repo: Repo) -> None:
    sha = repo.commit({"config.json": b"{}", "model.safetensors": b""})
    assert refused(NAME) == f"{NAME}@{sha} is not an artifact: there is no manifest.json in it"


def test_a_damaged_file(repo: Repo, files: dict[str, bytes], hub: HubServer) -> None:
    for name, data in files.items():
        flipped = bytes([*data[:-9], data[-9] ^ 1, *data[-8:]])
        sha = repo.commit({**files, name: flipped})
        said = refused(NAME)
        assert f"{NAME}@{sha}/{name} is damaged" in said
        # A wrong size is seen before anything but the manifest is fetched.
        if name != "manifest.json":
            hub.asked.clear()
            repo.commit({**files, name: data + b"\n"})
            assert f"{name} is damaged" in refused(NAME)
            assert not any(line.endswith(name) for line in hub.asked)


def test_an_incomplete_one(repo: Repo, files: dict[str, bytes]) -> None:
    sha = repo.commit({k: v for k, v in files.items() if k != "config.json"})
    assert f"{NAME}@{sha}/config.json is missing" in refused(NAME)


def test_a_newer_format(repo: Repo, files: dict[str, bytes]) -> None:
    sha = repo.commit(signed(files, lambda raw: raw.update(format_version=2)))
    said = refused(NAME)
    assert said.startswith(f"{NAME}@{sha}/manifest.json has format version 2; this lengthpred")


def test_an_unknown_kind(repo: Repo, files: dict[str, bytes]) -> None:
    repo.commit(signed(files, lambda raw: raw.update(kind="os:system")))
    assert "no kind that is installed" in refused(NAME)


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "..\\x", "C:x", "a/../../x", ""])
def test_names_that_lead_out(
    repo: Repo, files: dict[str, bytes], hub: HubServer, name: str
) -> None:
    entry = {"sha256": sha256(b""), "size": 0}
    repo.commit({**signed(files, lambda raw: raw["files"].update({name: entry})), name: b""})
    assert "outside the artifact" in refused(NAME)
    fetched = [line for line in hub.asked if "/resolve/" in line]
    assert fetched and all(line.endswith("/manifest.json") for line in fetched)


def test_more_than_any_predictor_holds(repo: Repo, files: dict[str, bytes], hub: HubServer) -> None:
    huge = {"sha256": sha256(b""), "size": fetch.MAX_BYTES}
    sha = repo.commit({**signed(files, lambda raw: raw["files"].update(huge=huge)), "huge": b""})
    said = refused(NAME)
    assert f"{fetch.MAX_BYTES:,} are fetched at most" in said
    assert f"`hf download {NAME} --revision {sha} --local-dir DIR`" in said
    hub.sizes["manifest.json"] = fetch.MAX_MANIFEST_BYTES + 1
    hub.asked.clear()
    assert "are fetched at most" in refused(NAME)
    assert not any("/resolve/" in line for line in hub.asked)


def test_without_huggingface_hub(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingExtraError, match=re.escape("pip install 'lengthpred[hub]'")):
        load(NAME)


def test_a_folder_wins(repo: Repo, hub: HubServer) -> None:
    build("constant").save(NAME)
    assert not origin_of(load(NAME))
    assert not hub.asked


def test_only_that_form_asks_the_network(repo: Repo, hub: HubServer) -> None:
    os.mkdir("runs")
    (Path("org-file")).touch()
    for name in (
        *("./org/lengths", "org/lengths/", "/org/lengths", "org/lengths/deep", "lengths"),
        *("../lengths", "~/lengths", "org\\lengths", "org/../lengths", "org/lengths@", "@main"),
        *("org/leng ths", "org/lengths@../main", "runs/lengths", "org-file", "", "org/.hidden"),
        *(Path(NAME), f"{hub.url}/{NAME}"),
    ):
        with pytest.raises(ArtifactError, match="is not an artifact"):
            load(name)
    assert not hub.asked
