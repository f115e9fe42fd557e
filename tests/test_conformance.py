"""Every registered kind keeps the contract; and the suite sees what does not."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from lengthpred import Detector, LengthDistribution, LengthGrid, Predictor, Request
from lengthpred.base import FloatArray
from lengthpred.registry import DETECTORS, PREDICTORS, available
from lengthpred.testing import (
    DETECTOR_CHECKS,
    PREDICTOR_CHECKS,
    FixedPredictor,
    check_detector,
    check_predictor,
    example_requests,
)
from tests.builders import BUILDERS, ELSEWHERE, build

GRID = LengthGrid()


def cases(kinds: dict[str, str], checks: dict[str, Any]) -> list[Any]:
    return [
        pytest.param(kind, check, id=f"{kind}:{name}")
        for kind in sorted(kinds.keys() - ELSEWHERE.keys())
        for name, check in checks.items()
    ]


def test_every_kind_has_a_builder() -> None:
    # What other packages add is theirs to test.
    assert BUILDERS.keys() | ELSEWHERE.keys() == PREDICTORS.keys() | DETECTORS.keys()
    assert available("predictors").keys() >= PREDICTORS.keys()


@pytest.mark.parametrize(("kind", "check"), cases(PREDICTORS, PREDICTOR_CHECKS))
def test_predictor(kind: str, check: Callable[[object], None]) -> None:
    check(build(kind))


@pytest.mark.parametrize(("kind", "check"), cases(DETECTORS, DETECTOR_CHECKS))
def test_detector(kind: str, check: Callable[[object], None]) -> None:
    check(build(kind))


@pytest.mark.parametrize("kind", sorted(BUILDERS))
def test_trained_twice_saved_twice_same_bytes(kind: str, tmp_path: Any) -> None:
    build.cache_clear()
    first = build(kind).save(tmp_path / "first")
    build.cache_clear()
    second = build(kind).save(tmp_path / "second")
    names = sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file())
    assert all((first / name).read_bytes() == (second / name).read_bytes() for name in names)


# What the suite is for: each of these breaks one promise.


class Good:
    """Keeps the contract: longer prompts, longer answers."""

    def predict(self, requests: Sequence[Request]) -> LengthDistribution:
        return LengthDistribution(GRID, self.pmf(requests))

    def pmf(self, requests: Sequence[Request]) -> npt.NDArray[np.float32]:
        lengths = np.array([len(request.prompt) for request in requests], np.int64)
        return np.eye(GRID.bins, dtype=np.float32)[GRID.index(lengths)]


class Moody(Good):
    calls = 0

    def predict(self, requests: Sequence[Request]) -> LengthDistribution:
        self.calls += 1
        return LengthDistribution(GRID, np.roll(self.pmf(requests), self.calls, axis=1))


class Sorted(Good):
    def predict(self, requests: Sequence[Request]) -> LengthDistribution:
        return super().predict(sorted(requests, key=lambda request: request.prompt))


class Relative(Good):
    def predict(self, requests: Sequence[Request]) -> LengthDistribution:
        mean = self.pmf(requests).mean(axis=0, keepdims=True)
        return LengthDistribution(GRID, (self.pmf(requests) + mean) / 2)


class OneTooMany(Good):
    def predict(self, requests: Sequence[Request]) -> LengthDistribution:
        return super().predict([*requests, Request()])


class NeedsEncoding(Good):
    def predict(self, requests: Sequence[Request]) -> LengthDistribution:
        assert all(request.prompt.encode() is not None for request in requests)
        return super().predict(requests)


class Aliased(Good):
    def __init__(self) -> None:
        self.kept: dict[int, npt.NDArray[np.float32]] = {}

    def predict(self, requests: Sequence[Request]) -> LengthDistribution:
        pmf = self.kept.setdefault(hash(tuple(requests)), self.pmf(requests))
        return LengthDistribution.trusted(GRID, pmf)


class Unnormalised(Good):
    def predict(self, requests: Sequence[Request]) -> LengthDistribution:
        return LengthDistribution.trusted(GRID, self.pmf(requests) * np.float32(2))


class LearnsBackwards(Good):
    shift = 0

    def predict(self, requests: Sequence[Request]) -> LengthDistribution:
        pmf = np.zeros((len(requests), GRID.bins), np.float32)
        pmf[:, 40 + self.shift] = 1
        return LengthDistribution(GRID, pmf)

    def observe(
        self, requests: Sequence[Request], lengths: npt.NDArray[np.int64], censored: Any
    ) -> None:
        if len(lengths):
            self.shift = -10 if lengths.mean() > 1000 else 10


class TakesCutForWhole(LearnsBackwards):
    def observe(
        self, requests: Sequence[Request], lengths: npt.NDArray[np.int64], censored: Any
    ) -> None:
        if len(lengths):
            self.shift = (10 if lengths.mean() > 1000 else -10) - 5 * int(censored.any())


class Late(Good):
    def provisional(self, requests: Sequence[Request]) -> tuple[LengthDistribution, Any]:
        return self.predict(requests), np.zeros(len(requests), bool)

    def refine(
        self, requests: Sequence[Request], deadline_s: float
    ) -> tuple[LengthDistribution, Any]:
        time.sleep(1.1)
        return self.predict(requests), np.ones(len(requests), bool)


@pytest.mark.parametrize("good", [Good(), FixedPredictor({"1": 5})], ids=["good", "fixed"])
def test_the_suite_passes_what_is_good(good: Predictor) -> None:
    check_predictor(good)


@pytest.mark.parametrize(
    ("bad", "promise"),
    [
        (Moody(), "the same answer until observe"),
        (Sorted(), "order asked"),
        (Relative(), "alone as in a batch"),
        (OneTooMany(), "one distribution a request"),
        (NeedsEncoding(), "never an error"),
        (Aliased(), "changes no later answer"),
        (Unnormalised(), "sums to one"),
        (LearnsBackwards(), "moves the median toward"),
        (TakesCutForWhole(), "counts as at least"),
        (Late(), "deadline of 0 s"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else "",
)
def test_the_suite_finds_what_breaks_a_promise(bad: Predictor, promise: str) -> None:
    with pytest.raises(AssertionError, match=promise):
        check_predictor(bad)


class Flat:
    """A detector that answers `value` for each request."""

    def __init__(self, value: float, shape: tuple[int, ...] = ()) -> None:
        self.value, self.shape = value, shape

    def p_value(self, requests: Sequence[Request]) -> FloatArray:
        return np.full((len(requests), *self.shape), self.value)


def test_the_suite_for_detectors() -> None:
    check_detector(Flat(0.5))
    for bad in (Flat(0.0), Flat(1.5), Flat(np.nan), Flat(0.5, (1,))):
        detector: Detector = bad
        with pytest.raises(AssertionError, match=r"p.value"):
            check_detector(detector)


def test_example_requests_are_seeded() -> None:
    assert example_requests(9, 1) == example_requests(9, 1) != example_requests(9, 2)
    assert len(example_requests(0)) == 0
