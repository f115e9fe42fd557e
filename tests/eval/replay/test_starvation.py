"""No request starves: whatever arrives, and however wrong its length is predicted."""

from dataclasses import replace
from math import inf

import hypothesis
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lengthpred.eval.replay.continuous import replay_continuous
from lengthpred.eval.replay.order import Refinement
from lengthpred.eval.replay.workload import Engine
from lengthpred.ordering import POLICIES, PREEMPTIVE, OrderingSettings
from tests.eval.replay.cases import ONE, engines
from tests.eval.replay.starvation import Flood, floods, most_overtaken, short_ones_after_a_long_one

KEPT = sorted(set(POLICIES) - set(PREEMPTIVE))


def check(flood: Flood, data: st.DataObject, policy: str, late: str) -> None:
    work, n = flood.work, len(flood.work)
    order = flood.order(policy)
    if late != "at arrival":
        order = replace(order, early=flood.keys(data.draw(st.sampled_from(KEPT))))
    seconds = data.draw(st.sampled_from([0.0, 0.3, 30.0]))
    if late == "told later":
        order = replace(order, known_s=work.arrival_s + seconds)
    if late == "refined":
        asked = np.arange(n) % data.draw(st.integers(1, 3)) == 0
        order = replace(order, refinement=Refinement(asked, np.arange(n)[::-1], seconds))
    trace = replay_continuous(work, order, data.draw(engines(work)))
    assert most_overtaken(work, trace) <= flood.bound_s


@pytest.mark.parametrize("late", ["at arrival", "told later", "refined"])
@hypothesis.settings(max_examples=300)
@given(floods(), st.data())
def test_nobody_is_overtaken_by_what_comes_after_the_bound(
    late: str, flood: Flood, data: st.DataObject
) -> None:
    """With room and without, so that requests are preempted, and wait again by the same key."""
    check(flood, data, data.draw(st.sampled_from(KEPT)), late)


@pytest.mark.parametrize("policy", PREEMPTIVE)
@hypothesis.settings(max_examples=100)
@given(floods(), st.data())
def test_nor_where_what_waits_takes_the_slots_of_what_runs(
    policy: str, flood: Flood, data: st.DataObject
) -> None:
    check(flood, data, policy, "at arrival")


@pytest.mark.parametrize("overtake", [20.0, inf])
def test_the_bound_is_reached_and_a_key_that_does_not_age_is_seen(overtake: float) -> None:
    flood = short_ones_after_a_long_one(20.0, OrderingSettings(max_overtake_s=overtake))
    trace = replay_continuous(flood.work, flood.order("sjf"), Engine(slots=1, step_time=ONE))
    most = most_overtaken(flood.work, trace)
    if overtake == inf:
        assert most > 70
    else:
        assert 0.9 * overtake < most <= flood.bound_s
