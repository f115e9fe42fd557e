"""What looking at the text of a growing answer adds to its predicted length.

    python -m tests.benchmarks.remaining TABLE [--rows 12000]

TABLE is a parquet with the columns prompt_id, prompt, model, response and resp_tokens. A first
prediction is made of the prompt (boosted). Then, every 50 tokens, a boosted classifier reads the
text so far and says how much is left; it is trained on other prompts, and the text's first tokens
are taken for the same share of its letters. Prints, for each moment, the mean error of what is left
and its order, of the answers that are still being written. "As in TRAIL" begins with nothing and
multiplies by what the classifier says, undivided.
"""

import argparse
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import lightgbm
import numpy as np
import pyarrow.parquet as pq

from lengthpred.base import FloatArray, IntArray, Request
from lengthpred.data.table import Rows
from lengthpred.distribution import LengthDistribution, LengthGrid
from lengthpred.metrics import tau
from lengthpred.smoothing import smooth, spread
from lengthpred.training import boosted
from lengthpred.training.settings import BoostedSettings

MOMENTS = range(50, 401, 50)
BINS = LengthGrid(np.array([0, 25, 50, 100, 150, 200, 300, 450, 700, 1100]))
FINE = LengthGrid(np.append(np.arange(0, 2048, 8), [2048, 4096]))
TRUSTS = (1.0, 0.5, 0.25)
LONGEST = 1500
ENDING = re.compile(
    r"\b(in (conclusion|summary)|overall|hope this|let me know|finally|thus)\b", re.I
)
ITEM = re.compile(r"^\s*(?:[-*•]|(\d{1,2})[.)])\s", re.M)
PROMISE = re.compile(r"\b(\d{1,2}|three|five|ten)\b")


@dataclass(frozen=True)
class Answers:
    """Rows with the texts of their answers, and their tokens."""

    rows: Rows
    texts: list[str]

    def __len__(self) -> int:
        return len(self.texts)

    def looks(self, at: int) -> tuple[IntArray, FloatArray]:
        """Which are still being written at so many tokens, and what their text so far is like."""
        going = np.flatnonzero(self.rows.truth > at)
        shares = at / self.rows.truth[going]
        parts = (
            self.texts[i][: int(s * len(self.texts[i]))] for i, s in zip(going, shares, strict=True)
        )
        return going, np.array([_features(part) for part in parts], np.float64)


def main() -> None:
    """Read, train, look, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("table", type=Path)
    parser.add_argument("--rows", type=int, default=12_000)
    given = parser.parse_args()
    train, held, test = _read(given.table, given.rows, np.random.default_rng(0))
    print(f"{len(train):,} answers to train, {len(held):,} to calibrate, {len(test):,} to test")
    first = boosted.train(train.rows, held.rows, BoostedSettings(), np.random.default_rng(0))
    reader, shares = _reader(train)
    prior = spread(first.predict(test.rows.requests), FINE)
    flat = LengthDistribution.from_weights(FINE, np.ones((len(test), FINE.bins)))
    kept, trail = dict.fromkeys(TRUSTS, prior), flat
    for at in MOMENTS:
        going, features = test.looks(at)
        said = np.asarray(reader.predict(features), np.float64)
        looks = np.ones((len(test), BINS.bins))
        looks[going] = said / shares[at]
        alone = looks.copy()
        alone[going] = said / np.diff(BINS.edges)
        kept = {t: smooth(dist, at, looks, BINS, trust=t) for t, dist in kept.items()}
        trail = smooth(trail, at, alone, BINS)
        answers = {
            "naive": np.maximum(prior.median(), at),
            "given": prior.given(at).median(),
            "this look alone": smooth(flat, at, alone, BINS).median(),
            "given and this look": smooth(prior, at, looks, BINS).median(),
            "as in TRAIL": trail.median(),
            **{f"smoothed, trust {t:g}": dist.median() for t, dist in kept.items()},
        }
        left = test.rows.truth[going] - at
        print(f"\nat {at} tokens, {len(going):,} answers, {left.mean():.0f} left on average")
        for name, total in answers.items():
            rest = total[going] - at
            print(f"  {name:24} error {np.abs(rest - left).mean():6.1f}  tau {tau(rest, left):.3f}")


def _read(path: Path, limit: int, rng: np.random.Generator) -> Iterator[Answers]:
    """Training, calibration and test rows; a prompt is in one of them only."""
    table = pq.read_table(path).to_pandas()
    table = table[(table.resp_tokens > 1) & (table.resp_tokens <= LONGEST)]
    table = table.iloc[rng.permutation(len(table))[:limit]]
    names, group = np.unique(table.prompt_id.to_numpy(str), return_inverse=True)
    part = np.searchsorted([0.5, 0.65], rng.random(len(names)))[group]
    for number in range(3):
        own = table[part == number]
        rows = Rows(
            requests=[
                Request(prompt=p, model=m) for p, m in zip(own.prompt, own.model, strict=True)
            ],
            lengths=own.resp_tokens.to_numpy(np.int64),
            censored=np.zeros(len(own), bool),
            owner=np.arange(len(own)),
            groups=group[part == number],
            columns={},
        )
        yield Answers(rows, own.response.tolist())


def _reader(train: Answers) -> tuple[lightgbm.Booster, dict[int, FloatArray]]:
    """A classifier of what is left by the text, and the bins' shares at each moment."""
    features, bins, shares = [], [], {}
    for at in MOMENTS:
        going, found = train.looks(at)
        label = BINS.index(train.rows.truth[going] - at)
        features.append(found)
        bins.append(label)
        counts = np.bincount(label, minlength=BINS.bins) + 1.0
        shares[at] = counts / counts.sum()
    settings = {
        "objective": "multiclass",
        "num_class": BINS.bins,
        "learning_rate": 0.08,
        "num_leaves": 15,
        "min_data_in_leaf": 50,
        "num_threads": 1,
        "verbose": -1,
    }
    data = lightgbm.Dataset(np.concatenate(features), np.concatenate(bins))
    return lightgbm.train(settings, data, num_boost_round=60), shares


def _features(text: str) -> list[float]:
    """What a reader sees of where a text is."""
    end, lines = text[-300:], text.split("\n")
    items = list(ITEM.finditer(text))
    numbers = [int(item[1]) for item in items if item[1]]
    promise = PROMISE.search(text[:250])
    promised = {"three": 3, "five": 5, "ten": 10}.get(promise[1], 0) if promise else -1
    if promise and promise[1].isdigit():
        promised = int(promise[1])
    return [
        len(text),
        len(lines),
        len(lines[-1]),
        len(items),
        numbers[-1] if numbers else 0,
        promised,
        promised - numbers[-1] if numbers and promised > 0 else -99,
        text.count("```") % 2,
        text.count("```"),
        text.count("\n#"),
        text.count("\n\n"),
        text.count("**") / 2,
        len(ENDING.findall(end)),
        len(ENDING.findall(lines[-1])),
        text.count(". "),
        float(bool(items) and not ITEM.match(lines[-1]) and bool(lines[-1])),
        float(text.rstrip().endswith((".", "!", "?"))),
        float(np.mean([len(line) for line in lines])),
    ]


if __name__ == "__main__":
    main()
