"""A predictor in a process of its own: killed, stopped, failing, and asked too much."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lengthpred import Request, load
from lengthpred.errors import BackendError
from lengthpred.models.conformal import Conformal
from lengthpred.serving.frames import Answer, pack_answer, pack_call, unpack_answer, unpack_call
from lengthpred.serving.process import PredictorProcess
from lengthpred.testing import example_requests
from tests.builders import build, synthetic_rows

WAIT_S = 60.0  # for what must happen
EASY_S = 30.0  # a deadline that a busy machine keeps


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("histogram").save(tmp_path_factory.mktemp("process") / "histogram")


@pytest.fixture
def process(artifact: Path) -> Iterator[PredictorProcess]:
    with PredictorProcess(str(artifact), deadline_s=EASY_S, rest_s=(0.05, 0.1)) as made:
        yield made


def wait_for(true: object) -> None:
    end = time.monotonic() + WAIT_S
    while not true():  # type: ignore[operator]
        assert time.monotonic() < end
        time.sleep(0.01)


def error_of(future: "Future[Answer]") -> str:
    with pytest.raises(BackendError) as raised:
        future.result(WAIT_S)
    return str(raised.value)


def test_frames_say_what_they_were_told() -> None:
    requests = example_requests(5)
    body, read = unpack_call(pack_call(7, "refine", requests, deadline_s=0.5))
    assert (body["number"], body["ask"], body["deadline_s"]) == (7, "refine", 0.5)
    assert read == requests
    shared = {"tools": ["t" * 1000]}
    several = [Request(prompt=f"{i}", sampling=shared) for i in range(50)]
    packed = pack_call(7, "predict", [*several, Request(sampling={"n": 2})])
    assert unpack_call(packed)[1] == [*several, Request(sampling={"n": 2})]
    assert len(packed) < 20_000  # what they share is sent once
    dist = build("histogram").predict(requests).given([3, 0, 9, 1, 2])  # type: ignore[attr-defined]
    flags = np.array([True, False, False, True, False])
    number, answer, error = unpack_answer(pack_answer(7, Answer(dist, flags)), dist.grid)
    assert (number, error) == (7, "") and answer is not None
    np.testing.assert_array_equal(answer.dist.pmf, dist.pmf)
    np.testing.assert_array_equal(answer.dist.floor, dist.floor)
    np.testing.assert_array_equal(answer.flags, flags)
    assert unpack_answer(pack_answer(8, None, "no"), dist.grid) == (8, None, "no")
    with pytest.raises(ValueError, match="wrong size"):
        unpack_answer(pack_answer(7, Answer(dist, flags))[:-1], dist.grid)


def test_it_answers_as_the_artifact_does(process: PredictorProcess, artifact: Path) -> None:
    requests = example_requests(150)
    futures = [process.ask(request) for request in requests]
    answers = [future.result(WAIT_S) for future in futures]
    expected = load(artifact).predict(requests)
    np.testing.assert_array_equal(np.concatenate([a.dist.pmf for a in answers]), expected.pmf)
    assert not any(a.flags.any() for a in answers)
    np.testing.assert_allclose(process.prior.pmf, load(artifact).predict([Request()]).pmf)
    assert process.stats().answered == 150 and process.stats().seconds > 0


@pytest.mark.slow
def test_a_cascade_says_of_what_it_is_unsure(tmp_path: Path) -> None:
    cascade = build("cascade")
    requests = [*synthetic_rows(30, seed=5).requests, Request(prompt="光" * 2000)]
    first, unsure = cascade.provisional(requests)  # type: ignore[attr-defined]
    assert unsure.any() and not unsure.all()
    with PredictorProcess(str(cascade.save(tmp_path / "cascade")), deadline_s=EASY_S) as process:
        answers = [process.ask(request) for request in requests]
        flags = [bool(future.result(WAIT_S).flags[0]) for future in answers]
        assert flags == unsure.tolist()
        np.testing.assert_allclose(answers[3].result().dist.pmf[0], first.pmf[3], rtol=1e-5)


def test_one_that_was_killed_comes_back(process: PredictorProcess) -> None:
    request, old = Request(prompt="hello"), process.pid
    before = process.ask(request).result(WAIT_S).dist.pmf
    os.kill(old, signal.SIGKILL)
    wait_for(lambda: process.stats().restarts)
    wait_for(lambda: process.ask(request).exception(WAIT_S) is None)
    assert process.pid != old
    np.testing.assert_array_equal(process.ask(request).result(WAIT_S).dist.pmf, before)


@pytest.mark.slow
def test_what_waits_for_one_that_dies_fails_at_once(process: PredictorProcess) -> None:
    os.kill(process.pid, signal.SIGSTOP)
    futures = [process.ask(Request(prompt=str(i))) for i in range(200)]
    begun = time.monotonic()
    os.kill(process.pid, signal.SIGKILL)
    assert all("died" in error_of(f) or "ended" in error_of(f) for f in futures)
    assert time.monotonic() - begun < EASY_S / 2
    assert process.stats().failed == 200


@pytest.mark.slow
def test_one_that_hangs_is_started_again(artifact: Path) -> None:
    with PredictorProcess(str(artifact), deadline_s=0.2, rest_s=(0.05, 0.1)) as process:
        hung = process.pid
        os.kill(hung, signal.SIGSTOP)
        assert "within 0.2 s" in error_of(process.ask(Request(prompt="a")))
        wait_for(lambda: process.stats().restarts == 1)
        with pytest.raises(ProcessLookupError):
            os.kill(hung, 0)
        wait_for(lambda: process.ask(Request(prompt="b")).exception(WAIT_S) is None)
        assert process.stats().late >= 1 and "3 deadlines" in process.stats().last_failure


@pytest.mark.slow
def test_one_that_dies_while_it_is_late_comes_back(artifact: Path) -> None:
    with PredictorProcess(str(artifact), deadline_s=1.0, rest_s=(0.05, 0.1)) as process:
        os.kill(process.pid, signal.SIGSTOP)
        assert "within 1 s" in error_of(process.ask(Request(prompt="a")))
        os.kill(process.pid, signal.SIGKILL)
        wait_for(lambda: process.stats().restarts == 1)
        wait_for(lambda: process.ask(Request(prompt="b")).exception(WAIT_S) is None)


@pytest.mark.slow
def test_a_call_that_nobody_reads_is_given_up(artifact: Path) -> None:
    """A long prompt fills the socket, and a stopped process does not empty it."""
    with PredictorProcess(str(artifact), deadline_s=0.2, rest_s=(0.05, 0.1)) as process:
        os.kill(process.pid, signal.SIGSTOP)
        assert error_of(process.ask(Request(prompt="a" * 5_000_000)))
        wait_for(lambda: process.stats().restarts == 1)
        wait_for(lambda: process.ask(Request(prompt="b")).exception(WAIT_S) is None)


@pytest.mark.slow
def test_one_late_answer_is_dropped_and_the_next_is_right(artifact: Path) -> None:
    with PredictorProcess(str(artifact), deadline_s=1.0) as process:
        os.kill(process.pid, signal.SIGSTOP)
        assert "within 1 s" in error_of(process.ask(Request(prompt="list of " * 9)))
        os.kill(process.pid, signal.SIGCONT)
        wait_for(lambda: process.ask(Request(prompt="sum of x")).exception(WAIT_S) is None)
        got = process.ask(Request(prompt="sum of x")).result(WAIT_S)
        expected = load(artifact).predict([Request(prompt="sum of x")])
        np.testing.assert_array_equal(got.dist.pmf, expected.pmf)
        assert process.stats().restarts == 0


def test_a_full_queue_refuses(artifact: Path) -> None:
    with PredictorProcess(str(artifact), deadline_s=EASY_S, capacity=10, batch=1) as process:
        os.kill(process.pid, signal.SIGSTOP)
        futures = [process.ask(Request(prompt=str(i))) for i in range(40)]
        assert process.stats().refused >= 29  # one may be with the process
        assert "too many" in error_of(futures[-1])
        os.kill(process.pid, signal.SIGCONT)
        assert futures[0].result(WAIT_S) is not None


@pytest.mark.slow
def test_a_caller_that_gives_up_is_no_trouble(process: PredictorProcess) -> None:
    os.kill(process.pid, signal.SIGSTOP)
    futures = [process.ask(Request(prompt=str(i))) for i in range(20)]
    for future in futures[::2]:
        future.cancel()
    os.kill(process.pid, signal.SIGCONT)
    for future in futures[1::2]:
        assert future.result(WAIT_S) is not None
    with pytest.raises((CancelledError, BackendError)):
        futures[0].result(0)


@pytest.mark.slow
def test_one_that_raises_says_why_and_lives_on(tmp_path: Path) -> None:
    broken = build("slm")
    requests = example_requests(2)
    with PredictorProcess(str(broken.save(tmp_path / "slm")), deadline_s=EASY_S) as process:
        before = process.pid
        good = process.ask(requests[0]).exception(WAIT_S)
        assert process.pid == before and process.stats().restarts == 0
        assert good is None or isinstance(good, BackendError)


@pytest.mark.slow
def test_a_request_that_cannot_be_sent_fails_alone(process: PredictorProcess) -> None:
    deep: list[Any] = []
    for _ in range(50_000):
        deep = [deep]
    before, pid = process.stats().restarts, process.pid
    assert "recursion" in error_of(process.ask(Request(sampling={"tools": deep})))
    assert process.ask(Request(prompt="list")).result(WAIT_S).dist.mean()[0] > 0
    assert process.pid == pid and process.stats().restarts == before


@pytest.mark.slow
def test_second_opinions_learn_where_they_are_given(tmp_path: Path) -> None:
    correcting = Conformal(build("cascade"))  # type: ignore[arg-type]
    artifact = str(correcting.save(tmp_path / "c"))
    requests = [Request(prompt="\u5149" * (2000 + i), model="m") for i in range(64)]
    with PredictorProcess(artifact, deadline_s=EASY_S, refine=True) as process:

        def median() -> float:
            answers = [process.ask(one).result(WAIT_S) for one in requests]
            assert all(answer.flags[0] for answer in answers)
            return float(np.mean([answer.dist.median()[0] for answer in answers]))

        before = median()
        counted = [replace(one, prompt_tokens=9000) for one in requests]  # after the answer
        process.observe(counted, np.full(64, 2500), np.zeros(64, np.bool_))
        wait_for(lambda: median() > before + 10)


@pytest.mark.slow
def test_what_it_learns_shows(tmp_path: Path) -> None:
    correcting = Conformal(build("histogram"))  # type: ignore[arg-type]
    requests = example_requests(64)
    lengths, censored = np.full(64, 2500), np.zeros(64, np.bool_)
    with PredictorProcess(str(correcting.save(tmp_path / "c")), deadline_s=EASY_S) as process:
        before = process.ask(requests[0]).result(WAIT_S).dist
        process.observe(requests, lengths, censored)
        after = process.ask(requests[0]).result(WAIT_S).dist
        wait_for(lambda: process.ask(requests[0]).result(WAIT_S).dist.median() > before.median())
    correcting.observe(requests, lengths, censored)
    assert after.pmf.shape == before.pmf.shape


def test_what_cannot_be_loaded_is_an_error_at_once(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="could not be loaded"):
        PredictorProcess(str(tmp_path / "nothing"))


def test_closing_ends_it(artifact: Path) -> None:
    process = PredictorProcess(str(artifact), deadline_s=EASY_S)
    pid = process.pid
    process.close()
    process.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert "not asked" in error_of(process.ask(Request(prompt="a")))


@pytest.mark.slow
def test_an_orphan_ends(artifact: Path) -> None:
    """A server that is killed leaves no process behind."""
    script = (
        "import os, sys\n"
        "from lengthpred.serving.process import PredictorProcess\n"
        "process = PredictorProcess(sys.argv[1])\n"
        "print(process.pid, flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    call = [sys.executable, "-c", script, str(artifact)]
    done = subprocess.run(call, check=False, capture_output=True, text=True, timeout=WAIT_S)
    assert done.returncode == -9, done.stderr
    wait_for(lambda: not _runs(int(done.stdout)))


def _runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"  # nobody may be there to take leave of it
