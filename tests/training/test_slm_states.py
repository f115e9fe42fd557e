"""Learning what stated lengths mean, from a server whose model states them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lengthpred import load
from lengthpred.artifact import read_manifest
from lengthpred.errors import BackendError
from lengthpred.metrics import tau
from lengthpred.models.length_map import ALL_MODELS
from lengthpred.models.slm_states import STATED_TOKENS, StatedLength
from lengthpred.training import slm_states
from lengthpred.training.fit import fit
from lengthpred.training.settings import SlmStatesSettings
from tests.builders import synthetic_rows
from tests.small_models import recorded_samples, stating_url
from tests.training.tables import table_on_disk

RNG = np.random.default_rng


def settings(**more: object) -> SlmStatesSettings:
    given = {"backend": "openai", "model": "small", "url": stating_url(), "n": 1}
    return SlmStatesSettings.model_validate(given | more)


def test_stated_lengths_are_calibrated() -> None:
    rows = synthetic_rows(300)
    made = slm_states.train(rows, rows, settings(pairs=120), RNG(0))
    assert made.generation.cap == STATED_TOKENS and made.maps.keys() >= {ALL_MODELS}
    asked = synthetic_rows(150, 1)
    answer = made.predict(asked.requests)
    assert tau(answer.median(), asked.truth) > 0.5
    # It states half of the truth: as a number that would be far off.
    codes = [i for i, r in enumerate(asked.requests) if r.prompt.startswith("code")]
    assert np.mean(answer.median()[codes]) > 330


def test_a_model_that_states_nothing() -> None:
    rows = synthetic_rows(60)
    mute = replace(rows, requests=[replace(r, prompt="?") for r in rows.requests])
    with pytest.warns(UserWarning, match="there are 0 pairs"):
        assert slm_states.train(mute, mute, settings(), RNG(0)).maps == {}


def test_recorded_samples_state_nothing() -> None:
    rows = synthetic_rows(60)
    given = settings(backend="recorded", samples=str(recorded_samples()))
    with pytest.raises(BackendError, match="gives no texts"):
        slm_states.train(rows, rows, given, RNG(0))


def test_by_the_command_twice_the_same_bytes(tmp_path: Path) -> None:
    data = table_on_disk(tmp_path / "t.parquet", synthetic_rows(200))
    recipe = tmp_path / "r.toml"
    recipe.write_text(
        f'kind = "slm-states"\nbackend = "openai"\nmodel = "small"\nurl = "{stating_url()}"\n'
        "n = 1\npairs = 60\n"
    )
    for name in ("first", "second"):
        fit("slm-states", data, tmp_path / name, recipe=recipe)
    for path in (tmp_path / "first").iterdir():
        assert path.read_bytes() == (tmp_path / "second" / path.name).read_bytes()
    assert read_manifest(tmp_path / "first").metrics["tau"] > 0.4
    assert isinstance(load(tmp_path / "first"), StatedLength)
