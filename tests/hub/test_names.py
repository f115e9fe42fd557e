"""What is a name on the hub, and what is a path."""

from pathlib import Path

import pytest

from lengthpred.hub.names import HubName, hub_name, parse_hub_name


def test_names() -> None:
    assert parse_hub_name("org/na-me.v2@refs/pr/1") == HubName("org/na-me.v2", "refs/pr/1")
    assert str(HubName("org/name", "main")) == "org/name@main" and str(HubName("a/b")) == "a/b"
    long = f"org/{'n' * 97}"
    for name in ("org/name@a..b", "org/a--b", long, "org/name\n", "örg/name", "org/n.git"):
        assert parse_hub_name(name) is None


def test_a_typo_in_a_path_is_no_name_on_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    assert hub_name("runs/boosted") is None
    assert hub_name("runs/boosted@main") == HubName("runs/boosted", "main")
