"""The driver that wraps every driver of a service: permits, timeouts, retries and lost responses.

The first attempt of put, fetch, head and delete is made directly if a permit is free, no listener needs
events, the circuit is closed, and the driver applies the timeouts itself. If it fails, `Calls.retry`
continues after it. The four methods repeat the condition, because a function for it would be one more call
for each request; keep them alike. All other calls, and all other attempts, are made by `Calls.retry`.

Layers and the engine above it get final results: temporary failures have been retried (except those of
pings and presigned URLs), and writes that succeeded without their response arriving have been
recognised. `calls` describes which permits and memory a call holds.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import cast

from trove_async._concurrency import InFlight, shielded
from trove_async._own_methods import defines
from trove_async._secrets import redacted
from trove_async.driver import (
    AsyncDriver,
    Capabilities,
    Copying,
    CopyingFrom,
    DriverContext,
    DriverReader,
    OpenReader,
    Origin,
    Presigning,
    ReadsNow,
    Upload,
    Uploading,
    Versioned,
    check_deletable,
    fetch_of,
    places_of,
)
from trove_async.errors import (
    BucketExistsError,
    BucketNotFoundError,
    ObjectNotFoundError,
    PermissionDeniedError,
    PreconditionFailedError,
    TroveError,
)
from trove_async.models import BucketInfo, DeleteResult, MiB, ObjectInfo
from trove_async.options import (
    CopyOptions,
    DeleteOptions,
    GetOptions,
    ListOptions,
    Page,
    PresignOptions,
    PutOptions,
    VersionPage,
)
from trove_async.paging import filter_by_prefix

from .bulk_delete import BulkDelete
from .calls import Calls
from .download import ResumingReader
from .retries import FailedAttempt
from .upload import ResilientUpload

_COPIED_PER_IDLE_TIMEOUT = 64 * MiB
"""Bytes for which a copy gets an additional idle timeout: the server responds only at the end."""


class ResilientDriver:
    """An AsyncDriver that wraps the open driver of a service and retries its calls.

    Args:
        calls: The calls of the open driver.
    """

    def __init__(self, calls: Calls) -> None:
        self.calls = calls
        self.driver = calls.driver
        self.capabilities: Capabilities = calls.capabilities
        self._uploads = InFlight()
        self._fetch = fetch_of(self.driver)
        self._read_now = self.driver.read_now if isinstance(self.driver, ReadsNow) else None
        copies = defines(self.driver, "copies_from")
        self._copying_from = cast("CopyingFrom", self.driver) if copies else None

    @property
    def name(self) -> str:
        """The service's name."""
        return self.driver.name

    async def open(self, context: DriverContext) -> None:
        """Do nothing: the wrapped driver is open."""

    async def aclose(self) -> None:
        """Abort the uploads in flight, then close the driver."""
        await self._uploads.cancel_all()
        await self.driver.aclose()

    def place(self, bucket: str, key: str) -> Hashable:
        """Return the physical location of an object."""
        return self.driver.place(bucket, key)

    def places(self, bucket: str, key: str, *, written: bool = False) -> Sequence[Hashable]:
        """Return all physical locations of an object. See `ManyPlaces.places`."""
        return places_of(self.driver, bucket, key, written=written)

    async def check_deletable(self, bucket: str, key: str) -> None:
        """Check a deletion, once. See `RefusesDeletions.check_deletable`."""
        await check_deletable(self.driver, bucket, key)

    # -- objects ---------------------------------------------------------------------------------

    async def put(
        self, bucket: str, key: str, views: Sequence[memoryview], options: PutOptions
    ) -> ObjectInfo:
        """Store a body from memory. Recognise its own write after a lost response."""
        calls, failed = self.calls, None
        permits = calls.write_permits
        if calls.is_timed and not (calls.breaker.tripped or calls.events.listeners):
            started, successes = calls.clock(), calls.breaker.successes
            try:
                if not permits.try_acquire():
                    await calls.acquire(permits, "put", bucket, key)
                try:
                    info = await self.driver.put(bucket, key, views, options)
                finally:
                    permits.release()
            except TroveError as error:
                failed = FailedAttempt(error, successes, started)
            else:
                calls.succeeded()
                return info
        size = sum(map(len, views))
        lost_response = calls.track_lost_response(failed)
        return await calls.retry(
            "put",
            bucket,
            key,
            lambda: lost_response.watch(
                calls.write(
                    "put",
                    bucket,
                    key,
                    size,
                    lambda: self.driver.put(bucket, key, views, lost_response.put_options(options)),
                )
            ),
            recognise=lambda error: calls.recognise_write(error, bucket, key, options.write_id),
            failed=failed,
        )

    def get(
        self, bucket: str, key: str, options: GetOptions
    ) -> AbstractAsyncContextManager[DriverReader]:
        """Open a body that resumes after a broken connection."""
        return ResumingReader(self.calls, bucket, key, options)

    async def fetch(self, bucket: str, key: str, options: GetOptions) -> OpenReader:
        """Open a body as `get` does. A small one is received at once, and then holds no permit."""
        calls, failed = self.calls, None
        permits = calls.read_permits
        if (
            self._fetch is not None
            and calls.is_timed
            and not (calls.breaker.tripped or calls.events.listeners)
        ):
            started, successes = calls.clock(), calls.breaker.successes
            try:
                if not permits.try_acquire():
                    await calls.acquire(permits, "get", bucket, key)
                try:
                    reader = await self._fetch(bucket, key, options)
                except BaseException:
                    permits.release()
                    raise
            except TroveError as error:
                failed = FailedAttempt(error, successes, started)
            else:
                calls.succeeded()
                if reader.whole is not None:
                    permits.release()
                    return reader
                resuming = ResumingReader(calls, bucket, key, options)
                await resuming.adopt(reader)  # with the permit
                return resuming
        resuming = ResumingReader(calls, bucket, key, options)
        await resuming.open(failed)
        return resuming

    def read_now(
        self, bucket: str, key: str, start: int, end: int, if_match: str | None = None
    ) -> bytes | None:
        """Return a range if the driver can read it without waiting, else None. See `ReadsNow`."""
        # Such a read needs no permit. With listeners it returns None, so that they see each get.
        if self._read_now is None or self.calls.events:
            return None
        return self._read_now(bucket, key, start, end, if_match)

    async def head(self, bucket: str, key: str, version_id: str | None = None) -> ObjectInfo:
        """Return the object's metadata."""
        calls, failed = self.calls, None
        permits = calls.request_permits
        if calls.is_timed and not (calls.breaker.tripped or calls.events.listeners):
            started, successes = calls.clock(), calls.breaker.successes
            try:
                if not permits.try_acquire():
                    await calls.acquire(permits, "head", bucket, key)
                try:
                    info = await self.driver.head(bucket, key, version_id)
                finally:
                    permits.release()
            except TroveError as error:
                failed = FailedAttempt(error, successes, started)
            else:
                calls.succeeded()
                return info
        return await calls.head(bucket, key, version_id, failed)

    async def delete(self, bucket: str, key: str, options: DeleteOptions) -> None:
        """Delete the object. A retry that finds the object missing counts as a success.

        An earlier attempt, whose response was lost, has probably deleted it.
        """
        calls, failed = self.calls, None
        permits = calls.request_permits
        if calls.is_timed and not (calls.breaker.tripped or calls.events.listeners):
            started, successes = calls.clock(), calls.breaker.successes
            try:
                if not permits.try_acquire():
                    await calls.acquire(permits, "delete", bucket, key)
                try:
                    await self.driver.delete(bucket, key, options)
                finally:
                    permits.release()
            except TroveError as error:
                failed = FailedAttempt(error, successes, started)
            else:
                calls.succeeded()
                return

        async def recognise(error: TroveError) -> tuple[None] | None:
            if not isinstance(error, (PreconditionFailedError, ObjectNotFoundError)):
                return None
            try:
                await self.head(bucket, key, options.version_id)
            except ObjectNotFoundError:
                return (None,)
            return None

        lost_response = calls.track_lost_response(failed)
        await calls.retry(
            "delete",
            bucket,
            key,
            lambda: lost_response.watch(
                calls.request(
                    "delete",
                    bucket,
                    key,
                    self.driver.delete,
                    bucket,
                    key,
                    lost_response.delete_options(options),
                )
            ),
            recognise=recognise,
            failed=failed,
        )

    async def list_page(self, bucket: str, options: ListOptions) -> Page:
        """Return one page of the bucket's objects."""
        page = await self.calls.retry(
            "list",
            bucket,
            None,
            lambda: self.calls.request(
                "list", bucket, None, self.driver.list_page, bucket, options
            ),
        )
        return filter_by_prefix(page, options.prefix)

    # -- buckets ---------------------------------------------------------------------------------

    async def ping(self) -> None:
        """Check that the backend responds.

        A ping is not retried, because it reports the current state. It needs no permit: a healthy
        backend may have many waiting requests. It is sent even if the circuit breaker is open, and
        closes the breaker if it succeeds.
        """
        calls = self.calls
        await calls.breaker.record(
            lambda: redacted(calls.await_response(self.driver.ping()), calls.redact)
        )

    async def create_bucket(self, bucket: str) -> None:
        """Create the bucket. A retry that finds an accessible bucket counts as a success.

        If bucket names are global, an inaccessible bucket belongs to a different account.
        """

        async def recognise(error: TroveError) -> tuple[None] | None:
            if not isinstance(error, BucketExistsError):
                return None
            try:
                await self.head_bucket(bucket)
            except (PermissionDeniedError, BucketNotFoundError):
                return None
            return (None,)

        await self.calls.retry(
            "create_bucket",
            bucket,
            None,
            lambda: self.calls.request(
                "create_bucket", bucket, None, self.driver.create_bucket, bucket
            ),
            recognise=recognise,
        )

    async def delete_bucket(self, bucket: str) -> None:
        """Delete the bucket. A retry that finds the bucket missing counts as a success."""
        await self.calls.retry(
            "delete_bucket",
            bucket,
            None,
            lambda: self.calls.request(
                "delete_bucket", bucket, None, self.driver.delete_bucket, bucket
            ),
            recognise=_recognise_missing_bucket,
        )

    async def head_bucket(self, bucket: str) -> BucketInfo:
        """Return the bucket's metadata."""
        return await self.calls.retry(
            "head_bucket",
            bucket,
            None,
            lambda: self.calls.request(
                "head_bucket", bucket, None, self.driver.head_bucket, bucket
            ),
        )

    async def list_buckets(self) -> Sequence[BucketInfo]:
        """Return the buckets that these credentials own."""
        return await self.calls.retry(
            "list_buckets",
            None,
            None,
            lambda: self.calls.request("list_buckets", None, None, self.driver.list_buckets),
        )

    # -- optional protocols: called only if the capabilities claim them ---------------------------

    @asynccontextmanager
    async def upload(self, bucket: str, key: str, options: PutOptions) -> AsyncIterator[Upload]:
        """Open an upload whose parts and commit are retried.

        A cancel during the commit is raised once the commit's outcome is known, or after `COMMIT_SECONDS`
        (`ResilientUpload.commit`). The upload is not aborted before that, and the object stays if it
        was created.
        """
        driver = cast("Uploading", self.driver)
        context: AbstractAsyncContextManager[Upload]
        opened: Upload | None = None
        upload: ResilientUpload | None = None

        async def enter() -> Upload:
            nonlocal context, opened
            context = driver.upload(bucket, key, options)
            opened = await self.calls.request("upload", bucket, key, context.__aenter__)
            return opened

        with self._uploads.track():
            # 1. Open the upload and pass it to the caller.
            try:
                entered = await self.calls.retry("upload", bucket, key, enter)
                upload = ResilientUpload(self.calls, entered, bucket, key, options)
                yield upload
            # 2. After an error or a cancel, abort it, unless it has been committed.
            except BaseException as error:
                if opened is not None:
                    committed = upload is not None and upload.committed
                    with (
                        shielded(),
                        suppress(TroveError),
                    ):  # a failed abort leaves only unused parts
                        if committed:
                            await context.__aexit__(None, None, None)
                        else:
                            await context.__aexit__(type(error), error, error.__traceback__)
                raise
            # 3. Otherwise close it. It has been committed, so an error no longer matters.
            with shielded(), suppress(TroveError):
                await context.__aexit__(None, None, None)

    async def copy(
        self, src_bucket: str, src_key: str, dst_bucket: str, dst_key: str, options: CopyOptions
    ) -> ObjectInfo:
        """Copy on the server. Recognise its own write after a lost response."""
        driver = cast("Copying", self.driver)
        return await self._copy(
            dst_bucket,
            dst_key,
            options,
            lambda attempt: driver.copy(src_bucket, src_key, dst_bucket, dst_key, attempt),
        )

    def copies_from(self, source: AsyncDriver) -> bool:
        """Return whether the driver copies from this open driver. See `CopyingFrom`."""
        return self._copying_from is not None and self._copying_from.copies_from(source)

    async def copy_from(
        self, source: Origin, bucket: str, key: str, options: CopyOptions
    ) -> ObjectInfo:
        """Copy from another driver. Recognise its own write after a lost response."""
        driver = cast("CopyingFrom", self.driver)
        return await self._copy(
            bucket, key, options, lambda attempt: driver.copy_from(source, bucket, key, attempt)
        )

    def unwrap(self, bucket: str, key: str) -> Origin:
        """Return the driver, and the same names. See `Unwrapping`."""
        return Origin(self.driver, bucket, key)

    async def _copy(
        self,
        bucket: str,
        key: str,
        options: CopyOptions,
        copy: Callable[[CopyOptions], Awaitable[ObjectInfo]],
    ) -> ObjectInfo:
        idle_timeouts = -(-options.source.stored_size // _COPIED_PER_IDLE_TIMEOUT)
        lost_response = self.calls.track_lost_response(None)
        return await self.calls.retry(
            "copy",
            bucket,
            key,
            lambda: lost_response.watch(
                self.calls.request(
                    "copy",
                    bucket,
                    key,
                    copy,
                    lost_response.copy_options(options),
                    idle_timeouts=idle_timeouts,
                )
            ),
            recognise=lambda error: self.calls.recognise_write(
                error, bucket, key, options.put.write_id
            ),
        )

    async def delete_many(self, bucket: str, keys: Sequence[str]) -> Sequence[DeleteResult]:
        """Delete up to `Capabilities.bulk_delete` keys and return the result for each."""
        return await BulkDelete(self.calls, bucket, self.delete).delete(keys)

    async def presign(
        self, method: str, bucket: str, key: str, expires: float, options: PresignOptions
    ) -> str:
        """Return a presigned URL for one method."""
        presign = cast("Presigning", self.driver).presign
        return await redacted(presign(method, bucket, key, expires, options), self.calls.redact)

    async def version_page(self, bucket: str, options: ListOptions) -> VersionPage:
        """Return one page of the versions of the bucket's objects."""
        driver = cast("Versioned", self.driver)
        page = await self.calls.retry(
            "list_versions",
            bucket,
            None,
            lambda: self.calls.request(
                "list_versions", bucket, None, driver.version_page, bucket, options
            ),
        )
        return filter_by_prefix(page, options.prefix)


async def _recognise_missing_bucket(error: TroveError) -> tuple[None] | None:
    return (None,) if isinstance(error, BucketNotFoundError) else None
