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
from ._defaults import Defaults
from ._dialects import Service
from ._documents import OpenUpload, SentPart, UploadsPage
from ._encoding import bare_etag, quoted_etag, strong_etag
from ._headers import condition_headers, object_headers, put_info, response_time
from ._sdk_client import SdkClient, edge
from ._sdk_parameters import (
    copy_parameters,
    elements,
    parameters,
    upload_parameters,
    whole_checksums,
)

DOCUMENT: Final = "TroveDocument"
"""The name under which the SDK's parsed response also carries the raw document."""


class SdkMultipart:
    """The multipart uploads of `SdkPlane`.

    Args:
        client: The SDK's client, open. `SdkPlane` closes it.
        endpoint: The service's endpoint.
        backend: The backend's name.
        service: The service and its deviations from S3.
        owner: The account that must own the buckets.
        checksums: Whether to send a CRC-32C with each body.
        defaults: Settings that apply to every object, such as encryption.
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
        defaults: Defaults,
    ) -> None:
        self._made_with, self._keyed = parameters(defaults.made), parameters(defaults.keyed)
        self._keyed_source = parameters(defaults.keyed_source)
        self._client = client
        client.sdk.meta.events.register("before-parse.s3.ListObjectVersions", _keep_document)
        self._call = client.call
        self._endpoint = endpoint
        self._backend = backend
        self._service = service
        self._owner = owner
        self._owned = {} if owner is None else {"ExpectedBucketOwner": owner}
        self._checksums = checksums
        self._asking = {"ChecksumMode": "ENABLED"} if checksums else {}
        self._asking |= self._keyed

    async def create_upload(self, bucket: str, key: str, options: PutOptions) -> UploadId:
        """Start a multipart upload."""
        kind = (
            {"ChecksumAlgorithm": "CRC32C", "ChecksumType": "FULL_OBJECT"}
            if self._checksums
            else {}
        )
        response, _ = await self._call(
            "create_multipart_upload",
            Bucket=bucket,
            Key=key,
            **parameters(self._service.dialect.spoken(object_headers(options))),
            **self._made_with,
            **kind,
            **self._owned,
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
            **self._keyed,
            **self._owned,
        )
        with edge():
            etag = bare_etag(response["ETag"])
        return SentPart(number=number, etag=etag, checksums=checksums)

    async def stream_part(self, upload: UploadId, number: int, source: PartSource) -> SentPart:
        """Raise NotSupportedError: this plane sends only buffered bodies.

        The driver's capabilities exclude streamed parts accordingly.
        """
        del upload, number, source
        raise NotSupportedError("parts are read while they are sent by data_plane='lean' only")

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
            **self._keyed,
            **self._keyed_source,
            **self._owned,
        )
        with edge():
            told = response["CopyPartResult"]
            return SentPart(
                number=number, etag=bare_etag(told["ETag"]), checksums=whole_checksums(told)
            )

    async def complete_upload(
        self, upload: UploadId, parts: Sequence[SentPart], options: PutOptions
    ) -> ObjectInfo:
        """Assemble the object from its parts."""
        size = options.size or 0
        whole: dict[str, Any] = {}
        if self._checksums:
            whole = {
                "ChecksumType": "FULL_OBJECT",
                "MpuObjectSize": size,
                **elements({k: v for k, v in options.checksums.items() if k == "crc32c"}),
            }
        response, said = await self._call(
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
            **self._keyed,
            **whole,
            **self._owned,
        )
        return self._stored(upload, said, response, size, options)

    async def abort_upload(self, upload: UploadId) -> None:
        """Abort an upload."""
        await self._call("abort_multipart_upload", **upload_parameters(upload), **self._owned)

    async def list_uploads(self, bucket: str, after: tuple[str, str] | None) -> UploadsPage:
        """Return a page of the uploads that are neither completed nor aborted."""
        markers = {} if after is None else {"KeyMarker": after[0], "UploadIdMarker": after[1]}
        response, said = await self._call(
            "list_multipart_uploads", Bucket=bucket, **markers, **self._owned
        )
        with edge():
            return UploadsPage(
                now=response_time(said),
                uploads=[
                    OpenUpload(
                        key=one["Key"], upload_id=one["UploadId"], initiated=one["Initiated"]
                    )
                    for one in response.get("Uploads", ())
                ],
                next_markers=(response["NextKeyMarker"], response["NextUploadIdMarker"])
                if response.get("IsTruncated")
                else None,
            )

    def _stored(
        self,
        upload: UploadId,
        said: Mapping[str, str],
        told: Mapping[str, Any],
        size: int,
        options: PutOptions,
    ) -> ObjectInfo:
        """Return the facts of an object after its completion or copy.

        Raises:
            UnconfirmedWriteError: The response has no ETag.
        """
        info = put_info(
            said,
            bucket=upload.bucket,
            key=upload.key,
            size=size,
            options=options,
            backend=self._backend,
        )
        if not told.get("ETag"):
            raise UnconfirmedWriteError(info)
        modified = told.get("LastModified")
        return replace(
            info,
            etag=strong_etag(told["ETag"]),
            last_modified=info.last_modified if modified is None else modified.astimezone(UTC),
            checksums=whole_checksums(told),
        )


def _keep_document(
    response_dict: Mapping[str, Any], customized_response_dict: dict[str, Any], **_: object
) -> None:
    """Keep the raw document, because the SDK's parser loses the order of versions and markers."""
    customized_response_dict[DOCUMENT] = response_dict["body"]
