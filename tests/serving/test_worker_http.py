"""The second opinion over HTTP, from a server that stops answering in mid-run."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import pytest

from lengthpred import Request
from lengthpred.models.backends import chat_servers
from lengthpred.models.backends.base import Source
from lengthpred.models.cascade import Cascade
from lengthpred.models.slm import GenerateAndCount, Generation
from lengthpred.serving.worker import RefinementWorker
from lengthpred.testing import FixedPredictor
from tests.models.backends.server import ChatServer

FIRST, SECOND = 3, 12  # tokens that the primary says, and that the server writes
WAIT_S = 60.0


class Unsure:
    """A detector that finds everything unlike the training data."""

    def p_value(self, requests: Sequence[Request]) -> npt.NDArray[np.float64]:
        return np.full(len(requests), 0.01)


def asked(number: int) -> Request:
    return Request(prompt="x" * SECOND, id=str(number))


@contextmanager
def cascade_over(server: ChatServer) -> Iterator[Cascade]:
    source = Source("openai", model="small", url=(server.url,))
    fallback = GenerateAndCount(source, Generation(), {})
    try:
        yield Cascade(FixedPredictor({}, FIRST), Unsure(), fallback)
    finally:
        fallback.backend.close()


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """No keys, and no long waits before a server is tried again."""
    monkeypatch.delenv("LENGTHPRED_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setattr(chat_servers, "BACKOFF_S", 0.01)


@pytest.mark.parametrize("how", ["dies", "hangs", "drips", "errors"])
def test_every_prediction_still_arrives_within_its_deadline(how: str) -> None:
    fault = {"hangs": "hang", "drips": "drip", "errors": "error"}.get(how)
    faults = dict.fromkeys(range(10, 1000), fault) if fault else {}
    with ChatServer(faults=faults) as server, cascade_over(server) as cascade:  # type: ignore[arg-type]
        for number in range(14):
            if how == "dies" and number == 10:
                server.stop()
            deadline_s = 10.0 if number < 10 else 0.3
            begun = time.monotonic()
            first, unsure = cascade.provisional([asked(number)])
            assert unsure.all() and first.median()[0] == FIRST
            assert time.monotonic() - begun < 5
            answer, refined = cascade.refine([asked(number)], deadline_s)
            assert time.monotonic() - begun < max(10 * deadline_s, 5)
            assert refined.all() == (number < 10)
            assert answer.median()[0] == (SECOND if number < 10 else FIRST)
        # A server that is slow, or fails at a request but is there, leaves requests unrefined; that
        # is no failure, unless the backend's own end comes too late on a busy machine.
        assert cascade.failures == 4 or how != "dies", cascade.last_failure


def test_the_worker_outlives_the_server() -> None:
    answers: list[str] = []
    with ChatServer() as server, cascade_over(server) as cascade:
        worker = RefinementWorker(
            cascade, lambda id, answer: answers.append(id), deadline_s=5.0, rest_s=(0.01, 0.02)
        )
        with worker:
            for number in range(40):
                if number == 20:
                    end = time.monotonic() + WAIT_S
                    while len(answers) < 20 and time.monotonic() < end:
                        time.sleep(0.005)
                    server.stop()
                first, _ = cascade.provisional([asked(number)])
                assert worker.submit(str(number), asked(number), first)
            end = time.monotonic() + WAIT_S
            while worker.stats().waiting and time.monotonic() < end:
                time.sleep(0.005)
        stats = worker.stats()
    assert sorted(answers, key=int) == [str(number) for number in range(20)]
    assert (stats.submitted, stats.refined, stats.waiting) == (40, 20, 0)
    assert stats.failed == 20 == cascade.failures and stats.last_failure == cascade.last_failure
