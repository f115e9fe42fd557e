"""Generate-and-count on recorded samples, against what was measured before it was written."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from lengthpred import metrics
from lengthpred.base import IntArray
from lengthpred.data.table import Rows
from lengthpred.models.backends.base import Source, open_backend
from lengthpred.models.length_map import prompt_length
from lengthpred.training.slm import fit_map
from tests.castillo import CORPORA, LLAMA_1B, LLAMA_3B, MISTRAL, rows_of, save

pytestmark = pytest.mark.shared_data

# Kendall's tau of one sample / of the mean of ten, averaged over which of Mistral's is the truth.
PAIRS = {
    LLAMA_1B: {
        "Alpaca": (0.652, 0.672),
        "DollyDataset": (0.574, 0.586),
        "BigCodeBench": (0.323, 0.346),
        "DS1000": (0.215, 0.246),
        "Mbpp": (0.317, 0.404),
    },
    LLAMA_3B: {
        "Alpaca": (0.660, 0.673),
        "DollyDataset": (0.577, 0.581),
        "ShareGPT": (0.501, 0.519),
        "BigCodeBench": (0.370, 0.414),
        "DS1000": (0.256, 0.294),
        "Mbpp": (0.243, 0.273),
        "Apps": (0.156, 0.213),
    },
}
CASES = [(model, corpus) for model, found in PAIRS.items() for corpus in found]


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("samples")
    return {
        model: save(rows_of(model, CORPORA), folder / f"{number}.parquet").path
        for number, model in enumerate(PAIRS)
    }


def pairs(path: Path, corpus: str) -> tuple[Rows, IntArray, npt.NDArray[np.bool_]]:
    """Mistral's rows that the small model answered, and its ten samples of each."""
    rows = rows_of(MISTRAL, (corpus,))
    backend = open_backend(Source("recorded", samples=str(path)))
    lengths, censored = backend.generate_lengths(rows.requests, 10, 1.0, 10**6, None, 0)
    there = ~censored.any(axis=1)
    return rows.take(there), lengths[there], censored[there]


@pytest.mark.parametrize(("model", "corpus"), CASES)
def test_the_pair(model: str, corpus: str, samples: dict[str, Path]) -> None:
    rows, lengths, _ = pairs(samples[model], corpus)
    truth = rows.lengths.reshape(-1, 10)
    one = [metrics.tau(lengths[:, j], truth[:, k]) for j in range(10) for k in range(10)]
    ten = [metrics.tau(lengths.mean(axis=1), truth[:, k]) for k in range(10)]
    assert (np.mean(one), np.mean(ten)) == pytest.approx(PAIRS[model][corpus], abs=0.005)


def calibrated(path: Path, corpus: str, count: int | None, draws: int) -> dict[str, float]:
    """Means over draws of training pairs: one sample of each model, the rest is asked.

    count: training pairs; None for half of all.
    """
    rows, lengths, censored = pairs(path, corpus)
    answers, prompts = rows.lengths.reshape(-1, 10), prompt_length(rows.requests)
    found: dict[str, list[float]] = {"covered": [], "mae": [], "raw": [], "constant": []}
    for seed in range(draws):
        rng = np.random.default_rng(seed)
        order = rng.permutation(len(rows))
        train, test = np.split(order, [count or len(rows) // 2])
        truth = answers[np.arange(len(rows)), rng.integers(10, size=len(rows))]
        picked = rng.integers(10, size=(len(rows), 1))
        small = np.take_along_axis(lengths, picked, axis=1)
        open_ = np.take_along_axis(censored, picked, axis=1)
        stopped = np.zeros(len(rows), bool)
        single = replace(rows, lengths=truth, censored=stopped, owner=np.arange(len(rows)))
        fitted = fit_map(single.take(train), small[train], open_[train])
        answer = fitted(small[test], open_[test], prompts[test])
        place = metrics.pit(answer, truth[test], stopped[test], rng.random(len(test)))
        found["covered"].append(float(((place > 0.1) & (place < 0.9)).mean()))
        found["mae"].append(float(np.abs(answer.median() - truth[test]).mean()))
        found["raw"].append(float(np.abs(small[test, 0] - truth[test]).mean()))
        best = np.abs(np.median(truth[test]) - truth[test]).mean()
        found["constant"].append(float(best))
    return {name: float(np.mean(values)) for name, values in found.items()}


@pytest.mark.parametrize("corpus", PAIRS[LLAMA_1B])
def test_calibrated_against_the_raw_count_and_the_best_constant(
    corpus: str, samples: dict[str, Path]
) -> None:
    found = calibrated(samples[LLAMA_1B], corpus, None, 20)
    assert found["mae"] < 0.75 * found["raw"]
    assert found["mae"] < 0.97 * found["constant"]


@pytest.mark.parametrize("corpus", PAIRS[LLAMA_1B])
def test_intervals_from_fifty_pairs(corpus: str, samples: dict[str, Path]) -> None:
    assert 0.76 < calibrated(samples[LLAMA_1B], corpus, 50, 200)["covered"] < 0.84
