"""The data plane protocol: one method for each S3 operation that the driver uses.

There are two implementations: `HttpPlane` signs and sends requests itself, and `SdkPlane` sends them
through aiobotocore. Both translate the service's errors. The driver interprets them for buckets,
conditions and uploads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from trove_async._http import GetResult
from trove_async.driver import PartSource
from trove_async.errors import NotFoundError, UnavailableError
from trove_async.models import BucketInfo, DeleteResult, ObjectInfo
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

if TYPE_CHECKING:
    from ._documents import SentPart, UploadsPage


class UnconfirmedWriteError(Exception):
    """A request stored an object, but the response does not describe it.

    Either the service omits the ETag, or a captive portal responded in its place. `confirm_stored`
    distinguishes the two.

    Args:
        info: The object's facts according to the request.
    """

    def __init__(self, info: ObjectInfo) -> None:
        super().__init__(info.key)
        self.info = info


class UploadId(NamedTuple):
    """The service's identifier of a multipart upload."""

    bucket: str
    key: str
    id: str


class DataPlane(Protocol):
    """One way to send S3's operations."""

    async def put_object(
        self, bucket: str, key: str, views: Sequence[memoryview], options: PutOptions
    ) -> ObjectInfo:
        """Store an object in one request.

        Raises:
            UnconfirmedWriteError: Nothing says what was stored. So do `copy_object` and `complete_upload`.
        """
        ...

    async def get_object(self, bucket: str, key: str, options: GetOptions) -> GetResult:
        """Open an object's body; the caller closes it."""
        ...

    async def head_object(self, bucket: str, key: str, version_id: str | None) -> ObjectInfo:
        """Return an object's facts, its tags included. An error may not say what is missing."""
        ...

    async def encryption(self, bucket: str, key: str) -> Mapping[str, str]:
        """Return the headers that describe an object's encryption."""
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
        self, upload: UploadId, number: int, views: Sequence[memoryview]
    ) -> SentPart:
        """Store a part."""
        ...

    async def stream_part(self, upload: UploadId, number: int, source: PartSource) -> SentPart:
        """Store a part while it is read."""
        ...

    async def copy_part(
        self, upload: UploadId, number: int, source: ObjectInfo, span: tuple[int, int]
    ) -> SentPart:
        """Copy a range of an object into a part. The object must still be that version."""
        ...

    async def complete_upload(
        self, upload: UploadId, parts: Sequence[SentPart], options: PutOptions
    ) -> ObjectInfo:
        """Assemble the object from its parts.

        `options` are those that the upload began with, and the checksums and size of it all.
        """
        ...

    async def abort_upload(self, upload: UploadId) -> None:
        """Abort an upload."""
        ...

    async def list_uploads(self, bucket: str, after: tuple[str, str] | None) -> UploadsPage:
        """Return a page of the uploads that are neither completed nor aborted."""
        ...

    async def presign(
        self, method: str, bucket: str, key: str, expires: int, options: PresignOptions
    ) -> str:
        """Return a URL that carries a signature."""
        ...

    async def create_bucket(self, bucket: str) -> None:
        """Create a bucket. A bucket that you already own may raise no error."""
        ...

    async def delete_bucket(self, bucket: str) -> None:
        """Delete an empty bucket."""
        ...

    async def head_bucket(self, bucket: str) -> BucketInfo:
        """Return a bucket's facts."""
        ...

    async def list_buckets(self) -> Sequence[BucketInfo]:
        """Return the buckets that these credentials own."""
        ...

    async def aclose(self) -> None:
        """Close all connections. Idempotent."""
        ...


async def confirm_stored(plane: DataPlane, info: ObjectInfo) -> ObjectInfo:
    """Return the facts of a stored object that the response did not describe.

    Args:
        plane: Sends the HEAD.
        info: The object's facts according to the request.

    Raises:
        UnavailableError: The object does not exist, or is another write's.
    """
    try:
        found = await plane.head_object(info.bucket, info.key, info.version_id)
    except NotFoundError as error:
        raise UnavailableError("a success was answered, and there is no object") from error
    ours = found.size == info.size if info.write_id is None else found.write_id == info.write_id
    if not ours:
        raise UnavailableError("a success was answered, and the object is another one")
    return found
