"""Requests as the server receives them, over both transports."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from tests.http.scripted_server import (
    SHORT_TIMEOUTS,
    TRANSPORTS,
    ServerConnection,
    read_body,
    respond_with,
    serving,
)
from trove_async._concurrency import OwnedTask
from trove_async.errors import (
    IntegrityError,
    InvalidNameError,
    TimedOutError,
    UnavailableError,
)
from trove_async.models import KiB, MiB, Timeout

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncGenerator, AsyncIterator, Callable

    from trove_async._http import Transport

pytestmark = pytest.mark.uvloop


async def test_request_arrives_unchanged(transport: Transport) -> None:
    received: list[tuple[list[str], bytes]] = []

    async def handler(connection: ServerConnection) -> None:
        while True:
            received.append(await connection.receive_request())
            await connection.send(b"HTTP/1.1 204 No Content\r\n\r\n")

    target = "/b/a%20b/%2e%2e/%25/c?list-type=2&prefix=%C3%A9"
    async with serving(handler) as server:
        empty: list[memoryview] = []
        for method, views in (
            ("GET", empty),
            ("PUT", [memoryview(b"one"), memoryview(b"two")]),
            ("PUT", empty),
            ("DELETE", empty),
        ):
            response = await transport.send(
                method, server.origin, target, {"X-Amz-Date": "now"}, views
            )
            assert (response.status, await read_body(response)) == (204, b"")
    assert [lines[0] for lines, _ in received] == [
        f"{method} {target} HTTP/1.1" for method in ("GET", "PUT", "PUT", "DELETE")
    ]
    assert [body for _, body in received] == [b"", b"onetwo", b"", b""]
    for lines, _ in received:
        fields = {line.partition(":")[0].lower(): line.partition(":")[2].strip() for line in lines}
        assert fields["host"] == server.origin.authority
        assert fields["x-amz-date"] == "now"
        assert "expect" not in fields
    assert server.connections == 1


async def test_large_body_arrives_unchanged(transport: Transport) -> None:
    pieces = [bytes([number]) * (MiB + number) for number in range(5)]
    received: list[bytes] = []

    async def handler(connection: ServerConnection) -> None:
        received.append((await connection.receive_request())[1])
        await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    async with serving(handler) as server:
        response = await transport.send(
            "PUT", server.origin, "/", {}, [memoryview(piece) for piece in pieces]
        )
        assert response.status == 200
        response.close()
    assert received == [b"".join(pieces)]


class ReusedBufferBody:
    """A streamed body with one reused buffer: each piece overwrites the previous one.

    Attributes:
        size: The announced size of the body.
        body: The bytes of the body.
        open_count: The number of times that the body is open now.
        opened_count: The number of times that the body has been opened.
    """

    def __init__(self, size: int, *, error: Exception | None = None) -> None:
        self.size = size
        self.body = (bytes(range(251)) * (size // 251 + 1))[:size]
        self.open_count = self.opened_count = 0
        self._error = error

    @asynccontextmanager
    async def pieces(self) -> AsyncIterator[AsyncIterator[memoryview]]:
        self.open_count += 1
        self.opened_count += 1
        try:
            async with aclosing(self._pieces()) as pieces:
                yield pieces
        finally:
            self.open_count -= 1

    async def _pieces(self) -> AsyncGenerator[memoryview]:
        buffer = memoryview(bytearray(MiB))
        for offset in range(0, self.size, MiB):
            piece = self.body[offset : offset + MiB]
            await asyncio.sleep(0)
            buffer[: len(piece)] = piece
            yield buffer[: len(piece)]
            buffer[:] = bytes(MiB)
        if self._error is not None:
            raise self._error


async def test_streamed_body_arrives_unchanged(transport: Transport) -> None:
    received: list[tuple[list[str], bytes]] = []

    async def handler(connection: ServerConnection) -> None:
        while True:
            received.append(await connection.receive_request())
            await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    bodies = [ReusedBufferBody(size) for size in (1, MiB, 9 * MiB + 1)]
    async with serving(handler) as server:
        for body in bodies:
            response = await transport.send("PUT", server.origin, "/", {}, body)
            assert response.status == 200
            response.close()
            assert (body.open_count, body.opened_count) == (0, 1)
        assert server.connections == 1
    assert [body for _, body in received] == [body.body for body in bodies]
    for (lines, _), body in zip(received, bodies, strict=True):
        assert f"content-length: {body.size}" in [line.lower() for line in lines]


async def test_error_in_streamed_body_fails_request(transport: Transport) -> None:
    async with serving(respond_with(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")) as server:
        for error in (IntegrityError("the file has changed"), OSError(5, "I/O error")):
            body = ReusedBufferBody(3 * MiB, error=error)
            body.size += 1  # the body lacks its last byte, so the server waits for it
            with pytest.raises(type(error)) as caught:
                await transport.send("PUT", server.origin, "/", {}, body)
            assert caught.value is error
            assert body.open_count == 0
        response = await transport.send("GET", server.origin, "/", {})
        assert await read_body(response) == b""
    assert server.connections == 3


async def test_early_error_response_closes_streamed_body(transport: Transport) -> None:
    async def handler(connection: ServerConnection) -> None:
        await connection.receive_request(body=False)
        await connection.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
        await connection.reader.read()

    async with serving(handler) as server:
        body = ReusedBufferBody(64 * MiB)
        response = await transport.send("PUT", server.origin, "/", {}, body)
        assert (response.status, await read_body(response)) == (403, b"no")
        while body.open_count:
            await asyncio.sleep(0)


async def test_cancel_closes_streamed_body(transport: Transport) -> None:
    async def handler(connection: ServerConnection) -> None:
        await connection.receive_request(body=False)
        arrived.set()
        await asyncio.Event().wait()

    arrived = asyncio.Event()
    body = ReusedBufferBody(64 * MiB)
    async with serving(handler) as server:
        task = OwnedTask(transport.send("PUT", server.origin, "/", {}, body))
        await arrived.wait()
        await task.aclose()
        while body.open_count:
            await asyncio.sleep(0)


async def test_stalled_streamed_upload_times_out(
    impatient: Transport,
) -> None:
    async def handler(connection: ServerConnection) -> None:
        await connection.receive_request(body=False)
        await asyncio.Event().wait()

    body = ReusedBufferBody(64 * MiB)
    async with serving(handler) as server:
        with pytest.raises(TimedOutError):
            await impatient.send("PUT", server.origin, "/", {}, body)
        assert body.open_count == 0


@pytest.mark.parametrize("transport_class", TRANSPORTS.values(), ids=TRANSPORTS)
@pytest.mark.parametrize("size", [100, 64 * KiB, 64 * KiB + 1, 5 * MiB + 1])
async def test_bodies_of_several_sizes_are_sent_and_received_over_tls(
    transport_class: Callable[..., Transport], size: int, tls: tuple[ssl.SSLContext, ssl.SSLContext]
) -> None:
    body = (bytes(range(251)) * (size // 251 + 1))[:size]

    async def echo(connection: ServerConnection) -> None:
        while True:
            _, sent = await connection.receive_request()
            await connection.send(
                b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(sent), sent
            )

    server_context, client_context = tls
    transport = transport_class(Timeout(connect=5, first_byte=5, idle=5), tls=client_context)
    async with serving(echo, server_context) as server:
        for _ in range(2):
            response = await transport.send("PUT", server.origin, "/", {}, [memoryview(body)])
            assert await read_body(response) == body
        streamed = ReusedBufferBody(size)
        response = await transport.send("PUT", server.origin, "/", {}, streamed)
        assert await read_body(response) == streamed.body
        assert server.connections == 1
        await transport.aclose()


async def test_early_error_response_is_returned_and_connection_not_reused(
    transport: Transport,
) -> None:
    async def handler(connection: ServerConnection) -> None:
        await connection.receive_request(body=False)
        await connection.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
        await connection.reader.read()

    async with serving(handler) as server:
        for _ in range(2):
            views = [memoryview(bytes(8 * MiB))]
            response = await transport.send("PUT", server.origin, "/", {}, views)
            assert (response.status, await read_body(response)) == (403, b"no")
    assert server.connections == 2


async def test_success_before_whole_body_raises(transport: Transport) -> None:
    async def handler(connection: ServerConnection) -> None:
        await connection.receive_request(body=False)
        await connection.send(b"HTTP/1.1 200 OK\r\nETag: x\r\nContent-Length: 0\r\n\r\n")
        await connection.reader.read()

    async with serving(handler) as server:
        views = [memoryview(bytes(64 * MiB))]  # more than sockets hold
        with pytest.raises(UnavailableError, match="before it received the whole"):
            await transport.send("PUT", server.origin, "/", {}, views)


@pytest.mark.parametrize(
    "interim",
    [
        (b"HTTP/1.1 100 Continue\r\n\r\n",),
        (b"HTTP/1.1 103 Early Hints\r\nLi", b"nk: x\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n"),
        (b"HTTP/1.", b"1 100 Continue\r\n\r\n"),
    ],
)
async def test_upload_continues_after_interim_responses(
    transport: Transport, interim: tuple[bytes, ...]
) -> None:
    body = bytes(range(256)) * (32 * MiB // 256)  # more than sockets hold
    received = []

    async def handler(connection: ServerConnection) -> None:
        await connection.receive_request(body=False)
        await connection.send(*interim)
        received.append(await connection.reader.readexactly(len(body)))
        await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    async with serving(handler) as server:
        response = await transport.send("PUT", server.origin, "/", {}, [memoryview(body)])
        assert response.status == 200
        response.close()
    assert received == [body]


async def test_patient_request_has_no_first_byte_timeout(
    impatient: Transport,
) -> None:
    async def handler(connection: ServerConnection) -> None:
        while True:
            await connection.receive_request()
            await asyncio.sleep(3 * SHORT_TIMEOUTS.first_byte)
            await connection.send(b"HTTP/1.1 204 No Content\r\n\r\n")

    async with serving(handler) as server:
        response = await impatient.send("PUT", server.origin, "/", {}, patient=True)
        assert (response.status, await read_body(response)) == (204, b"")
        with pytest.raises(TimedOutError):  # over the same connection
            await impatient.send("PUT", server.origin, "/", {})
    assert server.connections == 1


async def test_stalled_response_body_of_patient_request_times_out(
    impatient: Transport,
) -> None:
    async def handler(connection: ServerConnection) -> None:
        await connection.receive_request()
        await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", b" ")
        await connection.reader.read()

    async with serving(handler) as server:
        response = await impatient.send("PUT", server.origin, "/", {}, patient=True)
        with pytest.raises(TimedOutError):
            await read_body(response)


@pytest.mark.parametrize(
    ("target", "name", "value"),
    [
        ("/", "x-a", "1\r\nx-b: 2"),
        ("/", "x-a", "1\n"),
        ("/", "x-a\r\nx-b", "1"),
        ("/a\nb", "x-a", "1"),
        ("/", "x-a", "\ud800"),
    ],
    ids=ascii,
)
async def test_unsendable_request_is_rejected_before_connecting(
    transport: Transport, target: str, name: str, value: str
) -> None:
    async with serving(respond_with(b"HTTP/1.1 204 No Content\r\n\r\n")) as server:
        with pytest.raises(InvalidNameError, match="must not contain line breaks") as caught:
            await transport.send(
                "GET", server.origin, target, {"authorization": "SECRET", name: value}
            )
        response = await transport.send("GET", server.origin, "/", {})
        response.close()
    assert caught.value.__context__ is None
    assert server.connections == 1  # only the second request connects
