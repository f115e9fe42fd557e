"""Slices: which there are, and that their scores are those of their rows alone."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from lengthpred.base import Request
from lengthpred.data.table import Rows
from lengthpred.eval.compare import compare
from lengthpred.eval.slices import SLICE_METRICS, is_slice, make_slices
from tests.eval.cases import make_rows


def named(rows: Rows, **columns: Sequence[str | None]) -> Rows:
    text = {name: np.array(values, object) for name, values in columns.items()}
    return replace(rows, columns={**rows.columns, **text})


def test_a_slice_holds_the_rows_of_its_name() -> None:
    rows = named(make_rows(100), domain=["law"] * 40 + ["code"] * 31 + ["few"] * 29)
    found = {mix.split: mix.picked.tolist() for mix in make_slices(rows)}
    assert found["domain=law"] == list(range(40))
    assert found["domain=code"] == list(range(40, 71))
    assert found["model=model-0"] == list(range(0, 100, 2))
    assert "domain=few" not in found
    assert not any(split.startswith("language=") for split in found)
    assert [*found][:2] == ["domain=law", "domain=code"]


def test_prompts_fall_into_bins_of_tokens() -> None:
    tokens = [31, 32, 127, 128, 511, 512, 2047, 2048]
    counted = [Request(prompt="x", prompt_tokens=n) for n in tokens]
    guessed = [Request(prompt="x" * 4 * n) for n in tokens]
    for requests in (counted, guessed):
        rows = replace(make_rows(8 * 30), requests=requests * 30)
        found = {mix.split: set(mix.picked % 8) for mix in make_slices(rows)}
        wanted = {
            "prompt_tokens=<32": {0},
            "prompt_tokens=32-127": {1, 2},
            "prompt_tokens=128-511": {3, 4},
            "prompt_tokens=512-2047": {5, 6},
            "prompt_tokens=>=2048": {7},
        }
        assert list(found.items()) == list(wanted.items())


def test_one_value_is_no_slice_except_a_domain_and_no_name_is_none() -> None:
    rows = named(make_rows(80), domain=["law"] * 80, language=["en"] * 40 + [""] * 40)
    splits = [mix.split for mix in make_slices(rows)]
    assert "domain=law" in splits and "language=en" not in splits
    assert all(is_slice(split) for split in splits) and not is_slice("in")


def test_an_absent_name_is_none_and_zero_characters_are_letters() -> None:
    names = ["law\0"] * 40 + ["law"] * 35 + [None] * 45
    rows = named(make_rows(120), domain=names, language=[None] * 120)
    found = {mix.split: mix.picked.tolist() for mix in make_slices(rows)}
    assert found["domain=law\0"] == list(range(40))
    assert found["domain=law"] == list(range(40, 75))
    assert sum(split.startswith(("domain=", "language=")) for split in found) == 2


def test_a_key_has_its_twenty_largest() -> None:
    sizes = range(30, 55)
    rows = make_rows(sum(sizes))
    rows = named(rows, domain=[f"d{size}" for size in sizes for _ in range(size)])
    domains = [mix for mix in make_slices(rows) if mix.split.startswith("domain=")]
    assert [len(mix.picked) for mix in domains] == list(range(54, 34, -1))


def test_the_scores_are_those_of_the_rows_alone() -> None:
    rows = named(make_rows(150, samples=3), domain=["law"] * 60 + ["code"] * 90)
    given = {"train_rows": rows, "resamples": 20, "cost": False}
    law = rows.take(np.arange(60))
    law = replace(law, columns={**law.columns, "ood": np.zeros(60, bool)})
    whole, alone = compare({}, rows, **given), compare({}, law, **given)  # type: ignore[arg-type]
    wanted = {
        (r.predictor, r.metric): (r.value, r.n)
        for r in alone.results
        if r.split == "all" and r.metric in SLICE_METRICS
    }
    assert {predictor for predictor, _ in wanted} >= {"ceiling", "ceiling-median", "oracle"}
    found = {
        (r.predictor, r.metric): (r.value, r.n)
        for r in whole.results
        if r.split == "domain=law" and r.ood_ratio is None
    }
    # The truth's random place within its mass is drawn row by row, so the first rows' are equal.
    assert found.keys() == wanted.keys()
    for key, score in wanted.items():
        assert found[key] == pytest.approx(score), key
