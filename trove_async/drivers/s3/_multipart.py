"""Multipart uploads, and the cleanup of unfinished ones."""

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
from ._directories import check_object_exists

if TYPE_CHECKING:
    from ._data_plane import DataPlane
    from ._documents import OpenUpload, SentPart

T = TypeVar("T")

ABORTS = 8
"""Maximum number of concurrent aborts of unfinished uploads."""

PAUSES = (0.1, 1.0)
"""Seconds before each retry of one request of a call or of its rollback."""

_TICK = timedelta(seconds=1)
"""Resolution of an HTTP date, which has no fractions of a second (RFC 9110, 5.6.7)."""


async def patiently(request: Callable[[], Awaitable[T]]) -> T:
    """Send a request with a few retries, for requests that the caller cannot retry alone."""
    for pause in PAUSES:
        try:
            return await request()
        except UnavailableError as error:
            if not error.retryable:  # the store was closed
                raise
            await anyio.sleep(max(pause, error.retry_after or 0))
    return await request()


class PartedUpload:
    """One multipart upload, which is its own context manager.

    Args:
        plane: Sends the requests.
        bucket: The bucket.
        key: The key.
        options: The options of the object.
        directories: Whether the service refuses to create an object where a directory has its name.
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
        self._completion: Literal["none", "lost", "under way"] = "none"

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
        # A completion without a response may still succeed. Some services lose the object if its
        # upload is aborted then (Swift deletes the segments), so its parts stay as litter.
        if self._completion != "under way":
            with suppress(TroveError):  # `gc_uploads` aborts what is left
                await run_cleanup(self._let_go(upload))

    async def _let_go(self, upload: UploadId) -> None:
        if self._completion == "none" or await self._is_unmade():
            await self._abort(upload)

    async def _is_unmade(self) -> bool:
        """Return whether a completion whose response was lost certainly made no object."""
        if self._options.write_id is None:
            return False  # an object with this key may be this one
        try:
            info = await self._plane.head_object(self._bucket, self._key, None)
        except NotFoundError:
            return True
        return info.write_id != self._options.write_id

    async def _abort(self, upload: UploadId) -> None:
        await patiently(lambda: self._plane.abort_upload(upload))

    @property
    def id(self) -> UploadId:
        """The service's id of the upload."""
        assert self._upload is not None  # noqa: S101 - entered, and not left
        return self._upload

    async def send(self, part: Part, views: Sequence[memoryview]) -> None:
        """Store one part. See `Upload.send`."""
        sent = await self._plane.upload_part(self.id, part.number, views)
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
            raise IntegrityError("a part is missing", bucket=self._bucket, key=self._key)
        options = replace(
            self._options,
            size=sum(size for size, _ in self._sent.values()),
            checksums={**self._options.checksums, **checksums},
        )
        parts = [self._sent[number][1] for number in sorted(self._sent)]
        before, self._completion = self._completion, "under way"
        try:
            self._info = await self._complete(parts, options)
        except UnconfirmedWriteError as unconfirmed:
            if before != "under way":
                self._completion = "lost"  # until a HEAD shows the object
            self._info = await confirm_stored(self._plane, unconfirmed.info)
        except TimedOutError:
            raise
        except TroveError as error:
            # This response does not show the outcome of an earlier attempt without a response.
            if before != "under way":
                self._completion = "lost" if error.maybe_done or before == "lost" else "none"
            raise
        return self._info

    async def _complete(self, parts: Sequence[SentPart], options: PutOptions) -> ObjectInfo:
        try:
            with map_condition_errors(options):
                return await self._plane.complete_upload(self.id, parts, options)
        except ObjectExistsError as error:
            if self._directories:
                await check_object_exists(self._plane, error, self._bucket, self._key)
            raise


async def abort_forgotten(plane: DataPlane, bucket: str, older_than: float) -> int:
    """Abort unfinished uploads older than `older_than` seconds and return their number."""
    aborted = 0
    after: tuple[str, str] | None = None
    before: datetime | None = None
    cycle = TokenCycle()

    async def abort(upload: OpenUpload) -> None:
        nonlocal aborted
        with suppress(ObjectNotFoundError):  # it has ended since
            await plane.abort_upload(UploadId(bucket, upload.key, upload.upload_id))
            aborted += 1

    while True:
        page = await plane.list_uploads(bucket, after)
        # Use the service's clock, as `initiated` does: this machine's may be hours ahead.
        before = before or page.now + _TICK - timedelta(seconds=older_than)
        await for_each(
            [upload for upload in page.uploads if upload.initiated < before], abort, limit=ABORTS
        )
        if page.next_markers is None:
            return aborted
        cycle.check(repr(page.next_markers), empty=not page.uploads)
        after = page.next_markers
