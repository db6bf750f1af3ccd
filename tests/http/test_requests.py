"""Requests as the server receives them, over both transports."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from tests.http.peers import PATIENT, QUICK, TRANSPORTS, Peer, answering, body_of, serving
from trove_async._concurrency import OwnedTask
from trove_async.errors import IntegrityError, TimedOutError, UnavailableError
from trove_async.models import KiB, MiB, Timeout

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncGenerator, AsyncIterator, Callable

    from trove_async._http import Transport

pytestmark = pytest.mark.uvloop


async def test_request_arrives_unchanged(transport: Transport) -> None:
    seen: list[tuple[list[str], bytes]] = []

    async def handler(peer: Peer) -> None:
        while True:
            seen.append(await peer.request())
            await peer.say(b"HTTP/1.1 204 No Content\r\n\r\n")

    target = "/b/a%20b/%2e%2e/%25/c?list-type=2&prefix=%C3%A9"
    async with serving(handler) as server:
        no: list[memoryview] = []
        for method, views in (
            ("GET", no),
            ("PUT", [memoryview(b"one"), memoryview(b"two")]),
            ("PUT", no),
            ("DELETE", no),
        ):
            answer = await transport.send(
                method, server.origin, target, {"X-Amz-Date": "now"}, views
            )
            assert (answer.status, await body_of(answer)) == (204, b"")
    assert [lines[0] for lines, _ in seen] == [
        f"{method} {target} HTTP/1.1" for method in ("GET", "PUT", "PUT", "DELETE")
    ]
    assert [body for _, body in seen] == [b"", b"onetwo", b"", b""]
    for lines, _ in seen:
        named = {line.partition(":")[0].lower(): line.partition(":")[2].strip() for line in lines}
        assert named["host"] == server.origin.authority
        assert named["x-amz-date"] == "now"
        assert "expect" not in named
    assert server.connections == 1


async def test_large_body_arrives_whole(transport: Transport) -> None:
    pieces = [bytes([number]) * (MiB + number) for number in range(5)]
    seen: list[bytes] = []

    async def handler(peer: Peer) -> None:
        seen.append((await peer.request())[1])
        await peer.say(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    async with serving(handler) as server:
        answer = await transport.send(
            "PUT", server.origin, "/", {}, [memoryview(piece) for piece in pieces]
        )
        assert answer.status == 200
        answer.close()
    assert seen == [b"".join(pieces)]


class Window:
    """A streamed body with one reused buffer: each piece overwrites the previous one."""

    def __init__(self, size: int, *, fails: Exception | None = None) -> None:
        self.size = size
        self.body = (bytes(range(251)) * (size // 251 + 1))[:size]
        self.open = self.opened = 0
        self._fails = fails

    @asynccontextmanager
    async def pieces(self) -> AsyncIterator[AsyncIterator[memoryview]]:
        self.open += 1
        self.opened += 1
        try:
            async with aclosing(self._pieces()) as pieces:
                yield pieces
        finally:
            self.open -= 1

    async def _pieces(self) -> AsyncGenerator[memoryview]:
        memory = memoryview(bytearray(MiB))
        for at in range(0, self.size, MiB):
            piece = self.body[at : at + MiB]
            await asyncio.sleep(0)
            memory[: len(piece)] = piece
            yield memory[: len(piece)]
            memory[:] = bytes(MiB)
        if self._fails is not None:
            raise self._fails


async def test_streamed_body_arrives_whole(transport: Transport) -> None:
    seen: list[tuple[list[str], bytes]] = []

    async def handler(peer: Peer) -> None:
        while True:
            seen.append(await peer.request())
            await peer.say(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    bodies = [Window(size) for size in (1, MiB, 9 * MiB + 1)]
    async with serving(handler) as server:
        for body in bodies:
            answer = await transport.send("PUT", server.origin, "/", {}, body)
            assert answer.status == 200
            answer.close()
            assert (body.open, body.opened) == (0, 1)
        assert server.connections == 1
    assert [body for _, body in seen] == [body.body for body in bodies]
    for (lines, _), body in zip(seen, bodies, strict=True):
        assert f"content-length: {body.size}" in [line.lower() for line in lines]


async def test_error_in_streamed_body_fails_request(transport: Transport) -> None:
    async with serving(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")) as server:
        for error in (IntegrityError("it has changed"), OSError(5, "it broke")):
            body = Window(3 * MiB, fails=error)
            body.size += 1
            with pytest.raises(type(error)) as caught:
                await transport.send("PUT", server.origin, "/", {}, body)
            assert caught.value is error
            assert body.open == 0
        answer = await transport.send("GET", server.origin, "/", {})
        assert await body_of(answer) == b""
    assert server.connections == 3


async def test_early_error_response_closes_streamed_body(transport: Transport) -> None:
    async def handler(peer: Peer) -> None:
        await peer.request(body=False)
        await peer.say(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
        await peer.reader.read()

    async with serving(handler) as server:
        body = Window(64 * MiB)
        answer = await transport.send("PUT", server.origin, "/", {}, body)
        assert (answer.status, await body_of(answer)) == (403, b"no")
        while body.open:
            await asyncio.sleep(0)


async def test_cancel_closes_streamed_body(transport: Transport) -> None:
    async def handler(peer: Peer) -> None:
        await peer.request(body=False)
        arrived.set()
        await asyncio.Event().wait()

    arrived = asyncio.Event()
    body = Window(64 * MiB)
    async with serving(handler) as server:
        task = OwnedTask(transport.send("PUT", server.origin, "/", {}, body))
        await arrived.wait()
        await task.aclose()
        while body.open:
            await asyncio.sleep(0)


async def test_stalled_streamed_upload_times_out(
    impatient: Transport,
) -> None:
    async def handler(peer: Peer) -> None:
        await peer.request(body=False)
        await asyncio.Event().wait()

    body = Window(64 * MiB)
    async with serving(handler) as server:
        with pytest.raises(TimedOutError):
            await impatient.send("PUT", server.origin, "/", {}, body)
        assert body.open == 0


@pytest.mark.parametrize("make", TRANSPORTS.values(), ids=TRANSPORTS)
@pytest.mark.parametrize("size", [100, 64 * KiB, 64 * KiB + 1, 5 * MiB + 1])
async def test_bodies_of_any_size_round_trip_over_tls(
    make: Callable[..., Transport], size: int, tls: tuple[ssl.SSLContext, ssl.SSLContext]
) -> None:
    body = (bytes(range(251)) * (size // 251 + 1))[:size]

    async def echo(peer: Peer) -> None:
        while True:
            _, sent = await peer.request()
            await peer.say(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(sent), sent)

    shown, trusted = tls
    transport = make(Timeout(connect=5, first_byte=5, idle=5), tls=trusted)
    async with serving(echo, shown) as server:
        for _ in range(2):
            answer = await transport.send("PUT", server.origin, "/", {}, [memoryview(body)])
            assert await body_of(answer) == body
        window = Window(size)
        answer = await transport.send("PUT", server.origin, "/", {}, window)
        assert await body_of(answer) == window.body
        assert server.connections == 1
        await transport.aclose()


async def test_early_error_response_is_returned_and_connection_not_reused(
    transport: Transport,
) -> None:
    async def handler(peer: Peer) -> None:
        await peer.request(body=False)
        await peer.say(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
        await peer.reader.read()

    async with serving(handler) as server:
        for _ in range(2):
            views = [memoryview(bytes(8 * MiB))]
            answer = await transport.send("PUT", server.origin, "/", {}, views)
            assert (answer.status, await body_of(answer)) == (403, b"no")
    assert server.connections == 2


async def test_success_before_whole_body_raises(make: Callable[..., Transport]) -> None:
    transport = make(PATIENT)

    async def handler(peer: Peer) -> None:
        await peer.request(body=False)
        await peer.say(b"HTTP/1.1 200 OK\r\nETag: x\r\nContent-Length: 0\r\n\r\n")
        await peer.reader.read()

    async with serving(handler) as server:
        views = [memoryview(bytes(64 * MiB))]  # more than sockets hold
        with pytest.raises(UnavailableError, match="before it received the whole"):
            await transport.send("PUT", server.origin, "/", {}, views)


@pytest.mark.parametrize(
    "interim",
    [
        (b"HTTP/1.1 100 Continue\r\n\r\n",),
        (b"HTTP/1.1 103 Early Hints\r\nLi", b"nk: x\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n"),
    ],
)
async def test_upload_continues_after_interim_responses(
    make: Callable[..., Transport], interim: tuple[bytes, ...]
) -> None:
    transport = make(PATIENT)
    body = bytes(range(256)) * (32 * MiB // 256)  # more than sockets hold
    seen = []

    async def handler(peer: Peer) -> None:
        await peer.request(body=False)
        await peer.say(*interim)
        seen.append(await peer.reader.readexactly(len(body)))
        await peer.say(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    async with serving(handler) as server:
        answer = await transport.send("PUT", server.origin, "/", {}, [memoryview(body)])
        assert answer.status == 200
        answer.close()
    assert seen == [body]


async def test_patient_request_has_no_first_byte_timeout(
    impatient: Transport,
) -> None:
    async def handler(peer: Peer) -> None:
        while True:
            await peer.request()
            await asyncio.sleep(3 * QUICK.first_byte)
            await peer.say(b"HTTP/1.1 204 No Content\r\n\r\n")

    async with serving(handler) as server:
        answer = await impatient.send("PUT", server.origin, "/", {}, patient=True)
        assert (answer.status, await body_of(answer)) == (204, b"")
        with pytest.raises(TimedOutError):  # over the same connection
            await impatient.send("PUT", server.origin, "/", {})
    assert server.connections == 1


async def test_stalled_response_body_of_patient_request_times_out(
    impatient: Transport,
) -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.say(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", b" ")
        await peer.reader.read()

    async with serving(handler) as server:
        answer = await impatient.send("PUT", server.origin, "/", {}, patient=True)
        with pytest.raises(TimedOutError):
            await body_of(answer)


async def test_header_with_line_break_is_not_sent(transport: Transport) -> None:
    async with serving(answering(b"HTTP/1.1 204 No Content\r\n\r\n")) as server:
        with pytest.raises(ValueError, match=r"(?i)newline|CR or LF|header"):
            await transport.send("GET", server.origin, "/", {"x-a": "1\r\nx-b: 2"})
    assert server.connections <= 1
