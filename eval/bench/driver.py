"""`vllm bench serve`, as it is: it sends requests to a server and takes the times."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lengthpred.errors import BackendError
from lengthpred.eval.bench.served import Served
from lengthpred.eval.bench.server import tail
from lengthpred.eval.replay.draws import Drawn
from lengthpred.eval.replay.workload import Workload
from lengthpred.serving.vllm.middleware import ARM_HEADER

__all__ = ["Driver"]

TOOL = (sys.executable, "-P", "-m", "vllm.entrypoints.cli.main", "bench", "serve")


@dataclass(frozen=True)
class Driver:
    """Sends draws to the server at `url`.

    model, tokenizer  the served name, and where its tokenizer lies
    folder            for what it is given and what it says
    """

    url: str
    model: str
    tokenizer: str
    folder: Path

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
        data, result = self.folder / "requests.jsonl", self.folder / "result.json"
        _write(drawn, data)
        result.unlink(missing_ok=True)
        command = [*TOOL, *("--backend", "openai", "--endpoint", "/v1/completions")]
        command += ["--base-url", self.url, "--model", self.model, "--tokenizer", self.tokenizer]
        command += ["--dataset-name", "custom", "--dataset-path", str(data), "--disable-shuffle"]
        command += ["--custom-output-len", "-1", "--skip-chat-template", "--ignore-eos"]
        command += ["--num-prompts", str(len(drawn.numbers)), "--seed", str(seed)]
        command += ["--request-rate", "inf" if rate is None else f"{rate:.9g}"]
        command += ["--burstiness", f"{burstiness:g}", "--request-id-prefix", f"{ids}-"]
        command += ["--header", f"{ARM_HEADER.decode()}={arm}", "--temperature", "0"]
        command += ["--disable-tqdm", "--save-result", "--save-detailed"]
        command += ["--result-dir", str(self.folder), "--result-filename", result.name]
        log = self.folder / "bench.log"
        with log.open("wb") as out:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, check=False
            )
        if done.returncode or not result.exists():
            raise BackendError(f"`vllm bench serve` failed{tail(log)}")
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
