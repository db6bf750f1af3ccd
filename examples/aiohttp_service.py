"""A file service on aiohttp.web: upload, download, list, delete, presign, health.

python examples/aiohttp_service.py

It stores files in .demo/files. Set TROVE_URL to use a different backend, such as s3://bucket. Use curl:

    curl -T movie.mp4 -H 'Content-Type: video/mp4' http://127.0.0.1:8000/files/movie.mp4
    curl -r 0-99 -D - -o part http://127.0.0.1:8000/files/movie.mp4
"""

import os
import re
from collections.abc import Sequence

from aiohttp import web

from trove_async import ObjectInfo, Trove
from trove_async.integrations.aiohttp import (
    cleanup_ctx,
    error_middleware,
    get_store,
    object_response,
    store_upload,
)

MAX_SIZE = 1024**3

routes = web.RouteTableDef()


@routes.get("/files/{key:.+}")
async def download(request: web.Request) -> web.StreamResponse:
    """Serve an object, with ranges and conditions. This route also responds to HEAD."""
    key = request.match_info["key"]
    return await object_response(get_store(request), "files", key, request)


@routes.put("/files/{key:.+}")
@routes.post("/files/{key:.+}")
async def upload(request: web.Request) -> web.StreamResponse:
    """Store a raw body, or the file in a form."""
    key = request.match_info["key"]
    return await store_upload(get_store(request), "files", key, request, max_size=MAX_SIZE)


@routes.delete("/files/{key:.+}")
async def delete(request: web.Request) -> web.Response:
    """Delete an object."""
    await get_store(request).delete("files", request.match_info["key"])
    return web.Response(status=204)


@routes.get("/files")
async def list_files(request: web.Request) -> web.Response:
    """Return a page of objects. `next` is the cursor of the next page."""
    limit = request.query.get("limit", "100")
    if not re.fullmatch(r"[1-9][0-9]{0,2}|1000", limit):
        raise web.HTTPBadRequest(text="limit must be a number from 1 to 1000")
    listing = get_store(request).list(
        "files",
        prefix=request.query.get("prefix", ""),
        cursor=request.query.get("cursor"),
        page_size=int(limit),
    )
    page: Sequence[ObjectInfo] = await anext(listing.pages(), [])
    files = [
        {"key": obj.key, "size": obj.size, "modified": obj.last_modified.isoformat()}
        for obj in page
    ]
    return web.json_response({"files": files, "next": listing.cursor})


@routes.post("/presign/{key:.+}")
async def presign(request: web.Request) -> web.Response:
    """Return a URL to get the object directly from the backend, or 501 if it cannot presign."""
    url = await get_store(request).presign_get("files", request.match_info["key"], expires=300)
    return web.json_response({"url": url})


@routes.get("/health")
async def health(request: web.Request) -> web.Response:
    """Return whether each backend responds."""
    health = await get_store(request).health()
    backends = {name: status.ok for name, status in health.items()}
    return web.json_response(backends, status=200 if all(backends.values()) else 503)


def make_app() -> web.Application:
    """Return the service."""
    app = web.Application(middlewares=[error_middleware])
    store = Trove(os.environ.get("TROVE_URL", "local://./.demo/files"))
    app.cleanup_ctx.append(cleanup_ctx(store, buckets=["files"]))
    app.add_routes(routes)
    return app


if __name__ == "__main__":
    web.run_app(make_app(), host="127.0.0.1", port=8000)
