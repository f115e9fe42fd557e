"""The worker: order, counters, the clock, and predictors that misbehave."""

import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lengthpred import LengthDistribution, LengthGrid, Request
from lengthpred.errors import BackendError
from lengthpred.models.cascade import Cascade
from lengthpred.serving import worker as module
from lengthpred.serving.uncertain import UncertainQueue, uncertainty
from lengthpred.serving.worker import RefinementStats, RefinementWorker
from lengthpred.testing import FixedPredictor

GRID = LengthGrid()
Answer = tuple[LengthDistribution, npt.NDArray[np.bool_]]
WAIT_S = 60.0  # for what must happen: no test takes that long unless it fails


def first(width: int = 100) -> LengthDistribution:
    """A first answer with an 80 % interval of about so many tokens."""
    return LengthDistribution.from_samples(GRID, [[100, 100 + width]])


class Scripted:
    """A refiner that runs `refine_one` for each batch, and can be held inside it."""

    def __init__(self, script: Callable[[Sequence[Request]], object] | None = None) -> None:
        self.script, self.batches = script or self.good, list[list[str]]()
        self.asked_at: list[float] = []
        self.gate, self.inside = threading.Event(), threading.Semaphore(0)
        self.gate.set()

    def provisional(self, requests: Sequence[Request]) -> Answer:
        return self.good(requests)

    def refine(self, requests: Sequence[Request], deadline_s: float) -> Answer:
        self.asked_at.append(time.monotonic())
        self.batches.append([request.id for request in requests])
        self.inside.release()
        assert self.gate.wait(WAIT_S)
        return self.script(requests)  # type: ignore[return-value]

    def entered(self) -> None:
        """Wait until one more batch is inside."""
        assert self.inside.acquire(timeout=WAIT_S)

    @staticmethod
    def good(requests: Sequence[Request]) -> Answer:
        """Each answer tells the request that it is for: its prompt is the length."""
        lengths = {r.id: int(r.prompt or 1) for r in requests}
        return FixedPredictor(lengths).predict(requests), np.ones(len(requests), bool)


class Harness:
    """A worker, its predictor, and what it answered."""

    def __init__(self, predictor: Scripted, **options: object) -> None:
        self.predictor = predictor
        self.answers: list[tuple[str, float]] = []
        self.on_answer: Callable[[str], None] = lambda id: None
        options = {"rest_s": (0.01, 0.05), "deadline_s": WAIT_S} | options
        self.worker = RefinementWorker(self.predictor, self.answered, **options)  # type: ignore

    def answered(self, id: str, answer: LengthDistribution) -> None:
        assert len(answer) == 1 and threading.current_thread() is not threading.main_thread()
        self.answers.append((id, float(answer.median()[0])))
        self.on_answer(id)

    def submit(self, id: str, width: int = 100, length: int = 1) -> bool:
        return self.worker.submit(id, Request(prompt=str(length), id=id), first(width))

    def plug(self) -> None:
        """Occupy the worker with a batch of one until `release`, so that others wait."""
        self.predictor.gate.clear()
        assert self.submit("plug")
        self.predictor.entered()

    def release(self) -> None:
        self.predictor.gate.set()

    def step(self) -> None:
        """Let the batch inside go, and wait until the next one is held there."""
        held, self.predictor.gate = self.predictor.gate, threading.Event()
        held.set()
        self.predictor.entered()

    def until(self, done: Callable[[RefinementStats], bool]) -> RefinementStats:
        """The statistics as soon as they are so; each one on the way adds up."""
        end = time.monotonic() + WAIT_S
        while not done(stats := accounted(self.worker.stats())):
            assert time.monotonic() < end, stats
            time.sleep(0.001)
        return stats

    def idle(self) -> RefinementStats:
        """The statistics when nothing waits and all answers were handed on."""
        return self.until(lambda s: s.waiting == 0 and s.refined == len(self.answers))


def accounted(stats: RefinementStats) -> RefinementStats:
    """Every request that was submitted is in exactly one place."""
    places = "refined dropped_full dropped_started late unrefined failed waiting".split()
    assert stats.submitted == sum(getattr(stats, name) for name in places), stats
    assert stats.hidden_s <= stats.busy_s + 1e-9 and stats.hidden_s >= 0
    return stats


@pytest.fixture
def made() -> Iterator[Callable[..., Harness]]:
    """Makes harnesses and closes them at the end, held predictors and all."""
    harnesses: list[Harness] = []

    def make(predictor: Scripted | None = None, **options: object) -> Harness:
        harnesses.append(Harness(predictor or Scripted(), **options))
        return harnesses[-1]

    yield make
    for harness in harnesses:
        harness.release()
        harness.worker.close(WAIT_S)
        accounted(harness.worker.stats())
        assert not harness.worker._thread.is_alive()


Made = Callable[..., Harness]


def test_each_request_gets_its_own_answer(made: Made) -> None:
    h = made()
    h.plug()
    for i in range(10):
        assert h.submit(f"r{i}", length=i)
    h.release()
    stats = h.idle()
    lengths = dict(h.answers)
    assert [lengths[f"r{i}"] for i in range(10)] == list(range(10))
    assert (stats.submitted, stats.refined, stats.waiting, stats.last_failure) == (11, 11, 0, "")


def test_the_most_uncertain_go_first_in_batches(made: Made) -> None:
    h = made(batch=3)
    h.plug()
    widths = {"a": 40, "b": 900, "c": 40, "d": 300, "e": 100, "f": 10, "g": 600}
    for id, width in widths.items():
        h.submit(id, width)
    h.release()
    h.idle()
    # Of equally uncertain ones, a before c: the oldest.
    assert h.predictor.batches == [["plug"], ["b", "g", "d"], ["e", "a", "c"], ["f"]]


def test_uncertainty_is_in_tokens() -> None:
    long = LengthDistribution.from_samples(GRID, [[400, 800, 1200]])
    short = LengthDistribution.from_samples(GRID, [[1, 5, 9]])
    assert 700 < uncertainty(long) < 900 and 7 <= uncertainty(short) <= 9


def test_a_full_queue_drops_the_least_uncertain(made: Made) -> None:
    h = made(capacity=3)
    h.plug()
    assert [h.submit(id, width) for id, width in (("a", 50), ("b", 500), ("c", 200))] == [True] * 3
    assert not h.submit("low", 10)
    assert not h.submit("as low", 50)  # of equals the newest goes
    assert h.submit("high", 400)  # a goes
    assert h.worker.stats().waiting == 4 and h.worker.stats().dropped_full == 3
    h.release()
    stats = h.idle()
    assert h.predictor.batches[1] == ["b", "high", "c"]
    assert (stats.submitted, stats.refined, stats.dropped_full) == (7, 4, 3)


def test_what_started_before_its_turn_is_dropped(made: Made) -> None:
    h = made()
    h.plug()
    h.submit("a"), h.submit("b")
    for id in ("a", "a", "nobody"):
        h.worker.started(id)
    h.release()
    stats = h.idle()
    h.worker.started("b")
    assert [id for id, _ in h.answers] == ["plug", "b"]
    assert (stats.dropped_started, stats.refined, stats.late) == (1, 2, 0)
    assert h.worker.stats() == stats


def test_what_started_while_it_is_refined_is_late(made: Made) -> None:
    h = made()
    h.plug()
    h.worker.started("plug")
    h.submit("b")
    h.release()
    stats = h.idle()
    assert [id for id, _ in h.answers] == ["b"] and (stats.late, stats.refined) == (1, 1)


def test_what_starts_while_another_answer_is_handed_on_is_late(made: Made) -> None:
    h = made()
    h.plug()
    h.submit("a", 500), h.submit("b", 100)
    h.on_answer = lambda id: h.worker.started("b") if id == "a" else None
    h.release()
    stats = h.idle()
    assert [id for id, _ in h.answers] == ["plug", "a"] and stats.late == 1


def test_an_id_can_be_there_once_at_a_time(made: Made) -> None:
    h = made()
    h.plug()
    assert h.submit("a") and not h.submit("a") and not h.submit("plug")
    assert h.worker.stats().submitted == 2
    h.release()
    h.idle()
    assert h.submit("a") and h.idle().refined == 3


def test_hidden_time(made: Made) -> None:
    now = [100.0]
    h = made(clock=lambda: now[0])
    h.plug()
    for id in "abcd":
        h.submit(id)
    now[0] += 2
    h.worker.started("plug")
    h.worker.started("d")  # before its batch begins: no part of that
    now[0] += 3  # busy 5 s, hidden 2
    h.step()
    now[0] += 1
    h.worker.started("a")
    now[0] += 4
    for id in "ba":  # a second time changes nothing
        h.worker.started(id)
    now[0] += 5  # busy 10 s, hidden the mean of 1, 5 and 10
    assert (h.worker.stats().busy_s, h.worker.stats().hidden_s) == (5, 2)
    h.release()
    stats = h.idle()
    assert stats.busy_s == 15 and stats.hidden_s == pytest.approx(2 + 16 / 3)
    assert (stats.late, stats.dropped_started, stats.refined) == (3, 1, 1)


def test_time_that_failed_counts_as_busy(made: Made) -> None:
    now = [0.0]
    h = made(Scripted(raising), clock=lambda: now[0])
    h.plug()
    now[0] = 3
    h.worker.started("plug")
    now[0] = 4
    h.release()
    stats = h.idle()
    assert (stats.busy_s, stats.hidden_s, stats.failed, stats.late) == (4, 3, 1, 0)


def wrong_rows(asked: Sequence[Request]) -> object:
    return FixedPredictor().predict([*asked, Request()]), np.ones(len(asked), bool)


def wrong_grid(asked: Sequence[Request]) -> object:
    coarse = LengthGrid(np.array([0, 10, 100]))
    return LengthDistribution.from_samples(coarse, [[3]] * len(asked)), np.ones(len(asked), bool)


def wrong_flags(asked: Sequence[Request]) -> object:
    return FixedPredictor().predict(asked), np.ones(len(asked) + 1, bool)


def raising(asked: Sequence[Request]) -> object:
    raise ZeroDivisionError("oops")


def leaving(asked: Sequence[Request]) -> object:
    raise SystemExit


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (wrong_rows, "must have 1 rows, not 2"),
        (wrong_grid, "on the grid"),
        (wrong_flags, "flags"),
        (raising, "ZeroDivisionError: oops"),
        (leaving, "SystemExit"),
        (lambda asked: None, "TypeError"),
        (lambda asked: (None, None, None), "TypeError"),
    ],
)
def test_a_predictor_that_fails(made: Made, script: Callable[..., object], reason: str) -> None:
    h = made(Scripted(script))
    h.submit("a")
    stats = h.idle()
    assert (stats.failed, stats.refined) == (1, 0) and reason in stats.last_failure
    h.predictor.script = Scripted.good
    h.submit("a")
    assert h.idle().refined == 1 and [id for id, _ in h.answers] == ["a"]


def test_dead_for_a_while_then_alive_again(made: Made) -> None:
    rests, dead = (0.02, 0.1), 6

    def script(asked: Sequence[Request]) -> object:
        return (raising if len(h.predictor.batches) <= dead else Scripted.good)(asked)

    h = made(Scripted(script), batch=4, rest_s=rests)
    h.plug()
    for i in range(15):
        h.submit(f"r{i}")
    h.release()
    stats = h.idle()
    assert (stats.failed, stats.refined) == (dead, 10) and "oops" in stats.last_failure
    # One request at a time until the first success, then batches.
    assert [len(batch) for batch in h.predictor.batches] == [1] * (dead + 1) + [4, 4, 1]
    # Lower bounds only: a busy machine may take longer.
    gaps = np.diff(h.predictor.asked_at[: dead + 1])
    assert (gaps > 0.99 * np.array([0.02, 0.04, 0.08, 0.1, 0.1, 0.1])).all()


def test_a_predictor_that_takes_its_time_for_nothing_is_asked_for_one_at_a_time(made: Made) -> None:
    now, took = [0.0], [6.0, 6.0, 4.0, 0.0]

    def nothing(asked: Sequence[Request]) -> object:
        now[0] += took[len(h.predictor.batches) - 1]
        return Scripted.good(asked)[0], np.zeros(len(asked), bool)

    h = made(Scripted(nothing), batch=4, deadline_s=10.0, clock=lambda: now[0])
    h.plug()
    for i in range(9):
        h.submit(f"r{i}")
    took += [0.0] * 9
    h.release()
    stats = h.idle()
    assert (stats.unrefined, stats.failed) == (10, 0)
    # A quick nothing, or one of 4 s in 10, is healthy: requests that nobody can answer.
    assert [len(batch) for batch in h.predictor.batches] == [1, 1, 1, 4, 3]


def test_rests_double_up_to_the_longest(made: Made) -> None:
    h = made(rest_s=(0.5, 3.0))
    h.worker.close(WAIT_S)  # then a rest ends at once
    rests = [0.0]
    for _ in range(5):
        rests.append(h.worker._rest(rests[-1]))
    assert rests == [0, 0.5, 1, 2, 3, 3]


def test_failures_that_a_predictor_counts_for_others_too(made: Made) -> None:
    class Counting(Scripted):
        failures, last_failure = 0, "down"

    def half(asked: Sequence[Request]) -> object:
        predictor.failures += 100  # other threads use it as well
        return Scripted.good(asked)[0], np.array([r.id != "b" for r in asked])

    predictor = Counting(half)
    h = made(predictor, batch=2)
    h.plug()
    for id in "abcde":
        h.submit(id)
    h.release()
    stats = h.idle()
    assert (stats.refined, stats.failed, stats.unrefined) == (5, 1, 0)
    # Who still answers some is not dead: no probing with one.
    assert [len(batch) for batch in h.predictor.batches] == [1, 2, 2, 1]


def test_a_healthy_answer_ends_the_backing_off(made: Made) -> None:
    h = made(Scripted(raising), rest_s=(0.001, WAIT_S * 100))
    for _ in range(2):
        for _ in range(3):  # rests 1, 2 and 4 ms, each time anew
            h.submit("a")
            h.idle()
        h.predictor.script = Scripted.good
        h.submit("a")
        h.idle()
        h.predictor.script = raising
    assert h.worker.stats().failed == 6 and h.worker.stats().refined == 2


def test_a_predictor_that_hangs(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GRACE_S", 0.05)
    h = made(deadline_s=0.05)
    h.plug()
    for i in range(5):
        h.submit(f"r{i}")
    stats = h.until(lambda stats: stats.failed == 1)
    assert "did not answer" in stats.last_failure and stats.busy_s >= 0.1
    time.sleep(0.2)  # several rests, in which nobody is asked and nothing is lost
    assert len(h.predictor.batches) == 1
    stats = h.worker.stats()
    assert (stats.failed, stats.waiting, stats.refined) == (1, 5, 0)
    h.worker._deadline_s = WAIT_S  # that a busy machine does not fail the others
    h.release()
    assert h.idle().refined == 5
    assert "plug" not in [id for id, _ in h.answers], "an answer after its deadline is dropped"


def test_what_is_not_refined(made: Made) -> None:
    h = made(Scripted(lambda asked: (Scripted.good(asked)[0], [r.id < "c" for r in asked])))
    h.plug()
    for id in "abcde":
        h.submit(id)
    h.release()
    stats = h.idle()
    assert sorted(id for id, _ in h.answers) == ["a", "b"]
    assert (stats.refined, stats.unrefined, stats.failed) == (2, 4, 0)


def test_an_on_answer_that_raises(made: Made) -> None:
    h = made()

    def bad(id: str) -> None:
        raise {"a": ValueError, "b": SystemExit, "c": KeyboardInterrupt}.get(id, OSError)("bad")

    h.on_answer = bad
    for id in "abcd":
        h.submit(id)
    stats = h.idle()
    stats = h.until(lambda stats: stats.callback_errors == 4)
    assert stats.refined == 4 and "on_answer raised" in stats.last_failure
    h.on_answer = lambda id: None
    h.submit("e")
    assert h.idle().refined == 5


def test_an_on_answer_may_use_the_worker(made: Made) -> None:
    h = made()
    closed = threading.Event()

    def use(id: str) -> None:
        if len(h.answers) < 4:
            assert h.submit(f"{id}!") and h.worker.stats().submitted == len(h.answers) + 1
            h.worker.started(id)
        else:
            h.worker.close()
            closed.set()

    h.on_answer = use
    h.submit("a")
    assert closed.wait(WAIT_S)
    assert [id for id, _ in h.answers] == ["a", "a!", "a!!", "a!!!"]
    assert h.worker.stats().callback_errors == 0


def test_close(made: Made) -> None:
    h = made()
    h.plug()
    h.submit("a")
    begun = time.monotonic()
    h.worker.close(0.05)
    assert time.monotonic() - begun < 5
    assert not h.submit("b") and h.worker.stats().waiting == 2
    h.release()
    h.worker.close(float("inf"))
    h.worker.close(-1)
    stats = h.worker.stats()
    # The answer that was under way came too late; what waited stays.
    assert (stats.submitted, stats.late, stats.waiting, h.answers) == (2, 1, 1, [])
    h.worker.started("a")
    assert h.worker.stats().dropped_started == 1


def test_closing_ends_a_rest(made: Made) -> None:
    h = made(Scripted(raising), rest_s=(WAIT_S * 100, WAIT_S * 100))
    h.submit("a")
    h.idle()
    h.worker.close(WAIT_S)
    assert not h.worker._thread.is_alive()


def test_as_a_context() -> None:
    with RefinementWorker(Scripted(), lambda id, answer: None) as worker:
        assert worker.submit("a", Request(), first())
    assert not worker.submit("b", Request(), first()) and not worker._thread.is_alive()


def test_bad_arguments(made: Made) -> None:
    bad = ({"capacity": 0}, {"batch": 0}, {"deadline_s": 0.0}, {"deadline_s": float("nan")})
    for options in (*bad, {"rest_s": (0.0, 1.0)}, {"rest_s": (2.0, 1.0)}):
        with pytest.raises(ValueError, match="at least 1, and all times above 0"):
            RefinementWorker(Scripted(), print, **options)
    h = made()
    two = LengthDistribution.concat([first(), first()])
    nan = LengthDistribution.trusted(GRID, np.full((1, GRID.bins), np.nan, np.float32))
    for answer in (two, first()[[]], nan):
        with pytest.raises(ValueError, match="one provisional answer"):
            h.worker.submit("a", Request(), answer)
    h.submit("a")
    coarse = LengthDistribution.from_samples(LengthGrid(np.array([0, 9])), [[3]])
    with pytest.raises(ValueError, match="same grid"):
        h.worker.submit("b", Request(), coarse)
    assert h.idle().submitted == 1


def test_many_threads_at_once(made: Made) -> None:
    chance = random.Random(0)

    def erratic(asked: Sequence[Request]) -> object:
        if chance.random() < 0.02:
            raise BackendError("now and then")
        return Scripted.good(asked)[0], np.array([chance.random() < 0.8 for _ in asked])

    h = made(Scripted(erratic), capacity=40, batch=8, rest_s=(0.001, 0.002))
    taken = []

    def client(number: int) -> None:
        mine = random.Random(number)
        for i in range(300):
            h.submit(f"{number}-{i}", mine.randrange(1, 1000))
            taken.append(1)
            if mine.random() < 0.5:
                h.worker.started(f"{number}-{mine.randint(max(i - 5, 0), i)}")
            if i % 50 == 0:
                accounted(h.worker.stats())

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(client, range(8)))
    stats = h.idle()
    assert stats.submitted == len(taken) == 8 * 300
    assert stats.refined == len(h.answers) == len(dict(h.answers))
    assert min(stats.refined, stats.dropped_full, stats.unrefined) > 0


class Flagged:
    """A detector that is sure of nothing."""

    def p_value(self, requests: Sequence[Request]) -> npt.NDArray[np.float64]:
        return np.full(len(requests), 0.01)


def test_backend_stopped_in_mid_run_and_started_again(made: Made) -> None:
    """The cascade does not raise, but the worker sees its failures, and backs off."""
    fixed, calls = FixedPredictor({}, 200), list[int]()
    down = range(12, 18)  # the calls in which it is down

    class Fallback:
        def predict(self, requests: Sequence[Request]) -> LengthDistribution:
            if requests:
                calls.append(len(requests))
                if len(calls) - 1 in down:
                    raise BackendError("connection refused")
            return fixed.predict(requests)

    cascade = Cascade(FixedPredictor({}, 3), Flagged(), Fallback())
    rest_s = (0.001, 0.002)
    answers: list[str] = []
    with RefinementWorker(
        cascade, lambda id, answer: answers.append(id), batch=4, rest_s=rest_s
    ) as worker:
        for i in range(80):
            provisional, unsure = cascade.provisional([Request(id=f"{i}")])
            assert unsure.all() and worker.submit(f"{i}", Request(id=f"{i}"), provisional)
        end = time.monotonic() + WAIT_S
        while len(answers) + worker.stats().failed < 80 and time.monotonic() < end:
            time.sleep(0.001)
    stats = accounted(worker.stats())
    assert calls[13:19] == [1] * 6, "what waits is kept for when it is up again"
    assert stats.failed == cascade.failures == sum(calls[i] for i in down) <= 4 + 5
    assert stats.refined == len(answers) == 80 - stats.failed and stats.unrefined == 0
    assert stats.last_failure == cascade.last_failure == "BackendError: connection refused"


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("put"), st.integers(0, 9), st.integers(0, 3)),
            st.tuples(st.just("remove"), st.integers(0, 9), st.just(0)),
            st.tuples(st.just("take"), st.integers(1, 4), st.just(0)),
        )
    )
)
def test_the_queue_against_a_plain_list(steps: list[tuple[str, int, int]]) -> None:
    queue, model = UncertainQueue(4), list[tuple[float, int, str]]()
    for number, (step, what, width) in enumerate(steps):
        id = str(what)
        known = [key for key in model if key[2] == id]
        assert (id in queue) == bool(known)
        if step == "put" and not known:
            gone = queue.put(id, Request(id=id), width)
            model = sorted([*model, (float(width), -number, id)], reverse=True)
            assert (gone.id if gone else None) == (model[4][2] if len(model) > 4 else None)
            model = model[:4]
        elif step == "remove":
            assert queue.remove(id) == bool(known)
            model = [key for key in model if key[2] != id]
        elif step == "take":
            assert [entry.id for entry in queue.take(what)] == [key[2] for key in model[:what]]
            model = model[what:]
        assert len(queue) == len(model)


def test_what_cannot_refine_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="FixedPredictor has no second answer"):
        RefinementWorker(FixedPredictor(), lambda id, answer: None)  # type: ignore[arg-type]
