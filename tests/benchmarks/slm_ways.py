"""Three ways to ask one small model about a length, on the same pairs, prompts and cores.

    python -m tests.benchmarks.slm_ways TRAIN.parquet TEST.parquet --model FOLDER

For each way: tau, MAE and coverage with 95 % bootstrap intervals over the test prompts, and the
milliseconds of a request, alone and in a batch of 64, by the clock and of the CPU. One sample of
answers serves all caps: an answer under a lower cap is the beginning of the same one. With --keep
what the model said is kept in a folder, and a second run asks only for what is missing. Set
OMP_NUM_THREADS to the cores that are to be used; times are of this machine, and those of the clock
move with its load.
"""

import argparse
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from lengthpred.base import FloatArray, Predictor, Request
from lengthpred.data.table import Rows, Table
from lengthpred.distribution import LengthDistribution
from lengthpred.metrics import losses, tau
from lengthpred.models.backends.base import Source
from lengthpred.models.backends.transformers import TransformersBackend
from lengthpred.models.controls import fit_constant, fit_prompt_length
from lengthpred.models.length_map import apply_maps
from lengthpred.models.slm import GenerateAndCount, Generation
from lengthpred.models.slm_prefill import Prefill, features
from lengthpred.models.slm_states import STATED_TOKENS, StatedLength
from lengthpred.training import boosted
from lengthpred.training.settings import BoostedSettings, SlmPrefillSettings
from lengthpred.training.slm import fit_maps
from lengthpred.training.slm_prefill import fit_head

DRAWS = 1000
READ_AT_ONCE = SlmPrefillSettings.model_fields["batch"].default
STATED = Generation(3, 1.0, STATED_TOKENS)
WAYS = ("slm-prefill", "slm-states", "slm")
COLUMNS = ("tau", "MAE", "coverage 80", "ms alone (CPU)", "ms in 64 (CPU)")


def main() -> None:
    """Read the arguments, ask, fit, score, print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("train", type=Path)
    parser.add_argument("test", type=Path)
    parser.add_argument("--model", required=True)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--pairs", type=int, default=150)
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--caps", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--samples", type=int, default=2, help="answers to a prompt")
    parser.add_argument("--alone", type=int, default=4, help="requests to time one by one")
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    train, test = (
        Table(path).rows(count, 1)
        for path, count in ((given.train, given.pairs), (given.test, given.prompts))
    )
    backend = TransformersBackend(Source("transformers", given.model, dtype=given.dtype))
    print(f"{len(train)} pairs, {len(test)} test prompts, {given.dtype}", flush=True)
    print(f"{'':<28}" + "".join(f"{name:>22}" for name in COLUMNS), flush=True)
    for name, answer, predictor in ways(backend, train, test, given):
        cells = [*accuracy(answer, test), *cost(predictor, test.requests, given.alone)]
        print(f"{name:<28}" + "".join(f"{cell:>22}" for cell in cells), flush=True)


def ways(backend: TransformersBackend, train: Rows, test: Rows, given: argparse.Namespace) -> Any:
    """(name, answer to the test prompts, predictor) of each, the cheap ones first."""
    rng, keep, longest = np.random.default_rng(0), given.keep, max(given.caps)
    requests, count = [*train.requests, *test.requests], len(train)
    # Scores of rows that a booster learnt are no scores to calibrate on.
    learnt = np.random.default_rng(1).permutation(count) < 0.7 * count
    few = BoostedSettings(min_leaf_rows=10)
    controls: dict[str, Predictor] = {
        "constant": fit_constant(train),
        "prompt-length": fit_prompt_length(train),
        "boosted": boosted.train(train.take(learnt), train.take(~learnt), few, rng),
    }
    for name, control in controls.items():
        yield name, control.predict(test.requests), control
    if "slm-prefill" in given.ways:
        reader = TransformersBackend(replace(backend.source, batch=READ_AT_ONCE))
        (table,) = kept(keep, "read", lambda: (features(reader, requests),))
        head = fit_head(reader.source, table[:count], train, 5, rng, reader)
        yield "slm-prefill", head.table(score(head, table[count:], test)), head
        reader.close()
    if "slm-states" in given.ways:
        asking = StatedLength(backend.source, STATED, {}, backend)
        lengths, censored = kept(keep, "stated", lambda: asking.samples(requests, None))
        maps = fit_maps(train, lengths[:count], censored[:count])
        answer = apply_maps(maps, test.requests, lengths[count:], censored[count:])
        yield (
            f"slm-states, n={STATED.n}",
            answer,
            StatedLength(backend.source, STATED, maps, backend),
        )
    if "slm" not in given.ways:
        return
    writing = Generation(given.samples, 1.0, longest)
    writer = GenerateAndCount(backend.source, writing, {}, backend)
    lengths, censored = kept(
        keep, f"written-{given.samples}-{longest}", lambda: writer.samples(requests, None)
    )
    for cap in sorted(given.caps):
        for n in range(1, given.samples + 1):
            cut = np.minimum(lengths[:, :n], cap)
            stopped = censored[:, :n] | (lengths[:, :n] >= cap)
            maps = fit_maps(train, cut[:count], stopped[:count])
            answer = apply_maps(maps, test.requests, cut[count:], stopped[count:])
            made = GenerateAndCount(backend.source, Generation(n, 1.0, cap), maps, backend)
            yield f"slm, cap {cap}, n={n}", answer, made


def kept(folder: Path | None, name: str, ask: Callable[[], tuple[Any, ...]]) -> list[Any]:
    """What `ask` gives, from the folder where it is there already."""
    path = folder / f"{name}.npz" if folder else None
    if path and path.is_file():
        with np.load(path) as arrays:
            return list(arrays.values())
    found = ask()
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, *found)
    return list(found)


def score(head: Prefill, table: FloatArray, rows: Rows) -> FloatArray:
    """As `Prefill.score`, of features that are known."""
    level = np.array([head.levels.get(request.model, 0.0) for request in rows.requests])
    found: FloatArray = table @ head.weights + head.bias + level
    return found


def accuracy(answer: LengthDistribution, test: Rows) -> list[str]:
    """tau, MAE and coverage, each with the interval of a bootstrap over prompts."""
    rng = np.random.default_rng(0)
    truth, median = test.truth, answer.median()
    by_row = losses(answer, truth, test.truth_censored, rng.random(len(test)))
    draws = rng.integers(len(test), size=(DRAWS, len(test)))
    shown = []
    for digits, value, resampled in (
        (2, tau(median, truth), [tau(median[draw], truth[draw]) for draw in draws]),
        (0, by_row[:, 0].mean(), by_row[draws, 0].mean(axis=1)),
        (2, by_row[:, -1].mean(), by_row[draws, -1].mean(axis=1)),
    ):
        low, high = np.percentile(resampled, [2.5, 97.5])
        shown.append(f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]")
    return shown


def cost(predictor: Predictor, requests: Sequence[Request], alone: int) -> list[str]:
    """Milliseconds of a request alone (median) and in a batch of 64: of the clock, of the CPU."""
    predictor.predict(requests[:1])  # what is loaded on first use is loaded now
    single = [timed(predictor, [request]) for request in requests[1 : alone + 1]]
    batch = requests[:64]
    found = np.median(single, axis=0), np.array(timed(predictor, batch)) / len(batch)
    return [f"{wall:.1f} ({cpu:.1f})" for wall, cpu in found]


def timed(predictor: Predictor, requests: Sequence[Request]) -> tuple[float, float]:
    """Milliseconds of one call: of the clock, and of this process on all cores."""
    wall, cpu = time.perf_counter(), time.process_time()
    predictor.predict(requests)
    return (time.perf_counter() - wall) * 1e3, (time.process_time() - cpu) * 1e3


if __name__ == "__main__":
    main()
