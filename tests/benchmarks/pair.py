"""Predictors beside a small model's answers, where both models answered each prompt ten times.

    python -m tests.benchmarks.pair TEST.parquet DIR... --large MODEL --small MODEL

TEST is a table with rows of both models on the same prompts, such as the test part of CASTILLO. For
each domain, Kendall's tau of the large model's lengths with: the mean of its own other samples (an
estimate of what can be known), one sample and the mean of all of the small model's, and the median
of each predictor. All are averaged over which of the large model's samples is the truth; the
interval is of a bootstrap over prompts, of a predictor's tau less that of one small sample.
"""

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lengthpred import load
from lengthpred.base import FloatArray
from lengthpred.data.table import Rows, Table
from lengthpred.metrics import tau

Lengths = npt.NDArray[np.float64]
RESAMPLES = 200


def main() -> None:
    """Read the arguments, ask, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("test", type=Path)
    parser.add_argument("artifacts", nargs="+")
    parser.add_argument("--large", default="Mistral-7B-Instruct-v0.3")
    parser.add_argument("--small", default="Llama-3.2-1B-Instruct")
    arguments = parser.parse_args()
    rows = Table(arguments.test).rows()
    large, small = (samples_of(rows, name) for name in (arguments.large, arguments.small))
    asked = {
        request.prompt: request for request in rows.requests if request.model == arguments.large
    }
    domain = dict(zip((r.prompt for r in rows.requests), rows.columns["domain"], strict=True))
    loaded = {Path(name).name: load(name) for name in arguments.artifacts}
    print("| domain | prompts | ceiling | small, one | small, mean |", *loaded, sep=" | ")
    for name in sorted(set(domain.values())):
        prompts = [p for p in large if domain[p] == name]
        both = [p for p in prompts if p in small]
        chosen = both or prompts
        truth = np.array([large[p] for p in chosen])
        line = [f"{name} | {len(chosen)} | {_ceiling(truth):.3f}"]
        one = np.array([small[p] for p in both]) if both else None
        line += (
            ["", ""]
            if one is None
            else [f"{_pairs(one, truth):.3f}", f"{_of(one.mean(1), truth):.3f}"]
        )
        for predictor in loaded.values():
            point = predictor.predict([asked[p] for p in chosen]).median()
            line.append(
                f"{_of(point, truth):.3f}" + ("" if one is None else _apart(point, one, truth))
            )
        print("|", " | ".join(line), "|", flush=True)


def samples_of(rows: Rows, model: str) -> dict[str, list[int]]:
    """The lengths of a model's answers, by prompt."""
    found: dict[str, list[int]] = {}
    for owner, length in zip(rows.owner, rows.lengths, strict=True):
        request = rows.requests[owner]
        if request.model == model:
            found.setdefault(request.prompt, []).append(int(length))
    return found


def _of(point: FloatArray, truth: Lengths) -> float:
    return float(np.mean([tau(point, column) for column in truth.T]))


def _pairs(one: Lengths, truth: Lengths) -> float:
    return float(np.mean([_of(column, truth) for column in one.T]))


def _ceiling(truth: Lengths) -> float:
    others = (truth.sum(axis=1, keepdims=True) - truth) / (truth.shape[1] - 1)
    return float(np.mean([tau(a, b) for a, b in zip(others.T, truth.T, strict=True)]))


def _apart(point: FloatArray, one: Lengths, truth: Lengths) -> str:
    rng = np.random.default_rng(0)
    found = []
    for _ in range(RESAMPLES):
        at = rng.integers(len(truth), size=len(truth))
        # One pair of samples a resample: the mean over resamples is over them all.
        i, j = rng.integers(one.shape[1]), rng.integers(truth.shape[1])
        found.append(tau(point[at], truth[at, j]) - tau(one[at, i], truth[at, j]))
    low, high = np.quantile(found, [0.025, 0.975])
    return f" ({np.mean(found):+.3f}, {low:+.3f} to {high:+.3f})"


if __name__ == "__main__":
    main()
