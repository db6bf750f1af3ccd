"""Stores that open and close with an app."""

from __future__ import annotations

from contextlib import asynccontextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any

import pytest
from aiohttp import web
from fastapi import Depends, FastAPI, Request, Response
from starlette.applications import Starlette
from starlette.routing import Mount, Route

from tests.integrations.file_service import (
    FRAMEWORKS,
    running_aiohttp,
    running_asgi,
    send_with_httpx,
)
from trove_async import Trove, TroveError, errors
from trove_async.drivers import LocalDriver, MemoryDriver
from trove_async.integrations import aiohttp as on_aiohttp
from trove_async.integrations import starlette as on_starlette

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from pathlib import Path

both_frameworks = pytest.mark.parametrize("framework", FRAMEWORKS)

Store = Annotated[Trove, Depends(on_starlette.get_store)]


async def test_fastapi_service_opens_and_closes_its_store() -> None:
    store = Trove(MemoryDriver())
    app = FastAPI(lifespan=on_starlette.lifespan(store))
    app.add_exception_handler(TroveError, on_starlette.error_handler)

    @app.api_route("/{key:path}", methods=["GET", "HEAD"])
    async def download(key: str, request: Request, store: Store) -> Response:
        return await on_starlette.object_response(store, "files", key, request)

    @app.put("/{key:path}")
    async def upload(key: str, request: Request, store: Store) -> Response:
        await store.create_bucket("files", exist_ok=True)
        return await on_starlette.store_upload(store, "files", key, request, max_size=100)

    async with running_asgi(app) as port:
        url = f"http://127.0.0.1:{port}/a"
        assert (await send_with_httpx(url, "PUT", [], b"body")).status == 201
        assert (await send_with_httpx(url, "GET", [], None)).body == b"body"
        assert (await send_with_httpx(url + "b", "HEAD", [], None)).status == 404
    with pytest.raises(errors.ClosedError):
        await store.head("files", "a")


async def test_mounted_app_finds_store_and_factory_creates_one_per_start() -> None:
    created = []

    def make() -> Trove:
        created.append(Trove(MemoryDriver()))
        return created[-1]

    async def buckets(request: Request) -> Response:
        store = on_starlette.get_store(request)
        assert store is created[-1]
        return Response(str(await store.list_buckets()))

    inner = Starlette(routes=[Route("/", buckets)])
    app = Starlette(
        routes=[Route("/", buckets), Mount("/in", inner)], lifespan=on_starlette.lifespan(make)
    )
    for start_count in (1, 2):
        async with running_asgi(app) as port:
            for path in ("/", "/in/"):
                response = await send_with_httpx(f"http://127.0.0.1:{port}{path}", "GET", [], None)
                assert response.body == b"[]"
        assert len(created) == start_count


async def test_aiohttp_app_opens_and_closes_its_store() -> None:
    for store in (Trove(MemoryDriver()), lambda: Trove(MemoryDriver())):

        async def buckets(request: web.Request) -> web.Response:
            buckets = await on_aiohttp.get_store(request).list_buckets()
            return web.Response(text=str(buckets))

        inner = web.Application()
        inner.router.add_get("/", buckets)
        app = web.Application()
        app.cleanup_ctx.append(on_aiohttp.cleanup_ctx(store))
        app.router.add_get("/", buckets)
        app.add_subapp("/in", inner)
        async with running_aiohttp(app) as port:
            for path in ("/", "/in/"):
                response = await send_with_httpx(f"http://127.0.0.1:{port}{path}", "GET", [], None)
                assert response.body == b"[]"
        with pytest.raises(errors.ClosedError):
            await app[on_aiohttp.STORE].list_buckets()


@both_frameworks
async def test_app_creates_its_buckets_and_restarts_with_a_factory(
    framework: str, tmp_path: Path
) -> None:
    """On the second start the bucket already exists."""
    for _ in range(2):
        async with app_running(framework, lambda: Trove(LocalDriver(tmp_path)), ["files"]) as port:
            response = await send_with_httpx(f"http://127.0.0.1:{port}/", "GET", [], None)
            assert response.body == b"files"


def starlette_app(store: Any, buckets: Sequence[str]) -> Starlette:
    async def names(request: Request) -> Response:
        buckets = await on_starlette.get_store(request).list_buckets()
        return Response(",".join(bucket.name for bucket in buckets))

    context = on_starlette.lifespan(store, buckets=buckets)
    return Starlette(routes=[Route("/", names)], lifespan=context)


@asynccontextmanager
async def app_running(framework: str, store: Any, buckets: Sequence[str]) -> AsyncIterator[int]:
    async def names(request: web.Request) -> web.Response:
        buckets = await on_aiohttp.get_store(request).list_buckets()
        return web.Response(text=",".join(bucket.name for bucket in buckets))

    app = web.Application()
    app.router.add_get("/", names)
    app.cleanup_ctx.append(on_aiohttp.cleanup_ctx(store, buckets=buckets))
    running = (
        running_aiohttp(app)
        if framework == "aiohttp"
        else running_asgi(starlette_app(store, buckets))
    )
    async with running as port:
        yield port


@pytest.fixture
def client_of(recwarn: pytest.WarningsRecorder) -> Callable[[Starlette], Any]:
    """Return Starlette's TestClient without its import warnings: newer versions prefer another httpx."""
    module = import_module("starlette.testclient")
    recwarn.clear()
    client: Callable[[Starlette], Any] = module.TestClient
    return client


def test_app_can_start_twice_but_has_no_store_between(
    client_of: Callable[[Starlette], Any],
) -> None:
    app = starlette_app(lambda: Trove(MemoryDriver()), ["files"])
    for _ in range(2):
        with client_of(app) as client:
            assert client.get("/").text == "files"
        with pytest.raises(RuntimeError, match=r"its lifespan has not run.*with TestClient"):
            client_of(app).get("/")


def test_lifespan_of_mounted_app_that_has_not_run_is_reported(
    client_of: Callable[[Starlette], Any],
) -> None:
    outer = Starlette(routes=[Mount("/in", starlette_app(Trove(MemoryDriver()), ["files"]))])
    with client_of(outer) as client, pytest.raises(RuntimeError, match="the outer one"):
        client.get("/in/")


@pytest.mark.parametrize("state", ["open", "closed"])
async def test_store_opened_before_raises_and_suggests_a_function(state: str) -> None:
    store = await Trove(MemoryDriver()).__aenter__()
    if state == "closed":
        await store.aclose()
    app = web.Application()
    for context, hook in (
        (on_starlette.lifespan(store)(Starlette()), "lifespan"),
        (asynccontextmanager(on_aiohttp.cleanup_ctx(store))(app), "cleanup_ctx"),
    ):
        with pytest.raises(errors.ClosedError, match=rf"opened once.*{hook}\(lambda: Trove"):
            await context.__aenter__()
    await store.aclose()


@both_frameworks
async def test_wrong_arguments_raise_type_error(framework: str) -> None:
    async def make() -> Trove:
        return Trove(MemoryDriver())

    created = make()
    store: Any = lambda: created  # noqa: E731 - like an async function that returns a store
    context = (
        on_starlette.lifespan(store)(Starlette())
        if framework == "starlette"
        else asynccontextmanager(on_aiohttp.cleanup_ctx(store))(web.Application())
    )
    with pytest.raises(TypeError, match="a function that returns one, got <coroutine"):
        await context.__aenter__()
    created.close()
    not_a_store: Any = "local://./objects"
    with pytest.raises(TypeError, match="a function that returns one, got 'local:"):
        async with on_starlette.lifespan(not_a_store)(Starlette()):
            pass
    for hook in (on_starlette.lifespan, on_aiohttp.cleanup_ctx):
        with pytest.raises(TypeError, match=r"\['files'\]"):
            hook(Trove(MemoryDriver()), buckets="files")


async def test_app_without_store_raises() -> None:
    with pytest.raises(RuntimeError, match="lifespan"):
        on_starlette.get_store(Request({"type": "http", "app": Starlette(), "state": {}}))
    app = web.Application()

    async def check(request: web.Request) -> web.Response:
        with pytest.raises(RuntimeError, match="cleanup_ctx"):
            on_aiohttp.get_store(request)
        return web.Response()

    app.router.add_get("/", check)
    async with running_aiohttp(app) as port:
        assert (await send_with_httpx(f"http://127.0.0.1:{port}/", "GET", [], None)).status == 200
