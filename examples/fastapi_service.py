"""A file service on FastAPI: upload, download, list, delete, presign, health, and a media page.

uvicorn examples.fastapi_service:app

It stores files in .demo/files. Set TROVE_URL to use a different backend, such as s3://bucket. Open
http://127.0.0.1:8000/ for the page, or use curl:

    curl -T movie.mp4 -H 'Content-Type: video/mp4' http://127.0.0.1:8000/files/movie.mp4
    curl -r 0-99 -D - -o part http://127.0.0.1:8000/files/movie.mp4
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import uvicorn
from fastapi import Depends, FastAPI, Query, Request, Response
from fastapi.responses import HTMLResponse

from trove_async import ObjectInfo, Trove, TroveError
from trove_async.integrations.starlette import (
    error_handler,
    get_store,
    lifespan,
    object_response,
    store_upload,
)

PAGE = (Path(__file__).parent / "media_page" / "index.html").read_text()
MAX_SIZE = 1024**3

Store = Annotated[Trove, Depends(get_store)]


def make_store() -> Trove:
    """Return a new store. The app creates and opens one each time it starts."""
    return Trove(os.environ.get("TROVE_URL", "local://./.demo/files"))


app = FastAPI(lifespan=lifespan(make_store, buckets=["files"]))
app.add_exception_handler(TroveError, error_handler)


@app.head("/files/{key:path}", include_in_schema=False)
@app.get("/files/{key:path}")
async def download(key: str, request: Request, store: Store) -> Response:
    """Serve an object, with ranges and conditions."""
    return await object_response(store, "files", key, request, cache_control="no-cache")


@app.put("/files/{key:path}")
@app.post("/files/{key:path}")
async def upload(key: str, request: Request, store: Store) -> Response:
    """Store a raw body, or the file in a form."""
    return await store_upload(store, "files", key, request, max_size=MAX_SIZE)


@app.delete("/files/{key:path}", status_code=204)
async def delete(key: str, store: Store) -> None:
    """Delete an object."""
    await store.delete("files", key)


@app.get("/files")
async def list_files(
    store: Store,
    prefix: str = "",
    cursor: str | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> dict[str, Any]:
    """Return a page of objects. `next` is the cursor of the next page."""
    listing = store.list("files", prefix=prefix, cursor=cursor, page_size=limit)
    page: Sequence[ObjectInfo] = await anext(listing.pages(), [])
    files = [{"key": obj.key, "size": obj.size, "modified": obj.last_modified} for obj in page]
    return {"files": files, "next": listing.cursor}


@app.post("/presign/{key:path}")
async def presign(key: str, store: Store) -> dict[str, str]:
    """Return a URL to get the object directly from the backend, or 501 if it cannot presign."""
    return {"url": await store.presign_get("files", key, expires=300)}


@app.get("/health")
async def health(store: Store, response: Response) -> dict[str, bool]:
    """Return whether each backend responds."""
    backends = {name: status.ok for name, status in (await store.health()).items()}
    response.status_code = 200 if all(backends.values()) else 503
    return backends


@app.get("/")
async def page() -> HTMLResponse:
    """Return the page that uploads and plays media."""
    return HTMLResponse(PAGE)


if __name__ == "__main__":
    uvicorn.run(app)
