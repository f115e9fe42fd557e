"""Many recipes on the same rows: what is shared, what is left out, and what a failure costs."""

import sys
from pathlib import Path

import numpy as np
import pytest

from lengthpred import load
from lengthpred.data.table import Table
from lengthpred.errors import DataError, SettingsError
from lengthpred.metrics import tau
from lengthpred.models.encoder import numbers
from lengthpred.training.encoder_loop import STEP
from lengthpred.training.encoder_session import Reading, Session
from lengthpred.training.settings import EncoderSettings
from lengthpred.training.zoo import _check_time, read_recipes, train_all
from lengthpred.training.zoo_data import make_parts
from tests.builders import synthetic_rows
from tests.tiny_encoders import reader, torch_encoder
from tests.training.tables import table_on_disk, write_recipe


@pytest.fixture
def table(tmp_path: Path) -> Table:
    return Table(table_on_disk(tmp_path / "t.parquet"))


def quick(folder: Path, *kinds: str) -> list[str]:
    folder.mkdir(exist_ok=True)
    files = []
    for kind in kinds:
        path = write_recipe(folder / f"my-{kind}.toml", kind)
        path.write_text(f'kind = "{kind}"\n' + path.read_text())
        files.append(str(path))
    return files


def test_one_that_fails_does_not_lose_the_others(
    table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    files = quick(tmp_path / "r", "boosted", "histogram", "ranker")
    bad = tmp_path / "r" / "bad.toml"
    bad.write_text('kind = "conformal"\nbase = "/nowhere/at-all"\n')
    plan = read_recipes([str(bad), *files, "distilled", "encoder"])
    told: list[str] = []
    done, left_out = train_all(
        plan, table, None, tmp_path / "out", on_progress=lambda step, *_: told.append(step)
    )
    assert [one.recipe.name for one in done] == ["my-boosted", "my-histogram", "my-ranker"]
    assert [one.name for one in left_out] == ["bad", "encoder", "distilled"]
    assert "/nowhere/at-all" in left_out[0].why and "'encoder', was not trained" in left_out[2].why
    assert any(step.startswith("my-boosted: ") for step in told)
    requests = synthetic_rows(20, 3).requests
    for one in done:
        loaded = load(tmp_path / "out" / one.recipe.name)
        assert (loaded.predict(requests).pmf == one.artifact.predict(requests).pmf).all()  # type: ignore[attr-defined]
        assert one.seconds > 0 and not one.cut


def test_what_learns_from_another_needs_one(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="'distilled' learns from another: add the recipe 'enc"):
        read_recipes(["distilled", "qlm"])
    (tmp_path / "taught.toml").write_text('kind = "distilled"\nteacher = ["/some/where"]\n')
    assert len(read_recipes([str(tmp_path / "taught.toml")])) == 1


def test_a_defect_in_one_is_told_apart(
    table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lengthpred.training import ranker

    monkeypatch.setattr(ranker, "deal", lambda n, queue, rng: 1 / 0)
    plan = read_recipes(quick(tmp_path / "r", "ranker", "histogram"))
    done, left_out = train_all(plan, table, None, tmp_path / "out")
    assert [one.recipe.name for one in done] == ["my-histogram"] and left_out[0].defect
    assert left_out[0].why == "a defect in lengthpred: ZeroDivisionError: division by zero"


def test_without_torch_encoders_are_left_out_with_the_command(
    table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    done, left_out = train_all(read_recipes(["qlm", "s3", "ltr"]), table, None, tmp_path / "out")
    assert [one.recipe.name for one in done] == ["qlm"]
    assert [one.name for one in left_out] == ["s3", "ltr"]
    assert all("pip install 'lengthpred[train,torch]'" in one.why for one in left_out)
    assert left_out[0].why == left_out[1].why


def test_nothing_is_begun_when_the_time_is_up(table: Table, tmp_path: Path) -> None:
    plan = read_recipes(["qlm", "boosted"])
    done, left_out = train_all(plan, table, None, tmp_path / "out", budget_s=1e-9)
    assert not done and not (tmp_path / "out").exists()
    assert {one.why for one in left_out} == {"the time budget was used up"}


def test_what_took_long_is_not_begun_with_little_left() -> None:
    import time

    now = time.monotonic()
    _check_time("encoder", now + 30, {"encoder": 100.0})
    _check_time("encoder", now + 1, {"boosted": 100.0})
    _check_time("encoder", None, {"encoder": 100.0})
    with pytest.raises(SettingsError, match="one of its kind took 100 s"):
        _check_time("encoder", now + 20, {"encoder": 100.0})


def test_parts_share_no_group_and_the_same_seed_gives_the_same(
    table: Table, tmp_path: Path
) -> None:
    parts = make_parts(table, None, tmp_path / "a", max_rows=200, seed=1)
    assert parts.calibration is not None
    each = (parts.train, parts.calibration, parts.test)
    groups = [
        {group for batch in part.batches(["group"]) for group in batch["group"].to_pylist()}
        for part in each
    ]
    assert sum(map(len, groups)) == len(set.union(*groups))
    rows = sum(map(len, each))
    assert 190 <= rows <= 200
    assert rows == 2 * len(set.union(*groups))  # whole groups, of two rows each
    again = make_parts(table, None, tmp_path / "b", max_rows=200, seed=1)
    other = make_parts(table, None, tmp_path / "c", max_rows=200, seed=2)
    assert again.test.fingerprint == parts.test.fingerprint != other.test.fingerprint
    with pytest.raises(DataError, match="--force"):
        make_parts(table, None, tmp_path / "a", seed=1)


def test_a_test_table_of_its_own_leaves_all_rows_for_training(table: Table, tmp_path: Path) -> None:
    test = Table(table_on_disk(tmp_path / "test.parquet", synthetic_rows(50, 3)))
    parts = make_parts(table, test, tmp_path / "a")
    assert parts.train is table and parts.calibration is None and parts.test is test
    few = make_parts(table, test, tmp_path / "a", max_rows=100)
    assert len(few.train) == 100 and few.test is test
    with pytest.raises(DataError, match="--force"):
        make_parts(table, test, tmp_path / "a", max_rows=100)
    again = make_parts(table, test, tmp_path / "a", max_rows=100, force=True)
    with pytest.raises(DataError, match="is an input"):
        make_parts(Table(again.train.path), test, tmp_path / "a", max_rows=50, force=True)
    parts.discard()
    assert table.path.exists() and (tmp_path / "a" / "train.parquet").exists()
    again.discard()
    assert table.path.exists() and test.path.exists() and not (tmp_path / "a").exists()
    with pytest.raises(DataError, match="allow more rows"):
        make_parts(table, test, tmp_path / "b", max_rows=1)


def test_parts_that_tell_nothing_are_refused(tmp_path: Path) -> None:
    small = Table(table_on_disk(tmp_path / "t.parquet", synthetic_rows(100)))
    with pytest.raises(DataError, match="12 would be for calibration and 18 for the test"):
        make_parts(small, None, tmp_path / "a")
    assert not (tmp_path / "a").exists()
    few = Table(table_on_disk(tmp_path / "few.parquet", synthetic_rows(19)))
    with pytest.raises(DataError, match="has 19 rows, and a comparison needs 20"):
        make_parts(small, few, tmp_path / "a")


def test_a_large_group_does_not_empty_the_sample(tmp_path: Path) -> None:
    groups = ["large"] * 250 + [f"talk {i // 2}" for i in range(150)]
    table = Table(table_on_disk(tmp_path / "t.parquet", group=groups))
    test = Table(table_on_disk(tmp_path / "test.parquet", synthetic_rows(50, 3)))
    for seed in range(6):
        parts = make_parts(table, test, tmp_path / f"{seed}", max_rows=100, seed=seed)
        assert len(parts.train) == 100
    whole = Table(table_on_disk(tmp_path / "one.parquet", group=["large"] * 400))
    with pytest.raises(DataError, match="no group has 100 rows or fewer"):
        make_parts(whole, test, tmp_path / "none", max_rows=100)


@pytest.mark.slow
def test_what_was_learned_before_the_time_was_up_counts(tmp_path: Path) -> None:
    from lengthpred.training.encoder import train

    session = Session(Reading())

    def told(step: str, done: int, total: int) -> None:
        if step == STEP and done == 120:
            session.until = 0.0

    settings = EncoderSettings(
        encoder=str(torch_encoder(tmp_path / "tiny")),
        tokens=32,
        context_tokens=0,
        learning_rate=3e-3,
        head_learning_rate=3e-3,
        int8=False,
        epochs=4,
        checks=1,
    )
    rng = np.random.default_rng(0)
    rows, held, test = (synthetic_rows(n, seed) for n, seed in ((5000, 1), (500, 2), (500, 3)))
    made = train(rows, held, settings, rng, told, session=session)
    assert session.cut
    # Before the first of its checks: the weights that training began with order nothing.
    assert tau(made.predict(test.requests).median(), test.truth) > 0.3


def test_encoders_that_read_alike_share_what_was_read() -> None:
    rows, read = synthetic_rows(60), Reading()
    half = rows.take(np.arange(30))
    first, again = read.ids(reader(), half.requests), read.ids(reader(), rows.requests)
    assert all(a is b for a, b in zip(first, again, strict=False))
    for mine, theirs in zip(again, reader().ids(rows.requests), strict=True):
        assert (mine == theirs).all()
    shorter = read.ids(reader(tokens=8), rows.requests)
    assert max(map(len, shorter)) == 8 < max(map(len, again))
    assert (read.numbers(half.requests) == numbers(half.requests)).all()
    assert (read.numbers(rows.requests) == numbers(rows.requests)).all()
