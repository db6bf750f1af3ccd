"""What stands around every leaf driver: permits, timeouts, retries, and the truth about lost answers.

Layers and the engine above see settled results. A retry holds no permit while it pauses, and no
memory but the part that it is about to send again. Permits are taken here and nowhere below, one for
a call of the driver's: what a driver asks for within a call, and an abort, needs none.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import cast

from trove_async._concurrency import Deadlines, InFlight, OwnedTasks, shielded
from trove_async._secrets import redacted
from trove_async.driver import (
    AsyncDriver,
    Capabilities,
    Copying,
    DriverContext,
    DriverReader,
    Presigning,
    Upload,
    Uploading,
    Versioned,
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
from trove_async.paging import inside
from trove_async.retry import RetryPolicy

from .bulk_delete import BulkDelete
from .calls import Calls
from .download import ResumingReader
from .upload import ResilientUpload

_COPY_PACE = 64 * MiB
"""Bytes copied that a server is granted an idle time for: it answers only at the end."""


class ResilientDriver:
    """An open leaf driver as everything above it sees it: an AsyncDriver whose calls are settled.

    Args:
        driver: The driver, open.
        context: What it was opened with.
        policy: How its failures are retried.
        tasks: The store's, for read-ahead.
        deadlines: The store's.
    """

    def __init__(
        self,
        driver: AsyncDriver,
        context: DriverContext,
        policy: RetryPolicy,
        *,
        tasks: OwnedTasks,
        deadlines: Deadlines,
    ) -> None:
        self.driver = driver
        self.capabilities: Capabilities = driver.capabilities
        self.calls = Calls(driver, context, policy, tasks=tasks, deadlines=deadlines)
        self._uploads = InFlight()

    @property
    def name(self) -> str:
        """The service's name."""
        return self.driver.name

    async def open(self, context: DriverContext) -> None:
        """Do nothing: it is made of an open driver."""

    async def aclose(self) -> None:
        """Abort the uploads that are under way, then close the driver."""
        await self._uploads.cancel_all()
        await self.driver.aclose()

    def place(self, bucket: str, key: str) -> Hashable:
        """Tell where the object lies physically."""
        return self.driver.place(bucket, key)

    # -- objects ---------------------------------------------------------------------------------

    async def put(
        self, bucket: str, key: str, views: Sequence[memoryview], options: PutOptions
    ) -> ObjectInfo:
        """Store filled memory, recognising our own write after a lost answer."""
        size = sum(map(len, views))
        attempts = self.calls.write_attempts()
        return await self.calls.retry(
            "put",
            bucket,
            key,
            lambda: attempts.watch(
                self.calls.write(
                    "put",
                    bucket,
                    key,
                    size,
                    lambda: self.driver.put(bucket, key, views, attempts.put(options)),
                )
            ),
            recognise=lambda error: self.calls.own_write(error, bucket, key, options.write_id),
        )

    def get(
        self, bucket: str, key: str, options: GetOptions
    ) -> AbstractAsyncContextManager[DriverReader]:
        """Open a body that resumes by itself."""
        return ResumingReader(self.calls, bucket, key, options)

    async def head(self, bucket: str, key: str, version_id: str | None = None) -> ObjectInfo:
        """Return what is known of the object."""
        return await self.calls.head(bucket, key, version_id)

    async def delete(self, bucket: str, key: str, options: DeleteOptions) -> None:
        """Delete the object; a second try that finds it gone takes that for the first one's work."""

        async def gone(error: TroveError) -> tuple[None] | None:
            if not isinstance(error, (PreconditionFailedError, ObjectNotFoundError)):
                return None
            try:
                await self.head(bucket, key, options.version_id)
            except ObjectNotFoundError:
                return (None,)
            return None

        attempts = self.calls.write_attempts()
        await self.calls.retry(
            "delete",
            bucket,
            key,
            lambda: attempts.watch(
                self.calls.request(
                    "delete", bucket, key, self.driver.delete, bucket, key, attempts.delete(options)
                )
            ),
            recognise=gone,
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
        return inside(page, options.prefix)

    # -- buckets ---------------------------------------------------------------------------------

    async def ping(self) -> None:
        """Ask once whether the backend answers: health is about now, so nothing is retried.

        It takes no permit: how long the line of requests is says nothing of the backend.
        """
        await redacted(self.calls.await_response(self.driver.ping()), self.calls.redact)

    async def create_bucket(self, bucket: str) -> None:
        """Make the bucket; a second try that finds it takes it for the first one's work.

        Unless it may not look at it: where names are global, it is then somebody else's.
        """

        async def made(error: TroveError) -> tuple[None] | None:
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
            recognise=made,
        )

    async def delete_bucket(self, bucket: str) -> None:
        """Delete the bucket; a second try that finds none takes that for the first one's work."""
        await self.calls.retry(
            "delete_bucket",
            bucket,
            None,
            lambda: self.calls.request(
                "delete_bucket", bucket, None, self.driver.delete_bucket, bucket
            ),
            recognise=_done_if(BucketNotFoundError),
        )

    async def head_bucket(self, bucket: str) -> BucketInfo:
        """Return what is known of the bucket."""
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

    # -- what is optional: called only where the capabilities announce it ---------------------------

    @asynccontextmanager
    async def upload(self, bucket: str, key: str, options: PutOptions) -> AsyncIterator[Upload]:
        """Open an upload whose parts and commit are retried.

        A cancel that comes during the commit is raised once the commit has ended: an upload that is
        completing is not aborted, and the object stays if it was made.
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
            try:
                entered = await self.calls.retry("upload", bucket, key, enter)
                upload = ResilientUpload(self.calls, entered, bucket, key, options)
                yield upload
            except BaseException as error:
                if opened is not None:
                    made = upload is not None and upload.committed
                    with shielded(), suppress(TroveError):  # what could not be undone is litter
                        if made:
                            await context.__aexit__(None, None, None)
                        else:
                            await context.__aexit__(type(error), error, error.__traceback__)
                raise
            with shielded(), suppress(TroveError):  # it is committed, whatever comes now
                await context.__aexit__(None, None, None)

    async def copy(
        self, src_bucket: str, src_key: str, dst_bucket: str, dst_key: str, options: CopyOptions
    ) -> ObjectInfo:
        """Copy on the server's side, recognising our own write after a lost answer."""
        driver = cast("Copying", self.driver)
        pace = -(-options.source.stored_size // _COPY_PACE)
        attempts = self.calls.write_attempts()
        return await self.calls.retry(
            "copy",
            dst_bucket,
            dst_key,
            lambda: attempts.watch(
                self.calls.request(
                    "copy",
                    dst_bucket,
                    dst_key,
                    driver.copy,
                    src_bucket,
                    src_key,
                    dst_bucket,
                    dst_key,
                    attempts.copy(options),
                    pace=pace,
                )
            ),
            recognise=lambda error: self.calls.own_write(
                error, dst_bucket, dst_key, options.put.write_id
            ),
        )

    async def delete_many(self, bucket: str, keys: Sequence[str]) -> Sequence[DeleteResult]:
        """Delete up to `Capabilities.bulk_delete` keys in one request."""
        return await BulkDelete(self.calls, bucket, self.delete).delete(keys)

    async def presign(
        self, method: str, bucket: str, key: str, expires: float, options: PresignOptions
    ) -> str:
        """Return a URL that allows one method."""
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
        return inside(page, options.prefix)


def _done_if(kind: type[TroveError]) -> Callable[[TroveError], Awaitable[tuple[None] | None]]:
    async def done(error: TroveError) -> tuple[None] | None:
        return (None,) if isinstance(error, kind) else None

    return done
