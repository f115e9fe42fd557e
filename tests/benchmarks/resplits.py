"""How well the promises hold over many splits: coverage, false alarms, and what is learnt.

    lengthpred data import sharegpt --format sharegpt --tokenizer mistral-v3 --out sharegpt.parquet
    python -m tests.benchmarks.resplits sharegpt.parquet --splits 20

Each split is by group and content, with the filter of docs/benchmarks.md; everything is trained
on every turn. Prints a line a split, then means with their standard errors.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np

from lengthpred.base import Predictor
from lengthpred.data.splits import SplitSettings, split_table
from lengthpred.data.table import Rows, Table
from lengthpred.metrics import scores
from lengthpred.models.controls import fit_constant
from lengthpred.training import boosted, detectors, histogram
from lengthpred.training.settings import BoostedSettings, DetectorSettings, HistogramSettings

ALPHA = 0.05
SHOWN = ("tau", "mae", "crps", "coverage_80")


def main() -> None:
    """Read the arguments, run the splits, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("table", type=Path)
    parser.add_argument("--splits", type=int, default=20)
    arguments = parser.parse_args()
    found: list[dict[str, float]] = []
    for seed in range(arguments.splits):
        with tempfile.TemporaryDirectory() as folder:
            found.append(_one(arguments.table, Path(folder), seed))
        line = ", ".join(f"{name} {value:.3f}" for name, value in found[-1].items())
        print(f"split {seed}: {line}", flush=True)
    print()
    for name in found[0]:
        values = np.array([one[name] for one in found])
        error = values.std(ddof=1) / len(values) ** 0.5 if len(values) > 1 else float("nan")
        low, high = values.min(), values.max()
        print(f"{name:<28} mean {values.mean():.4f} ± {error:.4f}, from {low:.4f} to {high:.4f}")


def _one(table: Path, folder: Path, seed: int) -> dict[str, float]:
    settings = SplitSettings(by="group", seed=seed, max_prompt_tokens=1024, max_output_tokens=2047)
    split_table(table, folder, settings)
    train, held, test = (
        Table(folder / f"{part}.parquet").rows() for part in ("train", "calibration", "test")
    )
    rng = np.random.default_rng(seed)
    predictors: dict[str, Predictor] = {
        "constant": fit_constant(train),
        "histogram": histogram.train(train, held, HistogramSettings(), rng),
        "boosted": boosted.train(train, held, BoostedSettings(), rng),
    }
    first = test.take(test.columns["turn"] == 0)
    found: dict[str, float] = {}
    for name, predictor in predictors.items():
        for turns, rows in (("all", test), ("first", first)):
            found |= _scores(f"{name} {turns}", predictor, rows, rng)
    detector = detectors.train(train, held, DetectorSettings(), rng)
    found["false alarms"] = float((detector.p_value(test.requests) <= ALPHA).mean())
    return found


def _scores(
    name: str, predictor: Predictor, rows: Rows, rng: np.random.Generator
) -> dict[str, float]:
    answer = predictor.predict(rows.requests)
    all_scores = scores(answer, rows.truth, rows.truth_censored, rng)
    return {f"{name} {metric}": all_scores[metric] for metric in SHOWN}


if __name__ == "__main__":
    main()
