"""The web services in examples/, tested over real sockets."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

import trove_async
import trove_async.drivers.local  # imported here: an import on the event loop would block it
from tests.integrations.file_service import running_aiohttp, running_asgi

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ROOT = Path(trove_async.__file__).parent.parent


@pytest.fixture(autouse=True)
def store_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TROVE_URL", f"file://{tmp_path / 'files'}")


def load(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    # FastAPI resolves annotations in sys.modules.
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@asynccontextmanager
async def client_of(name: str) -> AsyncIterator[httpx.AsyncClient]:
    module = load(name)
    running = (
        running_asgi(module.app)
        if name == "fastapi_service"
        else running_aiohttp(module.make_app())
    )
    async with running as port, httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        yield client


@pytest.mark.parametrize("name", ["fastapi_service", "aiohttp_service"])
async def test_service_stores_lists_serves_and_deletes_files(name: str) -> None:
    async with client_of(name) as client:
        assert (await client.get("/health")).json() == {"default": True}
        assert (await client.get("/files")).json() == {"files": [], "next": None}
        for number in range(5):
            put = await client.put(f"/files/dir/{number}.txt", content=b"0123456789")
            assert put.status_code == 201
        form = {"file": ("x.png", b"png", "image/png")}
        assert (await client.post("/files/x.png", files=form)).status_code == 201

        part = await client.get("/files/dir/3.txt", headers={"Range": "bytes=2-4"})
        assert (part.status_code, part.content) == (206, b"234")
        assert (await client.head("/files/x.png")).headers["content-type"] == "image/png"

        listed: list[str] = []
        query: dict[str, Any] = {"prefix": "dir/", "limit": 2}
        while True:
            page = (await client.get("/files", params=query)).json()
            listed += [file["key"] for file in page["files"]]
            if page["next"] is None:
                break
            query["cursor"] = page["next"]
        assert listed == [f"dir/{number}.txt" for number in range(5)]

        for invalid in ({"limit": "0"}, {"limit": "x"}, {"limit": "9" * 9}, {"cursor": "x"}):
            response = await client.get("/files", params=invalid)
            assert response.status_code in {400, 422}, invalid

        assert (await client.delete("/files/dir/3.txt")).status_code == 204
        assert (await client.get("/files/dir/3.txt")).status_code == 404
        # The local driver cannot presign.
        assert (await client.post("/presign/dir/1.txt")).status_code == 501


async def test_schema_has_each_operation_once() -> None:
    schema = load("fastapi_service").app.openapi()  # this warns about duplicate operation IDs
    assert schema["paths"]["/files/{key}"].keys() == {"get", "put", "post", "delete"}


async def test_page_is_served_at_the_root() -> None:
    async with client_of("fastapi_service") as client:
        page = await client.get("/")
        assert page.headers["content-type"].startswith("text/html")
        assert "<video" in page.text


@pytest.mark.parametrize("name", ["fastapi_service", "aiohttp_service"])
def test_service_is_short_and_can_be_imported(name: str) -> None:
    process = subprocess.run(  # noqa: S603 - our own examples
        [sys.executable, "-W", "error", "-c", f"import examples.{name}"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    assert (process.returncode, process.stderr) == (0, "")
    assert len((ROOT / "examples" / f"{name}.py").read_text().splitlines()) <= 110
