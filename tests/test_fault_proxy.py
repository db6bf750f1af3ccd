"""Tests of `tests.fault_proxy`: a fault applies at its byte of its request, and nowhere else."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from tests.fault_proxy import FaultProxy, Request
from tests.http_faults import Cut, Flip, Response, Shorten, Stall
from tests.listening import listening
from trove_async._concurrency import task_group

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

BODY = bytes(range(256)) * 1000
CHUNKED = b"5\r\nhello\r\n5;x=y\r\nworld\r\n0\r\nTrailer: 1\r\n\r\n"


class Server:
    """Stores the body of a PUT. Responds to a GET with `BODY` or, if its target has "chunked", `CHUNKED`.

    If the target has "without-length", the end of the connection is the end of the body.
    """

    def __init__(self) -> None:
        self.stored: list[bytes] = []
        self.disconnected = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._serve_one(reader, writer):
                pass
        except asyncio.IncompleteReadError as error:
            if error.partial:
                self.stored.append(b"incomplete: " + error.partial[:10])
        except ConnectionError:
            pass
        finally:
            self.disconnected.set()
            writer.close()

    async def _serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        method, target = head.split()[:2]
        if method == "PUT":
            if "Expect: 100-continue" in head:
                writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            if "chunked" in head:
                self.stored.append(await reader.readuntil(b"0\r\n\r\n"))
            else:
                size = int(head.lower().split("content-length: ")[1].split()[0])
                self.stored.append(await reader.readexactly(size))
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        elif method == "HEAD":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 256000\r\n\r\n")
        elif "chunked" in target:
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            writer.write(CHUNKED)
        elif "without-length" in target:
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n" + BODY)
            return False
        else:
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 256000\r\n\r\n" + BODY)
        await writer.drain()
        return True


@asynccontextmanager
async def server_and_proxy() -> AsyncIterator[tuple[Server, FaultProxy]]:
    server = Server()
    async with (
        listening(server.serve) as port,
        FaultProxy(f"http://127.0.0.1:{port}") as proxy,
    ):
        yield server, proxy


class Client:
    """A connection that sends requests and reads responses byte for byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    def send(self, head: str, body: bytes = b"") -> None:
        self._writer.write(f"{head}\r\nHost: x\r\n\r\n".encode() + body)

    def put(self, target: str, body: bytes) -> None:
        self.send(f"PUT {target} HTTP/1.1\r\nContent-Length: {len(body)}", body)

    async def head(self) -> str:
        return (await self._reader.readuntil(b"\r\n\r\n")).decode()

    async def read(self, size: int) -> bytes:
        return await self._reader.readexactly(size)

    async def read_to_end(self) -> tuple[bytes, bool]:
        """Return the bytes until the connection ends, and whether it ended by a reset."""
        received = b""
        try:
            while piece := await self._reader.read(65536):
                received += piece
        except ConnectionResetError:
            return received, True
        return received, False

    def disconnect(self) -> None:
        self._writer.close()


@asynccontextmanager
async def client(proxy: FaultProxy) -> AsyncIterator[Client]:
    parts = urlsplit(proxy.endpoint_url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        yield Client(reader, writer)
    finally:
        writer.transport.abort()


async def test_exchanges_without_a_fault_pass_unchanged() -> None:
    async with server_and_proxy() as (server, proxy), client(proxy) as connection:
        connection.put("/a?x=1", BODY)
        assert "200 OK" in await connection.head()
        connection.send("HEAD /a HTTP/1.1")
        assert "256000" in await connection.head()
        connection.send("GET /a HTTP/1.1")
        await connection.head()
        assert await connection.read(len(BODY)) == BODY
        connection.send("GET /chunked HTTP/1.1")
        await connection.head()
        assert await connection.read(len(CHUNKED)) == CHUNKED
        connection.send("PUT /b HTTP/1.1\r\nTransfer-Encoding: chunked", b"2\r\nhi\r\n0\r\n\r\n")
        assert "200 OK" in await connection.head()
        await proxy.wait_until_idle()
        assert server.stored == [BODY, b"2\r\nhi\r\n0\r\n\r\n"]
        assert proxy.request_lines == ["PUT /a?x=1", "HEAD /a", "GET /a", "GET /chunked", "PUT /b"]
        assert proxy.connections == 1


async def test_body_without_a_length_ends_with_its_connection() -> None:
    async with server_and_proxy() as (_, proxy), client(proxy) as connection:
        connection.send("GET /without-length HTTP/1.1")
        await connection.head()
        assert await connection.read_to_end() == (BODY, False)


async def test_100_continue_of_the_server_reaches_the_client() -> None:
    async with server_and_proxy() as (server, proxy), client(proxy) as connection:
        connection.send("PUT /a HTTP/1.1\r\nContent-Length: 2\r\nExpect: 100-continue")
        assert "100 Continue" in await connection.head()
        connection._writer.write(b"hi")
        assert "200 OK" in await connection.head()
        assert server.stored == [b"hi"]


async def test_request_path_and_query_are_decoded() -> None:
    request = Request("GET", "/a%20b?prefix=x%2Fy&uploads", {})
    assert (request.path, request.query) == ("/a b", {"prefix": "x/y", "uploads": ""})


@pytest.mark.parametrize("reset", [True, False])
@pytest.mark.parametrize("at", [0, 1, 100_000, len(BODY) - 1, len(BODY)])
async def test_cut_in_response_body_delivers_the_bytes_before_it(at: int, reset: bool) -> None:  # noqa: FBT001
    async with server_and_proxy() as (_, proxy), client(proxy) as connection:
        proxy.arm(Cut("response body", at, reset=reset))
        connection.send("GET /a HTTP/1.1")
        await connection.head()
        assert await connection.read_to_end() == (BODY[:at], reset)


async def test_cut_before_response_comes_after_server_has_finished() -> None:
    async with server_and_proxy() as (server, proxy), client(proxy) as connection:
        proxy.arm(Cut("response head"), method="PUT")
        connection.put("/a", BODY)
        assert await connection.read_to_end() == (b"", True)
        assert server.stored == [BODY]


async def test_cut_in_response_head_delivers_half_a_line() -> None:
    async with server_and_proxy() as (_, proxy), client(proxy) as connection:
        proxy.arm(Cut("response head", 12, reset=False))
        connection.send("GET /a HTTP/1.1")
        assert await connection.read_to_end() == (b"HTTP/1.1 200", False)


async def test_cut_in_request_body_sends_server_only_the_bytes_before_it() -> None:
    async with server_and_proxy() as (server, proxy), client(proxy) as connection:
        proxy.arm(Cut("request body", 10))
        connection.put("/a", BODY)
        assert await connection.read_to_end() == (b"", True)
        await server.disconnected.wait()
        assert server.stored in ([b"incomplete: " + BODY[:10]], [])
        assert proxy.request_lines == ["PUT /a"]


async def test_cut_in_request_head_hides_request_from_server() -> None:
    async with server_and_proxy() as (server, proxy), client(proxy) as connection:
        proxy.arm(Cut("request head"))
        connection.put("/a", b"hi")
        assert (await connection.read_to_end())[0] == b""
        assert server.stored == []


async def test_stall_in_response_body_lasts_until_release() -> None:
    async with server_and_proxy() as (_, proxy), client(proxy) as connection:
        stall = proxy.arm(Stall("response body", 5))
        connection.send("GET /a HTTP/1.1")
        await stall.reached.wait()
        await connection.head()
        assert await connection.read(5) == BODY[:5]
        assert proxy.busy == 1
        stall.release()
        assert await connection.read(len(BODY) - 5) == BODY[5:]
        await proxy.wait_until_idle()


async def test_stall_before_response_comes_after_server_has_finished() -> None:
    async with server_and_proxy() as (server, proxy), client(proxy) as connection:
        stall = proxy.arm(Stall("response head"))
        connection.put("/a", b"hi")
        await stall.reached.wait()
        assert server.stored == [b"hi"]
        stall.release()
        assert "200 OK" in await connection.head()


async def test_stall_in_request_body_holds_back_its_remaining_bytes() -> None:
    async with server_and_proxy() as (server, proxy), client(proxy) as connection:
        stall = proxy.arm(Stall("request body", len(BODY) - 1))
        connection.put("/a", BODY)
        await stall.reached.wait()
        assert server.stored == []
        stall.release()
        assert "200 OK" in await connection.head()
        assert server.stored == [BODY]


@pytest.mark.parametrize("at", ["request head", "response head", "response body"])
async def test_stalled_exchange_ends_when_the_client_disconnects(at: str) -> None:
    async with server_and_proxy() as (server, proxy), client(proxy) as connection:
        stall = proxy.arm(Stall(at, 0))  # type: ignore[arg-type]  # a value of Point
        connection.send("GET /a HTTP/1.1")
        await stall.reached.wait()
        connection.disconnect()
        await proxy.wait_until_disconnected()
        assert proxy.busy == 0
        if at != "request head":
            await server.disconnected.wait()


@pytest.mark.parametrize("wait", [FaultProxy.wait_until_idle, FaultProxy.wait_until_disconnected])
async def test_wait_that_times_out_reports_open_connections(
    wait: Callable[[FaultProxy], Awaitable[None]],
) -> None:
    async with server_and_proxy() as (_, proxy), client(proxy) as connection:
        stall = proxy.arm(Stall("response head"))
        connection.send("GET /a HTTP/1.1")
        await stall.reached.wait()
        proxy.patience = 0.01
        with pytest.raises(AssertionError, match=r"1 requests and 1 connections, after .*GET /a"):
            await wait(proxy)


async def test_request_with_an_injected_response_does_not_reach_the_server() -> None:
    async with server_and_proxy() as (server, proxy), client(proxy) as connection:
        proxy.arm(Response(503, {"Retry-After": "0"}, b"<Error/>"), method="PUT", times=3)
        for _ in range(3):
            connection.put("/a", b"hi")
            head = await connection.head()
            assert "503" in head
            assert "Retry-After: 0" in head
            assert await connection.read(8) == b"<Error/>"
        assert server.stored == []
        connection.put("/a", b"hi")
        assert "200 OK" in await connection.head()
        assert server.stored == [b"hi"]
        assert proxy.request_lines == ["PUT /a"] * 4


async def test_injected_response_can_come_after_server_has_finished() -> None:
    async with server_and_proxy() as (server, proxy), client(proxy) as connection:
        proxy.arm(Response(500, served=True))
        connection.put("/a", b"hi")
        assert "500" in await connection.head()
        assert server.stored == [b"hi"]


async def test_injected_response_sends_100_continue_first() -> None:
    async with server_and_proxy() as (_, proxy), client(proxy) as connection:
        proxy.arm(Response(404, body=b"no"))
        connection.send("PUT /a HTTP/1.1\r\nContent-Length: 2\r\nExpect: 100-continue")
        assert "100 Continue" in await connection.head()
        connection._writer.write(b"hi")
        assert "404" in await connection.head()
        assert await connection.read(2) == b"no"


async def test_injected_response_to_head_has_no_body() -> None:
    async with server_and_proxy() as (_, proxy), client(proxy) as connection:
        proxy.arm(Response(404, body=b"no"))
        connection.send("HEAD /a HTTP/1.1")
        assert "404" in await connection.head()
        connection.send("HEAD /a HTTP/1.1")
        assert "200" in await connection.head()


async def test_flipped_byte_is_the_only_one_that_differs() -> None:
    async with server_and_proxy() as (server, proxy), client(proxy) as connection:
        proxy.arm(Flip("response body", 70_000), method="GET")
        proxy.arm(Flip("request body", 0), method="PUT")
        connection.send("GET /a HTTP/1.1")
        await connection.head()
        received = await connection.read(len(BODY))
        assert received[70_000] == BODY[70_000] ^ 0xFF
        assert received[:70_000] + BODY[70_000:70_001] + received[70_001:] == BODY
        connection.put("/a", b"\x00b")
        await connection.head()
        assert server.stored == [b"\xffb"]


async def test_shortened_response_claims_to_be_complete() -> None:
    async with server_and_proxy() as (_, proxy), client(proxy) as connection:
        proxy.arm(Shorten(1000))
        connection.send("GET /a HTTP/1.1")
        assert "Content-Length: 255000" in await connection.head()
        assert await connection.read(255_000) == BODY[:-1000]
        connection.send("HEAD /a HTTP/1.1")
        assert "256000" in await connection.head()


async def test_fault_applies_only_to_matching_requests() -> None:
    async with server_and_proxy() as (_, proxy), client(proxy) as connection:
        proxy.arm(Response(500), method="HEAD", target="/b*partNumber=2", skip=1, times=1)
        for target, expected in [
            ("/a?partNumber=2", "200"),
            ("/b?partNumber=1", "200"),
            ("/b?partNumber=2", "200"),
            ("/b?partNumber=2", "500"),
            ("/b?partNumber=2", "200"),
        ]:
            connection.send(f"HEAD {target} HTTP/1.1")
            assert expected in await connection.head()


async def test_fault_armed_without_a_limit_applies_to_every_request() -> None:
    async with server_and_proxy() as (_, proxy), client(proxy) as connection:
        proxy.arm(Response(500), times=None)
        for _ in range(3):
            connection.send("HEAD /a HTTP/1.1")
            assert "500" in await connection.head()


async def test_unused_fault_fails_the_test() -> None:
    with pytest.raises(AssertionError, match=r"fewer times than armed for.*Shorten"):
        async with server_and_proxy() as (_, proxy):
            proxy.arm(Shorten(1))


async def test_fault_applied_fewer_times_than_armed_for_fails_the_test() -> None:
    with pytest.raises(AssertionError, match=r"fewer times than armed for.*status=500"):
        async with server_and_proxy() as (_, proxy), client(proxy) as connection:
            proxy.arm(Response(500), times=2)
            connection.send("HEAD /a HTTP/1.1")
            await connection.head()


async def test_fault_beyond_the_end_fails_the_test() -> None:
    with pytest.raises(AssertionError, match=r"beyond the end of GET /a"):
        async with server_and_proxy() as (_, proxy), client(proxy) as connection:
            proxy.arm(Cut("response body", len(BODY) + 1))
            connection.send("GET /a HTTP/1.1")
            await connection.head()
            await connection.read_to_end()


async def test_unused_fault_does_not_hide_another_error() -> None:
    with pytest.raises(LookupError, match="the test's own"):
        async with server_and_proxy() as (_, proxy):
            proxy.arm(Shorten(1))
            raise LookupError("the test's own")


async def test_exit_ends_stalled_exchanges() -> None:
    async with server_and_proxy() as (_, proxy), client(proxy) as connection:
        stall = proxy.arm(Stall("response head"))
        connection.send("GET /a HTTP/1.1")
        await stall.reached.wait()
        assert len(proxy.tasks) == 1
    assert proxy.tasks == set()


async def test_many_connections_are_served_concurrently() -> None:
    async with server_and_proxy() as (_, proxy):
        stall = proxy.arm(Stall("response head"), times=5)

        async def get() -> None:
            async with client(proxy) as connection:
                connection.send("GET /a HTTP/1.1")
                await connection.head()
                assert await connection.read(len(BODY)) == BODY

        async def release_all() -> None:
            while proxy.busy < 5:
                await asyncio.sleep(0)
            stall.release()

        async with task_group() as group:
            for _ in range(5):
                group.start_soon(get)
            group.start_soon(release_all)
        assert proxy.request_lines == ["GET /a"] * 5
