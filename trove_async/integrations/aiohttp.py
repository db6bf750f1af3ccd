"""Objects in aiohttp.web: downloads, uploads, errors, and the store's life.

Use it so::

    app = web.Application(middlewares=[error_middleware])
    app.cleanup_ctx.append(cleanup_ctx(store, buckets=["files"]))

    @routes.get("/files/{key:.+}")
    async def download(request: web.Request) -> web.StreamResponse:
        return await object_response(get_store(request), "files", request.match_info["key"], request)

    @routes.put("/files/{key:.+}")
    async def upload(request: web.Request) -> web.StreamResponse:
        key = request.match_info["key"]
        return await store_upload(get_store(request), "files", key, request, max_size=100_000_000)

Memory: a download holds at most 512 KiB here for a client that is slow, or stalls, and 2 MiB for one
that is fast; uploads are held in the store's pool, and a form's other fields (up to 64 KiB) beside it.
A body in a Content-Encoding that aiohttp undoes is stored decoded, others with their encoding. The
app's ``client_max_size`` has no part in uploads.
"""

from __future__ import annotations

import asyncio

try:
    from aiohttp import ClientPayloadError, compression_utils, web
    from python_multipart import __version__ as _forms_too  # noqa: F401 - of the same extra
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"{__name__} needs its extra: pip install 'trove-async[aiohttp]'", name=error.name
    ) from error

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable

from aiohttp.abc import AbstractStreamWriter

from trove_async import Trove, TroveError
from trove_async._concurrency import shielded, task_group

from ._endpoints import Endpoints
from ._lifespan import bucket_names, open_store
from ._problem_details import problem_of
from ._response import BodyStream, ServerResponse
from ._upload import ClientDisconnectedError, ServerRequest, UploadResult

_DECODED = frozenset(
    {"gzip", "deflate", "br"} | ({"zstd"} if hasattr(compression_utils, "HAS_ZSTD") else set())
)
"""Content-Encodings that aiohttp undoes; bodies in others it hands over as they are."""

WATCH = 1.0
"""Seconds between two looks at whether a client is still there: aiohttp tells only who writes to it."""

STORE = web.AppKey("trove_async", Trove)
"""Where `cleanup_ctx` puts the store, and `get_store` finds it."""


class ObjectResponse(web.StreamResponse):
    """What `object_response` returns: a response that pulls its body as the client takes it."""

    def __init__(self, response: ServerResponse) -> None:
        super().__init__(status=response.status, headers=dict(response.headers))
        self._content = response.content
        self._stream = response.stream
        if response.close:
            self.force_close()

    async def aclose(self) -> None:
        """Give the object back, sent or not. Idempotent."""
        if self._stream is not None:
            await self._stream.aclose()

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Send the response; stop if the client leaves."""
        if self.prepared:
            return await super().prepare(request)
        try:
            writer = await super().prepare(request)
            if writer is None or request.method == "HEAD":
                return writer
            if self._stream is None:
                await self.write_eof(self._content)
                return writer
            await self._send(request, self._stream)
        finally:
            with shielded():
                await self.aclose()
        return writer

    async def _send(self, request: web.BaseRequest, stream: BodyStream) -> None:
        async with task_group() as group:
            group.start_soon(_left, request)
            async for chunk in stream:
                await self.write(chunk)
            await self.write_eof()
            group.cancel_scope.cancel()


class UploadResponse(ObjectResponse):
    """What `store_upload` returns.

    Attributes:
        info: The object as stored, None where it was not.
        form: Where it came in a form, the names and values of the other fields, in order.
    """

    def __init__(self, result: UploadResult) -> None:
        super().__init__(result.response)
        self.info = result.info
        self.form = result.form


def _read_request(request: web.Request) -> ServerRequest:
    def header(name: str) -> str | None:
        lines = request.headers.getall(name, None)
        return None if lines is None else ", ".join(lines)

    return ServerRequest(
        method=request.method,
        header=header,
        chunks=_body(request),
        location=request.rel_url.raw_path,
        decoded=request.headers.get("Content-Encoding", "").lower() in _DECODED,
    )


async def _left(request: web.BaseRequest) -> None:
    """Wait until the client has left.

    Raises:
        ConnectionResetError: It has, as a write would say it.
    """
    while (  # noqa: ASYNC110 - there is no event: aiohttp tells nobody
        transport := request.transport
    ) is not None and not transport.is_closing():
        await asyncio.sleep(WATCH)
    raise ConnectionResetError("the client has left")


async def _body(request: web.Request) -> AsyncGenerator[bytes]:
    try:
        async for chunk in request.content.iter_any():
            yield chunk
    except (ConnectionError, ClientPayloadError, web.RequestPayloadError) as error:
        raise ClientDisconnectedError from error


_endpoints = Endpoints(
    read_request=_read_request,
    make_object_response=lambda response, _: ObjectResponse(response),
    make_upload_response=lambda result, _: UploadResponse(result),
)
object_response = _endpoints.object_response
store_upload = _endpoints.store_upload


def error_response(error: TroveError) -> web.StreamResponse:
    """Return the response that tells a client of a store's error, as problem details (RFC 9457)."""
    return ObjectResponse(problem_of(error))


@web.middleware
async def error_middleware(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Respond to requests that a store's error ends: ``web.Application(middlewares=[…])``."""
    try:
        return await handler(request)
    except TroveError as error:
        return error_response(error)


def cleanup_ctx(
    store: Trove | Callable[[], Trove], *, buckets: Iterable[str] = ()
) -> Callable[[web.Application], AsyncIterator[None]]:
    """Return a context that opens the store when the app starts and closes it when the app stops.

    Append it: ``app.cleanup_ctx.append(…)``. `get_store` returns the open store.

    Args:
        store: The store, or a function that makes it. A store opens once: where apps are made more
            than once, as in tests, pass a function.
        buckets: Buckets to create where they are missing.

    Raises:
        TypeError: `buckets` is a single name; when the app starts: the function returned no store.
        ClosedError: When the app starts: the store was opened before.
    """
    names = bucket_names(buckets)

    async def life(app: web.Application) -> AsyncIterator[None]:
        async with open_store(store, names, "cleanup_ctx") as opened:
            app[STORE] = opened
            yield

    return life


def get_store(request: web.Request) -> Trove:
    """Return the store of the app's `cleanup_ctx`, or of an app that this one is mounted in.

    Raises:
        RuntimeError: The app has no store, because its `cleanup_ctx` has not run.
    """
    found = request.config_dict.get(STORE)
    if found is None:
        raise RuntimeError(
            "the app has no store: its cleanup_ctx has not run. Before the app starts:"
            " app.cleanup_ctx.append(cleanup_ctx(store))"
        )
    return found
