"""Multipart uploads, and the garbage collection of unfinished ones."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self, TypeVar

import anyio

from trove_async._concurrency import for_each, run_cleanup
from trove_async._http.services import create_or_undo, map_condition_errors
from trove_async.driver import PartSource
from trove_async.errors import (
    IntegrityError,
    NotFoundError,
    ObjectExistsError,
    ObjectNotFoundError,
    TimedOutError,
    TroveError,
    UnavailableError,
)
from trove_async.models import ObjectInfo
from trove_async.options import Part, PutOptions
from trove_async.paging import TokenCycle

from ._data_plane import UnconfirmedWriteError, UploadId, confirm_stored
from ._directories import raise_if_directory

if TYPE_CHECKING:
    from ._data_plane import DataPlane
    from ._documents import SentPart, UnfinishedUpload

T = TypeVar("T")

MAX_ABORTS = 8
"""Maximum number of concurrent aborts of unfinished uploads."""

RETRY_PAUSES = (0.1, 1.0)
"""Seconds before each retry of a request in `send_with_retries`."""

_TICK = timedelta(seconds=1)
"""Resolution of an HTTP date, which has no fractions of a second (RFC 9110, 5.6.7)."""

_MAX_AGE = 1e9
"""The maximum age of an upload in seconds: 30 years, longer than S3 has existed. Subtracting a much
greater age from a date would overflow."""


async def send_with_retries(request: Callable[[], Awaitable[T]]) -> T:
    """Send a request with a few retries, for requests that the store cannot retry on their own."""
    for pause in RETRY_PAUSES:
        try:
            return await request()
        except UnavailableError as error:
            if not error.retryable:  # the store was closed
                raise
            await anyio.sleep(max(pause, error.retry_after or 0))
    return await request()


class MultipartUpload:
    """A multipart upload and its context manager.

    Exiting aborts the upload, unless it is or may be complete.

    Args:
        plane: Sends the requests.
        bucket: The bucket.
        key: The key.
        options: The options of the object.
        directories: Whether the service rejects a create if a directory has the object's name.
    """

    def __init__(
        self,
        plane: DataPlane,
        bucket: str,
        key: str,
        options: PutOptions,
        *,
        directories: bool = False,
    ) -> None:
        self._plane = plane
        self._bucket = bucket
        self._key = key
        self._options = options
        self._directories = directories
        self._upload: UploadId | None = None
        self._sent: dict[int, tuple[int, SentPart]] = {}
        self._info: ObjectInfo | None = None
        # "none": nothing was completed. "lost": the response did not show the outcome. "unknown": no
        # response has arrived, so the service may still be completing the upload.
        self._completion: Literal["none", "lost", "unknown"] = "none"

    async def __aenter__(self) -> Self:
        creating = self._plane.create_upload(self._bucket, self._key, self._options)
        self._upload = await create_or_undo(creating, self._abort)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        upload, self._upload = self._upload, None
        if upload is None or self._info is not None:
            return
        # A completion without a response may still succeed. If the upload were aborted during it, some
        # services would lose the object (Swift deletes the segments).
        if self._completion != "unknown":
            with suppress(TroveError):  # `gc_uploads` aborts an upload that this fails to abort
                await run_cleanup(self._abort_incomplete(upload))

    async def _abort_incomplete(self, upload: UploadId) -> None:
        if self._completion == "none" or await self._certainly_created_nothing():
            await self._abort(upload)

    async def _certainly_created_nothing(self) -> bool:
        """Return whether a completion whose response was lost certainly created no object."""
        if self._options.write_id is None:
            return False  # the completion may have created an object with this key
        try:
            info = await self._plane.head_object(self._bucket, self._key, None)
        except NotFoundError:
            return True
        return info.write_id != self._options.write_id

    async def _abort(self, upload: UploadId) -> None:
        await send_with_retries(lambda: self._plane.abort_upload(upload))

    @property
    def id(self) -> UploadId:
        """The upload's bucket and key, and the id that the service gave it."""
        assert self._upload is not None  # noqa: S101 - the context is entered
        return self._upload

    async def send(self, part: Part, views: Sequence[memoryview]) -> None:
        """Store one part. See `Upload.send`."""
        sent = await self._plane.upload_part(self.id, part, views)
        self.add(part.size, sent)

    async def send_stream(self, part: Part, source: PartSource) -> None:
        """Store one part while reading it. See `StreamedUpload.send_stream`."""
        self.add(part.size, await self._plane.stream_part(self.id, part.number, source))

    def add(self, size: int, sent: SentPart) -> None:
        """Record a part that the service has stored."""
        self._sent[sent.number] = size, sent

    async def commit(self, checksums: Mapping[str, str]) -> ObjectInfo:
        """Complete the upload. See `Upload.commit`."""
        if self._info is not None:
            return self._info
        if sorted(self._sent) != list(range(1, len(self._sent) + 1)):
            raise IntegrityError(
                "the parts must be numbered without gaps", bucket=self._bucket, key=self._key
            )
        options = replace(
            self._options,
            size=sum(size for size, _ in self._sent.values()),
            checksums={**self._options.checksums, **checksums},
        )
        parts = [self._sent[number][1] for number in sorted(self._sent)]
        previous, self._completion = self._completion, "unknown"
        try:
            self._info = await self._complete(parts, options)
        except UnconfirmedWriteError as unconfirmed:
            if previous != "unknown":
                self._completion = "lost"  # until a HEAD shows the object
            self._info = await confirm_stored(self._plane, unconfirmed.info)
        except TimedOutError:
            raise
        except TroveError as error:
            # If an earlier attempt got no response, this error does not show whether that attempt
            # succeeded.
            if previous != "unknown":
                self._completion = "lost" if error.maybe_done or previous == "lost" else "none"
            raise
        return self._info

    async def _complete(self, parts: Sequence[SentPart], options: PutOptions) -> ObjectInfo:
        try:
            with map_condition_errors(options):
                return await self._plane.complete_upload(self.id, parts, options)
        except ObjectExistsError as error:
            if self._directories:
                await raise_if_directory(self._plane, error, self._bucket, self._key)
            raise


async def abort_unfinished_uploads(plane: DataPlane, bucket: str, older_than: float) -> int:
    """Abort unfinished uploads older than `older_than` seconds and return their number."""
    aborted = 0
    after: tuple[str, str] | None = None
    cutoff: datetime | None = None
    cycle = TokenCycle()

    async def abort(upload: UnfinishedUpload) -> None:
        nonlocal aborted
        with suppress(ObjectNotFoundError):  # it was completed or aborted since
            await plane.abort_upload(UploadId(bucket, upload.key, upload.upload_id))
            aborted += 1

    while True:
        page = await plane.list_uploads(bucket, after)
        # The service's clock sets `initiated` too. This machine's clock may be hours ahead.
        cutoff = cutoff or page.now + _TICK - timedelta(seconds=min(older_than, _MAX_AGE))
        await for_each(
            [upload for upload in page.uploads if upload.initiated < cutoff],
            abort,
            limit=MAX_ABORTS,
        )
        if page.next_markers is None:
            return aborted
        cycle.check(repr(page.next_markers), empty=not page.uploads)
        after = page.next_markers
