"""Fixtures: drivers on a new root, and clients for one bucket."""

from __future__ import annotations

import contextlib
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from trove_async.driver import DriverContext
from trove_async.drivers.local import LocalDriver
from trove_async.events import Events
from trove_async.models import ObjectInfo, Timeout
from trove_async.options import GetOptions, ListOptions, PutOptions
from trove_async.pool import BufferPool

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

    from trove_async.driver import AsyncDriver
    from trove_async.models import Prefix


SIMULATED = {"openat2", "ofd_locks", "xattrs", "folding"}
"""Settings that simulate different systems."""


class BucketClient:
    """An open driver, and short methods for its bucket ``b``."""

    def __init__(self, driver: LocalDriver, root: Path) -> None:
        self.driver = driver
        self.root = root
        self.bucket = root / "b"

    async def put(self, key: str, body: bytes = b"", **options: Any) -> ObjectInfo:
        views = [memoryview(body)] if body else []
        return await self.driver.put("b", key, views, PutOptions(**options))

    async def read(self, key: str, **options: Any) -> bytes:
        chunks: list[bytes] = []
        async with self.driver.get("b", key, GetOptions(**options)) as reader:
            while chunk := await reader.read(1024 * 1024):
                chunks.append(chunk)
        return b"".join(chunks)

    async def objects(self) -> list[ObjectInfo]:
        return [entry for entry in await self.entries() if isinstance(entry, ObjectInfo)]

    async def entries(self, **options: Any) -> list[ObjectInfo | Prefix]:
        entries: list[ObjectInfo | Prefix] = []
        token = None
        while True:
            page = await self.driver.list_page("b", ListOptions(token=token, **options))
            entries.extend(page.entries)
            token = page.token
            if token is None:
                return entries

    async def keys(self, **options: Any) -> list[str]:
        return [entry.key for entry in await self.entries(**options)]

    def own_files(self) -> list[str]:
        """Return the paths of the staged files and sidecars in the driver's area."""
        area = self.root / ".trove"
        return sorted(
            str(path.relative_to(area))
            for name in ("staging", "meta")
            for path in (area / name).rglob("*")
            if path.is_file() and path.suffix != ".lock"
        )


async def attach(driver: AsyncDriver) -> AsyncDriver:
    return driver


def context() -> DriverContext:
    return DriverContext(
        backend="local", pool=BufferPool(), events=Events(), timeout=Timeout(), attach=attach
    )


@asynccontextmanager
async def opened(root: Path, **settings: Any) -> AsyncIterator[LocalDriver]:
    simulated = {name: settings.pop(name) for name in SIMULATED & settings.keys()}
    driver = LocalDriver(root, **settings)._simulating(**simulated)
    try:
        await driver.open(context())
        yield driver
    finally:
        await driver.aclose()


@asynccontextmanager
async def client_at(root: Path, **settings: Any) -> AsyncIterator[BucketClient]:
    async with opened(root, **({"fsync": False} | settings)) as driver:
        if not (root / "b").exists():
            await driver.create_bucket("b")
        yield BucketClient(driver, root)


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[BucketClient]:
    async with client_at(tmp_path / "root") as client:
        yield client


@pytest.fixture
def open_client() -> Callable[..., AbstractAsyncContextManager[BucketClient]]:
    """Return a function that opens a client: ``async with open_client(root, …) as client``."""
    return client_at


@pytest.fixture
def open_driver() -> Callable[..., AbstractAsyncContextManager[LocalDriver]]:
    """Return a function that opens a driver without a bucket."""
    return opened


# Settings of `any_client`. Those without fsync get fsync=False, which is not the driver's default.
CONFIGURATIONS: list[dict[str, bool]] = [
    {},
    {"openat2": False},
    {"ofd_locks": False},
    {"xattrs": False},
    {"folding": True},
    {"fsync": True},
]


@pytest.fixture(
    params=CONFIGURATIONS,
    ids=["default", "no-openat2", "no-ofd-locks", "no-xattrs", "folding", "fsync"],
)
async def any_client(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[BucketClient]:
    """Open a client with each of `CONFIGURATIONS` in turn."""
    async with client_at(tmp_path / "root", **request.param) as client:
        yield client


@pytest.fixture
def count_open_files(tmp_path: Path) -> Callable[[], int]:
    """Return a function that counts the open files of this process in the test's directory.

    Others do not count: the garbage collector may close files and sockets of earlier tests.
    """

    def count() -> int:
        total = 0
        for descriptor in Path("/proc/self/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # that of the directory listing itself
                total += descriptor.readlink().is_relative_to(tmp_path)
        return total

    return count
