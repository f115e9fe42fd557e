"""What is seen of a call while it runs: its client, its answer, and how vLLM names it."""

import re
from collections.abc import Awaitable, Callable

from lengthpred.serving.service import Service
from lengthpred.serving.vllm.bodies import Message, Receive

__all__ = ["Send", "Watch"]

Send = Callable[[Message], Awaitable[None]]

NAME, HEAD = re.compile(rb'"id"\s*:\s*"(resp_\w+)"'), 8192


class Watch:
    """Hands on what comes in and goes out as it is, and tells the service what it must know.

    named_by_vllm: the call's name is in the answer, and not the one that the middleware gave it.
    """

    def __init__(
        self, service: Service, id: str, receive: Receive, send: Send, named_by_vllm: bool
    ) -> None:
        self._service, self._id, self._receive, self._send = service, id, receive, send
        self._head: bytes | None = b"" if named_by_vllm else None
        self._complete = False

    async def receive(self) -> Message:
        """For the app. A client that leaves is told no length: vLLM stops."""
        message = await self._receive()
        if message["type"] == "http.disconnect" and not self._complete:
            self.forget()
        return message

    async def send(self, message: Message) -> None:
        """For the app. An error has no length."""
        if message["type"] == "http.response.start":
            if message["status"] >= 400:
                self.forget()
        elif message["type"] == "http.response.body":
            if self._head is not None:
                self._look_for_name(self._head + message.get("body", b"")[:HEAD])
            self._complete = not message.get("more_body", False)
        await self._send(message)

    def forget(self) -> None:
        """No length will be told of this call."""
        self._service.pending.forget(self._id)
        self._service.metrics.pending.set(len(self._service.pending))

    def _look_for_name(self, head: bytes) -> None:
        named = NAME.search(head)
        if named:
            self._service.named(self._id, named[1].decode())
            self._id = named[1].decode()
        self._head = None if named or len(head) >= HEAD else head
