"""Learning what a small model's lengths mean: pairs of them, few of them, stopped ones."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lengthpred import load
from lengthpred.artifact import read_manifest
from lengthpred.base import IntArray
from lengthpred.data.table import Rows
from lengthpred.errors import BackendError, SettingsError
from lengthpred.metrics import pit, tau
from lengthpred.models.length_map import ALL_MODELS, apply_maps
from lengthpred.models.slm import GenerateAndCount
from lengthpred.training import slm
from lengthpred.training.fit import fit
from lengthpred.training.settings import SlmSettings
from tests.builders import synthetic_rows
from tests.small_models import numbered, small_lengths
from tests.training.tables import table_on_disk

RNG = np.random.default_rng


def uncensored(n: int, seed: int = 0) -> Rows:
    rows = synthetic_rows(n, seed)
    return replace(rows, censored=np.zeros(n, bool))


def related(n: int, seed: int, noise: float = 0.3) -> tuple[Rows, IntArray]:
    """Rows whose length is 3 * small ** 0.8, give or take the noise, and the small lengths."""
    rng = RNG(seed)
    small = np.rint(np.exp(rng.uniform(1, 6, n))).astype(np.int64)
    lengths = np.rint(3 * small**0.8 * rng.lognormal(0, noise, n)).astype(np.int64)
    return replace(uncensored(n, seed), lengths=lengths), small[:, None]


def ended(lengths: Any) -> Any:
    return np.zeros(lengths.shape, bool)


def test_recovers_a_known_relation() -> None:
    rows, small = related(1500, 0)
    maps = slm.fit_maps(rows, small, ended(small))
    asked = np.array([[5], [30], [200]])
    requests = rows.requests[:3]
    found = apply_maps(maps, requests, asked, ended(asked))
    assert found.median() == pytest.approx(3 * asked[:, 0] ** 0.8, rel=0.25)


def test_intervals_hold_what_they_promise() -> None:
    rows, small = related(1500, 0, 0.8)
    maps = slm.fit_maps(rows, small, ended(small))
    tested, lengths = related(1500, 1, 0.8)
    answer = apply_maps(maps, tested.requests, lengths, ended(lengths))
    assert tau(answer.median(), tested.truth) > 0.6
    place = pit(answer, tested.truth, tested.censored, RNG(2).random(1500))
    assert 0.76 < ((place > 0.1) & (place < 0.9)).mean() < 0.86


def test_lengths_that_say_nothing_move_nothing() -> None:
    rows = uncensored(800)
    small = RNG(1).integers(1, 500, (800, 1))
    one = slm.fit_map(rows, small, ended(small))
    ends = one(np.array([[1], [499]]), ended(np.zeros((2, 1))), np.full(2, np.log1p(60)))
    assert abs(np.diff(np.log(ends.median()))) < 0.5


def test_lengths_that_say_the_opposite_are_left_out() -> None:
    rows, small = related(400, 0)
    one = slm.fit_map(rows, small.max() - small, ended(small))
    assert one.weights[0] == 0


def test_stopped_truths_count_as_at_least_that() -> None:
    rows, small = related(2000, 0)
    limit = 120
    stopped = rows.lengths > limit
    cut = replace(rows, lengths=np.minimum(rows.lengths, limit), censored=stopped)
    honest = slm.fit_map(cut, small, ended(small))
    naive = slm.fit_map(replace(cut, censored=ended(stopped)), small, ended(small))
    asked = np.array([[80]])  # whose answers are 100 tokens long in the middle: a third is cut
    prompts = np.log1p(np.array([60.0]))
    share = [float(one(asked, ended(asked), prompts).cdf(limit - 1)[0]) for one in (honest, naive)]
    truth = float((3 * 80**0.8 * RNG(3).lognormal(0, 0.3, 10_000) < limit).mean())
    assert share[0] == pytest.approx(truth, abs=0.1)
    high = [one(asked, ended(asked), prompts).quantile(0.9)[0] for one in (honest, naive)]
    assert high[0] >= limit - 1 and high[0] >= high[1]


def test_stopped_samples_are_no_lengths() -> None:
    rows, small = related(1500, 0)
    cap = 100
    cut, stopped = np.minimum(small, cap), small > cap
    one = slm.fit_map(rows, cut, stopped)
    asked = np.array([[cap], [cap]])
    found = one(asked, np.array([[False], [True]]), np.full(2, np.log1p(60))).median()
    beyond = np.median(rows.lengths[stopped[:, 0]])
    assert found[1] > 1.4 * found[0] and found[1] == pytest.approx(beyond, rel=0.35)


def test_a_map_for_each_model_that_has_pairs_enough() -> None:
    rows, small = related(200, 0)
    names = ["often"] * 120 + ["seldom"] * 30 + [""] * 50
    named = [replace(r, model=name) for r, name in zip(rows.requests, names, strict=True)]
    lengths = np.where(np.arange(200) < 120, 4, 1) * rows.lengths
    rows = replace(rows, requests=named, lengths=lengths)
    maps = slm.fit_maps(rows, small, ended(small))
    assert maps.keys() == {"often", ALL_MODELS}
    asked = np.full((2, 1), 50)
    often, other = apply_maps(maps, [named[0], named[130]], asked, ended(asked)).median()
    assert often > 1.3 * other


def test_few_pairs_warn_and_none_are_the_identity() -> None:
    rows, small = related(49, 0)
    with pytest.warns(UserWarning, match="only 49 pairs"):
        maps = slm.fit_maps(rows, small, ended(small))
    assert maps.keys() == {ALL_MODELS}
    nothing = np.zeros((49, 1), np.int64)
    with pytest.warns(UserWarning, match="there are 0 pairs .* needs 20: .* length is taken"):
        assert slm.fit_maps(rows, nothing, ~ended(nothing)) == {}
    silent = small.copy()
    silent[19:], stopped = 0, np.arange(49)[:, None] >= 19
    with pytest.warns(UserWarning, match="there are 19 pairs"):
        assert slm.fit_maps(rows, silent, stopped) == {}


def samples(folder: Path, rows: Rows, name: str = "samples.parquet") -> Path:
    lengths = small_lengths(rows)
    return table_on_disk(
        folder / name, rows, output_tokens=lengths.tolist(), censored=None, model=["s"] * len(rows)
    )


def settings(path: Path, **more: Any) -> SlmSettings:
    return SlmSettings.model_validate({"backend": "recorded", "samples": str(path), **more})


def test_trained_on_recorded_samples(tmp_path: Path) -> None:
    rows = numbered(uncensored(400))
    given = settings(samples(tmp_path, rows), n=3, cap=700, pairs=150)
    steps: list[tuple[str, int, int]] = []
    made = slm.train(rows, rows, given, RNG(0), lambda *step: steps.append(step))
    assert steps == [("asking the small model", done, 150) for done in (0, 64, 128)]
    assert len(made.source.checksum) == 64
    assert (made.generation.n, made.generation.cap) == (3, 700)
    answer = made.predict(rows.requests)
    assert tau(answer.median(), rows.truth) > 0.7  # the small model knows a lot here
    found = [slm.train(rows, rows, given, RNG(seed)).predict(rows.requests).pmf for seed in (0, 1)]
    assert (found[0] == answer.pmf).all() and (found[1] != answer.pmf).any()


def test_prompts_that_no_sample_answers(tmp_path: Path) -> None:
    rows = numbered(uncensored(60))
    path = samples(tmp_path, numbered(uncensored(60), 1000))
    strangers = numbered(rows, 5000)
    with pytest.warns(UserWarning, match="there are 0 pairs"):
        made = slm.train(strangers, strangers, settings(path), RNG(0))
    assert made.maps == {}
    known, unknown = made.predict([rows.requests[7], strangers.requests[7]])[[0, 1]].median()
    assert unknown == pytest.approx(200, rel=0.2) != known
    empty = rows.take([])
    with pytest.warns(UserWarning, match="there are 0 pairs"):
        assert slm.train(empty, empty, settings(path), RNG(0)).maps == {}


def test_a_source_that_is_not_there(tmp_path: Path) -> None:
    rows = uncensored(60)
    with pytest.raises(BackendError, match="cannot be read"):
        slm.train(rows, rows, settings(tmp_path / "no.parquet"), RNG(0))
    with pytest.raises(SettingsError, match="'recorded' needs 'samples'"):
        slm.train(rows, rows, SlmSettings(backend="recorded"), RNG(0))


def test_by_the_command_twice_the_same_bytes(tmp_path: Path) -> None:
    rows = uncensored(400)
    data = table_on_disk(tmp_path / "t.parquet", rows)
    recipe = tmp_path / "r.toml"
    recipe.write_text(f'backend = "recorded"\nsamples = "{samples(tmp_path, rows)}"\nn = 2\n')
    for name in ("first", "second"):
        fit("slm", data, tmp_path / name, recipe=recipe)
    files = [path.name for path in (tmp_path / "first").iterdir()]
    assert {"manifest.json", "config.json", "arrays.safetensors"} == set(files)
    for name in files:
        first, second = (tmp_path / side / name for side in ("first", "second"))
        assert first.read_bytes() == second.read_bytes()
    manifest = read_manifest(tmp_path / "first")
    assert manifest.models == ("model-a", "model-b")
    assert manifest.metrics["tau"] > 0.7 and 0.6 < manifest.metrics["coverage_80"] < 1
    assert isinstance(load(tmp_path / "first"), GenerateAndCount)
