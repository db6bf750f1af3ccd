"""S3's operations as the driver sees them: the seam between what it does and how it is sent.

There are two planes: `LeanPlane`, which signs and sends by itself, and `SdkPlane`, which sends
everything through aiobotocore. Both raise what the service answers as our errors, and neither mends
anything: what an answer means for a bucket, a condition or an upload is the driver's to know.
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


class UntoldError(Exception):
    """A request that stores an object succeeded, and the response says nothing of the object.

    A service may leave the ETag out, and so may a portal in front of the network that the request
    never passed: `settled` tells them apart.

    Args:
        info: What the request alone says of the object.
    """

    def __init__(self, info: ObjectInfo) -> None:
        super().__init__(info.key)
        self.info = info


class UploadId(NamedTuple):
    """An upload in parts, as the service knows it."""

    bucket: str
    key: str
    id: str


class Plane(Protocol):
    """One way to send S3's operations."""

    async def put_object(
        self, bucket: str, key: str, views: Sequence[memoryview], options: PutOptions
    ) -> ObjectInfo:
        """Store an object in one request.

        Raises:
            UntoldError: Nothing says what was stored. So do `copy_object` and `complete_upload`.
        """
        ...

    async def get_object(self, bucket: str, key: str, options: GetOptions) -> GetResult:
        """Open an object's body; the caller closes it."""
        ...

    async def head_object(self, bucket: str, key: str, version_id: str | None) -> ObjectInfo:
        """Return an object's facts, its tags included. An error may not say what is missing."""
        ...

    async def encryption(self, bucket: str, key: str) -> Mapping[str, str]:
        """Return the headers that say how an object is encrypted."""
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
        """Make a bucket keep versions from now on, or no more."""
        ...

    async def copy_object(
        self, src_bucket: str, src_key: str, bucket: str, key: str, options: CopyOptions
    ) -> ObjectInfo:
        """Copy an object in one request."""
        ...

    async def create_upload(self, bucket: str, key: str, options: PutOptions) -> UploadId:
        """Begin an upload."""
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
        """Store a part that is a piece of an object, which must still be that version."""
        ...

    async def complete_upload(
        self, upload: UploadId, parts: Sequence[SentPart], options: PutOptions
    ) -> ObjectInfo:
        """Make the object of its parts.

        `options` are those that the upload began with, and the checksums and size of it all.
        """
        ...

    async def abort_upload(self, upload: UploadId) -> None:
        """Let an upload go."""
        ...

    async def list_uploads(self, bucket: str, after: tuple[str, str] | None) -> UploadsPage:
        """Return a page of the uploads that nobody has completed or aborted."""
        ...

    async def presign(
        self, method: str, bucket: str, key: str, expires: int, options: PresignOptions
    ) -> str:
        """Return a URL that carries a signature."""
        ...

    async def create_bucket(self, bucket: str) -> None:
        """Make a bucket. One that is one's own may be no error."""
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
        """Let go of everything. Idempotent."""
        ...


async def settled(plane: Plane, info: ObjectInfo) -> ObjectInfo:
    """Return the facts of an object that a request has stored without being told of it.

    Args:
        plane: Sends the HEAD.
        info: What the request alone says of the object.

    Raises:
        UnavailableError: The object is not there, or is another write's.
    """
    try:
        found = await plane.head_object(info.bucket, info.key, info.version_id)
    except NotFoundError as error:
        raise UnavailableError("a success was answered, and there is no object") from error
    ours = found.size == info.size if info.write_id is None else found.write_id == info.write_id
    if not ours:
        raise UnavailableError("a success was answered, and the object is another one")
    return found
