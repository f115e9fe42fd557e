"""What is measured of a replay: the metric names of `vllm bench serve`, and some of our own."""

import numpy as np

from lengthpred.base import FloatArray
from lengthpred.eval.replay.workload import Trace, Workload

__all__ = ["LOWER_IS_BETTER", "measure_replay", "measure_times"]

LOWER_IS_BETTER = ("_ms", "duration", "preemptions", "queue_depth", "kv_waste", "_tokens")


def measure_replay(work: Workload, trace: Trace) -> dict[str, float]:
    """Every measure by name; times in milliseconds where the name ends with _ms, else seconds.

    As in `vllm bench serve`: total_input_tokens, total_output_tokens, duration (first arrival to
    last token), request_throughput, output_throughput, total_token_throughput, and mean_, median_
    and p99_ of ttft_ms (time to first token), tpot_ms (time per output token after it) and
    e2el_ms (end-to-end latency). Ours: tps (all tokens over the time in which the engine computed),
    the same latencies of the tenth of the requests with the longest answers (_longest_tenth),
    mean_ and max_queue_depth, preemptions, recomputed_tokens, mean_head_of_line_wait_ms (time
    waited with a slot free because the first in line did not fit into the KV cache) and kv_waste
    (share of the KV room set aside that held nothing still needed).
    """
    measured = measure_times(work, trace.first_token_s, trace.finish_s)
    depths = np.diff(np.append(trace.depth_s, trace.finish_s.max()))
    tokens = measured["total_input_tokens"] + measured["total_output_tokens"]
    return {
        **measured,
        "tps": tokens / trace.busy_s,
        "mean_queue_depth": float((depths * trace.depth).sum()) / measured["duration"],
        "max_queue_depth": float(trace.depth.max()),
        "preemptions": float(trace.preemptions.sum()),
        "recomputed_tokens": float(trace.prefill_tokens - measured["total_input_tokens"]),
        "mean_head_of_line_wait_ms": 1e3 * trace.blocked_s / len(work),
        "kv_waste": 1 - trace.kv_token_s / trace.kv_held_s,
    }


def measure_times(
    work: Workload, first_token_s: FloatArray, finish_s: FloatArray
) -> dict[str, float]:
    """What follows from when each request (n,) had its first and its last token, in seconds."""
    tokens_in, tokens_out = int(work.prompt_tokens.sum()), int(work.output_tokens.sum())
    duration = float(finish_s.max() - work.arrival_s[0])
    ttft, latency = first_token_s - work.arrival_s, finish_s - work.arrival_s
    several = work.output_tokens > 1
    tpot = (finish_s - first_token_s)[several] / (work.output_tokens[several] - 1)
    longest = np.argsort(-work.output_tokens, kind="stable")[: max(len(work) // 10, 1)]
    return {
        "total_input_tokens": tokens_in,
        "total_output_tokens": tokens_out,
        "duration": duration,
        "request_throughput": len(work) / duration,
        "output_throughput": tokens_out / duration,
        "total_token_throughput": (tokens_in + tokens_out) / duration,
        **_times("ttft_ms", ttft),
        **_times("tpot_ms", tpot if len(tpot) else np.zeros(1)),
        **_times("e2el_ms", latency),
        **_times("ttft_ms_longest_tenth", ttft[longest]),
        **_times("e2el_ms_longest_tenth", latency[longest]),
    }


def _times(name: str, seconds: FloatArray) -> dict[str, float]:
    middle, high = np.quantile(seconds, [0.5, 0.99])
    return {
        f"mean_{name}": float(1e3 * seconds.mean()),
        f"median_{name}": float(1e3 * middle),
        f"p99_{name}": float(1e3 * high),
    }
