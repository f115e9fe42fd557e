"""Encoders from a hub: had, not had, or not to be asked for; each failure is one sentence."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.hub.server import HubServer, Repo
from tests.tiny_encoders import torch_encoder

pytestmark = pytest.mark.slow
NAME = "people/tiny"
SCRIPT = """
import logging, sys, transformers
from lengthpred.errors import SettingsError
from lengthpred.training.encoder_source import loaded
before = logging.getLogger("huggingface_hub").level
try:
    print(sum(p.numel() for p in loaded(sys.argv[1], "")[0].parameters()))
except SettingsError as error:
    print(error)
assert logging.getLogger("huggingface_hub").level == before
"""


def load(name: str, url: str, folder: Path) -> str:
    """What is printed on both streams by a process that loads it from the hub at `url`."""
    env = os.environ | {"HF_ENDPOINT": url, "HF_HOME": str(folder / "cache"), "HF_HUB_OFFLINE": "0"}
    env["TQDM_DISABLE"] = "1"
    command = [sys.executable, "-c", SCRIPT, name]
    done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=folder, timeout=300)
    assert done.returncode == 0, done.stderr
    return (done.stdout + done.stderr).strip()


def test_an_encoder_of_the_hub_is_kept_for_when_it_cannot_be_asked(tmp_path: Path) -> None:
    made = torch_encoder(tmp_path / "made")
    with HubServer() as hub:
        hub.repos[NAME] = Repo()
        hub.repos[NAME].commit({path.name: path.read_bytes() for path in made.iterdir()})
        found = load(NAME, hub.url, tmp_path)
        assert int(found) > 10_000
        absent = load("people/nothing", hub.url, tmp_path)
    assert absent == (
        "the encoder 'people/nothing' cannot be loaded: there is no folder of that name, and the "
        "hub has no 'people/nothing', or it is private: check the name, or run `hf auth login` as "
        "one who may use it"
    )
    assert load(NAME, "http://127.0.0.1:9", tmp_path) == found


def test_without_a_network_one_sentence_says_what_to_do(tmp_path: Path) -> None:
    said = load("bert-base-uncased", "http://127.0.0.1:9", tmp_path)
    assert len(said.splitlines()) == 1
    assert said.startswith("the encoder 'bert-base-uncased' cannot be loaded: there is no folder")
    assert "http://127.0.0.1:9 cannot be reached" in said
    assert said.endswith("where there is a network, or name a folder that holds the encoder")
