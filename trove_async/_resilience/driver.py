"""What stands around every leaf driver: permits, timeouts, retries, and the truth about lost answers.

Layers and the engine above see settled results. A retry holds no permit while it pauses, and no
memory but the part that it is about to send again. Permits are taken here and nowhere below, one for
a call of the driver's: what a driver asks for within a call, and an abort, needs none.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Literal, TypeVar, TypeVarTuple, Unpack, cast

import anyio

from trove_async._concurrency import Deadlines, OwnedTasks, Permits, UnderWay, shielded
from trove_async._secrets import redacted, unredacted
from trove_async.driver import (
    AsyncDriver,
    Capabilities,
    Copying,
    DriverContext,
    DriverReader,
    Presigning,
    Redacting,
    Upload,
    Uploading,
    Versioned,
)
from trove_async.errors import (
    AlreadyExistsError,
    BucketExistsError,
    BucketNotFoundError,
    NotFoundError,
    ObjectNotFoundError,
    PermissionDeniedError,
    PreconditionFailedError,
    TroveError,
)
from trove_async.events import Event
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
from trove_async.retry import Retries, RetryBudget, RetryPolicy

from .bulk_delete import Batch
from .download import Body
from .lost_responses import Doubt
from .upload import LeafUpload

T = TypeVar("T")
Args = TypeVarTuple("Args")

_MAYBE_OURS = (PreconditionFailedError, AlreadyExistsError, NotFoundError)
"""How our own write may look to its second try, when the answer to the first was lost."""

_COPY_PACE = 64 * MiB
"""Bytes copied that a server is granted an idle time for: it answers only at the end."""


class Leaf:
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
        # Services quote requests, and the driver's secrets with them.
        self.redact = driver.redact if isinstance(driver, Redacting) else unredacted
        self.tasks = tasks
        self.backend = context.backend
        self.pool = context.pool
        self.events = context.events
        self.timeout = context.timeout
        self.capabilities: Capabilities = driver.capabilities
        self.reads = Permits(self.capabilities.max_reads, "connection for reading")
        self.writes = Permits(self.capabilities.max_writes, "connection for writing")
        self.requests = Permits(self.capabilities.max_requests, "connection for other requests")
        self.clock = asyncio.get_running_loop().time
        self._policy = policy
        self._within = deadlines.within
        self._budget = RetryBudget(policy)
        self._uploads = UnderWay()

    @property
    def name(self) -> str:
        """The service's name."""
        return self.driver.name

    async def open(self, context: DriverContext) -> None:
        """Do nothing: it is made of an open driver."""

    async def aclose(self) -> None:
        """Abort the uploads that are under way, then close the driver."""
        await self._uploads.end()
        await self.driver.aclose()

    def place(self, bucket: str, key: str) -> Hashable:
        """Tell where the object lies physically."""
        return self.driver.place(bucket, key)

    # -- one loop for all ------------------------------------------------------------------------

    async def retrying(
        self,
        operation: str,
        bucket: str | None,
        key: str | None,
        attempt: Callable[[], Awaitable[T]],
        *,
        ours: Callable[[TroveError], Awaitable[tuple[T] | None]] | None = None,
    ) -> T:
        """Return what `attempt` returns, trying again while that may help and is allowed.

        Args:
            operation: For events and errors.
            bucket: Likewise.
            key: Likewise.
            attempt: Makes one try.
            ours: Asked what to make of the failure of a second try: returns the result, in a
                tuple, if it was our own first try that had done the work.
        """
        retries: Retries | None = None
        clock = asyncio.get_running_loop().time
        while True:
            started = clock()
            try:
                result = await attempt()
            except TroveError as error:
                self.locate(error, operation, bucket, key)
                retries = retries or self.retries()
                if self.events:
                    self._tell(
                        operation,
                        bucket,
                        key,
                        duration=clock() - started,
                        attempt=retries.attempt,
                        error=error,
                    )
                if retries.attempt > 1 and ours is not None:
                    mine = await ours(error)
                    if mine is not None:
                        return mine[0]
                pause = retries.after(error)
                if pause is None:
                    raise
            else:
                self._budget.earn()
                if self.events:
                    self._tell(
                        operation,
                        bucket,
                        key,
                        duration=clock() - started,
                        attempt=retries.attempt if retries else 1,
                    )
                return result
            await anyio.sleep(pause)

    def _tell(
        self,
        operation: str,
        bucket: str | None,
        key: str | None,
        *,
        kind: Literal["attempt", "wait"] = "attempt",
        duration: float,
        attempt: int = 1,
        error: TroveError | None = None,
    ) -> None:
        self.events.emit(
            Event(
                kind=kind,
                operation=operation,
                backend=self.backend,
                bucket=bucket,
                key=key,
                duration=duration,
                attempt=attempt,
                error=error,
            )
        )

    def doubt(self) -> Doubt:
        """Begin to watch the tries of one write."""
        return Doubt(self.clock if self.capabilities.settles_doubt else None)

    def retries(self) -> Retries:
        """Begin to count the tries of one request."""
        return Retries(self._policy, self._budget)

    def locate(
        self, error: TroveError, operation: str, bucket: str | None, key: str | None
    ) -> None:
        """Add to the error what was tried, and where; remove the driver's secrets from it."""
        self.redact(error)
        error.located(operation=operation, backend=self.backend, bucket=bucket, key=key)

    def answer(self, work: Awaitable[T], pace: int = 0) -> Awaitable[T]:
        """Bound the time until an answer begins: the first byte's, and `pace` idle times more."""
        if self.capabilities.embedded:
            return work
        seconds = self.timeout.first_byte + self.timeout.idle * pace
        return self._within(seconds, "no answer came", work)

    def progress(self, work: Awaitable[T], what: str) -> Awaitable[T]:
        """Bound the time between two chunks of a body."""
        if self.capabilities.embedded:
            return work
        return self._within(self.timeout.idle, what, work)

    async def permit(
        self, permits: Permits, operation: str, bucket: str | None, key: str | None
    ) -> None:
        """Take a permit, and tell if it had to be waited for."""
        if permits.try_acquire():
            return
        clock = asyncio.get_running_loop().time
        started = clock()
        await permits.acquire(self.timeout.permit)
        if self.events:
            self._tell(operation, bucket, key, kind="wait", duration=clock() - started)

    async def request(
        self,
        operation: str,
        bucket: str | None,
        key: str | None,
        call: Callable[[Unpack[Args]], Awaitable[T]],
        *args: *Args,
        pace: int = 0,
    ) -> T:
        """Send a request that is neither a read nor a write: under a permit, its response bounded.

        Waiting for the permit counts against `Timeout.permit`, never as a response that is late.

        Args:
            operation: For events.
            bucket: Likewise.
            key: Likewise.
            call: The driver's method.
            *args: Its arguments.
            pace: Idle times that its response may take beyond the first byte's.
        """
        if not self.requests.try_acquire():
            await self.permit(self.requests, operation, bucket, key)
        try:
            return await self.answer(call(*args), pace)
        finally:
            self.requests.release()

    async def write(
        self, operation: str, bucket: str, key: str, size: int, work: Callable[[], Awaitable[T]]
    ) -> T:
        """Send filled memory, or a file: under a permit, at a mebibyte an idle time at the least."""
        await self.permit(self.writes, operation, bucket, key)
        try:
            return await self.answer(work(), -(-size // MiB))
        finally:
            self.writes.release()

    # -- objects ---------------------------------------------------------------------------------

    async def put(
        self, bucket: str, key: str, views: Sequence[memoryview], options: PutOptions
    ) -> ObjectInfo:
        """Store filled memory, recognising our own write after a lost answer."""
        size = sum(map(len, views))
        doubt = self.doubt()
        return await self.retrying(
            "put",
            bucket,
            key,
            lambda: doubt.over(
                self.write(
                    "put",
                    bucket,
                    key,
                    size,
                    lambda: self.driver.put(bucket, key, views, doubt.put(options)),
                )
            ),
            ours=lambda error: self.our_write(error, bucket, key, options.write_id),
        )

    async def our_write(
        self, error: TroveError, bucket: str, key: str, write_id: str | None
    ) -> tuple[ObjectInfo] | None:
        """Return what is stored if that is what an earlier try of this write has stored."""
        if write_id is None or not isinstance(error, _MAYBE_OURS):
            return None
        try:
            info = await self.head(bucket, key)
        except NotFoundError:
            return None
        return (info,) if info.write_id == write_id else None

    def get(
        self, bucket: str, key: str, options: GetOptions
    ) -> AbstractAsyncContextManager[DriverReader]:
        """Open a body that resumes by itself."""
        return Body(self, bucket, key, options)

    async def head(self, bucket: str, key: str, version_id: str | None = None) -> ObjectInfo:
        """Return what is known of the object."""
        return await self.retrying(
            "head",
            bucket,
            key,
            lambda: self.request("head", bucket, key, self.driver.head, bucket, key, version_id),
        )

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

        doubt = self.doubt()
        await self.retrying(
            "delete",
            bucket,
            key,
            lambda: doubt.over(
                self.request(
                    "delete", bucket, key, self.driver.delete, bucket, key, doubt.delete(options)
                )
            ),
            ours=gone,
        )

    async def list_page(self, bucket: str, options: ListOptions) -> Page:
        """Return one page of the bucket's objects."""
        page = await self.retrying(
            "list",
            bucket,
            None,
            lambda: self.request("list", bucket, None, self.driver.list_page, bucket, options),
        )
        return inside(page, options.prefix)

    # -- buckets ---------------------------------------------------------------------------------

    async def ping(self) -> None:
        """Ask once whether the backend answers: health is about now, so nothing is retried.

        It takes no permit: how long the line of requests is says nothing of the backend.
        """
        await redacted(self.answer(self.driver.ping()), self.redact)

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

        await self.retrying(
            "create_bucket",
            bucket,
            None,
            lambda: self.request("create_bucket", bucket, None, self.driver.create_bucket, bucket),
            ours=made,
        )

    async def delete_bucket(self, bucket: str) -> None:
        """Delete the bucket; a second try that finds none takes that for the first one's work."""
        await self.retrying(
            "delete_bucket",
            bucket,
            None,
            lambda: self.request("delete_bucket", bucket, None, self.driver.delete_bucket, bucket),
            ours=_done_if(BucketNotFoundError),
        )

    async def head_bucket(self, bucket: str) -> BucketInfo:
        """Return what is known of the bucket."""
        return await self.retrying(
            "head_bucket",
            bucket,
            None,
            lambda: self.request("head_bucket", bucket, None, self.driver.head_bucket, bucket),
        )

    async def list_buckets(self) -> Sequence[BucketInfo]:
        """Return the buckets that these credentials own."""
        return await self.retrying(
            "list_buckets",
            None,
            None,
            lambda: self.request("list_buckets", None, None, self.driver.list_buckets),
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
        upload: LeafUpload | None = None

        async def enter() -> Upload:
            nonlocal context, opened
            context = driver.upload(bucket, key, options)
            opened = await self.request("upload", bucket, key, context.__aenter__)
            return opened

        with self._uploads.one():
            try:
                entered = await self.retrying("upload", bucket, key, enter)
                upload = LeafUpload(self, entered, bucket, key, options)
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
        doubt = self.doubt()
        return await self.retrying(
            "copy",
            dst_bucket,
            dst_key,
            lambda: doubt.over(
                self.request(
                    "copy",
                    dst_bucket,
                    dst_key,
                    driver.copy,
                    src_bucket,
                    src_key,
                    dst_bucket,
                    dst_key,
                    doubt.copy(options),
                    pace=pace,
                )
            ),
            ours=lambda error: self.our_write(error, dst_bucket, dst_key, options.put.write_id),
        )

    async def delete_many(self, bucket: str, keys: Sequence[str]) -> Sequence[DeleteResult]:
        """Delete up to `Capabilities.bulk_delete` keys in one request."""
        return await Batch(self, bucket).delete(keys)

    async def presign(
        self, method: str, bucket: str, key: str, expires: float, options: PresignOptions
    ) -> str:
        """Return a URL that allows one method."""
        presign = cast("Presigning", self.driver).presign
        return await redacted(presign(method, bucket, key, expires, options), self.redact)

    async def version_page(self, bucket: str, options: ListOptions) -> VersionPage:
        """Return one page of the versions of the bucket's objects."""
        driver = cast("Versioned", self.driver)
        page = await self.retrying(
            "list_versions",
            bucket,
            None,
            lambda: self.request(
                "list_versions", bucket, None, driver.version_page, bucket, options
            ),
        )
        return inside(page, options.prefix)


def _done_if(kind: type[TroveError]) -> Callable[[TroveError], Awaitable[tuple[None] | None]]:
    async def done(error: TroveError) -> tuple[None] | None:
        return (None,) if isinstance(error, kind) else None

    return done
