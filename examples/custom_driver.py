"""A driver of your own, here over a dict. Copy it and replace the bodies of its methods.

A method sends at most one request. The store adds everything else, for every driver: bodies of any kind
and size, retries, timeouts, limits, routing, and listings over many backends. A driver is complete
when it passes the conformance suite, which takes four lines::

    class TestNotebookDriver(DriverSuite):
        @pytest.fixture
        def driver(self) -> NotebookDriver:
            return NotebookDriver()

Run it: python examples/custom_driver.py
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import uuid4

from trove_async import (
    BucketExistsError,
    BucketInfo,
    BucketNotEmptyError,
    BucketNotFoundError,
    NotSupportedError,
    ObjectInfo,
    ObjectNotFoundError,
    Trove,
)
from trove_async.driver import Capabilities
from trove_async.drivers import MemoryDriver
from trove_async.paging import paginate

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    from trove_async.driver import DriverContext
    from trove_async.options import DeleteOptions, GetOptions, ListOptions, Page, PutOptions

    Objects = dict[str, tuple[ObjectInfo, bytes]]


class NotebookDriver:
    """Stores objects in a dict for each bucket."""

    name = "notebook"

    # The store uses only what is claimed here. It rejects other options, such as conditions, metadata
    # and tags, before it calls the driver. Claim more as you implement more.
    capabilities = Capabilities(ranges=True, private_namespace=True, embedded=True)

    def __init__(self) -> None:
        self._buckets: dict[str, Objects] = {}

    async def open(self, context: DriverContext) -> None:
        """Connect to the service. The constructor does no I/O."""

    async def aclose(self) -> None:
        """Disconnect."""

    async def ping(self) -> None:
        """Raise unless the service responds."""

    def place(self, bucket: str, key: str) -> tuple[object, str, str]:
        """Return a value that is equal for two names if and only if they name the same object."""
        return self, bucket, key

    async def put(
        self,
        bucket: str,
        key: str,
        views: Sequence[memoryview],
        options: PutOptions,
    ) -> ObjectInfo:
        """Store the object, atomically. The views are valid only during this call."""
        objects = self._objects(bucket)
        body = b"".join(views)
        info = ObjectInfo(
            bucket=bucket,
            key=key,
            size=len(body),
            etag=uuid4().hex,  # unique for each version
            last_modified=datetime.now(UTC),
            write_id=options.write_id,  # identifies this write after a lost response
        )
        objects[key] = info, body
        return info

    @asynccontextmanager
    async def get(self, bucket: str, key: str, options: GetOptions) -> AsyncIterator[Reader]:
        """Open the body. A driver of a service sends the request here and closes the response on exit."""
        info, body = self._object(bucket, key)
        span = (0, info.size) if options.range is None else options.range.resolve(info.size)
        yield Reader(info, span, body)

    async def head(self, bucket: str, key: str, version_id: str | None = None) -> ObjectInfo:
        """Return the metadata of the object."""
        if version_id is not None:
            raise NotSupportedError("this driver keeps no versions")
        return self._object(bucket, key)[0]

    async def delete(self, bucket: str, key: str, options: DeleteOptions) -> None:
        """Delete the object. A missing object is not an error."""
        del options  # conditions, which the capabilities do not claim
        self._objects(bucket).pop(key, None)

    async def list_page(self, bucket: str, options: ListOptions) -> Page:
        """Return one page. `paginate` handles prefixes, delimiters and tokens."""
        objects = self._objects(bucket)

        def seek(start: str) -> Iterator[tuple[str, ObjectInfo]]:
            return ((key, objects[key][0]) for key in sorted(objects) if key >= start)

        return paginate(bucket, options, seek, lambda _key, info: info)

    async def create_bucket(self, bucket: str) -> None:
        """Create the bucket."""
        if bucket in self._buckets:
            raise BucketExistsError("the bucket already exists", bucket=bucket)
        self._buckets[bucket] = {}

    async def delete_bucket(self, bucket: str) -> None:
        """Delete the bucket, which must be empty."""
        if self._objects(bucket):
            raise BucketNotEmptyError("the bucket has objects", bucket=bucket)
        del self._buckets[bucket]

    async def head_bucket(self, bucket: str) -> BucketInfo:
        """Return the metadata of the bucket."""
        self._objects(bucket)
        return BucketInfo(name=bucket)

    async def list_buckets(self) -> Sequence[BucketInfo]:
        """Return all buckets."""
        return [BucketInfo(name=bucket) for bucket in sorted(self._buckets)]

    def _objects(self, bucket: str) -> Objects:
        if bucket not in self._buckets:
            raise BucketNotFoundError("the bucket does not exist", bucket=bucket)
        return self._buckets[bucket]

    def _object(self, bucket: str, key: str) -> tuple[ObjectInfo, bytes]:
        objects = self._objects(bucket)
        if key not in objects:
            raise ObjectNotFoundError("the object does not exist", bucket=bucket, key=key)
        return objects[key]


@dataclass
class Reader:
    """The body of one get, and the current position in its range."""

    info: ObjectInfo
    range: tuple[int, int]
    body: bytes
    position: int = 0

    async def read(self, size: int) -> bytes:
        """Return up to `size` bytes, or ``b""`` at the end."""
        start = self.range[0] + self.position
        piece = self.body[start : min(start + size, self.range[1])]
        self.position += len(piece)
        return piece


async def main() -> None:
    """Use the driver as the second backend of a store."""
    async with Trove(
        MemoryDriver(),
        backends={"notebook": NotebookDriver()},
        routes=[("*.md", "notebook")],
    ) as store:
        await store.create_bucket("data")
        await store.put("data", "logo.png", b"\x89PNG")
        await store.put("data", "ideas.md", b"# Ideas\n\n- a driver of my own\n")

        async for obj in store.list("data"):
            print(f"{obj.key}: {obj.size} bytes on {obj.backend}")
        print(await store.read("data", "ideas.md", range=(2, 7)))

        try:
            await store.put("data", "ideas.md", b"", metadata={"author": "me"})
        except NotSupportedError as error:
            print(error)


if __name__ == "__main__":
    asyncio.run(main())
