"""Problem documents for errors, and the lifetime of stores in apps."""

from __future__ import annotations

import json
import logging
from contextlib import asynccontextmanager
from importlib import import_module
from inspect import getmembers, isclass
from typing import TYPE_CHECKING, Annotated, Any

import pytest
from aiohttp import web
from fastapi import Depends, FastAPI, Request, Response
from starlette.applications import Starlette
from starlette.routing import Mount, Route

from tests.fakes import Fake, store_of
from tests.integrations.services import (
    FRAMEWORKS,
    ask_httpx,
    running_aiohttp,
    running_asgi,
    serving,
)
from trove_async import Trove, TroveError, UnavailableError, errors
from trove_async.drivers import LocalDriver, MemoryDriver
from trove_async.integrations import aiohttp as on_aiohttp
from trove_async.integrations import starlette as on_starlette
from trove_async.integrations._problem_details import PROBLEMS, problem_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from pathlib import Path

both = pytest.mark.parametrize("framework", FRAMEWORKS)

ERRORS = [cls for _, cls in getmembers(errors, isclass) if issubclass(cls, TroveError)]

STATUSES = {
    400: {"InvalidNameError", "CursorError"},
    403: {"PermissionDeniedError"},
    404: {"NotFoundError", "ObjectNotFoundError", "BucketNotFoundError"},
    409: {
        "AlreadyExistsError",
        "ObjectExistsError",
        "BucketExistsError",
        "BucketNotEmptyError",
        "ObjectChangedError",
    },
    412: {"PreconditionFailedError"},
    416: {"RangeError"},
    500: {
        "TroveError",
        "BackendNotFoundError",
        "PatternError",
        "ConfigError",
        "StreamError",
        "BodyConsumedError",
    },
    501: {"NotSupportedError"},
    502: {"BackendError", "IntegrityError", "UnauthenticatedError"},
    503: {"UnavailableError", "PoolTimeoutError", "ClosedError"},
    504: {"TimedOutError"},
    507: {"StorageFullError"},
}


def test_every_error_has_a_status() -> None:
    assert PROBLEMS.keys() == set(ERRORS)
    told = {status: set[str]() for status in STATUSES}
    for cls in ERRORS:
        told[PROBLEMS[cls].status].add(cls.__name__)
    assert told == STATUSES


async def test_invalid_cursor_is_a_client_error() -> None:
    async with store_of(Fake()) as store:
        for number in range(2):
            await store.put("bucket", f"{number}", b"")
        listing = store.list("bucket", page_size=1)
        await anext(listing.pages())
        for cursor in ("nonsense", "", listing.cursor):
            with pytest.raises(errors.CursorError) as raised:
                await store.list("bucket", prefix="other", cursor=cursor).all()
            assert problem_of(raised.value).status == 400


@pytest.mark.parametrize("cls", ERRORS)
def test_problem_describes_the_error_without_names(
    cls: type[TroveError], caplog: pytest.LogCaptureFixture
) -> None:
    error = cls("at 10.0.0.7", backend="cold", bucket="accounts", key="secret", retry_after=2.2)
    error.__cause__ = OSError("secret too")
    with caplog.at_level(logging.WARNING, "trove_async"):
        answer = problem_of(error)
    told = json.loads(answer.content)
    assert told["status"] == answer.status == PROBLEMS[cls].status
    assert told["title"]
    assert told["detail"]
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.headers["Content-Length"] == str(len(answer.content))
    for secret in (b"10.0.0.7", b"cold", b"accounts", b"secret"):
        assert secret not in answer.content
    assert ("Retry-After" in answer.headers) is (answer.status == 503)
    assert answer.headers.get("Retry-After", "3") == "3"
    # The log has the details that the client does not get. Client errors are not logged.
    assert ("10.0.0.7" in caplog.text) is (answer.status >= 500)


def test_unlisted_subclass_has_the_problem_of_its_base() -> None:
    class TapeError(UnavailableError):
        pass

    answer = problem_of(TapeError("wound up"))
    assert (answer.status, answer.headers["Retry-After"]) == (503, "1")


@both
async def test_errors_become_problem_responses(framework: str) -> None:
    fake = Fake()
    async with store_of(fake) as store:
        await store.create_bucket("files")
        await store.put("files", "o", b"x")
        async with serving(framework, store) as service:
            for error, status in (
                (errors.TimedOutError("late", retryable=False), 504),
                (UnavailableError("busy", retryable=False, retry_after=9), 503),
                (errors.BackendError("odd"), 502),
            ):
                fake.fail("get", error)
                got = await ask_httpx(service.url("o"), "GET", [], None)
                assert got.status == status
                assert got.headers["content-type"] == "application/problem+json"
                assert got.headers.get("retry-after") == ("9" if status == 503 else None)
            fake.fail("put", errors.StorageFullError("full"))
            got = await ask_httpx(service.url("new"), "PUT", [], b"body")
            assert got.status == 507
            got = await ask_httpx(service.url("x%2F..%2Fy"), "PUT", [], b"body")
            assert got.status == 400


# -- the lifetime of the store ---------------------------------------------------------------------


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
        assert (await ask_httpx(url, "PUT", [], b"body")).status == 201
        assert (await ask_httpx(url, "GET", [], None)).body == b"body"
        assert (await ask_httpx(url + "b", "HEAD", [], None)).status == 404
    with pytest.raises(errors.ClosedError):
        await store.head("files", "a")


async def test_mounted_app_finds_store_and_factory_reopens_it() -> None:
    made = []

    def make() -> Trove:
        made.append(Trove(MemoryDriver()))
        return made[-1]

    async def buckets(request: Request) -> Response:
        store = on_starlette.get_store(request)
        assert store is made[-1]
        return Response(str(await store.list_buckets()))

    inner = Starlette(routes=[Route("/", buckets)])
    app = Starlette(
        routes=[Route("/", buckets), Mount("/in", inner)], lifespan=on_starlette.lifespan(make)
    )
    for times in (1, 2):
        async with running_asgi(app) as port:
            for path in ("/", "/in/"):
                got = await ask_httpx(f"http://127.0.0.1:{port}{path}", "GET", [], None)
                assert got.body == b"[]"
        assert len(made) == times


async def test_aiohttp_app_opens_and_closes_its_store() -> None:
    for store in (Trove(MemoryDriver()), lambda: Trove(MemoryDriver())):

        async def buckets(request: web.Request) -> web.Response:
            found = await on_aiohttp.get_store(request).list_buckets()
            return web.Response(text=str(found))

        inner = web.Application()
        inner.router.add_get("/", buckets)
        app = web.Application()
        app.cleanup_ctx.append(on_aiohttp.cleanup_ctx(store))
        app.router.add_get("/", buckets)
        app.add_subapp("/in", inner)
        async with running_aiohttp(app) as port:
            for path in ("/", "/in/"):
                got = await ask_httpx(f"http://127.0.0.1:{port}{path}", "GET", [], None)
                assert got.body == b"[]"
        with pytest.raises(errors.ClosedError):
            await app[on_aiohttp.STORE].list_buckets()


@both
async def test_app_creates_its_buckets_and_restarts_with_a_factory(
    framework: str, tmp_path: Path
) -> None:
    """On the second start the bucket already exists."""
    for _ in range(2):
        async with app_running(framework, lambda: Trove(LocalDriver(tmp_path)), ["files"]) as port:
            got = await ask_httpx(f"http://127.0.0.1:{port}/", "GET", [], None)
            assert got.body == b"files"


def starlette_app(store: Any, buckets: Sequence[str]) -> Starlette:
    async def names(request: Request) -> Response:
        found = await on_starlette.get_store(request).list_buckets()
        return Response(",".join(bucket.name for bucket in found))

    life = on_starlette.lifespan(store, buckets=buckets)
    return Starlette(routes=[Route("/", names)], lifespan=life)


@asynccontextmanager
async def app_running(framework: str, store: Any, buckets: Sequence[str]) -> AsyncIterator[int]:
    async def names(request: web.Request) -> web.Response:
        found = await on_aiohttp.get_store(request).list_buckets()
        return web.Response(text=",".join(bucket.name for bucket in found))

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


def test_app_may_start_twice_and_must_be_started(
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
    for entered, hook in (
        (on_starlette.lifespan(store)(Starlette()), "lifespan"),
        (asynccontextmanager(on_aiohttp.cleanup_ctx(store))(app), "cleanup_ctx"),
    ):
        with pytest.raises(errors.ClosedError, match=rf"opened once.*{hook}\(lambda: Trove"):
            await entered.__aenter__()
    await store.aclose()


@both
async def test_wrong_arguments_raise_type_error(framework: str) -> None:
    async def make() -> Trove:
        return Trove(MemoryDriver())

    made = make()
    store: Any = lambda: made  # noqa: E731 - as a user who forgets that stores need no await
    life = (
        on_starlette.lifespan(store)(Starlette())
        if framework == "starlette"
        else asynccontextmanager(on_aiohttp.cleanup_ctx(store))(web.Application())
    )
    with pytest.raises(TypeError, match="a function that returns one, got <coroutine"):
        await life.__aenter__()
    made.close()
    no_store: Any = "local://./objects"
    with pytest.raises(TypeError, match="a function that returns one, got 'local:"):
        async with on_starlette.lifespan(no_store)(Starlette()):
            pass
    for hook in (on_starlette.lifespan, on_aiohttp.cleanup_ctx):
        with pytest.raises(TypeError, match=r"\['files'\]"):
            hook(Trove(MemoryDriver()), buckets="files")


async def test_app_without_store_raises() -> None:
    with pytest.raises(RuntimeError, match="lifespan"):
        on_starlette.get_store(Request({"type": "http", "app": Starlette(), "state": {}}))
    app = web.Application()

    async def ask(request: web.Request) -> web.Response:
        with pytest.raises(RuntimeError, match="cleanup_ctx"):
            on_aiohttp.get_store(request)
        return web.Response()

    app.router.add_get("/", ask)
    async with running_aiohttp(app) as port:
        assert (await ask_httpx(f"http://127.0.0.1:{port}/", "GET", [], None)).status == 200


@both
async def test_unsent_response_can_be_closed(framework: str) -> None:
    fake = Fake()
    async with store_of(fake) as store:
        await store.create_bucket("files")
        await store.put("files", "o", bytes(1_000_000))
        closed = []

        async def starlette(request: Request) -> Response:
            response = await on_starlette.object_response(store, "files", "o", request)
            await response.aclose()
            closed.append(fake.open_readers)
            return Response("instead")

        async def aiohttp(request: web.Request) -> web.Response:
            response = await on_aiohttp.object_response(store, "files", "o", request)
            await response.aclose()
            closed.append(fake.open_readers)
            return web.Response(text="instead")

        app = web.Application()
        app.router.add_get("/", aiohttp)
        running = (
            running_aiohttp(app)
            if framework == "aiohttp"
            else running_asgi(Starlette(routes=[Route("/", starlette)]))
        )
        async with running as port:
            got = await ask_httpx(f"http://127.0.0.1:{port}/", "GET", [], None)
        assert (got.body, closed) == (b"instead", [0])
