"""The aiobotocore data plane: its state, and requests for multipart uploads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC
from typing import Any, Final

from trove_async._checksums import CRC32C, crc32c_of
from trove_async.driver import PartSource
from trove_async.errors import NotSupportedError
from trove_async.models import ObjectInfo
from trove_async.options import PutOptions

from ._credentials import Endpoint
from ._data_plane import UnconfirmedWriteError, UploadId
from ._dialects import Service
from ._documents import OpenUpload, SentPart, UploadsPage
from ._encoding import bare_etag, quoted_etag, strong_etag
from ._headers import condition_headers, object_headers, put_info, response_time
from ._object_settings import ObjectSettings
from ._sdk_client import SdkClient, edge
from ._sdk_parameters import (
    copy_parameters,
    elements,
    full_checksums,
    parameters,
    upload_parameters,
)

DOCUMENT: Final = "TroveDocument"
"""The name of the raw document in the SDK's parsed response."""

UNENCODED: Final = "none"
"""An ``EncodingType`` for which the request omits the parameter. By default, the SDK adds
``encoding-type=url``."""


class SdkMultipart:
    """The multipart uploads of `SdkPlane`.

    Args:
        client: The SDK's client, open.
        endpoint: The service's endpoint.
        backend: The backend's name.
        service: The service and its deviations from S3.
        owner: The account that must own the buckets.
        checksums: Whether to send a CRC-32C with each body.
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
        self._create_parameters = parameters(object_settings.create_headers)
        self._key_parameters = parameters(object_settings.customer_key_headers)
        self._source_key_parameters = parameters(object_settings.source_key_headers)
        self._client = client
        events = client.sdk.meta.events
        events.register("before-parse.s3.ListObjectVersions", _keep_document)
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
        checksum_parameters = (
            {"ChecksumAlgorithm": "CRC32C", "ChecksumType": "FULL_OBJECT"}
            if self._checksums
            else {}
        )
        response, _ = await self._call(
            "create_multipart_upload",
            Bucket=bucket,
            Key=key,
            **parameters(self._service.dialect.write_headers(object_headers(options))),
            **self._create_parameters,
            **checksum_parameters,
            **self._owner_parameters,
        )
        with edge():
            return UploadId(bucket, key, response["UploadId"])

    async def upload_part(
        self, upload: UploadId, number: int, views: Sequence[memoryview]
    ) -> SentPart:
        """Upload one part."""
        checksums = {CRC32C: crc32c_of(views)} if self._checksums else {}
        response, _ = await self._call(
            "upload_part",
            **upload_parameters(upload),
            PartNumber=number,
            Body=b"".join(views),
            **elements(checksums),
            **self._key_parameters,
            **self._owner_parameters,
        )
        with edge():
            etag = bare_etag(response["ETag"])
        return SentPart(number=number, etag=etag, checksums=checksums)

    async def stream_part(self, upload: UploadId, number: int, source: PartSource) -> SentPart:
        """Raise NotSupportedError: this plane sends only buffered bodies.

        The driver's capabilities exclude streamed parts accordingly.
        """
        del upload, number, source
        raise NotSupportedError("sending a part while it is read needs data_plane='lean'")

    async def copy_part(
        self, upload: UploadId, number: int, source: ObjectInfo, span: tuple[int, int]
    ) -> SentPart:
        """Copy a range of an object into a part."""
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
        with edge():
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
                **elements({k: v for k, v in options.checksums.items() if k == "crc32c"}),
            }
        response, headers = await self._call(
            "complete_multipart_upload",
            **upload_parameters(upload),
            MultipartUpload={
                "Parts": [
                    {
                        "PartNumber": part.number,
                        "ETag": quoted_etag(part.etag),
                        **elements(part.checksums),
                    }
                    for part in parts
                ]
            },
            **parameters(condition_headers(options)),
            **self._key_parameters,
            **object_parameters,
            **self._owner_parameters,
        )
        return self._written_info(upload, headers, response, size, options)

    async def abort_upload(self, upload: UploadId) -> None:
        """Abort an upload."""
        await self._call(
            "abort_multipart_upload", **upload_parameters(upload), **self._owner_parameters
        )

    async def list_uploads(self, bucket: str, after: tuple[str, str] | None) -> UploadsPage:
        """Return a page of the uploads that are neither completed nor aborted."""
        markers = {} if after is None else {"KeyMarker": after[0], "UploadIdMarker": after[1]}
        response, headers = await self._call(
            "list_multipart_uploads", Bucket=bucket, **markers, **self._owner_parameters
        )
        with edge():
            return UploadsPage(
                now=response_time(headers),
                uploads=[
                    OpenUpload(
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
        upload: UploadId,
        headers: Mapping[str, str],
        result: Mapping[str, Any],
        size: int,
        options: PutOptions,
    ) -> ObjectInfo:
        """Return information about an object after its completion or copy.

        Args:
            upload: The bucket and the key.
            headers: The response's headers.
            result: The response's document, parsed by the SDK.
            size: The object's size.
            options: The object's options.

        Raises:
            UnconfirmedWriteError: The response has no ETag.
        """
        info = put_info(
            headers,
            bucket=upload.bucket,
            key=upload.key,
            size=size,
            options=options,
            backend=self._backend,
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


def _omit_encoding_type(params: dict[str, Any], **_: object) -> None:
    """Omit the parameter from a request with `UNENCODED`."""
    if params.get("EncodingType") == UNENCODED:
        del params["EncodingType"]
