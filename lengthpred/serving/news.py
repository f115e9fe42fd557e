"""Late priorities, from the process that predicts to those that schedule: Unix datagrams.

One socket an engine, in a folder that both are told of. A message is JSON: {"id": the name of a
call, "priority": its key}. Nothing waits: what an engine cannot take is dropped.
"""

import json
import os
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any

__all__ = ["Inbox", "Outbox"]

PATTERN = "engine-*.sock"
LONGEST = 65_536  # bytes of a message
AT_ONCE = 4096  # messages of one look


class Inbox:
    """The socket of one engine. Raises OSError when it cannot be made."""

    def __init__(self, folder: Path, engine: int) -> None:
        self._path = folder / f"engine-{engine}.sock"
        with suppress(FileNotFoundError):
            self._path.unlink()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.bind(os.fspath(self._path))

    def read(self) -> list[tuple[str, int]]:
        """What has come since the last look: names of calls and their new keys, in order."""
        found = []
        for _ in range(AT_ONCE):
            try:
                data = self._socket.recv(LONGEST)
            except BlockingIOError:
                break
            with suppress(ValueError, KeyError, TypeError):
                told: Any = json.loads(data)
                found.append((str(told["id"]), int(told["priority"])))
        return found

    def close(self) -> None:
        """Take the socket away."""
        self._socket.close()
        self._path.unlink(missing_ok=True)


class Outbox:
    """Tells all engines of a folder. sent, dropped: messages, counted once an engine."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.sent = self.dropped = 0

    def tell(self, id: str, priority: int) -> None:
        """Tell the new key of a call; the engine that has it takes it, others do not know it."""
        message = json.dumps({"id": id, "priority": priority}).encode()
        for path in self._folder.glob(PATTERN):
            try:
                self._socket.sendto(message, os.fspath(path))
                self.sent += 1
            except OSError:  # it is full, or its engine is gone
                self.dropped += 1

    def close(self) -> None:
        """Nothing more will be told."""
        self._socket.close()
