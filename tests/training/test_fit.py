"""From a table to an artifact: seeds, calibration rows, and what the manifest records."""

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lengthpred import Request, load
from lengthpred.artifact import Card, load_storable, read_manifest
from lengthpred.data.table import Rows, Table
from lengthpred.errors import ArtifactError, DataError, SettingsError
from lengthpred.models.cascade import Cascade
from lengthpred.models.controls import fit_prompt_length
from lengthpred.models.histogram import Histogram
from lengthpred.training import boosted, detectors, fit, histogram
from lengthpred.training.settings import (
    AverageSettings,
    ConformalSettings,
    HistogramSettings,
    SqlmSettings,
)
from tests.builders import build, synthetic_rows
from tests.training.tables import QUICK, table_on_disk, write_recipe

Trained = Callable[..., Path]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return table_on_disk(tmp_path / "table.parquet")


@pytest.fixture
def trained(tmp_path: Path, table: Path) -> Trained:
    """Trains a kind on `table` into the folder `name`."""

    def train(kind: str, name: str, **options: object) -> Path:
        recipe = write_recipe(tmp_path / f"{kind}.toml", kind)
        given = {"recipe": recipe, "data": table, **options}
        fit.fit(kind, out=tmp_path / name, **given)  # type: ignore[arg-type]
        return tmp_path / name

    return train


def content(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_every_kind_is_trained_here_or_needs_a_model() -> None:
    # test_slm.py, test_slm_states.py and test_slm_prefill.py train these, …
    models = {"slm", "slm-prefill", "slm-states", "encoder"}
    # … and these are made of artifacts.
    assert fit.KINDS.keys() - QUICK.keys() == models | {"average", "conformal", "distilled"}


@pytest.mark.parametrize("kind", sorted(QUICK))
def test_the_same_seed_gives_the_same_bytes(kind: str, trained: Trained) -> None:
    first = content(trained(kind, "first"))
    assert len(first) >= (3 if kind != "sqlm" else 10)
    assert content(trained(kind, "second")) == first
    other = content(trained(kind, "other", seed=1))
    assert other["manifest.json"] != first["manifest.json"] and other.keys() == first.keys()


def test_no_group_is_on_both_sides(table: Path) -> None:
    rows, held = fit._halves(Table(table), None, 10_000, 0)
    assert not set(rows.groups.tolist()) & set(held.groups.tolist())
    assert len(rows) + len(held) == 400 and 30 <= len(held) <= 90
    again, other = (fit._halves(Table(table), None, 10_000, seed)[1] for seed in (0, 1))
    assert again.groups.tolist() == held.groups.tolist() != other.groups.tolist()


def test_no_content_is_on_both_sides(tmp_path: Path) -> None:
    """Exact repeats in groups of their own would be calibrated on what was learnt."""
    prompts = [f"ask {i % 100}" for i in range(400)]
    path = table_on_disk(tmp_path / "t.parquet", group=None, prompt=prompts, reply_tokens=None)
    for most in (400, 300):
        kept, held = fit._halves(Table(path), None, most, seed=0)
        sides = [{request.prompt for request in side.requests} for side in (kept, held)]
        assert len(held) and not sides[0] & sides[1]


def test_of_a_longer_table_the_same_groups_are_kept(table: Path) -> None:
    whole = set(fit._halves(Table(table), None, 10_000, 0)[1].groups.tolist())
    rows, held = fit._halves(Table(table), None, 150, 0)
    assert len(rows) + len(held) == 150
    assert set(held.groups.tolist()) <= whole and not set(rows.groups.tolist()) & whole


def test_a_stream_counts_what_memory_counts(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lengthpred.data.table.BATCH", 64)
    pieces: list[int] = []
    in_memory, streamed = (
        fit.train_kind(
            "histogram",
            Table(table),
            None,
            HistogramSettings(max_rows=max_rows),
            0,
            lambda step, done, total: pieces.append(done) if step == "counting lengths" else None,
        )
        for max_rows in (400, 100)
    )
    # In one piece, and in seven: the groups kept for calibration are counted in neither.
    assert pieces == [1, 1, 2, 3, 4, 5, 6, 7]
    assert isinstance(in_memory, Histogram) and isinstance(streamed, Histogram)
    left, right = in_memory.contents(), streamed.contents()
    assert left.config == right.config
    assert (left.arrays["cells"] == right.arrays["cells"]).all()
    training = fit._halves(Table(table), None, 400, 0)[0]
    assert left.arrays["cells"].sum(axis=(1, 2)).max() == len(training) < 400


def test_a_stream_names_models_that_a_sample_lacks(tmp_path: Path) -> None:
    any_model = Table(table_on_disk(tmp_path / "t.parquet"))
    sampled = {request.id for request in any_model.rows(100, 0).requests}
    left_out = next(i for i in range(400) if str(i) not in sampled)
    model = ["rare" if i == left_out else "often" for i in range(400)]
    table = Table(table_on_disk(tmp_path / "t.parquet", model=model))
    held = Table(table_on_disk(tmp_path / "held.parquet", model=["elsewhere"] * 400))
    assert "rare" not in {request.model for request in table.rows(100, 0).requests}
    trained = fit.train_kind("histogram", table, held, HistogramSettings(max_rows=100), 0)
    assert trained.card.models == ("often", "rare")


@pytest.mark.parametrize("kind", sorted(QUICK))
def test_the_manifest_says_what_it_was_trained_on(kind: str, trained: Trained, table: Path) -> None:
    manifest = read_manifest(trained(kind, "out"))
    assert manifest.fingerprint == Table(table).fingerprint
    assert manifest.models == ("model-a", "model-b")
    if kind == "detector":
        assert not manifest.metrics
    else:
        assert {"tau", "mae", "crps", "coverage_80"} <= manifest.metrics.keys()
        assert all(np.isfinite(value) for value in manifest.metrics.values())


@pytest.mark.parametrize("kind", ["boosted", "detector", "histogram"])
def test_a_calibration_table_is_all_that_calibrates(
    kind: str, trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = [f"held back {i}" for i in range(90)]
    held = table_on_disk(tmp_path / "held.parquet", synthetic_rows(90, 5), prompt=prompts)
    seen: list[tuple[Rows, Rows]] = []
    module = {"boosted": boosted, "detector": detectors, "histogram": histogram}[kind]
    real = module.train

    def watched(rows: Rows, calibration: Rows, *rest: object) -> object:
        seen.append((rows, calibration))
        return real(rows, calibration, *rest)

    monkeypatch.setattr(module, "train", watched)
    trained(kind, "out", calibration=held)
    rows, calibration = seen[0]
    assert len(rows) == 400
    assert [request.prompt for request in calibration.requests] == prompts


def test_calibration_rows_that_were_learnt_are_refused_or_left_out(
    table: Path, trained: Trained, tmp_path: Path
) -> None:
    copy = tmp_path / "copy.parquet"
    copy.write_bytes(table.read_bytes())
    with pytest.raises(DataError, match=r"copy\.parquet holds the very rows"):
        trained("histogram", "out", calibration=copy)
    prompts = [request.prompt for request in synthetic_rows(400).requests]
    few = synthetic_rows(90, 5)
    repeated = Table(table_on_disk(tmp_path / "all.parquet", few, prompt=prompts[:90]))
    with pytest.raises(DataError, match="all of its rows have the context and prompt"):
        fit._halves(Table(table), repeated, 400, 0)
    some = [*prompts[:30], *(f"held back {i}" for i in range(50)), *[""] * 10]
    held = Table(table_on_disk(tmp_path / "held.parquet", few, prompt=some))
    with pytest.warns(UserWarning, match="30 of 90 rows have the context and prompt"):
        kept = fit._halves(Table(table), held, 400, 0)[1]
    assert [request.prompt for request in kept.requests] == some[30:]
    # Of a longer table only a sample is at hand.
    assert len(fit._halves(Table(table), held, 399, 0)[1]) == 90
    # Prompts that were not recorded are not the same prompt.
    textless = Table(table_on_disk(tmp_path / "textless.parquet", prompt=[""] * 400))
    assert len(fit._halves(textless, held, 400, 0)[1]) == 90


def test_what_is_made_of_artifacts_names_their_models(tmp_path: Path, table: Path) -> None:
    for name, models in (("a", ("model-a", "old")), ("b", ("model-b",))):
        part = build("boosted")
        part.card = Card(models, name * 64, {})
        part.save(tmp_path / name)
    parts = [str(tmp_path / name) for name in "ab"]
    made = fit.train_kind("average", Table(table), None, AverageSettings(parts=parts), 0)
    assert made.card.models == ("model-a", "model-b", "old")
    # Its parts learnt from two tables, and from neither of them the rows that only judge.
    assert made.card.fingerprint == ""
    twice = AverageSettings(parts=[parts[0], parts[0]])
    assert fit.train_kind("average", Table(table), None, twice, 0).card.fingerprint == "a" * 64
    cards = []
    for warm in (True, False):
        settings = ConformalSettings(base=parts[0], warm=warm)
        cards.append(fit.train_kind("conformal", Table(table), None, settings, 0).card)
    assert cards[0].models == ("model-a", "old") and cards[0].fingerprint == "a" * 64
    # Judged as it answered before it had observed the very rows.
    assert cards[0].metrics == cards[1].metrics


def test_a_correction_by_rows_that_its_base_may_have_learnt_is_told(
    tmp_path: Path, table: Path
) -> None:
    base = build("boosted")
    base.card = Card((), Table(table).fingerprint, {})
    settings = ConformalSettings(base=str(base.save(tmp_path / "base")))
    with pytest.warns(UserWarning, match=r"the base was trained on .*table\.parquet"):
        fit.train_kind("conformal", Table(table), None, settings, 0)
    prompts = [f"held back {i}" for i in range(90)]
    rows = synthetic_rows(90, 5)
    held = Table(table_on_disk(tmp_path / "held.parquet", rows, prompt=prompts))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit.train_kind("conformal", Table(table), held, settings, 0)


def test_refused_for_too_little(tmp_path: Path, trained: Trained) -> None:
    single = table_on_disk(tmp_path / "single.parquet", group=["one"] * 400)
    with pytest.raises(DataError, match="too few groups"):
        trained("histogram", "out", data=single)
    few = table_on_disk(tmp_path / "few.parquet", synthetic_rows(16))
    for kind in ("boosted", "detector", "sqlm"):
        with pytest.raises(DataError, match="needs 20 rows"):
            trained(kind, "out", data=few)
    assert not (tmp_path / "out").exists()


def test_little_to_learn_from_is_told(tmp_path: Path, trained: Trained) -> None:
    held = table_on_disk(tmp_path / "held.parquet", synthetic_rows(60, 5), prompt=["rain"] * 60)
    for n in (49, 50):
        few = table_on_disk(tmp_path / "few.parquet", synthetic_rows(n))
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            trained("histogram", f"{n}", data=few, calibration=held)
        assert [str(one.message)[:33] for one in said] == ["there were 49 rows to train on: l"] * (
            n < 50
        )


def test_empty_prompts_are_told(tmp_path: Path, trained: Trained) -> None:
    held = table_on_disk(tmp_path / "held.parquet", synthetic_rows(60, 5), prompt=["rain"] * 60)
    empty = table_on_disk(tmp_path / "empty.parquet", prompt=[""] * 400, reply_tokens=None)
    for options in ({}, {"calibration": held}):
        with pytest.raises(DataError, match=r"empty\.parquet: all prompts are empty"):
            trained("boosted", "out", data=empty, **options)
    some = [r.prompt if i else "" for i, r in enumerate(synthetic_rows(400).requests)]
    table = table_on_disk(tmp_path / "some.parquet", prompt=some)
    with pytest.warns(UserWarning, match="1 of 400 rows to train on have an empty prompt"):
        trained("boosted", "out", data=table, calibration=held)
    # Of such rows it learns lengths all the same.
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trained("histogram", "other", data=table, calibration=held)


def test_what_can_be_refused_is_refused_before_any_work(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained("histogram", "out")
    before = content(tmp_path / "out")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").touch()

    def work(*arguments: object) -> None:
        raise AssertionError("it began to work")

    with monkeypatch.context() as patched:
        patched.setattr(fit, "train_kind", work)
        with pytest.raises(ArtifactError, match="exists already"):
            trained("histogram", "out")
        with pytest.raises(ArtifactError, match="is not an artifact, so --force does not"):
            trained("histogram", "notes", force=True)
        with pytest.raises(SettingsError, match="Did you mean 'histogram'"):
            fit.fit("histogramm", tmp_path / "table.parquet", tmp_path / "new")
        with pytest.raises(DataError, match="is not a file"):
            trained("histogram", "new", calibration=tmp_path / "absent.parquet")
    assert content(tmp_path / "out") == before
    trained("histogram", "out", force=True, seed=3)
    assert content(tmp_path / "out") != before


def test_what_needs_no_prompt_is_trained_without(tmp_path: Path, trained: Trained) -> None:
    """As from lengths that a server kept without texts: rows that look alike are not the same."""
    rows = synthetic_rows(200)
    none = {"prompt": [""] * 200, "context": [""] * 200, "group": None}
    table = table_on_disk(tmp_path / "n.parquet", rows, **none)
    assert len(set(Table(table).groups().tolist())) == 200
    made = load(trained("histogram", "h", data=table))
    assert made.predict([Request(model=rows.requests[0].model)]).mean()[0] > 1


def test_the_fallback_of_sqlm(tmp_path: Path, table: Path) -> None:
    made = build("prompt-length").save(tmp_path / "second")
    settings = SqlmSettings.model_validate({**QUICK["sqlm"], "fallback": str(made)})
    cascade = fit.train_kind("sqlm", Table(table), None, settings, 0)
    assert isinstance(cascade, Cascade) and cascade.alpha == 0.05
    assert isinstance(cascade.fallback, type(fit_prompt_length(synthetic_rows(50))))
    loaded = load(cascade.save(tmp_path / "sqlm"))
    asked = [Request(prompt="poem of snow"), Request(prompt="東京の天気はどうですか")]
    assert (loaded.predict(asked).pmf == cascade.predict(asked).pmf).all()
    assert load_storable(tmp_path / "sqlm" / "fallback").kind == "prompt-length"


@pytest.mark.parametrize("kind", ["knn", None])
def test_a_fallback_that_is_none_is_refused_before_any_work(
    kind: str | None, tmp_path: Path, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind is not None:
        build(kind).save(tmp_path / "second")
    monkeypatch.setattr(histogram, "train", None)
    settings = SqlmSettings(fallback=str(tmp_path / "second"))
    with pytest.raises(ArtifactError, match="second"):
        fit.train_kind("sqlm", Table(table), None, settings, 0)
