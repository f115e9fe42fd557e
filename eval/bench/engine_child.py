"""The process of `OfflineEngine`: an `LLM` that writes batches as long as it is told."""

import os
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

from lengthpred.eval.bench.child import answer_jobs
from lengthpred.ordering import priority
from lengthpred.serving.news import Outbox
from lengthpred.serving.vllm.launch import WATERMARK


def main() -> None:
    """Write the batch of each job; its arguments are the model and what else vLLM takes."""
    answer_jobs(lambda arguments: partial(_run, _engine(arguments)))


def _engine(arguments: list[str]) -> Any:
    from vllm import LLM, EngineArgs
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    parser = EngineArgs.add_cli_args(FlexibleArgumentParser())
    chosen = EngineArgs.from_cli_args(parser.parse_args(["--model", *arguments]))
    chosen.scheduling_policy, chosen.disable_log_stats = "priority", False
    if not any(one.partition("=")[0] == "--watermark" for one in arguments):
        chosen.watermark = float(WATERMARK)  # as `serve` does
    return LLM.from_engine_args(chosen)


def _run(engine: Any, job: dict[str, Any]) -> dict[str, Any]:
    """Seconds from the moment when the last request is there."""
    from vllm import SamplingParams

    limits = [
        SamplingParams(max_tokens=n, ignore_eos=True, temperature=0, detokenize=False)
        for n in job["lengths"]
    ]
    # Our scheduler takes late keys as far as the time of arrival allows, so that all keys need one.
    now = int(priority([0.0], [time.time()])[0])
    keys = [now + key for key in job["keys"]]
    done, over = [], threading.Event()
    telling = threading.Thread(target=_tell_keys, args=(engine, job["late"], now, over))
    telling.start()
    try:
        done = engine.generate(job["prompts"], limits, priority=keys, use_tqdm=False)
    finally:
        over.set()
        telling.join()
    begun = max(one.metrics.queued_ts for one in done)
    return {
        "first_token_s": [one.metrics.first_token_ts - begun for one in done],
        "finish_s": [one.metrics.last_token_ts - begun for one in done],
        "prompt_tokens": [len(one.prompt_token_ids) for one in done],
        "preemptions": sum(one.metrics.num_preemptions for one in done),
    }


def _tell_keys(engine: Any, late: dict[str, Any] | None, now: int, over: threading.Event) -> None:
    """Tell late keys to the scheduler, one after the other, until the batch is done."""
    if late is None:
        return
    # An LLM numbers its requests.
    first = engine.request_counter.counter
    outbox = Outbox(Path(os.environ["LENGTHPRED_SOCKETS"]))
    for request, key in zip(late["requests"], late["keys"], strict=True):
        if over.wait(late["seconds"]):
            break
        outbox.tell(str(first + request), now + key)
    outbox.close()


if __name__ == "__main__":
    main()
