"""S3's operations through aiobotocore: for services that want its ways, and to hold ours against it.

It costs ten times as much, copies each body once, and renews no session within a request.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC
from http import HTTPStatus
from typing import Any, Final

from trove_async._checksums import CRC32C, crc32c_of
from trove_async._concurrency import for_each
from trove_async._http import GetResult, range_header
from trove_async.driver import PartSource
from trove_async.errors import NotSupportedError, ObjectNotFoundError, TroveError
from trove_async.models import BucketInfo, DeleteResult, ObjectInfo, Prefix
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
from trove_async.paging import TokenCycle

from ._credentials import Endpoint
from ._data_plane import UntoldError, UploadId
from ._defaults import Defaults
from ._dialects import Service
from ._documents import OpenUpload, SentPart, UploadsPage, can_name
from ._encoding import bare_etag, quoted_etag, strong_etag
from ._errors import failure
from ._headers import (
    answered_at,
    condition_headers,
    content_range,
    info_from,
    object_headers,
    put_headers,
    put_info,
)
from ._requests import presigned_headers, presigned_query
from ._sdk_client import SdkBody, SdkClient, edge
from ._sdk_parameters import (
    PRESIGNED,
    copy_parameters,
    elements,
    parameters,
    upload_parameters,
    version,
    whole_checksums,
)
from ._versions import markers, parse_versions

_DOCUMENT: Final = "TroveDocument"
"""Where, among what the SDK answers, the document is that it was read from."""

_SINGLES: Final = 8


class SdkPlane:
    """A `Plane` of aiobotocore's client.

    Args:
        client: The SDK's, open; it is closed with the plane.
        endpoint: Where to.
        backend: The backend's name.
        service: The service, for how it deviates.
        owner: The account that buckets must belong to.
        checksums: Whether bodies are sent with a CRC-32C.
        defaults: What is asked of the service for all objects.
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

    async def aclose(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    # -- objects ---------------------------------------------------------------------------------------

    async def put_object(
        self, bucket: str, key: str, views: Sequence[memoryview], options: PutOptions
    ) -> ObjectInfo:
        """Store an object in one request."""
        kept = options if self._checksums else replace(options, checksums={})
        _, said = await self._call(
            "put_object",
            Bucket=bucket,
            Key=key,
            Body=b"".join(views),
            **parameters(self._service.dialect.spoken(put_headers(kept))),
            **self._made_with,
            **self._owned,
        )
        size = sum(map(len, views))
        info = put_info(
            said, bucket=bucket, key=key, size=size, options=options, backend=self._backend
        )
        if not said.get("etag"):
            raise UntoldError(info)
        return info

    async def get_object(self, bucket: str, key: str, options: GetOptions) -> GetResult:
        """Open an object's body; the caller closes it."""
        asked = dict(self._asking)
        if options.range is not None:
            asked["Range"] = range_header(options.range)
        if options.if_match is not None:
            asked["IfMatch"] = quoted_etag(options.if_match)
        if options.if_none_match is not None:
            asked["IfNoneMatch"] = quoted_etag(options.if_none_match)
        answer, said = await self._call(
            "get_object",
            Bucket=bucket,
            Key=key,
            **asked,
            **version(options.version_id),
            **self._owned,
        )
        body = SdkBody(answer["Body"])
        try:
            with edge():
                info = info_from(said, bucket=bucket, key=key, backend=self._backend)
                part = content_range(said, answer["ResponseMetadata"]["HTTPStatusCode"])
        except BaseException:
            body.close()
            raise
        return GetResult(info, (0, info.size) if part is None else part[:2], body)

    async def head_object(self, bucket: str, key: str, version_id: str | None) -> ObjectInfo:
        """Return an object's facts, tags included."""
        where = {"Bucket": bucket, "Key": key, **version(version_id), **self._owned}
        _, said = await self._call("head_object", **where, **self._asking)
        tags: dict[str, str] = {}
        if said.get("x-amz-tagging-count", "0") != "0":
            answer, _ = await self._call("get_object_tagging", **where)
            with edge():
                tags = {tag["Key"]: tag["Value"] for tag in answer["TagSet"]}
        with edge():
            return info_from(said, bucket=bucket, key=key, backend=self._backend, tags=tags)

    async def encryption(self, bucket: str, key: str) -> Mapping[str, str]:
        """Return the headers that say how an object is encrypted."""
        _, said = await self._call(
            "head_object", Bucket=bucket, Key=key, **self._keyed, **self._owned
        )
        return said

    async def delete_object(self, bucket: str, key: str, options: DeleteOptions) -> None:
        """Delete an object, or one of its versions."""
        asked = {} if options.if_match is None else {"IfMatch": quoted_etag(options.if_match)}
        await self._call(
            "delete_object",
            Bucket=bucket,
            Key=key,
            **asked,
            **version(options.version_id),
            **self._owned,
        )

    async def delete_objects(self, bucket: str, keys: Sequence[str]) -> Sequence[DeleteResult]:
        """Delete up to 1,000 objects: those that no document can name, one by one."""
        fates: dict[str, TroveError | None] = {}
        named = [key for key in keys if can_name(key)]
        if named:
            answer, _ = await self._call(
                "delete_objects",
                Bucket=bucket,
                Delete={"Objects": [{"Key": key} for key in named]},
                **self._owned,
            )
            with edge():
                for one in answer.get("Deleted", ()):
                    fates[one["Key"]] = None
                for one in answer.get("Errors", ()):
                    code = one.get("Code", "")
                    fates[one["Key"]] = (
                        None
                        if code == "NoSuchKey"
                        else failure(HTTPStatus.OK, code, one.get("Message", ""))
                    )

        async def delete(key: str) -> None:
            try:
                await self._call("delete_object", Bucket=bucket, Key=key, **self._owned)
            except ObjectNotFoundError:
                fates[key] = None
            except TroveError as error:
                fates[key] = error
            else:
                fates[key] = None

        await for_each([key for key in keys if key not in fates], delete, limit=_SINGLES)
        return [DeleteResult(key=key, error=fates[key]) for key in keys]

    async def list_objects(self, bucket: str, options: ListOptions) -> Page:
        """Return a page of a listing."""
        asked: dict[str, Any] = {"Prefix": options.prefix, "MaxKeys": min(options.limit, 1000)}
        if options.delimiter is not None:
            asked["Delimiter"] = options.delimiter
        if options.token is not None:
            asked["ContinuationToken"] = options.token
        elif options.start_after is not None:
            asked["StartAfter"] = options.start_after
        answer, _ = await self._call("list_objects_v2", Bucket=bucket, **asked, **self._owned)
        with edge():
            entries: list[ObjectInfo | Prefix] = [
                ObjectInfo(
                    bucket=bucket,
                    key=one["Key"],
                    size=one["Size"],
                    etag=strong_etag(one.get("ETag")),
                    last_modified=one["LastModified"].astimezone(UTC),
                    storage_class=one.get("StorageClass"),
                    backend=self._backend,
                    complete=False,
                )
                for one in answer.get("Contents", ())
            ]
            prefixes = answer.get("CommonPrefixes", ())
            if prefixes:
                entries.extend(
                    Prefix(bucket=bucket, prefix=one["Prefix"], backend=self._backend)
                    for one in prefixes
                )
                entries.sort(key=lambda entry: entry.key)
        return Page(entries=entries, token=answer.get("NextContinuationToken"))

    async def list_versions(self, bucket: str, options: ListOptions) -> VersionPage:
        """Return a page of a listing of versions."""
        asked: dict[str, Any] = {"Prefix": options.prefix, "MaxKeys": min(options.limit, 1000)}
        named = zip(("KeyMarker", "VersionIdMarker"), markers(options), strict=True)
        asked |= {parameter: marker for parameter, marker in named if marker is not None}
        answer, _ = await self._call("list_object_versions", Bucket=bucket, **asked, **self._owned)
        with edge():
            return parse_versions(answer[_DOCUMENT], bucket=bucket, backend=self._backend)

    async def set_versioning(self, bucket: str, *, enabled: bool) -> None:
        """Make a bucket keep versions from now on, or no more."""
        status = {"Status": "Enabled" if enabled else "Suspended"}
        await self._call(
            "put_bucket_versioning", Bucket=bucket, VersioningConfiguration=status, **self._owned
        )

    async def copy_object(
        self, src_bucket: str, src_key: str, bucket: str, key: str, options: CopyOptions
    ) -> ObjectInfo:
        """Copy an object in one request."""
        source = options.source.located(bucket=src_bucket, key=src_key)
        headers = {
            **object_headers(options.put),
            **condition_headers(options.put),
        }
        answer, said = await self._call(
            "copy_object",
            Bucket=bucket,
            Key=key,
            MetadataDirective="REPLACE",
            TaggingDirective="REPLACE",
            **parameters(headers),
            **copy_parameters(source, self._owner),
            **self._made_with,
            **self._keyed_source,
            **self._owned,
        )
        return self._stored(
            UploadId(bucket, key, ""),
            said,
            answer.get("CopyObjectResult", {}),
            source.stored_size,
            options.put,
        )

    # -- uploads ---------------------------------------------------------------------------------------

    async def create_upload(self, bucket: str, key: str, options: PutOptions) -> UploadId:
        """Begin an upload."""
        kind = (
            {"ChecksumAlgorithm": "CRC32C", "ChecksumType": "FULL_OBJECT"}
            if self._checksums
            else {}
        )
        answer, _ = await self._call(
            "create_multipart_upload",
            Bucket=bucket,
            Key=key,
            **parameters(self._service.dialect.spoken(object_headers(options))),
            **self._made_with,
            **kind,
            **self._owned,
        )
        with edge():
            return UploadId(bucket, key, answer["UploadId"])

    async def upload_part(
        self, upload: UploadId, number: int, views: Sequence[memoryview]
    ) -> SentPart:
        """Store a part."""
        checksums = {CRC32C: crc32c_of(views)} if self._checksums else {}
        answer, _ = await self._call(
            "upload_part",
            **upload_parameters(upload),
            PartNumber=number,
            Body=b"".join(views),
            **elements(checksums),
            **self._keyed,
            **self._owned,
        )
        with edge():
            etag = bare_etag(answer["ETag"])
        return SentPart(number=number, etag=etag, checksums=checksums)

    async def stream_part(self, upload: UploadId, number: int, source: PartSource) -> SentPart:
        """Refuse: this plane sends bodies that are held, and the driver claims no more."""
        del upload, number, source
        raise NotSupportedError("parts are read while they are sent by data_plane='lean' only")

    async def copy_part(
        self, upload: UploadId, number: int, source: ObjectInfo, span: tuple[int, int]
    ) -> SentPart:
        """Store a part that is a piece of an object."""
        answer, _ = await self._call(
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
            told = answer["CopyPartResult"]
            return SentPart(
                number=number, etag=bare_etag(told["ETag"]), checksums=whole_checksums(told)
            )

    async def complete_upload(
        self, upload: UploadId, parts: Sequence[SentPart], options: PutOptions
    ) -> ObjectInfo:
        """Make the object of its parts."""
        size = options.size or 0
        whole: dict[str, Any] = {}
        if self._checksums:
            whole = {
                "ChecksumType": "FULL_OBJECT",
                "MpuObjectSize": size,
                **elements({k: v for k, v in options.checksums.items() if k == "crc32c"}),
            }
        answer, said = await self._call(
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
        return self._stored(upload, said, answer, size, options)

    async def abort_upload(self, upload: UploadId) -> None:
        """Let an upload go."""
        await self._call("abort_multipart_upload", **upload_parameters(upload), **self._owned)

    async def list_uploads(self, bucket: str, after: tuple[str, str] | None) -> UploadsPage:
        """Return a page of the uploads that nobody has completed or aborted."""
        markers = {} if after is None else {"KeyMarker": after[0], "UploadIdMarker": after[1]}
        answer, said = await self._call(
            "list_multipart_uploads", Bucket=bucket, **markers, **self._owned
        )
        with edge():
            return UploadsPage(
                now=answered_at(said),
                uploads=[
                    OpenUpload(
                        key=one["Key"], upload_id=one["UploadId"], initiated=one["Initiated"]
                    )
                    for one in answer.get("Uploads", ())
                ],
                next_markers=(answer["NextKeyMarker"], answer["NextUploadIdMarker"])
                if answer.get("IsTruncated")
                else None,
            )

    async def presign(
        self, method: str, bucket: str, key: str, expires: int, options: PresignOptions
    ) -> str:
        """Return a URL that carries a signature."""
        operation = f"{method.lower()}_object"
        fixed = {
            PRESIGNED[name]: value
            for name, value in {**presigned_query(options), **presigned_headers(options)}.items()
        }
        return await self._client.presign(operation, expires, Bucket=bucket, Key=key, **fixed)

    # -- buckets ---------------------------------------------------------------------------------------

    async def create_bucket(self, bucket: str) -> None:
        """Make a bucket in the endpoint's region."""
        region = self._endpoint.region
        where = (
            {}
            if region == "us-east-1"
            else {"CreateBucketConfiguration": {"LocationConstraint": region}}
        )
        await self._call("create_bucket", Bucket=bucket, **where)

    async def delete_bucket(self, bucket: str) -> None:
        """Delete an empty bucket."""
        await self._call("delete_bucket", Bucket=bucket, **self._owned)

    async def head_bucket(self, bucket: str) -> BucketInfo:
        """Return a bucket's facts: that it is there."""
        await self._call("head_bucket", Bucket=bucket, **self._owned)
        return BucketInfo(name=bucket)

    async def list_buckets(self) -> Sequence[BucketInfo]:
        """Return the buckets that these credentials own."""
        found: list[BucketInfo] = []
        token: dict[str, str] = {}
        cycle = TokenCycle()
        while True:
            answer, _ = await self._call("list_buckets", **token)
            buckets = answer.get("Buckets", ())
            with edge():
                found.extend(
                    BucketInfo(name=one["Name"], created=one["CreationDate"].astimezone(UTC))
                    for one in buckets
                )
            if not answer.get("ContinuationToken"):
                return found
            cycle.check(answer["ContinuationToken"], empty=not buckets)
            token = {"ContinuationToken": answer["ContinuationToken"]}

    def _stored(
        self,
        upload: UploadId,
        said: Mapping[str, str],
        told: Mapping[str, Any],
        size: int,
        options: PutOptions,
    ) -> ObjectInfo:
        """Return what is known of an object that the service has put together."""
        info = put_info(
            said,
            bucket=upload.bucket,
            key=upload.key,
            size=size,
            options=options,
            backend=self._backend,
        )
        if not told.get("ETag"):
            raise UntoldError(info)
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
    """Keep what is answered: as the SDK reads it, the order of versions and markers is lost."""
    customized_response_dict[_DOCUMENT] = response_dict["body"]
