"""What an encoder is trained to."""

import numpy as np
import pytest

from lengthpred import LengthGrid, Request
from lengthpred.data.table import Rows
from lengthpred.errors import DataError
from lengthpred.training.encoder_targets import class_bins, class_lengths, targets
from lengthpred.training.settings import EncoderSettings
from tests.builders import synthetic_rows

GRID = LengthGrid()


def rows(lengths: list[list[int]], stopped: list[list[bool]] | None = None) -> Rows:
    n = len(lengths)
    flat = np.array([length for row in lengths for length in row])
    flags = [flag for row in stopped or [] for flag in row] or [False] * len(flat)
    return Rows(
        requests=[Request(prompt=str(i)) for i in range(n)],
        lengths=flat,
        censored=np.array(flags),
        owner=np.repeat(np.arange(n), [len(row) for row in lengths]),
        groups=np.arange(n),
        columns={},
    )


def of(**settings: object) -> EncoderSettings:
    return EncoderSettings.model_validate(settings)


def test_a_target_is_spread_over_neighbouring_bins() -> None:
    given = rows([[100], [3]])
    settings = of(smoothing=1.5)
    found = targets(given, settings, class_bins(given, settings)).ended
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-6)
    assert found.argmax(axis=1).tolist() == GRID.index([100, 3]).tolist()
    spread = np.sqrt((found[0] * (np.arange(GRID.bins) - GRID.index(100)) ** 2).sum())
    assert spread == pytest.approx(1.5, rel=0.01)
    sharp = targets(given, of(smoothing=0), np.arange(GRID.bins)).ended
    assert (sharp.max(axis=1) == 1).all()


def test_samples_make_a_soft_target_and_stopped_ones_count_apart() -> None:
    given = rows([[2, 2, 7, 9]], [[False, False, False, True]])
    found = targets(given, of(smoothing=0), np.arange(GRID.bins))
    assert found.ended[0, [2, 7]].tolist() == [0.5, 0.25]
    assert found.stopped[0, 9] == 0.25
    assert found.ended[0].sum() + found.stopped[0].sum() == 1
    assert not found.open[0]
    assert targets(rows([[9]], [[True]]), of(), np.arange(GRID.bins)).open[0]


def test_classes_by_number_hold_equal_shares() -> None:
    given = synthetic_rows(4000)
    settings = of(head="classes", classes=5)
    classes = class_bins(given, settings)
    shares = np.bincount(classes[GRID.index(given.lengths[~given.censored])]) / len(given)
    assert len(shares) == 5
    assert (np.diff(classes) >= 0).all()
    assert shares.max() < 0.3 and shares.min() > 0.1


def test_classes_by_length_begin_where_they_are_said_to() -> None:
    settings = of(head="classes", classes=[16, 128])
    classes = class_bins(rows([[1], [20], [500]]), settings)
    assert classes[GRID.index([1, 15, 16, 127, 128, 4000])].tolist() == [0, 0, 1, 1, 2, 2]


def test_too_many_classes_for_the_lengths_are_refused() -> None:
    with pytest.raises(DataError, match="fill 1 classes, and not 3"):
        class_bins(rows([[5]] * 50), of(head="classes", classes=3))


def test_a_class_means_the_lengths_seen_in_it() -> None:
    given = rows([[10], [10], [12], [300]])
    classes = class_bins(given, of(head="classes", classes=[100]))
    meaning = class_lengths(given, classes)
    np.testing.assert_allclose(meaning.sum(axis=1), 1, atol=1e-6)
    assert meaning[0, 10] == pytest.approx(2 / 3, abs=0.01)
    assert meaning[1, GRID.index(300)] > 0.99
