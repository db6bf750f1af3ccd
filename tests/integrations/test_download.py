"""Downloads of replaced objects, from limited backends, to slow or disconnecting clients."""

from __future__ import annotations

import asyncio
import socket
from contextlib import AsyncExitStack, aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tests.fakes import Fake, assert_idle, content, store_of
from tests.integrations.file_service import (
    CLIENTS,
    FRAMEWORKS,
    parse_response,
    request_bytes,
    running_aiohttp,
    running_asgi,
    send_raw,
    send_with_httpx,
    serving,
)
from trove_async import PreconditionFailedError, Trove, UnavailableError
from trove_async.drivers.memory import MemoryDriver
from trove_async.integrations import aiohttp as on_aiohttp
from trove_async.integrations._conditions import entity_tag
from trove_async.integrations._download import serve_object
from trove_async.integrations._headers import Presentation
from trove_async.integrations.starlette import object_response, store_upload
from trove_async.models import MiB
from trove_async.options import PresignOptions, PutOptions

if TYPE_CHECKING:
    from starlette.types import Message

    from trove_async.integrations._response import ServerResponse

BODY = content(3 * MiB + 5)

both_frameworks = pytest.mark.parametrize("framework", FRAMEWORKS)


@pytest.fixture
async def store(store: Trove, fake: Fake) -> Trove:
    """Return the store with the object ``o``."""
    await store.put("files", "o", BODY)
    fake.steps.clear()
    return store


async def respond(store: Trove, method: str = "GET", **headers: str) -> ServerResponse:
    """Return the response to a request, without a framework."""
    return await serve_object(
        store,
        "files",
        "o",
        method,
        lambda name: headers.get(name.replace("-", "_")),
        presentation=Presentation(),
        redirect="never",
    )


async def body_of(response: ServerResponse) -> bytes:
    if response.stream is None:
        return response.content
    async with aclosing(response.stream):
        return b"".join([chunk async for chunk in response.stream])


def backend_requests(fake: Fake) -> list[str]:
    """Return the requests that the backend received."""
    return [step for step in fake.steps if step in {"get", "head"}]


@pytest.mark.parametrize(
    ("headers", "requests"),
    [
        ({}, ["get"]),
        ({"range": "bytes=5-9"}, ["get"]),
        ({"range": "bytes=-9", "if_range": "MATCHES"}, ["get"]),
        ({"if_match": "MATCHES"}, ["get"]),
        ({"if_none_match": "MATCHES"}, ["head"]),
        ({"if_none_match": '"x"'}, ["head", "get"]),
        ({"range": "bytes=0-9", "if_range": '"x"'}, ["get", "get"]),
        ({"range": "bytes=99999999-"}, ["get", "head"]),
        ({"range": "bytes=0-9,99-109"}, ["head", "get", "get"]),
    ],
    ids=str,
)
async def test_backend_receives_the_minimum_number_of_requests(
    store: Trove, fake: Fake, headers: dict[str, str], requests: list[str]
) -> None:
    tag = entity_tag(str((await store.head("files", "o")).etag))
    fake.steps.clear()
    resolved = {name: tag if value == "MATCHES" else value for name, value in headers.items()}
    await body_of(await respond(store, **resolved))
    assert backend_requests(fake) == requests


async def test_only_the_requested_range_is_fetched() -> None:
    ranges = []

    class RangeRecordingFake(Fake):
        def get(self, bucket: str, key: str, options: Any) -> Any:
            ranges.append(options.range)
            return super().get(bucket, key, options)

    async with store_of(RangeRecordingFake()) as store:
        await store.create_bucket("files")
        await store.put("files", "o", BODY)
        body = await body_of(await respond(store, range=f"bytes=1000-{2 * MiB}"))
        assert body == BODY[1000 : 2 * MiB + 1]
        await body_of(await respond(store, range="bytes=0-9,5000-5009", if_range="never"))
        await body_of(await respond(store, range="bytes=0-9,5000-5009"))
    assert [byte_range and (byte_range.start, byte_range.end) for byte_range in ranges] == [
        (1000, 2 * MiB + 1),
        None,  # If-Range does not match
        (0, 10),
        (5000, 5010),
    ]


async def test_object_replaced_after_condition_check_is_checked_again(
    store: Trove, fake: Fake
) -> None:
    info = await store.head("files", "o")

    async def replace_object() -> None:
        del fake.before["get"]
        await store.put("files", "o", b"another")

    fake.before["get"] = replace_object
    response = await respond(store, if_none_match='"x"', range="bytes=1000-1009")
    assert response.status == 416  # for the new object; no bytes of the old one are mixed in
    assert response.headers["Content-Range"] == "bytes */7"
    assert entity_tag(str(info.etag)) != (await respond(store, "HEAD")).headers["ETag"]


async def test_object_replaced_on_every_attempt_is_unavailable(store: Trove, fake: Fake) -> None:
    async def replace_object() -> None:
        await store.put("files", "o", BODY)

    fake.before["get"] = replace_object
    with pytest.raises(UnavailableError):
        await respond(store, if_none_match='"x"')


@pytest.mark.parametrize("missing_feature", ["ranges", "get_conditions"])
@both_frameworks
async def test_backend_without_ranges_or_conditions_is_served(
    framework: str, missing_feature: str
) -> None:
    async with store_of(Fake(**{missing_feature: False})) as store:
        await store.create_bucket("files")
        info = await store.put("files", "o", BODY)
        tag = entity_tag(str(info.etag))
        async with serving(framework, store) as service:
            for headers in (
                {"Range": "bytes=0-9"},
                {"Range": "bytes=0-9", "If-None-Match": '"x"'},
                {"Range": "bytes=0-9,500-509", "If-Match": tag},
                {"Range": "bytes=0-9,500-509", "If-None-Match": '"x"'},
            ):
                response = await send_with_httpx(
                    service.url("o"), "GET", list(headers.items()), None
                )
                if missing_feature == "ranges":
                    assert (response.status, response.body) == (200, BODY)
                    assert "content-range" not in response.headers
                else:
                    assert response.status == 206
                    assert BODY[:10] in response.body
                assert response.headers["etag"] == tag


async def test_version_is_checked_if_backend_cannot_pin_it() -> None:
    fake = Fake(get_conditions=False)
    async with store_of(fake) as store:
        await store.create_bucket("files")
        await store.put("files", "o", BODY)

        async def replace_object() -> None:
            del fake.before["get"]
            await store.put("files", "o", b"another")

        fake.before["get"] = replace_object
        response = await respond(store, if_none_match='"x"')
        assert await body_of(response) == b"another"
        assert_idle(store, fake)


@pytest.mark.parametrize(
    ("range", "status", "content_range", "body"),
    [
        ("bytes=3-9", 206, "bytes 3-6/7", b"ther"),  # clipped at the new end
        ("bytes=-9", 206, "bytes 0-6/7", b"another"),
        ("bytes=100-109", 416, "bytes */7", None),
        ("bytes=0-1,100-109", 206, "bytes 0-1/7", b"an"),
    ],
)
@pytest.mark.parametrize("can_pin", [True, False])
async def test_range_of_object_replaced_by_a_shorter_one_applies_to_the_new_one(
    can_pin: bool,  # noqa: FBT001 - a parameter
    range: str,
    status: int,
    content_range: str,
    body: bytes | None,
) -> None:
    fake = Fake(get_conditions=can_pin)
    async with store_of(fake) as store:
        await store.create_bucket("files")
        await store.put("files", "o", BODY)

        async def replace_object() -> None:
            del fake.before["get"]
            await store.put("files", "o", b"another")

        fake.before["get"] = replace_object
        response = await respond(store, range=range, if_none_match='"x"')
        assert (response.status, response.headers["Content-Range"]) == (status, content_range)
        if body is not None:
            assert await body_of(response) == body
        assert_idle(store, fake)


async def test_parts_of_two_versions_are_never_mixed() -> None:
    # The backend cannot pin a version, and the object is replaced before the second part is opened.
    fake = Fake(get_conditions=False)
    async with store_of(fake) as store:
        await store.create_bucket("files")
        await store.put("files", "o", BODY)
        response = await respond(store, range="bytes=0-9,5000-5009")
        assert (response.status, response.stream is None) == (206, False)
        await store.put("files", "o", content(5005, "other"))
        with pytest.raises(PreconditionFailedError):
            await body_of(response)
        assert_idle(store, fake)


@both_frameworks
async def test_response_uses_the_options_of_the_service(framework: str, store: Trove) -> None:
    options = {"download_name": "Übersicht.pdf", "cache_control": "private"}
    async with serving(framework, store, downloads=options) as service:
        for name, send in CLIENTS.items():
            response = await send(service.url("o"), "GET", [("Range", "bytes=0-1")], None)
            assert response.headers["content-disposition"] == (
                "attachment; filename=\"_bersicht.pdf\"; filename*=UTF-8''%C3%9Cbersicht.pdf"
            ), name
            assert response.headers["cache-control"] == "private"


class PresigningDriver(MemoryDriver):
    """A memory driver with presigned URLs."""

    def __init__(self) -> None:
        super().__init__()
        self._capabilities = replace(self._capabilities, presign=True)

    async def presign(
        self, method: str, bucket: str, key: str, expires: float, options: PresignOptions
    ) -> str:
        assert options == PresignOptions()
        return f"http://elsewhere/{bucket}/{key}?{method}&{expires:.0f}"


@both_frameworks
async def test_redirect_sends_get_to_presigned_url(framework: str) -> None:
    for driver, status in ((PresigningDriver(), 307), (MemoryDriver(), 200)):
        async with Trove(driver) as store:
            await store.create_bucket("files")
            await store.put("files", "o", b"body")
            async with serving(framework, store, downloads={"redirect": "presign"}) as service:
                response = await send_with_httpx(service.url("o"), "GET", [], None)
                assert response.status == status
                if status == 307:
                    assert response.headers["location"] == "http://elsewhere/files/o?GET&300"
                    assert response.headers["cache-control"] == "no-store"
                assert (await send_with_httpx(service.url("o"), "HEAD", [], None)).status == 200


@both_frameworks
async def test_object_with_unsendable_headers_is_served(
    framework: str, store: Trove, fake: Fake
) -> None:
    stored = 'attachment; filename="日本.txt"'
    # The store rejects such a type, but another tool may have stored it.
    options = PutOptions(content_type="a/b; c=\x01", content_disposition=stored)
    await fake.put("files", "o", [memoryview(BODY)], options)
    async with serving(framework, store) as service:
        response = await send_with_httpx(service.url("o"), "GET", [], None)
    assert (response.status, response.body) == (200, BODY)
    assert response.headers["content-type"] == "application/octet-stream"
    assert response.headers["content-disposition"] == (
        "attachment; filename=\"__.txt\"; filename*=UTF-8''%E6%97%A5%E6%9C%AC.txt"
    )


async def test_background_tasks_run_after_any_response(store: Trove) -> None:
    await store.put("files", "small", b"x")
    finished: list[str] = []

    async def endpoint(request: Request) -> Response:
        key = request.path_params["key"]
        if request.method == "PUT":
            response: Response = await store_upload(store, "files", key, request, max_size=1)
        else:
            response = await object_response(store, "files", key, request)
        response.background = BackgroundTask(
            finished.append, f"{request.method} {key} {response.status_code}"
        )
        return response

    app = Starlette(routes=[Route("/{key}", endpoint, methods=["GET", "PUT"])])
    async with running_asgi(app) as port:
        await send_with_httpx(f"http://127.0.0.1:{port}/o", "GET", [], None)
        await send_with_httpx(f"http://127.0.0.1:{port}/small", "GET", [], None)
        await send_with_httpx(f"http://127.0.0.1:{port}/p", "PUT", [], b"xx")
    # A client may send its next request before the background task of the last response has run.
    assert sorted(finished) == ["GET o 200", "GET small 200", "PUT p 413"]


@both_frameworks
async def test_trusted_page_is_sent_inline(framework: str) -> None:
    async with Trove(MemoryDriver()) as store:
        await store.create_bucket("files")
        await store.put("files", "p.html", b"<p>")
        async with serving(framework, store, downloads={"trusted": True}) as service:
            response = await send_with_httpx(service.url("p.html"), "GET", [], None)
            assert response.headers["content-type"] == "text/html"
            assert "content-disposition" not in response.headers


# -- disconnecting and slow clients ----------------------------------------------------------------


@both_frameworks
async def test_disconnect_midway_closes_the_reader(
    framework: str, store: Trove, fake: Fake
) -> None:
    reader_closed = asyncio.Event()

    async def on_exit() -> None:
        reader_closed.set()

    fake.before["get.exit"] = on_exit
    await store.put("files", "o", content(64 * MiB))  # more than socket buffers hold
    async with serving(framework, store) as service:
        reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
        writer.write(request_bytes("GET", "/files/o"))
        assert await reader.readexactly(1000)
        assert not reader_closed.is_set()
        assert fake.open_readers == 1
        writer.transport.abort()
        await reader_closed.wait()


@both_frameworks
async def test_disconnect_cancels_a_hanging_read(
    framework: str, store: Trove, fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(on_aiohttp, "WATCH", 0.01)
    reader_closed = asyncio.Event()

    async def on_exit() -> None:
        reader_closed.set()

    read_started = fake.hang("read")
    fake.before["get.exit"] = on_exit
    async with serving(framework, store) as service:
        _, writer = await asyncio.open_connection("127.0.0.1", service.port)
        writer.write(request_bytes("GET", "/files/o"))
        await read_started.wait()
        writer.transport.abort()
        await reader_closed.wait()


async def test_send_error_after_disconnect_closes_the_reader(store: Trove, fake: Fake) -> None:
    sent: list[str] = []

    async def send(message: Message) -> None:
        sent.append(message["type"])
        if len(sent) == 3:
            raise OSError("the client disconnected")

    async def receive() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    scope = {"type": "http", "method": "GET", "path": "/files/o", "headers": []}
    response = await object_response(store, "files", "o", Request(scope))
    assert fake.open_readers == 1
    await response(scope, receive, send)
    assert sent == ["http.response.start", *["http.response.body"] * 2]
    assert fake.open_readers == 0


@both_frameworks
async def test_failed_body_is_truncated(framework: str, store: Trove, fake: Fake) -> None:
    async def break_later() -> None:
        if fake.count("read") > 3:
            raise UnavailableError("broken")

    fake.before["read"] = break_later
    async with serving(framework, store) as service:
        head, _, body = (await send_raw(service.port, request_bytes("GET", "/files/o"))).partition(
            b"\r\n\r\n"
        )
        assert b" 200 " in head
        assert f"content-length: {len(BODY)}".encode() in head.lower()
        assert 0 < len(body) < len(BODY)
        assert BODY.startswith(body)
        response = parse_response(
            await send_raw(service.port, request_bytes("HEAD", "/files/o")), "HEAD"
        )
        assert response.status == 200  # the service still works


@both_frameworks
async def test_slow_clients_do_not_block_others(framework: str, store: Trove, fake: Fake) -> None:
    count = 200
    await store.put("files", "large", content(64 * MiB))  # more than socket buffers hold
    all_reading = asyncio.Event()

    async def reading() -> None:
        if fake.open_readers == count:
            all_reading.set()

    fake.before["read"] = reading
    async with AsyncExitStack() as stack:
        service = await stack.enter_async_context(serving(framework, store))
        for _ in range(count):
            stalled = socket.socket()
            stack.callback(stalled.close)
            stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            stalled.setblocking(False)  # noqa: FBT003 - socket's own argument
            loop = asyncio.get_running_loop()
            await loop.sock_connect(stalled, ("127.0.0.1", service.port))
            await loop.sock_sendall(stalled, request_bytes("GET", "/files/large"))
        await all_reading.wait()
        response = await send_with_httpx(service.url("o"), "GET", [], None)
        assert response.body == BODY
        assert fake.open_readers == count  # no object was read to its end for a stalled client


@both_frameworks
async def test_unsent_response_can_be_closed(framework: str) -> None:
    fake = Fake()
    async with store_of(fake) as store:
        await store.create_bucket("files")
        await store.put("files", "o", bytes(1_000_000))
        open_readers = []

        async def starlette(request: Request) -> Response:
            response = await object_response(store, "files", "o", request)
            await response.aclose()
            open_readers.append(fake.open_readers)
            return Response("instead")

        async def aiohttp(request: web.Request) -> web.Response:
            response = await on_aiohttp.object_response(store, "files", "o", request)
            await response.aclose()
            open_readers.append(fake.open_readers)
            return web.Response(text="instead")

        app = web.Application()
        app.router.add_get("/", aiohttp)
        running = (
            running_aiohttp(app)
            if framework == "aiohttp"
            else running_asgi(Starlette(routes=[Route("/", starlette)]))
        )
        async with running as port:
            response = await send_with_httpx(f"http://127.0.0.1:{port}/", "GET", [], None)
        assert (response.body, open_readers) == (b"instead", [0])
