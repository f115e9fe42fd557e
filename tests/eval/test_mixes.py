"""Mixes hold the share of OOD rows that they say."""

import numpy as np
import pytest

from lengthpred.data.table import Rows
from lengthpred.errors import SettingsError
from lengthpred.eval.mixes import make_mixes


def test_each_mix_has_its_share(rows: Rows) -> None:
    first, *mixes, last = make_mixes(rows, (1, 0.5, 0.2, 0.8, 0, 0.5), seed=3)
    assert [mix.ood_ratio for mix in mixes] == [0, 0.2, 0.5, 0.8, 1]
    for mix in mixes:
        share = rows.columns["ood"][mix.picked].mean()
        assert mix.ood_ratio is not None and mix.split == "mix"
        assert share == pytest.approx(mix.ood_ratio, abs=1 / len(mix.picked))
        assert len(set(mix.picked)) == len(mix.picked)
    for split, mix in ((first, mixes[0]), (last, mixes[-1])):
        assert split.picked.tolist() == mix.picked.tolist() and split.ood_ratio is None
    assert (first.split, last.split) == ("in", "ood")


def test_draws_are_seeded_and_do_not_depend_on_the_other_ratios(rows: Rows) -> None:
    alone = make_mixes(rows, [0.5], seed=1)[1]
    among = make_mixes(rows, [0.2, 0.5], seed=1)[2]
    other = make_mixes(rows, [0.5], seed=2)[1]
    assert alone.picked.tolist() == among.picked.tolist() != other.picked.tolist()


def test_without_marks_all_rows_are_one_split(rows: Rows) -> None:
    for plain in (rows.take(~rows.columns["ood"]), rows.take(np.arange(5))):
        (mix,) = make_mixes(plain)
        assert (mix.split, mix.ood_ratio, len(mix.picked)) == ("all", None, len(plain))
    (only,) = make_mixes(rows.take(rows.columns["ood"]))
    assert (only.split, only.ood_ratio) == ("ood", None)


@pytest.mark.parametrize("ratio", [-0.1, 1.5, float("nan")])
def test_a_ratio_outside_0_to_1_is_an_error(rows: Rows, ratio: float) -> None:
    with pytest.raises(SettingsError, match="between 0 and 1"):
        make_mixes(rows, [ratio])
