"""Uploads in parts: a driver's upload, and what becomes of those that nobody ended."""

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
"""Forgotten uploads that are aborted at a time."""

PAUSES = (0.1, 1.0)
"""Seconds before one of several requests of a call, or of its undoing, is tried again."""

_TICK = timedelta(seconds=1)
"""What an HTTP date may be behind: it has no fractions (RFC 9110, 5.6.7)."""


async def patiently(request: Callable[[], Awaitable[T]]) -> T:
    """Send a request a few times if need be, which nobody above would send again by itself."""
    for pause in PAUSES:
        try:
            return await request()
        except UnavailableError as error:
            if not error.retryable:  # the store was closed meanwhile
                raise
            await anyio.sleep(max(pause, error.retry_after or 0))
    return await request()


class PartedUpload:
    """One upload: its context manager and itself.

    Args:
        plane: Sends the requests.
        bucket: The bucket.
        key: The key.
        options: What the object is to get.
        directories: Whether the service takes a directory for an object that must not exist.
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
        # A completion that was not answered may still succeed at any moment, and some services then
        # lose the object if its upload is aborted (Swift deletes the segments): that is litter.
        if self._completion != "under way":
            with suppress(TroveError):  # what is left is for `gc_uploads`
                await run_cleanup(self._let_go(upload))

    async def _let_go(self, upload: UploadId) -> None:
        if self._completion == "none" or await self._is_unmade():
            await self._abort(upload)

    async def _is_unmade(self) -> bool:
        """Return whether a completion whose answer was lost surely made no object."""
        if self._options.write_id is None:
            return False  # an object of this key may be this one
        try:
            info = await self._plane.head_object(self._bucket, self._key, None)
        except NotFoundError:
            return True
        return info.write_id != self._options.write_id

    async def _abort(self, upload: UploadId) -> None:
        await patiently(lambda: self._plane.abort_upload(upload))

    @property
    def id(self) -> UploadId:
        """The service's name of it."""
        assert self._upload is not None  # noqa: S101 - entered, and not left
        return self._upload

    async def send(self, part: Part, views: Sequence[memoryview]) -> None:
        """Store one part. See `Upload.send`."""
        sent = await self._plane.upload_part(self.id, part.number, views)
        self.add(part.size, sent)

    async def send_stream(self, part: Part, source: PartSource) -> None:
        """Store one part while it is read. See `StreamedUpload.send_stream`."""
        self.add(part.size, await self._plane.stream_part(self.id, part.number, source))

    def add(self, size: int, sent: SentPart) -> None:
        """Note a part that the service has."""
        self._sent[sent.number] = size, sent

    async def commit(self, checksums: Mapping[str, str]) -> ObjectInfo:
        """Make the object. See `Upload.commit`."""
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
                self._completion = "lost"  # until the object is seen
            self._info = await confirm_stored(self._plane, unconfirmed.info)
        except TimedOutError:
            raise
        except TroveError as error:
            # What this attempt is told says nothing of an earlier one that was not answered.
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
    """Abort the uploads that began so many seconds ago and that nobody ended; return how many."""
    aborted = 0
    after: tuple[str, str] | None = None
    before: datetime | None = None
    cycle = TokenCycle()

    async def abort(upload: OpenUpload) -> None:
        nonlocal aborted
        with suppress(ObjectNotFoundError):  # somebody ended it meanwhile
            await plane.abort_upload(UploadId(bucket, upload.key, upload.upload_id))
            aborted += 1

    while True:
        page = await plane.list_uploads(bucket, after)
        # By the service's clock, which tells when they began: this machine's may be hours ahead.
        before = before or page.now + _TICK - timedelta(seconds=older_than)
        await for_each(
            [upload for upload in page.uploads if upload.initiated < before], abort, limit=ABORTS
        )
        if page.next_markers is None:
            return aborted
        cycle.check(repr(page.next_markers), empty=not page.uploads)
        after = page.next_markers
