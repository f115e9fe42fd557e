"""The boosted predictor, trained to what a teacher says."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lengthpred import LengthDistribution, LengthGrid, load
from lengthpred.data.rows import Rows
from lengthpred.errors import ArtifactError, DataError, SettingsError
from lengthpred.metrics import scores, tau
from lengthpred.models.distilled import Distilled
from lengthpred.training.distilled import soft_ranks, train
from lengthpred.training.settings import DistilledSettings
from tests.builders import synthetic_rows
from tests.data_files import lengthpred
from tests.tiny_encoders import small_encoder
from tests.training.tables import table_on_disk

QUICK = {"bits": 10, "trees": 40, "leaves": 7, "min_leaf_rows": 5}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> str:
    """It knows the lengths of every topic."""
    encoder = small_encoder(synthetic_rows(2000, 8), synthetic_rows(100, 9))
    return str(encoder.save(tmp_path_factory.mktemp("teacher") / "t"))


def distil(rows: Rows, **settings: object) -> Distilled:
    asked = DistilledSettings.model_validate({**QUICK, **settings})
    return train(rows, synthetic_rows(400, 1), asked, np.random.default_rng(0))


def order(predictor: Distilled) -> float:
    test = synthetic_rows(400, 3)
    return tau(predictor.score(test.requests), test.truth)


def test_soft_ranks_are_the_expected_rank() -> None:
    grid = LengthGrid()
    prior = np.zeros(grid.bins)
    prior[[3, 20]] = 0.5
    pmf = np.zeros((3, grid.bins), np.float32)
    pmf[0, 3] = pmf[1, 20] = 1
    pmf[2, [3, 20]] = 0.5
    assert soft_ranks(LengthDistribution(grid, pmf), prior).tolist() == [0.25, 0.75, 0.5]


def test_it_learns_the_teacher_and_not_the_labels(teacher: str) -> None:
    rows = synthetic_rows(400, 0)
    lengths = np.random.default_rng(0).permutation(rows.lengths)
    noise = replace(rows, lengths=lengths, censored=np.zeros(len(rows), bool))
    taught, half, left = (
        order(distil(noise, teacher=[teacher], label_share=share)) for share in (0.0, 0.5, 1.0)
    )
    assert taught > 0.45
    assert abs(left) < 0.2 < half < taught


def test_prompts_without_lengths_are_learnt_from(teacher: str, tmp_path: Path) -> None:
    rows = synthetic_rows(2000, 0)
    lists = rows.take([r.prompt.startswith(("list", "poem")) for r in rows.requests])
    others = table_on_disk(tmp_path / "u.parquet", rows, output_tokens=None, censored=None)
    few = lists.take(np.arange(60))
    alone = distil(few, teacher=[teacher])
    more = distil(few, teacher=[teacher], unlabelled=str(others))
    again = distil(few, teacher=[teacher], unlabelled=str(others))
    assert (again.score(lists.requests) == more.score(lists.requests)).all()
    assert order(more) > order(alone) + 0.1


def test_its_intervals_are_those_of_the_calibration_rows(teacher: str) -> None:
    test = synthetic_rows(2000, 3)
    answer = distil(synthetic_rows(400, 0), teacher=[teacher]).predict(test.requests)
    found = scores(answer, test.truth, test.truth_censored, np.random.default_rng(0))
    assert 0.75 < found["coverage_80"] < 0.87


def test_without_a_teacher_it_says_what_to_add(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="--teacher DIR"):
        distil(synthetic_rows(100, 0))
    with pytest.raises(ArtifactError, match="nowhere"):
        distil(synthetic_rows(100, 0), teacher=[str(tmp_path / "nowhere")])


def test_unlabelled_prompts_must_be_prompts(teacher: str, tmp_path: Path) -> None:
    bare = table_on_disk(tmp_path / "u.parquet", prompt=None)
    with pytest.raises(DataError, match="no column 'prompt'"):
        distil(synthetic_rows(100, 0), teacher=[teacher], unlabelled=str(bare))


def test_the_command_takes_several_teachers(teacher: str, tmp_path: Path) -> None:
    table = table_on_disk(tmp_path / "t.parquet")
    recipe = tmp_path / "r.toml"
    recipe.write_text("".join(f"{name} = {value}\n" for name, value in QUICK.items()))
    code, _, err = lengthpred(
        *("train", "distilled", "--data", table, "--out", tmp_path / "d", "--recipe", recipe),
        *("--teacher", teacher, "--teacher", teacher, "--unlabelled", table),
    )
    assert code == 0, err
    assert isinstance(load(tmp_path / "d"), Distilled)
    code, _, err = lengthpred(
        "train", "boosted", "--data", table, "--out", tmp_path / "b", "--teacher", teacher
    )
    assert code == 2 and "--teacher is for distilled" in err
