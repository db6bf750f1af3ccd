"""Downloads of local objects from aiohttp, which the kernel sends from the file."""

from __future__ import annotations

import asyncio
import os
import ssl
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from tests.fakes import content
from tests.integrations.file_service import (
    curl,
    parse_response,
    request_bytes,
    running_aiohttp,
    send_raw,
    send_with_httpx,
    serving,
)
from trove_async import Scope, Trove
from trove_async.drivers import LocalDriver
from trove_async.integrations import aiohttp as on_aiohttp
from trove_async.integrations._response import BodyStream
from trove_async.layers import Mapped
from trove_async.middlewares import Compression
from trove_async.models import KiB, MiB

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

BODY = content(6 * MiB + 5)
LARGE = content(32 * MiB)  # more than the buffers of two sockets hold


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Trove]:
    async with Trove(LocalDriver(tmp_path, fsync=False)) as store:
        await store.create_bucket("files")
        await store.put("files", "o", BODY)
        await store.put("files", "large", LARGE)
        yield store


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Return a list of the ranges that `loop.sendfile` has sent, as offset and size."""
    ranges: list[tuple[int, int]] = []
    real = asyncio.BaseEventLoop.sendfile

    async def sendfile(
        self: asyncio.BaseEventLoop,
        transport: Any,
        file: Any,
        offset: int,
        count: int,
        **options: Any,
    ) -> int:
        ranges.append((offset, count))
        return await real(self, transport, file, offset, count, **options)

    monkeypatch.setattr(asyncio.BaseEventLoop, "sendfile", sendfile)
    return ranges


def open_objects(root: Path) -> list[str]:
    """Return the paths of the object files that this process has open, also of replaced objects."""
    paths = []
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # the descriptor of this listing
            paths.append(str(entry.readlink()))
    return [path for path in paths if path.startswith(f"{root}/files/")]


async def test_whole_object_is_sent_from_its_file_except_for_the_end(
    store: Trove, sent: list[tuple[int, int]], tmp_path: Path
) -> None:
    async with serving("aiohttp", store) as service:
        response = await send_with_httpx(service.url("o"), "GET", [], None)
        assert (response.status, response.body) == (200, BODY)
        assert response.headers["content-length"] == str(len(BODY))
        # The last chunk is read, which verifies the body.
        assert sent == [(0, MiB), (MiB, 4 * MiB), (5 * MiB, MiB + 5 - 64 * KiB)]
        response = await send_with_httpx(service.url("large"), "GET", [], None)
        assert response.body == LARGE
        assert sum(size for _, size in sent[3:]) < len(LARGE)
        assert open_objects(tmp_path) == []


async def test_one_range_is_sent_from_the_file_and_several_are_not(
    store: Trove, sent: list[tuple[int, int]]
) -> None:
    async with serving("aiohttp", store) as service:
        headers = [("Range", f"bytes=100-{3 * MiB}")]
        response = await send_with_httpx(service.url("o"), "GET", headers, None)
        assert (response.status, response.body) == (206, BODY[100 : 3 * MiB + 1])
        assert sent[0] == (100, MiB)
        sent.clear()
        headers = [("Range", f"bytes=0-{2 * MiB},{3 * MiB}-{5 * MiB}")]
        response = await send_with_httpx(service.url("o"), "GET", headers, None)
        assert response.status == 206
        assert BODY[: 2 * MiB + 1] in response.body
        response = await send_with_httpx(service.url("o"), "HEAD", [], None)
        assert response.status == 200
        assert sent == []


async def test_connection_serves_another_request_after_a_file(store: Trove) -> None:
    async with serving("aiohttp", store) as service:
        reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
        for _ in range(3):
            writer.write(b"GET /files/o HTTP/1.1\r\nHost: x\r\n\r\n")
            head = await reader.readuntil(b"\r\n\r\n")
            assert b" 200 " in head
            assert await reader.readexactly(len(BODY)) == BODY
        writer.close()
        await writer.wait_closed()


async def test_access_log_counts_the_bytes_of_the_file(store: Trove) -> None:
    sizes = []

    async def endpoint(request: web.Request) -> web.StreamResponse:
        response = await on_aiohttp.object_response(store, "files", "o", request)
        await response.prepare(request)
        sizes.append(response.body_length)
        return response

    app = web.Application()
    app.router.add_get("/", endpoint)
    async with running_aiohttp(app) as port:
        await send_with_httpx(f"http://127.0.0.1:{port}/", "GET", [], None)
    assert len(BODY) < sizes[0] < len(BODY) + 2000


async def test_file_with_wrong_bytes_is_not_sent_to_its_end(store: Trove, tmp_path: Path) -> None:
    path = tmp_path / "files" / "o"
    status = path.stat()
    with path.open("r+b") as file:
        file.seek(3 * MiB)
        file.write(b"!" if BODY[3 * MiB] != ord("!") else b"?")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    async with serving("aiohttp", store) as service:
        received = await send_raw(service.port, request_bytes("GET", "/files/o"))
        head, _, body = received.partition(b"\r\n\r\n")
        assert f"content-length: {len(BODY)}".encode() in head.lower()
        assert 0 < len(body) < len(BODY)
        assert open_objects(tmp_path) == []


@asynccontextmanager
async def stalled_download(port: int) -> AsyncIterator[asyncio.StreamReader]:
    """Request the large object, and receive the start of its body only."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request_bytes("GET", "/files/large"))
        assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
        yield reader
    finally:
        writer.transport.abort()


async def test_file_truncated_while_it_is_sent_ends_the_response_early(
    store: Trove, tmp_path: Path
) -> None:
    async with (
        serving("aiohttp", store) as service,
        stalled_download(service.port) as reader,
    ):
        os.truncate(tmp_path / "files" / "large", 20 * MiB)
        body = await reader.read()
        assert len(body) <= 20 * MiB
        assert LARGE.startswith(body)


async def test_file_changed_in_place_while_it_is_sent_ends_the_response_early(
    store: Trove, tmp_path: Path
) -> None:
    async with (
        serving("aiohttp", store) as service,
        stalled_download(service.port) as reader,
    ):
        with (tmp_path / "files" / "large").open("r+b") as file:
            file.seek(31 * MiB)
            file.write(b"changed")
        assert len(await reader.read()) < len(LARGE)


async def test_object_replaced_while_it_is_sent_is_the_old_one(store: Trove) -> None:
    async with (
        serving("aiohttp", store) as service,
        stalled_download(service.port) as reader,
    ):
        await store.put("files", "large", content(32 * MiB, "new"))
        await store.delete("files", "large")
        assert await reader.read() == LARGE


async def test_disconnect_of_a_stalled_client_closes_the_file(store: Trove, tmp_path: Path) -> None:
    async with serving("aiohttp", store) as service:
        async with stalled_download(service.port):
            assert len(open_objects(tmp_path)) > 0
        async with asyncio.timeout(30):
            while open_objects(tmp_path):
                await asyncio.sleep(0.01)


async def test_disconnect_before_a_file_is_sent_is_no_error(
    store: Trove,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    transports: list[Any] = []
    can_send_files = on_aiohttp.ObjectResponse._can_send_files
    next_file_span = BodyStream.next_file_span

    def note_transport(self: Any, request: web.BaseRequest) -> bool:
        transports.append(request.transport)
        return can_send_files(self, request)

    async def disconnect_after(self: Any) -> Any:
        span = await next_file_span(self)
        transports[0].abort()
        return span

    monkeypatch.setattr(on_aiohttp.ObjectResponse, "_can_send_files", note_transport)
    monkeypatch.setattr(BodyStream, "next_file_span", disconnect_after)
    async with serving("aiohttp", store) as service:
        with suppress(ConnectionError):
            await send_raw(service.port, request_bytes("GET", "/files/large"))
    assert len(transports) == 1
    assert [record.exc_info for record in caplog.records if record.name == "aiohttp.server"] == []
    assert open_objects(tmp_path) == []


async def test_stalled_clients_hold_no_permits(tmp_path: Path) -> None:
    async with Trove(LocalDriver(tmp_path, fsync=False, max_reads=2)) as store:
        await store.create_bucket("files")
        await store.put("files", "o", BODY)
        await store.put("files", "large", LARGE)
        async with (
            serving("aiohttp", store) as service,
            stalled_download(service.port) as first,
            stalled_download(service.port) as second,
            stalled_download(service.port),
            stalled_download(service.port),
        ):
            response = await send_with_httpx(service.url("o"), "GET", [], None)
            assert response.body == BODY
            assert await first.read() == LARGE
            assert await second.read() == LARGE


@pytest.mark.parametrize("failure", [NotImplementedError, asyncio.SendfileNotAvailableError])
async def test_body_is_written_if_the_loop_cannot_send_files(
    store: Trove, monkeypatch: pytest.MonkeyPatch, failure: type[Exception]
) -> None:
    calls = []

    async def sendfile(*_: Any, **__: Any) -> int:
        calls.append(failure)
        raise failure

    monkeypatch.setattr(asyncio.BaseEventLoop, "sendfile", sendfile)
    async with serving("aiohttp", store) as service:
        response = await send_with_httpx(service.url("large"), "GET", [], None)
    assert (response.body, calls) == (LARGE, [failure])


async def test_body_is_written_over_tls(
    store: Trove, sent: list[tuple[int, int]], tls: tuple[ssl.SSLContext, ssl.SSLContext]
) -> None:
    async def endpoint(request: web.Request) -> web.StreamResponse:
        return await on_aiohttp.object_response(store, "files", "o", request)

    app = web.Application()
    app.router.add_get("/", endpoint)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls[0]).start()
        received = await curl(
            "--insecure", "--include", f"https://127.0.0.1:{runner.addresses[0][1]}/"
        )
    finally:
        await runner.cleanup()
    assert parse_response(received).body == BODY
    assert sent == []


async def test_compressed_response_is_not_sent_from_the_file(
    store: Trove, sent: list[tuple[int, int]]
) -> None:
    async def endpoint(request: web.Request) -> web.StreamResponse:
        response = await on_aiohttp.object_response(store, "files", "o", request)
        response.enable_compression()
        return response

    app = web.Application()
    app.router.add_get("/", endpoint)
    async with running_aiohttp(app) as port:
        headers = [("Accept-Encoding", "gzip")]
        response = await send_with_httpx(f"http://127.0.0.1:{port}/", "GET", headers, None)
    assert response.headers["content-encoding"] == "gzip"
    assert response.body == BODY  # httpx has decoded it
    assert sent == []


async def test_encoded_object_is_decoded_and_mapped_one_is_sent_from_its_file(
    tmp_path: Path, sent: list[tuple[int, int]]
) -> None:
    body = bytes(4 * MiB)
    driver = Mapped(LocalDriver(tmp_path, fsync=False), buckets={"files": "physical"})
    compression = (Compression(), Scope.keys("*.txt"))
    async with Trove(driver, middleware=[compression]) as store:
        await store.create_bucket("files")
        await store.put("files", "o.txt", body)
        await store.put("files", "o", body)
        async with serving("aiohttp", store) as service:
            headers = [("Accept-Encoding", "identity")]
            for key, sizes in (("o.txt", []), ("o", [(0, MiB)])):
                response = await send_with_httpx(service.url(key), "GET", headers, None)
                assert response.body == body
                assert sent[:1] == sizes
