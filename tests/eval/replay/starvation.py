"""Arrivals that are made to starve somebody, and by how much anybody was overtaken."""

from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st

from lengthpred import LengthDistribution, LengthGrid, Request
from lengthpred.base import FloatArray, IntArray
from lengthpred.eval.replay.order import Order
from lengthpred.eval.replay.workload import Trace, Workload
from lengthpred.ordering import EPOCH_S, PREEMPTIVE, SCALE, OrderingSettings, cost, priority

__all__ = ["Flood", "floods", "most_overtaken", "short_ones_after_a_long_one"]

GRID = LengthGrid()
CLOCK_S = 1e-4  # what the clocks of a replay and of floats near 2025 may differ by


@dataclass(frozen=True)
class Flood:
    """Requests, and predictions of their lengths that need not have to do with them."""

    work: Workload
    requests: list[Request]
    predicted: LengthDistribution
    settings: OrderingSettings

    @property
    def arrival_unix_s(self) -> FloatArray:
        arrived: FloatArray = self.work.arrival_s + EPOCH_S
        return arrived

    @property
    def bound_s(self) -> float:
        """The starvation bound, and what the rounding of two keys, each twice, adds to it."""
        return self.settings.max_overtake_s + 2 / SCALE / self.settings.aging + CLOCK_S

    def keys(self, policy: str) -> IntArray:
        costs = cost(policy, self.predicted, self.requests, None, self.settings)
        return priority(costs, self.arrival_unix_s, self.settings)

    def order(self, policy: str) -> Order:
        """As `lengthpred simulate` makes it."""

        def with_progress(numbers: IntArray, written: IntArray, now: float) -> IntArray:
            asked = [self.requests[i] for i in numbers]
            costs = cost(policy, self.predicted[numbers], asked, written, self.settings)
            return priority(costs, self.arrival_unix_s[numbers], self.settings)

        if policy not in PREEMPTIVE:
            return Order(self.keys(policy))
        return Order(self.keys(policy), with_progress=with_progress, preempts=True)


@st.composite
def floods(draw: st.DrawFn, longest: int = 120) -> Flood:
    """Waves of requests that are alike: at one moment, or evenly; just inside the bound or not."""
    overtake = draw(st.sampled_from([0.5, 3.0, 20.0]))
    settings = OrderingSettings(
        max_overtake_s=overtake,
        cap=draw(st.sampled_from([1.0, 60.0, 4096.0])),
        prefill_weight=draw(st.sampled_from([0.0, 0.5])),
        slo_classes_s=(overtake / 2,),
    )
    edges = st.sampled_from([0.0, overtake, overtake * (1 + 1e-6), overtake * (1 - 1e-6)])
    gaps = st.one_of(edges, st.floats(0, overtake))
    lengths = st.one_of(st.sampled_from([1, 2, longest]), st.integers(1, longest))
    begin, rows = 0.0, list[tuple[float, int, int, int, int | None, float | None]]()
    for _ in range(draw(st.integers(2, 6))):
        begin += draw(gaps)
        apart = draw(st.sampled_from([0.0, overtake / 64, overtake / 4]))
        output, prompt = draw(lengths), draw(st.sampled_from([1, 3, longest]))
        # By bin, so that the very long and the very short are as likely as all others.
        bins = draw(st.lists(st.integers(0, GRID.bins - 1), min_size=1, max_size=3))
        limit = draw(st.sampled_from([None, None, 0, 1, 4096, 2**31]))
        objective = draw(st.sampled_from([None, overtake / 4, overtake * 9]))
        for i in range(draw(st.sampled_from([1, 2, 12]))):
            row = begin + i * apart, output, prompt, bins[i % len(bins)], limit, objective
            rows.append(row)
    rows.sort(key=lambda row: row[0])
    weights = np.zeros((len(rows), GRID.bins))
    weights[np.arange(len(rows)), [row[3] for row in rows]] = 1
    columns = [np.array([row[i] for row in rows]) for i in range(3)]
    requests = [
        Request(id=str(i), prompt_tokens=row[2], max_tokens=row[4], slo_s=row[5])
        for i, row in enumerate(rows)
    ]
    work = Workload(columns[0], columns[2], columns[1])
    return Flood(work, requests, LengthDistribution.from_weights(GRID, weights), settings)


def short_ones_after_a_long_one(overtake_s: float, settings: OrderingSettings) -> Flood:
    """One slot's worth of a stream that never ends, and a long one that came with its first."""
    arrivals = np.concatenate([[0.0, 0.0], np.arange(0.5, 4 * overtake_s, 0.5)])
    outputs = np.ones(len(arrivals), np.int64)
    outputs[1] = 150
    weights = np.zeros((len(arrivals), GRID.bins))
    weights[:, 0] = 1
    weights[1] = np.eye(GRID.bins)[-1]
    requests = [Request(id=str(i)) for i in range(len(arrivals))]
    work = Workload(arrivals, np.ones(len(arrivals), np.int64), outputs)
    return Flood(work, requests, LengthDistribution.from_weights(GRID, weights), settings)


def most_overtaken(work: Workload, trace: Trace) -> float:
    """Of all that got a slot, first or again: the most seconds that one had arrived after another
    that waited then, for the first time or again."""
    held, most = trace.segments, 0.0
    for request, now in zip(held.request, held.start_s, strict=True):
        waits = (work.arrival_s <= now) & (trace.finish_s > now)
        waits[held.request[(held.start_s <= now) & (held.end_s > now)]] = False
        if waits.any():
            most = max(most, float(work.arrival_s[request] - work.arrival_s[waits].min()))
    return most
