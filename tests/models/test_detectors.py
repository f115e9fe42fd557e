"""Conformal p-values: the promised rate on traffic like the training data, alarms on other."""

from collections.abc import Sequence
from functools import cache

import numpy as np
import pytest

from lengthpred import Request
from lengthpred.base import FloatArray
from lengthpred.models.detectors import (
    NOWHERE,
    Conformal,
    Mahalanobis,
    NearestNeighbours,
    described,
    mahalanobis_distance,
    neighbour_distance,
)
from lengthpred.training import detectors
from lengthpred.training.settings import DetectorSettings
from tests.builders import synthetic_rows

METHODS = {"knn": NearestNeighbours, "mahalanobis": Mahalanobis}
ODD = [
    "Die Würde des Menschen ist unantastbar, sagt das Grundgesetz der Bundesrepublik.",
    "SELECT a.id, COUNT(*) FROM orders AS a JOIN parts AS b USING (id) GROUP BY 1;",
    "東京の天気はどうですか。明日は雨が降りますか。",
]


@cache
def trained(method: str, seed: int = 0, **options: int) -> Conformal:
    sizes = {"bits": 10, "dims": 8} | options
    settings = DetectorSettings.model_validate({"method": method, **sizes})
    parts = synthetic_rows(300, 3 * seed), synthetic_rows(400, 3 * seed + 1)
    return detectors.train(*parts, settings, np.random.default_rng(seed))


@pytest.mark.parametrize("method", METHODS)
def test_like_traffic_is_flagged_at_the_rate_alpha(method: str) -> None:
    values = np.array(
        [
            trained(method, seed).p_value(synthetic_rows(400, 3 * seed + 2).requests)
            for seed in range(6)
        ]
    )
    for alpha in (0.05, 0.2):
        assert (values <= alpha).mean() == pytest.approx(alpha, abs=0.02)


@pytest.mark.parametrize("method", METHODS)
def test_odd_text_gets_a_small_p_value(method: str) -> None:
    detector = trained(method, bits=14, dims=32)
    assert type(detector) is METHODS[method] and detector.kind == method
    assert detector.p_value([Request(prompt=text) for text in ODD]).max() < 0.02
    assert np.median(detector.p_value(synthetic_rows(200, 50).requests)) > 0.3


@pytest.mark.parametrize("method", METHODS)
def test_without_text_nothing_is_odd(method: str) -> None:
    values = trained(method).p_value([Request(), Request(prompt=ODD[0]), Request(model="x")])
    assert values[[0, 2]].tolist() == [1, 1] and values[1] < 1
    assert trained(method).p_value([]).shape == (0,)
    # Text in which no word is found is judged like any other.
    assert 0 < trained(method).p_value([Request(prompt="___")])[0] <= 1


class Fixed(Conformal):
    """Known distances."""

    def __init__(self, calibration: list[float]) -> None:
        super().__init__(trained("knn")._embed, np.array(calibration))

    def distance(self, requests: Sequence[Request]) -> FloatArray:
        return np.array([0, 2, 2.5, 9])


def test_the_p_value_counts_what_lies_as_far_or_further() -> None:
    asked = [Request(prompt="x")] * 4
    assert Fixed([3, 1, 2]).p_value(asked).tolist() == [1, 0.75, 0.5, 0.25]


def test_distances_by_hand() -> None:
    # Two numbers of projection, and the mean rarity.
    points = np.array([[1, 0, 3], [0, 0, 5]], np.float32)
    reference = np.array([[1, 0], [0, 1], [0.6, 0.8]], np.float32)
    two, three = (neighbour_distance(points, reference, k) for k in (2, 3))
    assert two[:, 0] == pytest.approx([1 - 1.6 / 2, 1])
    assert three[:, 0] == pytest.approx([1 - 1.6 / 3, 1])
    # The mean of the training prompts is where nobody is: what is embedded as 0 lies far from it.
    size = described(points).shape[1]
    centre, precision = np.zeros(size, np.float32), 2 * np.eye(size, dtype=np.float32)
    nowhere = np.zeros((1, 3), np.float32)
    assert mahalanobis_distance(nowhere, centre, precision) == pytest.approx([NOWHERE])
    found = mahalanobis_distance(points, centre, precision)
    assert found == pytest.approx(2 * (described(points) ** 2).sum(axis=1))


@pytest.mark.parametrize("calibration", [[], [1.0, np.nan], [np.inf]])
def test_calibration_distances_that_cannot_be(calibration: list[float]) -> None:
    with pytest.raises(ValueError, match="finite calibration"):
        Fixed(calibration)


def test_more_dimensions_than_there_are_slots_or_rows() -> None:
    settings = DetectorSettings(bits=8, dims=512, neighbours=5000)
    rows = synthetic_rows(300, 0), synthetic_rows(50, 1)
    detector = detectors.train(*rows, settings, np.random.default_rng(0))
    assert (detector.p_value(rows[1].requests) > 0).all()


def test_no_third_method() -> None:
    with pytest.raises(ValueError, match="'knn' or 'mahalanobis'"):
        DetectorSettings.model_validate({"method": "lof"})
