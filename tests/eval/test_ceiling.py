"""The noise ceiling against brute force, known noise, and the figures measured on CASTILLO."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from lengthpred import metrics
from lengthpred.data.table import Rows
from lengthpred.eval.ceiling import CEILINGS, leave_one_out, score_ceilings
from lengthpred.eval.compare import compare
from lengthpred.eval.output import read_results
from tests.castillo import MISTRAL, castillo
from tests.cli.commands import answered
from tests.eval.cases import make_rows


def ragged() -> Rows:
    """Rows of 1 to 5 samples, some of them equal; a quarter of all lengths are censored."""
    rng = np.random.default_rng(3)
    rows = make_rows(80)
    owner = np.repeat(np.arange(80), np.arange(80) % 5 + 1)
    lengths = rng.integers(1, 12, len(owner))
    return replace(rows, lengths=lengths, owner=owner, censored=rng.random(len(owner)) < 0.25)


def test_each_round_takes_another_sample_from_the_others() -> None:
    rows = ragged()
    known = leave_one_out(rows)
    assert known is not None
    assert known.row.tolist() == [i for i in range(80) if i % 5]
    assert known.truth.shape == (5, 64)
    for j, row in enumerate(known.row):
        samples = rows.lengths[rows.owner == row].tolist()
        stopped = rows.censored[rows.owner == row]
        for k in range(5):
            i = k % len(samples)
            others = samples[:i] + samples[i + 1 :]
            assert known.truth[k, j] == samples[i] and known.censored[k, j] == stopped[i]
            assert known.mean[k, j] == pytest.approx(np.mean(others))
            assert known.median[k, j] == np.median(others)
        pairs = [abs(a - b) for p, a in enumerate(samples) for b in samples[:p]]
        assert known.noise[j] == pytest.approx(np.mean(pairs) / 2)


def test_the_scores_are_means_over_the_rounds() -> None:
    rows = ragged()
    known = leave_one_out(rows)
    assert known is not None
    picked = np.arange(10, 60)
    scored, n = score_ceilings(known, rows, picked, 50, 0)
    used = np.isin(known.row, picked)
    assert n == used.sum() == 40
    for name, points in zip(CEILINGS, (known.mean, known.median), strict=True):
        rounds = [
            (points[k, used], known.truth[k, used], known.censored[k, used]) for k in range(5)
        ]
        taus = [metrics.tau(point, truth) for point, truth, _ in rounds]
        pairs = [metrics.pairwise_accuracy(*one) for one in rounds]
        errors = [
            np.where(stopped, np.maximum(truth - point, 0), np.abs(truth - point))
            for point, truth, stopped in rounds
        ]
        scores = scored[name]
        assert scores["tau"].value == pytest.approx(np.mean(taus))
        assert scores["pairwise_accuracy"].value == pytest.approx(np.mean(pairs))
        assert scores["mae"].value == pytest.approx(np.mean(errors))
        assert scores["median_ae"].value == pytest.approx(np.mean(np.median(errors, axis=1)))
        for score in scores.values():
            low, high = np.quantile(score.replicates, [0.025, 0.975])
            assert low < score.value < high
    assert scored["ceiling"]["tau_mean"] == scored["ceiling"]["tau"]
    assert scored["ceiling"]["crps"].value == pytest.approx(known.noise[used].mean())


def test_what_knows_the_distribution_comes_close_and_no_control_passes() -> None:
    rows = make_rows(300, samples=8)
    comparison = compare({}, rows, resamples=0, cost=False)
    score = {(r.predictor, r.metric): r.value for r in comparison.results if r.split == "in"}
    assert score["prompt-length", "tau"] < score["ceiling", "tau"] < score["oracle", "tau"]
    assert score["ceiling", "crps"] < score["prompt-length", "crps"]
    assert score["ceiling-median", "mae"] < score["prompt-length", "mae"]


def test_without_several_samples_there_is_none_and_a_note_says_so(rows: Rows) -> None:
    assert leave_one_out(rows) is None
    comparison = compare({}, rows, resamples=0, cost=False)
    assert not any(result.predictor in CEILINGS for result in comparison.results)
    assert any("noise ceiling" in note for note in comparison.notes)
    several = compare({}, make_rows(60, samples=2), resamples=0, cost=False)
    assert not any("noise ceiling" in note for note in several.notes)


MEASURED = {  # tau of the mean of nine samples, averaged over which of the ten is the truth
    "Alpaca": (0.830, 400),
    "DollyDataset": (0.782, 400),
    "ShareGPT": (0.718, 397),
    "BigCodeBench": (0.575, 1025),
    "DS1000": (0.535, 897),
    "Mbpp": (0.483, 876),
    "Apps": (0.485, 400),
}
COLUMNS = """
prompt = "prompt"
output_tokens = "output_tokens"
prompt_tokens = "input_tokens"
model = "model"
domain = "dataset"
group = "prompt_id"
"""


@pytest.mark.shared_data
def test_the_ceilings_measured_on_castillo(tmp_path: Path) -> None:
    whole = pq.read_table(castillo())
    ours = whole.filter(pc.equal(whole["model"].cast("string"), MISTRAL))
    pq.write_table(ours, tmp_path / "castillo.parquet")
    (tmp_path / "C.toml").write_text(COLUMNS)
    table, out = tmp_path / "T.parquet", tmp_path / "out"
    columns = ("--columns", tmp_path / "C.toml")
    source = tmp_path / "castillo.parquet"
    answered("data", "import", source, "--format", "parquet", *columns, "--out", table)
    answered("eval", "constant", "--data", table, "--out", out)
    found = {
        result.split.removeprefix("domain="): (result.value, result.n)
        for result in read_results(out / "eval.json").rows
        if (result.predictor, result.metric) == ("ceiling", "tau")
    }
    for domain, (tau, prompts) in MEASURED.items():
        value, n = found[domain]
        assert n == prompts
        assert value == pytest.approx(tau, abs=0.005), domain
