"""Directories and buckets as dictionaries, and a driver that lists as S3 does."""

from __future__ import annotations

import hashlib
import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from tests.counting import Counting
from tests.fakes import IMMEDIATE_RETRIES
from trove_async import ObjectInfo, Trove
from trove_async.drivers import MemoryDriver
from trove_async.options import Page

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence
    from pathlib import Path

    from trove_async.driver import AsyncDriver
    from trove_async.options import ListOptions, PutOptions

OLD = 1_500_000_000.123456789
"""A time in the past."""


def make(folder: Path, files: Mapping[str, bytes], *, at: float | None = OLD) -> Path:
    """Create files. Their times are in the past, unless `at` is None."""
    folder.mkdir(parents=True, exist_ok=True)
    for key, content in files.items():
        path = folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        if at is not None:
            os.utime(path, (at, at))
    return folder


def read(folder: Path) -> dict[str, bytes]:
    """Return the contents of all files below a directory, including hidden and temporary ones."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink()
    }


async def objects(store: Trove, bucket: str = "data", prefix: str = "") -> dict[str, bytes]:
    """Return the contents of all objects, by the key without the prefix."""
    return {
        info.key.removeprefix(prefix): await store.read(bucket, info.key)
        async for info in store.list(bucket, prefix=prefix)
    }


@asynccontextmanager
async def store_with(driver: AsyncDriver) -> AsyncIterator[Trove]:
    """Open a store with the bucket ``data``."""
    async with Trove(driver, retry=IMMEDIATE_RETRIES) as store:
        await store.create_bucket("data", exist_ok=True)
        yield store


class Lists(Counting):
    """Memory whose listings contain what those of S3 do: no metadata, no checksums, whole seconds.

    Args:
        whole_seconds: Whether dates have no fraction.
        md5_etags: Whether the etags in listings are the MD5s of the bodies that one request stored.

    Attributes:
        drop_etags: Whether listings have no etags.
    """

    def __init__(self, *, whole_seconds: bool = False, md5_etags: bool = False) -> None:
        super().__init__(MemoryDriver())
        self._whole_seconds = whole_seconds
        self._md5_etags = md5_etags
        self._md5: dict[str, str] = {}
        self.drop_etags = False

    async def put(
        self, bucket: str, key: str, views: Sequence[memoryview], options: PutOptions
    ) -> ObjectInfo:
        info = await super().put(bucket, key, views, options)
        self._md5[info.etag or ""] = hashlib.md5(b"".join(views), usedforsecurity=False).hexdigest()
        return info

    async def list_page(self, bucket: str, options: ListOptions) -> Page:
        page = await super().list_page(bucket, options)
        entries = [self._listed(e) if isinstance(e, ObjectInfo) else e for e in page.entries]
        return Page(entries=entries, token=page.token)

    def _listed(self, info: ObjectInfo) -> ObjectInfo:
        modified = info.last_modified
        etag = self._md5.get(info.etag or "", "0" * 32) if self._md5_etags else info.etag
        return ObjectInfo(
            bucket=info.bucket,
            key=info.key,
            size=info.size,
            etag=None if self.drop_etags else etag,
            last_modified=modified.replace(microsecond=0) if self._whole_seconds else modified,
            complete=False,
            records=info.records,
        )
