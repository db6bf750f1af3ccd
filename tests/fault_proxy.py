"""An HTTP proxy that injects faults at an exact byte of an exchange.

The proxy forwards requests byte for byte, so that signatures stay valid, and records them. `arm` adds a
fault for certain requests. By default it applies to the first one only::

    async with FaultProxy(server.endpoint_url) as proxy:
        stall = proxy.arm(Stall("response body", 100), method="GET")
        ...
        await stall.reached.wait()
        ...
        assert proxy.request_lines == ["GET /bucket/key"]

A fault that was applied fewer times than it was armed for fails the test at the end of the block.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable, Coroutine
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Self, TypeVar
from urllib.parse import parse_qsl, unquote, urlsplit

from tests.http_faults import Cut, Fault, Flip, Point, Response, Shorten, Stall
from trove_async._concurrency import task_group, within
from trove_async.errors import TimedOutError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Mapping
    from types import TracebackType

PIECE = 64 * 1024

FaultT = TypeVar("FaultT", bound=Fault)


# -- faults and the requests they apply to -----------------------------------------------------------


@dataclass(slots=True)
class _ArmedFault:
    """A fault, and the requests it applies to."""

    fault: Fault
    method: str | None
    target: str
    times: int | None
    skip: int

    def matches(self, request: Request) -> bool:
        """Return whether the fault applies to this request, and count the request."""
        if (
            self.times == 0
            or self.method not in {None, request.method}
            or not fnmatchcase(request.target, self.target)
        ):
            return False
        if self.skip:
            self.skip -= 1
            return False
        if self.times is not None:
            self.times -= 1
        return True


# -- messages ----------------------------------------------------------------------------------------


@dataclass
class Request:
    """A request whose head has arrived.

    Attributes:
        headers: The header fields, with names in lower case.
        failed: Whether the server itself responded with 500.
        body: The bytes of the body that have arrived, if the proxy keeps bodies.
    """

    method: str
    target: str
    headers: Mapping[str, str] = field(repr=False)
    failed: bool = field(default=False, repr=False, compare=False)
    body: bytearray = field(default_factory=bytearray, repr=False, compare=False)

    @property
    def path(self) -> str:
        """The path, decoded."""
        return unquote(urlsplit(self.target).path)

    @property
    def query(self) -> dict[str, str]:
        """The query, decoded."""
        return dict(parse_qsl(urlsplit(self.target).query, keep_blank_values=True))

    def __str__(self) -> str:
        return f"{self.method} {self.target}"


@dataclass(frozen=True)
class _Head:
    raw: bytes
    start_line: list[str]
    headers: Mapping[str, str]

    @classmethod
    async def read(cls, reader: asyncio.StreamReader) -> _Head:
        raw = await reader.readuntil(b"\r\n\r\n")
        start_line, *lines = raw.decode("latin-1").splitlines()
        pairs = (line.partition(":") for line in lines if line)
        return cls(
            raw, start_line.split(" ", 2), {name.lower(): value.strip() for name, _, value in pairs}
        )

    @property
    def status(self) -> int:
        return int(self.start_line[1])

    @property
    def closes_connection(self) -> bool:
        """Whether the connection is closed after this message."""
        default = "close" if "HTTP/1.0" in self.start_line else "keep-alive"
        return self.headers.get("connection", default).lower() == "close"

    def shortened(self, by: int) -> bytes:
        """Return the bytes of the head, with a Content-Length reduced by `by`."""
        length = self.headers["content-length"]
        lines = self.raw.split(b"\r\n")
        at = next(n for n, line in enumerate(lines) if line.lower().startswith(b"content-length:"))
        lines[at] = b"Content-Length: %d" % (int(length) - by)
        return b"\r\n".join(lines)


async def _body(
    reader: asyncio.StreamReader, headers: Mapping[str, str], *, to_the_end: bool
) -> AsyncGenerator[bytes]:
    """Yield a body as it arrives, including the framing of a chunked body.

    A body without a length lasts until the end of the connection if `to_the_end`, and is empty otherwise.
    """
    if "chunked" in headers.get("transfer-encoding", "").lower():
        size = -1
        while size:
            line = await reader.readuntil(b"\r\n")
            yield line
            size = int(line.split(b";")[0], 16)
            async for piece in _exactly(reader, size + 2 if size else 0):
                yield piece
        while line := await reader.readuntil(b"\r\n"):  # trailers
            yield line
            if line == b"\r\n":
                return
    elif "content-length" in headers or not to_the_end:
        async for piece in _exactly(reader, int(headers.get("content-length", 0))):
            yield piece
    else:
        while piece := await reader.read(PIECE):
            yield piece


async def _exactly(reader: asyncio.StreamReader, size: int) -> AsyncGenerator[bytes]:
    while size:
        piece = await reader.read(min(size, PIECE))
        if not piece:
            raise ConnectionResetError("the body ends early")
        size -= len(piece)
        yield piece


# -- the proxy ---------------------------------------------------------------------------------------


class _CutError(Exception):
    """A cut was applied. The connection must be reset or closed."""

    def __init__(self, *, reset: bool) -> None:
        self.reset = reset


class FaultProxy:
    """A proxy between a client and a server. It runs on the event loop of the test.

    Args:
        upstream: The URL of the server.

    Attributes:
        requests: All requests so far, in the order in which their heads arrived.
        patience: The timeout of `wait_until_idle` and `wait_until_disconnected` in seconds. It is
            shorter than that of a test, because its error shows which requests were sent.
        connections: The number of open client connections.
        busy: The number of requests in flight.
        keeps_bodies: Whether to record the bodies of requests.
    """

    def __init__(self, upstream: str) -> None:
        parts = urlsplit(upstream)
        assert parts.hostname is not None
        assert parts.port is not None
        self._upstream = parts.hostname, parts.port
        self.requests: list[Request] = []
        self.patience = 30.0
        self.connections = 0
        self.busy = 0
        self.keeps_bodies = False
        self._armed: list[_ArmedFault] = []
        self._tasks: set[asyncio.Task[object]] = set()
        self._errors: list[Exception] = []
        self._changed = asyncio.Condition()

    @property
    def endpoint_url(self) -> str:
        """The URL of the proxy."""
        host, port = self._server.sockets[0].getsockname()[:2]
        return f"http://{host}:{port}"

    @property
    def request_lines(self) -> list[str]:
        """All requests so far, each as ``METHOD target``."""
        return [str(request) for request in self.requests]

    def arm(
        self,
        fault: FaultT,
        *,
        method: str | None = None,
        target: str = "*",
        times: int | None = 1,
        skip: int = 0,
    ) -> FaultT:
        """Add a fault. If several apply to a request, the first one added is used.

        Args:
            fault: The fault.
            method: The method of the requests that the fault applies to. None: any.
            target: A glob for the target of these requests. ``*`` matches slashes as well.
            times: How many of these requests the fault applies to. None: all.
            skip: The number of these requests to forward first, without the fault.
        """
        self._armed.append(_ArmedFault(fault, method, target, times, skip))
        return fault

    async def wait_until_idle(self) -> None:
        """Wait until no request is in flight."""
        await self._wait_for(lambda: not self.busy, "requests did not end")

    async def wait_until_disconnected(self) -> None:
        """Wait until no client connection is open."""
        await self._wait_for(lambda: not self.connections, "connections were not closed")

    async def _wait_for(self, condition: Callable[[], bool], problem: str) -> None:
        async def wait() -> None:
            async with self._changed:
                await self._changed.wait_for(condition)

        try:
            await within(self.patience, problem, wait())
        except TimedOutError as error:
            raise AssertionError(
                f"{error}: {self.busy} requests and {self.connections} connections, after {self.request_lines}"
            ) from None

    @property
    def tasks(self) -> set[asyncio.Task[object]]:
        """The tasks of the proxy, which tests for leaked tasks must ignore."""
        return set(self._tasks)

    async def __aenter__(self) -> Self:
        listener = socket.create_server(("127.0.0.1", 0))
        # A small window, and segments as on a real network. Otherwise the kernel buffers megabytes,
        # and a stalled client would have sent far more than the proxy forwarded.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, PIECE)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1460)
        self._server = await asyncio.get_running_loop().create_server(
            lambda: _ClientProtocol(self._serve), sock=listener
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._server.wait_closed()
        if error is None:
            for failure in self._errors:
                raise failure
            unused = [armed.fault for armed in self._armed if armed.times]
            assert not unused, f"applied fewer times than armed for: {unused}"

    async def _serve(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        disconnected: asyncio.Event,
    ) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        await self._change_counts(connections=1)
        writer.transport.set_write_buffer_limits(0)  # `drain` returns once all bytes are sent
        reset = False
        try:
            while await self._exchange(reader, writer, disconnected):
                pass
        except _CutError as error:
            reset = error.reset
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # one side closed its connection: close the other one below
        except asyncio.CancelledError:
            pass  # the block was left; asyncio would log the cancelled task of its server
        except Exception as error:  # noqa: BLE001 - raised at the end of the block
            self._errors.append(error)
        finally:
            _close(writer, reset=reset)
            await self._change_counts(connections=-1)

    async def _change_counts(self, *, connections: int = 0, busy: int = 0) -> None:
        self.connections += connections
        self.busy += busy
        async with self._changed:
            self._changed.notify_all()

    async def _exchange(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        disconnected: asyncio.Event,
    ) -> bool:
        """Forward one request and its response. Return whether the connection stays open."""
        head = await _Head.read(reader)
        request = Request(head.start_line[0], head.start_line[1], head.headers)
        self.requests.append(request)
        fault = next((armed.fault for armed in self._armed if armed.matches(request)), None)
        exchange = _Exchange(request, head, fault, reader, writer, keeps_body=self.keeps_bodies)
        await self._change_counts(busy=1)
        try:
            async with task_group() as group:

                async def raise_on_disconnect() -> None:
                    await disconnected.wait()
                    raise ConnectionResetError("the client disconnected")

                group.start_soon(raise_on_disconnect)
                keep_alive = await exchange.run(self._upstream)
                group.cancel_scope.cancel()
            if not exchange.applied:
                raise AssertionError(f"{fault} is beyond the end of {request}")
            return keep_alive
        finally:
            await self._change_counts(busy=-1)


class _Exchange:
    """One request and its response, with at most one fault."""

    def __init__(
        self,
        request: Request,
        head: _Head,
        fault: Fault | None,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        keeps_body: bool,
    ) -> None:
        self._request = request
        self._keeps_body = keeps_body
        self._head = head
        self._fault = fault
        self._reader = reader
        self._writer = writer
        self._request_sent = False
        self.applied = fault is None

    async def run(self, upstream: tuple[str, int]) -> bool:
        """Forward the exchange. Return whether the client's connection stays open."""
        fault = self._fault
        if isinstance(fault, Response) and not fault.served:
            if "expect" in self._head.headers:
                self._writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            async for _ in self._request_body():
                pass
            return await self._respond(fault)
        async with _connected(upstream) as (server, to_server), task_group() as group:
            group.start_soon(self._forward_request, to_server)
            keep_alive = await self._forward_response(server)
            group.cancel_scope.cancel()
            return keep_alive and self._request_sent

    async def _request_body(self) -> AsyncGenerator[bytes]:
        async with aclosing(_body(self._reader, self._head.headers, to_the_end=False)) as body:
            async for piece in body:
                if self._keeps_body:
                    self._request.body += piece
                yield piece

    async def _respond(self, response: Response) -> bool:
        self.applied = True
        headers = {"Content-Length": str(len(response.body)), **response.headers}
        lines = [f"{name}: {value}" for name, value in headers.items()]
        head = "\r\n".join([f"HTTP/1.1 {response.status} Injected", *lines, "", ""])
        body = b"" if self._request.method == "HEAD" else response.body
        self._writer.write(head.encode() + body)
        await self._writer.drain()
        return True

    async def _forward_request(self, to_server: asyncio.StreamWriter) -> None:
        to_server.transport.set_write_buffer_limits(0)
        await self._relay("request head", _single(self._head.raw), to_server)
        await self._relay("request body", self._request_body(), to_server)
        self._request_sent = True

    async def _forward_response(self, server: asyncio.StreamReader) -> bool:
        head = await _Head.read(server)
        while head.status == 100:
            self._writer.write(head.raw)
            head = await _Head.read(server)
        self._request.failed = head.status == 500
        has_no_body = self._request.method == "HEAD" or head.status in {204, 304}
        body = _single(b"") if has_no_body else _body(server, head.headers, to_the_end=True)
        if isinstance(self._fault, Response):
            async for _ in body:
                pass
            return await self._respond(self._fault)
        try:
            await self._relay_response(head, body)
        except _CutError:
            # The server must finish before the client loses the connection.
            async with aclosing(body):
                async for _ in body:
                    pass
            raise
        ends_with_connection = not (
            has_no_body or {"content-length", "transfer-encoding"} & head.headers.keys()
        )
        return not (head.closes_connection or ends_with_connection)

    async def _relay_response(self, head: _Head, body: AsyncGenerator[bytes]) -> None:
        raw = head.raw
        if isinstance(self._fault, Shorten):
            self.applied = True
            raw = head.shortened(self._fault.by)
            body = _without_last(body, self._fault.by)
        await self._relay("response head", _single(raw), self._writer)
        await self._relay("response body", body, self._writer)

    async def _relay(
        self, point: Point, pieces: AsyncGenerator[bytes], writer: asyncio.StreamWriter
    ) -> None:
        fault = self._fault
        applies = isinstance(fault, (Cut, Stall, Flip)) and fault.at == point
        position = fault.byte if isinstance(fault, (Cut, Stall, Flip)) and applies else None
        forwarded = 0
        async for piece in pieces:
            remaining = piece
            if position is not None and forwarded <= position < forwarded + len(piece):
                await _send(writer, piece[: position - forwarded])
                remaining = await self._apply(piece[position - forwarded :])
            await _send(writer, remaining)
            forwarded += len(piece)
        if position == forwarded:  # at the end of the body, or in an empty one
            await self._apply(b"")

    async def _apply(self, remaining: bytes) -> bytes:
        """Apply the fault to the bytes that start at its position. Return the bytes to forward."""
        self.applied = True
        match self._fault:
            case Cut(reset=reset):
                raise _CutError(reset=reset)
            case Stall() as stall:
                await stall.wait()
            case Flip():
                assert remaining, "there is no byte to flip"
                return bytes([remaining[0] ^ 0xFF]) + remaining[1:]
        return remaining


async def _single(piece: bytes) -> AsyncGenerator[bytes]:
    yield piece


async def _without_last(pieces: AsyncGenerator[bytes], count: int) -> AsyncGenerator[bytes]:
    pending = b""
    async for piece in pieces:
        pending += piece
        if len(pending) > count:
            yield pending[:-count]
            pending = pending[-count:]


async def _send(writer: asyncio.StreamWriter, piece: bytes) -> None:
    if piece:
        writer.write(piece)
        await writer.drain()


@asynccontextmanager
async def _connected(
    upstream: tuple[str, int],
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection(*upstream)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


def _close(writer: asyncio.StreamWriter, *, reset: bool) -> None:
    if reset:
        # Lingering for 0 s makes the kernel send a reset instead of an orderly close.
        linger = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.transport.abort()
    else:
        writer.close()


Serve = Callable[
    [asyncio.StreamReader, asyncio.StreamWriter, asyncio.Event], Coroutine[None, None, None]
]


class _ClientProtocol(asyncio.StreamReaderProtocol):
    """The streams of an asyncio server, and an event that is set when the client has disconnected."""

    def __init__(self, serve: Serve) -> None:
        self._disconnected = asyncio.Event()
        super().__init__(
            asyncio.StreamReader(limit=PIECE),
            lambda reader, writer: serve(reader, writer, self._disconnected),
        )

    def eof_received(self) -> bool | None:
        self._disconnected.set()
        return super().eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disconnected.set()
        super().connection_lost(exc)
