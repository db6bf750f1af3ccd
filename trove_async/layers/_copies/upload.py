"""An upload in parts to a primary and its replicas at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from types import TracebackType
from typing import Any, Self, cast

from trove_async._concurrency import OwnedTask
from trove_async.driver import AsyncDriver, PartSource, StreamedUpload, Upload, Uploading
from trove_async.errors import ClosedError, NotSupportedError, TroveError, UnavailableError
from trove_async.models import ObjectInfo
from trove_async.options import Part, PutOptions

from .members import Members
from .replicas import (
    KeyLocks,
    PrivateCopy,
    Replicas,
    any_ended,
    close_all,
    failure,
    not_acknowledged,
    succeeded,
    wait_for,
)


class MirroredUpload:
    """One upload to all members. It is also its context manager.

    Each part is sent to all members concurrently. The commit of the primary comes first, once enough
    replicas have all parts, and only after its success do the replicas commit. A replica that fails, or
    falls too far behind, is dropped: its upload is aborted.

    Args:
        bucket: The bucket.
        key: The key.
        options: The options for the primary.
        members: The members of the layer.
        replicas: Runs the tasks of the replicas.
        locks: The locks of the keys that are being written.
        find_conditions: Returns the options with the primary's etag, if they have that of a replica.
        window: The number of parts that the store sends concurrently. A replica that need not be waited
            for may be behind by as many parts, each in memory of its own.
    """

    def __init__(
        self,
        bucket: str,
        key: str,
        options: PutOptions,
        *,
        members: Members,
        replicas: Replicas,
        locks: KeyLocks,
        find_conditions: Callable[[PutOptions], Awaitable[PutOptions]],
        window: int,
    ) -> None:
        self._members = members
        self._replicas = replicas
        self._locks = locks
        self._bucket = bucket
        self._key = key
        self._options = options
        self._find_conditions = find_conditions
        self._window = window
        self._uploads: list[_ReplicaUpload] = []
        self._stored = False

    # -- opening and closing -----------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        primary, *others = self._members.drivers
        await self._replicas.check_key(self._bucket, self._key)
        options = await self._find_conditions(self._options)
        self._context: AbstractAsyncContextManager[Upload] = cast("Uploading", primary).upload(
            self._bucket, self._key, options
        )
        with self._members.naming(0):
            self._primary = await self._context.__aenter__()
        unconditional = replace(options, if_match=None, if_none_match=None)
        for number, driver in enumerate(others, 1):
            upload = _ReplicaUpload(number, driver, self._bucket, self._key, unconditional)
            try:
                # No other task of this key is waited for: parts are not visible.
                upload.task = self._replicas.start(number, self._bucket, [], upload.run)
            except TroveError as error:  # the store is being closed
                self._drop(upload, error)
            self._uploads.append(upload)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        # Those that commit in the background are closed by their own task.
        try:
            await close_all(
                task
                for upload in self._uploads
                if not upload.commits
                for task in (*upload.sends, *filter(None, [upload.task]))
            )
        finally:
            suppressed = await self._context.__aexit__(kind, error, traceback)
        return suppressed

    @property
    def _live(self) -> list[_ReplicaUpload]:
        return [upload for upload in self._uploads if upload.error is None]

    def _drop(self, upload: _ReplicaUpload, error: BaseException | None) -> None:
        """Abort the upload of a replica, which has missed the object."""
        if upload.error is None:
            upload.error = error or UnavailableError("it was not finished in time")
            for task in (*upload.sends, *filter(None, [upload.task])):
                task.cancel()

    # -- parts -------------------------------------------------------------------------------------

    async def send(self, part: Part, views: Sequence[memoryview]) -> None:
        """Send the part to all members. See `Upload.send`."""
        # 1. Drop replicas that are too far behind, unless they are needed.
        for upload in self._live:
            if len(upload.sends) >= self._window and len(self._live) > self._replicas.needed:
                self._drop(upload, UnavailableError(f"it is {self._window} parts behind"))
        self._check_enough()
        # 2. Copy the part, if some replica need not be waited for.
        copy = None
        if self._replicas.needed < len(self._live):
            copy = await PrivateCopy.of(views, self._members.pool)
        # 3. Send it to all members.
        try:
            await self._send_to_all(part, views, copy)
        finally:
            if copy is not None:
                copy.finish()
        self._check_enough()

    async def _send_to_all(
        self, part: Part, views: Sequence[memoryview], copy: PrivateCopy | None
    ) -> None:
        """Send a part to all members, and wait for those that must have it.

        The others go on with the private copy, or are dropped if there is none.
        """
        uploads, tasks = self._live, dict[int, OwnedTask[object]]()
        try:
            for upload in uploads:
                task = self._send_to(upload, part, views if copy is None else copy.views)
                tasks[upload.number] = task
                if copy is not None:
                    copy.use(task)
            with self._members.naming(0):
                await self._primary.send(part, views)
            await wait_for(tasks, self._replicas.needed)
        except BaseException:
            # The part may be sent again, so a replica whose task is cancelled here has not failed.
            for upload in uploads:
                upload.sends.difference_update(tasks.values())
            await close_all(tasks.values())
            raise
        if copy is None:
            await close_all(tasks.values())
        for upload in uploads:
            task = tasks[upload.number]
            if task.done and not succeeded(task):
                self._drop(upload, failure(task))

    async def send_stream(self, part: Part, source: PartSource) -> None:
        """Send a part that is read from its file, once for each member that must have it.

        The file is not read concurrently, so replicas that need not acknowledge it miss the object.
        """
        with self._members.naming(0):
            await cast("StreamedUpload", self._primary).send_stream(part, source)
        for upload in self._live[self._replicas.needed :]:
            self._drop(upload, NotSupportedError("its part is too large for memory"))
        for upload in self._live:
            try:
                await cast("StreamedUpload", await upload.opened()).send_stream(part, source)
            except TroveError as error:
                self._drop(upload, error)
        self._check_enough()

    def _send_to(
        self, upload: _ReplicaUpload, part: Part, views: Sequence[memoryview]
    ) -> OwnedTask[object]:
        async def send() -> None:
            await (await upload.opened()).send(part, views)

        task = self._replicas.start(upload.number, self._bucket, [], send)
        upload.sends.add(task)
        task.when_done(lambda: self._sent(upload, task))
        return task

    def _sent(self, upload: _ReplicaUpload, task: OwnedTask[object]) -> None:
        was_abandoned = task not in upload.sends
        upload.sends.discard(task)
        if failure(task) is not None or (task.cancelled and not was_abandoned):
            self._drop(upload, failure(task))

    def _check_enough(self) -> None:
        """Raise UnavailableError if fewer replicas remain than must acknowledge the object."""
        if len(self._live) < self._replicas.needed:
            raise not_acknowledged("put", self._members.names, self._errors, stored=self._stored)

    @property
    def _errors(self) -> dict[int, BaseException | None]:
        return {upload.number: upload.error for upload in self._uploads if upload.error is not None}

    # -- commit ------------------------------------------------------------------------------------

    async def commit(self, checksums: Mapping[str, str]) -> ObjectInfo:
        """Commit on the primary, then on the replicas. See `Upload.commit`."""
        # 1. Enough replicas must have all parts before anything is visible.
        while sum(not upload.sends for upload in self._live) < self._replicas.needed:
            self._check_enough()
            await any_ended([task for upload in self._live for task in upload.sends])
        self._check_enough()
        # 2. Commit on the primary, which decides the conditions.
        async with self._locks.hold(self._bucket, self._key):
            try:
                with self._members.naming(0):
                    info = await self._primary.commit(checksums)
            except BaseException as error:
                if getattr(error, "maybe_done", not isinstance(error, Exception)):
                    self._report(error)  # the primary may have the object
                raise
            self._stored = True
            # 3. Then commit on the replicas.
            try:
                missed = await self._commit_replicas(checksums)
            except BaseException as error:
                self._report(error)
                raise
        return replace(info, missed_replicas=missed) if missed else info

    async def _commit_replicas(self, checksums: Mapping[str, str]) -> tuple[str, ...]:
        replicas = self._replicas
        uploads = [upload for upload in self._live if not upload.committed]
        done = len(self._live) - len(uploads)
        tasks = self._start_commits(uploads, checksums)
        uploads = [upload for upload in uploads if upload.number in tasks]
        try:
            await wait_for(tasks, replicas.needed - done)
        except BaseException:
            await close_all(tasks.values())
            for upload in uploads:
                if not upload.committed:
                    self._drop(upload, None)
            raise
        for upload in uploads:
            task = tasks[upload.number]
            if not task.done:
                upload.commits = True
                replicas.leave(upload.number, task, "put", self._bucket, self._key)
                task.when_done(upload.close)
            elif not succeeded(task):
                self._drop(upload, failure(task))
        for upload in self._uploads:
            upload.reported = True  # by `result`, or by its task
        return replicas.result("put", self._bucket, self._key, self._errors)

    def _start_commits(
        self, uploads: Sequence[_ReplicaUpload], checksums: Mapping[str, str]
    ) -> dict[int, OwnedTask[object]]:
        """Start the commits of replicas. Those of a closed store are dropped."""
        tasks: dict[int, OwnedTask[object]] = {}
        for upload in uploads:

            async def commit(upload: _ReplicaUpload = upload) -> None:
                await upload.commit(checksums)

            try:
                task = self._replicas.start(upload.number, self._bucket, [self._key], commit)
            except ClosedError as error:
                self._drop(upload, error)
            else:
                tasks[upload.number] = task
        return tasks

    def _report(self, error: BaseException) -> None:
        """Report all replicas that do not have the object, although the primary has it or may have it."""
        for upload in self._uploads:
            if not upload.committed and not upload.reported:
                upload.reported = True
                self._replicas.missed(
                    upload.number, "put", self._bucket, self._key, upload.error or error
                )


class _ReplicaUpload:
    """The upload to one replica. One task opens it and closes it, and others send its parts.

    Attributes:
        task: The task that opens and closes it.
        sends: The tasks of the parts in flight.
        error: Why the replica misses the object; None: it does not.
        commits: Whether its commit goes on after that of the primary has returned.
        committed: Whether the replica has the object.
        reported: Whether a ``missed`` event was emitted.
    """

    def __init__(
        self, number: int, driver: AsyncDriver, bucket: str, key: str, options: PutOptions
    ) -> None:
        self.number = number
        self._driver = driver
        self._bucket = bucket
        self._key = key
        self._options = options
        self._upload: Upload | None = None
        self._opened = asyncio.Event()
        self._finished = asyncio.Event()
        self.task: OwnedTask[Any] | None = None
        self.sends: set[OwnedTask[object]] = set()
        self.error: BaseException | None = None
        self.commits = False
        self.committed = False
        self.reported = False

    async def run(self) -> None:
        """Open the upload, and close it once it is committed. A cancel aborts it."""
        uploading = cast("Uploading", self._driver)
        try:
            async with uploading.upload(self._bucket, self._key, self._options) as upload:
                self._upload = upload
                self._opened.set()
                await self._finished.wait()
        except TroveError as error:
            self.error = self.error or (None if self.committed else error)
        finally:
            self._opened.set()

    async def opened(self) -> Upload:
        """Wait until the upload is open, and return it."""
        await self._opened.wait()
        if self.error is not None:
            raise self.error
        if self._upload is None:
            raise UnavailableError("the upload to the replica was cancelled")
        return self._upload

    async def commit(self, checksums: Mapping[str, str]) -> None:
        """Commit, once all parts were sent."""
        while self.sends and self.error is None:
            await any_ended(list(self.sends))
        upload = await self.opened()
        await upload.commit(checksums)
        self.committed = True
        self._finished.set()

    def close(self) -> None:
        """Abort the upload, unless it was committed."""
        if not self.committed and self.task is not None:
            self.task.cancel()
