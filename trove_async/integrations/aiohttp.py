"""Integration for aiohttp.web: downloads, uploads, error responses and a cleanup context.

Example::

    app = web.Application(middlewares=[error_middleware])
    app.cleanup_ctx.append(cleanup_ctx(store, buckets=["files"]))

    @routes.get("/files/{key:.+}")
    async def download(request: web.Request) -> web.StreamResponse:
        return await object_response(get_store(request), "files", request.match_info["key"], request)

    @routes.put("/files/{key:.+}")
    async def upload(request: web.Request) -> web.StreamResponse:
        key = request.match_info["key"]
        return await store_upload(get_store(request), "files", key, request, max_size=100_000_000)

Memory: a download holds at most 512 KiB for a client that is slow or stalls, and 2 MiB for a fast
one. An object of the local driver that no middleware has encoded is sent by sendfile(2) and holds none, except
over TLS, with uvloop, and if the response is compressed. Uploads use the store's buffer pool. The other fields of a form (up to 64 KiB) are held in
addition.

A body whose Content-Encoding aiohttp decodes is stored decoded; other bodies are stored with their
encoding. The app's ``client_max_size`` does not apply to uploads.
"""

from __future__ import annotations

import asyncio
import os

try:
    from aiohttp import ClientPayloadError, compression_utils, web
    from python_multipart import __version__ as _python_multipart  # noqa: F401 - of the same extra
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"{__name__} requires an extra: pip install 'trove-async[aiohttp]'", name=error.name
    ) from error

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable

from aiohttp.abc import AbstractStreamWriter

from trove_async import Trove, TroveError, UnavailableError
from trove_async._concurrency import in_thread, shielded, task_group
from trove_async.driver import FileSpan

from ._conditions import Header
from ._endpoints import Endpoints
from ._lifespan import bucket_names, open_store
from ._pacing import SMALL
from ._problem_details import problem_for
from ._response import BodyStream, ServerResponse
from ._upload import ClientDisconnectedError, ServerRequest, UploadResult

_DECODED = frozenset(
    {"gzip", "deflate", "br"} | ({"zstd"} if hasattr(compression_utils, "HAS_ZSTD") else set())
)
"""Content-Encodings that aiohttp decodes. It leaves bodies with other encodings unchanged."""

WATCH = 1.0
"""Seconds between two checks for a disconnect, which aiohttp reports only on a write."""

STORE = web.AppKey("trove_async", Trove)
"""The key under which `cleanup_ctx` stores the store in the app, for `get_store`."""


class ObjectResponse(web.StreamResponse):
    """The response of `object_response`. It reads its body only as fast as the client does."""

    def __init__(self, response: ServerResponse) -> None:
        super().__init__(status=response.status, headers=dict(response.headers))
        self._content = response.content
        self._stream = response.stream
        if response.close:
            self.force_close()

    async def aclose(self) -> None:
        """Close the object, whether or not it was sent. Idempotent."""
        if self._stream is not None:
            await self._stream.aclose()

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Send the response; stop if the client disconnects."""
        # A handler may have sent the response itself; aiohttp calls this again afterwards.
        if self.prepared:
            return await super().prepare(request)
        try:
            writer = await super().prepare(request)
            if writer is None or request.method == "HEAD":
                return writer
            if self._stream is None:
                await self.write_eof(self._content)
                return writer
            await self._send(request, writer, self._stream)
        finally:
            with shielded():
                await self.aclose()
        return writer

    async def _send(
        self, request: web.BaseRequest, writer: AbstractStreamWriter, stream: BodyStream
    ) -> None:
        # A write fails after a disconnect, but a slow backend may leave nothing to write.
        async with task_group() as group:
            group.start_soon(_wait_for_disconnect, request)
            if self._can_send_files(request):
                await self._send_files(request, writer, stream)
            async for chunk in stream:
                await self.write(chunk)
            await self.write_eof()
            group.cancel_scope.cancel()

    def _can_send_files(self, request: web.BaseRequest) -> bool:
        """Return whether the bytes of the body are sent unchanged: without TLS, a coding or chunks."""
        transport = request.transport
        return not (
            transport is None
            or transport.get_extra_info("sslcontext") is not None
            or self.compression
            or self.chunked
        )

    async def _send_files(
        self, request: web.BaseRequest, writer: AbstractStreamWriter, stream: BodyStream
    ) -> None:
        """Send the body by sendfile(2) as far as possible. The rest is to be written.

        Raises:
            UnavailableError: The file was changed while it was sent.
            ConnectionError: The client disconnected.
        """
        loop = asyncio.get_running_loop()
        while (transport := request.transport) is not None and not transport.is_closing():
            span = await stream.next_file_span()
            if span is None:
                return
            with span.file:
                if transport.is_closing():  # the client disconnected meanwhile: `write` raises
                    return
                try:
                    sent = await loop.sendfile(
                        transport, span.file, span.offset, span.size, fallback=False
                    )
                except (asyncio.SendfileNotAvailableError, NotImplementedError):
                    # The event loop or the file system cannot. Nothing was sent.
                    await self._write_span(span)
                    return
            if sent != span.size:
                raise _changed_while_sent()
            writer.output_size += sent  # for the access log
            if writer.length is not None:
                writer.length -= sent

    async def _write_span(self, span: FileSpan) -> None:
        """Write the bytes of a span, read in a thread."""
        start, end = span.offset, span.offset + span.size
        while start < end:
            size = min(SMALL, end - start)
            data = await in_thread(os.pread, span.file.fileno(), size, start)
            if not data:
                raise _changed_while_sent()
            await self.write(data)
            start += len(data)


def _changed_while_sent() -> UnavailableError:
    return UnavailableError("the file became shorter while it was sent: the response is incomplete")


class UploadResponse(ObjectResponse):
    """The response of `store_upload`.

    Attributes:
        info: The stored object, or None if it was not stored.
        form: The names and values of the form's other fields, in order; empty if no form was stored.
    """

    def __init__(self, result: UploadResult) -> None:
        super().__init__(result.response)
        self.info = result.info
        self.form = result.form


def _read_head(request: web.Request) -> tuple[str, Header]:
    def header(name: str) -> str | None:
        lines = request.headers.getall(name, None)
        return None if lines is None else ", ".join(lines)

    return request.method, header


def _read_request(request: web.Request) -> ServerRequest:
    method, header = _read_head(request)
    return ServerRequest(
        method=method,
        header=header,
        chunks=_body(request),
        location=request.rel_url.raw_path,
        decoded=request.headers.get("Content-Encoding", "").lower() in _DECODED,
    )


async def _wait_for_disconnect(request: web.BaseRequest) -> None:
    """Wait until the client has disconnected.

    Raises:
        ConnectionResetError: The client has disconnected. A write raises the same error.
    """
    while (  # noqa: ASYNC110 - aiohttp has no event for a disconnect
        transport := request.transport
    ) is not None and not transport.is_closing():
        await asyncio.sleep(WATCH)
    raise ConnectionResetError("the client disconnected")


async def _body(request: web.Request) -> AsyncGenerator[bytes]:
    try:
        async for chunk in request.content.iter_any():
            yield chunk
    except (ConnectionError, ClientPayloadError, web.RequestPayloadError) as error:
        raise ClientDisconnectedError from error


_endpoints = Endpoints(
    read_head=_read_head,
    read_request=_read_request,
    make_object_response=lambda response, _: ObjectResponse(response),
    make_upload_response=lambda result, _: UploadResponse(result),
)
object_response = _endpoints.object_response
store_upload = _endpoints.store_upload


def error_response(error: TroveError) -> web.StreamResponse:
    """Return the response for an error of the store, as problem details (RFC 9457)."""
    return ObjectResponse(problem_for(error))


@web.middleware
async def error_middleware(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Handle errors of the store: ``web.Application(middlewares=[error_middleware])``."""
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
        store: The store, or a function that creates it. A store can be opened only once. If several
            apps are created, as in tests, pass a function.
        buckets: Buckets to create if they are missing.

    Raises:
        TypeError: `buckets` is a single name. When the app starts: the function returned an object
            that is not a store.
        ClosedError: When the app starts: the store was opened before.
    """
    names = bucket_names(buckets)

    async def cleanup(app: web.Application) -> AsyncIterator[None]:
        async with open_store(store, names, "cleanup_ctx") as opened:
            app[STORE] = opened
            yield

    return cleanup


def get_store(request: web.Request) -> Trove:
    """Return the store of the app's `cleanup_ctx`, or of an app that mounts this one.

    Raises:
        RuntimeError: The app has no store, because its `cleanup_ctx` has not run.
    """
    store = request.config_dict.get(STORE)
    if store is None:
        raise RuntimeError(
            "the app has no store: its cleanup_ctx has not run. Before the app starts:"
            " app.cleanup_ctx.append(cleanup_ctx(store))"
        )
    return store
