"""Server-side copies: in one request, or in pieces if the object is too large for one."""

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
from ._multipart import PartedUpload, patiently

if TYPE_CHECKING:
    from ._data_plane import DataPlane

MAX_COPY: Final = 5 * GiB
"""Maximum bytes of one CopyObject. S3 API Reference, "CopyObject"."""

_PIECE: Final = 512 * MiB
"""Bytes of a piece. A service copies at tens of MB/s and responds when it has finished."""

_PIECES_AT_ONCE: Final = 8
_MOST_PIECES: Final = 10_000
"""S3 User Guide, "Amazon S3 multipart upload limits"."""


class Copier:
    """Copies objects within the service.

    Args:
        plane: Sends the requests.
        exists: Returns whether a bucket exists.
        largest: Maximum bytes of an object that is copied in one request.
        piece: Bytes of a piece.
    """

    def __init__(
        self,
        plane: DataPlane,
        exists: Callable[[str], Awaitable[bool]],
        *,
        largest: int = MAX_COPY,
        piece: int = _PIECE,
    ) -> None:
        self._plane = plane
        self._exists = exists
        self._largest = largest
        self._piece = piece

    def takes_pieces(self, source: ObjectInfo) -> bool:
        """Return whether to copy with a multipart upload, whose parts are pieces of the source."""
        return source.stored_size > self._largest

    async def copy(
        self, src_bucket: str, src_key: str, bucket: str, key: str, options: CopyOptions
    ) -> ObjectInfo:
        """Copy an object. See `Copying.copy`."""
        source = options.source.located(bucket=src_bucket, key=src_key)
        try:
            if not self.takes_pieces(source):
                return await self._plane.copy_object(src_bucket, src_key, bucket, key, options)
            return await self._in_pieces(source, bucket, key, options)
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
            raise BucketNotFoundError(error.message, bucket=bucket, key=key) from error
        except ObjectNotFoundError as error:
            error.bucket, error.key = src_bucket, src_key
            raise
        except PreconditionFailedError as error:
            if isinstance(error, ObjectChangedError) or await self._is_changed(source):
                raise ObjectChangedError(
                    "the source is another version by now", bucket=src_bucket, key=src_key
                ) from error
            with map_condition_errors(options.put):
                raise

    async def _is_changed(self, source: ObjectInfo) -> bool:
        """Return whether the source has changed, so that its condition failed."""
        try:
            info = await self._plane.head_object(source.bucket, source.key, source.version_id)
        except NotFoundError:
            return True
        return not is_same(source, info)

    async def _in_pieces(
        self, source: ObjectInfo, bucket: str, key: str, options: CopyOptions
    ) -> ObjectInfo:
        size = source.stored_size
        piece = max(self._piece, -(-size // _MOST_PIECES))
        spans = [(at, min(at + piece, size)) for at in range(0, size, piece)]
        async with PartedUpload(self._plane, bucket, key, options.put) as upload:

            async def copy(numbered: tuple[int, tuple[int, int]]) -> None:
                number, span = numbered
                # A retry of the whole copy would copy all other pieces again.
                sent = await patiently(
                    lambda: self._plane.copy_part(upload.id, number, source, span)
                )
                upload.add(span[1] - span[0], sent)

            await for_each(list(enumerate(spans, 1)), copy, limit=_PIECES_AT_ONCE)
            return await await_outcome(upload.commit({}), CLEANUP_SECONDS)
