"""`Mirrored`: stores copies of every object on several drivers."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, contextmanager, suppress
from dataclasses import replace
from typing import Literal, cast

from trove_async._concurrency import shielded, task_group
from trove_async.driver import (
    AsyncDriver,
    BulkDeleting,
    CannotCopyError,
    Capabilities,
    Copying,
    DriverContext,
    DriverReader,
    Upload,
    Versioned,
)
from trove_async.errors import (
    BucketExistsError,
    BucketNotEmptyError,
    BucketNotFoundError,
    ConfigError,
    InvalidNameError,
    NotFoundError,
    NotSupportedError,
    ObjectNotFoundError,
    PreconditionFailedError,
    TroveError,
    UnavailableError,
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

from ._attachment import repr_of
from ._copies.bodies import MemberGet
from ._copies.combined import common_capabilities
from ._copies.members import Members
from ._copies.repairs import Repairs
from ._copies.replicas import KeyLocks, Replicas, not_acknowledged
from ._copies.upload import MirroredUpload
from ._urls import as_driver


class Mirrored:
    """A layer that stores every object on a primary and on replicas.

    The body of a put is read once, and each part is sent to all members. The primary decides the
    conditions and is written first, so a put that the primary refuses leaves nothing on a replica. Reads
    and listings come from the first member that is available: the primary, or else the first replica.
    "Not available" means an UnavailableError after the retries of that member. All other errors are
    results, such as a missing object. A body that breaks continues on another member whose object is proved
    to have the same bytes: both come from one put, or have the same checksum. Further requests for the same
    version go to the member that it was read from.

    A replica slows a write only while it must acknowledge it. The others go on by themselves, with a
    copy of their part in free memory of the pool. One that falls behind, or gets no memory, or fails,
    misses the object. It is reported by `ObjectInfo.missed_replicas` if that is known when the put
    returns, and by an event of the kind ``missed`` in any case. `Replicated.compare` finds what replicas
    missed, and `Replicated.repair` copies it, also after a crash.

    If fewer members than required acknowledge a write, it raises UnavailableError. `TroveError.maybe_done`
    and the message show whether the primary has stored the object. An upload in parts is stopped before anything is visible
    if the replicas fail before the commit. After that, and for a put in one request, the primary has the
    object: like every UnavailableError, the error means that the write may have succeeded. Undoing it
    could lose a newer object, and the earlier one could not be restored.

    A key that a replica cannot store is refused before the primary stores it, if replicas must
    acknowledge: on services with directories, such keys have empty segments or very long ones.

    Writes of one key through this layer reach all members in the same order. Writes of other processes
    may reach them in a different order, which the repair job corrects. A replica that missed a deletion still
    has the object, so it is read again while the primary is not available.

    Etags, version ids and page tokens of the primary are passed as they are, and those of a replica are
    tagged. A get with an etag begins on its member, and on no other one. A write with a replica's etag is made
    on the primary if both have the same object, and fails otherwise.

    Versions belong to one member: a version is read and deleted only there, and a replica may keep a bucket
    that has only older versions when the bucket is deleted. Presigned URLs are not
    supported, because a PUT would reach one member only. Do not write to a replica by itself, for example
    as a backend of its own. A move between the mirror and a member that is a backend raises
    NotSupportedError: it could delete the only copy.

    Args:
        primary: The first member, as a driver or a URL.
        *replicas: The other members.
        acknowledge: What a write waits for: ``"all"`` members, only the ``"primary"``, or a number of
            members including the primary.

    Raises:
        ConfigError: There is no replica, `acknowledge` is out of range, a URL is not valid, one driver
            is passed twice, or two members store at one place.
        TypeError: An argument has the wrong type.

    Example:
        >>> from trove_async.drivers import MemoryDriver
        >>> mirror = Mirrored(MemoryDriver(), "mem://", acknowledge="primary")
    """

    def __init__(
        self,
        primary: AsyncDriver | str,
        *replicas: AsyncDriver | str,
        acknowledge: Literal["all", "primary"] | int = "all",
    ) -> None:
        drivers = [as_driver(driver) for driver in (primary, *replicas)]
        self._members = Members("Mirrored", drivers, "replica")
        self._acknowledge = acknowledge
        needed = _acknowledgements(acknowledge, len(drivers)) - 1
        self._replicas = Replicas(self._members, needed)
        self._locks = KeyLocks()
        self._capabilities: Capabilities | None = None
        self._repairs = Repairs(self._members, self._replicas, self._locks)

    def __repr__(self) -> str:
        return repr_of(self, f"acknowledge={getattr(self, '_acknowledge', None)!r}")

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
        """What all members support, with the conditions that the primary supports."""
        if self._capabilities is None:
            return self._combined()
        return self._capabilities

    def _combined(self) -> Capabilities:
        members = self._members.attachment.current
        primary = members[0].capabilities
        # A storage class is the name of one service.
        same_service = len({driver.name for driver in members}) == 1
        common = common_capabilities([driver.capabilities for driver in members])
        return replace(
            common,
            put_if_none_match=primary.put_if_none_match,
            put_if_match=primary.put_if_match,
            commit_conditions=primary.commit_conditions,
            copy_conditions=primary.copy_conditions,
            delete_if_match=primary.delete_if_match,
            storage_class=common.storage_class and same_service,
            presign=False,
            presign_requires="",
            settles_doubt=False,
            replicated=True,
        )

    async def open(self, context: DriverContext) -> None:
        """Open all members. See `AsyncDriver.open`.

        Raises:
            DriverInUseError: The layer is open, or being opened, in another store.
        """
        await self._members.open(context)
        self._replicas.open()
        self._capabilities = self._combined()

    async def aclose(self) -> None:
        """Cancel the writes of replicas that are still running. Idempotent. The store closes the members."""
        await self._replicas.aclose()
        self._members.attachment.close()

    async def ping(self) -> None:
        """Check that enough members respond for a write. See `AsyncDriver.ping`."""
        primary, *others = self._members.drivers
        failed: dict[int, BaseException | None] = {}

        async def ping(number: int, driver: AsyncDriver) -> None:
            try:
                await driver.ping()
            except TroveError as error:
                failed[number] = error

        async def ping_primary() -> None:
            with self._members.naming(0):
                await primary.ping()

        async with task_group() as group:
            group.start_soon(ping_primary)
            if self._replicas.needed:
                for number, driver in enumerate(others, 1):
                    group.start_soon(ping, number, driver)
        if len(others) - len(failed) < self._replicas.needed:
            raise not_acknowledged("ping", self._members.names, failed, stored=False)

    def place(self, bucket: str, key: str) -> Hashable:
        """Return the place of the object in the primary. See `AsyncDriver.place`."""
        return self.inner[0].place(bucket, key)

    def places(self, bucket: str, key: str, *, written: bool = False) -> Sequence[Hashable]:
        """Return the places of the object in all members. See `ManyPlaces.places`."""
        return self._members.places(bucket, key, written=written)

    # -- reads -----------------------------------------------------------------------------------

    def get(
        self, bucket: str, key: str, options: GetOptions
    ) -> AbstractAsyncContextManager[DriverReader]:
        """Open the object's body on the first available member. See `AsyncDriver.get`."""
        return MemberGet(self._members, bucket, key, options, on_missing=False)

    async def head(self, bucket: str, key: str, version_id: str | None = None) -> ObjectInfo:
        """Return the object's info from the first available member. See `AsyncDriver.head`."""

        async def head(member: int, driver: AsyncDriver) -> ObjectInfo:
            own_id = self._members.own(version_id)
            return self._members.info(member, await driver.head(bucket, key, own_id))

        only = self._members.owner(None, version_id)
        return await self._members.read("head", bucket, key, head, only=only)

    async def list_page(self, bucket: str, options: ListOptions) -> Page:
        """Return one page from the first available member. See `AsyncDriver.list_page`."""
        ordered = self.capabilities.ordered
        return await self._members.list_page(bucket, options, ordered=ordered)

    async def version_page(self, bucket: str, options: ListOptions) -> VersionPage:
        """Return one page of versions from the first available member. See `Versioned.version_page`."""

        async def request(driver: AsyncDriver, own: ListOptions) -> VersionPage:
            return await cast("Versioned", driver).version_page(bucket, own)

        return await self._members.version_page(bucket, options, request)

    async def head_bucket(self, bucket: str) -> BucketInfo:
        """Return the bucket's info from the first available member. See `AsyncDriver.head_bucket`."""

        async def head(_: int, driver: AsyncDriver) -> BucketInfo:
            return await driver.head_bucket(bucket)

        return await self._members.read("head_bucket", bucket, None, head)

    async def list_buckets(self) -> Sequence[BucketInfo]:
        """Return the buckets of the first available member. See `AsyncDriver.list_buckets`."""

        async def list_buckets(_: int, driver: AsyncDriver) -> Sequence[BucketInfo]:
            return await driver.list_buckets()

        return await self._members.read("list_buckets", None, None, list_buckets)

    # -- writes ----------------------------------------------------------------------------------

    async def put(
        self, bucket: str, key: str, views: Sequence[memoryview], options: PutOptions
    ) -> ObjectInfo:
        """Store the object on the primary, then on the replicas. See `AsyncDriver.put`.

        Raises:
            UnavailableError: Too few members have stored it. The primary may have: see `TroveError.maybe_done`.
        """
        primary = self._members.drivers[0]
        await self._replicas.check_key(bucket, key)
        options = await self._with_conditions_of_primary(bucket, key, options)
        unconditional = replace(options, if_match=None, if_none_match=None)

        async def follow(driver: AsyncDriver, _: int, body: Sequence[memoryview]) -> None:
            await driver.put(bucket, key, body, unconditional)

        async with self._locks.hold(bucket, key):
            with self._reporting_doubt("put", bucket, key):
                info = await primary.put(bucket, key, views, options)
            missed = await self._replicas.follow("put", bucket, key, follow, views)
        info = self._members.info(0, info)
        return replace(info, missed_replicas=missed) if missed else info

    def upload(
        self, bucket: str, key: str, options: PutOptions
    ) -> AbstractAsyncContextManager[Upload]:
        """Open an upload to all members. See `Uploading.upload` and `MirroredUpload`."""
        return MirroredUpload(
            bucket,
            key,
            options,
            members=self._members,
            replicas=self._replicas,
            locks=self._locks,
            find_conditions=lambda own: self._with_conditions_of_primary(bucket, key, own),
            window=self.capabilities.parallel_parts,
        )

    async def copy(
        self, src_bucket: str, src_key: str, dst_bucket: str, dst_key: str, options: CopyOptions
    ) -> ObjectInfo:
        """Copy on the primary, then on the replicas. See `Copying.copy`.

        A replica copies its own source if that is the same object. Otherwise it gets the copy from the
        primary.
        """
        if self._members.owner(options.source.etag, options.source.version_id):
            raise CannotCopyError("only a replica has this version: it is copied through the store")
        await self._replicas.check_key(dst_bucket, dst_key)
        put = await self._with_conditions_of_primary(dst_bucket, dst_key, options.put)
        source = self._members.own_info(options.source)
        version_id = self._members.own(options.version_id)
        own = replace(options, source=source, put=put, version_id=version_id)
        unconditional = replace(put, if_match=None, if_none_match=None)

        async def follow(driver: AsyncDriver, number: int, _: Sequence[memoryview]) -> None:
            if version_id is None:
                try:
                    there = await driver.head(src_bucket, src_key)
                    if self._repairs.is_copy(number, source, there):
                        await cast("Copying", driver).copy(
                            src_bucket,
                            src_key,
                            dst_bucket,
                            dst_key,
                            CopyOptions(source=there, put=unconditional),
                        )
                        return
                except (NotFoundError, PreconditionFailedError, CannotCopyError):
                    pass  # the replica lacks the source, has another one, or cannot copy it
            await self._repairs.follow_primary(number, dst_bucket, dst_key)

        async with self._locks.hold(dst_bucket, dst_key):
            primary = cast("Copying", self._members.drivers[0])
            with self._reporting_doubt("copy", dst_bucket, dst_key):
                info = await primary.copy(src_bucket, src_key, dst_bucket, dst_key, own)
            missed = await self._replicas.follow("copy", dst_bucket, dst_key, follow)
        info = self._members.info(0, info)
        return replace(info, missed_replicas=missed) if missed else info

    async def delete(self, bucket: str, key: str, options: DeleteOptions) -> None:
        """Delete the object on the primary, then on the replicas. See `AsyncDriver.delete`.

        A version is deleted on its own member. The replicas then get the primary's latest version.

        Raises:
            UnavailableError: Too few members have deleted it.
        """
        member = 0
        if options.version_id is not None:
            member = self._members.owner(options.if_match, options.version_id) or 0
        elif options.if_match is not None:
            etag = await self._etag_of_primary(bucket, key, options.if_match)
            options = replace(options, if_match=etag)
        if options.version_id is not None:
            options = replace(
                options,
                version_id=self._members.own(options.version_id),
                if_match=self._members.own(options.if_match),
            )

        async def follow(driver: AsyncDriver, number: int, _: Sequence[memoryview]) -> None:
            if options.version_id is not None:
                return await self._repairs.follow_primary(number, bucket, key)
            with suppress(BucketNotFoundError):
                await driver.delete(bucket, key, DeleteOptions(write_id=options.write_id))
            return None

        async with self._locks.hold(bucket, key):
            with self._reporting_doubt("delete", bucket, key):
                await self._members.drivers[member].delete(bucket, key, options)
            if member == 0:
                await self._replicas.follow("delete", bucket, key, follow)

    async def delete_many(self, bucket: str, keys: Sequence[str]) -> Sequence[DeleteResult]:
        """Delete the keys on the primary, then on the replicas. See `BulkDeleting.delete_many`."""
        primary = cast("BulkDeleting", self._members.drivers[0])
        failed: dict[str, dict[int, BaseException | None]] = {}

        async with AsyncExitStack() as stack:
            # In one order, so that two calls never wait for each other.
            for key in sorted(set(keys)):
                await stack.enter_async_context(self._locks.hold(bucket, key))
            with self._reporting_doubt("delete", bucket, None):
                results = await primary.delete_many(bucket, keys)
            deleted = [result.key for result in results if result.error is None]

            async def follow(driver: AsyncDriver, number: int, _: Sequence[memoryview]) -> None:
                with suppress(BucketNotFoundError):
                    for result in await cast("BulkDeleting", driver).delete_many(bucket, deleted):
                        if result.error is not None:
                            failed.setdefault(result.key, {})[number] = result.error
                            self._replicas.missed(
                                number, "delete", bucket, result.key, result.error
                            )

            if not deleted:
                return results
            shared: TroveError | None = None
            try:
                await self._replicas.follow("delete", bucket, None, follow, keys=deleted)
            except UnavailableError as error:
                shared = error
        return [
            result if result.error is not None else self._delete_result(result.key, failed, shared)
            for result in results
        ]

    def _delete_result(
        self,
        key: str,
        failed: Mapping[str, Mapping[int, BaseException | None]],
        shared: TroveError | None,
    ) -> DeleteResult:
        """Return the result of a key that the primary has deleted."""
        errors = failed.get(key, {})
        if shared is None and len(self._replicas.numbers) - len(errors) < self._replicas.needed:
            shared = not_acknowledged("delete", self._members.names, errors, stored=True)
        return DeleteResult(key=key, error=shared)

    # -- buckets ---------------------------------------------------------------------------------

    async def create_bucket(self, bucket: str) -> None:
        """Create the bucket on all members. See `AsyncDriver.create_bucket`.

        It is created on the replicas first. So a bucket that is visible can be written, also after a
        cancel, and a replica that lacks an existing one gets it.
        """
        created: list[AsyncDriver] = []

        async def follow(driver: AsyncDriver, _: int, __: Sequence[memoryview]) -> None:
            try:
                await driver.create_bucket(bucket)
            except BucketExistsError:
                await driver.head_bucket(bucket)  # raises if it belongs to another account
            else:
                created.append(driver)

        try:
            await self._replicas.follow("create_bucket", bucket, None, follow, comes_first=True)
            with self._members.naming(0):
                await self._members.drivers[0].create_bucket(bucket)
        except BucketExistsError:
            raise
        except TroveError as error:
            if not error.maybe_done:
                await self._undo(bucket, created)
            if isinstance(error.__cause__, InvalidNameError):
                raise error.__cause__ from None  # a replica cannot have a bucket of this name
            raise

    async def _undo(self, bucket: str, created: Sequence[AsyncDriver]) -> None:
        """Delete a bucket that a member has refused. A replica that fails keeps an empty bucket."""
        with shielded():
            for driver in created:
                with suppress(TroveError):
                    await driver.delete_bucket(bucket)

    async def delete_bucket(self, bucket: str) -> None:
        """Delete the empty bucket on all members. See `AsyncDriver.delete_bucket`.

        Raises:
            BucketNotEmptyError: A member has objects in it, such as one whose deletion it missed.
            UnavailableError: Too few members are available.
        """
        primary, *others = self._members.drivers
        failed: dict[int, BaseException | None] = {}
        # 1. Check all members before anything is deleted, once the replicas have caught up.
        await self._replicas.settle(bucket)
        with self._members.naming(0):
            page = await primary.list_page(bucket, ListOptions(limit=1))
        if page.entries:
            raise BucketNotEmptyError("the bucket must be empty, but has objects", bucket=bucket)
        for number, driver in enumerate(others, 1):
            try:
                page = await driver.list_page(bucket, ListOptions(limit=1))
            except BucketNotFoundError:
                continue
            except UnavailableError as error:
                failed[number] = error
                continue
            if page.entries:
                raise BucketNotEmptyError(
                    f"the bucket must be empty, but {self._members.names[number]} has"
                    f" {page.entries[0].key!r}, whose deletion it missed: run the repair job",
                    bucket=bucket,
                )
        if len(others) - len(failed) < self._replicas.needed:
            raise not_acknowledged("delete_bucket", self._members.names, failed, stored=False)

        # 2. Delete it.
        async def follow(driver: AsyncDriver, number: int, _: Sequence[memoryview]) -> None:
            try:
                await driver.delete_bucket(bucket)
            except BucketNotFoundError:
                pass
            except BucketNotEmptyError as error:  # it has older versions, which stay
                self._replicas.missed(number, "delete_bucket", bucket, None, error)

        with self._members.naming(0):
            await primary.delete_bucket(bucket)
        await self._replicas.follow("delete_bucket", bucket, None, follow)

    # -- repair ----------------------------------------------------------------------------------

    async def compare(
        self, bucket: str, options: ListOptions, *, deep: bool = False
    ) -> ComparedPage:
        """Compare the members' objects. See `Replicated.compare`."""
        ordered = self.capabilities.ordered
        return await self._repairs.compare(bucket, options, deep=deep, ordered=ordered)

    async def repair(self, bucket: str, key: str) -> Repaired:
        """Make the replicas' object like the primary's. See `Replicated.repair`."""
        return await self._repairs.repair(bucket, key)

    async def presign(
        self, method: str, bucket: str, key: str, expires: float, options: PresignOptions
    ) -> str:
        """Raise NotSupportedError: a presigned PUT would reach one member only."""
        del method, bucket, key, expires, options
        raise NotSupportedError("a mirror does not support presigned URLs")

    # -- conditions ------------------------------------------------------------------------------

    async def _with_conditions_of_primary(
        self, bucket: str, key: str, options: PutOptions
    ) -> PutOptions:
        if options.if_match is None:
            return options
        etag = await self._etag_of_primary(bucket, key, options.if_match)
        return options if etag == options.if_match else replace(options, if_match=etag)

    async def _etag_of_primary(self, bucket: str, key: str, etag: str) -> str:
        """Return the primary's own etag of the object that an etag names.

        Raises:
            PreconditionFailedError: The etag is that of a replica, which has another object by now, or
                whose object is not the primary's.
            UnavailableError: The primary or the replica is not available.
        """
        member, own = self._members.untag(etag)
        if member == 0:
            return own
        try:
            with self._members.naming(member):
                there = await self._members.drivers[member].head(bucket, key)
            with self._members.naming(0):
                here = await self._members.drivers[0].head(bucket, key)
        except ObjectNotFoundError as error:
            raise _condition_failed(bucket, key) from error
        if there.etag != own or here.etag is None:
            raise _condition_failed(bucket, key)
        if not self._repairs.is_copy(member, here, there):
            raise _condition_failed(bucket, key)
        return here.etag

    @contextmanager
    def _reporting_doubt(self, operation: str, bucket: str, key: str | None) -> Iterator[None]:
        """Report that all replicas have missed a write if the primary may have made it nevertheless."""
        try:
            with self._members.naming(0):
                yield
        except BaseException as error:
            # A cancel has no `maybe_done`, and may arrive after the write.
            if getattr(error, "maybe_done", not isinstance(error, Exception)):
                for number in self._replicas.numbers:
                    self._replicas.missed(number, operation, bucket, key, error)
            raise


def _condition_failed(bucket: str, key: str) -> PreconditionFailedError:
    return PreconditionFailedError(
        "if_match: the etag is that of a replica, whose object is not the current one of the primary",
        bucket=bucket,
        key=key,
    )


def _acknowledgements(acknowledge: Literal["all", "primary"] | int, members: int) -> int:
    """Return the number of members that must acknowledge a write, including the primary."""
    if acknowledge == "all":
        return members
    if acknowledge == "primary":
        return 1
    if not isinstance(acknowledge, int) or isinstance(acknowledge, bool):
        raise TypeError(
            f"acknowledge must be 'all', 'primary' or an int, got {type(acknowledge).__name__}"
            if not isinstance(acknowledge, str)
            else f"acknowledge must be 'all', 'primary' or an int, got {acknowledge!r}"
        )
    if not 1 <= acknowledge <= members:
        raise ConfigError(f"acknowledge must be from 1 to {members}, got {acknowledge}")
    return acknowledge
