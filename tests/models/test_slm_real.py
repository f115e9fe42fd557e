"""The ways to ask a small model, each with a real one: the contract, and requests of all kinds."""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lengthpred import load
from lengthpred.artifact import Storable
from lengthpred.testing import HARD, PREDICTOR_CHECKS
from lengthpred.training.fit import KINDS
from tests.builders import synthetic_rows
from tests.smollm2 import smollm2_backend

pytestmark = pytest.mark.slow
WAYS: dict[str, dict[str, Any]] = {
    "slm": {"cap": 4, "n": 2},
    "slm-prefill": {},
    "slm-states": {"n": 2},
}
PAIRS = 24


def saved(folder: Path, layers: int, context: int) -> Path:
    """SmolLM2 with its first layers only, and room for fewer tokens."""
    with smollm2_backend()._held(None) as loaded:
        assert loaded is not None
        model, config = loaded.model, loaded.model.config
        all_layers = model.model.layers
        before = config.num_hidden_layers, config.max_position_embeddings
        try:
            model.model.layers = all_layers[:layers]
            config.num_hidden_layers, config.max_position_embeddings = layers, context
            model.save_pretrained(folder)
            loaded.tokenizer.save_pretrained(folder)
        finally:
            model.model.layers = all_layers
            config.num_hidden_layers, config.max_position_embeddings = before
    return folder


@pytest.fixture(scope="module")
def shallow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fast enough for thousands of questions: real weights, template and tokenizer."""
    return saved(tmp_path_factory.mktemp("shallow"), layers=2, context=96)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("whole"), layers=30, context=256)


def trained(kind: str, model: Path) -> Storable:
    settings = KINDS[kind].settings.model_validate(
        {"backend": "transformers", "model": str(model), "pairs": PAIRS} | WAYS[kind]
    )
    rows = synthetic_rows(PAIRS)
    trainer: Any = importlib.import_module(KINDS[kind].module)
    made: Storable = trainer.train(rows, rows, settings, np.random.default_rng(0))
    return made


@pytest.fixture(scope="module")
def made(shallow: Path) -> dict[str, Storable]:
    return {}


@pytest.mark.filterwarnings("ignore:there are")  # few pairs are enough here
@pytest.mark.parametrize("check", PREDICTOR_CHECKS.values(), ids=PREDICTOR_CHECKS.keys())
@pytest.mark.parametrize("kind", WAYS)
def test_the_contract(
    kind: str, check: Callable[[Any], None], shallow: Path, made: dict[str, Storable]
) -> None:
    if kind not in made:
        made[kind] = trained(kind, shallow)
    check(made[kind])


@pytest.mark.filterwarnings("ignore:there are")
@pytest.mark.parametrize("kind", WAYS)
def test_the_whole_model_answers_any_request(kind: str, whole: Path, tmp_path: Path) -> None:
    stored: Any = trained(kind, whole)
    loaded = load(stored.save(tmp_path / kind))
    answer = loaded.predict(HARD)
    assert np.isfinite(answer.mean()).all() and len(answer) == len(HARD)
    found, refined = stored.refine(HARD, 120.0)
    told = [bool(request.prompt.strip()) for request in HARD]
    # What has no text is not answered; nor need all that has text state a number.
    assert not refined[~np.array(told)].any()
    assert refined[told].all() or kind == "slm-states"
    assert np.allclose(found.pmf, answer.pmf, atol=1e-4)
