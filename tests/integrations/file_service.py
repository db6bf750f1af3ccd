"""A small file service in both frameworks, over real sockets, and clients for it."""

from __future__ import annotations

import asyncio
import io
import socket
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import aiohttp
import httpx
import uvicorn
from aiohttp import web
from starlette.applications import Starlette
from starlette.routing import Route

from trove_async import Trove, TroveError
from trove_async._concurrency import task_group
from trove_async.integrations import aiohttp as on_aiohttp
from trove_async.integrations import starlette as on_starlette

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import ASGIApp

FRAMEWORKS = ["starlette", "aiohttp"]

Headers = list[tuple[str, str]]


@dataclass(kw_only=True)
class Service:
    """A running service: GET, HEAD, PUT and POST of ``/files/KEY`` in the bucket ``files``.

    Attributes:
        store: The store of the service.
        port: The port on 127.0.0.1.
        downloads: Options for `object_response`.
        uploads: Options for `store_upload`.
        uploaded: Responses that `store_upload` returned.
    """

    store: Trove
    port: int = 0
    downloads: dict[str, Any] = field(default_factory=dict)
    uploads: dict[str, Any] = field(default_factory=lambda: {"max_size": None})
    uploaded: list[Any] = field(default_factory=list)

    def url(self, key: str) -> str:
        return f"http://127.0.0.1:{self.port}/files/{key}"


@asynccontextmanager
async def serving(framework: str, store: Trove, **options: Any) -> AsyncIterator[Service]:
    """Run the service for an open store."""
    service = Service(store=store, **options)
    start = {"starlette": _starlette, "aiohttp": _aiohttp}[framework]
    async with start(service) as service.port:
        yield service


@asynccontextmanager
async def _starlette(service: Service) -> AsyncIterator[int]:
    async def endpoint(request: Request) -> Response:
        store, key = service.store, request.path_params["key"]
        if request.method in {"PUT", "POST"}:
            response = await on_starlette.store_upload(
                store, "files", key, request, **service.uploads
            )
            service.uploaded.append(response)
            return response
        return await on_starlette.object_response(store, "files", key, request, **service.downloads)

    app = Starlette(
        routes=[Route("/files/{key:path}", endpoint, methods=["GET", "PUT", "POST", "DELETE"])],
        exception_handlers={TroveError: on_starlette.error_handler},
    )
    async with running_asgi(app) as port:
        yield port


@asynccontextmanager
async def running_asgi(app: ASGIApp, **options: Any) -> AsyncIterator[int]:
    """Run an ASGI app under uvicorn; yield its port."""
    config = uvicorn.Config(app, log_level="critical", http="h11", ws="none", **options)
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        async with task_group() as group:
            group.start_soon(server._serve, [listener])
            try:
                yield listener.getsockname()[1]
            finally:
                server.should_exit = True


@asynccontextmanager
async def _aiohttp(service: Service) -> AsyncIterator[int]:
    async def endpoint(request: web.Request) -> web.StreamResponse:
        store, key = service.store, request.match_info["key"]
        if request.method in {"PUT", "POST"}:
            response = await on_aiohttp.store_upload(
                store, "files", key, request, **service.uploads
            )
            service.uploaded.append(response)
            return response
        return await on_aiohttp.object_response(store, "files", key, request, **service.downloads)

    app = web.Application(middlewares=[on_aiohttp.error_middleware])
    app.router.add_route("*", "/files/{key:.*}", endpoint)
    async with running_aiohttp(app) as port:
        yield port


@asynccontextmanager
async def running_aiohttp(app: web.Application) -> AsyncIterator[int]:
    """Run an aiohttp app; yield its port."""
    # After a rejection, aiohttp reads the body for `lingering_time`, so that the client gets the response.
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1, lingering_time=1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


@dataclass
class ClientResponse:
    """A response as a client received it. Header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


async def send_with_httpx(
    url: str, method: str, headers: Headers, body: bytes | None
) -> ClientResponse:
    # The service has no TLS, and loading certificates takes 100 ms.
    async with httpx.AsyncClient(verify=False) as client:  # noqa: S501
        response = await client.request(method, url, headers=headers, content=body)
        return ClientResponse(response.status_code, dict(response.headers), response.content)


async def send_with_aiohttp(
    url: str, method: str, headers: Headers, body: bytes | None
) -> ClientResponse:
    data = None if body is None else io.BytesIO(body)  # aiohttp warns about large bytes
    async with (
        aiohttp.ClientSession(auto_decompress=False) as client,
        client.request(method, url, headers=headers, data=data, allow_redirects=False) as response,
    ):
        fields = {name.lower(): value for name, value in response.headers.items()}
        return ClientResponse(response.status, fields, await response.read())


async def send_with_curl(
    url: str, method: str, headers: Headers, body: bytes | None
) -> ClientResponse:
    header_options = [f"-H{name}: {value}" if value else f"-H{name};" for name, value in headers]
    method_options = ["--head"] if method == "HEAD" else ["--request", method]
    data = [] if body is None else ["--data-binary", "@-", "-HContent-Type:"]
    return parse_response(
        await curl(
            "--include", "--path-as-is", *method_options, *data, *header_options, url, stdin=body
        ),
        method,
    )


async def curl(*arguments: str, stdin: bytes | None = None) -> bytes:
    process = await asyncio.create_subprocess_exec(
        "curl",
        "--silent",
        "--max-time",
        "20",
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate(stdin or b"")
    assert process.returncode == 0, arguments
    return out


def parse_response(data: bytes, method: str = "GET") -> ClientResponse:
    """Parse the bytes of a complete response."""
    head, _, body = data.partition(b"\r\n\r\n")
    while head.split(b" ", 2)[1] == b"100":
        head, _, body = body.partition(b"\r\n\r\n")
    status_line, *lines = head.decode("latin-1").split("\r\n")
    fields = {
        name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)
    }
    if method != "HEAD" and "content-length" in fields:
        assert len(body) == int(fields["content-length"])
    return ClientResponse(int(status_line.split(" ", 2)[1]), fields, body)


SendRequest: TypeAlias = "Callable[[str, str, Headers, bytes | None], Awaitable[ClientResponse]]"

CLIENTS: dict[str, SendRequest] = {
    "httpx": send_with_httpx,
    "aiohttp": send_with_aiohttp,
    "curl": send_with_curl,
}


async def send_raw(port: int, *pieces: bytes) -> bytes:
    """Send raw bytes and return everything received until the connection closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        return await reader.read()
    finally:
        writer.close()
        await writer.wait_closed()


def request_bytes(
    method: str, target: str, headers: Sequence[str] = (), body: bytes = b""
) -> bytes:
    """Return the bytes of a request with ``Connection: close``."""
    lines = [f"{method} {target} HTTP/1.1", "Host: x", "Connection: close", *headers, "", ""]
    return "\r\n".join(lines).encode("latin-1") + body


FORM = ("Content-Type", "multipart/form-data; boundary=frontier")
FILE = 'Content-Disposition: form-data; name="file"; filename="x.png"\r\nContent-Type: image/png'
NOTE = 'Content-Disposition: form-data; name="note"'


def form(*parts: tuple[str, bytes], end: bytes = b"--") -> bytes:
    """Return a multipart form.

    Args:
        parts: The header lines and the content of each part.
        end: ``b"--"`` for a complete form; ``b""`` for one without its closing delimiter.
    """
    pieces = [b"--frontier\r\n%s\r\n\r\n%s\r\n" % (head.encode(), body) for head, body in parts]
    return b"".join(pieces) + b"--frontier" + end + b"\r\n"


async def keys(store: Trove) -> list[str]:
    """Return the keys of the objects in the bucket ``files``."""
    return [info.key for info in await store.list("files").all()]
