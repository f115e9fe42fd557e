"""What reaches a user: the wheel, from a clone and from a zip without symlinks."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow


def run(*command: str | Path, **environment: str) -> str:
    """Standard output of a command that succeeds, away from the checkout."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT.parent, env=clean | environment
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def copy_checkout(to: Path, *, symlinks: bool) -> Path:
    """The tracked files as they are now; a zip, or a clone on Windows, has no symlinks."""
    for name in run("git", "-C", ROOT, "ls-files", "-z").split("\0"):
        source, target = ROOT / name, to / name
        if not name or not os.path.lexists(source) or (source.is_symlink() and not symlinks):
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, target, follow_symlinks=False)
    return to


def build_wheel(source: Path, out: Path) -> Path:
    run(sys.executable, "-m", "build", "--wheel", "--outdir", out, source)
    (wheel,) = out.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clone")
    return build_wheel(copy_checkout(folder / "source", symlinks=True), folder / "dist")


def fresh_environment(folder: Path) -> tuple[Path, Path]:
    """A new virtual environment: its python and its site-packages."""
    venv.create(folder, with_pip=True)
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    site = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
    return python, Path(site)


def names_in(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_the_wheel_holds_lengthpred_and_nothing_else(wheel: Path, tmp_path: Path) -> None:
    python, site = fresh_environment(tmp_path / "env")
    before = set(os.listdir(site))
    run(python, "-m", "pip", "install", "--no-deps", "--quiet", wheel)
    version = wheel.name.split("-")[1]
    assert set(os.listdir(site)) - before == {"lengthpred", f"lengthpred-{version}.dist-info"}
    assert (site / "lengthpred/py.typed").is_file()
    # The dependencies of this environment, without its lengthpred: PYTHONPATH reads no .pth file.
    where = run(
        python,
        "-c",
        "import lengthpred, lengthpred.cli.app, lengthpred.data.table, lengthpred.eval.compare, "
        "lengthpred.models.boosted, lengthpred.training.fit; print(lengthpred.__file__)",
        PYTHONPATH=sysconfig.get_path("purelib"),
    )
    assert Path(where.strip()).is_relative_to(site)
    shipped = run(
        python,
        "-c",
        "from lengthpred import Request, load; p = load('default'); "
        "print(p.predict([Request(prompt='Write a poem')]).median()[0])",
        PYTHONPATH=sysconfig.get_path("purelib"),
    )
    assert float(shipped) > 0


def test_the_wheel_holds_every_tracked_module(wheel: Path) -> None:
    folders = {"cli", "eval", "models", "training"}
    tracked = run("git", "-C", ROOT, "ls-files", "lengthpred", *folders).split()
    modules = {
        name if name.startswith("lengthpred/") else f"lengthpred/{name}"
        for name in tracked
        if name.endswith((".py", ".toml", "py.typed")) and (ROOT / name).is_file()
    }
    assert modules <= names_in(wheel)


def test_a_zip_without_symlinks_builds_the_same(wheel: Path, tmp_path: Path) -> None:
    source = copy_checkout(tmp_path / "zip", symlinks=False)
    assert not any(path.is_symlink() for path in source.rglob("*"))
    assert names_in(build_wheel(source, tmp_path / "dist")) == names_in(wheel)


def test_a_bare_install_is_light_and_runs(tmp_path: Path) -> None:
    python, site = fresh_environment(tmp_path / "env")
    source = copy_checkout(tmp_path / "source", symlinks=True)
    run(python, "-m", "pip", "install", "--quiet", source)
    installed = set(os.listdir(site))
    assert {"numpy", "pyarrow", "lightgbm", "lengthpred"} <= installed
    # LightGBM depends on SciPy; nothing of ours does without the extra.
    assert not {"torch", "datasets", "sklearn", "transformers", "plotly"} & installed
    command = python.with_name("lengthpred")
    assert run(command, "--version").startswith("lengthpred 0.")
    features = json.loads(run(command, "doctor", "--json"))["features"]
    works = {feature["name"]: feature["works"] for feature in features}
    assert works["train histogram"] and not works["train boosted"]
