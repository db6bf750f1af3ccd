"""A multipart upload that a later put continues if it is interrupted."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import fields, replace
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from trove_async._checksums import CRC32C, part_crc32c
from trove_async._concurrency import in_thread, run_cleanup
from trove_async.errors import BackendError, TroveError
from trove_async.models import ObjectInfo
from trove_async.options import Part, PutOptions
from trove_async.paging import TokenCycle

from ._data_plane import UploadId
from ._multipart import MultipartUpload
from ._upload_records import RecordedPart, RecordedUpload, UploadRecord

if TYPE_CHECKING:
    from ._data_plane import DataPlane

_NOT_COMPARED: Final = {"checksums", "write_id", "in_doubt_since"}
"""Options that differ between two puts of one body."""


class ResumedUpload(MultipartUpload):
    """A multipart upload with a record, in which the next put of the same body finds it.

    If the upload is not completed, it is kept, unless nothing was stored. A part is sent only if the record has
    none of its number with its size and CRC-32C: so a body that was changed is never mixed with the old one.

    The object has the write id of the put that has begun the upload.

    Args:
        plane: As `MultipartUpload`.
        bucket: As `MultipartUpload`.
        key: As `MultipartUpload`.
        options: As `MultipartUpload`.
        records: The directory of the records.
        address: The service, the bucket and the key, under which the record is found. While another put uses
            the record, this upload is one without a record.
        directories: As `MultipartUpload`.
    """

    def __init__(
        self,
        plane: DataPlane,
        bucket: str,
        key: str,
        options: PutOptions,
        *,
        records: str,
        address: str,
        directories: bool,
    ) -> None:
        super().__init__(plane, bucket, key, options, directories=directories)
        self._records = records
        self._address = address
        self._record: UploadRecord | None = None

    async def __aenter__(self) -> Self:
        claimed: list[UploadRecord | None] = []
        try:
            # The call in the thread ends even if this task is cancelled, so it stores its result.
            await in_thread(
                lambda: claimed.append(UploadRecord.claim(self._records, self._address))
            )
            [self._record] = claimed
            if self._record is None:
                return await super().__aenter__()
            return await self._enter(self._record)
        except BaseException:
            if claimed and claimed[0] is not None:
                claimed[0].close()
            raise

    async def _enter(self, record: UploadRecord) -> Self:
        recorded, fingerprint = record.upload, _fingerprint(self._options)
        if recorded is not None:
            upload = UploadId(self._bucket, self._key, recorded.id)
            if await self._exists(upload):
                if recorded.options == fingerprint:
                    self._options = replace(self._options, write_id=recorded.write_id)
                    self._upload = upload
                    return self
                with suppress(TroveError):  # `gc_uploads` aborts an upload that this fails to abort
                    await self._abort(upload)
        await super().__aenter__()
        begun = RecordedUpload(id=self.id.id, write_id=self._options.write_id, options=fingerprint)
        try:
            await in_thread(record.begin, begun)
        except BaseException:
            await super().__aexit__(None, None, None)
            raise
        return self

    async def _exists(self, upload: UploadId) -> bool:
        """Return whether the service still has an upload. It may have been aborted, or completed."""
        after: tuple[str, str] | None = None
        cycle = TokenCycle()
        while True:
            page = await self._plane.list_uploads(upload.bucket, after)
            if any((one.key, one.upload_id) == (upload.key, upload.id) for one in page.uploads):
                return True
            if page.next_markers is None:
                return False
            cycle.check(repr(page.next_markers), empty=not page.uploads)
            after = page.next_markers

    async def send(self, part: Part, views: Sequence[memoryview]) -> None:
        """Store one part, unless the service has it. See `Upload.send`."""
        if self._record is None:
            await super().send(part, views)
            return
        crc32c = await part_crc32c(part.checksums, views)
        part = replace(part, checksums={CRC32C: crc32c})
        known = self._record.parts.get(part.number)
        if known is not None and (known.size, known.crc32c) == (part.size, crc32c):
            self.add(part.size, known.sent)
            return
        sent = await self._plane.upload_part(self.id, part, views)
        self.add(part.size, sent)
        await in_thread(self._record.add, RecordedPart(part.size, crc32c, sent))

    async def commit(self, checksums: Mapping[str, str]) -> ObjectInfo:
        """Complete the upload. See `Upload.commit`."""
        try:
            return await super().commit(checksums)
        except BackendError:
            raise  # a later put may complete it
        except TroveError:
            # The service refuses these parts, or has forgotten the upload: the next put begins a new one.
            if self._record is not None:
                await in_thread(self._record.discard)
            raise

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        record = self._record
        if record is not None and self._info is None and self._sent and self._completion == "none":
            record.close()  # the upload is kept
            return
        try:
            await super().__aexit__(kind, error, traceback)
        finally:
            if record is not None:
                await run_cleanup(in_thread(record.discard))


def _fingerprint(options: PutOptions) -> str:
    values = [
        (field.name, getattr(options, field.name))
        for field in fields(options)
        if field.name not in _NOT_COMPARED
    ]
    plain = [
        (name, sorted(value.items()) if isinstance(value, Mapping) else str(value))
        for name, value in values
    ]
    return hashlib.sha256(repr(plain).encode()).hexdigest()
