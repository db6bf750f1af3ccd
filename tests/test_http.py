"""The transports: one request out, one answer in, whatever the server does. Both pass the same."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.listening import listening
from trove_async._concurrency import OwnedTask
from trove_async._http import AiohttpTransport, Origin, SocketTransport
from trove_async.errors import ConfigError, IntegrityError, TimedOutError, UnavailableError
from trove_async.models import KiB, MiB, Timeout

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable

    from trove_async._http import Answer, Transport

    Handler = Callable[["Peer"], Awaitable[None]]

QUICK = Timeout(connect=5, first_byte=0.2, idle=0.2)
PATIENT = Timeout(connect=10, first_byte=10, idle=10)


class Peer:
    """The server's side of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def request(self, *, body: bool = True) -> tuple[list[str], bytes]:
        """Return the lines of the next request's head, and its body."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        lines = head.split("\r\n")[:-2]
        sizes = [line for line in lines if line.lower().startswith("content-length:")]
        size = int(sizes[0].split(":")[1]) if sizes and body else 0
        return lines, await self.reader.readexactly(size)

    async def say(self, *pieces: bytes) -> None:
        """Send pieces, each in a packet of its own."""
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()
            await asyncio.sleep(0)

    def reset(self) -> None:
        self.writer.transport.abort()


class Server:
    """A server that does what a test says, connection by connection."""

    def __init__(self) -> None:
        self.connections = 0
        self.origin = Origin("http", "127.0.0.1", 1)


@asynccontextmanager
async def serving(handler: Handler, tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    server = Server()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server.connections += 1
        await handler(Peer(reader, writer))

    async with listening(serve, tls=tls) as port:
        server.origin = Origin("https" if tls else "http", "127.0.0.1", port)
        yield server


TRANSPORTS: dict[str, Callable[..., Transport]] = {
    "aiohttp": AiohttpTransport,
    "sockets": SocketTransport,
}


pytestmark = pytest.mark.uvloop


@pytest.fixture(params=TRANSPORTS)
async def make(request: pytest.FixtureRequest) -> AsyncIterator[Callable[..., Transport]]:
    made: list[Transport] = []

    def one(timeout: Timeout = QUICK) -> Transport:
        made.append(TRANSPORTS[request.param](timeout))
        return made[-1]

    yield one
    for transport in made:
        await transport.aclose()


@pytest.fixture
async def transport(make: Callable[..., Transport]) -> Transport:
    return make()


def answering(*pieces: bytes) -> Handler:
    async def handler(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.say(*pieces)

    return handler


async def body_of(answer: Answer) -> bytes:
    try:
        return await answer.read_all(8 * MiB)
    finally:
        answer.close()


# -- requests ----------------------------------------------------------------------------------------


async def test_request_arrives_as_it_was_sent(transport: Transport) -> None:
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
    """A body that is read through one window: what was sent is overwritten with the next piece."""

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


async def test_body_that_is_read_meanwhile_arrives_whole(transport: Transport) -> None:
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


async def test_body_that_cannot_be_read_on_ends_its_request(transport: Transport) -> None:
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


async def test_refusal_leaves_a_body_that_is_read_meanwhile(transport: Transport) -> None:
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


async def test_cancel_leaves_a_body_that_is_read_meanwhile(transport: Transport) -> None:
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


async def test_server_that_takes_no_more_of_a_body_that_is_read_is_given_up(
    transport: Transport,
) -> None:
    async def handler(peer: Peer) -> None:
        await peer.request(body=False)
        await asyncio.Event().wait()

    body = Window(64 * MiB)
    async with serving(handler) as server:
        with pytest.raises(TimedOutError):
            await transport.send("PUT", server.origin, "/", {}, body)
        assert body.open == 0


@pytest.mark.parametrize("make", TRANSPORTS.values(), ids=TRANSPORTS)
@pytest.mark.parametrize("size", [100, 64 * KiB, 64 * KiB + 1, 5 * MiB + 1])
async def test_bodies_of_any_size_go_out_and_come_in_over_tls(
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


async def test_refusal_in_mid_body_is_told_and_its_connection_not_used_again(
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


async def test_success_in_mid_body_is_none(make: Callable[..., Transport]) -> None:
    transport = make(PATIENT)

    async def handler(peer: Peer) -> None:
        await peer.request(body=False)
        await peer.say(b"HTTP/1.1 200 OK\r\nETag: x\r\nContent-Length: 0\r\n\r\n")
        await peer.reader.read()

    async with serving(handler) as server:
        views = [memoryview(bytes(64 * MiB))]  # more than sockets hold
        with pytest.raises(UnavailableError, match="before it had all"):
            await transport.send("PUT", server.origin, "/", {}, views)


@pytest.mark.parametrize(
    "interim",
    [
        (b"HTTP/1.1 100 Continue\r\n\r\n",),
        (b"HTTP/1.1 103 Early Hints\r\nLi", b"nk: x\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n"),
    ],
)
async def test_body_goes_on_though_the_server_says_something_before_its_answer(
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


async def test_patient_request_is_answered_as_late_as_its_caller_waits(
    transport: Transport,
) -> None:
    async def handler(peer: Peer) -> None:
        while True:
            await peer.request()
            await asyncio.sleep(3 * QUICK.first_byte)
            await peer.say(b"HTTP/1.1 204 No Content\r\n\r\n")

    async with serving(handler) as server:
        answer = await transport.send("PUT", server.origin, "/", {}, patient=True)
        assert (answer.status, await body_of(answer)) == (204, b"")
        with pytest.raises(TimedOutError):  # over the same connection
            await transport.send("PUT", server.origin, "/", {})
    assert server.connections == 1


async def test_body_of_an_answer_to_a_patient_request_may_not_stand_still(
    transport: Transport,
) -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.say(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", b" ")
        await peer.reader.read()

    async with serving(handler) as server:
        answer = await transport.send("PUT", server.origin, "/", {}, patient=True)
        with pytest.raises(TimedOutError):
            await body_of(answer)


async def test_header_with_a_line_of_its_own_is_not_sent(transport: Transport) -> None:
    async with serving(answering(b"HTTP/1.1 204 No Content\r\n\r\n")) as server:
        with pytest.raises(ValueError, match=r"(?i)newline|CR or LF|header"):
            await transport.send("GET", server.origin, "/", {"x-a": "1\r\nx-b: 2"})
    assert server.connections <= 1


# -- answers -----------------------------------------------------------------------------------------

BODY = bytes(range(256)) * 3
CHUNKED = b"".join(b"%x;a=b\r\n%b\r\n" % (100, BODY[at : at + 100]) for at in range(0, 700, 100))

ANSWERS: dict[str, tuple[bytes, ...]] = {
    "length": (b"HTTP/1.1 200 OK\r\nETag: x\r\nContent-Length: 768\r\n\r\n" + BODY,),
    "a byte at a time": tuple(
        bytes([byte]) for byte in b"HTTP/1.1 200 OK\r\nETag: x\r\ncontent-length:768\r\n\r\n" + BODY
    ),
    "continue first": (
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nETag:x\r\nContent-Length: 768\r\n\r\n" + BODY,
    ),
    "chunks": (
        b"HTTP/1.1 200 OK\r\nETag: x\r\nTransfer-Encoding: chunked\r\n\r\n",
        CHUNKED + b"44\r\n" + BODY[700:] + b"\r\n0\r\n\r\n",
    ),
    "chunks, trailers, in pieces": tuple(
        piece.encode("latin-1")
        for piece in (
            (
                b"HTTP/1.1 200 OK\r\nETag: x\r\nTransfer-Encoding: chunked\r\n\r\n"
                + CHUNKED + b"44\r\n" + BODY[700:] + b"\r\n0\r\nx-sum: 1\r\n\r\n"
            ).decode("latin-1")
        )
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", ANSWERS)
@pytest.mark.parametrize("size", [1, 100, 10_000])
async def test_body_is_read_whatever_its_form(transport: Transport, kind: str, size: int) -> None:
    async with serving(answering(*ANSWERS[kind])) as server:
        for _ in range(2):
            answer = await transport.send("GET", server.origin, "/", {})
            assert (answer.status, answer.headers.get("etag")) == (200, "x")
            got = b""
            while piece := await answer.read(size):
                assert len(piece) <= size
                got += piece
            answer.close()
            assert got == BODY
            answer = await transport.send("GET", server.origin, "/", {})
            buffer = memoryview(bytearray(1000))
            filled = 0
            while count := await answer.readinto(buffer[filled : filled + size]):
                filled += count
            answer.close()
            assert buffer[:filled] == BODY
    assert server.connections == 1


async def test_body_that_ends_with_the_connection_is_whole(transport: Transport) -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.say(b"HTTP/1.1 200 OK\r\n\r\n", BODY, BODY)

    async with serving(handler) as server:
        answer = await transport.send("GET", server.origin, "/", {})
        assert await body_of(answer) == BODY * 2
        answer = await transport.send("GET", server.origin, "/", {})
        buffer = memoryview(bytearray(2000))
        filled = 0
        while count := await answer.readinto(buffer[filled:]):
            filled += count
        assert buffer[:filled] == BODY * 2
        answer.close()
    assert server.connections == 2


async def test_answer_to_head_has_no_body(transport: Transport) -> None:
    async with serving(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n")) as server:
        for _ in range(2):
            answer = await transport.send("HEAD", server.origin, "/", {})
            assert answer.headers["content-length"] == "5000"
            assert await body_of(answer) == b""
    assert server.connections == 1


async def test_large_body_streams_without_piling_up(transport: Transport) -> None:
    size = 8 * MiB
    body = bytes(range(256)) * (size // 256)
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size
    async with serving(answering(head + body)) as server:
        answer = await transport.send("GET", server.origin, "/", {})
        memory = memoryview(bytearray(MiB))
        got = b""
        while count := await answer.readinto(memory):
            got += memory[:count]
        assert got == body
        answer.close()
        answer = await transport.send("GET", server.origin, "/", {})
        got = b""
        while piece := await answer.read(MiB):
            assert len(piece) <= MiB
            got += piece
        assert got == body
        answer.close()
    assert server.connections == 1


async def test_more_than_the_limit_is_no_small_answer(transport: Transport) -> None:
    async with serving(answering(ANSWERS["length"][0])) as server:
        answer = await transport.send("GET", server.origin, "/", {})
        with pytest.raises(IntegrityError):
            await answer.read_all(100)
        answer.close()


async def test_body_that_is_not_read_to_its_end_costs_its_connection(transport: Transport) -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.say(BROKEN["length"])
        await peer.reader.read()

    async with serving(handler) as server:
        for _ in range(2):
            answer = await transport.send("GET", server.origin, "/", {})
            assert len(await answer.read(10)) == 10
            answer.close()
            answer.close()
    assert server.connections == 2


@pytest.mark.parametrize("said", [b"Connection: close\r\n", b"connection: Keep-Alive, Close\r\n"])
async def test_connection_that_is_to_be_closed_is_not_used_again(
    transport: Transport, said: bytes
) -> None:
    head = b"HTTP/1.1 200 OK\r\n" + said + b"Content-Length: 2\r\n\r\nok"
    async with serving(answering(head)) as server:
        for _ in range(2):
            assert await body_of(await transport.send("GET", server.origin, "/", {})) == b"ok"
    assert server.connections == 2


# -- faults ------------------------------------------------------------------------------------------


async def test_connection_closed_after_an_answer_that_filled_its_window_is_not_used_again(
    transport: Transport,
) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"
    size = 64 * KiB - len(head % 10_000)  # as much as a connection receives unread, to the byte
    said, gone = asyncio.Event(), asyncio.Event()

    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.say(head % size, b"x" * size)
        said.set()
        await gone.wait()

    async with serving(handler) as server:
        answer = await transport.send("GET", server.origin, "/", {})
        await said.wait()
        for _ in range(20):
            await asyncio.sleep(0)
        assert len(await body_of(answer)) == size
        gone.set()
        for _ in range(20):
            await asyncio.sleep(0)
        again = await transport.send("GET", server.origin, "/", {})
        again.close()
    assert server.connections == 2


async def test_buffer_is_not_waited_full_for(transport: Transport) -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.say(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", b"x" * 400)
        await peer.reader.read()

    async with serving(handler) as server:
        answer = await transport.send("GET", server.origin, "/", {})
        assert await answer.readinto(memoryview(bytearray(1000))) == 400
        answer.close()


HALF: dict[str, tuple[bytes, ...]] = {
    "nothing": (),
    "half a head": (b"HTTP/1.1 200 OK\r\nContent-Le",),
    "no HTTP": (b"<html>\r\n\r\n",),
    "a header without a name": (b"HTTP/1.1 200 OK\r\n: x\r\nContent-Length: 0\r\n\r\n",),
    "a length that is none": (b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",),
    "a status that is no number": ("HTTP/1.1 \u00b2\u00b3\u2074 OK\r\n\r\n".encode(),),
    "two lengths": (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",),
}


@pytest.mark.parametrize("kind", HALF)
@pytest.mark.parametrize("end", ["close", "reset"])
async def test_answer_that_never_comes_about_is_unavailable(
    transport: Transport, kind: str, end: str
) -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.say(*HALF[kind])
        if end == "reset":
            peer.reset()

    async with serving(handler) as server:
        with pytest.raises(UnavailableError) as caught:
            await transport.send("PUT", server.origin, "/", {}, [memoryview(b"body")])
    assert caught.value.retryable
    assert server.connections == 1  # no request is sent twice


BROKEN: dict[str, bytes] = {
    "length": b"HTTP/1.1 200 OK\r\nContent-Length: 768\r\n\r\n" + BODY[:500],
    "chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKED[:200],
    "chunks that are none": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
}


@pytest.mark.parametrize("kind", BROKEN)
@pytest.mark.parametrize("end", ["close", "reset"])
@pytest.mark.parametrize("into", [False, True])
async def test_body_that_breaks_off_is_no_end(
    transport: Transport, kind: str, end: str, *, into: bool
) -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.say(BROKEN[kind])
        if end == "reset":
            peer.reset()

    async with serving(handler) as server:
        with pytest.raises(UnavailableError):
            answer = await transport.send("GET", server.origin, "/", {})
            try:
                while (
                    await answer.readinto(memoryview(bytearray(100)))
                    if into
                    else await answer.read(100)
                ):
                    pass
            finally:
                answer.close()
    assert server.connections == 1


async def test_silence_times_out(transport: Transport) -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.reader.read()

    async with serving(handler) as server:
        with pytest.raises(TimedOutError):
            await transport.send("GET", server.origin, "/", {})


async def test_silence_in_mid_body_times_out(transport: Transport) -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.say(BROKEN["length"])
        await peer.reader.read()

    async with serving(handler) as server:
        answer = await transport.send("GET", server.origin, "/", {})
        assert await answer.readinto(memoryview(bytearray(500))) == 500
        with pytest.raises(TimedOutError):
            await answer.read(10)
        answer.close()


async def test_server_that_takes_no_more_times_out(transport: Transport) -> None:
    async def handler(peer: Peer) -> None:
        await peer.reader.read(10)
        peer.writer.transport.pause_reading()  # type: ignore[attr-defined] # a socket's has it
        await asyncio.Event().wait()

    async with serving(handler) as server:
        with pytest.raises(TimedOutError):
            await transport.send("PUT", server.origin, "/", {}, [memoryview(bytes(64 * MiB))])


async def test_slow_consumer_is_not_timed_out(transport: Transport) -> None:
    async with serving(answering(ANSWERS["length"][0])) as server:
        answer = await transport.send("GET", server.origin, "/", {})
        got = await answer.read(10)
        await asyncio.sleep(3 * QUICK.idle)
        while piece := await answer.read(100):
            got += piece
        answer.close()
        assert got == BODY


async def test_nobody_there_is_unavailable(transport: Transport) -> None:
    async with serving(answering()) as server:
        origin = server.origin
    with pytest.raises(UnavailableError) as caught:
        await transport.send("GET", origin, "/", {})
    assert caught.value.retryable


async def test_connection_closed_by_the_server_meanwhile_is_not_used(transport: Transport) -> None:
    gone = asyncio.Event()

    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.say(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        peer.writer.close()
        await peer.writer.wait_closed()
        gone.set()

    async with serving(handler) as server:
        for number in range(3):
            assert await body_of(await transport.send("GET", server.origin, "/", {})) == b"ok"
            await gone.wait()
            gone.clear()
            for _ in range(5):
                await asyncio.sleep(0)
            assert server.connections == number + 1


async def test_unasked_answer_spoils_its_connection(make: Callable[..., Transport]) -> None:
    transport = make()
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"
    async with serving(answering(answer + b"ok" + answer + b"no")) as server:
        for _ in range(3):
            assert await body_of(await transport.send("GET", server.origin, "/", {})) == b"ok"


@pytest.mark.parametrize("point", ["before the answer", "in the request", "in the body"])
async def test_cancel_leaves_no_connection(transport: Transport, point: str) -> None:
    reached, left = asyncio.Event(), asyncio.Event()

    async def handler(peer: Peer) -> None:
        try:
            if point == "in the request":
                await peer.reader.read(10)
                peer.writer.transport.pause_reading()  # type: ignore[attr-defined] # a socket's has it
                reached.set()
                await asyncio.sleep(0.05)
                peer.writer.transport.resume_reading()  # type: ignore[attr-defined] # likewise
            else:
                await peer.request()
                if point == "in the body":
                    await peer.say(BROKEN["length"])
                reached.set()
            while await peer.reader.read(MiB):
                pass
        except ConnectionError:
            pass
        finally:
            left.set()

    async def use(server: Server) -> None:
        views = [memoryview(bytes(32 * MiB))] if point == "in the request" else []
        answer = await transport.send("PUT", server.origin, "/", {}, views)
        try:
            while await answer.read(100):
                pass
        finally:
            answer.close()

    async with serving(handler) as server:
        task = asyncio.get_running_loop().create_task(use(server))
        await reached.wait()
        for _ in range(5):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with asyncio.timeout(5):
            await left.wait()


async def test_closed_transport_has_no_connections(make: Callable[..., Transport]) -> None:
    transport = make()
    left = asyncio.Event()

    async def handler(peer: Peer) -> None:
        try:
            await answering(b"HTTP/1.1 204 No Content\r\n\r\n")(peer)
        finally:
            left.set()

    async with serving(handler) as server:
        (await transport.send("GET", server.origin, "/", {})).close()
        await transport.aclose()
        await transport.aclose()
        await left.wait()


# -- what only our own does --------------------------------------------------------------------------


async def test_connection_is_closed_when_it_was_not_needed_for_long() -> None:
    transport = SocketTransport(QUICK)
    left = asyncio.Event()

    async def handler(peer: Peer) -> None:
        try:
            await answering(b"HTTP/1.1 204 No Content\r\n\r\n")(peer)
        finally:
            left.set()

    async with serving(handler) as server:
        (await transport.send("GET", server.origin, "/", {})).close()
        (connection,) = transport._connections
        connection.look(asyncio.get_running_loop().time() + 59, QUICK)
        assert connection.fresh
        connection.look(asyncio.get_running_loop().time() + 61, QUICK)
        await left.wait()
        assert not transport._connections
    await transport.aclose()


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_head_is_found_wherever_it_is_cut(data: st.DataObject) -> None:
    value = "v" * data.draw(st.integers(min_value=0, max_value=5000))
    raw = f"HTTP/1.1 200 OK\r\nx-a: {value}\r\nContent-Length: 1\r\n\r\nb".encode()
    cuts = sorted(data.draw(st.sets(st.integers(1, len(raw) - 1), max_size=5)))
    pieces = [raw[a:b] for a, b in zip([0, *cuts], [*cuts, len(raw)], strict=True)]

    async def play() -> None:
        transport = SocketTransport(QUICK)
        async with serving(answering(*pieces)) as server:
            answer = await transport.send("GET", server.origin, "/", {})
            assert answer.headers["x-a"] == value
            assert await body_of(answer) == b"b"
        await transport.aclose()

    asyncio.run(play())


def test_origin_is_nothing_but_an_origin() -> None:
    assert Origin.of("https://a.example") == Origin("https", "a.example", 443)
    assert Origin.of("http://127.0.0.1:9000/").authority == "127.0.0.1:9000"
    assert Origin.of("http://[::1]:80").authority == "[::1]"
    for url in (
        "ftp://a",
        "a",
        "http://",
        "http://a/b",
        "http://u:p@a",
        "http://a?x=1",
        "http://a:x",
    ):
        with pytest.raises(ConfigError):
            Origin.of(url)


async def test_connection_that_a_cancel_came_before_serves_the_next_request() -> None:
    transport = SocketTransport(QUICK)
    async with serving(answering(b"HTTP/1.1 204 No Content\r\n\r\n")) as server:
        task = OwnedTask(transport.send("GET", server.origin, "/", {}))
        await asyncio.sleep(0)
        await task.aclose()
        while not transport._idle.get(server.origin):
            await asyncio.sleep(0)
        (await transport.send("GET", server.origin, "/", {})).close()
        assert server.connections == 1
        await transport.aclose()
        assert not transport._connections
    other = SocketTransport(QUICK)
    async with serving(answering()) as server:
        task = OwnedTask(other.send("GET", server.origin, "/", {}))
        await asyncio.sleep(0)
        await task.aclose()
        await other.aclose()
        assert not other._connections
        assert not other._opening
