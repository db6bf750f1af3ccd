"""The tests that zarr has for its own stores, on a store over SeaweedFS."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from zarr.core.buffer import Buffer, cpu
from zarr.storage import FsspecStore
from zarr.testing.store import StoreTests

from tests.integrations.backend_urls import s3_url
from trove_async.integrations.fsspec import TroveFileSystem

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trove_async.testing.servers import S3Server

pytestmark = [pytest.mark.data, pytest.mark.timeout(180)]


class TestSeaweed(StoreTests[FsspecStore, cpu.Buffer]):
    store_cls = FsspecStore
    buffer_cls = cpu.Buffer

    @pytest.fixture
    async def store_kwargs(self, seaweed: S3Server) -> AsyncIterator[dict[str, Any]]:
        fs = TroveFileSystem(backend=s3_url(seaweed), asynchronous=True)
        bucket = f"zarr-{uuid4().hex[:12]}"
        await fs._mkdir(bucket)
        yield {"fs": fs, "path": f"{bucket}/root"}
        await fs.aclose()
        TroveFileSystem.clear_instance_cache()

    async def get(self, store: FsspecStore, key: str) -> Buffer:
        return self.buffer_cls.from_bytes(await store.fs._cat_file(f"{store.path}/{key}"))

    async def set(self, store: FsspecStore, key: str, value: Buffer) -> None:
        await store.fs._pipe_file(f"{store.path}/{key}", value.to_bytes())

    def test_store_repr(self, store: FsspecStore) -> None:
        assert str(store) == f"<FsspecStore(TroveFileSystem, {store.path})>"

    def test_store_supports_writes(self, store: FsspecStore) -> None:
        assert store.supports_writes

    def test_store_supports_listing(self, store: FsspecStore) -> None:
        assert store.supports_listing
