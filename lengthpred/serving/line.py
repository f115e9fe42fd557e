"""The process of a predictor, and the socket to it."""

import json
import socket
import struct
import subprocess
import sys
from multiprocessing.connection import Connection
from typing import NamedTuple

import numpy as np

from lengthpred.distribution import LengthDistribution, LengthGrid
from lengthpred.errors import BackendError
from lengthpred.serving.frames import Reply, unpack_answer

__all__ = ["Hello", "Line"]

START_S = 300.0  # that loading an artifact may take


class Hello(NamedTuple):
    """What a predictor says when it is loaded.

    prior    its answer to a request without text, one row
    seconds  that one prediction takes by itself
    refines  whether it has second opinions
    observes whether it learns from true lengths
    """

    prior: LengthDistribution
    seconds: float
    refines: bool
    observes: bool


class Line:
    """Starts a process, and talks with it; one thread alone calls all but `kill` and `pid`.

    silence_s: seconds after which half a message is no message. `send` and `receive` raise OSError
    or EOFError where nobody is at the other end, or nobody reads.
    """

    def __init__(self, artifact: str, silence_s: float) -> None:
        self._artifact = artifact
        ours, theirs = socket.socketpair()
        with theirs:
            # A process that is stopped reads nothing, and a long call would wait for it for ever.
            limit = struct.pack("ll", int(silence_s), int(1e6 * (silence_s % 1)))
            for way in (socket.SO_SNDTIMEO, socket.SO_RCVTIMEO):
                ours.setsockopt(socket.SOL_SOCKET, way, limit)
            call = [sys.executable, "-m", "lengthpred.serving.child", str(theirs.fileno())]
            # What it prints must not come between the lines of a server's own output.
            self._child = subprocess.Popen(
                [*call, artifact], pass_fds=[theirs.fileno()], stdout=sys.stderr.fileno()
            )
        self._socket: Connection[bytes, bytes] = Connection(ours.detach())

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._child.pid

    @property
    def ended(self) -> bool:
        """Whether the process is gone."""
        return self._child.poll() is not None

    def hello(self) -> Hello:
        """Wait until the predictor is loaded. Raises BackendError when it cannot be."""
        try:
            if not self._socket.poll(START_S):
                raise EOFError
            told = json.loads(self._socket.recv_bytes())
        except (EOFError, OSError, ValueError):
            self.close()
            raise BackendError(
                f"{self._artifact} could not be loaded in a process of its own: see what it wrote"
            ) from None
        self._grid = LengthGrid(np.array(told["grid"]))
        prior = LengthDistribution(self._grid, np.array([told["pmf"]], np.float32))
        return Hello(prior, told["seconds"], told["refines"], told["observes"])

    def send(self, message: bytes) -> None:
        """Hand over a call."""
        self._socket.send_bytes(message)

    def receive(self, wait_s: float) -> Reply | None:
        """The next reply; None where none came within `wait_s`. Raises ValueError for nonsense."""
        if not self._socket.poll(max(wait_s, 0.0)):
            return None
        return unpack_answer(self._socket.recv_bytes(), self._grid)

    def kill(self) -> None:
        """End the process; whoever uses the line will notice."""
        self._child.kill()

    def close(self) -> None:
        """End all of it."""
        self._socket.close()
        self._child.kill()
        self._child.wait()
