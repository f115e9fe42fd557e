"""Where the parts of a long job run: in this process, or in the workers of Ray Data.

Ray is loaded only where it is asked for. A job is a list of items that do not depend on each
other; a worker is made once and then called with one item after another.
"""

import os
import pickle
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from lengthpred.errors import LengthPredError, SettingsError, did_you_mean, require

__all__ = ["RUNNERS", "Work", "check_runner", "in_order", "over_ray"]

RUNNERS = ("local", "ray")
DEFAULT_WORKERS = 2
JOIN_S = 10.0
MOST_BLOCKS = 1000  # more would cost the driver more than even shares are worth
Work = Callable[[Any], Any]
"""Called with one item; returns what is to come back. Both must be picklable."""


def check_runner(runner: str, workers: int | None) -> int:
    """How many workers there will be.

    Raises SettingsError for what cannot be, MissingExtraError where Ray is not installed.
    """
    if runner not in RUNNERS:
        raise SettingsError(f"'{runner}' is no runner. {did_you_mean(runner, RUNNERS)}")
    if workers is not None and runner == "local":
        raise SettingsError("--workers is for --runner ray: --runner local is one process")
    if workers is not None and workers < 1:
        raise SettingsError(f"--workers must be 1 or more, not {workers}")
    if runner == "ray":
        _loaded()
        return workers or DEFAULT_WORKERS
    return 1


def over_ray(
    make: Callable[[], Work], items: Sequence[object], workers: int, *, gpus: int = 0
) -> Iterator[tuple[int, Any]]:
    """Results with the numbers of their items, as they come.

    make   called once in each worker, at its first item; picklable
    gpus   that each worker holds

    Runs on the cluster of RAY_ADDRESS, or on a local Ray that ends with this generator; a Ray that
    the caller started is used and left as it is. An error of lengthpred in a worker is raised here
    as it is.
    """
    if not items:
        return
    rows = [{"number": n, "item": pickle.dumps(item)} for n, item in enumerate(items)]
    with _session(workers) as data:
        # One block an item, so that a slow item holds up no other.
        blocks = min(len(rows), MOST_BLOCKS)
        answers = data.from_items(rows, override_num_blocks=blocks).map_batches(
            _Actor,
            fn_constructor_args=(make,),
            batch_size=1,
            batch_format="pyarrow",  # NumPy's bytes lose zeros at their end
            concurrency=min(workers, len(rows)),
            num_cpus=1,
            num_gpus=gpus or None,
        )
        before, found = set(threading.enumerate()), iter(answers.iter_rows())
        try:
            for row in found:
                result = pickle.loads(row["result"])
                if isinstance(result, LengthPredError):
                    raise result
                yield row["number"], result
        finally:
            with _silent():
                found.close()
                _join(set(threading.enumerate()) - before)


def in_order(results: Iterable[tuple[int, Any]]) -> Iterator[Any]:
    """Results by rising number, each as soon as all before it are there.

    >>> list(in_order([(1, "b"), (0, "a"), (2, "c")]))
    ['a', 'b', 'c']
    """
    early: dict[int, Any] = {}
    following = 0
    for number, result in results:
        early[number] = result
        while following in early:
            yield early.pop(following)
            following += 1


class _Actor:
    """A worker as Ray Data calls it."""

    def __init__(self, make: Callable[[], Work]) -> None:
        self._make = make
        self._work: Work | None = None

    def __call__(self, batch: Any) -> Any:
        import pyarrow as pa

        results = []
        for item in batch["item"].to_pylist():
            try:
                # Not in __init__: Ray would wrap what is raised there.
                if self._work is None:
                    self._work = self._make()
                results.append(pickle.dumps(self._work(pickle.loads(item))))
            except LengthPredError as error:
                results.append(pickle.dumps(error))
        column = pa.array(results, pa.large_binary())
        return pa.table({"number": batch["number"], "result": column})


@contextmanager
def _session(workers: int) -> Iterator[Any]:
    """The module ray.data with a Ray behind it that says nothing on the terminal."""
    import logging

    ray, data = _loaded()
    context = data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    started = not ray.is_initialized()
    if started:
        quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
        with _silent():
            if os.environ.get("RAY_ADDRESS"):
                ray.init(**quiet)
            else:
                # "local": without it Ray would join whatever cluster was last started here.
                cpus = max(os.cpu_count() or 1, workers + 1)
                ray.init(address="local", num_cpus=cpus, include_dashboard=False, **quiet)
    try:
        yield data
    finally:
        if started:
            # Where the caller stops early, Ray complains of the tasks that it has to kill.
            with _silent():
                ray.shutdown()


def _join(threads: set[threading.Thread]) -> None:
    """Wait for Ray Data's threads that read ahead, once their iterator is closed.

    One that lets go of an object of Ray's after Ray's shutdown ends this process, with status 1 and
    without a word. Its prefetcher does not end, but sleeps.
    """
    end = time.monotonic() + JOIN_S
    for thread in threads:
        if thread.name != "Prefetcher":
            thread.join(max(0.0, end - time.monotonic()))


def _loaded() -> tuple[Any, Any]:
    """The modules ray and ray.data; raises MissingExtraError."""
    # Ray reads these when it is first loaded: no calls home, nothing on the terminal from C++.
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    why = "--runner ray"
    return require("ray", "ray", why), require("ray.data", "ray", why)


@contextmanager
def _silent() -> Iterator[None]:
    """Hide what Ray and its C++ code write on the terminal; errors are raised as ever."""
    streams = (sys.stdout, sys.stderr)
    for stream in streams:
        stream.flush()
    kept = os.dup(1), os.dup(2)
    with open(os.devnull, "w") as nothing:
        for number in (1, 2):
            os.dup2(nothing.fileno(), number)
    try:
        yield
    finally:
        for stream in streams:
            stream.flush()
        for number, one in zip((1, 2), kept, strict=True):
            os.dup2(one, number)
            os.close(one)
