"""Training of the ranker: its queues, its relevance, and that it finds what is there."""

from dataclasses import replace

import lightgbm
import numpy as np
import pytest

from lengthpred import metrics
from lengthpred.errors import DataError
from lengthpred.training.ranker import deal, relevance, train
from lengthpred.training.settings import RankerSettings
from tests.builders import synthetic_rows

SETTINGS = RankerSettings(bits=10, trees=60, leaves=7)


def test_every_row_is_dealt_once_into_queues_of_like_size() -> None:
    for n, queue, sizes in ((10, 5, [5, 5]), (11, 5, [3, 4, 4]), (3, 5, [3]), (7, 2, [1, 2, 2, 2])):
        order, dealt = deal(n, queue, rng())
        assert dealt.tolist() == sizes and sorted(order.tolist()) == list(range(n))
    assert deal(50, 5, rng())[0].tolist() == deal(50, 5, rng())[0].tolist() != list(range(50))
    assert deal(50, 5, rng())[0].tolist() != deal(50, 5, rng(1))[0].tolist()


def test_the_shortest_are_the_most_relevant() -> None:
    assert relevance(np.array([0.001, 0.24, 0.26, 0.999]), 4).tolist() == [3, 3, 2, 0]
    assert relevance(np.array([0.2, 0.5, 0.8]), 2).tolist() == [1, 0, 0]


def test_it_learns_what_is_planted() -> None:
    trained = train(synthetic_rows(800, 0), synthetic_rows(600, 1), SETTINGS, rng())
    fresh = synthetic_rows(600, 2)
    scores = metrics.scores(
        trained.predict(fresh.requests), fresh.truth, fresh.truth_censored, rng()
    )
    assert scores["tau"] > 0.5 and 0.72 < scores["coverage_80"] < 0.88


def test_order_within_a_queue_is_all_that_counts() -> None:
    """Lengths of another scale and shape, but in the same order, give the same booster."""
    rows, held = synthetic_rows(300, 0), synthetic_rows(100, 1)
    stretched = replace(rows, lengths=rows.lengths**2 + 7)
    first, second = (train(r, held, SETTINGS, rng()).contents().files for r in (rows, stretched))
    assert first == second


def test_settings_reach_the_booster() -> None:
    rows, held = synthetic_rows(300, 0), synthetic_rows(100, 1)
    changed = SETTINGS.model_copy(update={"queue": 20, "levels": 3, "trees": 9})
    text = train(rows, held, changed, rng()).contents().files["booster.txt"].decode()
    assert lightgbm.Booster(model_str=text).num_trees() == 9
    for line in ("[label_gain: 0,1,2]", "[lambdarank_truncation_level: 20]", "[boosting: gbdt]"):
        assert line in text


@pytest.mark.parametrize("length", [0, 40])
def test_answers_of_one_length_cannot_be_ordered(length: int) -> None:
    rows = synthetic_rows(60)
    alike = replace(rows, lengths=np.full(60, length), censored=np.zeros(60, bool))
    trained = train(alike, rows, SETTINGS, rng())
    assert np.ptp(trained.score(rows.requests)) == 0
    assert metrics.tau(trained.predict(rows.requests).median(), rows.truth) == 0


def test_too_little_to_learn_from() -> None:
    rows = synthetic_rows(30)
    with pytest.raises(DataError, match="needs 20 rows with a prompt; there are 19"):
        train(rows.take(np.arange(19)), rows, SETTINGS, rng())


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)
