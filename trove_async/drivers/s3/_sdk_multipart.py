"""The part of the aiobotocore data plane that sends multipart uploads."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC
from functools import partial
from http import HTTPStatus
from typing import Any, Final

from botocore.parsers import ResponseParserError

from trove_async._checksums import CRC32C, part_crc32c
from trove_async.driver import PartSource
from trove_async.errors import NotSupportedError
from trove_async.models import ObjectInfo
from trove_async.options import Part, PutOptions

from ._credentials import Endpoint
from ._data_plane import UnconfirmedWriteError, UploadId
from ._dialects import Service
from ._documents import SentPart, UnfinishedUpload, UploadsPage
from ._encoding import bare_etag, quoted_etag, strong_etag
from ._headers import condition_headers, object_headers, put_info, response_time
from ._object_settings import ObjectSettings
from ._sdk_client import SdkClient, translate_sdk_errors
from ._sdk_parameters import (
    checksum_parameters,
    copy_parameters,
    full_checksums,
    header_parameters,
    upload_parameters,
)

DOCUMENT: Final = "TroveDocument"
"""The key under which `_keep_document` adds the raw document to the SDK's parsed response."""

_LISTINGS: Final = {
    "ListObjectsV2": b"ListBucketResult",
    "ListMultipartUploads": b"ListMultipartUploadsResult",
    "ListBuckets": b"ListAllMyBucketsResult",
}
"""The root elements of documents whose elements are all optional. To the SDK's parser, any other document
is an empty listing, for example the login page of a proxy."""

_ROOT_ELEMENT: Final = re.compile(rb"<(?:\w+:)?([A-Za-z]\w*)")
"""Finds the name of the first element. A declaration and a comment start with other characters."""

UNENCODED: Final = "none"
"""Pass this as ``EncodingType`` to request unencoded keys. If the argument is omitted, the SDK adds
``encoding-type=url``."""


class SdkMultipart:
    """Base class of `SdkPlane`: sends multipart uploads, and holds the state of all operations.

    Args:
        client: The SDK's client. It is open.
        endpoint: The service's endpoint.
        backend: The backend's name.
        service: The service and its deviations from S3.
        owner: The account that must own the buckets. None accepts any owner.
        checksums: Whether to send a CRC-32C with each body, and to request checksums with reads.
        object_settings: Settings that apply to every object, such as encryption.
    """

    def __init__(
        self,
        client: SdkClient,
        endpoint: Endpoint,
        backend: str,
        service: Service,
        *,
        owner: str | None,
        checksums: bool,
        object_settings: ObjectSettings,
    ) -> None:
        self._create_parameters = header_parameters(object_settings.create_headers)
        self._key_parameters = header_parameters(object_settings.customer_key_headers)
        self._source_key_parameters = header_parameters(object_settings.source_key_headers)
        self._client = client
        events = client.sdk.meta.events
        events.register("before-parse.s3.ListObjectVersions", _keep_document)
        for operation, root in _LISTINGS.items():
            events.register(f"before-parse.s3.{operation}", partial(_check_root, root))
        for operation in ("ListObjectsV2", "ListObjectVersions"):
            # Runs after the SDK's own handler, which was registered earlier.
            events.register(f"before-parameter-build.s3.{operation}", _omit_encoding_type)
        self._call = client.call
        self._endpoint = endpoint
        self._backend = backend
        self._service = service
        self._owner = owner
        self._owner_parameters = {} if owner is None else {"ExpectedBucketOwner": owner}
        self._checksums = checksums
        self._read_parameters = {"ChecksumMode": "ENABLED"} if checksums else {}
        self._read_parameters |= self._key_parameters

    async def create_upload(self, bucket: str, key: str, options: PutOptions) -> UploadId:
        """Start a multipart upload."""
        checksum_settings = (
            {"ChecksumAlgorithm": "CRC32C", "ChecksumType": "FULL_OBJECT"}
            if self._checksums
            else {}
        )
        response, _ = await self._call(
            "create_multipart_upload",
            Bucket=bucket,
            Key=key,
            **header_parameters(self._service.dialect.write_headers(object_headers(options))),
            **self._create_parameters,
            **checksum_settings,
            **self._owner_parameters,
        )
        with translate_sdk_errors():
            return UploadId(bucket, key, response["UploadId"])

    async def upload_part(
        self, upload: UploadId, part: Part, views: Sequence[memoryview]
    ) -> SentPart:
        """Upload one part."""
        checksums = {CRC32C: await part_crc32c(part.checksums, views)} if self._checksums else {}
        response, _ = await self._call(
            "upload_part",
            **upload_parameters(upload),
            PartNumber=part.number,
            Body=b"".join(views),
            **checksum_parameters(checksums),
            **self._key_parameters,
            **self._owner_parameters,
        )
        with translate_sdk_errors():
            etag = bare_etag(response["ETag"])
        return SentPart(number=part.number, etag=etag, checksums=checksums)

    async def stream_part(self, upload: UploadId, number: int, source: PartSource) -> SentPart:
        """Raise NotSupportedError, because this plane sends only buffered bodies.

        The driver's capabilities exclude streamed parts.
        """
        del upload, number, source
        raise NotSupportedError("streaming a part requires data_plane='lean'")

    async def copy_part(
        self, upload: UploadId, number: int, source: ObjectInfo, span: tuple[int, int]
    ) -> SentPart:
        """Upload one part by copying a range of an object."""
        response, _ = await self._call(
            "upload_part_copy",
            **upload_parameters(upload),
            PartNumber=number,
            CopySourceRange=f"bytes={span[0]}-{span[1] - 1}",
            **copy_parameters(source, self._owner),
            **self._key_parameters,
            **self._source_key_parameters,
            **self._owner_parameters,
        )
        with translate_sdk_errors():
            result = response["CopyPartResult"]
            return SentPart(
                number=number, etag=bare_etag(result["ETag"]), checksums=full_checksums(result)
            )

    async def complete_upload(
        self, upload: UploadId, parts: Sequence[SentPart], options: PutOptions
    ) -> ObjectInfo:
        """Assemble the object from its parts."""
        size = options.size or 0
        object_parameters: dict[str, Any] = {}
        if self._checksums:
            object_parameters = {
                "ChecksumType": "FULL_OBJECT",
                "MpuObjectSize": size,
                **checksum_parameters(
                    {name: value for name, value in options.checksums.items() if name == CRC32C}
                ),
            }
        response, headers = await self._call(
            "complete_multipart_upload",
            **upload_parameters(upload),
            MultipartUpload={
                "Parts": [
                    {
                        "PartNumber": part.number,
                        "ETag": quoted_etag(part.etag),
                        **checksum_parameters(part.checksums),
                    }
                    for part in parts
                ]
            },
            **header_parameters(condition_headers(options)),
            **self._key_parameters,
            **object_parameters,
            **self._owner_parameters,
        )
        return self._written_info(
            headers, response, bucket=upload.bucket, key=upload.key, size=size, options=options
        )

    async def abort_upload(self, upload: UploadId) -> None:
        """Abort an upload."""
        await self._call(
            "abort_multipart_upload", **upload_parameters(upload), **self._owner_parameters
        )

    async def list_uploads(self, bucket: str, after: tuple[str, str] | None) -> UploadsPage:
        """Return a page of the unfinished uploads."""
        markers = {} if after is None else {"KeyMarker": after[0], "UploadIdMarker": after[1]}
        response, headers = await self._call(
            "list_multipart_uploads", Bucket=bucket, **markers, **self._owner_parameters
        )
        with translate_sdk_errors():
            return UploadsPage(
                now=response_time(headers),
                uploads=[
                    UnfinishedUpload(
                        key=item["Key"], upload_id=item["UploadId"], initiated=item["Initiated"]
                    )
                    for item in response.get("Uploads", ())
                ],
                next_markers=(response["NextKeyMarker"], response["NextUploadIdMarker"])
                if response.get("IsTruncated")
                else None,
            )

    def _written_info(
        self,
        headers: Mapping[str, str],
        result: Mapping[str, Any],
        *,
        bucket: str,
        key: str,
        size: int,
        options: PutOptions,
    ) -> ObjectInfo:
        """Return information about an object that an upload or a copy has just created.

        Args:
            headers: The response's headers.
            result: The result element of the response's document, parsed by the SDK.
            bucket: The object's bucket.
            key: The object's key.
            size: The object's size.
            options: The options of the write.

        Raises:
            UnconfirmedWriteError: The response has no ETag.
        """
        info = put_info(
            headers, bucket=bucket, key=key, size=size, options=options, backend=self._backend
        )
        if not result.get("ETag"):
            raise UnconfirmedWriteError(info)
        modified = result.get("LastModified")
        return replace(
            info,
            etag=strong_etag(result["ETag"]),
            last_modified=info.last_modified if modified is None else modified.astimezone(UTC),
            checksums=full_checksums(result),
        )


def _keep_document(
    response_dict: Mapping[str, Any], customized_response_dict: dict[str, Any], **_: object
) -> None:
    """Keep the raw document, because the SDK's parser loses the order of versions and markers."""
    customized_response_dict[DOCUMENT] = response_dict["body"]


def _check_root(root: bytes, response_dict: Mapping[str, Any], **_: object) -> None:
    """Raise ResponseParserError if a successful response is not the expected document."""
    if response_dict["status_code"] == HTTPStatus.OK:
        found = _ROOT_ELEMENT.search(response_dict["body"])
        if found is None or found[1] != root:
            raise ResponseParserError(f"expected a document <{root.decode()}>")


def _omit_encoding_type(params: dict[str, Any], **_: object) -> None:
    """Remove ``EncodingType`` from the parameters if it is `UNENCODED`."""
    if params.get("EncodingType") == UNENCODED:
        del params["EncodingType"]
