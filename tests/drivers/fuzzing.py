"""Drivers over a wire that replays recorded responses, one of them mutated.

The transport, the drivers and the engine are the real ones; only the socket is not. A case is made
of its seed alone, so that a failure is shown again by its number.
"""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from trove_async import BufferPool, RetryPolicy, Timeout, Trove
from trove_async._http import SocketTransport
from trove_async._http.connection import Connection
from trove_async.drivers import GCSDriver, S3Driver
from trove_async.models import MiB
from trove_async.options import Part, PutOptions

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    import pytest

    from trove_async._http import Origin

BUCKET, OTHER, KEY = "recorded", "recorded-too", "a/key"
BODY = bytes(range(256)) * 3
SPAN = (10, 200)


# -- what is done ----------------------------------------------------------------------------------


def s3(endpoint: str = "http://127.0.0.1:1") -> S3Driver:
    return S3Driver(
        endpoint_url=endpoint,
        region="us-east-1",
        access_key_id="id",
        secret_access_key="secret",
        addressing_style="path",
        dialect="s3",
    )


def gcs(endpoint: str = "http://127.0.0.1:1") -> GCSDriver:
    return GCSDriver(endpoint_url=endpoint, project="project")


class Opened(NamedTuple):
    """A store, and the driver under it."""

    store: Trove
    driver: Any


async def put(on: Opened) -> None:
    tags = {"tag": "value"} if on.driver.capabilities.tags else None
    await on.store.put(BUCKET, KEY, BODY, content_type="text/plain", metadata={"a": "b"}, tags=tags)


async def get(on: Opened) -> bytes:
    return await on.store.read(BUCKET, KEY)


async def get_range(on: Opened) -> bytes:
    return await on.store.read(BUCKET, KEY, range=SPAN)


async def head(on: Opened) -> None:
    await on.store.head(BUCKET, KEY)


async def head_missing(on: Opened) -> None:
    await on.store.exists(BUCKET, "missing")


async def get_missing(on: Opened) -> None:
    await on.store.read(BUCKET, "missing")


async def listing(on: Opened) -> None:
    await on.store.list(BUCKET, delimiter="/").all()


async def listing_missing(on: Opened) -> None:
    await on.store.list("no-such-bucket").all()


async def versions(on: Opened) -> None:
    await on.store.list_versions(BUCKET).all()


async def copy(on: Opened) -> None:
    await on.store.copy(BUCKET, KEY, BUCKET, "a/copy")


async def delete(on: Opened) -> None:
    await on.store.delete(BUCKET, "a/copy")


async def delete_many(on: Opened) -> None:
    await on.store.delete_many(BUCKET, ["one", "two", "three"])


async def upload(on: Opened) -> None:
    async with on.driver.upload(BUCKET, "large", PutOptions(size=len(BODY))) as session:
        await session.send(Part(number=1, offset=0, size=len(BODY), last=True), [memoryview(BODY)])
        await session.commit({})


async def upload_aborted(on: Opened) -> None:
    async with on.driver.upload(BUCKET, "large", PutOptions()):
        pass


async def uploads(on: Opened) -> None:
    if on.driver.name == "s3":
        await on.driver.gc_uploads(BUCKET, older_than=0)


async def create_bucket(on: Opened) -> None:
    await on.store.create_bucket(OTHER)


async def list_buckets(on: Opened) -> None:
    await on.store.list_buckets()


async def delete_bucket(on: Opened) -> None:
    await on.store.delete_bucket(OTHER)


async def if_match(on: Opened) -> None:
    await on.store.put(BUCKET, KEY, b"", if_none_match="*")


OPERATIONS: dict[str, Callable[[Opened], Awaitable[bytes | None]]] = {
    one.__name__: one
    for one in (
        put,
        get,
        get_range,
        head,
        head_missing,
        get_missing,
        listing,
        listing_missing,
        versions,
        copy,
        delete,
        delete_many,
        upload,
        upload_aborted,
        uploads,
        create_bucket,
        list_buckets,
        delete_bucket,
        if_match,
    )
}

EXPECTED: Mapping[str, bytes] = {"get": BODY, "get_range": BODY[SPAN[0] : SPAN[1]]}

DRIVERS: dict[str, Callable[..., Any]] = {"s3": s3, "gcs": gcs}


# -- what was recorded -----------------------------------------------------------------------------


class Exchange(NamedTuple):
    """A request's method, and the response to it as it is on the wire."""

    method: str
    head: bytes
    body: bytes


class Recording(NamedTuple):
    """The responses to one operation, in order."""

    service: str
    operation: str
    exchanges: Sequence[Exchange]


def recordings(service: str) -> list[Recording]:
    path = Path(__file__).parent / "recorded" / f"{service}.json"
    return [
        Recording(
            service,
            name,
            [
                Exchange(
                    one["method"], one["head"].encode("latin-1"), base64.b64decode(one["body"])
                )
                for one in exchanges
            ],
        )
        for name, exchanges in json.loads(path.read_text()).items()
    ]


# -- what is changed -------------------------------------------------------------------------------

ODD = [
    b"", b" ", b"-1", b"0", b"1", b"9" * 400, b"\xff", b"\xc2\xb2", "\u0663".encode(), b"a\rb", b"a\nb",
    b"\x00", b"1e5", b"0x10", b"1_000", b"+5", b'"', b'W/"x"', b"bytes 0-1/2", b"bytes 5-4/3",
    b"bytes */10", b"bytes 0-99999999999999999999/9", b"Thu, 01 Jan 1970 00:00:00 GMT",
    b"Thu, 99 Foo 99999 99:99:99 GMT", b"2025-01-01T00:00:00", b"9999-12-31T23:59:59-23:59",
    b"null", b"[]", b"{}", b"true", b"<", b"&#0;", b"]]>", b"=?utf-8?b?/w==?=", b"=?x?q?=zz?=",
    b"http://", b"http://h/\n", b"\\ud800", b"x" * 5000,
]  # fmt: skip

NAMES = [
    b"Content-Length", b"Transfer-Encoding", b"Content-Range", b"ETag", b"Last-Modified", b"Date",
    b"Retry-After", b"Location", b"Range", b"x-amz-version-id", b"x-amz-checksum-crc32c",
    b"x-amz-bucket-region", b"x-amz-delete-marker", b"x-amz-meta-trove-exact", b"x-amz-meta-a",
    b"x-amz-object-size", b"x-amz-tagging-count", b"x-amz-mp-parts-count", b"x-goog-hash",
    b"x-goog-generation", b"x-goog-stored-content-length", b"x-goog-meta-trove-exact",
    b"Content-Encoding", b"Content-Type", b"Connection",
]  # fmt: skip

STATUSES = [100, 101, 103, 199, 200, 201, 202, 203, 204, 205, 206, 207, 299, 300, 301, 302, 304, 307,
            308, 399, 400, 401, 403, 404, 405, 408, 409, 410, 411, 412, 413, 416, 418, 429, 499, 500,
            501, 502, 503, 504, 507, 599, 600, 999, 0]  # fmt: skip

VALUES = (b"crc32c", b"checksum", b"x-goog-hash")
"""What a header is named that a body's checksum is in."""


class Mutant(NamedTuple):
    """A response as it is sent, and what became of it.

    Attributes:
        raw: Its bytes.
        done: The mutations.
        told: Whether a checksum that came with the body is still there as it was.
    """

    raw: bytes
    done: tuple[str, ...]
    told: bool


def mutated(exchange: Exchange, random: Random) -> Mutant:
    head, body = exchange.head, exchange.body
    done: list[str] = []
    change: Callable[[bytes, Random], bytes]
    framing = random.random()
    for _ in range(random.choice([1, 1, 1, 2, 3])):
        if random.random() < 0.5 or not body:
            change = random.choice(HEAD)
            head = change(head, random)
        else:
            change = random.choice(BODIES)
            body = change(body, random)
            if random.random() < 0.7:
                head = measured(head, body)
        done.append(change.__name__)
    if framing < 0.15:
        head, body = chunked(head, body, random)
        done.append("chunked")
    raw = head + body
    if framing > 0.9:
        raw = raw[: random.randrange(len(raw) + 1)]
        done.append("cut")
    elif framing > 0.8:
        raw = flipped(raw, random)
        done.append("flipped")
    return Mutant(raw, tuple(done), sums(exchange.head) == sums(raw.partition(b"\r\n\r\n")[0]))


def sums(head: bytes) -> list[bytes]:
    """Return the lines that tell a body's checksum, or of what it is one."""
    return [line for line in head.split(b"\r\n") if any(value in line.lower() for value in VALUES)]


def measured(head: bytes, body: bytes) -> bytes:
    """Give the head the length of the body, so that only what reads the body can object."""
    lines = head.split(b"\r\n")
    return b"\r\n".join(
        b"Content-Length: %d" % len(body) if line.lower().startswith(b"content-length:") else line
        for line in lines
    )


def chunked(head: bytes, body: bytes, random: Random) -> tuple[bytes, bytes]:
    lines = [one for one in head.split(b"\r\n") if not one.lower().startswith(b"content-length:")]
    lines.insert(1, b"Transfer-Encoding: chunked")
    pieces, at = [], 0
    while at < len(body):
        size = random.choice([1, 2, 100, 10_000])
        piece = body[at : at + size]
        pieces.append(b"%x\r\n%b\r\n" % (len(piece), piece))
        at += size
    pieces.append(random.choice([b"0\r\n\r\n", b"0\r\nx: y\r\n\r\n", b"", b"0\r\n", b"-1\r\n\r\n"]))
    if random.random() < 0.3:
        at = random.randrange(len(pieces))
        pieces[at] = random.choice([b"zz\r\n", b"\r\n", b"f" * 40 + b"\r\n", pieces[at] * 2])
    return b"\r\n".join(lines), b"".join(pieces)


def flipped(data: bytes, random: Random) -> bytes:
    changed = bytearray(data)
    for _ in range(random.choice([1, 1, 2, 8])):
        changed[random.randrange(len(changed))] = random.randrange(256)
    return bytes(changed)


def other_status(head: bytes, random: Random) -> bytes:
    _, _, rest = head.partition(b"\r\n")
    return b"HTTP/1.1 %d Odd\r\n" % random.choice(STATUSES) + rest


def header_gone(head: bytes, random: Random) -> bytes:
    lines = head.split(b"\r\n")
    if len(lines) > 3:
        del lines[random.randrange(1, len(lines) - 2)]
    return b"\r\n".join(lines)


def header_odd(head: bytes, random: Random) -> bytes:
    lines = head.split(b"\r\n")
    if len(lines) > 3:
        at = random.randrange(1, len(lines) - 2)
        lines[at] = lines[at].partition(b":")[0] + b": " + random.choice(ODD)
    return b"\r\n".join(lines)


def header_twice(head: bytes, random: Random) -> bytes:
    lines = head.split(b"\r\n")
    if len(lines) > 3:
        at = random.randrange(1, len(lines) - 2)
        again = lines[at].partition(b":")[0] + b": " + random.choice(ODD)
        lines.insert(at, random.choice([lines[at], again]))
    return b"\r\n".join(lines)


def header_more(head: bytes, random: Random) -> bytes:
    lines = head.split(b"\r\n")
    lines.insert(1, random.choice(NAMES) + b": " + random.choice(ODD))
    return b"\r\n".join(lines)


def head_flipped(head: bytes, random: Random) -> bytes:
    return flipped(head, random)


def body_cut(body: bytes, random: Random) -> bytes:
    return body[: random.randrange(len(body) + 1)]


def body_flipped(body: bytes, random: Random) -> bytes:
    return flipped(body, random) if body else body


def body_twice(body: bytes, random: Random) -> bytes:
    return body * random.choice([2, 3])


def body_spliced(body: bytes, random: Random) -> bytes:
    """Repeat, drop or move a piece."""
    a, b = sorted(random.randrange(len(body) + 1) for _ in range(2))
    at = random.randrange(len(body) + 1)
    return random.choice([body[:a] + body[b:], body[:at] + body[a:b] + body[at:]])


def body_odd(body: bytes, random: Random) -> bytes:
    """Put something odd where a value is: between tags, or behind a colon."""
    marks = [at for at, byte in enumerate(body) if byte in b'>":']
    if not marks:
        return body
    at = random.choice(marks) + 1
    end = min((e for m in b'<,}"' if (e := body.find(m, at)) >= 0), default=at)
    return body[:at] + random.choice(ODD) + body[end:]


def body_other(body: bytes, random: Random) -> bytes:
    return body[:0] + random.choice(
        [b"", b"<html>", b"{", b"[]", b"null", b'{"error": []}', b'{"error": {"errors": 5}}', b"\xff\xfe",
         b"<Error/>", b"<Error><Code>SlowDown</Code></Error>", b"[" * 5000, b"<a>" * 5000,
         b'{"items": {"a": 1}}', b'{"items": "abc"}', b'{"items": [[]]}', b'{"prefixes": {}}',
         b'{"nextPageToken": 5}', b'{"kind": "\\ud800", "name": "\\ud800"}', b"<!DOCTYPE a><a/>"]
    )  # fmt: skip


HEAD: list[Callable[[bytes, Random], bytes]] = [
    other_status,
    header_gone,
    header_odd,
    header_twice,
    header_more,
    head_flipped,
]
BODIES: list[Callable[[bytes, Random], bytes]] = [
    body_cut,
    body_flipped,
    body_twice,
    body_spliced,
    body_odd,
    body_other,
]


# -- how it is sent --------------------------------------------------------------------------------


class Wire(asyncio.Transport):
    """The far end of a connection: answers each request, then closes."""

    def __init__(
        self, protocol: Connection, respond: Callable[[str], bytes], random: Random
    ) -> None:
        super().__init__()
        self._protocol = protocol
        self._respond = respond
        self._random = random
        self._loop = asyncio.get_running_loop()
        self._asked = bytearray()
        self._rest = b""
        self._answered = self._paused = self._gone = False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._asked += data
        head, mark, body = bytes(self._asked).partition(b"\r\n\r\n")
        if not mark or self._answered:
            return
        _, _, length = head.lower().partition(b"\r\ncontent-length:")
        if len(body) >= int(length.split(b"\r\n")[0] or b"0"):
            self._answered = True
            self._rest = self._respond(head.split(b" ")[0].decode())
            self._loop.call_soon(self._feed)

    def pause_reading(self) -> None:
        self._paused = True

    def resume_reading(self) -> None:
        self._paused = False
        self._loop.call_soon(self._feed)

    def _feed(self) -> None:
        if self._paused or self._gone:
            return
        if not self._rest:
            self._protocol.eof_received()
            self.abort()
            return
        buffer = self._protocol.get_buffer(-1)
        count = min(len(buffer), len(self._rest), self._random.choice([1, 50, 70_000, 70_000]))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        self._protocol.buffer_updated(count)
        self._loop.call_soon(self._feed)

    def is_closing(self) -> bool:
        return self._gone

    def abort(self) -> None:
        if not self._gone:
            self._gone = True
            self._loop.call_soon(self._protocol.connection_lost, None)

    close = abort


class Replayed(SocketTransport):
    """A transport whose connections lead to a `Wire`."""

    def __init__(self, timeout: Timeout, respond: Callable[[str], bytes], random: Random) -> None:
        super().__init__(timeout)
        self._respond = respond
        self._random = random

    async def _open(self, origin: Origin) -> Connection:
        connection = Connection(self, origin, asyncio.get_running_loop(), self._timeout)
        wire = Wire(connection, self._respond, self._random)
        connection.connection_made(cast("asyncio.BaseTransport", wire))
        self._connections.add(connection)
        return connection


class Case(NamedTuple):
    """What one seed stands for."""

    seed: int
    recording: Recording
    at: int
    mutant: Mutant


def case(seed: int, all_: Sequence[Recording]) -> tuple[Case, Random]:
    random = Random(seed)
    recording = random.choice(all_)
    at = random.randrange(len(recording.exchanges))
    return Case(seed, recording, at, mutated(recording.exchanges[at], random)), random


async def play(
    one: Case, random: Random, monkeypatch: pytest.MonkeyPatch, rooms: Mapping[str, Any]
) -> bytes | None:
    """Run the operation of a case; return what it read."""
    exchanges = one.recording.exchanges
    asked = 0

    def respond(method: str) -> bytes:
        nonlocal asked
        at, asked = asked, asked + 1
        if at == one.at:
            return one.mutant.raw
        if at < len(exchanges) and exchanges[at].method == method:
            return exchanges[at].head + exchanges[at].body
        for exchange in reversed(exchanges):
            if exchange.method == method:
                return exchange.head + exchange.body
        return b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\n\r\n"

    monkeypatch.setattr(
        rooms[one.recording.service],
        "transport_over",
        lambda timeout, **_: Replayed(timeout, respond, random),
    )
    driver = DRIVERS[one.recording.service]()
    pool = BufferPool(max_bytes=4 * MiB, part_size=MiB)
    async with Trove(driver, pool=pool, retry=RetryPolicy(attempts=1)) as store:
        return await OPERATIONS[one.recording.operation](Opened(store, driver))
