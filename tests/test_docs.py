"""What README.md and docs/ say is so: the page's package works, commands and links are there."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lengthpred import LengthGrid
from lengthpred.models.controls import Constant

ROOT = Path(__file__).parents[1]
FLAGS = re.DOTALL | re.MULTILINE
BLOCK = re.compile(r"<!-- file: (\S+) -->\n```\w+\n(.*?)^```$", FLAGS)
COMMAND = re.compile(r"<!-- command: (\w+) -->\n```bash\n(.*)\n```")
DIST_INFO = "wordy-0.1.0.dist-info"


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """The page's package as pip would leave it: files and metadata beside each other."""
    blocks = dict(BLOCK.findall((ROOT / "docs/adding-a-predictor.md").read_text("utf-8")))
    assert blocks.keys() == {"wordy.py", "pyproject.toml", "use.py"}
    for name, text in blocks.items():
        (tmp_path / name).write_text(text, "utf-8")
    points = re.search(r'\[project\.entry-points\."(.+)"\]\n(.+)\n', blocks["pyproject.toml"])
    assert points
    (tmp_path / DIST_INFO).mkdir()
    (tmp_path / DIST_INFO / "METADATA").write_text("Name: wordy\nVersion: 0.1.0\n")
    text = f"[{points[1]}]\n{points[2].replace(chr(34), '')}\n"
    (tmp_path / DIST_INFO / "entry_points.txt").write_text(text)
    return tmp_path


def test_the_page_adds_a_predictor(package: Path) -> None:
    code = (package / "wordy.py").read_text("utf-8")
    assert len(code.splitlines()) < 60
    environment = os.environ | {"PYTHONPATH": str(package)}
    done = subprocess.run(
        [sys.executable, "use.py"], cwd=package, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.strip("[]\n")) > 10
    assert (package / "my-wordy" / "manifest.json").is_file()


def test_the_kind_is_unknown_without_the_package(package: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(package)}
    subprocess.run([sys.executable, "use.py"], cwd=package, env=environment, check=True)
    code = "import lengthpred; lengthpred.load('my-wordy')"
    (package / DIST_INFO / "entry_points.txt").unlink()
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=package, capture_output=True, text=True, env=environment
    )
    assert "'wordy' is no kind that is installed" in done.stderr


def test_the_readme_has_its_two_commands() -> None:
    commands = dict(COMMAND.findall((ROOT / "README.md").read_text("utf-8")))
    assert commands.keys() == {"quickstart", "tests"}
    for name, end in (("quickstart", "lengthpred quickstart"), ("tests", "pytest -n auto")):
        assert commands[name].startswith("python3 -m venv .venv")
        assert commands[name].endswith(end)


def test_the_python_of_the_readme_runs(tmp_path: Path) -> None:
    found = re.search(r"^```python\n(.*?)^```$", (ROOT / "README.md").read_text("utf-8"), FLAGS)
    assert found
    grid = LengthGrid()
    Constant(grid, np.full((1, grid.bins), 1 / grid.bins, np.float32)).save(
        tmp_path / "my-predictor"
    )
    subprocess.run([sys.executable, "-c", found[1]], cwd=tmp_path, check=True)


@pytest.mark.parametrize("page", ["README.md", *(f"docs/{p.name}" for p in ROOT.glob("docs/*.md"))])
def test_links_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text("utf-8")
    for link in re.findall(r"\]\((?!https?:)([^)#]+)", text):
        assert (ROOT / page).parent.joinpath(link).exists(), link
