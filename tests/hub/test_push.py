"""Pushing to the hub, with the real client and a hub of our own."""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from huggingface_hub import constants

from lengthpred import LengthGrid, Request, load
from lengthpred.artifact import Card, load_storable
from lengthpred.errors import ArtifactError, SettingsError
from lengthpred.hub.model_card import MARK, model_card
from lengthpred.hub.push import push
from lengthpred.hub.references import References
from lengthpred.manifest import read_manifest
from lengthpred.models.backends.base import Source
from lengthpred.models.cascade import Cascade
from lengthpred.models.controls import Constant
from lengthpred.models.slm import GenerateAndCount, Generation
from tests.builders import build
from tests.hub.server import HubServer, Repo

NAME = "org/lengths"
REQUESTS = [Request(prompt="poem of snow"), Request(prompt="code of engine")]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    built = build("histogram")
    built.card = Card(("org/model-a", "b|`x`"), "f" * 64, {"tau": 0.51234, "other": 2.0})
    return built.save(tmp_path / "mine")


def bytes_of(folder: Path) -> dict[str, bytes]:
    found = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def asking(folder: Path, source: Source) -> Path:
    """An artifact that asks the model at `source`."""
    return GenerateAndCount(source, Generation(n=1, cap=64), {}).save(folder / "asking")


def test_what_is_pushed_is_what_is_loaded(hub: HubServer, folder: Path) -> None:
    pushed = push(folder, NAME, license="apache-2.0")
    repo = hub.repos[NAME]
    assert str(pushed.name) == f"{NAME}@{repo.branches['main']}"
    assert pushed.url == f"{hub.url}/{NAME}" and not pushed.notes and not repo.private
    there = repo.files()
    assert {k: v for k, v in there.items() if k in bytes_of(folder)} == bytes_of(folder)
    assert there.keys() - bytes_of(folder).keys() == {"README.md", ".gitattributes"}
    # The first commit is the hub's own.
    assert repo.messages == ["", "A histogram predictor, by lengthpred"]
    loaded, here = load(str(pushed.name)), load(folder)
    assert np.array_equal(loaded.predict(REQUESTS).pmf, here.predict(REQUESTS).pmf)
    # Nothing is left beside the artifact.
    assert sorted(bytes_of(folder)) == ["arrays.safetensors", "config.json", "manifest.json"]


def test_the_model_card(hub: HubServer, folder: Path) -> None:
    push(folder, NAME, license="apache-2.0")
    card = hub.repos[NAME].files()["README.md"].decode()
    head = card.split("---")[1]
    assert "library_name: lengthpred" in head and "license: apache-2.0" in head
    for words in (
        'load("org/lengths")',
        "| kind | `histogram` |",
        "| lengths | 83 bins; the last, the overflow, begins at 32,768 tokens |",
        "| target models | `org/model-a`, `b/'x'` |",
        f"| sha256 of the training data | `{'f' * 64}` |",
        "| `tau` | Kendall's tau-b of the median | 0.5123 |",
        "| `other` |  | 2 |",
        "pip install 'lengthpred[hub]'",
    ):
        assert words in card, words
    assert "What it needs besides" not in card
    assert model_card(NAME, read_manifest(folder), References()).count("license") == 0


def test_a_detector(hub: HubServer, tmp_path: Path) -> None:
    pushed = push(build("knn").save(tmp_path / "knn"), NAME)
    assert hub.repos[NAME].messages[-1] == "A knn detector, by lengthpred"
    card = hub.repos[NAME].files()["README.md"].decode()
    assert 'load_storable("org/lengths")' in card and ".predict(" not in card
    assert getattr(load_storable(str(pushed.name)), "origin", "") == str(pushed.name)


def test_a_second_push_replaces_the_first(hub: HubServer, folder: Path, tmp_path: Path) -> None:
    push(folder, NAME)
    repo = hub.repos[NAME]
    repo.commit({**repo.files(), "figure.png": b"png"})
    control = build("constant").save(tmp_path / "control")
    pushed = push(control, NAME, message="The control")
    assert repo.files()["figure.png"] == b"png"
    assert repo.messages[-1] == "The control"
    assert "| kind | `constant` |" in repo.files()["README.md"].decode()
    assert load(str(pushed.name)).predict(REQUESTS).grid == LengthGrid()


def test_files_of_the_one_before_are_taken_away(
    hub: HubServer, folder: Path, tmp_path: Path
) -> None:
    boosted = build("boosted").save(tmp_path / "boosted")
    push(boosted, NAME)
    assert "booster.txt" in hub.repos[NAME].files()
    push(folder, NAME)
    assert "booster.txt" not in hub.repos[NAME].files()


def test_the_same_again_is_no_new_commit_of_other_bytes(hub: HubServer, folder: Path) -> None:
    push(folder, NAME)
    before = hub.repos[NAME].files()
    push(folder, NAME)
    assert hub.repos[NAME].files() == before


def test_two_at_once(hub: HubServer, folder: Path) -> None:
    push(folder, NAME)
    repo = hub.repos[NAME]
    hub.meanwhile["commit"] = lambda: repo.commit({"manifest.json": b"theirs"})
    with pytest.raises(ArtifactError, match="is not pushed: the hub refuses it: the branch moved"):
        push(folder, NAME)
    assert repo.files() == {"manifest.json": b"theirs"}


def test_a_card_that_a_person_wrote_stays(hub: HubServer, folder: Path) -> None:
    push(folder, NAME)
    repo = hub.repos[NAME]
    repo.commit({**repo.files(), "README.md": b"# by hand"})
    pushed = push(folder, NAME)
    assert repo.files()["README.md"] == b"# by hand"
    assert pushed.notes == ("the model card that 'org/lengths' had was kept",)
    with pytest.raises(SettingsError, match=r"a README\.md that you wrote: name the licence"):
        push(folder, NAME, license="mit")
    (folder / "README.md").write_text("# beside it")
    assert not push(folder, NAME).notes
    assert repo.files()["README.md"] == b"# beside it"
    assert MARK not in repo.files()["README.md"].decode()
    with pytest.raises(SettingsError, match=r"a README\.md that you wrote"):
        push(folder, NAME, license="mit")


def test_a_branch(hub: HubServer, folder: Path, tmp_path: Path) -> None:
    first = push(folder, NAME)
    control = build("constant").save(tmp_path / "control")
    for _ in range(2):
        second = push(control, NAME, branch="next")
    assert load(NAME).origin == str(first.name)  # type: ignore[attr-defined]
    assert load(f"{NAME}@next").origin == str(second.name)  # type: ignore[attr-defined]


def test_private_stays_private(hub: HubServer, folder: Path) -> None:
    push(folder, NAME, private=True)
    assert hub.repos[NAME].private
    push(folder, NAME, private=True)
    hub.repos["org/open"] = Repo()
    before = hub.repos["org/open"].commit({})
    with pytest.raises(ArtifactError, match="'org/open' is there already and is public"):
        push(folder, "org/open", private=True)
    assert hub.repos["org/open"].branches["main"] == before


def test_a_repository_of_something_else_is_left_alone(hub: HubServer, folder: Path) -> None:
    hub.repos[NAME] = Repo()
    before = hub.repos[NAME].commit({"config.json": b"{}", "README.md": b"# an LLM"})
    with pytest.raises(ArtifactError, match=r"holds no lengthpred artifact but config\.json"):
        push(folder, NAME)
    assert hub.repos[NAME].branches["main"] == before


@pytest.mark.parametrize("name", ["arrays.safetensors", "config.json", "manifest.json"])
def test_nothing_is_sent_of_a_damaged_one(hub: HubServer, folder: Path, name: str) -> None:
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(bytes([*data[:-9], data[-9] ^ 1, *data[-8:]]))
    with pytest.raises(ArtifactError, match=f"{name} is damaged"):
        push(folder, NAME)
    assert not hub.asked


def test_nothing_is_sent_of_what_is_none(hub: HubServer, tmp_path: Path) -> None:
    for path, said in ((tmp_path, "is not an artifact"), (tmp_path / "no", "there is no folder")):
        with pytest.raises(ArtifactError, match=said):
            push(path, NAME)
    assert not hub.asked


@pytest.mark.parametrize("repo", ["lengths", "org/lengths@main", "./org/lengths", "a/b/c", ""])
def test_names_that_are_none(hub: HubServer, folder: Path, repo: str) -> None:
    with pytest.raises(SettingsError, match="is no name on the hub: give ORG/NAME"):
        push(folder, repo)
    for branch in ("../main", "a" * 40):
        with pytest.raises(SettingsError, match="is no name of a branch"):
            push(folder, NAME, branch=branch)
    assert not hub.asked


def test_what_is_on_this_machine_only(hub: HubServer, tmp_path: Path) -> None:
    os.mkdir("org")
    os.mkdir("org/model")
    for source, said in (
        (Source("recorded", samples="/data/samples.parquet"), "samples from /data/samples.parquet"),
        (Source("transformers", "/models/small", checksum="0"), "the model at /models/small"),
        (Source("transformers", "org/model", checksum="0"), "the model at org/model"),
        (Source("transformers", "small.gguf", checksum="0"), "the model at small.gguf"),
    ):
        saved = asking(tmp_path / said.split("/")[-1], source)
        with pytest.raises(ArtifactError, match=f"{said}, which is on this machine only"):
            push(saved, NAME)
    # Of a part, too.
    parts: list[Any] = [build("histogram"), build("knn"), build("slm")]
    whole = Cascade(*parts).save(tmp_path / "whole")
    with pytest.raises(ArtifactError, match=r"whole reads recorded samples from /"):
        push(whole, NAME)
    assert not hub.asked


def test_keys_are_not_published_nor_printed(hub: HubServer, tmp_path: Path) -> None:
    # A user and a password in a URL are refused already when such an artifact is loaded.
    source = Source("openai", "small", ("https://host.org/v1?key=secret",))
    with pytest.raises(ArtifactError, match=r"a server at host\.org with more than") as error:
        push(asking(tmp_path, source), NAME)
    assert "secret" not in str(error.value)
    assert not hub.asked


def test_what_it_needs_is_in_the_card(hub: HubServer, tmp_path: Path) -> None:
    source = Source("openai", "org/small", ("http://localhost:8001/v1",))
    pushed = push(asking(tmp_path, source), NAME)
    card = hub.repos[NAME].files()["README.md"].decode()
    assert "a server at `http://localhost:8001/v1` with the model `org/small`" in card
    assert "**It is sent the prompts**" in card
    (note,) = pushed.notes
    assert note.startswith("it sends prompts to http://localhost:8001/v1")
    there = Source("transformers", "org/small", revision="v1", checksum="0")
    assert not push(asking(tmp_path / "other", there), NAME).notes
    card = hub.repos[NAME].files()["README.md"].decode()
    assert "the language model `org/small` at revision `v1`" in card
    assert "`hf download org/small`" in card


def test_what_the_hub_refuses(
    hub: HubServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ArtifactError, match='"license" must be one of') as error:
        push(folder, NAME, license="no-such-licence")
    assert "\n" not in str(error.value)
    with pytest.raises(SettingsError, match="is no identifier of the hub"):
        push(folder, NAME, license="MIT License")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ArtifactError, match="is not pushed: the hub is not asked while HF_HUB_OFF"):
        push(folder, NAME)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(ArtifactError, match="run `hf auth login` with a token that may"):
        push(folder, "org/another")
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ArtifactError, match=r"127\.0\.0\.1:9 cannot be reached"):
        push(folder, NAME)


def test_a_manifest_before_that_cannot_be_read(hub: HubServer, folder: Path) -> None:
    hub.repos[NAME] = Repo()
    hub.repos[NAME].commit({"manifest.json": b"{}", "config.json": b"{}"})
    push(folder, NAME)
    hub.repos[NAME].commit({"manifest.json": json.dumps({"files": {"../x": {}}}).encode()})
    assert load(str(push(folder, NAME).name))


def test_cards_need_no_clock(folder: Path) -> None:
    manifest = replace(read_manifest(folder), metrics={}, models=(), fingerprint="")
    card = model_card(NAME, manifest, References())
    assert card == model_card(NAME, manifest, References())
    assert "## Scores" not in card and card.count("not recorded") == 2
    assert Constant.kind not in card
