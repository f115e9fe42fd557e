"""The predictor that comes with the package."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from lengthpred import Request, load
from lengthpred.artifact import Storable
from lengthpred.models.distilled import Distilled
from lengthpred.sources import SHIPPED
from lengthpred.testing import check_predictor

MEGABYTE = 1_000_000


def median(prompt: str, model: str = "") -> float:
    return float(load("default").predict([Request(prompt=prompt, model=model)]).median()[0])


def test_it_is_small_and_keeps_the_contract() -> None:
    assert sum(file.stat().st_size for file in SHIPPED.rglob("*")) <= 8 * MEGABYTE
    shipped = load("default")
    assert isinstance(shipped, Distilled) and shipped.origin == "default"
    check_predictor(shipped)


def test_it_tells_long_answers_from_short_ones() -> None:
    short = ["What is the capital of France?", "Translate 'good morning' into German.",
             "Is 17 a prime number? Answer yes or no."]  # fmt: skip
    long = ["Write a detailed essay of 1500 words about the Roman roads.",
            "Write a Python program that parses CSV files, with tests and documentation.",
            "Create a study plan for twelve weeks of linear algebra, week by week."]  # fmt: skip
    assert max(map(median, short)) < min(map(median, long))


def test_it_knows_its_target_models_and_answers_for_others() -> None:
    shipped = load("default")
    assert isinstance(shipped, Storable)
    known = shipped.card.models
    assert len(known) > 10 and "Mistral-7B-Instruct-v0.3" in known
    answers = {model: median("Write a short story", model) for model in (*known, "new", "")}
    assert answers["new"] == answers[""] > 0
    assert len(set(answers.values())) > 5


def test_its_card_names_every_source_and_its_licence() -> None:
    card = (SHIPPED / "README.md").read_text("utf-8")
    for source in ("CASTILLO", "Open Assistant", "ZeroEval", "Rakuda", "GPTeacher"):
        assert source in card
    assert card.count("Apache-2.0") >= 4 and "MIT" in card
    metrics = json.loads((SHIPPED / "manifest.json").read_text("utf-8"))["metrics"]
    assert f"{metrics['tau']:.3f}".lstrip("0") in card


def test_a_folder_of_that_name_wins(tmp_path: Path) -> None:
    """As for every name: what a user has made is meant."""
    from tests.builders import build

    build("constant").save(tmp_path / "default")
    code = "from lengthpred import load; print(load('default').kind)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "constant"


def test_its_distributions_are_wide_where_nothing_is_known() -> None:
    """Of a prompt in a script that it hardly saw, it does not claim to know the length."""
    shipped = load("default")
    answer = shipped.predict([Request(prompt="ምሳሌ ጻፍልኝ"), Request(prompt="2+2=? Answer only.")])
    low, high = answer.quantile(np.array([0.1, 0.9])).T
    assert (high[0] - low[0]) > (high[1] - low[1])
