"""Uploads through both frameworks: bodies, limits, conditions, disconnecting clients."""

from __future__ import annotations

import asyncio
import gzip
import inspect
import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.fakes import Fake, content
from tests.integrations.file_service import (
    CLIENTS,
    FILE,
    FORM,
    FRAMEWORKS,
    NOTE,
    ClientResponse,
    curl,
    form,
    keys,
    parse_response,
    request_bytes,
    send_raw,
    send_with_httpx,
    serving,
)
from trove_async import ObjectNotFoundError, Trove
from trove_async.integrations import _upload
from trove_async.integrations import aiohttp as on_aiohttp
from trove_async.integrations import starlette as on_starlette
from trove_async.integrations._conditions import entity_tag
from trove_async.models import MiB

if TYPE_CHECKING:
    from pathlib import Path

BODY = content(3 * MiB + 5)

both_frameworks = pytest.mark.parametrize("framework", FRAMEWORKS)


@pytest.mark.parametrize("client", CLIENTS)
@both_frameworks
async def test_raw_body_is_stored(framework: str, client: str, store: Trove) -> None:
    async with serving(framework, store) as service:
        for body in (BODY, b"small", b""):
            response = await CLIENTS[client](
                service.url("dir/%C3%BC.bin?x=1"), "PUT", [("Content-Type", "video/mp4")], body
            )
            info = await store.head("files", "dir/ü.bin")
            assert response.status == 201
            assert response.headers["location"] == "/files/dir/%C3%BC.bin"
            assert response.headers["etag"] == entity_tag(str(info.etag))
            assert json.loads(response.body) == {
                "key": "dir/ü.bin",
                "size": len(body),
                "etag": info.etag,
            }
            assert info.content_type == "video/mp4"
            assert await store.read("files", "dir/ü.bin") == body


@both_frameworks
async def test_curl_uploads_raw_and_as_form(framework: str, store: Trove, tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(BODY)  # long enough that curl sends Expect: 100-continue
    async with serving(framework, store) as service:
        out = await curl("--include", "--upload-file", str(path), service.url("a"))
        assert parse_response(out).status == 201
        out = await curl("--include", "--form", f"f=@{path};type=image/png", service.url("b"))
        assert parse_response(out).status == 201
    assert await store.read("files", "a") == await store.read("files", "b") == BODY
    assert (await store.head("files", "b")).content_type == "image/png"


@both_frameworks
async def test_body_of_unknown_length_is_streamed(framework: str, store: Trove) -> None:
    body = chunked(BODY[:1000], BODY[1000:])
    message = request_bytes("PUT", "/files/o", ["Transfer-Encoding: chunked"], body)
    async with serving(framework, store) as service:
        assert parse_response(await send_raw(service.port, message)).status == 201
    assert await store.read("files", "o") == BODY


async def test_content_length_with_transfer_encoding_is_ignored(store: Trove) -> None:
    # The aiohttp server rejects such a request; h11 ignores Content-Length.
    for size in (2, 5000):
        lines = [f"Content-Length: {size}", "Transfer-Encoding: chunked"]
        message = request_bytes("PUT", "/files/o", lines, b"5\r\nhello\r\n0\r\n\r\n")
        async with serving("starlette", store, uploads={"max_size": 1000}) as service:
            assert parse_response(await send_raw(service.port, message)).status == 201
        assert await store.read("files", "o") == b"hello"


@both_frameworks
async def test_content_length_of_raw_body_is_the_put_size(
    framework: str, fake: Fake, store: Trove
) -> None:
    sizes = []

    class RecordingStore(Trove):
        async def put(self, *args: Any, **options: Any) -> Any:
            sizes.append(options["size"])
            return await super().put(*args, **options)

    recording_store = RecordingStore(fake)
    recording_store._core, recording_store._objects = store._core, store._objects
    async with serving(framework, recording_store) as service:
        await send_with_httpx(service.url("o"), "PUT", [], BODY)
        await send_with_httpx(service.url("o"), "POST", [FORM], form((FILE, BODY)))
    assert sizes == [len(BODY), None]


@both_frameworks
async def test_options_of_the_service_override_the_client(framework: str, store: Trove) -> None:
    options = {
        "max_size": None,
        "content_type": "text/plain",
        "metadata": {"by": "me"},
        "cache_control": "no-cache",
        "location": "/elsewhere",
    }
    async with serving(framework, store, uploads=options) as service:
        response = await send_with_httpx(
            service.url("o"), "PUT", [("Content-Type", "text/html")], b"x"
        )
        assert response.headers["location"] == "/elsewhere"
    info = await store.head("files", "o")
    assert (info.content_type, info.metadata, info.cache_control) == (
        "text/plain",
        {"by": "me"},
        "no-cache",
    )


async def test_encoded_body_is_stored_as_the_framework_delivers_it(store: Trove) -> None:
    compressed = gzip.compress(BODY)
    for framework, body, encoding, has_etag in (
        ("starlette", compressed, "gzip", True),
        ("aiohttp", BODY, None, False),  # aiohttp decodes the body
    ):
        async with serving(framework, store) as service:
            response = await send_with_httpx(
                service.url("o"), "PUT", [("Content-Encoding", "gzip")], compressed
            )
        assert response.status == 201
        assert ("etag" in response.headers) is has_etag
        assert await store.read("files", "o") == body
        assert (await store.head("files", "o")).content_encoding == encoding


@pytest.mark.parametrize("encoding", ["compress", "gzip, br", "x-mine"])
@both_frameworks
async def test_encoding_not_decoded_by_frameworks_is_stored(
    framework: str, encoding: str, store: Trove
) -> None:
    async with serving(framework, store) as service:
        response = await send_with_httpx(
            service.url("o"), "PUT", [("Content-Encoding", encoding)], BODY
        )
    info = await store.head("files", "o")
    assert (response.status, response.headers["etag"]) == (201, entity_tag(str(info.etag)))
    assert info.content_encoding == encoding
    assert await store.read("files", "o") == BODY


# -- limits ----------------------------------------------------------------------------------------


def chunked(*pieces: bytes) -> bytes:
    """Return a body in chunks, with its end."""
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


@both_frameworks
async def test_size_limit_is_exact(framework: str, store: Trove) -> None:
    chunked_header = ["Transfer-Encoding: chunked"]
    async with serving(framework, store, uploads={"max_size": 1000}) as service:
        for size, status in ((1000, 201), (1001, 413)):
            body = content(size)
            key = f"o{size}"
            assert (await send_with_httpx(service.url(key), "PUT", [], body)).status == status
            message = request_bytes(
                "PUT", f"/files/{key}", chunked_header, chunked(body[:600], body[600:])
            )
            assert parse_response(await send_raw(service.port, message)).status == status
            message = form((NOTE, b"x" * 500), (FILE, body))
            assert (
                await send_with_httpx(service.url(key), "POST", [FORM], message)
            ).status == status
    assert await keys(store) == ["o1000"]


@both_frameworks
async def test_rejection_reaches_client_that_sends_everything_before_reading(
    framework: str, store: Trove
) -> None:
    # The rejection follows from the length or the first bytes, while the rest is still in flight.
    async with serving(framework, store, uploads={"max_size": 1000}) as service:
        body = content(16 * MiB)
        response = await send_with_httpx(service.url("o"), "PUT", [], body)
        assert response.status == 413
        assert response.headers["connection"] == "close"
        response = await send_with_httpx(service.url("o"), "POST", [FORM], form((FILE, body)))
        assert response.status == 413


@both_frameworks
async def test_connection_is_reused_after_body_was_read(framework: str, store: Trove) -> None:
    rejected = request_bytes("POST", "/files/o", [": ".join(FORM), "Content-Length: 0"])
    rejected = rejected.replace(b"Connection: close\r\n", b"")
    async with serving(framework, store) as service:
        response = await send_raw(service.port, rejected + request_bytes("HEAD", "/files/none"))
    assert response.startswith(b"HTTP/1.1 400 ")
    assert b"HTTP/1.1 404 " in response


@both_frameworks
async def test_body_with_too_large_content_length_is_rejected_before_it_is_sent(
    framework: str, store: Trove, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The body is never sent: its length is enough. The client waits until the server closes.
    monkeypatch.setattr(on_starlette, "LINGER", 0.05)
    message = request_bytes("PUT", "/files/o", ["Content-Length: 1001", "Expect: 100-continue"])
    async with serving(framework, store, uploads={"max_size": 1000}) as service:
        assert parse_response(await send_raw(service.port, message)).status == 413
        huge = f"Content-Length: {_upload.FORM_OVERHEAD + 1001}"
        message = request_bytes("POST", "/files/o", [": ".join(FORM), huge])
        assert parse_response(await send_raw(service.port, message)).status == 413


@both_frameworks
async def test_too_large_chunked_body_is_rejected_while_it_is_received(
    framework: str, fake: Fake, store: Trove
) -> None:
    # The client never stops sending. Beyond the limit, it gets a response and is disconnected.
    async with serving(framework, store, uploads={"max_size": 2 * MiB}) as service:
        reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
        writer.write(request_bytes("PUT", "/files/o", ["Transfer-Encoding: chunked"]))
        piece = b"10000\r\n%s\r\n" % bytes(0x10000)
        response_line = asyncio.ensure_future(reader.readline())  # noqa: TID251 - the client, not us
        while not response_line.done():
            try:
                writer.write(piece)
                await writer.drain()
            except ConnectionError:
                break
            await asyncio.sleep(0)
        assert (await response_line).startswith(b"HTTP/1.1 413 ")
        writer.transport.abort()
    assert await keys(store) == []
    assert fake.open_uploads == 0


@both_frameworks
async def test_client_below_min_rate_gets_408(
    framework: str, store: Trove, fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_upload, "GRACE", 0.05)
    message = request_bytes("PUT", "/files/o", ["Content-Length: 1000"], b"a few bytes")
    async with serving(framework, store, uploads={"max_size": None, "min_rate": 1e4}) as service:
        reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
        writer.write(message)
        assert (await reader.readline()).startswith(b"HTTP/1.1 408 ")
        # A fast client is not rejected. On a busy machine it may stall for longer than 0.05 s.
        monkeypatch.setattr(_upload, "GRACE", 30.0)
        assert (await send_with_httpx(service.url("p"), "PUT", [], BODY)).status == 201
        writer.close()
    assert await keys(store) == ["p"]
    assert fake.open_uploads == 0


def test_min_rate_has_a_default() -> None:
    limits = _upload.Limits(max_size=None)
    assert limits.min_rate is not None
    assert limits.min_rate <= 1000
    for module in (on_starlette, on_aiohttp):
        parameter = inspect.signature(module.store_upload).parameters["min_rate"]
        assert parameter.default == limits.min_rate


@both_frameworks
async def test_stalled_client_gets_408_by_default(
    framework: str, store: Trove, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_upload, "GRACE", 0.05)
    message = request_bytes("PUT", "/files/o", ["Content-Length: 1000"], b"few")
    async with serving(framework, store) as service:
        reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
        writer.write(message)
        assert (await reader.readline()).startswith(b"HTTP/1.1 408 ")
        writer.close()
    assert await keys(store) == []


def test_invalid_limits_are_rejected() -> None:
    with pytest.raises(ValueError, match="max_size"):
        _upload.Limits(max_size=-1)
    with pytest.raises(ValueError, match="min_rate"):
        _upload.Limits(max_size=None, min_rate=0)


@both_frameworks
async def test_content_range_is_rejected(framework: str, store: Trove) -> None:
    async with serving(framework, store) as service:
        response = await send_with_httpx(
            service.url("o"), "PUT", [("Content-Range", "bytes 0-3/1000")], b"part"
        )
        assert response.status == 400
    assert await keys(store) == []


@both_frameworks
async def test_malformed_content_type_is_stored_as_octet_stream(
    framework: str, store: Trove
) -> None:
    async with serving(framework, store) as service:
        for kind in ("text/plain;,text/html", "image/png;a=b,image/svg+xml", "nonsense"):
            await send_with_httpx(service.url("raw"), "PUT", [("Content-Type", kind)], b"x")
            part = FILE.replace("image/png", kind)
            await send_with_httpx(service.url("form"), "POST", [FORM], form((part, b"x")))
            for key in ("raw", "form"):
                info = await store.head("files", key)
                assert info.content_type == "application/octet-stream"


@both_frameworks
async def test_space_after_the_content_type_is_not_stored(framework: str, store: Trove) -> None:
    part = FILE.replace("image/png", "image/png \t")
    async with serving(framework, store) as service:
        response = await send_with_httpx(service.url("o"), "POST", [FORM], form((part, b"x")))
        assert response.status == 201
    assert (await store.head("files", "o")).content_type == "image/png"


# -- conditions ------------------------------------------------------------------------------------


@both_frameworks
async def test_upload_honours_conditions(framework: str, store: Trove) -> None:
    async with serving(framework, store) as service:

        async def put(body: bytes, **headers: str) -> ClientResponse:
            fields = [(name.replace("_", "-"), value) for name, value in headers.items()]
            return await send_with_httpx(service.url("o"), "PUT", fields, body)

        assert (await put(b"0", If_Match="*")).status == 412
        assert (await put(b"1", If_None_Match="*")).status == 201
        assert (await put(b"2", If_None_Match="*")).status == 412
        tag = (await put(b"3")).headers["etag"]
        assert (await put(b"4", If_Match='"x"')).status == 412
        assert (await put(b"5", If_None_Match=tag)).status == 412
        assert (await put(b"6", If_None_Match='"x"')).status == 201
        assert (await put(b"7", If_Match=tag)).status == 412
        assert (await put(b"8", If_Unmodified_Since="Sun, 06 Nov 1994 08:49:37 GMT")).status == 412
        assert (await put(b"9", If_Match="*")).status == 201
        tag = entity_tag(str((await store.head("files", "o")).etag))
        assert (await put(b"10", If_Match=f'"x", {tag}')).status == 201
    assert await store.read("files", "o") == b"10"


@pytest.mark.parametrize("header", ["If-None-Match: *", 'If-None-Match: "x"'])
@both_frameworks
async def test_condition_that_fails_while_the_body_is_sent_returns_412(
    framework: str, header: str, store: Trove
) -> None:
    async with serving(framework, store) as service:
        reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
        head = request_bytes(
            "PUT", "/files/o", ["Content-Length: 4", header, "Expect: 100-continue"]
        )
        writer.write(head)
        assert (await reader.readline()).startswith(b"HTTP/1.1 100 ")  # the condition was checked
        await store.put("files", "o", b"fast")
        writer.write(b"slow")
        assert b" 412 " in await reader.read()
        writer.close()
    assert await store.read("files", "o") == b"fast"


# -- disconnecting clients -------------------------------------------------------------------------


@pytest.mark.parametrize("framing", ["length", "chunked", "form"])
@both_frameworks
async def test_disconnect_midway_leaves_no_object(
    framework: str, framing: str, store: Trove, fake: Fake
) -> None:
    upload_started, rolled_back = asyncio.Event(), asyncio.Event()

    async def sending() -> None:
        upload_started.set()

    async def on_exit() -> None:
        rolled_back.set()

    fake.before["send"] = sending
    fake.before["upload.exit"] = on_exit
    body = content(16 * MiB)
    heads = {
        "length": (["Content-Length: 999999999"], body),
        "chunked": (["Transfer-Encoding: chunked"], b"fffffff\r\n" + body),
        "form": (
            [": ".join(FORM), "Content-Length: 999999999"],
            f"--frontier\r\n{FILE}\r\n\r\n".encode() + body,
        ),
    }
    lines, message = heads[framing]
    async with serving(framework, store) as service:
        _, writer = await asyncio.open_connection("127.0.0.1", service.port)
        writer.write(request_bytes("PUT", "/files/o", lines, message))
        await upload_started.wait()
        assert fake.open_uploads == 1
        writer.transport.abort()
        await rolled_back.wait()
        with pytest.raises(ObjectNotFoundError):
            await store.head("files", "o")
        assert fake.count("commit") == 0


@both_frameworks
async def test_hanging_backend_applies_backpressure(
    framework: str, store: Trove, fake: Fake
) -> None:
    send_started = fake.hang("send")
    async with serving(framework, store) as service:
        _, writer = await asyncio.open_connection("127.0.0.1", service.port)
        writer.write(
            request_bytes("PUT", "/files/o", ["Content-Length: 67108864"], content(64 * MiB))
        )
        await send_started.wait()
        # The pool has two buffers, too few for everything that the client has sent.
        assert writer.transport.get_write_buffer_size() > 0
        assert store.pool.statistics().leased <= 2 * MiB
        writer.transport.abort()
        fake.before.clear()


@both_frameworks
async def test_slow_uploads_do_not_block_fast_ones(framework: str, store: Trove) -> None:
    # More uploads than the pool has buffers. Each has sent a small piece of a large body.
    head = request_bytes("PUT", "/files/slow", [f"Content-Length: {8 * MiB}"], content(100_000))
    async with serving(framework, store) as service:
        writers = []
        for _ in range(20):
            _, writer = await asyncio.open_connection("127.0.0.1", service.port)
            writer.write(head)
            await writer.drain()
            writers.append(writer)
        for number in range(3):
            response = await send_with_httpx(service.url(f"fast{number}"), "PUT", [], BODY)
            assert response.status == 201
        for writer in writers:
            writer.transport.abort()
    assert await keys(store) == ["fast0", "fast1", "fast2"]
