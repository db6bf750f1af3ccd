"""The aiobotocore data plane: requests for objects and buckets.

It is for services that require the SDK's behaviour, and a reference for the HTTP data plane. It
takes ten times as much CPU time, copies the body of each write, and does not repeat a request with
renewed credentials.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC
from functools import partial
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

from ._data_plane import UnconfirmedWriteError, delete_singly
from ._documents import AmbiguousKeysError, check_unambiguous, is_deletable_in_bulk
from ._encoding import quoted_etag, strong_etag
from ._errors import failure
from ._headers import (
    condition_headers,
    object_headers,
    object_info,
    put_headers,
    put_info,
    read_content_range,
)
from ._requests import presigned_headers, presigned_query
from ._sdk_client import SdkBody, translate_sdk_errors
from ._sdk_multipart import DOCUMENT, UNENCODED, SdkMultipart
from ._sdk_parameters import (
    PRESIGNED_PARAMETERS,
    copy_parameters,
    header_parameters,
    version_parameters,
)
from ._versions import markers, parse_versions


class SdkPlane(SdkMultipart):
    """The data plane that sends requests through aiobotocore.

    Args:
        client: The SDK's client. It is open.
        endpoint: The service's endpoint.
        backend: The backend's name.
        service: The service and its deviations from S3.
        owner: The account that must own the buckets. None accepts any owner.
        checksums: Whether to send a CRC-32C with each body, and to request checksums with reads.
        object_settings: Settings that apply to every object, such as encryption.
    """

    # -- objects -----------------------------------------------------------------------------------

    async def put_object(
        self, bucket: str, key: str, views: Sequence[memoryview], options: PutOptions
    ) -> ObjectInfo:
        """Store an object in one request."""
        request_headers = put_headers(options, with_checksums=self._checksums)
        _, headers = await self._call(
            "put_object",
            Bucket=bucket,
            Key=key,
            Body=b"".join(views),
            **header_parameters(self._service.dialect.write_headers(request_headers)),
            **self._create_parameters,
            **self._owner_parameters,
        )
        size = sum(map(len, views))
        info = put_info(
            headers, bucket=bucket, key=key, size=size, options=options, backend=self._backend
        )
        if not headers.get("etag"):
            raise UnconfirmedWriteError(info)
        return info

    async def get_object(self, bucket: str, key: str, options: GetOptions) -> GetResult:
        """Open an object's body; the caller closes it."""
        read_parameters = dict(self._read_parameters)
        if options.range is not None:
            read_parameters["Range"] = range_header(options.range)
        if options.if_match is not None:
            read_parameters["IfMatch"] = quoted_etag(options.if_match)
        if options.if_none_match is not None:
            read_parameters["IfNoneMatch"] = quoted_etag(options.if_none_match)
        response, headers = await self._call(
            "get_object",
            Bucket=bucket,
            Key=key,
            **read_parameters,
            **version_parameters(options.version_id),
            **self._owner_parameters,
        )
        body = SdkBody(response["Body"])
        try:
            with translate_sdk_errors():
                info = object_info(headers, bucket=bucket, key=key, backend=self._backend)
                part = read_content_range(headers, response["ResponseMetadata"]["HTTPStatusCode"])
        except BaseException:
            body.close()
            raise
        return GetResult(info, (0, info.size) if part is None else part[:2], body)

    async def head_object(self, bucket: str, key: str, version_id: str | None) -> ObjectInfo:
        """Return information about an object, including its tags."""
        selection = {
            "Bucket": bucket,
            "Key": key,
            **version_parameters(version_id),
            **self._owner_parameters,
        }
        _, headers = await self._call("head_object", **selection, **self._read_parameters)
        tags: dict[str, str] = {}
        if headers.get("x-amz-tagging-count", "0") != "0":
            response, _ = await self._call("get_object_tagging", **selection)
            with translate_sdk_errors():
                tags = {tag["Key"]: tag["Value"] for tag in response["TagSet"]}
        with translate_sdk_errors():
            return object_info(headers, bucket=bucket, key=key, backend=self._backend, tags=tags)

    async def encryption(self, bucket: str, key: str) -> Mapping[str, str]:
        """Return the headers of a HEAD, which describe the object's encryption."""
        _, headers = await self._call(
            "head_object", Bucket=bucket, Key=key, **self._key_parameters, **self._owner_parameters
        )
        return headers

    async def delete_object(self, bucket: str, key: str, options: DeleteOptions) -> None:
        """Delete an object, or one of its versions."""
        conditions = {} if options.if_match is None else {"IfMatch": quoted_etag(options.if_match)}
        await self._call(
            "delete_object",
            Bucket=bucket,
            Key=key,
            **conditions,
            **version_parameters(options.version_id),
            **self._owner_parameters,
        )

    async def delete_objects(self, bucket: str, keys: Sequence[str]) -> Sequence[DeleteResult]:
        """Delete up to 1,000 objects.

        Keys that an XML document cannot contain take one request each.
        """
        outcomes: dict[str, TroveError | None] = {}
        bulk_keys = [key for key in keys if is_deletable_in_bulk(key)]
        if bulk_keys:
            response, _ = await self._call(
                "delete_objects",
                Bucket=bucket,
                Delete={"Objects": [{"Key": key} for key in bulk_keys]},
                **self._owner_parameters,
            )
            with translate_sdk_errors():
                for item in response.get("Deleted", ()):
                    outcomes[item["Key"]] = None
                for item in response.get("Errors", ()):
                    code = item.get("Code", "")
                    outcomes[item["Key"]] = (
                        None
                        if code == "NoSuchKey"
                        else failure(HTTPStatus.OK, code, item.get("Message", ""))
                    )

        async def send(key: str) -> None:
            await self._call("delete_object", Bucket=bucket, Key=key, **self._owner_parameters)

        return await delete_singly(keys, outcomes, send)

    async def list_objects(self, bucket: str, options: ListOptions) -> Page:
        """Return a page of a listing.

        The SDK requests encoded keys, and decodes them if the response declares the encoding. If the
        response is ambiguous, a second request asks for unencoded keys.
        """
        arguments: dict[str, Any] = {"Prefix": options.prefix, "MaxKeys": min(options.limit, 1000)}
        if options.delimiter is not None:
            arguments["Delimiter"] = options.delimiter
        if options.token is not None:
            arguments["ContinuationToken"] = options.token
        elif options.start_after is not None:
            arguments["StartAfter"] = options.start_after
        request = partial(
            self._call, "list_objects_v2", Bucket=bucket, **arguments, **self._owner_parameters
        )
        response, _ = await request()
        page = self._page_of(bucket, response)
        if response.get("EncodingType") != "url":
            try:
                check_unambiguous(entry.key for entry in page.entries)
            except AmbiguousKeysError:
                response, _ = await request(EncodingType=UNENCODED)
                page = self._page_of(bucket, response)
        return page

    def _page_of(self, bucket: str, response: Mapping[str, Any]) -> Page:
        with translate_sdk_errors():
            entries: list[ObjectInfo | Prefix] = [
                ObjectInfo(
                    bucket=bucket,
                    key=item["Key"],
                    size=item["Size"],
                    etag=strong_etag(item.get("ETag")),
                    last_modified=item["LastModified"].astimezone(UTC),
                    storage_class=item.get("StorageClass"),
                    backend=self._backend,
                    complete=False,
                )
                for item in response.get("Contents", ())
            ]
            prefixes = response.get("CommonPrefixes", ())
            if prefixes:
                entries.extend(
                    Prefix(bucket=bucket, prefix=item["Prefix"], backend=self._backend)
                    for item in prefixes
                )
                entries.sort(key=lambda entry: entry.key)
        return Page(entries=entries, token=response.get("NextContinuationToken"))

    async def list_versions(self, bucket: str, options: ListOptions) -> VersionPage:
        """Return a page of a listing of versions.

        The SDK requests encoded keys. If the response is ambiguous, a second request asks for
        unencoded keys.
        """
        arguments: dict[str, Any] = {"Prefix": options.prefix, "MaxKeys": min(options.limit, 1000)}
        pairs = zip(("KeyMarker", "VersionIdMarker"), markers(options), strict=True)
        arguments |= {parameter: marker for parameter, marker in pairs if marker is not None}
        request = partial(
            self._call, "list_object_versions", Bucket=bucket, **arguments, **self._owner_parameters
        )
        parse = partial(parse_versions, bucket=bucket, backend=self._backend)
        response, _ = await request()
        try:
            with translate_sdk_errors():
                return parse(response[DOCUMENT], encoding_requested=True)
        except AmbiguousKeysError:
            response, _ = await request(EncodingType=UNENCODED)
        with translate_sdk_errors():
            return parse(response[DOCUMENT])

    async def set_versioning(self, bucket: str, *, enabled: bool) -> None:
        """Enable or suspend a bucket's versioning."""
        status = {"Status": "Enabled" if enabled else "Suspended"}
        await self._call(
            "put_bucket_versioning",
            Bucket=bucket,
            VersioningConfiguration=status,
            **self._owner_parameters,
        )

    async def copy_object(
        self, src_bucket: str, src_key: str, bucket: str, key: str, options: CopyOptions
    ) -> ObjectInfo:
        """Copy an object in one request."""
        source = options.source.located(bucket=src_bucket, key=src_key)
        request_headers = {**object_headers(options.put), **condition_headers(options.put)}
        response, headers = await self._call(
            "copy_object",
            Bucket=bucket,
            Key=key,
            MetadataDirective="REPLACE",
            TaggingDirective="REPLACE",
            **header_parameters(request_headers),
            **copy_parameters(source, self._owner),
            **self._create_parameters,
            **self._source_key_parameters,
            **self._owner_parameters,
        )
        return self._written_info(
            headers,
            response.get("CopyObjectResult", {}),
            bucket=bucket,
            key=key,
            size=source.stored_size,
            options=options.put,
        )

    async def presign(
        self, method: str, bucket: str, key: str, expires: int, options: PresignOptions
    ) -> str:
        """Return a presigned URL."""
        operation = f"{method.lower()}_object"
        parameters = {
            PRESIGNED_PARAMETERS[name]: value
            for name, value in {**presigned_query(options), **presigned_headers(options)}.items()
        }
        return await self._client.presign(operation, expires, Bucket=bucket, Key=key, **parameters)

    # -- buckets -----------------------------------------------------------------------------------

    async def create_bucket(self, bucket: str) -> None:
        """Create a bucket in the endpoint's region."""
        region = self._endpoint.region
        location = (
            {}
            if region == "us-east-1"
            else {"CreateBucketConfiguration": {"LocationConstraint": region}}
        )
        await self._call("create_bucket", Bucket=bucket, **location)

    async def delete_bucket(self, bucket: str) -> None:
        """Delete an empty bucket."""
        await self._call("delete_bucket", Bucket=bucket, **self._owner_parameters)

    async def head_bucket(self, bucket: str) -> BucketInfo:
        """Return information about a bucket. Only the name is known."""
        await self._call("head_bucket", Bucket=bucket, **self._owner_parameters)
        return BucketInfo(name=bucket)

    async def list_buckets(self) -> Sequence[BucketInfo]:
        """Return the buckets that these credentials own."""
        all_buckets: list[BucketInfo] = []
        continuation: dict[str, str] = {}
        cycle = TokenCycle()
        while True:
            response, _ = await self._call("list_buckets", **continuation)
            buckets = response.get("Buckets", ())
            with translate_sdk_errors():
                all_buckets.extend(
                    BucketInfo(name=item["Name"], created=item["CreationDate"].astimezone(UTC))
                    for item in buckets
                )
            if not response.get("ContinuationToken"):
                return all_buckets
            cycle.check(response["ContinuationToken"], empty=not buckets)
            continuation = {"ContinuationToken": response["ContinuationToken"]}
