"""Artifacts: whole or absent, checked byte by byte, the same bytes for the same predictor."""

import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pytest

import lengthpred
from lengthpred import LengthDistribution, LengthGrid, Request, load, registry
from lengthpred.artifact import Card, Contents, Storable, check_target, load_storable
from lengthpred.errors import ArtifactError
from lengthpred.manifest import read_manifest, sha256, to_json

GOLDEN = Path(__file__).parent / "golden"
REQUESTS = [Request(prompt=text) for text in ("", "hello", "a longer prompt")]


class Toy(Storable):
    """A predictor that has one of everything: settings, arrays, a file and a part."""

    kind = "toy"

    def __init__(self, scale: float, text: bytes = b"notes\n", inner: "Toy | None" = None) -> None:
        self.scale, self.text, self.inner = np.float32(scale), text, inner
        self.grid = LengthGrid(np.array([0, 1, 2, 4, 8]))

    def predict(self, requests: Sequence[Request]) -> LengthDistribution:
        sizes = np.array([len(request.prompt) for request in requests], np.float64)
        weights = np.exp(-np.outer(sizes + 1, np.arange(4)) * float(self.scale))
        return LengthDistribution.from_weights(self.grid, weights)

    def contents(self) -> Contents:
        numbers: npt.NDArray[np.int64] = np.arange(6).reshape(2, 3).T
        return Contents(
            {"name": "Größe", "null": None, "list": [1, 2.5]},
            self.grid,
            {"scale": np.asarray(self.scale), "numbers": numbers},
            {"notes.txt": self.text},
            {"inner": self.inner} if self.inner else {},
        )

    @classmethod
    def from_contents(cls, contents: Contents) -> Self:
        assert contents.arrays["scale"].shape == ()
        assert contents.arrays["numbers"].tolist() == [[0, 3], [1, 4], [2, 5]]
        assert contents.config == {"name": "Größe", "null": None, "list": [1, 2.5]}
        inner = contents.parts.get("inner")
        assert inner is None or isinstance(inner, Toy)
        return cls(contents.arrays["scale"].item(), contents.files["notes.txt"], inner)


@pytest.fixture(autouse=True)
def toy_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.PREDICTORS, "toy", f"{__name__}:Toy")
    monkeypatch.setitem(registry.PREDICTORS, "toy-gone", "no_such_module:Toy")


def golden() -> Toy:
    toy = Toy(0.25, inner=Toy(0.5, b"\x00\xff"))
    toy.card = Card(("model-a",), "0" * 64, {"tau": 0.5, "mae": 12.25})
    return toy


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return golden().save(tmp_path / "toy")


def files(folder: Path) -> dict[str, bytes]:
    found = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def rewrite(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change a manifest and sign it anew, as one who means harm would."""
    raw = json.loads((folder / "manifest.json").read_bytes())
    change(raw)
    del raw["sha256"]
    (folder / "manifest.json").write_bytes(to_json({**raw, "sha256": sha256(to_json(raw))}))


def test_round_trip(saved: Path) -> None:
    loaded = load(saved)
    assert isinstance(loaded, Toy)
    assert loaded.card == golden().card
    assert loaded.inner is not None and loaded.inner.text == b"\x00\xff"
    for ours, theirs in ((loaded, golden()), (loaded.inner, Toy(0.5))):
        assert np.array_equal(ours.predict(REQUESTS).pmf, theirs.predict(REQUESTS).pmf)


def test_manifest_lists_every_file(saved: Path) -> None:
    manifest = read_manifest(saved)
    assert set(manifest.files) == set(files(saved)) - {"manifest.json"}
    assert "inner/manifest.json" in manifest.files
    assert (manifest.kind, manifest.grid, manifest.models) == ("toy", (0, 1, 2, 4, 8), ("model-a",))
    assert manifest.library_version == lengthpred.__version__


def test_same_bytes_twice(saved: Path, tmp_path: Path) -> None:
    assert files(golden().save(tmp_path / "again")) == files(saved)
    assert files(load_storable(saved).save(tmp_path / "third")) == files(saved)


def test_golden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A change of these bytes is a change of the format: raise FORMAT_VERSION, then write them anew.
    monkeypatch.setattr(lengthpred, "__version__", "0.1.0", raising=False)
    assert files(golden().save(tmp_path / "toy")) == files(GOLDEN / "toy")
    expected = json.loads((GOLDEN / "toy.json").read_text("utf-8"))
    answer = load(GOLDEN / "toy").predict(REQUESTS)
    assert np.array_equal(answer.pmf, np.array(expected["pmf"], np.float32))
    assert np.allclose(answer.median(), expected["median"])


def test_damaged_byte_in_every_file(saved: Path) -> None:
    for name, data in files(saved).items():
        for at in range(0, len(data), max(len(data) // 40, 1)):
            flipped = bytes([*data[:at], data[at] ^ 1, *data[at + 1 :]])
            (saved / name).write_bytes(flipped)
            with pytest.raises(ArtifactError, match=name.split("/")[-1]):
                load(saved)
        (saved / name).write_bytes(data)
    load(saved)


def test_longer_and_shorter_files(saved: Path) -> None:
    for name, data in files(saved).items():
        # The manifest is JSON: white space at its end is no damage.
        for wrong in (data[:-2], data + b"\0", b""):
            (saved / name).write_bytes(wrong)
            with pytest.raises(ArtifactError, match="damaged"):
                load(saved)
        (saved / name).write_bytes(data)


def test_missing_file(saved: Path) -> None:
    for name, data in files(saved).items():
        (saved / name).unlink()
        with pytest.raises(ArtifactError, match=name.split("/")[-1]):
            load(saved)
        (saved / name).write_bytes(data)


@pytest.mark.parametrize("version", [2, 0, "1.5", None])
def test_other_format_version(saved: Path, version: object) -> None:
    rewrite(saved, lambda raw: raw.update(format_version=version))
    with pytest.raises(
        ArtifactError, match=r"manifest\.json has format version .* reads version 1"
    ):
        load(saved)


def test_unknown_kind(saved: Path) -> None:
    rewrite(saved, lambda raw: raw.update(kind="histogran"))
    with pytest.raises(ArtifactError, match=r"manifest\.json.*Did you mean 'histogram'"):
        load(saved)
    rewrite(saved, lambda raw: raw.update(kind="os:system"))
    with pytest.raises(ArtifactError, match="no kind that is installed"):
        load(saved)
    rewrite(saved, lambda raw: raw.update(kind="toy-gone"))
    with pytest.raises(ArtifactError, match=r"toy-gone.*cannot be imported"):
        load(saved)


@pytest.mark.parametrize(
    "name",
    [
        "../secret",
        "/etc/passwd",
        "..\\secret",
        "C:secret",
        "a/../../secret",
        "",
        ".",
        "x\0y",
        "./x",
        "a//x",
        "x/",
    ],
)
def test_names_that_lead_out(saved: Path, name: str) -> None:
    (saved.parent / "secret").write_bytes(b"")
    entry = {"sha256": sha256(b""), "size": 0}
    rewrite(saved, lambda raw: raw["files"].update({name: entry}))
    with pytest.raises(ArtifactError, match="outside the artifact"):
        load(saved)


def test_links_that_lead_out(saved: Path, tmp_path: Path) -> None:
    notes = saved / "notes.txt"
    notes.rename(tmp_path / "elsewhere.txt")
    notes.symlink_to(tmp_path / "elsewhere.txt")
    with pytest.raises(ArtifactError, match="leads out of the artifact"):
        load(saved)


def test_a_part_that_leads_back_is_refused(saved: Path) -> None:
    """Each level would hold all that the one above does, without an end."""
    (saved / "part").symlink_to(saved)
    (saved / "notes").write_bytes(b"")
    entry = {"sha256": sha256(b""), "size": 0}
    rewrite(saved, lambda raw: raw["files"].update({"notes": entry, "part/notes": entry}))
    with pytest.raises(ArtifactError, match="part is a link"):
        load(saved)


def test_link_to_an_artifact_loads(saved: Path, tmp_path: Path) -> None:
    (tmp_path / "latest").symlink_to(saved)
    assert isinstance(load(tmp_path / "latest"), Toy)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b'"x"', b"\xff", b"[" * 100_000, b'{"format_version": 1}', b"Infinity"],
)
def test_manifest_that_is_none(saved: Path, content: bytes) -> None:
    (saved / "manifest.json").write_bytes(content)
    with pytest.raises(ArtifactError, match=r"manifest\.json is damaged"):
        load(saved)


def test_what_is_no_artifact(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("hello")
    for path in (tmp_path, tmp_path / "absent", tmp_path / "file"):
        with pytest.raises(ArtifactError, match="is not an artifact"):
            load(path)


def test_contents_that_do_not_fit_their_kind(saved: Path) -> None:
    def drop(raw: dict[str, Any]) -> None:
        del raw["files"]["arrays.safetensors"]

    rewrite(saved, drop)
    with pytest.raises(ArtifactError, match="does not hold a usable toy"):
        load(saved)


def test_an_existing_target_needs_force(saved: Path) -> None:
    before = files(saved)
    with pytest.raises(ArtifactError, match="exists already"):
        Toy(1.0).save(saved)
    assert files(saved) == before
    Toy(1.0).save(saved, force=True)
    assert files(saved) != before
    assert os.listdir(saved.parent) == ["toy"]


def test_force_never_replaces_what_is_no_artifact(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    Toy(1.0).save(home, force=True)  # an empty folder is nothing to lose
    shutil.rmtree(home)
    home.mkdir()
    (home / "thesis.txt").write_text("years of work")
    for target in (home, home / "thesis.txt"):
        with pytest.raises(ArtifactError, match="not an artifact"):
            Toy(1.0).save(target, force=True)
        with pytest.raises(ArtifactError):
            check_target(target, force=True)
    assert (home / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize("moment", ["contents", "manifest", "rename"])
def test_a_failure_midway_keeps_the_old_one(
    saved: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    before = files(saved)
    rename = Path.rename

    def fail(*_: object) -> Any:
        raise OSError("no space left on device")

    def fail_when_fresh(path: Path, target: Path) -> Path:
        return fail() or path if path.name == "new" else rename(path, target)

    if moment == "contents":
        monkeypatch.setattr(Toy, "contents", fail)
    elif moment == "manifest":
        monkeypatch.setattr("lengthpred.artifact.sha256", fail)
    else:
        monkeypatch.setattr(Path, "rename", fail_when_fresh)
    for target in (saved, saved.parent / "fresh"):
        with pytest.raises(ArtifactError, match="cannot be written: no space left"):
            Toy(1.0).save(target, force=True)
    monkeypatch.undo()
    assert files(saved) == before
    assert os.listdir(saved.parent) == ["toy"]


def test_a_keypress_between_the_moves_keeps_the_old_one(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, rename = files(saved), Path.rename

    def interrupted(path: Path, target: Path) -> Path:
        if path.name == "new":
            raise KeyboardInterrupt
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Toy(1.0).save(saved, force=True)
    monkeypatch.undo()
    assert files(saved) == before and os.listdir(saved.parent) == ["toy"]


def test_a_relative_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Toy(1.0).save("deep/er/toy")
    monkeypatch.chdir("deep/er/toy")
    Toy(2.0).save("../toy", force=True)
    assert os.listdir(tmp_path / "deep/er") == ["toy"]


def test_names_that_an_artifact_cannot_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("manifest.json", "../out", "a/b", ""):
        contents = Contents(files={name: b""})
        monkeypatch.setattr(Toy, "contents", lambda _, contents=contents: contents)
        with pytest.raises(ValueError, match="no name for a file"):
            Toy(1.0).save(tmp_path / "toy")
    assert not os.listdir(tmp_path)


def test_a_detector_is_no_predictor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(Toy, "predict")
    Toy(1.0).save(tmp_path / "toy")
    with pytest.raises(ArtifactError, match="not a predictor"):
        load(tmp_path / "toy")
    assert isinstance(load_storable(tmp_path / "toy"), Toy)


def write_golden() -> None:
    """Write the golden artifact anew: python tests/test_artifact.py"""
    shutil.rmtree(GOLDEN, ignore_errors=True)
    golden().save(GOLDEN / "toy")
    answer = golden().predict(REQUESTS)
    expected = {"pmf": answer.pmf.tolist(), "median": answer.median().tolist()}
    (GOLDEN / "toy.json").write_bytes(to_json(expected))


if __name__ == "__main__":
    write_golden()
