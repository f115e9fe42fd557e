"""`vllm bench serve`, as it is: it sends requests to a server and takes the times."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from lengthpred.errors import BackendError
from lengthpred.eval.bench.child import Child
from lengthpred.eval.bench.served import Served
from lengthpred.eval.bench.server import tail
from lengthpred.eval.replay.draws import Drawn
from lengthpred.eval.replay.workload import Workload
from lengthpred.serving.vllm.middleware import ARM_HEADER

__all__ = ["Driver"]

TOOL, LOG = "lengthpred.eval.bench.client_child", "bench.log"


class Driver(Child):
    """Sends draws to the server at `url`, while it is entered.

    model, tokenizer  the served name, and where its tokenizer lies
    folder            for what it is given and what it says

    Raises BackendError where the tool does not start.
    """

    def __init__(self, url: str, model: str, tokenizer: str, folder: Path) -> None:
        self._folder = folder
        fixed = ["--backend", "openai", "--endpoint", "/v1/completions", "--base-url", url]
        fixed += ["--model", model, "--tokenizer", tokenizer, "--dataset-name", "custom"]
        fixed += ["--disable-shuffle", "--skip-chat-template", "--custom-output-len", "-1"]
        fixed += ["--ignore-eos", "--temperature", "0", "--disable-tqdm"]
        fixed += ["--save-result", "--save-detailed", "--result-dir", str(folder)]
        super().__init__(TOOL, "`vllm bench serve`", fixed, folder / LOG)

    def run(
        self,
        drawn: Drawn,
        arm: str,
        ids: str,
        *,
        rate: float | None = None,
        burstiness: float = 1.0,
        seed: int = 0,
    ) -> Served:
        """Send all requests under one order, at once or at a rate a second; wait for all.

        arm is the name of the order, ids the name before the number in each call's id. The same
        seed has the same arrivals. Answers are as long as drawn. Raises BackendError where the tool
        or a request fails.
        """
        data, result = self._folder / "requests.jsonl", self._folder / "result.json"
        _write(drawn, data)
        result.unlink(missing_ok=True)
        arguments = ["--dataset-path", str(data), "--num-prompts", str(len(drawn.numbers))]
        arguments += ["--seed", str(seed), "--burstiness", f"{burstiness:g}"]
        arguments += ["--request-rate", "inf" if rate is None else f"{rate:.9g}"]
        arguments += ["--request-id-prefix", f"{ids}-", "--result-filename", result.name]
        arguments += ["--header", f"{ARM_HEADER.decode()}={arm}"]
        self.ask({"arguments": arguments})
        if not result.exists():
            raise BackendError(f"`vllm bench serve` failed{tail(self._folder / LOG)}")
        return _served(json.loads(result.read_text("utf-8")), drawn)


def _write(drawn: Drawn, path: Path) -> None:
    lines = [
        json.dumps({"prompt": request.prompt, "output_tokens": int(length)})
        for request, length in zip(drawn.rows.requests, drawn.output_tokens, strict=True)
    ]
    path.write_text("\n".join(lines) + "\n", "utf-8")


def _served(result: dict[str, Any], drawn: Drawn) -> Served:
    """Of a result with details, by the times at which requests were sent."""
    failed = [str(error) for error in result["errors"] if error]
    if failed:
        raise BackendError(f"{len(failed)} requests failed: {failed[0].strip()[-500:]}")
    lengths = np.array(result["output_lens"], np.int64)
    if (lengths != drawn.output_tokens).any():
        raise BackendError("the server did not write answers as long as it was told")
    columns = ("start_times", "ttfts", "latencies")
    sent, first, last = (np.array(result[name], np.float64) for name in columns)
    order = np.argsort(sent, kind="stable")
    prompts = np.array(result["input_lens"], np.int64)
    work = Workload(sent[order] - sent.min(), prompts[order], lengths[order])
    return Served(work, work.arrival_s + first[order], work.arrival_s + last[order])
