"""Coverage of 80 % intervals before and after traffic shifts, and the alarms.

    python -m tests.benchmarks.drift TABLE OTHER.parquet... [--splits 5] [--kinds boosted histogram]

TABLE is as `lengthpred data import` writes it; the others need the columns `prompt` and
`response_tokens`. Each split of TABLE is by group, with the filter of docs/benchmarks.md; the
stream is the test part in random order and then 1,500 rows of another file. Truths become known
ten at a time. Beside that: the time that the correction adds to an answer.
"""

import argparse
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from lengthpred.base import FloatArray, IntArray, Predictor, Request
from lengthpred.data.rows import Rows
from lengthpred.data.splits import SplitSettings, split_table
from lengthpred.data.table import Table
from lengthpred.distribution import LengthDistribution
from lengthpred.metrics import crps, pit
from lengthpred.models.conformal import Conformal, paths_of
from lengthpred.models.drift import ALL_TRAFFIC, DriftMonitor
from lengthpred.models.recalibration import Recalibration
from lengthpred.training import boosted, histogram
from lengthpred.training.settings import BoostedSettings, HistogramSettings

LATE, AFTER = 10, 1_500
STATIONARY = 20_000
SHOWN = ("0-100", "100-200", "200-300", "400-500", "500-1500")


def main() -> None:
    """Read the arguments, run the splits, print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("table", type=Path)
    parser.add_argument("others", type=Path, nargs="*")
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--kinds", nargs="+", default=["boosted", "histogram"])
    arguments = parser.parse_args()
    others = {path.stem: _other(path) for path in arguments.others}
    found: dict[str, dict[str, list[float]]] = {}
    for seed in range(arguments.splits):
        with tempfile.TemporaryDirectory() as folder:
            parts = _split(arguments.table, Path(folder), seed)
        for kind in arguments.kinds:
            measured = _measure(_trained(kind, *parts[:2], seed), parts[2], others, seed)
            for name, value in measured.items():
                found.setdefault(kind, {}).setdefault(name, []).append(value)
            print(f"split {seed}, {kind}: done", flush=True)
    for kind, measures in found.items():
        print(f"\n{kind}")
        for name, values in measures.items():
            error = np.std(values, ddof=1) / len(values) ** 0.5 if len(values) > 1 else np.nan
            spread = f"{min(values):.3f} to {max(values):.3f}"
            print(f"  {name:<52} {np.mean(values):.3f} ± {error:.3f}, {spread}")


def _measure(
    base: Predictor,
    test: Rows,
    others: Mapping[str, tuple[list[Request], IntArray]],
    seed: int,
) -> dict[str, float]:
    rng = np.random.default_rng(seed)
    test = test.take(rng.permutation(len(test)))
    dist, truth = base.predict(test.requests), test.truth
    plain, mended, state = _replayed(dist, truth, test.requests, Recalibration(), rng)
    plain_crps, mended_crps = _scores(base, test)
    found = {
        "in distribution, as it is": plain.mean(),
        "in distribution, corrected": mended.mean(),
        "in distribution, CRPS corrected / as it is": mended_crps / plain_crps,
        "microseconds a request that the correction adds": _cost(base, test),
    }
    many = rng.integers(0, len(test), STATIONARY)
    calm = DriftMonitor().observe(
        [test.requests[i] for i in many], dist[many], truth[many], np.zeros(len(many), bool)
    )
    found["alarms in 10,000 stationary requests"] = len(calm) * 10_000 / STATIONARY
    for name, (requests, lengths) in others.items():
        some = rng.permutation(len(lengths))[:AFTER]
        asked, truths = [requests[i] for i in some], lengths[some]
        shifted = base.predict(asked)
        plain, mended, _ = _replayed(shifted, truths, asked, state, rng)
        found[f"{name}, as it is"] = plain.mean()
        for span in SHOWN:
            start, end = map(int, span.split("-"))
            found[f"{name}, corrected, {span}"] = mended[start:end].mean()
        found[f"{name}, requests until the alarm"] = _delay(test, dist, shifted, asked, truths)
    return {name: float(value) for name, value in found.items()}


def _replayed(
    dist: LengthDistribution,
    truth: IntArray,
    requests: list[Request],
    state: Recalibration,
    rng: np.random.Generator,
) -> tuple[FloatArray, FloatArray, Recalibration]:
    """Whether each truth was inside, as it is and corrected, and the correction at the end."""
    uniform, paths = rng.random(len(dist)), paths_of(requests)
    found = []
    for start in range(0, len(dist), LATE):
        at = slice(start, start + LATE)
        part, stopped = dist[at], np.zeros(len(dist[at]), bool)
        both = (part, state(part, paths[at]))
        found.append(
            [np.abs(pit(one, truth[at], stopped, uniform[at]) - 0.5) <= 0.4 for one in both]
        )
        state = state.learnt(part, paths[at], truth[at], stopped)
    plain, mended = (np.concatenate(column) for column in zip(*found, strict=True))
    return plain.astype(np.float64), mended.astype(np.float64), state


def _scores(base: Predictor, test: Rows) -> tuple[float, float]:
    """CRPS of the second half, as it is and by a correction that saw the first one."""
    half = len(test) // 2
    first, second = test.take(np.arange(half)), test.take(np.arange(half, len(test)))
    made = Conformal(base)
    made.correct(first.requests, first.truth, first.truth_censored)
    answers = (base.predict(second.requests), made.predict(second.requests))
    plain, mended = (crps(one, second.truth, second.truth_censored).mean() for one in answers)
    return float(plain), float(mended)


def _delay(
    test: Rows,
    calm: LengthDistribution,
    shifted: LengthDistribution,
    requests: list[Request],
    lengths: IntArray,
) -> float:
    """Requests of the other file until the alarm for all traffic; AFTER when there is none."""
    monitor = DriftMonitor()
    monitor.observe(test.requests, calm, test.truth, test.truth_censored)
    alarms = monitor.observe(requests, shifted, lengths, np.zeros(len(lengths), bool))
    at = [alarm.at - len(test) for alarm in alarms if alarm.key == ALL_TRAFFIC]
    return float(at[0] if at else AFTER)


def _cost(base: Predictor, test: Rows) -> float:
    """Median over requests, one at a time: the corrected answer's time less the base's."""
    made = Conformal(base)
    made.correct(test.requests[:500], test.truth[:500], test.truth_censored[:500])
    dist, paths = base.predict(test.requests[:500]), paths_of(test.requests[:500])
    correction, times = made.correction, []
    for i in range(500):
        one = dist[i]
        begun = time.perf_counter()
        correction(one, paths[i : i + 1])
        times.append(time.perf_counter() - begun)
    return float(np.median(times) * 1e6)


def _trained(kind: str, train: Rows, held: Rows, seed: int) -> Predictor:
    rng = np.random.default_rng(seed)
    if kind == "histogram":
        return histogram.train(train, held, HistogramSettings(), rng)
    return boosted.train(train, held, BoostedSettings(), rng)


def _split(table: Path, folder: Path, seed: int) -> tuple[Rows, Rows, Rows]:
    settings = SplitSettings(by="group", seed=seed, max_prompt_tokens=1024, max_output_tokens=2047)
    split_table(table, folder, settings)
    names = ("train", "calibration", "test")
    train, held, test = (Table(folder / f"{name}.parquet").rows() for name in names)
    return train, held, test


def _other(path: Path) -> tuple[list[Request], IntArray]:
    columns = pq.read_table(path, columns=["prompt", "response_tokens"]).to_pydict()
    lengths = np.array(columns["response_tokens"], np.int64)
    return [Request(prompt=prompt) for prompt in columns["prompt"]], lengths


if __name__ == "__main__":
    main()
