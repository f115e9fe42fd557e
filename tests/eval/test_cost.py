"""Costs: measured in processes of their own, one after another, and of what was asked."""

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import pytest

from lengthpred.artifact import Contents, Storable
from lengthpred.base import Request
from lengthpred.distribution import LengthDistribution
from lengthpred.errors import LengthPredError
from lengthpred.eval.compare import compare
from lengthpred.eval.cost import COST_METRICS, can_be_measured_apart, measure, measure_apart
from lengthpred.testing import FixedPredictor
from tests.builders import build
from tests.eval.cases import make_rows


class Noting(FixedPredictor):
    """Keeps what it is asked, and takes a millisecond a call."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[list[Request]] = []

    def predict(self, requests: Sequence[Request]) -> LengthDistribution:
        self.asked.append(list(requests))
        time.sleep(0.001)
        return super().predict(requests)


class Breaking(Storable):
    """Of a kind that another process finds, but with contents that it cannot use."""

    kind = "constant"

    def contents(self) -> Contents:
        return Contents()

    def predict(self, requests: Sequence[Request]) -> LengthDistribution:
        return FixedPredictor().predict(requests)

    @classmethod
    def from_contents(cls, contents: Contents) -> Self:
        return cls()


def test_calls_of_one_and_of_64_are_timed() -> None:
    predictor = Noting()
    requests = [Request(prompt="x", id=str(i)) for i in range(2000)]
    costs = measure(predictor, requests)
    assert tuple(costs) == COST_METRICS
    assert {len(batch) for batch in predictor.asked} == {1, 64}
    assert 1000 < costs["us_per_request_p50"][0] <= costs["us_per_request_p99"][0]
    assert costs["us_per_request_batch64"][0] < costs["us_per_request_p50"][0] / 8
    # Not the first rows only: a table may be sorted.
    single = [int(batch[0].id) for batch in predictor.asked if len(batch) == 1]
    assert max(single) > 1500


@pytest.mark.parametrize("kind", ["constant", "boosted", "cascade"])
def test_what_can_be_saved_is_timed_in_a_process_of_its_own(kind: str) -> None:
    requests = [
        Request(prompt='list of "snow"\n\ud800 光', reply_tokens=(3, 9), sampling={"stop": ["x"]}),
        Request(prompt="poem of bread", model="model-a", temperature=0.5, max_tokens=9),
    ]
    predictor = build(kind)
    begun = time.perf_counter()
    costs = measure_apart(kind, predictor, requests)
    assert time.perf_counter() - begun < 10
    assert tuple(costs) == COST_METRICS
    for us, calls in costs.values():
        assert 0 < us < 1e6 and calls > 0


def test_the_process_speaks_json(tmp_path: Path) -> None:
    saved = build("constant").save(tmp_path / "artifact")
    done = subprocess.run(
        [sys.executable, "-m", "lengthpred.eval.cost", saved],
        input="[]",
        capture_output=True,
        text=True,
        check=True,
    )
    assert tuple(json.loads(done.stdout)) == COST_METRICS


def test_a_process_that_fails_is_one_sentence() -> None:
    assert can_be_measured_apart(build("constant"))
    with pytest.raises(LengthPredError, match=r"timed broken ended early \(.*constant.*\)"):
        measure_apart("broken", Breaking(), [])


def test_what_cannot_be_saved_is_timed_here_and_a_note_says_so() -> None:
    class Foreign(Breaking):
        kind = "of-no-registry"

    for predictor in (FixedPredictor(), Foreign(), Breaking()):
        assert not can_be_measured_apart(predictor)
    comparison = compare({"fixed": FixedPredictor()}, make_rows(40), resamples=0)
    assert any("fixed cannot be saved" in note for note in comparison.notes)
    assert not any("constant cannot be saved" in note for note in comparison.notes)
    timed = {r.predictor for r in comparison.results if r.metric in COST_METRICS}
    assert timed == {"fixed", "constant", "prompt-length"}
