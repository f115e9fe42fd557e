"""The ranker: what is the boosted predictor's holds, and its scores rise with the length."""

from pathlib import Path

import lightgbm
import numpy as np
import pytest

from lengthpred import Request, load, metrics
from lengthpred.models.boosted import Boosted
from lengthpred.models.ranker import Ranker
from tests.builders import build, synthetic_rows


def ranker() -> Ranker:
    built = build("ranker")
    assert isinstance(built, Ranker)
    return built


def test_scores_follow_what_can_be_learnt() -> None:
    rows = synthetic_rows(600, 9)
    assert metrics.tau(ranker().score(rows.requests), rows.truth) > 0.5
    assert metrics.tau(ranker().predict(rows.requests).median(), rows.truth) > 0.5
    asked = [Request(prompt=f"{topic} of rivers and snow") for topic in ("sum", "poem", "code")]
    assert np.all(np.diff(ranker().predict(asked).median()) > 0)


def test_the_booster_puts_the_shortest_first() -> None:
    contents = ranker().contents()
    text = contents.files["booster.txt"].decode()
    assert lightgbm.Booster(model_str=text).dump_model()["objective"] == "lambdarank"
    asked = synthetic_rows(50, 9).requests
    other = Boosted.from_contents(contents)
    assert (ranker().score(asked) == -other.score(asked)).all()


def test_a_request_without_text_gets_the_prior() -> None:
    answer = ranker().predict([Request(model="model-a"), Request(prompt="list of 5")])
    prior = ranker().contents().arrays["opening_prior"]
    assert answer.pmf[0].tolist() == prior.tolist() != answer.pmf[1].tolist()
    assert np.isnan(ranker().score([Request()])).all() and ranker().score([]).shape == (0,)


@pytest.mark.parametrize("kind", ["boosted", "ranker"])
def test_it_comes_back_as_what_it_was(kind: str, tmp_path: Path) -> None:
    loaded = load(build(kind).save(tmp_path / kind))
    assert loaded.__class__.__name__ == kind.title()
