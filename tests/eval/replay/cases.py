"""Workloads and engines that several test files replay."""

import numpy as np
from hypothesis import strategies as st

from lengthpred.eval.replay.step_time import StepTime
from lengthpred.eval.replay.workload import Engine, Workload

__all__ = ["ONE", "engines", "make_work", "workloads"]

ONE = StepTime(1.0, 0.0, 0.0)
"""Each step takes a second, so that times can be counted in steps."""


def make_work(
    outputs: list[int], prompts: list[int] | int = 1, arrivals: list[float] | float = 0.0
) -> Workload:
    """Requests with these lengths; a single number holds for all."""
    n = len(outputs)
    return Workload(
        np.broadcast_to(np.asarray(arrivals, np.float64), n).copy(),
        np.broadcast_to(np.asarray(prompts, np.int64), n).copy(),
        np.array(outputs, np.int64),
    )


@st.composite
def workloads(draw: st.DrawFn) -> Workload:
    n = draw(st.integers(1, 20))
    lengths = st.lists(st.integers(1, 50), min_size=n, max_size=n)
    gaps = draw(st.lists(st.floats(0, 5), min_size=n, max_size=n))
    return make_work(draw(lengths), draw(lengths), np.cumsum(gaps).tolist())


@st.composite
def engines(draw: st.DrawFn, work: Workload) -> Engine:
    """Small ones that can hold the largest request, some of them nothing besides."""
    block = draw(st.sampled_from([1, 4, 16]))
    slots = draw(st.integers(1, 6))
    least = -(-int((work.prompt_tokens + work.output_tokens).max()) // block)
    return Engine(
        slots=slots,
        token_budget=slots + draw(st.integers(0, 60)),
        kv_tokens=(least + draw(st.sampled_from([0, 2, 8, 500]))) * block,
        block_size=block,
        watermark=draw(st.sampled_from([0.0, 0.1])),
        step_time=StepTime(0.5, 0.01, 0.001),
    )
