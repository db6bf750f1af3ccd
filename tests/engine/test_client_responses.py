"""Responses of HTTP clients and objects of web frameworks, passed as a body."""

from __future__ import annotations

import io
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
import httpx
import pytest
import requests
import urllib3
from aiohttp import web
from starlette.requests import Request

from tests.fakes import Fake, content, store_of
from trove_async.models import MiB

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trove_async import Trove

BODY = content(MiB + 9)


@asynccontextmanager
async def serving(handler: Any) -> AsyncIterator[str]:
    app = web.Application(client_max_size=8 * MiB)
    app.router.add_route("*", "/", handler)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/"
    finally:
        await runner.cleanup()


async def respond(_: web.Request) -> web.Response:
    return web.Response(body=BODY)


async def send_request(handler: Any, data: Any) -> None:
    """Send a request to a new server with this handler."""
    async with (
        serving(handler) as url,
        aiohttp.ClientSession() as session,
        session.post(url, data=data) as response,
    ):
        response.raise_for_status()


async def assert_rejected(store: Trove, fake: Fake, response: Any, message: str) -> None:
    fake.steps.clear()
    with pytest.raises(TypeError, match=message):
        await store.put("bucket", "key", response)
    assert fake.steps == []


async def test_response_of_httpx_is_rejected_and_its_chunks_are_accepted() -> None:
    fake = Fake()
    async with store_of(fake) as store, serving(respond) as url, httpx.AsyncClient() as client:
        async with client.stream("GET", url) as response:
            await assert_rejected(store, fake, response, r"response\.aiter_bytes\(\)")
            await store.put("bucket", "key", response.aiter_bytes())
        assert await store.read("bucket", "key") == BODY
        await assert_rejected(store, fake, await client.get(url), r"response\.content")


async def test_response_of_aiohttp_is_rejected_and_its_stream_is_accepted() -> None:
    fake = Fake()
    async with store_of(fake) as store, serving(respond) as url, aiohttp.ClientSession() as session:
        async with session.get(url) as response:
            await assert_rejected(store, fake, response, r"response\.content")
            await store.put("bucket", "key", response.content)
        assert await store.read("bucket", "key") == BODY


async def test_request_of_aiohttp_is_rejected_and_its_stream_is_accepted() -> None:
    fake = Fake()
    async with store_of(fake) as store:

        async def handler(request: web.Request) -> web.Response:
            await assert_rejected(store, fake, request, r"request\.content")
            await store.put("bucket", "key", request.content)
            return web.Response()

        await send_request(handler, io.BytesIO(BODY))
        assert await store.read("bucket", "key") == BODY


async def test_part_of_an_aiohttp_form_is_rejected_and_its_chunks_are_accepted() -> None:
    fake = Fake()

    async def chunks(part: aiohttp.BodyPartReader) -> AsyncIterator[bytes]:
        while chunk := await part.read_chunk():
            yield chunk

    async with store_of(fake) as store:

        async def handler(request: web.Request) -> web.Response:
            form = await request.multipart()
            await assert_rejected(store, fake, form, r"part\.read_chunk\(\)")
            part = await form.next()
            assert isinstance(part, aiohttp.BodyPartReader)
            await assert_rejected(store, fake, part, r"part\.read_chunk\(\)")
            await store.put("bucket", "key", chunks(part))
            return web.Response()

        data = aiohttp.FormData()
        data.add_field("file", io.BytesIO(BODY), filename="body")
        await send_request(handler, data)
        assert await store.read("bucket", "key") == BODY


async def test_file_of_an_aiohttp_form_is_rejected_and_its_file_is_accepted() -> None:
    fake = Fake()
    async with store_of(fake) as store:

        async def handler(request: web.Request) -> web.Response:
            field = (await request.post())["file"]
            assert isinstance(field, web.FileField)
            await assert_rejected(store, fake, field, r"\.file")
            await store.put("bucket", "key", field.file)
            return web.Response()

        data = aiohttp.FormData()
        data.add_field("file", io.BytesIO(BODY), filename="body")
        await send_request(handler, data)
        assert await store.read("bucket", "key") == BODY


async def test_response_of_requests_is_rejected_and_its_chunks_are_accepted() -> None:
    fake = Fake()
    async with store_of(fake) as store:
        response = requests.Response()
        response.raw = io.BytesIO(BODY)
        await assert_rejected(store, fake, response, r"response\.iter_content\(1024 \* 1024\)")
        await store.put("bucket", "key", response.iter_content(1024 * 1024))
        assert await store.read("bucket", "key") == BODY


async def test_response_of_urllib3_is_rejected_and_its_chunks_are_accepted() -> None:
    fake = Fake()
    async with store_of(fake) as store:
        for preload in (False, True):
            response = urllib3.HTTPResponse(io.BytesIO(BODY), preload_content=preload)
            await assert_rejected(store, fake, response, r"response\.stream\(1024 \* 1024\)")
            await store.put("bucket", "key", response.data if preload else response.stream(MiB))
            assert await store.read("bucket", "key") == BODY


async def test_request_of_starlette_is_rejected_and_its_stream_is_accepted() -> None:
    fake = Fake()

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": BODY, "more_body": False}

    async with store_of(fake) as store:
        request = Request({"type": "http", "method": "PUT", "headers": []}, receive)
        await assert_rejected(store, fake, request, r"request\.stream\(\)")
        await store.put("bucket", "key", request.stream())
        assert await store.read("bucket", "key") == BODY


async def test_subclass_of_a_response_is_rejected_too() -> None:
    class CustomResponse(httpx.Response):
        pass

    fake = Fake()
    async with store_of(fake) as store:
        await assert_rejected(
            store, fake, CustomResponse(200, content=BODY), "httpx's CustomResponse"
        )


async def test_object_with_the_methods_of_a_response_is_rejected() -> None:
    class ResponseLike:
        def aiter_bytes(self) -> None: ...

    class ReadWithoutSize:
        def read(self) -> bytes:
            return BODY

    class AsyncReadWithoutSize:
        async def read(self, *, decode: bool = False) -> bytes:
            return BODY if decode else b""

    fake = Fake()
    async with store_of(fake) as store:
        await assert_rejected(store, fake, ResponseLike(), r"aiter_bytes\(\)")
        await assert_rejected(store, fake, ReadWithoutSize(), "ReadWithoutSize.read does not")
        await assert_rejected(
            store, fake, AsyncReadWithoutSize(), "AsyncReadWithoutSize.read does not"
        )
