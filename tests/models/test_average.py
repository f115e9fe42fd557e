"""The average of several predictors."""

from pathlib import Path

import numpy as np
import pytest

from lengthpred import LengthGrid, load
from lengthpred.models.average import Average
from lengthpred.models.controls import fit_constant, fit_prompt_length
from lengthpred.testing import FixedPredictor, example_requests
from tests.builders import build, synthetic_rows
from tests.data_files import lengthpred
from tests.training.tables import table_on_disk


def test_it_mixes_the_distributions_in_equal_parts(tmp_path: Path) -> None:
    rows = synthetic_rows(200)
    parts = [fit_constant(rows), fit_prompt_length(rows), build("boosted")]
    requests = example_requests(20, 0)
    each = [part.predict(requests).pmf for part in parts]  # type: ignore[attr-defined]
    saved = Average(parts).save(tmp_path / "a")  # type: ignore[arg-type]
    np.testing.assert_allclose(load(saved).predict(requests).pmf, np.mean(each, axis=0), atol=1e-6)


def test_parts_keep_their_order_beyond_ten(tmp_path: Path) -> None:
    rows = synthetic_rows(200)
    loaded = load(
        Average([fit_constant(rows)] * 11 + [fit_prompt_length(rows)]).save(tmp_path / "a")
    )
    assert isinstance(loaded, Average)
    assert [getattr(part, "kind", "") for part in loaded.parts] == ["constant"] * 11 + [
        "prompt-length"
    ]


def test_what_does_not_go_together_is_refused() -> None:
    other = FixedPredictor({})
    other.grid = LengthGrid(np.array([0, 10, 100]))
    with pytest.raises(ValueError, match="different grids"):
        Average([FixedPredictor({}), other])
    with pytest.raises(ValueError, match="one or more"):
        Average([])


def test_the_command_puts_artifacts_together(tmp_path: Path) -> None:
    table = table_on_disk(tmp_path / "t.parquet")
    parts = [str(build(kind).save(tmp_path / kind)) for kind in ("boosted", "histogram")]
    recipe = tmp_path / "r.toml"
    recipe.write_text(f"parts = {parts}")
    out = tmp_path / "a"
    code, _, err = lengthpred("train", "average", "--data", table, "--recipe", recipe, "--out", out)
    assert code == 0, err
    assert isinstance(load(out), Average)
    recipe.write_text(f"parts = {[*parts, 'nowhere/at/all']}")
    code, _, err = lengthpred(
        "train", "average", "--data", table, "--recipe", recipe, "--out", out, "--force"
    )
    assert code == 2 and "nowhere" in err
