"""A minimal S3 server that discards the bodies it receives, and serves zeros.

It replaces `_discarding_server.c` where that cannot be compiled. It stores nothing, so the client does more
work than the server. The size of an object is the number at
the end of its key. Two kinds of keys test how a client handles failures: the first GET or HEAD
of a ``busy`` key gets a 503, and a ``flipped`` object has a wrong byte.

    python benchmarks/_s3_discarding_server.py [LISTED_KEYS]   # prints its port, and runs until its input ends
"""

from __future__ import annotations

import asyncio
import functools
import re
import struct
import sys
from base64 import b64encode
from collections.abc import Iterator
from typing import cast
from urllib.parse import parse_qsl, unquote

import uvloop
from crc32c import crc32c

MiB = 1024 * 1024
listed_keys = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
KEYS_PER_PAGE = 1000
ETAG = '"0123456789abcdef0123456789abcdef"'
LAST_MODIFIED = b"Last-Modified: Wed, 01 Jan 2025 00:00:00 GMT\r\n"

SINK = memoryview(bytearray(MiB))
ZEROS = memoryview(bytes(MiB))


@functools.cache
def checksum(size: int) -> bytes:
    """Return the headers with the CRC-32C of `size` zeros."""
    value = 0
    for start in range(0, size, MiB):
        value = crc32c(ZEROS[: min(MiB, size - start)], value)
    digest = b64encode(struct.pack(">I", value))
    return b"x-amz-checksum-crc32c: " + digest + b"\r\nx-amz-checksum-type: FULL_OBJECT\r\n"


@functools.cache
def page(token: str) -> bytes:
    """Return one page of the listing."""
    start = int(token or 0)
    has_more = start + KEYS_PER_PAGE < listed_keys
    entries = "".join(
        f"<Contents><Key>listed/{n // 100:05}/{n:07}.bin</Key>"
        "<LastModified>2025-01-01T00:00:00.000Z</LastModified>"
        f"<ETag>&quot;{n:032x}&quot;</ETag><ChecksumAlgorithm>CRC32C</ChecksumAlgorithm>"
        f"<ChecksumType>FULL_OBJECT</ChecksumType><Size>{n}</Size>"
        "<StorageClass>STANDARD</StorageClass></Contents>"
        for n in range(start, min(start + KEYS_PER_PAGE, listed_keys))
    )
    next_token = (
        f"<NextContinuationToken>{start + KEYS_PER_PAGE}</NextContinuationToken>"
        if has_more
        else ""
    )
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        '<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>bench</Name>'
        f"<Prefix>listed/</Prefix><KeyCount>{KEYS_PER_PAGE}</KeyCount>"
        f"<MaxKeys>{KEYS_PER_PAGE}</MaxKeys>"
        f"<IsTruncated>{str(has_more).lower()}</IsTruncated>{next_token}{entries}</ListBucketResult>"
    ).encode()


def headers(lines: list[bytes]) -> dict[bytes, bytes]:
    """Return the header fields by name, in lower case."""
    pairs = (line.partition(b":") for line in lines)
    return {name.lower(): value.strip() for name, _, value in pairs}


class DiscardingServer(asyncio.BufferedProtocol):
    """One connection. The body of a PUT is received into a buffer that is never read.

    asyncio receives directly into the buffer of a `BufferedProtocol`, without a copy.
    """

    rejected_keys: set[str] = set()  # noqa: RUF012 - busy keys that got a 503, on any connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Prepare for the first request of the connection."""
        self._transport = cast("asyncio.Transport", transport)
        self._head = memoryview(bytearray(64 * 1024))
        self._filled = 0
        self._remaining = 0
        self._document: memoryview | None = None
        self._request: tuple[bytes, str, dict[bytes, bytes]] | None = None
        self._writing: Iterator[memoryview | bytes] = iter(())
        self._paused = False

    def get_buffer(self, _hint: int) -> memoryview:
        """Return a buffer for the next bytes: for the rest of the body, or else for a head."""
        if self._remaining:
            return (
                SINK[: self._remaining]
                if self._document is None
                else self._document[-self._remaining :]
            )
        return self._head[self._filled :]

    def buffer_updated(self, count: int) -> None:
        """Count the bytes of a body, or look for the end of a head."""
        if self._remaining:
            self._remaining -= count
        else:
            self._filled += count
            self._read_head()
        if self._request is not None and not self._remaining:
            request, self._request = self._request, None
            self._respond(*request)

    def _read_head(self) -> None:
        head, end, body = bytes(self._head[: self._filled]).partition(b"\r\n\r\n")
        if not end:
            return
        first, *lines = head.split(b"\r\n")
        method, target, _ = first.split(b" ")
        fields = headers(lines)
        # Only the body follows the head, because no client pipelines requests.
        size = int(fields.get(b"content-length", 0))
        self._remaining = size - len(body)
        self._filled = 0
        self._document = None
        if method == b"POST":  # for example, the keys to delete
            self._document = memoryview(bytearray(size))
            self._document[: len(body)] = body
        self._request = method, target.decode(), fields
        if b"expect" in fields:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _respond(self, method: bytes, target: str, fields: dict[bytes, bytes]) -> None:
        path, _, encoded = target.partition("?")
        query = dict(parse_qsl(encoded, keep_blank_values=True)) if encoded else {}
        key = path[1:].partition("/")[2]
        checksums = b"".join(
            name + b": " + value + b"\r\n"
            for name, value in fields.items()
            if name.startswith(b"x-amz-checksum-")
            and name not in {b"x-amz-checksum-mode", b"x-amz-checksum-algorithm"}
        )
        if "delete" in query and self._document is not None:
            deleted = b"".join(re.findall(rb"<Key>.*?</Key>", bytes(self._document)))
            body = deleted.replace(b"<Key>", b"<Deleted><Key>").replace(
                b"</Key>", b"</Key></Deleted>"
            )
            self._send(b"200 OK", b"", b"<DeleteResult>" + body + b"</DeleteResult>")
        elif not key:
            body = page(query.get("continuation-token", "")) if "list-type" in query else b""
            self._send(b"200 OK", b"Content-Type: application/xml\r\n", body)
        elif method == b"PUT":
            self._send(b"200 OK", b"ETag: " + ETAG.encode() + b"\r\n" + checksums)
        elif method == b"POST" and "uploads" in query:
            self._send(b"200 OK", b"", self._xml("InitiateMultipartUpload", key, "UploadId", "1"))
        elif method == b"POST":
            self._send(
                b"200 OK", checksums, self._xml("CompleteMultipartUpload", key, "ETag", ETAG)
            )
        elif method == b"DELETE":
            self._send(b"204 No Content", b"")
        else:
            self._serve(unquote(key), fields.get(b"range"), has_body=method != b"HEAD")

    @staticmethod
    def _xml(operation: str, key: str, field: str, value: str) -> bytes:
        return (
            f'<{operation}Result xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Bucket>bench</Bucket>'
            f"<Key>{key}</Key><{field}>{value}</{field}></{operation}Result>"
        ).encode()

    def _send(self, status: bytes, lines: bytes, body: bytes = b"") -> None:
        length = b"" if status.startswith(b"204") else b"Content-Length: %d\r\n" % len(body)
        self._transport.write(
            b"HTTP/1.1 " + status + b"\r\n" + lines + length + b"x-amz-request-id: 0\r\n\r\n" + body
        )

    def _serve(self, key: str, byte_range: bytes | None, *, has_body: bool) -> None:
        if "busy" in key and key not in self.rejected_keys:
            self.rejected_keys.add(key)
            self._send(b"503 Slow Down", b"Retry-After: 0\r\n")
            return
        match = re.search(r"(\d+)$", key)
        size = int(match[1]) if match else 0
        start, end, status, extra = 0, size, b"200 OK", checksum(size)
        if byte_range is not None:
            first, _, last = byte_range.removeprefix(b"bytes=").partition(b"-")
            start, end = int(first), min(size, int(last or size) + 1)
            status = b"206 Partial Content"
            extra = b"Content-Range: bytes %d-%d/%d\r\n" % (start, end - 1, size)
        self._transport.write(
            b"HTTP/1.1 %s\r\nETag: %s\r\n%s%sContent-Type: binary/octet-stream\r\n"
            b"Accept-Ranges: bytes\r\nContent-Length: %d\r\nx-amz-request-id: 0\r\n\r\n"
            % (status, ETAG.encode(), LAST_MODIFIED, extra, end - start)
        )
        if has_body:
            self._writing = self._zeros(end - start, flipped="flipped" in key)
            self._write_body()

    @staticmethod
    def _zeros(size: int, *, flipped: bool) -> Iterator[memoryview | bytes]:
        if flipped:
            size -= 1
            yield b"\x01"
        while size:
            piece = min(size, MiB // 4)
            size -= piece
            yield ZEROS[:piece]

    def _write_body(self) -> None:
        while not self._paused:
            piece = next(self._writing, None)
            if piece is None:
                return
            self._transport.write(piece)

    def pause_writing(self) -> None:
        """Stop sending the body until the client has read enough."""
        self._paused = True

    def resume_writing(self) -> None:
        """Continue sending the body."""
        self._paused = False
        self._write_body()

    def eof_received(self) -> None:
        """Return None, so that asyncio closes the connection."""


async def main() -> None:
    """Serve until the input ends."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(DiscardingServer, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    input_ended = asyncio.Event()
    loop.add_reader(sys.stdin, input_ended.set)
    await input_ended.wait()
    loop.remove_reader(sys.stdin)
    server.close()


if __name__ == "__main__":
    uvloop.run(main())
