"""Fitting the head: shrinkage, out-of-fold scores, levels, stopped answers."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lengthpred import load
from lengthpred.artifact import read_manifest
from lengthpred.base import FloatArray
from lengthpred.data.table import Rows
from lengthpred.errors import BackendError, DataError
from lengthpred.metrics import pit, tau
from lengthpred.models import slm_prefill as model
from lengthpred.models.backends.base import Source
from lengthpred.models.slm_prefill import Prefill
from lengthpred.training import slm_prefill
from lengthpred.training.fit import fit
from lengthpred.training.settings import SlmPrefillSettings
from tests.builders import synthetic_rows
from tests.small_models import Reader, recorded_samples
from tests.training.tables import table_on_disk

RNG = np.random.default_rng
SOURCE = Source("transformers", model="small")


@pytest.fixture(autouse=True)
def no_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another reader in place of the one that needs a real model."""
    for module in (model, slm_prefill):
        monkeypatch.setattr(module, "open_backend", Reader)


def settings(**more: Any) -> SlmPrefillSettings:
    return SlmPrefillSettings.model_validate({"backend": "transformers", "model": "small"} | more)


def related(n: int, width: int, seed: int, signal: float = 1.0) -> tuple[Rows, FloatArray]:
    """Rows whose log length is in part that of the first of `width` features."""
    rng = RNG(seed)
    table = rng.normal(size=(n, width))
    lengths = np.rint(np.exp(4.5 + signal * table[:, 0] + rng.normal(0, 0.7, n))).astype(np.int64)
    return replace(synthetic_rows(n, seed), lengths=lengths, censored=np.zeros(n, bool)), table


def answer(head: Prefill, table: FloatArray) -> Any:
    return head.table(table @ head.weights + head.bias)


def test_finds_what_tells_the_length() -> None:
    rows, table = related(600, 40, 0)
    head = slm_prefill.fit_head(SOURCE, table, rows, 5, RNG(0))
    assert np.abs(head.weights[0]) > 4 * np.abs(head.weights[1:]).max()
    tested, other = related(600, 40, 1)
    assert tau(answer(head, other).median(), tested.truth) > 0.45


@pytest.mark.parametrize("signal", [0.0, 1.0])
def test_intervals_from_fifty_rows_of_many_features(signal: float) -> None:
    covered, order = [], []
    for seed in range(12):
        rows, table = related(50, 300, seed, signal)
        head = slm_prefill.fit_head(SOURCE, table, rows, 5, RNG(0))
        tested, other = related(400, 300, seed + 100, signal)
        found = answer(head, other)
        place = pit(found, tested.truth, tested.censored, RNG(2).random(400))
        covered.append(((place > 0.1) & (place < 0.9)).mean())
        order.append(tau(found.median(), tested.truth))
    assert 0.72 < np.mean(covered) < 0.86
    assert np.mean(order) > 0.05 if signal else abs(np.mean(order)) < 0.05


def test_scores_to_calibrate_on_come_from_other_groups() -> None:
    """Rows of one group are alike: a head that saw one of them knows the others."""
    rng = RNG(0)
    groups = np.repeat(np.arange(60), 5)
    table = rng.normal(size=(60, 200))[groups] + 0.01 * rng.normal(size=(300, 200))
    targets = rng.normal(size=60)[groups]
    by_group = slm_prefill.fit_ridge(table, targets - targets.mean(), groups % 5)[2]
    by_row = slm_prefill.fit_ridge(table, targets - targets.mean(), np.arange(300) % 5)[2]
    assert abs(tau(by_group, targets)) < 0.15 and tau(by_row, targets) > 0.7
    fold = slm_prefill._folds(groups, 5, RNG(1))
    assert len(set(fold.tolist())) == 5
    assert all(len(set(fold[groups == g].tolist())) == 1 for g in range(60))
    single = slm_prefill._folds(np.zeros(40, np.int64), 5, RNG(1))
    assert len(set(single.tolist())) == 5


def test_a_feature_that_never_changed_says_nothing_later() -> None:
    rows, table = related(100, 10, 0)
    table[:, 3] = 7.25
    head = slm_prefill.fit_head(SOURCE, table, rows, 5, RNG(0))
    assert head.weights[3] == 0
    assert np.isfinite(head.weights).all()


def test_stopped_answers_count_as_at_least_that() -> None:
    rows, table = related(1500, 5, 0)
    limits = RNG(1).choice([48, 96, 10**6], 1500)  # a third is never stopped
    stopped = rows.lengths > limits
    cut = replace(rows, lengths=np.minimum(rows.lengths, limits), censored=stopped)
    naive = replace(cut, censored=np.zeros(1500, bool))
    tested, other = related(800, 5, 1)
    honest, short = (
        answer(slm_prefill.fit_head(SOURCE, table, r, 5, RNG(0)), other).cdf(200).mean()
        for r in (cut, naive)
    )
    truth = float((tested.truth <= 200).mean())
    assert honest == pytest.approx(truth, abs=0.06) and short > truth + 0.1


def test_a_model_that_writes_more_gets_a_level() -> None:
    rows, table = related(400, 10, 0)
    names = ["terse", "wordy"] * 200
    factor = np.where(np.arange(400) % 2, 5, 1)
    named = [replace(r, model=name) for r, name in zip(rows.requests, names, strict=True)]
    rows = replace(rows, requests=named, lengths=rows.lengths * factor)
    head = slm_prefill.fit_head(SOURCE, table, rows, 5, RNG(0))
    assert head.levels["wordy"] > 0.1 > -0.1 > head.levels["terse"]
    # A level from few rows is shrunk.
    few = replace(rows, requests=[replace(r, model="") for r in named[:-1]] + [named[-1]])
    levels = slm_prefill.fit_head(SOURCE, table, few, 5, RNG(0)).levels
    assert levels.keys() == {"wordy"} and abs(levels["wordy"]) < 0.05


def test_trained_from_rows() -> None:
    rows = synthetic_rows(300)
    steps: list[tuple[str, int, int]] = []
    made = slm_prefill.train(rows, rows, settings(pairs=100), RNG(0), lambda *s: steps.append(s))
    assert steps == [("reading prompts with the small model", done, 100) for done in (0, 64)]
    assert made.source == Source("transformers", "small", batch=8, checksum="abc")
    asked = synthetic_rows(200, 1)
    assert tau(made.predict(asked.requests).median(), asked.truth) > 0.5


def test_too_few_rows() -> None:
    rows = synthetic_rows(49)
    with pytest.warns(UserWarning, match="only 49 rows"):
        slm_prefill.train(rows, rows, settings(), RNG(0))
    for few in (rows.take(np.arange(19)), rows.take([])):
        with pytest.raises(DataError, match=f"needs 20 rows with a prompt; there are {len(few)}"):
            slm_prefill.train(few, few, settings(), RNG(0))
    blank = replace(rows, requests=[replace(r, prompt=" ") for r in rows.requests])
    with pytest.raises(DataError, match="there are 0"):
        slm_prefill.train(blank, blank, settings(), RNG(0))


def test_a_backend_that_cannot_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    rows = synthetic_rows(60)
    given = settings(backend="recorded", samples=str(recorded_samples()))
    with pytest.raises(BackendError, match="'recorded' does not show"):
        slm_prefill.train(rows, rows, given, RNG(0))


def test_by_the_command_twice_the_same_bytes(tmp_path: Path) -> None:
    data = table_on_disk(tmp_path / "t.parquet", synthetic_rows(300))
    recipe = tmp_path / "r.toml"
    recipe.write_text('backend = "transformers"\nmodel = "small"\n')
    for name in ("first", "second"):
        fit("slm-prefill", data, tmp_path / name, recipe=recipe)
    for path in (tmp_path / "first").iterdir():
        assert path.read_bytes() == (tmp_path / "second" / path.name).read_bytes()
    manifest = read_manifest(tmp_path / "first")
    assert manifest.metrics["tau"] > 0.4 and 0.6 < manifest.metrics["coverage_80"] < 0.95
    assert isinstance(load(tmp_path / "first"), Prefill)
