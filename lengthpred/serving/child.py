"""The process of a predictor: loads an artifact, answers until its server is gone.

Started by `lengthpred.serving.process` as `python -m lengthpred.serving.child FD ARTIFACT`.
"""

import json
import signal
import sys
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from lengthpred.artifact import load
from lengthpred.base import Observer, Predictor, Refiner, Request
from lengthpred.serving.frames import Answer, pack_answer, unpack_call

__all__ = ["answer_to"]

WARM_UPS = 3


def main() -> None:
    """Answer calls on the socket that is the first argument."""
    # Ctrl-C reaches the whole group; the server decides when this one ends, by closing its side.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    server: Connection[bytes, bytes] = Connection(int(sys.argv[1]))
    predictor = load(sys.argv[2])
    server.send_bytes(_ready(predictor))
    while True:
        try:
            body, requests = unpack_call(server.recv_bytes())
            reply = _reply(predictor, body, requests)
            server.send_bytes(reply)
        except (EOFError, OSError):
            return


def answer_to(predictor: Predictor, requests: Sequence[Request]) -> Answer:
    """What a server asks first: the provisional answer where there is one, and what is unsure."""
    if isinstance(predictor, Refiner):
        return Answer(*predictor.provisional(requests))
    return Answer(predictor.predict(requests), np.zeros(len(requests), np.bool_))


def _ready(predictor: Predictor) -> bytes:
    """The grid, the answer to a request without text, what it takes, and what it can besides."""
    taken = []
    for i in range(WARM_UPS):
        begun = time.perf_counter()
        # What was answered may be remembered, so each is another.
        answer_to(predictor, [Request(prompt=f"Write a list of {i + 3} names of rivers.")])
        taken.append(time.perf_counter() - begun)
    dist = answer_to(predictor, [Request()]).dist
    told = {
        "grid": dist.grid.edges.tolist(),
        "pmf": dist.pmf[0].tolist(),
        "seconds": min(taken),
        "refines": isinstance(predictor, Refiner),
        "observes": isinstance(predictor, Observer),
    }
    return json.dumps(told).encode()


def _reply(predictor: Predictor, body: dict[str, Any], requests: list[Request]) -> bytes:
    number, answer = body["number"], None
    try:
        if body["ask"] == "predict":
            answer = answer_to(predictor, requests)
        elif body["ask"] == "refine":
            assert isinstance(predictor, Refiner)
            answer = Answer(*predictor.refine(requests, body["deadline_s"]))
        elif isinstance(predictor, Observer):
            lengths, stopped = np.array(body["lengths"]), np.array(body["censored"], np.bool_)
            predictor.observe(requests, lengths, stopped)
        return pack_answer(number, answer)
    except Exception as error:  # a predictor may raise what it likes
        return pack_answer(number, None, f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
