"""The part of the HTTP data plane that sends multipart uploads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from trove_async._checksums import CRC32C, part_crc32c
from trove_async.driver import PartSource
from trove_async.models import ObjectInfo
from trove_async.options import Page, Part, PutOptions, VersionPage

from ._data_plane import UploadId
from ._documents import (
    AmbiguousKeysError,
    SentPart,
    UploadsPage,
    complete_body,
    parse_completed,
    parse_part_copied,
    parse_upload_id,
    parse_uploads,
)
from ._encoding import encode_query
from ._headers import (
    CHECKSUMS,
    condition_headers,
    object_headers,
    put_info,
    source_headers,
    stored_etag,
)
from ._responses import PAGE_BYTES, malformed, read_document, read_time, read_write_result
from ._xml import MalformedResponse

if TYPE_CHECKING:
    from ._client import Client
    from ._dialects import Service
    from ._object_settings import ObjectSettings

Listing = TypeVar("Listing", Page, VersionPage, UploadsPage)


class HttpMultipart:
    """Base class of `HttpPlane`: sends multipart uploads, and holds the state of all operations.

    Args:
        client: Signs and sends requests.
        backend: The value of `ObjectInfo.backend`.
        region: The region of new buckets.
        service: The service and its deviations from S3.
        owner: The account that must own the source of a copy. None accepts any owner.
        checksums: Whether to send a CRC-32C with each body, and to request checksums with reads.
        object_settings: Settings that apply to every object, such as encryption.
    """

    def __init__(
        self,
        client: Client,
        backend: str,
        region: str,
        service: Service,
        *,
        owner: str | None,
        checksums: bool,
        object_settings: ObjectSettings,
    ) -> None:
        self._create_headers = object_settings.create_headers
        self._key_headers = object_settings.customer_key_headers
        self._source_key_headers = object_settings.source_key_headers
        self._owner = owner
        self._client = client
        self._backend = backend
        self._region = region
        self._service = service
        self._checksums = checksums
        # The service returns checksums only on request.
        self._read_headers = {"x-amz-checksum-mode": "ENABLED"} if checksums else {}
        self._read_headers |= self._key_headers

    async def create_upload(self, bucket: str, key: str, options: PutOptions) -> UploadId:
        """Start a multipart upload."""
        headers = object_headers(options) | self._create_headers
        if self._checksums:
            # The service combines the parts' checksums and compares the result with the checksum of
            # the whole object (S3 User Guide, "Checking object integrity": full object checksums).
            headers["x-amz-checksum-algorithm"] = "CRC32C"
            headers["x-amz-checksum-type"] = "FULL_OBJECT"
        response = await self._client.send(
            "POST",
            bucket,
            key,
            query="uploads",
            headers=self._service.dialect.write_headers(headers),
        )
        return UploadId(bucket, key, await read_document(response, parse_upload_id))

    async def upload_part(
        self, upload: UploadId, part: Part, views: Sequence[memoryview]
    ) -> SentPart:
        """Upload one part."""
        checksums: dict[str, str] = {}
        if self._checksums:
            checksums[CRC32C] = await part_crc32c(part.checksums, views)
        return await self._send_part(upload, part.number, views, checksums)

    async def stream_part(self, upload: UploadId, number: int, source: PartSource) -> SentPart:
        """Upload one part while reading it from its source."""
        checksums = dict(source.checksums) if self._checksums else {}
        return await self._send_part(upload, number, source, checksums)

    async def _send_part(
        self,
        upload: UploadId,
        number: int,
        views: Sequence[memoryview] | PartSource,
        checksums: Mapping[str, str],
    ) -> SentPart:
        response = await self._client.send(
            "PUT",
            upload.bucket,
            upload.key,
            query=_part_query(upload, number),
            headers={CHECKSUMS[kind]: value for kind, value in checksums.items()}
            | self._key_headers,
            views=views,
        )
        response.close()
        try:
            etag = stored_etag(response.headers)
        except MalformedResponse as error:
            raise malformed(error) from error
        return SentPart(number=number, etag=etag, checksums=checksums)

    async def copy_part(
        self, upload: UploadId, number: int, source: ObjectInfo, span: tuple[int, int]
    ) -> SentPart:
        """Upload one part by copying a range of an object."""
        headers = source_headers(source, self._owner) | self._key_headers | self._source_key_headers
        headers["x-amz-copy-source-range"] = f"bytes={span[0]}-{span[1] - 1}"
        response = await self._client.send(
            "PUT",
            upload.bucket,
            upload.key,
            query=_part_query(upload, number),
            headers=headers,
            patient=True,
        )
        stored = await read_document(response, parse_part_copied)
        return SentPart(number=number, etag=stored.etag, checksums=stored.checksums)

    async def complete_upload(
        self, upload: UploadId, parts: Sequence[SentPart], options: PutOptions
    ) -> ObjectInfo:
        """Assemble the object from its parts."""
        body = complete_body(parts)
        headers = {
            "content-type": "application/xml",
            **condition_headers(options),
            **self._key_headers,
        }
        size = options.size or 0
        if self._checksums:
            headers["x-amz-checksum-type"] = "FULL_OBJECT"
            if "crc32c" in options.checksums:
                headers[CHECKSUMS["crc32c"]] = options.checksums["crc32c"]
            headers["x-amz-mp-object-size"] = str(size)
        response = await self._client.send(
            "POST",
            upload.bucket,
            upload.key,
            query=encode_query({"uploadId": upload.id}),
            headers=headers,
            views=[memoryview(body)],
            patient=True,
        )
        info = put_info(
            response.headers,
            bucket=upload.bucket,
            key=upload.key,
            size=size,
            options=options,
            backend=self._backend,
        )
        return await read_write_result(response, parse_completed, info)

    async def abort_upload(self, upload: UploadId) -> None:
        """Abort an upload."""
        response = await self._client.send(
            "DELETE",
            upload.bucket,
            upload.key,
            query=encode_query({"uploadId": upload.id}),
            headers={},
        )
        response.close()

    async def list_uploads(self, bucket: str, after: tuple[str, str] | None) -> UploadsPage:
        """Return a page of the unfinished uploads."""
        query = {"uploads": ""}
        if after is not None:
            query |= {"key-marker": after[0], "upload-id-marker": after[1]}
        return await self._send_listing(bucket, query, parse_uploads)

    async def _send_listing(
        self, bucket: str, query: Mapping[str, str], parse: Callable[..., Listing]
    ) -> Listing:
        """Return a page of a listing, with decoded keys.

        The first request asks for encoded keys. Some services return them unencoded, and some encode
        them without declaring it. If the response is ambiguous, a second request asks for unencoded keys.
        """
        encoded = encode_query({**query, "encoding-type": "url"})
        response = await self._client.send("GET", bucket, query=encoded, headers={})
        try:
            page = await read_document(
                response, partial(parse, encoding_requested=True), PAGE_BYTES
            )
        except AmbiguousKeysError:
            response = await self._client.send("GET", bucket, query=encode_query(query), headers={})
            page = await read_document(response, parse, PAGE_BYTES)
        if isinstance(page, UploadsPage):
            return replace(page, now=read_time(response))
        return page


def _part_query(upload: UploadId, number: int) -> str:
    return encode_query({"partNumber": str(number), "uploadId": upload.id})
