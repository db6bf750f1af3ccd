"""The HTTP data plane: requests for objects and buckets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING

from trove_async._http import GetResult, range_header
from trove_async.errors import (
    PreconditionFailedError,
    RangeError,
    TroveError,
    UnavailableError,
)
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
from trove_async.paging import TokenCycle

from ._client import Client
from ._data_plane import UnconfirmedWriteError, delete_singly
from ._documents import (
    create_bucket_body,
    delete_body,
    is_deletable_in_bulk,
    parse_buckets,
    parse_copied,
    parse_deleted,
    parse_tags,
)
from ._encoding import encode_query, quoted_etag, strong_etag
from ._errors import failure
from ._headers import (
    condition_headers,
    has_size,
    object_headers,
    object_info,
    put_headers,
    put_info,
    read_content_range,
    source_headers,
)
from ._http_multipart import HttpMultipart
from ._list_objects import parse_page
from ._requests import document_headers
from ._responses import PAGE_BYTES, malformed, read_document, read_write_result
from ._versions import parse_versions, versioning_body, versions_query
from ._xml import MalformedResponse

if TYPE_CHECKING:
    from trove_async._http import Transport

    from ._client import AddressingStyle
    from ._credentials import Endpoint, Session
    from ._dialects import Service
    from ._object_settings import ObjectSettings


class HttpPlane(HttpMultipart):
    """The data plane that signs and sends its own requests.

    Args:
        client: Signs and sends requests.
        backend: The value of `ObjectInfo.backend`.
        region: The region of new buckets.
        service: The service and its deviations from S3.
        owner: The account that must own the source of a copy. None accepts any owner.
        checksums: Whether to send a CRC-32C with each body, and to request checksums with reads.
        object_settings: Settings that apply to every object, such as encryption.
    """

    # -- objects -----------------------------------------------------------------------------------

    async def put_object(
        self, bucket: str, key: str, views: Sequence[memoryview], options: PutOptions
    ) -> ObjectInfo:
        """Store an object in one request."""
        headers: Mapping[str, str] = put_headers(options, with_checksums=self._checksums)
        if self._create_headers:
            headers = {**headers, **self._create_headers}
        rewrite = self._service.dialect.rewrite_headers
        if rewrite is not None:
            headers = rewrite(headers)
        response = await self._client.send("PUT", bucket, key, headers=headers, views=views)
        if response.body is None:  # otherwise it holds no connection
            response.close()
        info = put_info(
            response.headers,
            bucket=bucket,
            key=key,
            size=sum(map(len, views)),
            options=options,
            backend=self._backend,
        )
        if not response.headers.get("etag"):
            raise UnconfirmedWriteError(info)
        return info

    async def get_object(self, bucket: str, key: str, options: GetOptions) -> GetResult:
        """Open an object's body; the caller closes it."""
        request_headers = dict(self._read_headers)
        if options.range is not None:
            request_headers["range"] = range_header(options.range)
        if options.if_match is not None:
            request_headers["if-match"] = quoted_etag(options.if_match)
        if options.if_none_match is not None:
            request_headers["if-none-match"] = quoted_etag(options.if_none_match)
        query = "" if options.version_id is None else _version_query(options.version_id)
        response = await self._client.send("GET", bucket, key, query=query, headers=request_headers)
        try:
            headers = response.headers
            if "content-length" not in headers and not has_size(headers):
                headers = await self._with_size(headers, bucket, key, options.version_id)
            info = object_info(headers, bucket=bucket, key=key, backend=self._backend)
            span = (0, info.size)
            if "content-range" in headers or response.status == HTTPStatus.PARTIAL_CONTENT:
                part = read_content_range(headers, response.status)
                span = span if part is None else part[:2]
        except MalformedResponse as error:
            response.close()
            raise malformed(error) from error
        except BaseException:
            response.close()
            raise
        return GetResult(info, span, response, response.body)

    async def head_object(self, bucket: str, key: str, version_id: str | None) -> ObjectInfo:
        """Return information about an object, including its tags."""
        query = "" if version_id is None else _version_query(version_id)
        response = await self._client.send(
            "HEAD", bucket, key, query=query, headers=self._read_headers
        )
        if response.body is None:
            response.close()  # before the request for the tags, which may need the connection
        has_tags = response.headers.get("x-amz-tagging-count", "0") != "0"
        tags = await self._tags(bucket, key, version_id) if has_tags else None
        headers = response.headers
        try:
            if "content-length" not in headers and not has_size(headers):
                headers = await self._with_size(headers, bucket, key, version_id)
            return object_info(headers, bucket=bucket, key=key, backend=self._backend, tags=tags)
        except MalformedResponse as error:
            raise malformed(error) from error

    async def encryption(self, bucket: str, key: str) -> Mapping[str, str]:
        """Return the headers of a HEAD, which describe the object's encryption."""
        response = await self._client.send("HEAD", bucket, key, headers=self._key_headers)
        response.close()
        return response.headers

    async def _with_size(
        self, headers: Mapping[str, str], bucket: str, key: str, version_id: str | None
    ) -> Mapping[str, str]:
        """Return a response's headers with the object's size added as Content-Length.

        The response to a range request contains the size. That request is conditional on the ETag, so
        that it reads the same version. Without a strong ETag, the two dates are compared.

        Args:
            headers: The headers of a response without a size.
            bucket: The object's bucket.
            key: The object's key.
            version_id: The version that was requested.
        """
        # 1. Request one byte of the same version.
        request_headers = {"range": "bytes=0-0", **self._key_headers}
        etag = strong_etag(headers.get("etag"))
        if etag is not None:
            request_headers["if-match"] = quoted_etag(etag)
        try:
            response = await self._client.send(
                "GET", bucket, key, query=_version_query(version_id), headers=request_headers
            )
        except RangeError:
            return {**headers, "content-length": "0"}  # an empty object has no byte to return
        except PreconditionFailedError as error:
            raise UnavailableError(
                "the object was replaced while its size was requested"
            ) from error
        response.close()
        # 2. Compare the versions, and read the size.
        dates = {headers.get("last-modified"), response.headers.get("last-modified")} - {None}
        if etag is None and len(dates) > 1:
            raise UnavailableError("the object was replaced while its size was requested")
        part = read_content_range(response.headers, response.status)
        if part is None:
            if has_size(response.headers):  # some services ignore the range of an empty object
                return {**headers, "content-length": response.headers["content-length"]}
            raise MalformedResponse("the response does not contain the object's size")
        return {**headers, "content-length": str(part[2])}

    async def _tags(self, bucket: str, key: str, version_id: str | None) -> Mapping[str, str]:
        query = {"tagging": ""}
        if version_id is not None:
            query["versionId"] = version_id
        response = await self._client.send(
            "GET", bucket, key, query=encode_query(query), headers={}
        )
        return await read_document(response, parse_tags)

    async def delete_object(self, bucket: str, key: str, options: DeleteOptions) -> None:
        """Delete an object, or one of its versions."""
        headers = {}
        if options.if_match is not None:
            headers["if-match"] = quoted_etag(options.if_match)
        query = "" if options.version_id is None else _version_query(options.version_id)
        response = await self._client.send("DELETE", bucket, key, query=query, headers=headers)
        if response.body is None:
            response.close()

    async def delete_objects(self, bucket: str, keys: Sequence[str]) -> Sequence[DeleteResult]:
        """Delete up to 1,000 objects.

        Keys that an XML document cannot contain take one request each.
        """
        bulk_keys = [key for key in keys if is_deletable_in_bulk(key)]
        outcomes = await self._delete_in_bulk(bucket, bulk_keys) if bulk_keys else {}

        async def send(key: str) -> None:
            response = await self._client.send("DELETE", bucket, key, headers={})
            response.close()

        return await delete_singly(keys, outcomes, send)

    async def _delete_in_bulk(
        self, bucket: str, keys: Sequence[str]
    ) -> dict[str, TroveError | None]:
        """Delete keys with one request. Return the outcomes that the response contains."""
        body = delete_body(keys)
        response = await self._client.send(
            "POST",
            bucket,
            query="delete",
            headers=document_headers(body),
            views=[memoryview(body)],
        )
        errors = await read_document(response, parse_deleted, PAGE_BYTES)
        requested = set(keys)
        outcomes: dict[str, TroveError | None] = {}
        for key, error in errors.items():
            if key not in requested:
                continue  # the service altered it
            if error is None or error.code == "NoSuchKey":
                outcomes[key] = None
            else:
                outcomes[key] = failure(HTTPStatus.OK, error.code, error.message, {})
        return outcomes

    async def list_objects(self, bucket: str, options: ListOptions) -> Page:
        """Return a page of a listing."""
        query = {
            "list-type": "2",
            "max-keys": str(min(options.limit, 1000)),
        }
        if options.prefix:
            query["prefix"] = options.prefix
        if options.delimiter is not None:
            query["delimiter"] = options.delimiter
        if options.token is not None:
            query["continuation-token"] = options.token
        elif options.start_after is not None:
            query["start-after"] = options.start_after
        return await self._send_listing(
            bucket, query, partial(parse_page, bucket=bucket, backend=self._backend)
        )

    async def list_versions(self, bucket: str, options: ListOptions) -> VersionPage:
        """Return a page of a listing of versions."""
        return await self._send_listing(
            bucket,
            versions_query(options),
            partial(parse_versions, bucket=bucket, backend=self._backend),
        )

    async def set_versioning(self, bucket: str, *, enabled: bool) -> None:
        """Enable or suspend a bucket's versioning."""
        body = versioning_body(enabled=enabled)
        response = await self._client.send(
            "PUT",
            bucket,
            query="versioning",
            headers=document_headers(body),
            views=[memoryview(body)],
        )
        response.close()

    async def copy_object(
        self, src_bucket: str, src_key: str, bucket: str, key: str, options: CopyOptions
    ) -> ObjectInfo:
        """Copy an object in one request."""
        source = options.source.located(bucket=src_bucket, key=src_key)
        headers = {
            **object_headers(options.put),
            **condition_headers(options.put),
            **source_headers(source, self._owner),
            **self._create_headers,
            **self._source_key_headers,
            "x-amz-metadata-directive": "REPLACE",
            "x-amz-tagging-directive": "REPLACE",
        }
        # Some services send nothing until the copy is complete. With `patient`, `ResilientDriver`
        # limits the time, according to the size.
        response = await self._client.send(
            "PUT", bucket, key, headers=self._service.dialect.write_headers(headers), patient=True
        )
        info = put_info(
            response.headers,
            bucket=bucket,
            key=key,
            size=source.stored_size,
            options=options.put,
            backend=self._backend,
        )
        return await read_write_result(response, parse_copied, info)

    async def presign(
        self, method: str, bucket: str, key: str, expires: int, options: PresignOptions
    ) -> str:
        """Return a presigned URL."""
        return await self._client.presign(method, bucket, key, expires, options)

    # -- buckets -----------------------------------------------------------------------------------

    async def create_bucket(self, bucket: str) -> None:
        """Create a bucket in the endpoint's region."""
        body = create_bucket_body(self._region)
        response = await self._client.send(
            "PUT",
            bucket,
            headers={"content-type": "application/xml"} if body else {},
            views=[memoryview(body)] if body else [],
        )
        response.close()

    async def delete_bucket(self, bucket: str) -> None:
        """Delete an empty bucket."""
        response = await self._client.send("DELETE", bucket, headers={})
        response.close()
        self._client.forget(bucket)

    async def head_bucket(self, bucket: str) -> BucketInfo:
        """Return information about a bucket. Only the name is known."""
        response = await self._client.send("HEAD", bucket, headers={})
        response.close()
        return BucketInfo(name=bucket)

    async def list_buckets(self) -> Sequence[BucketInfo]:
        """Return the buckets that these credentials own."""
        buckets: list[BucketInfo] = []
        query = ""
        cycle = TokenCycle()
        while True:
            response = await self._client.send("GET", None, query=query, headers={})
            page = await read_document(response, parse_buckets, PAGE_BYTES)
            buckets.extend(page.buckets)
            if page.token is None:
                return buckets
            cycle.check(page.token, empty=not page.buckets)
            query = encode_query({"continuation-token": page.token})


def make_http_plane(
    transport: Transport,
    session: Session,
    endpoint: Endpoint,
    backend: str,
    service: Service,
    *,
    addressing: AddressingStyle,
    owner: str | None,
    checksums: bool,
    payload_signing: bool | None,
    object_settings: ObjectSettings,
    credentials_timeout: float,
) -> HttpPlane:
    """Return a data plane that sends its requests through a transport."""
    headers = {
        "accept-encoding": "identity",
        "user-agent": "trove-async",
    } | object_settings.request_headers
    if owner is not None:
        headers["x-amz-expected-bucket-owner"] = owner
    if payload_signing is None:
        payload_signing = endpoint.origin.scheme == "http"  # TLS protects the body over https
    client = Client(
        transport,
        session,
        endpoint,
        addressing=addressing,
        headers=headers,
        secret_headers=object_settings.secret_headers,
        signs_payload=payload_signing,
        timeout=credentials_timeout,
    )
    return HttpPlane(
        client,
        backend,
        endpoint.region,
        service,
        owner=owner,
        checksums=checksums,
        object_settings=object_settings,
    )


def _version_query(version_id: str | None) -> str:
    return "" if version_id is None else encode_query({"versionId": version_id})
