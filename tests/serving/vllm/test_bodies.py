"""Bodies that are huge, slow, abandoned or ambiguous, as the middleware reads them."""

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest

from lengthpred.serving.order import MOST_ASKED
from lengthpred.serving.settings import MB
from lengthpred.serving.vllm.bodies import AT_ONCE, BEAMS, BodyReader, BodyRefused, asked_in, replay

KB = 1000 / MB
CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
GONE = {"type": "http.disconnect"}


def part(body: bytes, more: bool = True) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": more}


class Client:
    """Sends parts of a body, then nothing until it is told to go."""

    def __init__(self, *parts: dict[str, Any]) -> None:
        self.parts, self.leave = list(parts), asyncio.Event()

    async def receive(self) -> dict[str, Any]:
        await asyncio.sleep(0)
        if self.parts:
            return self.parts.pop(0)
        await self.leave.wait()
        return GONE


async def read_all(reader: BodyReader, clients: Sequence[Client]) -> Any:
    """What became of each, once those that stay have been told to go."""
    reads = [asyncio.create_task(reader.read(client.receive)) for client in clients]
    await asyncio.sleep(0.2)
    most = reader._bytes
    for client in clients:
        client.leave.set()
    return most, await asyncio.gather(*reads, return_exceptions=True)


def test_a_body_in_parts_is_whole_and_may_be_read_again() -> None:
    async def check() -> None:
        reader = BodyReader(KB)
        client = Client(part(b"ab"), part(b""), part(b"c", False))
        raw = await reader.read(client.receive)
        assert raw == b"abc" and reader._bytes == 0
        client.leave.set()
        again = replay(raw, client.receive)
        assert [await again(), await again()] == [part(b"abc", False), GONE]

    asyncio.run(check())


def test_a_body_that_is_too_large_is_not_read_to_its_end() -> None:
    async def check() -> None:
        reader = BodyReader(KB)
        one, other = Client(part(b"a" * 999), part(b"ab"), part(b"", False)), Client()
        for client, announced in ((one, 0), (other, 1001)):
            with pytest.raises(BodyRefused, match=r"larger than 0\.001 MB") as refused:
                await reader.read(client.receive, announced)
            assert refused.value.status == 413
        assert len(one.parts) == 1 and reader._bytes == 0 and not reader._held
        assert await reader.read(Client(part(b"a" * 1000, False)).receive, 1000) == b"a" * 1000

    asyncio.run(check())


def test_slow_bodies_hold_no_more_than_is_allowed_and_nobody_up() -> None:
    """A thousand, each nearly as large as one may be: the largest give way, small ones never."""

    async def check() -> None:
        reader = BodyReader(64 * KB)
        slow = [Client(*[part(b"a" * 6000)] * 10) for _ in range(1000)]
        small = Client(part(b"{"), part(b"}"))
        reads = asyncio.create_task(read_all(reader, [small, *slow]))
        await asyncio.sleep(0.05)
        assert await reader.read(Client(part(b"{"), part(b"}", False)).receive) == b"{}"
        most, became = await reads
        assert most <= AT_ONCE * 64_000
        refused = [one for one in became if isinstance(one, BodyRefused)]
        assert {one.status for one in refused} == {429}
        # Those that were not refused are told of their clients' leaving, and nothing is kept.
        assert became.count(None) == 1001 - len(refused) and became[0] is None
        # As many as fit are read; where some are done early, others come after them.
        assert AT_ONCE - 2 <= became.count(None) - 1 < 100
        assert reader._bytes == 0 and not reader._held

    asyncio.run(check())


def test_a_body_that_gave_way_is_not_taken_for_whole() -> None:
    """Its last part may be there before it is told."""

    async def check() -> None:
        reader = BodyReader(KB)
        large = asyncio.Event()

        async def receive() -> dict[str, Any]:
            if not parts:
                await large.wait()
                return part(b"end", False)
            return parts.pop()

        parts = [part(b"a" * 900)]
        read = asyncio.create_task(reader.read(receive))
        rest = [Client(part(b"a" * 890)) for _ in range(AT_ONCE + 2)]
        others = asyncio.create_task(read_all(reader, rest))
        while not any(turn.when() is not None for turn in reader._held):
            await asyncio.sleep(0)
        large.set()
        with pytest.raises(BodyRefused):
            await read
        await others

    asyncio.run(check())


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32-le"])
@pytest.mark.parametrize("pad", [10, 2000])
def test_no_size_and_no_spelling_hides_a_beam_search(encoding: str, pad: int) -> None:
    body = {"prompt": "a" * pad, "use_beam_search": True}
    for raw in (json.dumps(body), json.dumps(body).replace("use_beam", "us\\u0065_be\\u0061m")):
        assert asked_in(raw.encode(encoding), COMPLETIONS, KB) == BEAMS
    for said in ({}, {"use_beam_search": False}, {"why": "use_beam_search"}):
        raw = json.dumps({"prompt": "a" * pad, **said})
        asked = asked_in(raw.encode(encoding), COMPLETIONS, KB)
        assert asked is None if len(raw.encode(encoding)) > 1000 else asked and len(asked) == 1


def test_very_many_prompts_are_not_read_one_by_one() -> None:
    for prompts in (["a"] * 100_000, [[1, 2]] * 100_000):
        raw = json.dumps({"prompt": prompts}).encode()
        asked = asked_in(raw, COMPLETIONS, 10)
        assert asked and len(asked) == 100_000
        assert len({id(request) for request in asked}) == MOST_ASKED
    one = asked_in(json.dumps({"prompt": [1] * 1000}).encode(), COMPLETIONS, 10)
    assert one and len(one) == 1 and one[0].prompt_tokens == 1000


def test_a_decoy_is_passed_over() -> None:
    body = {"prompt": "long one", "messages": [{"role": "user", "content": "Hi"}], "n": "3"}
    raw = json.dumps(body).encode()
    [asked] = asked_in(raw, COMPLETIONS, 1) or []
    assert asked.prompt == "long one" and asked.sampling == {"n": 3} and asked.max_tokens == 16
    [asked] = asked_in(raw, CHAT, 1) or []
    assert asked.prompt == "Hi" and asked.max_tokens is None
    assert asked_in(raw, "/invocations", 1) is None


@pytest.mark.parametrize("raw", [b"", b"\xff", b"[1]", b'{"a":' * 10**5, b"null", b'{"prompt":{}}'])
def test_what_is_no_body_of_a_call_is_not_read(raw: bytes) -> None:
    for path in (CHAT, COMPLETIONS, "/v1/messages", "/v1/responses", "/invocations"):
        assert asked_in(raw, path, 1) is None
