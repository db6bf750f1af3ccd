"""Drivers over a fake socket that replays recorded responses, one of them mutated.

Only the socket is fake: the connection, the transport, the drivers and the engine are real. A case depends
only on its seed and the recordings, so a failure can be reproduced.
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

BUCKET, OTHER_BUCKET, KEY = "recorded", "recorded-too", "a/key"
BODY = bytes(range(256)) * 3
RANGE = (10, 200)


# -- operations ------------------------------------------------------------------------------------


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


class Client(NamedTuple):
    """A store and its driver."""

    store: Trove
    driver: Any


async def put(client: Client) -> None:
    tags = {"tag": "value"} if client.driver.capabilities.tags else None
    await client.store.put(
        BUCKET, KEY, BODY, content_type="text/plain", metadata={"a": "b"}, tags=tags
    )


async def get(client: Client) -> bytes:
    return await client.store.read(BUCKET, KEY)


async def get_range(client: Client) -> bytes:
    return await client.store.read(BUCKET, KEY, range=RANGE)


async def head(client: Client) -> None:
    await client.store.head(BUCKET, KEY)


async def head_missing(client: Client) -> None:
    await client.store.exists(BUCKET, "missing")


async def get_missing(client: Client) -> None:
    await client.store.read(BUCKET, "missing")


async def list_objects(client: Client) -> None:
    await client.store.list(BUCKET, delimiter="/").all()


async def list_missing_bucket(client: Client) -> None:
    await client.store.list("no-such-bucket").all()


async def list_versions(client: Client) -> None:
    await client.store.list_versions(BUCKET).all()


async def copy(client: Client) -> None:
    await client.store.copy(BUCKET, KEY, BUCKET, "a/copy")


async def delete(client: Client) -> None:
    await client.store.delete(BUCKET, "a/copy")


async def delete_many(client: Client) -> None:
    await client.store.delete_many(BUCKET, ["one", "two", "three"])


async def upload(client: Client) -> None:
    async with client.driver.upload(BUCKET, "large", PutOptions(size=len(BODY))) as session:
        await session.send(Part(number=1, offset=0, size=len(BODY), last=True), [memoryview(BODY)])
        await session.commit({})


async def upload_aborted(client: Client) -> None:
    async with client.driver.upload(BUCKET, "large", PutOptions()):
        pass


async def gc_uploads(client: Client) -> None:
    if client.driver.name == "s3":
        await client.driver.gc_uploads(BUCKET, older_than=0)


async def create_bucket(client: Client) -> None:
    await client.store.create_bucket(OTHER_BUCKET)


async def list_buckets(client: Client) -> None:
    await client.store.list_buckets()


async def delete_bucket(client: Client) -> None:
    await client.store.delete_bucket(OTHER_BUCKET)


async def create_only(client: Client) -> None:
    await client.store.put(BUCKET, KEY, b"", if_none_match="*")


OPERATIONS: dict[str, Callable[[Client], Awaitable[bytes | None]]] = {
    operation.__name__: operation
    for operation in (
        put,
        get,
        get_range,
        head,
        head_missing,
        get_missing,
        list_objects,
        list_missing_bucket,
        list_versions,
        copy,
        delete,
        delete_many,
        upload,
        upload_aborted,
        gc_uploads,
        create_bucket,
        list_buckets,
        delete_bucket,
        create_only,
    )
}

EXPECTED: Mapping[str, bytes] = {"get": BODY, "get_range": BODY[RANGE[0] : RANGE[1]]}

DRIVERS: dict[str, Callable[..., Any]] = {"s3": s3, "gcs": gcs}


# -- recordings ------------------------------------------------------------------------------------


class Exchange(NamedTuple):
    """The method of a request, and the raw response to it."""

    method: str
    head: bytes
    body: bytes


class Recording(NamedTuple):
    """The responses to one operation, in order."""

    service: str
    operation: str
    exchanges: Sequence[Exchange]


def read_recordings(service: str) -> list[Recording]:
    """Read the recordings of a service."""
    path = Path(__file__).parent / "recorded" / f"{service}.json"
    return [
        Recording(
            service,
            name,
            [
                Exchange(
                    exchange["method"],
                    exchange["head"].encode("latin-1"),
                    base64.b64decode(exchange["body"]),
                )
                for exchange in exchanges
            ],
        )
        for name, exchanges in json.loads(path.read_text()).items()
    ]


# -- mutations -------------------------------------------------------------------------------------

INVALID_VALUES = [
    b"", b" ", b"-1", b"0", b"1", b"9" * 400, b"\xff", b"\xc2\xb2", "\u0663".encode(), b"a\rb", b"a\nb",
    b"\x00", b"1e5", b"0x10", b"1_000", b"+5", b'"', b'W/"x"', b"bytes 0-1/2", b"bytes 5-4/3",
    b"bytes */10", b"bytes 0-99999999999999999999/9", b"Thu, 01 Jan 1970 00:00:00 GMT",
    b"Thu, 99 Foo 99999 99:99:99 GMT", b"2025-01-01T00:00:00", b"9999-12-31T23:59:59-23:59",
    b"null", b"[]", b"{}", b"true", b"<", b"&#0;", b"]]>", b"=?utf-8?b?/w==?=", b"=?x?q?=zz?=",
    b"http://", b"http://h/\n", b"\\ud800", b"x" * 5000,
]  # fmt: skip

HEADER_NAMES = [
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

CHECKSUM_NAMES = (b"crc32c", b"checksum", b"x-goog-hash")
"""Parts of the names of headers that carry checksums."""


class Mutant(NamedTuple):
    """A mutated response.

    Attributes:
        raw: Its bytes.
        mutations: The names of the mutations.
        checksums_intact: Whether the checksums in its headers are unchanged.
    """

    raw: bytes
    mutations: tuple[str, ...]
    checksums_intact: bool


def mutate(exchange: Exchange, random: Random) -> Mutant:
    """Apply one to three random mutations to a response.

    In some cases, also encode it in chunks, truncate it, or change random bytes.
    """
    head, body = exchange.head, exchange.body
    names: list[str] = []
    mutation: Callable[[bytes, Random], bytes]
    transfer = random.random()  # decides whether the response is chunked, truncated or damaged
    for _ in range(random.choice([1, 1, 1, 2, 3])):
        if random.random() < 0.5 or not body:
            mutation = random.choice(HEAD_MUTATIONS)
            head = mutation(head, random)
        else:
            mutation = random.choice(BODY_MUTATIONS)
            body = mutation(body, random)
            if random.random() < 0.7:
                head = with_content_length(head, body)
        names.append(mutation.__name__)
    if transfer < 0.15:
        head, body = chunked(head, body, random)
        names.append("chunked")
    raw = head + body
    if transfer > 0.9:
        raw = raw[: random.randrange(len(raw) + 1)]
        names.append("truncated")
    elif transfer > 0.8:
        raw = flip_bytes(raw, random)
        names.append("flipped")
    intact = checksum_lines(exchange.head) == checksum_lines(raw.partition(b"\r\n\r\n")[0])
    return Mutant(raw, tuple(names), intact)


def checksum_lines(head: bytes) -> list[bytes]:
    """Return the header lines that carry a checksum or its type."""
    return [
        line for line in head.split(b"\r\n") if any(name in line.lower() for name in CHECKSUM_NAMES)
    ]


def with_content_length(head: bytes, body: bytes) -> bytes:
    """Set Content-Length to the length of the body, so that only parsing the body can fail."""
    lines = head.split(b"\r\n")
    return b"\r\n".join(
        b"Content-Length: %d" % len(body) if line.lower().startswith(b"content-length:") else line
        for line in lines
    )


def chunked(head: bytes, body: bytes, random: Random) -> tuple[bytes, bytes]:
    """Encode the body in chunks. In some cases, one chunk or the end is malformed."""
    lines = [
        line for line in head.split(b"\r\n") if not line.lower().startswith(b"content-length:")
    ]
    lines.insert(1, b"Transfer-Encoding: chunked")
    chunks, offset = [], 0
    while offset < len(body):
        size = random.choice([1, 2, 100, 10_000])
        chunk = body[offset : offset + size]
        chunks.append(b"%x\r\n%b\r\n" % (len(chunk), chunk))
        offset += size
    chunks.append(random.choice([b"0\r\n\r\n", b"0\r\nx: y\r\n\r\n", b"", b"0\r\n", b"-1\r\n\r\n"]))
    if random.random() < 0.3:
        index = random.randrange(len(chunks))
        malformed = [b"zz\r\n", b"\r\n", b"f" * 40 + b"\r\n", chunks[index] * 2]
        chunks[index] = random.choice(malformed)
    return b"\r\n".join(lines), b"".join(chunks)


def flip_bytes(data: bytes, random: Random) -> bytes:
    changed = bytearray(data)
    for _ in range(random.choice([1, 1, 2, 8])):
        changed[random.randrange(len(changed))] = random.randrange(256)
    return bytes(changed)


def change_status(head: bytes, random: Random) -> bytes:
    _, _, fields = head.partition(b"\r\n")
    return b"HTTP/1.1 %d Odd\r\n" % random.choice(STATUSES) + fields


def remove_header(head: bytes, random: Random) -> bytes:
    lines = head.split(b"\r\n")
    if len(lines) > 3:
        del lines[random.randrange(1, len(lines) - 2)]
    return b"\r\n".join(lines)


def invalidate_header(head: bytes, random: Random) -> bytes:
    lines = head.split(b"\r\n")
    if len(lines) > 3:
        index = random.randrange(1, len(lines) - 2)
        lines[index] = lines[index].partition(b":")[0] + b": " + random.choice(INVALID_VALUES)
    return b"\r\n".join(lines)


def repeat_header(head: bytes, random: Random) -> bytes:
    lines = head.split(b"\r\n")
    if len(lines) > 3:
        index = random.randrange(1, len(lines) - 2)
        repeated = lines[index].partition(b":")[0] + b": " + random.choice(INVALID_VALUES)
        lines.insert(index, random.choice([lines[index], repeated]))
    return b"\r\n".join(lines)


def add_header(head: bytes, random: Random) -> bytes:
    lines = head.split(b"\r\n")
    lines.insert(1, random.choice(HEADER_NAMES) + b": " + random.choice(INVALID_VALUES))
    return b"\r\n".join(lines)


def flip_head_bytes(head: bytes, random: Random) -> bytes:
    return flip_bytes(head, random)


def truncate_body(body: bytes, random: Random) -> bytes:
    return body[: random.randrange(len(body) + 1)]


def flip_body_bytes(body: bytes, random: Random) -> bytes:
    return flip_bytes(body, random) if body else body


def repeat_body(body: bytes, random: Random) -> bytes:
    return body * random.choice([2, 3])


def splice_body(body: bytes, random: Random) -> bytes:
    """Drop a slice, or insert a copy of it elsewhere."""
    start, end = sorted(random.randrange(len(body) + 1) for _ in range(2))
    target = random.randrange(len(body) + 1)
    without_slice = body[:start] + body[end:]
    with_copy = body[:target] + body[start:end] + body[target:]
    return random.choice([without_slice, with_copy])


def invalidate_body_value(body: bytes, random: Random) -> bytes:
    """Replace a value, between tags or after a colon, with an invalid one."""
    delimiters = [index for index, byte in enumerate(body) if byte in b'>":']
    if not delimiters:
        return body
    start = random.choice(delimiters) + 1
    ends = [end for byte in b'<,}"' if (end := body.find(byte, start)) >= 0]
    return body[:start] + random.choice(INVALID_VALUES) + body[min(ends, default=start) :]


def replace_body(body: bytes, random: Random) -> bytes:  # noqa: ARG001 - the signature of all mutations
    return random.choice(
        [b"", b"<html>", b"{", b"[]", b"null", b'{"error": []}', b'{"error": {"errors": 5}}', b"\xff\xfe",
         b"<Error/>", b"<Error><Code>SlowDown</Code></Error>", b"[" * 5000, b"<a>" * 5000,
         b'{"items": {"a": 1}}', b'{"items": "abc"}', b'{"items": [[]]}', b'{"prefixes": {}}',
         b'{"nextPageToken": 5}', b'{"kind": "\\ud800", "name": "\\ud800"}', b"<!DOCTYPE a><a/>"]
    )  # fmt: skip


HEAD_MUTATIONS: list[Callable[[bytes, Random], bytes]] = [
    change_status,
    remove_header,
    invalidate_header,
    repeat_header,
    add_header,
    flip_head_bytes,
]
BODY_MUTATIONS: list[Callable[[bytes, Random], bytes]] = [
    truncate_body,
    flip_body_bytes,
    repeat_body,
    splice_body,
    invalidate_body_value,
    replace_body,
]


# -- replay ----------------------------------------------------------------------------------------


class FakeSocket(asyncio.Transport):
    """The socket of a connection. It responds to one request, then closes."""

    def __init__(
        self, protocol: Connection, respond: Callable[[str], bytes], random: Random
    ) -> None:
        super().__init__()
        self._protocol = protocol
        self._respond = respond
        self._random = random
        self._loop = asyncio.get_running_loop()
        self._request = bytearray()
        self._response = b""
        self._responded = self._paused = self._closed = False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._request += data
        head, separator, body = bytes(self._request).partition(b"\r\n\r\n")
        if not separator or self._responded:
            return
        _, _, length = head.lower().partition(b"\r\ncontent-length:")
        if len(body) >= int(length.split(b"\r\n")[0] or b"0"):
            self._responded = True
            self._response = self._respond(head.split(b" ")[0].decode())
            self._loop.call_soon(self._feed)

    def pause_reading(self) -> None:
        self._paused = True

    def resume_reading(self) -> None:
        self._paused = False
        self._loop.call_soon(self._feed)

    def _feed(self) -> None:
        if self._paused or self._closed:
            return
        if not self._response:
            self._protocol.eof_received()
            self.abort()
            return
        buffer = self._protocol.get_buffer(-1)
        count = min(len(buffer), len(self._response), self._random.choice([1, 50, 70_000, 70_000]))
        buffer[:count] = self._response[:count]
        self._response = self._response[count:]
        self._protocol.buffer_updated(count)
        self._loop.call_soon(self._feed)

    def is_closing(self) -> bool:
        return self._closed

    def abort(self) -> None:
        if not self._closed:
            self._closed = True
            self._loop.call_soon(self._protocol.connection_lost, None)

    close = abort


class ReplayTransport(SocketTransport):
    """A transport whose connections have a `FakeSocket`."""

    def __init__(self, timeout: Timeout, respond: Callable[[str], bytes], random: Random) -> None:
        super().__init__(timeout)
        self._respond = respond
        self._random = random

    async def _open(self, origin: Origin) -> Connection:
        connection = self._new_connection(origin, asyncio.get_running_loop())
        fake_socket = FakeSocket(connection, self._respond, self._random)
        connection.connection_made(cast("asyncio.BaseTransport", fake_socket))
        self._connections.add(connection)
        return connection


class Case(NamedTuple):
    """One test case.

    Attributes:
        seed: The seed of its random choices.
        recording: The operation and the recorded responses.
        position: The index of the mutated response.
        mutant: The mutated response.
    """

    seed: int
    recording: Recording
    position: int
    mutant: Mutant


def make_case(seed: int, recordings: Sequence[Recording]) -> tuple[Case, Random]:
    """Return the case of a seed, and the random generator for its replay."""
    random = Random(seed)
    recording = random.choice(recordings)
    index = random.randrange(len(recording.exchanges))
    return Case(seed, recording, index, mutate(recording.exchanges[index], random)), random


async def replay(
    case: Case, random: Random, monkeypatch: pytest.MonkeyPatch, modules: Mapping[str, Any]
) -> bytes | None:
    """Run the operation of a case over the replayed responses. Return the bytes that it reads."""
    exchanges = case.recording.exchanges
    request_count = 0

    def respond(method: str) -> bytes:
        nonlocal request_count
        index, request_count = request_count, request_count + 1
        if index == case.position:
            return case.mutant.raw
        if index < len(exchanges) and exchanges[index].method == method:
            return exchanges[index].head + exchanges[index].body
        # A mutated response can cause requests that were not recorded.
        for exchange in reversed(exchanges):
            if exchange.method == method:
                return exchange.head + exchange.body
        return b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\n\r\n"

    monkeypatch.setattr(
        modules[case.recording.service],
        "transport_over",
        lambda timeout, **_: ReplayTransport(timeout, respond, random),
    )
    driver = DRIVERS[case.recording.service]()
    pool = BufferPool(max_bytes=4 * MiB, part_size=MiB)
    async with Trove(driver, pool=pool, retry=RetryPolicy(attempts=1)) as store:
        return await OPERATIONS[case.recording.operation](Client(store, driver))
