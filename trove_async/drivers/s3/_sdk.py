"""The aiobotocore data plane: requests for objects and buckets.

It serves services that need the SDK's behaviour, and is a reference for the HTTP data plane. It
costs ten times as much CPU, copies each body once, and does not renew credentials within a request.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC
from http import HTTPStatus
from typing import Any

from trove_async._http import GetResult, range_header
from trove_async.errors import TroveError
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

from ._data_plane import UnconfirmedWriteError, UploadId, delete_singly
from ._documents import can_name
from ._encoding import quoted_etag, strong_etag
from ._errors import failure
from ._headers import (
    condition_headers,
    info_from,
    object_headers,
    put_headers,
    put_info,
    read_content_range,
)
from ._requests import presigned_headers, presigned_query
from ._sdk_client import SdkBody, edge
from ._sdk_multipart import DOCUMENT, SdkMultipart
from ._sdk_parameters import (
    PRESIGNED,
    copy_parameters,
    parameters,
    version,
)
from ._versions import markers, parse_versions


class SdkPlane(SdkMultipart):
    """The data plane that sends through aiobotocore.

    Args:
        client: The SDK's client, open. The plane closes it.
        endpoint: The service's endpoint.
        backend: The backend's name.
        service: The service and its deviations from S3.
        owner: The account that must own the buckets.
        checksums: Whether to send a CRC-32C with each body.
        defaults: Settings that apply to every object, such as encryption.
    """

    async def aclose(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    # -- objects -----------------------------------------------------------------------------------

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
            raise UnconfirmedWriteError(info)
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
        response, said = await self._call(
            "get_object",
            Bucket=bucket,
            Key=key,
            **asked,
            **version(options.version_id),
            **self._owned,
        )
        body = SdkBody(response["Body"])
        try:
            with edge():
                info = info_from(said, bucket=bucket, key=key, backend=self._backend)
                part = read_content_range(said, response["ResponseMetadata"]["HTTPStatusCode"])
        except BaseException:
            body.close()
            raise
        return GetResult(info, (0, info.size) if part is None else part[:2], body)

    async def head_object(self, bucket: str, key: str, version_id: str | None) -> ObjectInfo:
        """Return an object's facts, including its tags."""
        where = {"Bucket": bucket, "Key": key, **version(version_id), **self._owned}
        _, said = await self._call("head_object", **where, **self._asking)
        tags: dict[str, str] = {}
        if said.get("x-amz-tagging-count", "0") != "0":
            response, _ = await self._call("get_object_tagging", **where)
            with edge():
                tags = {tag["Key"]: tag["Value"] for tag in response["TagSet"]}
        with edge():
            return info_from(said, bucket=bucket, key=key, backend=self._backend, tags=tags)

    async def encryption(self, bucket: str, key: str) -> Mapping[str, str]:
        """Return the headers that describe an object's encryption."""
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
        """Delete up to 1,000 objects.

        Keys that an XML document cannot contain take one request each.
        """
        fates: dict[str, TroveError | None] = {}
        named = [key for key in keys if can_name(key)]
        if named:
            response, _ = await self._call(
                "delete_objects",
                Bucket=bucket,
                Delete={"Objects": [{"Key": key} for key in named]},
                **self._owned,
            )
            with edge():
                for one in response.get("Deleted", ()):
                    fates[one["Key"]] = None
                for one in response.get("Errors", ()):
                    code = one.get("Code", "")
                    fates[one["Key"]] = (
                        None
                        if code == "NoSuchKey"
                        else failure(HTTPStatus.OK, code, one.get("Message", ""))
                    )

        async def send(key: str) -> None:
            await self._call("delete_object", Bucket=bucket, Key=key, **self._owned)

        return await delete_singly(keys, fates, send)

    async def list_objects(self, bucket: str, options: ListOptions) -> Page:
        """Return a page of a listing."""
        asked: dict[str, Any] = {"Prefix": options.prefix, "MaxKeys": min(options.limit, 1000)}
        if options.delimiter is not None:
            asked["Delimiter"] = options.delimiter
        if options.token is not None:
            asked["ContinuationToken"] = options.token
        elif options.start_after is not None:
            asked["StartAfter"] = options.start_after
        response, _ = await self._call("list_objects_v2", Bucket=bucket, **asked, **self._owned)
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
                for one in response.get("Contents", ())
            ]
            prefixes = response.get("CommonPrefixes", ())
            if prefixes:
                entries.extend(
                    Prefix(bucket=bucket, prefix=one["Prefix"], backend=self._backend)
                    for one in prefixes
                )
                entries.sort(key=lambda entry: entry.key)
        return Page(entries=entries, token=response.get("NextContinuationToken"))

    async def list_versions(self, bucket: str, options: ListOptions) -> VersionPage:
        """Return a page of a listing of versions."""
        asked: dict[str, Any] = {"Prefix": options.prefix, "MaxKeys": min(options.limit, 1000)}
        named = zip(("KeyMarker", "VersionIdMarker"), markers(options), strict=True)
        asked |= {parameter: marker for parameter, marker in named if marker is not None}
        response, _ = await self._call(
            "list_object_versions", Bucket=bucket, **asked, **self._owned
        )
        with edge():
            return parse_versions(response[DOCUMENT], bucket=bucket, backend=self._backend)

    async def set_versioning(self, bucket: str, *, enabled: bool) -> None:
        """Enable or suspend a bucket's versioning."""
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
        response, said = await self._call(
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
            response.get("CopyObjectResult", {}),
            source.stored_size,
            options.put,
        )

    async def presign(
        self, method: str, bucket: str, key: str, expires: int, options: PresignOptions
    ) -> str:
        """Return a presigned URL."""
        operation = f"{method.lower()}_object"
        fixed = {
            PRESIGNED[name]: value
            for name, value in {**presigned_query(options), **presigned_headers(options)}.items()
        }
        return await self._client.presign(operation, expires, Bucket=bucket, Key=key, **fixed)

    # -- buckets -----------------------------------------------------------------------------------

    async def create_bucket(self, bucket: str) -> None:
        """Create a bucket in the endpoint's region."""
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
        """Return a bucket's facts. Only the name is known."""
        await self._call("head_bucket", Bucket=bucket, **self._owned)
        return BucketInfo(name=bucket)

    async def list_buckets(self) -> Sequence[BucketInfo]:
        """Return the buckets that these credentials own."""
        found: list[BucketInfo] = []
        token: dict[str, str] = {}
        cycle = TokenCycle()
        while True:
            response, _ = await self._call("list_buckets", **token)
            buckets = response.get("Buckets", ())
            with edge():
                found.extend(
                    BucketInfo(name=one["Name"], created=one["CreationDate"].astimezone(UTC))
                    for one in buckets
                )
            if not response.get("ContinuationToken"):
                return found
            cycle.check(response["ContinuationToken"], empty=not buckets)
            token = {"ContinuationToken": response["ContinuationToken"]}
