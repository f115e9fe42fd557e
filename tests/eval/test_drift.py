"""A table replayed: coverage by window, alarms with their domain and time."""

from dataclasses import replace

import numpy as np
import pytest

from lengthpred.data.table import Rows
from lengthpred.eval.drift import replay_drift, time_order
from lengthpred.models.conformal import Conformal
from lengthpred.models.histogram import Histogram
from tests.builders import build, synthetic_rows


def drifting(shuffled: bool = False) -> Rows:
    """900 rows as trained on, then 900 three times as long, named "late"; an hour between rows."""
    rows = synthetic_rows(1800, seed=7)
    later = np.arange(1800) >= 900
    rows = replace(
        rows,
        lengths=np.where(later, rows.lengths * 3, rows.lengths),
        columns={
            **rows.columns,
            "domain": np.where(later, "late", "early").astype(object),
            "arrival_s": np.arange(1800) * 3600.0,
        },
    )
    return rows.take(np.random.default_rng(0).permutation(1800)) if shuffled else rows


def test_where_coverage_falls_and_what_drifted() -> None:
    predictor = build("boosted")
    found = replay_drift(predictor, drifting(), window=300)  # type: ignore[arg-type]
    assert [(one.start, one.end) for one in found.windows][-1] == (1500, 1800)
    before, after = found.windows[0], found.windows[-1]
    assert before.coverage > 0.72 and before.corrected > 0.72
    assert after.coverage < 0.6 and after.corrected > 0.75
    assert found.coverage == pytest.approx(np.mean([one.coverage for one in found.windows]))
    domains = {alarm.key for alarm, _ in found.alarms}
    assert {"all traffic", "domain late"} <= domains and "domain early" not in domains
    first, when = found.alarms[0]
    assert 900 < first.at < 1000 and when == (first.at - 1) * 3600.0


def test_the_order_is_that_of_arrival() -> None:
    predictor = build("boosted")
    found = replay_drift(predictor, drifting(), window=300)  # type: ignore[arg-type]
    shuffled = replay_drift(predictor, drifting(shuffled=True), window=300)  # type: ignore[arg-type]
    assert shuffled == found
    rows = drifting(shuffled=True)
    times = rows.columns["arrival_s"].copy()
    times[5] = np.nan
    as_it_stands = replace(rows, columns={**rows.columns, "arrival_s": times})
    assert time_order(as_it_stands).tolist() == list(range(1800))


def test_nothing_is_learnt_and_what_was_learnt_counts() -> None:
    histogram = build("histogram")
    assert isinstance(histogram, Histogram)
    before = histogram.contents().arrays["cells"].tobytes()
    rows = drifting()
    late = rows.take(np.arange(900, 1200))
    made = Conformal(histogram)
    made.correct(late.requests, late.truth, late.truth_censored)
    cells = made.correction.array()
    rest = rows.take(np.arange(1200, 1400))
    warm, cold = (replay_drift(one, rest, window=100) for one in (made, histogram))
    assert warm.windows[0].corrected > cold.windows[0].corrected + 0.05
    assert warm.windows[0].coverage == cold.windows[0].coverage
    assert np.array_equal(made.correction.array(), cells)
    assert histogram.contents().arrays["cells"].tobytes() == before


def test_a_cascade_is_replayed() -> None:
    found = replay_drift(Conformal(build("cascade")), drifting().take(np.arange(50)), window=20)  # type: ignore[arg-type]
    assert [one.end for one in found.windows] == [20, 40, 50]
