"""Static batches on a virtual clock: the systems before continuous batching, and slices of them.

A *gang* batch runs until its longest answer is done; nothing joins or leaves it before. A *slice*
ends after a number of tokens: what is done leaves, the rest is queued again and computed anew
(slice-level scheduling: SCLS, Cheng et al., 2024).
"""

import numpy as np

from lengthpred.base import IntArray
from lengthpred.errors import SettingsError
from lengthpred.eval.replay.order import Order
from lengthpred.eval.replay.queue import Queue
from lengthpred.eval.replay.workload import Engine, Ledger, Trace, Workload

__all__ = ["replay_batches"]


def replay_batches(
    work: Workload, order: Order, engine: Engine, slice_tokens: int | None = None
) -> Trace:
    """Run all requests in batches of up to `engine.slots`; `slice_tokens` None for gangs.

    Answers are given out at the end of their batch. The size of a batch is its only limit: the
    engine's KV room and watermark have no meaning here.
    """
    if slice_tokens is not None and slice_tokens < 1:
        raise SettingsError(f"a slice must have 1 token or more, not {slice_tokens}")
    queue, ledger = Queue(work, order), Ledger(len(work))
    prompt, output = work.prompt_tokens, work.output_tokens
    written = np.zeros(len(work), np.int64)
    now = 0.0
    while ledger.done < len(work):
        queue.advance(now)
        if not queue.depth:
            now = queue.next_event()
            continue
        most = slice_tokens or int(output.max())
        first = [queue.pop(now) for _ in range(min(queue.depth, engine.slots))]
        batch = np.array(first, np.int64)
        for request in first:
            ledger.start(request, now)
        writes = np.minimum(output[batch] - written[batch], most)
        began = now
        now = _run(engine, ledger, prompt[batch] + written[batch], writes, now)
        fresh = batch[written[batch] == 0]
        ledger.first_token[fresh] = now
        written[batch] += writes
        for slot, request in enumerate(first):
            ledger.segment(request, slot, began, now)
            if written[request] == output[request]:
                ledger.finish(request, now)
            else:
                ledger.preempt(request)
                queue.written[request] = int(written[request])
                if order.with_progress is not None:
                    at = batch[slot : slot + 1], written[batch[slot : slot + 1]]
                    queue.rekey(request, int(order.with_progress(*at, now)[0]))
                queue.push(request, now)
    return ledger.trace(*queue.depths(), *queue.refined())


def _run(engine: Engine, ledger: Ledger, prompts: IntArray, writes: IntArray, now: float) -> float:
    """Compute the prompts of a batch (b,) and write so many tokens each; when all are done."""
    total = int(prompts.sum())
    computed = np.minimum(
        np.arange(engine.token_budget, total + engine.token_budget, engine.token_budget), total
    )
    # The prompts' last step gives the first tokens: what writes k reads its tokens k - 1 times.
    step = np.arange(1, int(writes.max()))
    order = np.argsort(writes)
    done = np.searchsorted(writes[order], step, side="right")
    left = total - np.cumsum(np.concatenate([[0], prompts[order]]))[done]
    read = np.concatenate([computed, left + step * (len(prompts) - done)])
    chunks = np.zeros(len(read), np.int64)
    chunks[: len(computed)] = np.diff(computed, prepend=0)
    seconds = engine.step_time.of(read, chunks)
    room = -(-(prompts + writes) // engine.block_size) * engine.block_size
    ledger.spend(seconds, read, np.full(len(read), int(room.sum())), 0)
    ledger.prefilled += total
    return now + float(seconds.sum())
