"""A layer that forwards every call to its one inner driver. Layers that change a few calls are built on it."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import cast

from trove_async.driver import (
    AsyncDriver,
    BulkDeleting,
    Capabilities,
    Copying,
    DriverContext,
    DriverReader,
    Presigning,
    Replicated,
    Upload,
    Uploading,
    Versioned,
    check_deletable,
    places_of,
)
from trove_async.models import BucketInfo, DeleteResult, ObjectInfo
from trove_async.options import (
    ComparedPage,
    CopyOptions,
    DeleteOptions,
    GetOptions,
    ListOptions,
    Page,
    PresignOptions,
    PutOptions,
    Repaired,
    VersionPage,
)

from ._attachment import Attachment, repr_of


class Forwarding:
    """Forwards every call unchanged.

    The calls of optional protocols are made only if the capabilities claim them, so they are forwarded
    without a check.

    Args:
        layer: The name of the layer's class, for messages.
        driver: The inner driver.
        others: Further drivers that the layer opens and uses by itself.

    Raises:
        TypeError: One of them is not a driver.
    """

    def __init__(self, layer: str, driver: AsyncDriver, *others: AsyncDriver) -> None:
        self._attachment = Attachment(layer, [driver, *others])

    def __repr__(self) -> str:
        return repr_of(self)

    @property
    def inner(self) -> Sequence[AsyncDriver]:
        """The wrapped drivers."""
        return self._attachment.inner

    @property
    def name(self) -> str:
        """The service name of the wrapped driver."""
        return self._attachment.inner[0].name

    @property
    def capabilities(self) -> Capabilities:
        """The capabilities of the wrapped driver."""
        return self._attachment.current[0].capabilities

    @property
    def _driver(self) -> AsyncDriver:
        return self._attachment.drivers[0]

    async def open(self, context: DriverContext) -> None:
        """Open the wrapped drivers. See `AsyncDriver.open`.

        Raises:
            DriverInUseError: The layer is open, or being opened, in another store.
        """
        await self._attachment.open(context)

    async def aclose(self) -> None:
        """Detach from the wrapped drivers, which the store closes. Idempotent."""
        self._attachment.close()

    async def ping(self) -> None:
        """Ping the wrapped driver. See `AsyncDriver.ping`."""
        await self._driver.ping()

    def place(self, bucket: str, key: str) -> Hashable:
        """Return the place of the object in the wrapped driver. See `AsyncDriver.place`."""
        return self._attachment.inner[0].place(bucket, key)

    def places(self, bucket: str, key: str, *, written: bool = False) -> Sequence[Hashable]:
        """Return the places of the object in the wrapped driver. See `ManyPlaces.places`."""
        return places_of(self._attachment.inner[0], bucket, key, written=written)

    async def check_deletable(self, bucket: str, key: str) -> None:
        """Check a deletion on the wrapped driver. See `RefusesDeletions.check_deletable`."""
        await check_deletable(self._driver, bucket, key)

    # -- objects ---------------------------------------------------------------------------------

    async def put(
        self, bucket: str, key: str, views: Sequence[memoryview], options: PutOptions
    ) -> ObjectInfo:
        """Store the object. See `AsyncDriver.put`."""
        return await self._driver.put(bucket, key, views, options)

    def get(
        self, bucket: str, key: str, options: GetOptions
    ) -> AbstractAsyncContextManager[DriverReader]:
        """Open the object's body. See `AsyncDriver.get`."""
        return self._driver.get(bucket, key, options)

    async def head(self, bucket: str, key: str, version_id: str | None = None) -> ObjectInfo:
        """Return the object's info. See `AsyncDriver.head`."""
        return await self._driver.head(bucket, key, version_id)

    async def delete(self, bucket: str, key: str, options: DeleteOptions) -> None:
        """Delete the object. See `AsyncDriver.delete`."""
        await self._driver.delete(bucket, key, options)

    async def list_page(self, bucket: str, options: ListOptions) -> Page:
        """Return one page of the bucket's objects. See `AsyncDriver.list_page`."""
        return await self._driver.list_page(bucket, options)

    # -- buckets ---------------------------------------------------------------------------------

    async def create_bucket(self, bucket: str) -> None:
        """Create the bucket. See `AsyncDriver.create_bucket`."""
        await self._driver.create_bucket(bucket)

    async def delete_bucket(self, bucket: str) -> None:
        """Delete the empty bucket. See `AsyncDriver.delete_bucket`."""
        await self._driver.delete_bucket(bucket)

    async def head_bucket(self, bucket: str) -> BucketInfo:
        """Return the bucket's info. See `AsyncDriver.head_bucket`."""
        return await self._driver.head_bucket(bucket)

    async def list_buckets(self) -> Sequence[BucketInfo]:
        """Return the buckets, sorted by name. See `AsyncDriver.list_buckets`."""
        return await self._driver.list_buckets()

    # -- optional protocols: called only if the capabilities claim them ---------------------------

    def upload(
        self, bucket: str, key: str, options: PutOptions
    ) -> AbstractAsyncContextManager[Upload]:
        """Open an upload in parts. See `Uploading.upload`."""
        return cast("Uploading", self._driver).upload(bucket, key, options)

    async def copy(
        self, src_bucket: str, src_key: str, dst_bucket: str, dst_key: str, options: CopyOptions
    ) -> ObjectInfo:
        """Copy within the service. See `Copying.copy`."""
        driver = cast("Copying", self._driver)
        return await driver.copy(src_bucket, src_key, dst_bucket, dst_key, options)

    async def delete_many(self, bucket: str, keys: Sequence[str]) -> Sequence[DeleteResult]:
        """Delete the keys, and return one result for each. See `BulkDeleting.delete_many`."""
        return await cast("BulkDeleting", self._driver).delete_many(bucket, keys)

    async def presign(
        self, method: str, bucket: str, key: str, expires: float, options: PresignOptions
    ) -> str:
        """Return a presigned URL. See `Presigning.presign`."""
        return await cast("Presigning", self._driver).presign(method, bucket, key, expires, options)

    async def version_page(self, bucket: str, options: ListOptions) -> VersionPage:
        """Return one page of the versions of the bucket's objects. See `Versioned.version_page`."""
        return await cast("Versioned", self._driver).version_page(bucket, options)

    async def compare(
        self, bucket: str, options: ListOptions, *, deep: bool = False
    ) -> ComparedPage:
        """Compare the replicas of one page of keys. See `Replicated.compare`."""
        return await cast("Replicated", self._driver).compare(bucket, options, deep=deep)

    async def repair(self, bucket: str, key: str) -> Repaired:
        """Make the replicas of an object equal. See `Replicated.repair`."""
        return await cast("Replicated", self._driver).repair(bucket, key)
