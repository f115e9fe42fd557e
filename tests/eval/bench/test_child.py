"""A process that is asked over a pipe."""

from pathlib import Path

import pytest

from lengthpred.errors import BackendError
from lengthpred.eval.bench.child import Child

ROOT = Path(__file__).parents[3]
MODULE = "tests.eval.bench.doubling_child"


def started(log: Path, factor: str) -> Child:
    return Child(MODULE, "the child", [factor], log, {"PYTHONPATH": str(ROOT)})


def test_it_answers_again_and_again(tmp_path: Path) -> None:
    with started(tmp_path / "log", "3") as child:
        assert [child.ask({"x": x}) for x in (1, 2, 5)] == [{"x": 3}, {"x": 6}, {"x": 15}]


def test_its_log_says_why_it_ended(tmp_path: Path) -> None:
    with started(tmp_path / "log", "three") as child:
        for _ in range(2):
            with pytest.raises(BackendError, match=r"(?s)the child ended:.*invalid literal.*three"):
                child.ask({"x": 1})


def test_one_that_does_not_start_says_why(tmp_path: Path) -> None:
    with (
        pytest.raises(BackendError, match=r"(?s)nobody ended:.*No module named"),
        Child("lengthpred.no_such", "nobody", [], tmp_path / "log"),
    ):
        pass
