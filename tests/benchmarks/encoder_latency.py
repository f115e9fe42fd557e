"""What an encoder costs at 32, 64 and 128 tokens, on one core, one request at a time.

    python -m tests.benchmarks.encoder_latency ENCODER [ENCODER...]

Each line: an artifact, its size, and the p50 in milliseconds of a whole prediction at each number
of tokens, with the share of it that is not the graph. Run it on an idle machine; compare lines of
one run.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from lengthpred import Request, load
from lengthpred.models.encoder import Encoder

TOKENS = (32, 64, 128)
RUNS = 60


def main() -> None:
    """Read the arguments, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("artifacts", nargs="+", type=Path)
    arguments = parser.parse_args()
    print("artifact | MB |", " | ".join(f"{tokens} tokens" for tokens in TOKENS))
    for path in arguments.artifacts:
        encoder = load(path)
        if not isinstance(encoder, Encoder):
            raise SystemExit(f"{path} holds no encoder")
        cells = [_cell(encoder, tokens) for tokens in TOKENS]
        print(f"{path.name} | {len(encoder.graph) / 1e6:.1f} |", " | ".join(cells), flush=True)


def _cell(encoder: Encoder, tokens: int) -> str:
    request = Request(prompt=_prompt(encoder, tokens))
    rows = encoder.reader.ids([request])
    table, model = np.zeros((1, _features(encoder)), np.float32), np.zeros(1, np.int64)
    whole = _p50(lambda: encoder.predict([request]))
    graph = _p50(lambda: encoder._run(rows, table, model))
    return f"{1e3 * whole:.1f} ({100 * (1 - graph / whole):.0f} %)"


def _prompt(encoder: Encoder, tokens: int) -> str:
    """A prompt of so many token ids."""
    words = "write a short story of the sea and tell me how it ends".split()
    text: list[str] = []
    while len(encoder.reader.ids([Request(prompt=" ".join(text) or "a")])[0]) < tokens:
        text.append(words[len(text) % len(words)])
    return " ".join(text)


def _features(encoder: Encoder) -> int:
    shapes = {one.name: one.shape for one in encoder._session.get_inputs()}
    width: int = shapes["numbers"][1]
    return width


def _p50(call: Callable[[], object]) -> float:
    times = []
    for _ in range(RUNS):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return float(np.median(times[5:]))


if __name__ == "__main__":
    main()
