"""The histogram: nested cells, their backing off, and learning online."""

import threading
from collections.abc import Sequence

import numpy as np
import pytest

from lengthpred import LengthDistribution, LengthGrid, Request
from lengthpred.models.histogram import Histogram
from lengthpred.models.request_class import path_of

GRID = LengthGrid()
POEM = Request(prompt="Write a poem about rivers", model="a")
LIST = Request(prompt="List the rivers of Asia", model="a")


def learnt(
    *observed: tuple[Request, int, int],
    stopped: bool = False,
    into: Histogram | None = None,
) -> Histogram:
    """A histogram that has seen each request's length so many times."""
    histogram = Histogram(GRID) if into is None else into
    for request, length, times in observed:
        lengths = np.full(times, length)
        histogram.learn([request] * times, lengths, np.full(times, stopped))
    return histogram


def median(histogram: Histogram, request: Request) -> float:
    return float(histogram.predict([request]).median()[0])


def test_requests_that_differ_in_kind_are_of_different_classes() -> None:
    paths = {path_of(request) for request in (POEM, LIST)}
    assert (
        len(paths) == 2 and path_of(Request(model="a")) == ("a",) and path_of(Request()) == ("*",)
    )
    assert path_of(Request(prompt="Привет, как дела?"))[2] == "greek-cyrillic"
    assert path_of(Request(prompt="“Why” do cats purr"))[2] == "ascii"


def test_a_class_with_many_lengths_answers_for_itself() -> None:
    histogram = learnt((POEM, 200, 2000), (LIST, 20, 2000))
    assert median(histogram, POEM) == pytest.approx(200, abs=15)
    assert median(histogram, LIST) == pytest.approx(20, abs=2)


def test_a_thin_class_backs_off_to_its_parent() -> None:
    thin = learnt((LIST, 20, 2000), (POEM, 500, 1))
    empty = learnt((LIST, 20, 2000))
    assert median(thin, POEM) == pytest.approx(median(empty, POEM), abs=1)
    # Its own lengths take over as they come.
    means = [
        learnt((LIST, 20, 2000), (POEM, 500, times)).predict([POEM]).mean()[0]
        for times in (0, 1, 30, 1000)
    ]
    assert means == sorted(means) and means[0] < 30 and means[-1] > 450


def test_a_model_that_was_never_seen_gets_the_class_under_all_models() -> None:
    other = Request(prompt=POEM.prompt, model="b")
    histogram = learnt((POEM, 200, 3000), (LIST, 20, 3000), (other, 100, 3000))
    stranger = Request(prompt=POEM.prompt, model="never seen")
    nobody = Request(prompt=POEM.prompt)
    assert histogram.predict([stranger]).pmf.tobytes() == histogram.predict([nobody]).pmf.tobytes()
    answer = histogram.predict([stranger])
    # Half of this class is model a's 200, half model b's 100; the lists are no part of it.
    assert answer.cdf(150)[0] == pytest.approx(0.5, abs=0.02) and answer.cdf(50)[0] < 0.02
    assert median(histogram, POEM) == pytest.approx(200, abs=15)


def test_a_model_without_a_name_is_counted_once() -> None:
    nameless = Request(prompt=POEM.prompt)
    arrays = learnt((nameless, 7, 10)).contents()
    assert arrays.arrays["cells"].sum(axis=(1, 2)).tolist() == [10.0] * len(path_of(nameless))
    named = learnt((POEM, 7, 10)).contents()
    assert named.arrays["cells"].sum(axis=(1, 2)).tolist() == [10.0] * 2 * len(path_of(POEM))


def test_beyond_a_limit_the_tail_is_the_parents() -> None:
    histogram = learnt((LIST, 50, 600), (LIST, 800, 400))
    learnt((POEM, 100, 2000), stopped=True, into=histogram)
    alone = learnt((LIST, 50, 600), (LIST, 800, 400))
    # No poem ended at or below 100, so all of it lies where the other answers above 100 do.
    tail = histogram.predict([POEM])
    assert tail.cdf(90)[0] < 0.05
    assert tail.median()[0] == pytest.approx(alone.predict([LIST]).given(100).median()[0], rel=0.1)


def test_observing_moves_the_answer() -> None:
    histogram = learnt((POEM, 20, 200))
    before = median(histogram, POEM)
    histogram.observe([POEM] * 400, np.full(400, 300), np.zeros(400, bool))
    assert before < 25 and median(histogram, POEM) > 250
    histogram.observe([], np.zeros(0, np.int64), np.zeros(0, bool))


def test_what_is_old_fades_with_the_half_life() -> None:
    shares = []
    for half_life in (100.0, 1e9):
        histogram = learnt((POEM, 20, 1000), into=Histogram(GRID, half_life=half_life))
        histogram.observe([POEM] * 200, np.full(200, 300), np.zeros(200, bool))
        shares.append(histogram.predict([POEM]).cdf(100)[0])
    # Two half-lives: 1000 / 4 beside 200 that fade one after another, and 1000 beside 200.
    newer = (1 - 0.25) / (1 - 0.5 ** (1 / 100))
    assert shares == pytest.approx([250 / (250 + newer), 1000 / 1200], abs=0.02)


def test_a_batch_fades_as_if_it_came_one_by_one() -> None:
    lengths = np.array([10] * 30 + [1000] * 10)
    one, many = Histogram(GRID, half_life=5), Histogram(GRID, half_life=5)
    many.observe([POEM] * 40, lengths, np.zeros(40, bool))
    for length in lengths:
        one.observe([POEM], np.array([length]), np.zeros(1, bool))
    np.testing.assert_allclose(one.predict([POEM]).pmf, many.predict([POEM]).pmf, atol=1e-6)


def test_lengths_that_are_none_are_refused() -> None:
    for lengths in (np.array([-1]), np.array([1, 2])):
        with pytest.raises(ValueError, match="length"):
            Histogram(GRID).observe([POEM], lengths, np.zeros(1, bool))


def test_one_by_one_or_at_once_it_fades_alike() -> None:
    at_once, one_by_one = Histogram(GRID, half_life=50), Histogram(GRID, half_life=50)
    for histogram in (at_once, one_by_one):
        learnt((LIST, 20, 500), into=histogram)
    at_once.observe([POEM] * 10, np.full(10, 300), np.zeros(10, bool))
    for _ in range(10):
        one_by_one.observe([POEM], np.array([300]), np.zeros(1, bool))
    difference = at_once.predict([LIST]).cdf(100) - one_by_one.predict([LIST]).cdf(100)
    assert abs(difference[0]) < 0.01


def test_it_learns_while_other_threads_ask() -> None:
    histogram = learnt((POEM, 20, 100))
    requests: Sequence[Request] = [POEM, LIST, Request(prompt="Summarize", model="b"), Request()]
    failures: list[BaseException] = []
    done = threading.Event()

    def ask() -> None:
        try:
            while not done.is_set():
                answer = histogram.predict(requests)
                LengthDistribution(GRID, answer.pmf)  # Raises for what is no distribution.
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    for i in range(100):
        new = Request(prompt=f"Explain {'x' * (i % 90)}", model=f"m{i % 7}")
        histogram.observe([POEM, new], np.array([300, i]), np.array([False, i % 5 == 0]))
    done.set()
    for thread in threads:
        thread.join()
    assert not failures
    # Nothing remembered from before the last observation is served after it.
    fresh = Histogram.from_contents(histogram.contents())
    assert (fresh.predict(requests).pmf == histogram.predict(requests).pmf).all()


@pytest.mark.parametrize(("strength", "half_life"), [(0, 1), (1, -1)])
def test_settings_that_make_no_sense(strength: float, half_life: float) -> None:
    with pytest.raises(ValueError, match="above 0"):
        Histogram(GRID, strength, half_life)
