"""S3's operations as requests of our own: a head, a body, and what the answer says."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, TypeVar

from trove_async._checksums import CRC32C, crc32c_text, hash_crc32c
from trove_async._concurrency import for_each, in_thread
from trove_async._http import GetResult, Response, Transport, range_header
from trove_async.driver import PartSource
from trove_async.errors import (
    ObjectNotFoundError,
    PreconditionFailedError,
    RangeError,
    TroveError,
    UnavailableError,
)
from trove_async.models import BucketInfo, DeleteResult, KiB, MiB, ObjectInfo
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

from ._data_plane import UntoldError, UploadId
from ._documents import (
    AnsweredError,
    SentPart,
    UnclearError,
    UploadsPage,
    can_name,
    complete_body,
    create_bucket_body,
    delete_body,
    parse_buckets,
    parse_completed,
    parse_copied,
    parse_deleted,
    parse_part_copied,
    parse_tags,
    parse_upload_id,
    parse_uploads,
)
from ._encoding import encode_query, quoted_etag, strong_etag
from ._errors import failure
from ._headers import (
    CHECKSUMS,
    answered_at,
    condition_headers,
    content_range,
    has_size,
    info_from,
    object_headers,
    put_headers,
    put_info,
    stored_etag,
)
from ._list_objects import parse_page
from ._requests import document_headers, source_headers
from ._versions import parse_versions, versioning_body, versions_query
from ._xml import MalformedResponse, is_large

if TYPE_CHECKING:
    from ._client import Client
    from ._defaults import Defaults
    from ._dialects import Service
    from ._documents import Stored

T = TypeVar("T")
Listing = TypeVar("Listing", Page, VersionPage, UploadsPage)

_PAGE: Final = 16 * MiB
"""More than any page has: a listing of 1,000 of the longest keys, all encoded, is a quarter."""

_SMALL: Final = 256 * KiB
"""More than any other document has: what was made, copied or opened, or an object's tags."""

_SINGLES: Final = 8
"""Deletions at a time of keys that no document can name."""


class LeanPlane:
    """A `Plane` of our own requests.

    Args:
        client: Signs and sends.
        transport: What it sends over; closed with the plane.
        backend: For `ObjectInfo.backend`.
        region: Where new buckets are made.
        service: The service, for how it deviates.
        owner: The account that the source of a copy must belong to.
        checksums: Whether bodies are sent with a CRC-32C.
        defaults: What is asked of the service for all objects.
    """

    def __init__(
        self,
        client: Client,
        transport: Transport,
        backend: str,
        region: str,
        service: Service,
        *,
        owner: str | None,
        checksums: bool,
        defaults: Defaults,
    ) -> None:
        self._made_with, self._keyed = defaults.made, defaults.keyed
        self._keyed_source = defaults.keyed_source
        self._owner = owner
        self._client = client
        self._transport = transport
        self._backend = backend
        self._region = region
        self._service = service
        self._checksums = checksums
        # The service tells checksums only if it is asked to.
        self._asking = {"x-amz-checksum-mode": "ENABLED"} if checksums else {}
        self._asking |= self._keyed

    async def aclose(self) -> None:
        """Close all connections."""
        await self._transport.aclose()

    # -- objects ---------------------------------------------------------------------------------------

    async def put_object(
        self, bucket: str, key: str, views: Sequence[memoryview], options: PutOptions
    ) -> ObjectInfo:
        """Store an object in one request."""
        headers = self._service.dialect.spoken(
            put_headers(options, summed=self._checksums) | self._made_with
        )
        answer = await self._client.send("PUT", bucket, key, headers=headers, views=views)
        answer.close()
        info = put_info(
            answer.headers,
            bucket=bucket,
            key=key,
            size=sum(map(len, views)),
            options=options,
            backend=self._backend,
        )
        if not answer.headers.get("etag"):
            raise UntoldError(info)
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
        answer = await self._client.send(
            "GET", bucket, key, query=_version(options.version_id), headers=headers
        )
        try:
            said = answer.headers
            if not has_size(said):
                said = await self._sized(said, bucket, key, options.version_id)
            info = info_from(said, bucket=bucket, key=key, backend=self._backend)
            part = content_range(said, answer.status)
        except MalformedResponse as error:
            answer.close()
            raise _malformed(error) from error
        except BaseException:
            answer.close()
            raise
        return GetResult(info, (0, info.size) if part is None else part[:2], answer)

    async def head_object(self, bucket: str, key: str, version_id: str | None) -> ObjectInfo:
        """Return an object's facts, tags included."""
        answer = await self._client.send(
            "HEAD", bucket, key, query=_version(version_id), headers=self._asking
        )
        answer.close()  # all of it is there; the tags may take long, or fail
        tagged = answer.headers.get("x-amz-tagging-count", "0") != "0"
        tags = await self._tags(bucket, key, version_id) if tagged else None
        said = answer.headers
        try:
            if not has_size(said):
                said = await self._sized(said, bucket, key, version_id)
            return info_from(said, bucket=bucket, key=key, backend=self._backend, tags=tags)
        except MalformedResponse as error:
            raise _malformed(error) from error

    async def encryption(self, bucket: str, key: str) -> Mapping[str, str]:
        """Return the headers that say how an object is encrypted."""
        answer = await self._client.send("HEAD", bucket, key, headers=self._keyed)
        answer.close()
        return answer.headers

    async def _sized(
        self, said: Mapping[str, str], bucket: str, key: str, version_id: str | None
    ) -> Mapping[str, str]:
        """Return a response's headers with the object's size, which the response does not tell.

        The response to a range does, and is of the same version: its ETag is a condition, or else
        its date is compared.
        """
        headers = {"range": "bytes=0-0", **self._keyed}
        etag = strong_etag(said.get("etag"))
        if etag is not None:
            headers["if-match"] = quoted_etag(etag)
        try:
            answer = await self._client.send(
                "GET", bucket, key, query=_version(version_id), headers=headers
            )
        except RangeError:
            return {**said, "content-length": "0"}
        except PreconditionFailedError as error:
            raise UnavailableError(
                "the object was replaced while its size was asked for"
            ) from error
        answer.close()
        dates = {said.get("last-modified"), answer.headers.get("last-modified")} - {None}
        if etag is None and len(dates) > 1:
            raise MalformedResponse("the object was replaced while its size was asked for")
        part = content_range(answer.headers, answer.status)
        if part is None:
            if has_size(answer.headers):  # all of it was sent: some do so where it is empty
                return {**said, "content-length": answer.headers["content-length"]}
            raise MalformedResponse("nothing tells the object's size")
        return {**said, "content-length": str(part[2])}

    async def _tags(self, bucket: str, key: str, version_id: str | None) -> Mapping[str, str]:
        query = {"tagging": ""}
        if version_id is not None:
            query["versionId"] = version_id
        answer = await self._client.send("GET", bucket, key, query=encode_query(query), headers={})
        return await self._document(answer, parse_tags)

    async def delete_object(self, bucket: str, key: str, options: DeleteOptions) -> None:
        """Delete an object, or one of its versions."""
        headers = {}
        if options.if_match is not None:
            headers["if-match"] = quoted_etag(options.if_match)
        answer = await self._client.send(
            "DELETE", bucket, key, query=_version(options.version_id), headers=headers
        )
        answer.close()

    async def delete_objects(self, bucket: str, keys: Sequence[str]) -> Sequence[DeleteResult]:
        """Delete up to 1,000 objects: those that no document can name, one by one."""
        named = [key for key in keys if can_name(key)]
        fates = await self._delete_named(bucket, named) if named else {}

        async def delete(key: str) -> None:
            try:
                answer = await self._client.send("DELETE", bucket, key, headers={})
            except ObjectNotFoundError:
                pass
            except TroveError as error:
                fates[key] = error
                return
            else:
                answer.close()
            fates[key] = None

        await for_each([key for key in keys if key not in fates], delete, limit=_SINGLES)
        return [DeleteResult(key=key, error=fates[key]) for key in keys]

    async def _delete_named(self, bucket: str, keys: Sequence[str]) -> dict[str, TroveError | None]:
        body = delete_body(keys)
        answer = await self._client.send(
            "POST",
            bucket,
            query="delete",
            headers=document_headers(body),
            views=[memoryview(body)],
        )
        told = await self._page(answer, parse_deleted)
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
        """Make a bucket keep versions from now on, or no more."""
        body = versioning_body(enabled=enabled)
        answer = await self._client.send(
            "PUT",
            bucket,
            query="versioning",
            headers=document_headers(body),
            views=[memoryview(body)],
        )
        answer.close()

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
        # Not every service begins to answer while it works, and Leaf grants it time by the size.
        answer = await self._client.send(
            "PUT", bucket, key, headers=self._service.dialect.spoken(headers), patient=True
        )
        info = put_info(
            answer.headers,
            bucket=bucket,
            key=key,
            size=source.stored_size,
            options=options.put,
            backend=self._backend,
        )
        return await self._made(answer, parse_copied, info)

    # -- uploads ---------------------------------------------------------------------------------------

    async def create_upload(self, bucket: str, key: str, options: PutOptions) -> UploadId:
        """Begin an upload."""
        headers = object_headers(options) | self._made_with
        if self._checksums:
            # S3 User Guide, "Checking object integrity", full object checksum types: the service
            # puts the parts' checksums together, and compares the whole's.
            headers["x-amz-checksum-algorithm"] = "CRC32C"
            headers["x-amz-checksum-type"] = "FULL_OBJECT"
        answer = await self._client.send(
            "POST",
            bucket,
            key,
            query="uploads",
            headers=self._service.dialect.spoken(headers),
        )
        return UploadId(bucket, key, await self._document(answer, parse_upload_id))

    async def upload_part(
        self, upload: UploadId, number: int, views: Sequence[memoryview]
    ) -> SentPart:
        """Store a part."""
        checksums: dict[str, str] = {}
        if self._checksums:
            checksums[CRC32C] = crc32c_text(await hash_crc32c(views))
        return await self._send_part(upload, number, views, checksums)

    async def stream_part(self, upload: UploadId, number: int, source: PartSource) -> SentPart:
        """Store a part while it is read."""
        checksums = dict(source.checksums) if self._checksums else {}
        return await self._send_part(upload, number, source, checksums)

    async def _send_part(
        self,
        upload: UploadId,
        number: int,
        views: Sequence[memoryview] | PartSource,
        checksums: Mapping[str, str],
    ) -> SentPart:
        answer = await self._client.send(
            "PUT",
            upload.bucket,
            upload.key,
            query=_part(upload, number),
            headers={CHECKSUMS[kind]: value for kind, value in checksums.items()} | self._keyed,
            views=views,
        )
        return await self._told(
            answer,
            lambda said: SentPart(number=number, etag=stored_etag(said), checksums=checksums),
        )

    async def copy_part(
        self, upload: UploadId, number: int, source: ObjectInfo, span: tuple[int, int]
    ) -> SentPart:
        """Store a part that is a piece of an object."""
        headers = source_headers(source, self._owner) | self._keyed | self._keyed_source
        headers["x-amz-copy-source-range"] = f"bytes={span[0]}-{span[1] - 1}"
        answer = await self._client.send(
            "PUT",
            upload.bucket,
            upload.key,
            query=_part(upload, number),
            headers=headers,
            patient=True,
        )
        stored = await self._document(answer, parse_part_copied)
        return SentPart(number=number, etag=stored.etag, checksums=stored.checksums)

    async def complete_upload(
        self, upload: UploadId, parts: Sequence[SentPart], options: PutOptions
    ) -> ObjectInfo:
        """Make the object of its parts."""
        body = complete_body(parts)
        headers = {"content-type": "application/xml", **condition_headers(options), **self._keyed}
        size = options.size or 0
        if self._checksums:
            headers["x-amz-checksum-type"] = "FULL_OBJECT"
            if "crc32c" in options.checksums:
                headers[CHECKSUMS["crc32c"]] = options.checksums["crc32c"]
            headers["x-amz-mp-object-size"] = str(size)
        answer = await self._client.send(
            "POST",
            upload.bucket,
            upload.key,
            query=encode_query({"uploadId": upload.id}),
            headers=headers,
            views=[memoryview(body)],
            patient=True,
        )
        info = put_info(
            answer.headers,
            bucket=upload.bucket,
            key=upload.key,
            size=size,
            options=options,
            backend=self._backend,
        )
        return await self._made(answer, parse_completed, info)

    async def abort_upload(self, upload: UploadId) -> None:
        """Let an upload go."""
        answer = await self._client.send(
            "DELETE",
            upload.bucket,
            upload.key,
            query=encode_query({"uploadId": upload.id}),
            headers={},
        )
        answer.close()

    async def list_uploads(self, bucket: str, after: tuple[str, str] | None) -> UploadsPage:
        """Return a page of the uploads that nobody has completed or aborted."""
        query = {"uploads": ""}
        if after is not None:
            query |= {"key-marker": after[0], "upload-id-marker": after[1]}
        return await self._listed(bucket, query, parse_uploads)

    async def presign(
        self, method: str, bucket: str, key: str, expires: int, options: PresignOptions
    ) -> str:
        """Return a URL that carries a signature."""
        return await self._client.presign(method, bucket, key, expires, options)

    # -- buckets ---------------------------------------------------------------------------------------

    async def create_bucket(self, bucket: str) -> None:
        """Make a bucket in the endpoint's region."""
        body = create_bucket_body(self._region)
        answer = await self._client.send(
            "PUT",
            bucket,
            headers={"content-type": "application/xml"} if body else {},
            views=[memoryview(body)] if body else [],
        )
        answer.close()

    async def delete_bucket(self, bucket: str) -> None:
        """Delete an empty bucket."""
        answer = await self._client.send("DELETE", bucket, headers={})
        answer.close()
        self._client.forget(bucket)

    async def head_bucket(self, bucket: str) -> BucketInfo:
        """Return a bucket's facts: that it is there."""
        answer = await self._client.send("HEAD", bucket, headers={})
        answer.close()
        return BucketInfo(name=bucket)

    async def list_buckets(self) -> Sequence[BucketInfo]:
        """Return the buckets that these credentials own."""
        found: list[BucketInfo] = []
        query = ""
        cycle = TokenCycle()
        while True:
            answer = await self._client.send("GET", None, query=query, headers={})
            page = await self._page(answer, parse_buckets)
            found.extend(page.buckets)
            if page.token is None:
                return found
            cycle.check(page.token, empty=not page.buckets)
            query = encode_query({"continuation-token": page.token})

    async def _listed(
        self, bucket: str, query: Mapping[str, str], parse: Callable[..., Listing]
    ) -> Listing:
        """Return a page of a listing, with keys as they are.

        Encoded keys are asked for. Some services encode them without saying so, and some do not
        encode them: an answer that leaves it open is asked for again, not encoded.
        """
        encoded = encode_query({**query, "encoding-type": "url"})
        answer = await self._client.send("GET", bucket, query=encoded, headers={})
        try:
            page = await self._page(answer, partial(parse, asked=True))
        except UnclearError:
            answer = await self._client.send("GET", bucket, query=encode_query(query), headers={})
            page = await self._page(answer, parse)
        if isinstance(page, UploadsPage):
            return replace(page, now=_now(answer))
        return page

    # -- answers ---------------------------------------------------------------------------------------

    async def _page(self, answer: Response, parse: Callable[[bytes], T]) -> T:
        """Return what a page of a listing, or the outcome of a bulk request, says."""
        return await self._document(answer, parse, _PAGE)

    async def _document(
        self, answer: Response, parse: Callable[[bytes], T], limit: int = _SMALL
    ) -> T:
        """Return what an answer's document says; it has no more than `limit` bytes."""
        try:
            body = await answer.read_all(limit)
        finally:
            answer.close()
        try:
            return await in_thread(parse, body) if is_large(body) else parse(body)
        except AnsweredError as error:
            told = error.answer
            raise failure(HTTPStatus.OK, told.code, told.message, answer.headers) from error
        except MalformedResponse as error:
            raise _malformed(error) from error

    async def _told(self, answer: Response, parse: Callable[[Mapping[str, str]], T]) -> T:
        """Return what an answer's headers say."""
        answer.close()
        try:
            return parse(answer.headers)
        except MalformedResponse as error:
            raise _malformed(error) from error

    async def _made(
        self, answer: Response, parse: Callable[[bytes], Stored], info: ObjectInfo
    ) -> ObjectInfo:
        """Return what is known of an object that the service has put together.

        Raises:
            UntoldError: The document is no error, and does not say what was made.
        """

        def told(body: bytes) -> Stored | None:
            try:
                return parse(body)
            except MalformedResponse:
                return None

        stored = await self._document(answer, told)
        if stored is None:
            raise UntoldError(info)
        return replace(
            info,
            etag=strong_etag(stored.etag),
            last_modified=stored.last_modified or info.last_modified,
            checksums=stored.checksums,
        )


def _now(answer: Response) -> datetime:
    try:
        return answered_at(answer.headers)
    except MalformedResponse as error:
        raise _malformed(error) from error


def _malformed(error: MalformedResponse) -> UnavailableError:
    return UnavailableError(f"the service's answer makes no sense: {error}")


def _version(version_id: str | None) -> str:
    return "" if version_id is None else encode_query({"versionId": version_id})


def _part(upload: UploadId, number: int) -> str:
    return encode_query({"partNumber": str(number), "uploadId": upload.id})
