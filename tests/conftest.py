"""Settings for every test."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

# Threads that wait by spinning make LightGBM dozens of times slower where other work runs beside
# the tests. Read once, when OpenMP is first loaded; commands that tests start inherit it.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# The same examples in every run: a failure in one place is a failure in all of them.
settings.register_profile("lengthpred", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("lengthpred")


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SmolLM2-135M-Instruct as vLLM reads it: making it takes half a minute."""
    pytest.importorskip("vllm")
    from tests.serving.vllm.server import saved_model

    return saved_model(tmp_path_factory.mktemp("smol") / "smol")
