"""Server-side copies: in one request, or as a multipart upload if the object is too large for one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

from trove_async._concurrency import CLEANUP_SECONDS, await_outcome, for_each
from trove_async._http.services import map_condition_errors
from trove_async._version_identity import is_same
from trove_async.errors import (
    BucketNotFoundError,
    NotFoundError,
    ObjectChangedError,
    ObjectNotFoundError,
    PreconditionFailedError,
    UnavailableError,
)
from trove_async.models import GiB, MiB, ObjectInfo
from trove_async.options import CopyOptions

from ._data_plane import UnconfirmedWriteError, confirm_stored
from ._errors import bucket_not_found
from ._multipart import MultipartUpload, send_with_retries

if TYPE_CHECKING:
    from ._data_plane import DataPlane

MAX_COPY: Final = 5 * GiB
"""Maximum size of an object that one CopyObject request can copy. S3 API Reference, "CopyObject"."""

_PART_SIZE: Final = 512 * MiB
"""Size of a part. A service copies tens of MB per second and responds when the part is complete, so
a part of 5 GiB would keep its request waiting for minutes."""

_PARALLEL_PARTS: Final = 8
_MAX_PARTS: Final = 10_000
"""S3 User Guide, "Amazon S3 multipart upload limits"."""


class Copier:
    """Copies objects within the service.

    Args:
        plane: Sends the requests.
        exists: Returns whether a bucket exists.
        max_single_copy: Maximum size of an object to copy in one request.
        part_size: Size of the parts of a larger object, unless that would be too many parts.
    """

    def __init__(
        self,
        plane: DataPlane,
        exists: Callable[[str], Awaitable[bool]],
        *,
        max_single_copy: int = MAX_COPY,
        part_size: int = _PART_SIZE,
    ) -> None:
        self._plane = plane
        self._exists = exists
        self._max_single_copy = max_single_copy
        self._part_size = part_size

    def needs_multipart(self, source: ObjectInfo) -> bool:
        """Return whether the source is too large for one request."""
        return source.stored_size > self._max_single_copy

    async def copy(
        self, src_bucket: str, src_key: str, bucket: str, key: str, options: CopyOptions
    ) -> ObjectInfo:
        """Copy an object. See `Copying.copy`."""
        source = options.source.located(bucket=src_bucket, key=src_key)
        try:
            if not self.needs_multipart(source):
                return await self._plane.copy_object(src_bucket, src_key, bucket, key, options)
            return await self._copy_in_parts(source, bucket, key, options)
        except UnconfirmedWriteError as unconfirmed:
            return await confirm_stored(self._plane, unconfirmed.info)
        except BucketNotFoundError as error:
            # The response does not name the missing bucket.
            error.bucket = src_bucket if await self._exists(bucket) else bucket
            error.key = src_key if error.bucket == src_bucket else key
            raise
        except UnavailableError as error:
            # SeaweedFS responds with 500 if the destination's bucket is missing.
            if await self._exists(bucket):
                raise
            raise bucket_not_found(error, bucket) from error
        except ObjectNotFoundError as error:
            error.bucket, error.key = src_bucket, src_key
            raise
        except PreconditionFailedError as error:
            if isinstance(error, ObjectChangedError) or await self._has_changed(source):
                raise ObjectChangedError(
                    "the source has changed since it was read", bucket=src_bucket, key=src_key
                ) from error
            with map_condition_errors(options.put):
                raise

    async def _has_changed(self, source: ObjectInfo) -> bool:
        """Return whether the source has changed, which makes the copy's condition on it fail."""
        try:
            info = await self._plane.head_object(source.bucket, source.key, source.version_id)
        except NotFoundError:
            return True
        return not is_same(source, info)

    async def _copy_in_parts(
        self, source: ObjectInfo, bucket: str, key: str, options: CopyOptions
    ) -> ObjectInfo:
        size = source.stored_size
        part_size = max(self._part_size, -(-size // _MAX_PARTS))
        spans = [(start, min(start + part_size, size)) for start in range(0, size, part_size)]
        async with MultipartUpload(self._plane, bucket, key, options.put) as upload:

            async def copy(numbered_span: tuple[int, tuple[int, int]]) -> None:
                number, span = numbered_span
                # Retried here: a retry of the whole copy would copy all other parts again.
                sent = await send_with_retries(
                    lambda: self._plane.copy_part(upload.id, number, source, span)
                )
                upload.add(span[1] - span[0], sent)

            await for_each(list(enumerate(spans, 1)), copy, limit=_PARALLEL_PARTS)
            return await await_outcome(upload.commit({}), CLEANUP_SECONDS)
