"""The data plane protocol: one method for each S3 operation that the driver uses.

`HttpPlane` signs and sends requests itself. `SdkPlane` sends them through aiobotocore. Both
translate the service's errors. The driver makes some of the errors more specific.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from trove_async._concurrency import for_each
from trove_async._http import GetResult
from trove_async.driver import PartSource
from trove_async.errors import NotFoundError, ObjectNotFoundError, TroveError, UnavailableError
from trove_async.models import BucketInfo, DeleteResult, ObjectInfo
from trove_async.options import (
    CopyOptions,
    DeleteOptions,
    GetOptions,
    ListOptions,
    Page,
    Part,
    PresignOptions,
    PutOptions,
    VersionPage,
)

if TYPE_CHECKING:
    from ._documents import SentPart, UploadsPage


_SINGLE_DELETES: Final = 8
"""Maximum number of concurrent requests of `delete_singly`."""


class UnconfirmedWriteError(Exception):
    """Raised when a write succeeds but its response does not describe the object.

    Either the service omits the ETag, or a captive portal responded in its place. `confirm_stored`
    finds out which.

    Args:
        info: The stored object as the request describes it.
    """

    def __init__(self, info: ObjectInfo) -> None:
        super().__init__(info.key)
        self.info = info


class UploadId(NamedTuple):
    """A multipart upload, identified by its bucket, its key and the service's id."""

    bucket: str
    key: str
    id: str


class DataPlane(Protocol):
    """Sends S3 operations and returns their parsed responses."""

    async def put_object(
        self, bucket: str, key: str, views: Sequence[memoryview], options: PutOptions
    ) -> ObjectInfo:
        """Store an object in one request.

        Raises:
            UnconfirmedWriteError: The response does not describe the object. `copy_object` and
                `complete_upload` raise it too.
        """
        ...

    async def get_object(self, bucket: str, key: str, options: GetOptions) -> GetResult:
        """Open an object's body; the caller closes it."""
        ...

    async def head_object(self, bucket: str, key: str, version_id: str | None) -> ObjectInfo:
        """Return information about an object, including its tags.

        Raises:
            NotFoundError: The object or its bucket is missing. The error may not distinguish them.
        """
        ...

    async def encryption(self, bucket: str, key: str) -> Mapping[str, str]:
        """Return the headers of a HEAD, which describe the object's encryption."""
        ...

    async def delete_object(self, bucket: str, key: str, options: DeleteOptions) -> None:
        """Delete an object, or one of its versions."""
        ...

    async def delete_objects(self, bucket: str, keys: Sequence[str]) -> Sequence[DeleteResult]:
        """Delete up to 1,000 objects."""
        ...

    async def list_objects(self, bucket: str, options: ListOptions) -> Page:
        """Return a page of a listing."""
        ...

    async def list_versions(self, bucket: str, options: ListOptions) -> VersionPage:
        """Return a page of a listing of versions."""
        ...

    async def set_versioning(self, bucket: str, *, enabled: bool) -> None:
        """Enable or suspend a bucket's versioning."""
        ...

    async def copy_object(
        self, src_bucket: str, src_key: str, bucket: str, key: str, options: CopyOptions
    ) -> ObjectInfo:
        """Copy an object in one request."""
        ...

    async def create_upload(self, bucket: str, key: str, options: PutOptions) -> UploadId:
        """Start a multipart upload."""
        ...

    async def upload_part(
        self, upload: UploadId, part: Part, views: Sequence[memoryview]
    ) -> SentPart:
        """Upload one part."""
        ...

    async def stream_part(self, upload: UploadId, number: int, source: PartSource) -> SentPart:
        """Upload one part while reading it from its source."""
        ...

    async def copy_part(
        self, upload: UploadId, number: int, source: ObjectInfo, span: tuple[int, int]
    ) -> SentPart:
        """Upload one part by copying a range of one version of an object.

        Args:
            upload: The upload that the part belongs to.
            number: The part's number.
            source: The version to copy. The request fails if the object has changed since.
            span: The range's start and its exclusive end.
        """
        ...

    async def complete_upload(
        self, upload: UploadId, parts: Sequence[SentPart], options: PutOptions
    ) -> ObjectInfo:
        """Assemble the object from its parts.

        Args:
            upload: The upload.
            parts: All parts of the object.
            options: The options of `create_upload`, with the whole object's checksums and size.
        """
        ...

    async def abort_upload(self, upload: UploadId) -> None:
        """Abort an upload."""
        ...

    async def list_uploads(self, bucket: str, after: tuple[str, str] | None) -> UploadsPage:
        """Return a page of the unfinished uploads.

        Args:
            bucket: The bucket.
            after: `UploadsPage.next_markers` of the previous page. None for the first page.
        """
        ...

    async def presign(
        self, method: str, bucket: str, key: str, expires: int, options: PresignOptions
    ) -> str:
        """Return a presigned URL."""
        ...

    async def create_bucket(self, bucket: str) -> None:
        """Create a bucket. Some regions raise no error for a bucket that you already own."""
        ...

    async def delete_bucket(self, bucket: str) -> None:
        """Delete an empty bucket."""
        ...

    async def head_bucket(self, bucket: str) -> BucketInfo:
        """Return information about a bucket."""
        ...

    async def list_buckets(self) -> Sequence[BucketInfo]:
        """Return the buckets that these credentials own."""
        ...


async def delete_singly(
    keys: Sequence[str],
    outcomes: dict[str, TroveError | None],
    send: Callable[[str], Awaitable[object]],
) -> Sequence[DeleteResult]:
    """Delete the keys without an outcome, with one request each. Return all results in order.

    Args:
        keys: All keys.
        outcomes: The outcomes so far, by key: an error, or None if the key was deleted. This
            function adds the missing ones.
        send: Deletes one key.
    """

    async def delete(key: str) -> None:
        outcomes[key] = None
        try:
            await send(key)
        except ObjectNotFoundError:
            pass
        except TroveError as error:
            outcomes[key] = error

    await for_each([key for key in keys if key not in outcomes], delete, limit=_SINGLE_DELETES)
    return [DeleteResult(key=key, error=outcomes[key]) for key in keys]


async def confirm_stored(plane: DataPlane, info: ObjectInfo) -> ObjectInfo:
    """Return information about an object whose write response did not describe it.

    Args:
        plane: Sends the HEAD request.
        info: The stored object as the request describes it.

    Raises:
        UnavailableError: The object does not exist, or another write stored it.
    """
    try:
        stored = await plane.head_object(info.bucket, info.key, info.version_id)
    except NotFoundError as error:
        raise UnavailableError(
            "the service reported success, but the object does not exist"
        ) from error
    if info.write_id is None:
        is_this_write = stored.size == info.size
    else:
        is_this_write = stored.write_id == info.write_id
    if not is_this_write:
        raise UnavailableError("the service reported success, but another write stored the object")
    return stored
