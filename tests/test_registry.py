"""Kinds by name, ours and those of other packages."""

import sys
from importlib.metadata import EntryPoint
from types import ModuleType

import pytest

from lengthpred import registry
from lengthpred.artifact import Storable
from lengthpred.errors import ArtifactError, MissingExtraError, SettingsError
from lengthpred.registry import DETECTORS, PREDICTORS, available, resolve


class Theirs(Storable):
    kind = "theirs"


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another package, with entry points that are good, bad, and one that is taken."""
    values = {
        "theirs": f"{__name__}:Theirs",
        "theirs-extra": f"{__name__}:Theirs [torch]",
        "constant": f"{__name__}:Theirs",
        "no-module": "no_such_module:Thing",
        "no-class": f"{__name__}:Nothing",
        "no-storable": "builtins:dict",
        "raises": "lengthpred_raises:Thing",
        "needs-extra": "lengthpred_needs:Thing",
    }

    def entry_points(group: str) -> list[EntryPoint]:
        mine = values if group == "lengthpred.predictors" else {}
        return [EntryPoint(name, value, group) for name, value in mine.items()]

    class Broken(ModuleType):
        def __getattr__(self, name: str) -> object:
            if self.__name__ == "lengthpred_needs":
                raise MissingExtraError("pip install 'theirs[extra]'")
            raise RuntimeError("no GPU here")

    for name in ("lengthpred_raises", "lengthpred_needs"):
        monkeypatch.setitem(sys.modules, name, Broken(name))
    monkeypatch.setattr(registry, "entry_points", entry_points)


@pytest.mark.parametrize("kind", sorted(PREDICTORS | DETECTORS))
def test_our_kinds_resolve_and_know_their_name(kind: str) -> None:
    assert resolve(kind).kind == kind


def test_groups_do_not_share_names() -> None:
    assert not PREDICTORS.keys() & DETECTORS.keys()
    with pytest.raises(SettingsError, match="Did you mean 'detectors'"):
        available("detector")


@pytest.mark.usefixtures("installed")
def test_entry_points_join() -> None:
    assert resolve("theirs") is Theirs and resolve("theirs-extra") is Theirs
    assert available()["theirs-extra"] == f"{__name__}:Theirs"
    assert "theirs" not in available("detectors")


@pytest.mark.usefixtures("installed")
def test_our_names_cannot_be_taken() -> None:
    assert available()["constant"] == PREDICTORS["constant"]
    assert resolve("constant") is not Theirs


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("no-module", "cannot be imported"),
        ("no-class", "cannot be imported"),
        ("raises", "no GPU here"),
        ("no-storable", "no subclass of Storable"),
        ("their", "Did you mean 'theirs'"),
    ],
)
def test_kinds_that_are_broken(kind: str, message: str) -> None:
    with pytest.raises(ArtifactError, match=message):
        resolve(kind)


@pytest.mark.usefixtures("installed")
def test_a_missing_extra_is_named() -> None:
    with pytest.raises(MissingExtraError, match="pip install"):
        resolve("needs-extra")
