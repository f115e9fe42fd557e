"""For users' own tests: a predictor without a model, and the conformance suite of the contract.

`check_predictor(p)` and `check_detector(d)` ask what docs/contract.md promises and raise
AssertionError where it is not kept. `PREDICTOR_CHECKS` and `DETECTOR_CHECKS` hold the same checks
by name, to parametrise a test with. All requests are made here, from a seed.
"""

import copy
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from lengthpred.artifact import Storable, load_storable
from lengthpred.base import Detector, FloatArray, Observer, Predictor, Refiner, Request
from lengthpred.distribution import LengthDistribution, LengthGrid

__all__ = [
    "DETECTOR_CHECKS",
    "PREDICTOR_CHECKS",
    "FixedPredictor",
    "check_detector",
    "check_predictor",
    "example_requests",
]


class FixedPredictor:
    """Answers with the length given for a request's id, or else with `default`, as a certainty."""

    def __init__(self, lengths: dict[str, int] | None = None, default: int = 128) -> None:
        self.lengths = dict(lengths or {})
        self.default = default
        self.grid = LengthGrid()

    def predict(self, requests: Sequence[Request]) -> LengthDistribution:
        """All the mass on the bin of the length."""
        lengths = [self.lengths.get(request.id, self.default) for request in requests]
        pmf = np.eye(self.grid.bins, dtype=np.float32)[self.grid.index(np.array(lengths, int))]
        return LengthDistribution(self.grid, pmf)


def check_predictor(predictor: Predictor) -> None:
    """Raise AssertionError where `predictor` breaks the contract; an Observer learns in a copy."""
    for check in PREDICTOR_CHECKS.values():
        check(predictor)


def check_detector(detector: Detector) -> None:
    """Raise AssertionError where `detector` breaks the contract."""
    for check in DETECTOR_CHECKS.values():
        check(detector)


def example_requests(n: int = 24, seed: int = 0) -> list[Request]:
    """Plain requests of many lengths, some within a conversation; the same for the same seed."""
    rng = np.random.default_rng(seed)
    asks = (
        "Write a list of 12 words about",
        "Explain in detail",
        "Translate:",
        "def f(x):",
        "¿Por",
    )
    words = "rivers glass 42 engine poem sort tax harbour 光 proof snow bread".split()
    made = []
    for i in range(n):
        text = " ".join(rng.choice(words, int(rng.integers(1, 60))))
        replies = tuple(int(length) for length in rng.integers(1, 900, i % 3))
        made.append(
            Request(
                prompt=f"{asks[i % len(asks)]} {text}",
                context=f"User: hello\nAssistant: {text}" if replies else "",
                reply_tokens=replies,
                model=("model-a", "model-b", "")[i % 3],
                prompt_tokens=len(text) // 4 if i % 2 else None,
                id=str(i),
            )
        )
    return made


# What clients really send. A lone surrogate is valid JSON, and no valid UTF-8.
HARD = (
    Request(),
    Request(prompt=" \n\t"),
    Request(prompt="", prompt_tokens=900),
    Request(prompt="héllo 你好 مرحبا नमस्ते 🏳️‍🌈 e\u0301 \u202e\0\ufeff"),
    Request(prompt="half an emoji \ud83d", context="\udc00", model="\ud83d"),
    Request(prompt="word " * 40_000),
    Request(prompt="x" * 200_000),
    Request(prompt="1\n" * 100_000, context="光" * 200_000),
    Request(prompt="hello", model="a model that nobody trained on", tenant="nobody"),
    Request(prompt="hello", prompt_tokens=0, max_tokens=0, temperature=0.0, slo_s=0.0),
    Request(prompt="hello", prompt_tokens=10**12, max_tokens=10**12, temperature=float("nan")),
    Request(prompt="hello", reply_tokens=(0,) * 3 + (10**9,) * 2000),
    Request(prompt="hello", reply_tokens=(-5, 10**400), prompt_tokens=-1, max_tokens=-1),
    Request(prompt="hello", sampling={"n": 4, "stop": ["\n"], "response_format": None}),
)


@dataclass(frozen=True)
class _Subject:
    """A predictor or detector as a function from n requests to n rows of numbers."""

    thing: Any
    ask: Callable[[Any, Sequence[Request]], FloatArray]
    tolerance: float  # of what rounding may do when a batch has another size or order

    def rows(self, requests: Sequence[Request]) -> FloatArray:
        return self.ask(self.thing, requests)

    def another(self) -> "_Subject":
        """One that answers alike and shares no state, to be taught or to be spoilt."""
        saved = isinstance(self.thing, Storable)
        thing = _reloaded(self.thing) if saved else copy.deepcopy(self.thing)
        return _Subject(thing, self.ask, self.tolerance)


def _ask_predictor(predictor: Predictor, requests: Sequence[Request]) -> FloatArray:
    answer = predictor.predict(requests)
    _valid(answer, len(requests))
    return np.column_stack([answer.pmf, answer.floor, answer.ceiling]).astype(np.float64)


def _valid(answer: LengthDistribution, n: int) -> None:
    assert isinstance(answer, LengthDistribution), "predict returns a LengthDistribution"
    assert len(answer) == n, f"one distribution a request: {n} asked, {len(answer)} answered"
    assert answer.pmf.dtype == np.float32, "pmf is float32"
    finite = np.isfinite(answer.pmf).all() and (answer.pmf >= 0).all()
    assert finite, "pmf is finite and non-negative"
    sums = answer.pmf.sum(axis=1, dtype=np.float64)
    assert np.allclose(sums, 1, atol=1e-4), "every row of pmf sums to one"
    for lengths in (answer.mean(), answer.median()):
        assert lengths.shape == (n,), "mean and median have shape (n,)"
        usual = (lengths >= 0).all() and np.isfinite(lengths).all()
        assert usual, "mean and median are finite and non-negative"


def _ask_detector(detector: Detector, requests: Sequence[Request]) -> FloatArray:
    answer = np.asarray(detector.p_value(requests))
    assert answer.shape == (len(requests),), f"p_value has shape (n,), not {answer.shape}"
    assert ((answer > 0) & (answer <= 1)).all(), "a p-value lies in (0, 1]"
    return answer[:, None].astype(np.float64)


def _same_answer_twice(subject: _Subject) -> None:
    requests = example_requests()
    first, _, again = (subject.rows(batch) for batch in (requests, requests[::2], requests))
    assert np.array_equal(first, again), "the same requests get the same answer until observe()"


def _same_order_as_asked(subject: _Subject) -> None:
    requests = example_requests()
    order = np.random.default_rng(1).permutation(len(requests))
    shuffled = subject.rows([requests[i] for i in order])
    wanted = subject.rows(requests)[order]
    assert np.allclose(shuffled, wanted, atol=subject.tolerance), "answers keep the order asked"


def _single_equals_batch(subject: _Subject) -> None:
    requests = [*example_requests(), *HARD[:5]]
    single = np.concatenate([subject.rows([request]) for request in requests])
    alike = np.allclose(single, subject.rows(requests), atol=subject.tolerance)
    assert alike, "a request gets the same answer alone as in a batch"


def _empty_batch(subject: _Subject) -> None:
    assert len(subject.rows([])) == len(subject.rows(())) == 0, "no requests, no rows"


def _any_request(subject: _Subject) -> None:
    for i, request in enumerate(HARD):
        try:
            subject.rows([request])
        except Exception as error:
            raise AssertionError(
                f"what a request holds is never an error: HARD[{i}] raised {error!r}"
            ) from error
    assert len(subject.rows(HARD)) == len(HARD)


def _answers_are_not_aliased(subject: _Subject) -> None:
    requests, spoilt = example_requests(), subject.another()
    before, kept = spoilt.rows(requests), copy.deepcopy(requests)
    for _ in range(2):  # the second time, a cached answer would be the one that was spoilt
        is_detector = subject.ask is _ask_detector
        thing = spoilt.thing
        array = thing.p_value(requests) if is_detector else thing.predict(requests).pmf
        if array.flags.writeable:
            array[:] = np.roll(array, 7, axis=1) if array.ndim == 2 else 1.0
    assert requests == kept, "requests are left as they were"
    unspoilt = np.array_equal(spoilt.rows(requests), before)
    assert unspoilt, "writing to a returned array changes no later answer"


def _thread_safe(subject: _Subject) -> None:
    requests = example_requests()
    wanted = subject.rows(requests)
    with ThreadPoolExecutor(8) as pool:
        answers = np.array(list(pool.map(subject.rows, [requests] * 32)))
    assert np.allclose(answers, wanted, atol=subject.tolerance), (
        "threads that ask at the same time get the same answer"
    )


def _round_trip(subject: _Subject) -> None:
    if isinstance(subject.thing, Storable):
        requests = [*example_requests(), *HARD[:5]]
        equal = np.array_equal(subject.another().rows(requests), subject.rows(requests))
        assert equal, "what was saved and loaded answers bit for bit alike"


def _reloaded(thing: Storable) -> Storable:
    with tempfile.TemporaryDirectory() as folder:
        path = thing.save(Path(folder, "artifact"))
        for file in path.rglob("*"):
            safe = file.is_dir() or file.suffix in (".json", ".safetensors", ".txt")
            # Pickles, and the zip archives that torch.save makes of them.
            assert safe or file.read_bytes()[:2] not in (b"\x80\x03", b"\x80\x04", b"PK"), (
                f"an artifact holds nothing that runs code at load: {file.name}"
            )
        loaded = load_storable(path)
    assert type(loaded) is type(thing), f"kind '{thing.kind}' loads as {type(loaded).__name__}"
    return loaded


def _observes(subject: _Subject) -> None:
    """An Observer learns, from any request; what was stopped counts as at least that long."""
    if not isinstance(subject.thing, Observer):
        return
    learner = subject.another()
    learner.thing.observe(HARD, np.full(len(HARD), 50), np.arange(len(HARD)) % 2 == 0)
    _round_trip(learner)
    request = example_requests(1)[0]
    stopped = np.zeros(500, bool)
    for length in (4000, 3):
        exact, cut = (_taught(subject, request, length, flags) for flags in (stopped, ~stopped))
        before = subject.thing.predict([request]).median()  # type: ignore[attr-defined]
        nearer = abs(exact - length) <= abs(before - length)
        assert nearer, f"observing 500 answers of {length} tokens moves the median toward them"
        assert cut >= exact - 1e-9, f"an answer stopped at {length} counts as at least that long"


def _taught(subject: _Subject, request: Request, length: int, stopped: Any) -> FloatArray:
    learner = subject.another()
    before = learner.rows([request])
    learner.thing.observe([], np.zeros(0, np.int64), np.zeros(0, bool))
    assert np.array_equal(learner.rows([request]), before), "observing nothing changes nothing"
    lengths = np.full(len(stopped), length)
    with ThreadPoolExecutor(2) as pool:
        asking = pool.submit(lambda: [learner.rows([request]) for _ in range(20)])
        learner.thing.observe([request] * len(stopped), lengths, stopped)
        asking.result()
    _round_trip(learner)
    median: FloatArray = learner.thing.predict([request]).median()
    return median


def _refines(subject: _Subject) -> None:
    """A Refiner answers at once, and keeps to its deadline."""
    if not isinstance(subject.thing, Refiner):
        return
    for requests in (example_requests(), []):
        n = len(requests)
        begun = time.perf_counter()
        late = subject.thing.refine(requests, 0.0)
        assert time.perf_counter() - begun < 1, "refine with a deadline of 0 s returns at once"
        calls = (subject.thing.provisional(requests), late, subject.thing.refine(requests, 30.0))
        for answer, flags in calls:
            _valid(answer, n)
            assert flags.shape == (n,) and flags.dtype == bool, "the flags are bool, shape (n,)"
        kept = ~late[1]
        equal = np.array_equal(late[0].pmf[kept], calls[0][0].pmf[kept])
        assert equal, "a request that was not refined keeps its first answer"


_SHARED: tuple[Callable[[_Subject], None], ...] = (
    _any_request,
    _same_answer_twice,
    _same_order_as_asked,
    _single_equals_batch,
    _empty_batch,
    _answers_are_not_aliased,
    _thread_safe,
    _round_trip,
)


def _run(check: Callable[[_Subject], None], ask: Any, tolerance: float, thing: Any) -> None:
    check(_Subject(thing, ask, tolerance))


PREDICTOR_CHECKS: dict[str, Callable[[Predictor], None]] = {
    check.__name__.strip("_"): partial(_run, check, _ask_predictor, 1e-4)
    for check in (*_SHARED, _observes, _refines)
}
# A p-value is a rank among calibration scores: rounding may move it by a rank or two.
DETECTOR_CHECKS: dict[str, Callable[[Detector], None]] = {
    check.__name__.strip("_"): partial(_run, check, _ask_detector, 0.02) for check in _SHARED
}
