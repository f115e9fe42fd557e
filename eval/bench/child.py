"""A process that is asked over a pipe, so that what is slow to start is started once."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from lengthpred.errors import BackendError
from lengthpred.eval.bench.server import tail

__all__ = ["Child", "answer_jobs"]

Job = dict[str, Any]
END_S = 30.0


class Child:
    """A module of ours in a process of its own, while it is entered; it calls `answer_jobs`.

    module     as of `python -m`
    name       told where it ends
    arguments  of its command line
    log        file for what it says
    variables  of the environment, beside this process' own

    Raises BackendError, with the end of the log, where it does not start or dies.
    """

    def __init__(
        self,
        module: str,
        name: str,
        arguments: Sequence[str],
        log: Path,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        self._module, self._name, self._arguments = module, name, list(arguments)
        self._log, self._variables = log, variables or {}

    def __enter__(self) -> Self:
        ours, theirs = os.pipe()
        command = [sys.executable, "-P", "-m", self._module, str(theirs), *self._arguments]
        with self._log.open("wb") as out:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=out,
                pass_fds=[theirs],
                env={**os.environ, **self._variables},
                text=True,
            )
        os.close(theirs)
        self._answers = os.fdopen(ours, encoding="utf-8")
        self._hear()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.wait()
        self._answers.close()

    def ask(self, job: Job) -> Job:
        """What it answers to a JSON object."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(job) + "\n")
            self._process.stdin.flush()
        except OSError:
            pass  # it is gone, and its log says why
        return self._hear()

    def _hear(self) -> Job:
        line = self._answers.readline()
        if not line:
            # It closes the pipe before the last thing that it says.
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(END_S)
            raise BackendError(f"{self._name} ended{tail(self._log)}")
        told: Job = json.loads(line)
        return told


def answer_jobs(make: Callable[[list[str]], Callable[[Job], Job]]) -> None:
    """In the child: make what does jobs from its arguments, then do them until there are no more.

    Started as `python -m MODULE FD [ARGUMENTS]`. Jobs come in on stdin and answers go out on FD, a
    JSON object a line.
    """
    with os.fdopen(int(sys.argv[1]), "w", encoding="utf-8") as answers:
        do = make(sys.argv[2:])
        _tell(answers, {})
        for line in sys.stdin:
            _tell(answers, do(json.loads(line)))


def _tell(answers: Any, told: Job) -> None:
    answers.write(json.dumps(told) + "\n")
    answers.flush()
