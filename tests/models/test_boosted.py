"""The boosted predictor: what it answers, and what it refuses to load."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lengthpred import Request, load, metrics
from lengthpred.artifact import Contents
from lengthpred.errors import ArtifactError
from lengthpred.models.boosted import Boosted
from tests.builders import build, synthetic_rows


def boosted() -> Boosted:
    built = build("boosted")
    assert isinstance(built, Boosted)
    return built


def contents() -> Contents:
    return boosted().contents()


def test_a_request_without_text_gets_the_prior() -> None:
    arrays = contents().arrays
    opening, following = Request(model="model-a"), Request(reply_tokens=(3,), context="x")
    answer = boosted().predict([opening, Request(prompt="list of 5"), following])
    assert answer.pmf[0].tolist() == arrays["opening_prior"].tolist()
    assert answer.pmf[2].tolist() == arrays["following_prior"].tolist()
    assert np.isnan(boosted().score([opening, following])).all()


def test_scores_follow_what_can_be_learnt() -> None:
    rows = synthetic_rows(600, 9)
    answer = boosted().predict(rows.requests)
    assert metrics.tau(boosted().score(rows.requests), rows.truth) > 0.5
    assert metrics.tau(answer.median(), rows.truth) > 0.5
    asked = [Request(prompt=f"{topic} of rivers and snow") for topic in ("sum", "poem", "code")]
    assert np.all(np.diff(boosted().predict(asked).median()) > 0)


def test_openings_and_later_turns_have_tables_of_their_own() -> None:
    given = contents()
    given.arrays["following_pmf"] = np.eye(given.grid.bins, dtype=np.float32)[
        np.full(len(given.arrays["following_knots"]), 7)
    ]
    changed = Boosted.from_contents(given)
    first, later = Request(prompt="code of snow"), Request(prompt="poem", reply_tokens=(9,))
    mixed = changed.predict([first, later, first])
    assert mixed.pmf[1].argmax() == 7 and mixed.pmf[1].max() == 1
    assert (mixed.pmf[[0, 2]] == boosted().predict([first, first]).pmf).all()
    assert (changed.predict([later]).pmf == mixed.pmf[1:2]).all()


def test_a_model_that_was_never_seen_counts_as_the_mean() -> None:
    assert set(contents().config["levels"]) == {"model-a", "model-b"}
    named, nameless = Request(prompt="poem of snow", model="new"), Request(prompt="poem of snow")
    assert (boosted().predict([named]).pmf == boosted().predict([nameless]).pmf).all()


def test_no_requests() -> None:
    assert len(boosted().predict([])) == 0 and boosted().score([]).shape == (0,)


@pytest.mark.parametrize(
    ("text", "said"),
    [("", "cannot be parsed"), ("tree\nversion=v4\nnum_class=one", "cannot be parsed")],
)
def test_a_booster_that_is_none(text: str, said: str) -> None:
    given = contents()
    given.files["booster.txt"] = text.encode()
    with pytest.raises(ValueError, match=said):
        Boosted.from_contents(given)


def test_a_booster_on_other_features(tmp_path: Path) -> None:
    import lightgbm

    rng = np.random.default_rng(0)
    other = lightgbm.train(
        {"verbose": -1}, lightgbm.Dataset(rng.random((50, 3)), rng.random(50)), 2
    ).model_to_string()
    with pytest.raises(ValueError, match="reads 3 features"):
        Boosted.from_contents(replace(contents(), files={"booster.txt": other.encode()}))

    class Wrong(Boosted):
        def contents(self) -> Contents:
            return replace(super().contents(), files={"booster.txt": other.encode()})

    built = contents()
    parts = boosted()
    folder = Wrong(
        built.files["booster.txt"].decode(),
        built.arrays["weights"],
        built.config["levels"],
        parts._opening,
        parts._following,
    ).save(tmp_path / "wrong")
    assert json.loads((folder / "manifest.json").read_text())["kind"] == "boosted"
    with pytest.raises(ArtifactError, match="does not hold a usable boosted"):
        load(folder)


def test_a_table_that_is_missing_is_refused() -> None:
    given = contents()
    del given.arrays["following_pmf"]
    with pytest.raises(KeyError, match="following_pmf"):
        Boosted.from_contents(given)
