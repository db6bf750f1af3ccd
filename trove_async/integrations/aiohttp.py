"""Objects in aiohttp.web: downloads, uploads, errors, and the store's life.

Use it so::

    app = web.Application(middlewares=[error_middleware])
    app.cleanup_ctx.append(cleanup_ctx(store))

    @routes.get("/files/{key:.+}")
    async def download(request: web.Request) -> web.StreamResponse:
        return await object_response(get_store(request), "files", request.match_info["key"], request)

    @routes.put("/files/{key:.+}")
    async def upload(request: web.Request) -> web.StreamResponse:
        key = request.match_info["key"]
        return await store_upload(get_store(request), "files", key, request, max_size=100_000_000)

Memory: a download holds at most 512 KiB here for a client that is slow, or stalls, and 2 MiB for one
that is fast; uploads are held in the store's pool, and a form's other fields (up to 64 KiB) beside it.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Unpack

try:
    from aiohttp import ClientPayloadError, compression_utils, web
    from python_multipart import __version__ as _forms_too  # noqa: F401 - of the same extra
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"{__name__} needs its extra: pip install 'trove_async[aiohttp]'", name=error.name
    ) from error

from trove_async import Trove, TroveError
from trove_async._concurrency import shielded, task_group

from ._headers import Presentation
from ._problems import problem_of
from ._serving import serve
from ._taking import Disconnected, Limits, PutFields, Sent, Taken, take

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable

    from aiohttp.abc import AbstractStreamWriter
    from aiohttp.typedefs import Handler

    from ._conditions import Header
    from ._problems import Answer
    from ._serving import Redirect, Stream

_DECODED = frozenset(
    {"gzip", "deflate", "br"} | ({"zstd"} if hasattr(compression_utils, "HAS_ZSTD") else set())
)
"""Content-Encodings that aiohttp undoes; bodies in others it hands over as they are."""

WATCH = 1.0
"""Seconds between two looks at whether a client is still there: aiohttp tells only who writes to it."""

STORE = web.AppKey("trove_async", Trove)
"""Where `cleanup_ctx` puts the store, and `get_store` finds it."""


async def object_response(
    store: Trove,
    bucket: str,
    key: str,
    request: web.Request,
    *,
    download_name: str | None = None,
    cache_control: str | None = None,
    redirect: Redirect = "never",
    trusted: bool = False,
) -> ObjectResponse:
    """Answer a GET or HEAD request with an object: conditions, ranges and all, by RFC 9110.

    The object is opened here, so that what goes wrong can still be answered otherwise; it is sent
    when the response is. Return the response, or `ObjectResponse.aclose` it.

    Args:
        store: Where from.
        bucket: Its bucket.
        key: Its key; whatever a client makes of it, it is a key of that bucket and nothing else.
        request: The request.
        download_name: Offer it as a download of this name, which may be in any script.
        cache_control: In place of the object's own.
        redirect: ``"presign"`` sends a GET on to a presigned URL of the backend, good for five
            minutes, where it has such; what is said here of headers then does not hold.
        trusted: Serve types that a browser runs (HTML, SVG, XML, scripts) as what they are. Only
            for objects of your own: others run them in your origin. Otherwise they are downloads.

    Raises:
        ObjectNotFoundError: There is no such object. Other errors of the store likewise.
    """
    answer = await serve(
        store,
        bucket,
        key,
        request.method,
        _header(request),
        presentation=Presentation(
            download_name=download_name, cache_control=cache_control, trusted=trusted
        ),
        redirect=redirect,
    )
    return ObjectResponse(answer)


async def store_upload(
    store: Trove,
    bucket: str,
    key: str,
    request: web.Request,
    *,
    max_size: int | None,
    min_rate: float | None = None,
    field: str | None = None,
    location: str | None = None,
    **fields: Unpack[PutFields],
) -> UploadResponse:
    """Store the body of a request: a raw one, or the file of a multipart/form-data one.

    It is streamed at the pace of the slower side. A client that leaves, or breaks a limit, cancels
    the put, and nothing is left behind. ``If-Match``, ``If-None-Match`` and ``If-Unmodified-Since``
    are honoured atomically, where the backend can. A body in a Content-Encoding that aiohttp undoes
    is stored decoded, others with their encoding. The app's ``client_max_size`` has no part in this.

    Args:
        store: Where to.
        bucket: The bucket.
        key: The key.
        request: The request; nothing has read its body yet.
        max_size: Bytes of the object, enforced while it is read; None: any number.
        min_rate: Bytes a second below which a client is dropped (408), once it has been waited for
            five seconds more than that allows; None: clients may be as slow as they like.
        field: The form field that has the file; None: whichever has a file name. Fields that are no
            files, of up to 64 KiB together, are in `UploadResponse.form`.
        location: The object's URL; None: the request's own path.
        **fields: Of the object, as to `Trove.put`: ``content_type`` (else the client's), …

    Returns:
        201 with Location and ETag; else 400, 408, 412 or 413 as problem details.

    Raises:
        TroveError: The store failed.
    """
    sent = Sent(
        header=_header(request),
        chunks=_body(request),
        location=request.rel_url.raw_path if location is None else location,
        decoded=request.headers.get("Content-Encoding", "").lower() in _DECODED,
    )
    limits = Limits(max_size=max_size, min_rate=min_rate)
    taken = await take(store, bucket, key, sent, limits=limits, field=field, fields=fields)
    return UploadResponse(taken)


class ObjectResponse(web.StreamResponse):
    """What `object_response` returns: a response that pulls its body as the client takes it."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(status=answer.status, headers=dict(answer.headers))
        self._content = answer.content
        self._stream = answer.stream
        if answer.close:
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

    async def _send(self, request: web.BaseRequest, stream: Stream) -> None:
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

    def __init__(self, taken: Taken) -> None:
        super().__init__(taken.answer)
        self.info = taken.info
        self.form = taken.form


def error_response(error: TroveError) -> web.StreamResponse:
    """Return the response that tells a client of a store's error, as problem details (RFC 9457)."""
    return ObjectResponse(problem_of(error))


@web.middleware
async def error_middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer requests that a store's error ends: ``web.Application(middlewares=[…])``."""
    try:
        return await handler(request)
    except TroveError as error:
        return error_response(error)


def cleanup_ctx(
    store: Trove | Callable[[], Trove],
) -> Callable[[web.Application], AsyncIterator[None]]:
    """Return what opens and closes a store with its app: ``app.cleanup_ctx.append(…)``.

    Args:
        store: The store, or what makes it.
    """

    async def life(app: web.Application) -> AsyncIterator[None]:
        async with store if isinstance(store, Trove) else store() as opened:
            app[STORE] = opened
            yield

    return life


def get_store(request: web.Request) -> Trove:
    """Return the store of the app's `cleanup_ctx`, or of an app that this one is mounted in."""
    found = request.config_dict.get(STORE)
    if found is None:
        raise RuntimeError("the app has no store: app.cleanup_ctx.append(cleanup_ctx(store))")
    return found


def _header(request: web.Request) -> Header:
    def header(name: str) -> str | None:
        lines = request.headers.getall(name, None)
        return None if lines is None else ", ".join(lines)

    return header


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
        raise Disconnected from error
