"""`Fallback`: reads from further drivers if the first one is not available, or lacks an object."""

from __future__ import annotations

from collections.abc import AsyncIterator, Hashable, Iterator, Mapping, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
    contextmanager,
    suppress,
)
from dataclasses import replace
from typing import cast

from trove_async._settings import check_switches
from trove_async.driver import (
    AsyncDriver,
    BulkDeleting,
    CannotCopyError,
    Capabilities,
    Copying,
    DriverContext,
    DriverReader,
    PartSource,
    Presigning,
    Replicated,
    StreamedUpload,
    Upload,
    Uploading,
    Versioned,
    places_of,
)
from trove_async.errors import (
    NotSupportedError,
    ObjectExistsError,
    ObjectNotFoundError,
    PreconditionFailedError,
)
from trove_async.models import BucketInfo, DeleteResult, ObjectInfo
from trove_async.options import (
    ComparedPage,
    CopyOptions,
    DeleteOptions,
    GetOptions,
    ListOptions,
    Page,
    Part,
    PresignOptions,
    PutOptions,
    Repaired,
    VersionPage,
)

from ._attachment import repr_of
from ._copies.bodies import MemberGet
from ._copies.combined import common_capabilities
from ._copies.members import Members
from ._copies.united import United, condition_failed
from ._urls import as_driver


class Fallback:
    """A layer that reads from further drivers if the primary is not available, or lacks the object.

    Reads, heads and listings come from the first member that is available. "Not available" means an
    UnavailableError after the retries of that member. All other errors are results, above all a missing
    object, unless `on_missing` is True. Writes go to the primary alone. A read that was answered by
    another member, because one is not available, emits an event of the kind ``fallback``. A body that
    breaks continues on another member whose object is proved to have the same bytes, by its checksum or
    by the write_id of one put. Further requests for the same version go to the member that it was read from.

    With `on_missing` the members together are one set of objects, for a migration: objects are written to
    the primary, and read from the first member that has them. A bucket exists if any member has it.

    * Listings merge the members. Each key is listed once, as the first member has it. If a member is not
      ordered, the members follow one another, and each key of a later one costs a head.
    * A deletion deletes the object on all members, the primary last, because an older one would be
      visible otherwise. A bucket is deleted on all members as well, if it is empty on all. An object or a
      bucket that a read-only member has is refused before anything is deleted, and so is its move.
    * A put with ``if_none_match="*"`` or ``if_match`` also sees the objects of the other members. They
      are checked before the primary's put, which itself is conditional. Another process may change the
      object of another member in between.
    * A copy of an object that only another member has passes through the store.
    * Versions and presigned URLs are not supported, because they belong to one member.

    A missing object costs one request for each member. If a member is not available and the others lack
    the object, the error is that of the former: the object may exist.

    A move from the layer to a member that is a backend of its own raises NotSupportedError: it could delete
    the only copy. A copy to the primary fetches what only another member has.

    Etags and version ids of the primary are passed as they are, and those of another member are tagged. A
    get with such a value begins on that member, and on no other one.

    Args:
        primary: The first member, as a driver or a URL.
        *others: The other members, in the order in which they are asked.
        on_missing: Whether to ask the next member also for an object or a bucket that one lacks.

    Raises:
        ConfigError: There is no other member, a URL is not valid, one driver is passed twice, or two members
            store at one place.
        TypeError: An argument has the wrong type.

    Example:
        >>> from trove_async.drivers import MemoryDriver
        >>> new, old = MemoryDriver(), MemoryDriver()
        >>> migration = Fallback(new, old, on_missing=True)
    """

    def __init__(
        self, primary: AsyncDriver | str, *others: AsyncDriver | str, on_missing: bool = False
    ) -> None:
        check_switches(on_missing=on_missing)
        drivers = [as_driver(driver) for driver in (primary, *others)]
        self._members = Members("Fallback", drivers, "member")
        self._on_missing = on_missing
        self._united = United(self._members)
        self._capabilities: Capabilities | None = None

    def __repr__(self) -> str:
        return repr_of(self, "on_missing=True" if getattr(self, "_on_missing", False) else "")

    @property
    def inner(self) -> Sequence[AsyncDriver]:
        """The members, the primary first."""
        return self._members.attachment.inner

    @property
    def name(self) -> str:
        """The service name of the primary."""
        return self.inner[0].name

    @property
    def capabilities(self) -> Capabilities:
        """For writes what the primary supports, and for reads what all members support."""
        if self._capabilities is None:
            return self._combined()
        return self._capabilities

    def _combined(self) -> Capabilities:
        members = [driver.capabilities for driver in self._members.attachment.current]
        primary, common = members[0], common_capabilities(members)
        combined = replace(
            primary,
            get_conditions=common.get_conditions,
            ranges=common.ranges,
            checksums=common.checksums,
            parallel_reads=common.parallel_reads,
            versions=common.versions,
            ordered=common.ordered,
            exact_keys=common.exact_keys,
            embedded=common.embedded,
            max_reads=common.max_reads,
            max_requests=common.max_requests,
            dot_segments=common.dot_segments,
            settles_doubt=False,
        )
        if not self._on_missing:
            return combined
        return replace(
            combined,
            delete_if_match=common.delete_if_match,
            bulk_delete=common.bulk_delete,
            versions=False,
            presign=False,
            presign_requires="",
        )

    async def open(self, context: DriverContext) -> None:
        """Open all members. See `AsyncDriver.open`.

        Raises:
            DriverInUseError: The layer is open, or being opened, in another store.
        """
        await self._members.open(context)
        self._capabilities = self._combined()

    async def aclose(self) -> None:
        """Detach from the members, which the store closes. Idempotent."""
        self._members.attachment.close()

    async def ping(self) -> None:
        """Ping the primary, which all writes need. See `AsyncDriver.ping`."""
        with self._members.naming(0):
            await self._primary.ping()

    def place(self, bucket: str, key: str) -> Hashable:
        """Return the place of the object in the primary. See `AsyncDriver.place`."""
        return self.inner[0].place(bucket, key)

    def places(self, bucket: str, key: str, *, written: bool = False) -> Sequence[Hashable]:
        """Return the places of the object in all members. Only the primary is written. See `ManyPlaces.places`."""
        if written:
            return places_of(self.inner[0], bucket, key, written=True)
        return self._members.places(bucket, key)

    @property
    def _primary(self) -> AsyncDriver:
        return self._members.drivers[0]

    @property
    def _others(self) -> Mapping[int, AsyncDriver]:
        return dict(list(enumerate(self._members.drivers))[1:])

    # -- reads -----------------------------------------------------------------------------------

    def get(
        self, bucket: str, key: str, options: GetOptions
    ) -> AbstractAsyncContextManager[DriverReader]:
        """Open the object's body on the first member that can. See `AsyncDriver.get`."""
        return MemberGet(self._members, bucket, key, options, on_missing=self._on_missing)

    async def head(self, bucket: str, key: str, version_id: str | None = None) -> ObjectInfo:
        """Return the object's info from the first member that can. See `AsyncDriver.head`."""

        async def head(member: int, driver: AsyncDriver) -> ObjectInfo:
            own_id = self._members.own(version_id)
            return self._members.info(member, await driver.head(bucket, key, own_id))

        return await self._members.read(
            "head",
            bucket,
            key,
            head,
            only=self._members.owner(None, version_id),
            on_missing=self._on_missing,
        )

    async def list_page(self, bucket: str, options: ListOptions) -> Page:
        """Return one page, of the first available member or merged. See `AsyncDriver.list_page`."""
        listing = self._united if self._on_missing else self._members
        return await listing.list_page(bucket, options, ordered=self.capabilities.ordered)

    async def version_page(self, bucket: str, options: ListOptions) -> VersionPage:
        """Return one page of versions from the first available member. See `Versioned.version_page`."""
        self._refuse_with_on_missing("versions")

        async def request(driver: AsyncDriver, own: ListOptions) -> VersionPage:
            return await cast("Versioned", driver).version_page(bucket, own)

        return await self._members.version_page(bucket, options, request)

    # -- writes ----------------------------------------------------------------------------------

    async def put(
        self, bucket: str, key: str, views: Sequence[memoryview], options: PutOptions
    ) -> ObjectInfo:
        """Store the object on the primary. See `AsyncDriver.put`."""
        options, foreign = await self._conditions(bucket, key, options)
        with self._members.naming(0), _translating(foreign):
            return self._members.info(0, await self._primary.put(bucket, key, views, options))

    @asynccontextmanager
    async def upload(self, bucket: str, key: str, options: PutOptions) -> AsyncIterator[Upload]:
        """Open an upload to the primary. See `Uploading.upload`.

        Conditions on the objects of other members are checked before the first part and before the
        commit.
        """
        own, foreign = await self._conditions(bucket, key, options)
        async with AsyncExitStack() as stack:
            with self._members.naming(0):
                upload = await stack.enter_async_context(
                    cast("Uploading", self._primary).upload(bucket, key, own)
                )
            yield _Upload(self, upload, bucket, key, options, foreign=foreign)

    async def copy(
        self, src_bucket: str, src_key: str, dst_bucket: str, dst_key: str, options: CopyOptions
    ) -> ObjectInfo:
        """Copy within the primary. See `Copying.copy`.

        Raises:
            CannotCopyError: Another member has the source.
        """
        elsewhere = CannotCopyError(
            "another member has this object: it is copied through the store"
        )
        if self._members.owner(options.source.etag, options.source.version_id):
            raise elsewhere
        put, foreign = await self._conditions(dst_bucket, dst_key, options.put)
        own = replace(
            options,
            source=self._members.own_info(options.source),
            put=put,
            version_id=self._members.own(options.version_id),
        )
        try:
            with self._members.naming(0), _translating(foreign):
                info = await cast("Copying", self._primary).copy(
                    src_bucket, src_key, dst_bucket, dst_key, own
                )
        except ObjectNotFoundError as error:
            # Without an etag, the member that returned the info of the source is unknown.
            if self._on_missing and options.source.etag is None:
                raise elsewhere from error
            raise
        return self._members.info(0, info)

    async def delete(self, bucket: str, key: str, options: DeleteOptions) -> None:
        """Delete the object on the primary, with `on_missing` on all members. See `AsyncDriver.delete`.

        Raises:
            PreconditionFailedError: ``if_match`` is not the etag of the object that a read returns.
            NotSupportedError: The version belongs to another member, or a read-only member has the
                object. Nothing was deleted.
        """
        if self._on_missing:
            return await self._united.delete(bucket, key, options)
        if self._members.owner(options.if_match, options.version_id):
            if options.version_id is not None:
                raise NotSupportedError("only versions of the primary can be deleted", key=key)
            await self._fail_condition(bucket, key)
        own = replace(
            options,
            if_match=self._members.own(options.if_match),
            version_id=self._members.own(options.version_id),
        )
        with self._members.naming(0):
            return await self._primary.delete(bucket, key, own)

    async def check_deletable(self, bucket: str, key: str) -> None:
        """Check that no read-only member has the object. See `RefusesDeletions.check_deletable`."""
        members = None if self._on_missing else (0,)
        await self._united.check_deletable(bucket, key, members=members)

    async def delete_many(self, bucket: str, keys: Sequence[str]) -> Sequence[DeleteResult]:
        """Delete the keys as `delete` does. See `BulkDeleting.delete_many`."""
        if self._on_missing:
            return await self._united.delete_many(bucket, keys)
        return await cast("BulkDeleting", self._primary).delete_many(bucket, keys)

    async def presign(
        self, method: str, bucket: str, key: str, expires: float, options: PresignOptions
    ) -> str:
        """Return a presigned URL of the primary. See `Presigning.presign`."""
        self._refuse_with_on_missing("presigned URLs")
        own = replace(options, version_id=self._members.own(options.version_id))
        return await cast("Presigning", self._primary).presign(method, bucket, key, expires, own)

    async def compare(
        self, bucket: str, options: ListOptions, *, deep: bool = False
    ) -> ComparedPage:
        """Compare the replicas of the primary. See `Replicated.compare`."""
        return await cast("Replicated", self._primary).compare(bucket, options, deep=deep)

    async def repair(self, bucket: str, key: str) -> Repaired:
        """Make the replicas of the primary's object equal. See `Replicated.repair`."""
        return await cast("Replicated", self._primary).repair(bucket, key)

    def _refuse_with_on_missing(self, feature: str) -> None:
        if self._on_missing:
            raise NotSupportedError(f"Fallback with on_missing does not support {feature}")

    # -- buckets ---------------------------------------------------------------------------------

    async def create_bucket(self, bucket: str) -> None:
        """Create the bucket on the primary, even if another member has it. See `AsyncDriver.create_bucket`."""
        with self._members.naming(0):
            await self._primary.create_bucket(bucket)

    async def delete_bucket(self, bucket: str) -> None:
        """Delete the empty bucket as `delete` does. See `AsyncDriver.delete_bucket`."""
        deleting = self._united if self._on_missing else self._primary
        await deleting.delete_bucket(bucket)

    async def head_bucket(self, bucket: str) -> BucketInfo:
        """Return the bucket's info from the first member that can. See `AsyncDriver.head_bucket`."""

        async def head(_: int, driver: AsyncDriver) -> BucketInfo:
            return await driver.head_bucket(bucket)

        return await self._members.read(
            "head_bucket", bucket, None, head, on_missing=self._on_missing
        )

    async def list_buckets(self) -> Sequence[BucketInfo]:
        """Return the buckets of the first available member, or of all. See `AsyncDriver.list_buckets`."""
        if self._on_missing:
            return await self._united.list_buckets()

        async def list_buckets(_: int, driver: AsyncDriver) -> Sequence[BucketInfo]:
            return await driver.list_buckets()

        return await self._members.read("list_buckets", None, None, list_buckets)

    # -- conditions ------------------------------------------------------------------------------

    async def _conditions(
        self, bucket: str, key: str, options: PutOptions
    ) -> tuple[PutOptions, bool]:
        """Check a put's conditions on other members. Return the primary's options.

        The second result is whether the primary must have no object, because another member has the one
        to be replaced.

        Raises:
            ObjectExistsError: Another member has the object that must not exist.
            PreconditionFailedError: The object to be replaced is another one.
        """
        if options.if_none_match is not None and self._on_missing:
            for member in self._others:
                if await self._united.find(member, bucket, key) is not None:
                    raise ObjectExistsError(
                        f"if_none_match: {self._members.names[member]} has the object",
                        bucket=bucket,
                        key=key,
                    )
        if options.if_match is None:
            return options, False
        member, etag = self._members.untag(options.if_match)
        if member == 0:
            return options if etag == options.if_match else replace(options, if_match=etag), False
        if not self._on_missing:
            await self._fail_condition(bucket, key)
        await self._united.check_current(bucket, key, member, etag)
        atomic = self._primary.capabilities.put_if_none_match
        return replace(options, if_match=None, if_none_match="*" if atomic else None), True

    async def _fail_condition(self, bucket: str, key: str) -> None:
        """Raise for a condition with the etag of another member, which the primary cannot have."""
        with suppress(ObjectNotFoundError):
            await self._primary.head(bucket, key)  # raises if the primary is not available
        raise condition_failed("the etag is that of another member: read it again", bucket, key)


class _Upload:
    """An upload to the primary, whose conditions on other members are checked again at its commit."""

    def __init__(
        self,
        layer: Fallback,
        upload: Upload,
        bucket: str,
        key: str,
        options: PutOptions,
        *,
        foreign: bool,
    ) -> None:
        self._layer = layer
        self._upload = upload
        self._bucket = bucket
        self._key = key
        self._options = options
        self._foreign = foreign
        if hasattr(upload, "send_stream"):
            self.send_stream = self._send_stream

    async def send(self, part: Part, views: Sequence[memoryview]) -> None:
        """Send the part to the primary. See `Upload.send`."""
        with self._layer._members.naming(0):  # noqa: SLF001 - same module
            await self._upload.send(part, views)

    async def _send_stream(self, part: Part, source: PartSource) -> None:
        with self._layer._members.naming(0):  # noqa: SLF001 - same module
            await cast("StreamedUpload", self._upload).send_stream(part, source)

    async def commit(self, checksums: Mapping[str, str]) -> ObjectInfo:
        """Commit to the primary. See `Upload.commit`."""
        layer = self._layer
        await layer._conditions(self._bucket, self._key, self._options)  # noqa: SLF001 - same module
        with layer._members.naming(0), _translating(self._foreign):  # noqa: SLF001 - same module
            return layer._members.info(0, await self._upload.commit(checksums))  # noqa: SLF001 - same module


@contextmanager
def _translating(foreign: bool) -> Iterator[None]:  # noqa: FBT001 - private
    """Translate the primary's error if it has got an object in place of another member's."""
    try:
        yield
    except ObjectExistsError as error:
        if not foreign:
            raise
        raise PreconditionFailedError(
            "if_match: the current version has a different etag", bucket=error.bucket, key=error.key
        ) from error
