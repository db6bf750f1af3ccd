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
    can_name,
    create_bucket_body,
    delete_body,
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
    info_from,
    object_headers,
    put_headers,
    put_info,
    read_content_range,
    source_headers,
)
from ._http_multipart import HttpMultipart
from ._list_objects import parse_page
from ._requests import document_headers
from ._responses import PAGE_BYTES, malformed, read_document, read_stored
from ._versions import parse_versions, versioning_body, versions_query
from ._xml import MalformedResponse

if TYPE_CHECKING:
    from trove_async._http import Transport

    from ._client import AddressingStyle
    from ._credentials import Endpoint, Session
    from ._defaults import Defaults
    from ._dialects import Service


class HttpPlane(HttpMultipart):
    """The data plane that signs and sends its own requests.

    Args:
        client: Signs and sends requests.
        transport: The client's transport. The plane closes it.
        backend: The value of `ObjectInfo.backend`.
        region: The region of new buckets.
        service: The service and its deviations from S3.
        owner: The account that must own the source of a copy.
        checksums: Whether to send a CRC-32C with each body.
        defaults: Settings that apply to every object, such as encryption.
    """

    # -- objects -----------------------------------------------------------------------------------

    async def put_object(
        self, bucket: str, key: str, views: Sequence[memoryview], options: PutOptions
    ) -> ObjectInfo:
        """Store an object in one request."""
        headers = self._service.dialect.spoken(
            put_headers(options, summed=self._checksums) | self._made_with
        )
        response = await self._client.send("PUT", bucket, key, headers=headers, views=views)
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
        headers = dict(self._asking)
        if options.range is not None:
            headers["range"] = range_header(options.range)
        if options.if_match is not None:
            headers["if-match"] = quoted_etag(options.if_match)
        if options.if_none_match is not None:
            headers["if-none-match"] = quoted_etag(options.if_none_match)
        response = await self._client.send(
            "GET", bucket, key, query=_version(options.version_id), headers=headers
        )
        try:
            said = response.headers
            if not has_size(said):
                said = await self._sized(said, bucket, key, options.version_id)
            info = info_from(said, bucket=bucket, key=key, backend=self._backend)
            part = read_content_range(said, response.status)
        except MalformedResponse as error:
            response.close()
            raise malformed(error) from error
        except BaseException:
            response.close()
            raise
        return GetResult(info, (0, info.size) if part is None else part[:2], response)

    async def head_object(self, bucket: str, key: str, version_id: str | None) -> ObjectInfo:
        """Return an object's facts, including its tags."""
        response = await self._client.send(
            "HEAD", bucket, key, query=_version(version_id), headers=self._asking
        )
        response.close()  # first, to free the connection: fetching the tags may be slow, or fail
        tagged = response.headers.get("x-amz-tagging-count", "0") != "0"
        tags = await self._tags(bucket, key, version_id) if tagged else None
        said = response.headers
        try:
            if not has_size(said):
                said = await self._sized(said, bucket, key, version_id)
            return info_from(said, bucket=bucket, key=key, backend=self._backend, tags=tags)
        except MalformedResponse as error:
            raise malformed(error) from error

    async def encryption(self, bucket: str, key: str) -> Mapping[str, str]:
        """Return the headers that describe an object's encryption."""
        response = await self._client.send("HEAD", bucket, key, headers=self._keyed)
        response.close()
        return response.headers

    async def _sized(
        self, said: Mapping[str, str], bucket: str, key: str, version_id: str | None
    ) -> Mapping[str, str]:
        """Return a response's headers, with the object's size added as Content-Length.

        The response to a range request has the size. To read the same version, the request has the
        ETag as its condition. Without a strong ETag, the two dates are compared.
        """
        # 1. Request one byte of the same version.
        headers = {"range": "bytes=0-0", **self._keyed}
        etag = strong_etag(said.get("etag"))
        if etag is not None:
            headers["if-match"] = quoted_etag(etag)
        try:
            response = await self._client.send(
                "GET", bucket, key, query=_version(version_id), headers=headers
            )
        except RangeError:
            return {**said, "content-length": "0"}  # an empty object has no byte to return
        except PreconditionFailedError as error:
            raise UnavailableError(
                "the object was replaced while its size was asked for"
            ) from error
        response.close()
        # 2. Compare the versions, and read the size.
        dates = {said.get("last-modified"), response.headers.get("last-modified")} - {None}
        if etag is None and len(dates) > 1:
            raise MalformedResponse("the object was replaced while its size was asked for")
        part = read_content_range(response.headers, response.status)
        if part is None:
            if has_size(response.headers):  # some services ignore the range of an empty object
                return {**said, "content-length": response.headers["content-length"]}
            raise MalformedResponse("the response has no size of the object")
        return {**said, "content-length": str(part[2])}

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
        response = await self._client.send(
            "DELETE", bucket, key, query=_version(options.version_id), headers=headers
        )
        response.close()

    async def delete_objects(self, bucket: str, keys: Sequence[str]) -> Sequence[DeleteResult]:
        """Delete up to 1,000 objects.

        Keys that an XML document cannot contain take one request each.
        """
        named = [key for key in keys if can_name(key)]
        fates = await self._delete_named(bucket, named) if named else {}

        async def send(key: str) -> None:
            response = await self._client.send("DELETE", bucket, key, headers={})
            response.close()

        return await delete_singly(keys, fates, send)

    async def _delete_named(self, bucket: str, keys: Sequence[str]) -> dict[str, TroveError | None]:
        body = delete_body(keys)
        response = await self._client.send(
            "POST",
            bucket,
            query="delete",
            headers=document_headers(body),
            views=[memoryview(body)],
        )
        told = await read_document(response, parse_deleted, PAGE_BYTES)
        wanted = set(keys)
        fates: dict[str, TroveError | None] = {}
        for key, error in told.items():
            if key in wanted:
                gone = error is None or error.code == "NoSuchKey"
                fates[key] = (
                    None
                    if gone or error is None
                    else failure(HTTPStatus.OK, error.code, error.message, {})
                )
        return fates

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
        return await self._listed(
            bucket, query, partial(parse_page, bucket=bucket, backend=self._backend)
        )

    async def list_versions(self, bucket: str, options: ListOptions) -> VersionPage:
        """Return a page of a listing of versions."""
        return await self._listed(
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
            **self._made_with,
            **self._keyed_source,
            "x-amz-metadata-directive": "REPLACE",
            "x-amz-tagging-directive": "REPLACE",
        }
        # Some services send nothing until the copy is done. `patient` leaves the time limit to the
        # resilience layer, which scales it with the size.
        response = await self._client.send(
            "PUT", bucket, key, headers=self._service.dialect.spoken(headers), patient=True
        )
        info = put_info(
            response.headers,
            bucket=bucket,
            key=key,
            size=source.stored_size,
            options=options.put,
            backend=self._backend,
        )
        return await read_stored(response, parse_copied, info)

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
        """Return a bucket's facts. Only the name is known."""
        response = await self._client.send("HEAD", bucket, headers={})
        response.close()
        return BucketInfo(name=bucket)

    async def list_buckets(self) -> Sequence[BucketInfo]:
        """Return the buckets that these credentials own."""
        found: list[BucketInfo] = []
        query = ""
        cycle = TokenCycle()
        while True:
            response = await self._client.send("GET", None, query=query, headers={})
            page = await read_document(response, parse_buckets, PAGE_BYTES)
            found.extend(page.buckets)
            if page.token is None:
                return found
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
    defaults: Defaults,
) -> HttpPlane:
    """Return a data plane that uses a transport. The arguments are those of `S3Driver`."""
    headers = {"accept-encoding": "identity", "user-agent": "trove-async"} | defaults.always
    if owner is not None:
        headers["x-amz-expected-bucket-owner"] = owner
    if payload_signing is None:
        payload_signing = endpoint.origin.scheme == "http"  # over https, TLS protects the body
    client = Client(
        transport,
        session,
        endpoint,
        addressing=addressing,
        headers=headers,
        hidden=defaults.hidden,
        signs_payload=payload_signing,
    )
    return HttpPlane(
        client,
        transport,
        backend,
        endpoint.region,
        service,
        owner=owner,
        checksums=checksums,
        defaults=defaults,
    )


def _version(version_id: str | None) -> str:
    return "" if version_id is None else encode_query({"versionId": version_id})
