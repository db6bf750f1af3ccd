"""Integration for FastAPI and Starlette: downloads, uploads, error responses and a lifespan.

Example::

    app = FastAPI(lifespan=lifespan(store, buckets=["files"]))
    app.add_exception_handler(TroveError, error_handler)

    @app.head("/files/{key:path}", include_in_schema=False)
    @app.get("/files/{key:path}")
    async def download(key: str, request: Request, store: Annotated[Trove, Depends(get_store)]):
        return await object_response(store, "files", key, request)

    @app.put("/files/{key:path}")
    async def upload(key: str, request: Request, store: Annotated[Trove, Depends(get_store)]):
        return await store_upload(store, "files", key, request, max_size=100_000_000)

Memory: a download holds at most 512 KiB for a client that is slow or stalls, and 2 MiB for a fast
one. Uploads use the store's buffer pool. The other fields of a form (up to 64 KiB) are held in
addition.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing, asynccontextmanager, suppress
from typing import cast
from urllib.parse import quote

try:
    from python_multipart import __version__ as _python_multipart  # noqa: F401 - of the same extra
    from starlette.requests import ClientDisconnect, HTTPConnection
    from starlette.responses import Response
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"{__name__} requires an extra: pip install 'trove-async[fastapi]'", name=error.name
    ) from error

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.types import Message, Receive, Scope, Send

from trove_async import Trove, TroveError
from trove_async._concurrency import shielded, task_group

from ._conditions import Header
from ._endpoints import Endpoints
from ._lifespan import bucket_names, open_store
from ._problem_details import problem_for
from ._response import ServerResponse
from ._upload import ClientDisconnectedError, ServerRequest, UploadResult

_STATE = "trove"

LINGER = 5.0
"""Maximum seconds for which the body of a rejected request is still read: see `_send_and_drain`."""


class ObjectResponse(Response):
    """The response of `object_response`. It reads its body only as fast as the client does."""

    def __init__(self, response: ServerResponse, request: Request | None = None) -> None:
        super().__init__(response.content or None, response.status, dict(response.headers))
        self._rejected_request = request if response.close else None
        # HTTP/2 has no Connection header.
        if self._rejected_request is not None and self._rejected_request.scope[
            "http_version"
        ].startswith("1"):
            self.headers["Connection"] = "close"
        self._stream = response.stream

    async def aclose(self) -> None:
        """Close the object, whether or not it was sent. Idempotent."""
        if self._stream is not None:
            await self._stream.aclose()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response; stop immediately if the client disconnects."""
        if self._rejected_request is not None:
            await self._send_and_drain(self._rejected_request, send)
        elif self._stream is not None:
            await self._send_or_disconnect(receive, send)
        else:
            await super().__call__(scope, receive, send)
            return
        if self.background is not None:
            await self.background()

    async def _send_or_disconnect(self, receive: Receive, send: Send) -> None:
        try:
            async with task_group() as group:
                # `receive` returns the rest of the request body before the disconnect.
                async def watch() -> None:
                    while (await receive())["type"] != "http.disconnect":
                        pass
                    group.cancel_scope.cancel()

                group.start_soon(watch)
                await self._send(send)
                group.cancel_scope.cancel()
        finally:
            with shielded():
                await self.aclose()

    async def _send_and_drain(self, request: Request, send: Send) -> None:
        """Respond to a request whose body was not read, then read and discard the body.

        If a server closes a connection with unread bytes, the connection is reset, and the client
        may lose the response (RFC 9112, section 9.6).
        """
        body = {"type": "http.response.body", "body": self.body, "more_body": True}
        if not (await _delivered(send, self._start) and await _delivered(send, body)):
            return
        # starlette raises RuntimeError if the body was already read to its end.
        with suppress(TimeoutError, ClientDisconnect, RuntimeError):
            async with asyncio.timeout(LINGER), aclosing(request.stream()) as stream:
                async for _ in stream:
                    pass
        await _delivered(send, {"type": "http.response.body", "body": b"", "more_body": False})

    @property
    def _start(self) -> Message:
        return {
            "type": "http.response.start",
            "status": self.status_code,
            "headers": self.raw_headers,
        }

    async def _send(self, send: Send) -> None:
        assert self._stream is not None  # noqa: S101 - checked by the caller
        if not await _delivered(send, self._start):
            return
        async for chunk in self._stream:
            body = {"type": "http.response.body", "body": chunk, "more_body": True}
            if not await _delivered(send, body):
                return
        await _delivered(send, {"type": "http.response.body", "body": b"", "more_body": False})


async def _delivered(send: Send, message: Message) -> bool:
    """Send a message; return False if the client has disconnected.

    After a disconnect, servers raise OSError (ASGI HTTP specification, since version 2.4).
    """
    try:
        await send(message)
    except OSError:
        return False
    return True


class UploadResponse(ObjectResponse):
    """The response of `store_upload`.

    Attributes:
        info: The stored object, or None if it was not stored.
        form: The names and values of the form's other fields, in order; empty if no form was stored.
    """

    def __init__(self, result: UploadResult, request: Request) -> None:
        super().__init__(result.response, request)
        self.info = result.info
        self.form = result.form


def _read_head(request: Request) -> tuple[str, Header]:
    # One pass over the headers, because starlette makes one for each look-up. ASGI has names in lower case.
    headers: dict[str, str] = {}
    for raw_name, raw_value in request.headers.raw:
        name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return request.method, headers.get


def _read_request(request: Request) -> ServerRequest:
    method, header = _read_head(request)
    return ServerRequest(
        method=method,
        header=header,
        chunks=_body(request),
        location=quote(request.scope["path"]),
    )


async def _body(request: Request) -> AsyncGenerator[bytes]:
    try:
        async with aclosing(request.stream()) as stream:
            async for chunk in stream:
                yield chunk
    except ClientDisconnect as error:
        raise ClientDisconnectedError from error


_endpoints = Endpoints(
    read_head=_read_head,
    read_request=_read_request,
    make_object_response=ObjectResponse,
    make_upload_response=UploadResponse,
)
object_response = _endpoints.object_response
store_upload = _endpoints.store_upload


def error_response(error: TroveError) -> Response:
    """Return the response for an error of the store, as problem details (RFC 9457)."""
    return ObjectResponse(problem_for(error))


async def error_handler(request: Request, error: Exception) -> Response:
    """Handle errors of the store: ``app.add_exception_handler(TroveError, error_handler)``."""
    del request
    return error_response(cast("TroveError", error))


def lifespan(
    store: Trove | Callable[[], Trove], *, buckets: Iterable[str] = ()
) -> Callable[[Starlette], AbstractAsyncContextManager[dict[str, Trove]]]:
    """Return a lifespan that opens the store when the app starts and closes it when the app stops.

    `get_store` returns the open store. Starlette runs the lifespan of the outermost app only, so
    pass it to that app and not to mounted ones.

    Args:
        store: The store, or a function that creates it. A store can be opened only once. If the app
            starts several times, as in tests, pass a function.
        buckets: Buckets to create if they are missing.

    Raises:
        TypeError: `buckets` is a single name. When the app starts: the function returned an object
            that is not a store.
        ClosedError: When the app starts: the store was opened before.
    """
    names = bucket_names(buckets)

    @asynccontextmanager
    async def app_lifespan(app: Starlette) -> AsyncIterator[dict[str, Trove]]:
        async with open_store(store, names, "lifespan") as opened:
            app.state.trove = opened
            try:
                yield {_STATE: opened}
            finally:
                # Otherwise `get_store` would return the closed store if the lifespan does not run again.
                del app.state.trove

    return app_lifespan


def get_store(connection: HTTPConnection) -> Trove:
    """Return the store of the app's `lifespan`: ``Annotated[Trove, Depends(get_store)]`` in FastAPI.

    Raises:
        RuntimeError: The app has no store, because its lifespan has not run.
    """
    # The lifespan of an outer app puts the store in the state of the request, not of this app.
    store = getattr(connection.state, _STATE, None) or getattr(connection.app.state, _STATE, None)
    if store is None:
        raise RuntimeError(
            "the app has no store: its lifespan has not run. Create the app with"
            " lifespan=lifespan(store). In tests, enter the client: `with TestClient(app)`. If the"
            " app is mounted in another app, pass the lifespan to the outer one"
        )
    return cast("Trove", store)
