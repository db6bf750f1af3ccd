"""The clients that `gcs_vs_peers` compares."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol

from trove_async import BufferPool, Trove
from trove_async.drivers import GCSDriver

MiB = 1024 * 1024
CONNECTIONS = 64


class Contender(Protocol):
    """One client, opened for one bucket."""

    async def put(self, key: str, body: bytes) -> None:
        """Store a small object."""
        ...

    async def get(self, key: str) -> int:
        """Read a small object, and return its size."""
        ...

    async def head(self, key: str) -> int:
        """Return an object's size."""
        ...

    async def delete(self, key: str) -> None:
        """Delete an object."""
        ...

    async def put_large(self, key: str, piece: bytes, count: int) -> None:
        """Store an object that consists of `piece`, repeated `count` times."""
        ...

    async def get_large(self, key: str) -> int:
        """Read a large object, in pieces or at once, and return its size."""
        ...


class TroveAsync:
    """A `Trove`, which by default verifies bodies, retries, and has timeouts."""

    def __init__(self, store: Trove, bucket: str) -> None:
        self._store = store
        self._bucket = bucket

    async def put(self, key: str, body: bytes) -> None:
        await self._store.put(self._bucket, key, body)

    async def get(self, key: str) -> int:
        return len(await self._store.read(self._bucket, key))

    async def head(self, key: str) -> int:
        return (await self._store.head(self._bucket, key)).size

    async def delete(self, key: str) -> None:
        await self._store.delete(self._bucket, key)

    async def put_large(self, key: str, piece: bytes, count: int) -> None:
        async def pieces() -> AsyncIterator[bytes]:
            for _ in range(count):
                yield piece

        await self._store.put(self._bucket, key, pieces())

    async def get_large(self, key: str) -> int:
        size = 0
        async with self._store.get(self._bucket, key) as reader:
            async for chunk in reader:
                size += len(chunk)
        return size


@asynccontextmanager
async def trove_async(url: str, bucket: str) -> AsyncIterator[Contender]:
    """Open trove_async."""
    driver = GCSDriver(endpoint_url=url, max_connections=CONNECTIONS)
    async with Trove(driver, pool=BufferPool(64 * MiB)) as store:
        yield TroveAsync(store, bucket)


class GcloudAio:
    """gcloud-aio-storage, which makes one request per call."""

    def __init__(self, storage: Any, bucket: str) -> None:  # noqa: ANN401 - the library is untyped
        self._storage = storage
        self._bucket = bucket

    async def put(self, key: str, body: bytes) -> None:
        await self._storage.upload(
            self._bucket,
            key,
            body,
            content_type="application/octet-stream",
            metadata={"metadata": {"a": "b"}},
            force_resumable_upload=False,
        )

    async def get(self, key: str) -> int:
        return len(await self._storage.download(self._bucket, key))

    async def head(self, key: str) -> int:
        return int((await self._storage.download_metadata(self._bucket, key))["size"])

    async def delete(self, key: str) -> None:
        await self._storage.delete(self._bucket, key)

    async def put_large(self, key: str, piece: bytes, count: int) -> None:
        await self._storage.upload(
            self._bucket, key, piece * count, force_resumable_upload=False, timeout=300
        )

    async def get_large(self, key: str) -> int:
        return len(await self._storage.download(self._bucket, key, timeout=300))


@asynccontextmanager
async def gcloud_aio(url: str, bucket: str) -> AsyncIterator[Contender]:
    """Open gcloud-aio-storage."""
    import aiohttp  # noqa: PLC0415 - each process imports its contender only
    from gcloud.aio.storage import Storage  # noqa: PLC0415 - as above

    connector = aiohttp.TCPConnector(limit=CONNECTIONS)
    async with aiohttp.ClientSession(connector=connector) as session:
        untyped: Any = session  # the SDK annotates it with a different type
        async with Storage(api_root=url, session=untyped) as storage:
            yield GcloudAio(storage, bucket)


class Gcsfs:
    """gcsfs, through its asynchronous API."""

    def __init__(self, fs: Any, bucket: str) -> None:  # noqa: ANN401 - the library is untyped
        self._fs = fs
        self._bucket = bucket

    async def put(self, key: str, body: bytes) -> None:
        await self._fs._pipe_file(f"{self._bucket}/{key}", body)  # noqa: SLF001 - its async API

    async def get(self, key: str) -> int:
        return len(await self._fs._cat_file(f"{self._bucket}/{key}"))  # noqa: SLF001 - as above

    async def head(self, key: str) -> int:
        return int((await self._fs._info(f"{self._bucket}/{key}"))["size"])  # noqa: SLF001 - as above

    async def delete(self, key: str) -> None:
        await self._fs._rm_file(f"{self._bucket}/{key}")  # noqa: SLF001 - as above

    async def put_large(self, key: str, piece: bytes, count: int) -> None:
        await self.put(key, piece * count)

    async def get_large(self, key: str) -> int:
        return await self.get(key)


@asynccontextmanager
async def gcsfs(url: str, bucket: str) -> AsyncIterator[Contender]:
    """Open gcsfs."""
    # Otherwise gcsfs requests the kind of bucket from a gRPC service, which the emulator lacks.
    os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"
    from gcsfs import GCSFileSystem  # noqa: PLC0415 - each process imports its contender only

    fs = GCSFileSystem(
        project="test-project",
        token="anon",  # noqa: S106 - no token
        endpoint_url=url,
        asynchronous=True,
        skip_instance_cache=True,
        use_listings_cache=False,
    )
    session = await fs._set_session()  # noqa: SLF001 - its async API
    try:
        yield Gcsfs(fs, bucket)
    finally:
        await session.close()


class Obstore:
    """obstore's GCSStore. It writes through the XML API."""

    def __init__(self, store: Any) -> None:  # noqa: ANN401 - the library is untyped
        self._store = store

    async def put(self, key: str, body: bytes) -> None:
        await self._store.put_async(key, body)

    async def get(self, key: str) -> int:
        return len(await (await self._store.get_async(key)).bytes_async())

    async def head(self, key: str) -> int:
        return int((await self._store.head_async(key))["size"])

    async def delete(self, key: str) -> None:
        await self._store.delete_async(key)

    async def put_large(self, key: str, piece: bytes, count: int) -> None:
        async def pieces() -> AsyncIterator[bytes]:
            for _ in range(count):
                yield piece

        await self._store.put_async(key, pieces())

    async def get_large(self, key: str) -> int:
        size = 0
        async for chunk in (await self._store.get_async(key)).stream(min_chunk_size=MiB):
            size += len(chunk)
        return size


@asynccontextmanager
async def obstore(url: str, bucket: str) -> AsyncIterator[Contender]:
    """Open obstore."""
    import json  # noqa: PLC0415 - each process imports its contender only

    from obstore.store import GCSStore  # noqa: PLC0415 - as above

    account = {
        "gcs_base_url": url,
        "disable_oauth": True,
        "client_email": "",
        "private_key": "",
        "private_key_id": "",
    }
    os.environ.pop("GOOGLE_APPLICATION_CREDENTIALS", None)
    yield Obstore(
        GCSStore(
            bucket,
            service_account_key=json.dumps(account),
            client_options={"allow_http": True},
        )
    )


CONTENDERS: dict[str, Callable[[str, str], AbstractAsyncContextManager[Contender]]] = {
    "trove_async": trove_async,
    "trove_async, uvloop": trove_async,
    "obstore": obstore,
    "obstore, uvloop": obstore,
    "gcsfs": gcsfs,
    "gcloud-aio-storage": gcloud_aio,
}
"""The contenders by name. Those with ``uvloop`` in their name run on uvloop, the others on asyncio."""
