"""The wheel holds every package that the checkout holds, and an import loads little."""

import statistics
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

import lengthpred

ROOT = Path(__file__).parents[1]
SETUPTOOLS = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]
FOLDERS = {"lengthpred": "lengthpred"} | SETUPTOOLS["package-dir"]
HEAVY = (
    "datasets lightgbm pyarrow pydantic rich safetensors scipy sklearn tokenizers torch typer"
).split()


def test_every_package_is_listed() -> None:
    found = {
        ".".join((name, *init.parent.relative_to(ROOT / folder).parts))
        for name, folder in FOLDERS.items()
        for init in (ROOT / folder).rglob("__init__.py")
    }
    assert found == set(SETUPTOOLS["packages"])


@pytest.mark.parametrize("name", sorted(SETUPTOOLS["package-dir"]))
def test_the_checkout_links_to_the_folder(name: str) -> None:
    link = ROOT.joinpath(*name.split("."))
    if not link.is_symlink():
        pytest.skip("this checkout has no symlinks")
    assert link.resolve() == ROOT / SETUPTOOLS["package-dir"][name]


def test_all_is_the_namespace() -> None:
    assert sorted(lengthpred.__all__) == list(lengthpred.__all__)
    for name in lengthpred.__all__:
        assert getattr(lengthpred, name) is not None
    public = {
        name
        for name, value in vars(lengthpred).items()
        if not name.startswith("_") and not hasattr(value, "__path__") and not _is_module(value)
    }
    assert public == set(lengthpred.__all__) - {"__version__"}
    assert lengthpred.__version__[0].isdigit()
    with pytest.raises(AttributeError, match="no attribute 'Predicter'"):
        _ = lengthpred.Predicter


def _is_module(value: object) -> bool:
    return type(value).__name__ == "module"


def python(code: str) -> str:
    """What a fresh interpreter prints."""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return run.stdout


def test_import_loads_numpy_and_nothing_heavier() -> None:
    loaded = set(python("import sys, lengthpred; print(*sys.modules)").split())
    assert "numpy" in loaded
    assert not loaded & set(HEAVY)
    assert "lengthpred.models" not in loaded


def test_import_is_quick() -> None:
    def seconds(code: str) -> float:
        begun = time.perf_counter()
        python(code)
        return time.perf_counter() - begun

    # The goal is 0.3 s, of which numpy takes most; the bound leaves room for a busy machine.
    assert statistics.median(seconds("import lengthpred") for _ in range(5)) < 1.5
