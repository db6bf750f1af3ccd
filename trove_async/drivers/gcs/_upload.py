"""Uploads objects in parts, through a resumable session that accepts the bytes in order."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from trove_async._checksums import (
    combine_crc32c,
    compare_announced,
    crc32c_text,
    crc32c_value,
    part_crc32c,
)
from trove_async._concurrency import run_cleanup
from trove_async._http import Response
from trove_async._http.services import create_or_undo, map_condition_errors
from trove_async.errors import (
    BackendError,
    NotFoundError,
    ObjectNotFoundError,
    TroveError,
    UnavailableError,
)
from trove_async.models import MiB, ObjectInfo
from trove_async.options import Part, PutOptions

from ._client import JSON, RESUME_INCOMPLETE
from ._encoding import encode_query, upload_path
from ._errors import bucket_not_found
from ._resources import DEFAULT_TYPE, FIELDS, condition_query, encode_resource, info_from_resource
from ._resumable import QUANTUM, UNKNOWN_RANGE, chunk_range, persisted_size, slice_views, tail_size

if TYPE_CHECKING:
    from ._client import Client, Document
    from ._defaults import Defaults

_CANCELLED: Final = 499
"""JSON API, "Cancel an upload": the status of a successful cancel."""


class ResumableUpload:
    """An upload in parts, and the context manager that opens and aborts it.

    If the response to a request is lost, the upload does not send more bytes until it has asked the
    service how many are persisted.

    Args:
        client: Sends requests.
        bucket: The bucket.
        key: The key.
        options: The metadata, the checksums and the conditions.
        backend: For `ObjectInfo.backend`.
        defaults: The storage class and the encryption key of new objects.
    """

    def __init__(
        self,
        client: Client,
        bucket: str,
        key: str,
        options: PutOptions,
        backend: str,
        *,
        defaults: Defaults,
    ) -> None:
        self._query = {"uploadType": "resumable", "fields": FIELDS, **defaults.create_query}
        self._client = client
        self._bucket = bucket
        self._key = key
        self._options = options = defaults.apply(options)
        self._backend = backend
        self._content_type = {"content-type": options.content_type or DEFAULT_TYPE}
        self._session_path: str | None = None
        self._accepted = 0  # the number of bytes in the parts for which `send` has returned
        self._persisted = 0  # the number of bytes that the service has persisted
        self._tail = b""  # the last of the accepted bytes, which the commit sends
        self._crc = 0  # the CRC-32C of the accepted bytes
        self._progress_unknown = False  # a request is in flight, or its response was lost
        self._info: ObjectInfo | None = None

    async def __aenter__(self) -> Self:
        self._session_path = await create_or_undo(self._start_session(), self._cancel_session)
        return self

    async def _start_session(self) -> str:
        """Start a session and return its path."""
        query = {**self._query, **condition_query(self._options)}
        resource = encode_resource(self._options, self._key)
        headers = {**JSON, "x-upload-content-type": self._content_type["content-type"]}
        target = upload_path(self._bucket) + encode_query(query)
        with map_condition_errors(self._options):
            try:
                response = await self._client.send("POST", target, headers, [memoryview(resource)])
            except NotFoundError as error:
                raise bucket_not_found(error) from error
        response.close()
        return _parse_session_path(response)

    async def _cancel_session(self, target: str) -> None:
        await self._client.execute("DELETE", target, accepted_statuses={_CANCELLED})

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        target, self._session_path = self._session_path, None
        if target is None or self._info is not None:
            return
        # A commit may have succeeded although its response was lost. The service then rejects the cancel
        # and keeps the object, so unlike with S3, the outcome need not be checked first.
        with suppress(TroveError):  # the session expires after a week
            await run_cleanup(self._cancel_session(target))

    async def send(self, part: Part, views: Sequence[memoryview]) -> None:
        """Send one part; keep the last bytes of the last part for the commit. See `Upload.send`."""
        # 1. Check the order. The caller may send an accepted part again.
        end = part.offset + part.size
        if end <= self._accepted:
            return
        if part.offset != self._accepted:
            raise BackendError(
                f"parts must be in order: the next offset must be {self._accepted}, got {part.offset}"
            )
        # 2. Send a multiple of 256 KiB. The commit sends the rest of the last part.
        tail_length = tail_size(part.size) if part.last else part.size % QUANTUM
        await self._send_until(part.offset, views, end - tail_length)
        tail = b"".join(slice_views(views, part.size - tail_length, part.size))
        crc = crc32c_value(await part_crc32c(part.checksums, views))
        crc = combine_crc32c(self._crc, crc, part.size)
        # 3. Change the state only after the last await, so a failed part can be sent again.
        self._accepted, self._tail, self._crc = end, tail, crc

    async def commit(self, checksums: Mapping[str, str]) -> ObjectInfo:
        """Send the last bytes, which creates the object. See `Upload.commit`."""
        if self._info is None:
            crc = crc32c_text(self._crc)
            compare_announced({**self._options.checksums, **checksums}, crc)
            with map_condition_errors(self._options):
                document = await self._send_tail(f"crc32c={crc}")
            self._info = info_from_resource(document, bucket=self._bucket, backend=self._backend)
        return self._info

    async def _send_tail(self, hashes: str) -> Document:
        """Send the tail, which creates the object; return its resource."""
        # 1. If the response to an earlier commit was lost, that commit may have created the object.
        if self._progress_unknown and (document := await self._update_progress()) is not None:
            return document
        # 2. Send the bytes that are not persisted yet, until the service creates the object.
        tail = [memoryview(self._tail)]
        while True:
            start = self._persisted
            document = await self._send_chunk(
                chunk_range(start, self._accepted, self._accepted),
                slice_views(tail, start - (self._accepted - len(self._tail)), len(self._tail)),
                hashes,
            )
            if document is not None:
                return document
            self._check_progress(start)
            self._check_sent(self._accepted)

    async def _send_until(self, offset: int, views: Sequence[memoryview], end: int) -> None:
        """Send the bytes of a part until the service has persisted all bytes before `end`.

        Args:
            offset: The offset of the part in the object.
            views: The bytes of the part.
            end: The offset in the object at which to stop.
        """
        if self._progress_unknown:
            await self._update_progress()
        while self._persisted < end:
            start = self._persisted
            if start < offset:
                raise UnavailableError(
                    f"the service lost bytes of the upload: it persisted {start} of {offset}",
                    retryable=False,
                )
            pieces = slice_views(views, start - offset, end - offset)
            await self._send_chunk(chunk_range(start, end), pieces)
            self._check_progress(start)
        self._check_sent(end)

    def _check_progress(self, start: int) -> None:
        if self._persisted <= start:
            raise UnavailableError(f"the service persisted no bytes from offset {start} on")

    def _check_sent(self, end: int) -> None:
        if self._persisted > end:
            raise UnavailableError(
                f"the service reported {self._persisted} persisted bytes, but only {end} were sent",
                retryable=False,
            )

    async def _update_progress(self) -> Document | None:
        """Request the progress of the session; return the resource if the object exists."""
        return await self._send_chunk(UNKNOWN_RANGE)

    async def _send_chunk(
        self, content_range: str, views: Sequence[memoryview] = (), hashes: str = ""
    ) -> Document | None:
        """Send one request of the session; return the resource if the object exists now."""
        assert self._session_path is not None  # noqa: S101 - inside the context
        headers = {**self._content_type, "content-range": content_range}
        if hashes:
            # The service verifies the whole body. google-cloud-storage 3 also sends this field with the
            # last chunk.
            headers["x-goog-hash"] = hashes
        # 1. Send the chunk. Until its response is read, the progress is unknown.
        self._progress_unknown = True
        try:
            response = await self._client.send(
                "PUT", self._session_path, headers, views, accepted_statuses={RESUME_INCOMPLETE}
            )
        except NotFoundError as error:
            raise ObjectNotFoundError(
                "the upload session does not exist: it was committed or cancelled, or it expired after a week"
            ) from error
        # 2. A 308 reports the progress. Any other success contains the resource of the object.
        if response.status == RESUME_INCOMPLETE:
            try:
                self._persisted = persisted_size(response.headers)
                await response.read_all(MiB)
            finally:
                response.close()
            document: Document | None = None
        else:
            document = await self._client.read_document(response)
        self._progress_unknown = False
        return document


_URL_TEXT = re.compile(r"[!-~]*").fullmatch
"""Matches the characters that a URL may have: visible ASCII (RFC 3986, 2)."""


def _parse_session_path(response: Response) -> str:
    """Return the path and query of a session from the Location header.

    The host is ignored: requests with tokens go only to the configured endpoint. If the host differs,
    the endpoint is a proxy, and later requests must use it as well.
    """
    status, location = response.status, response.headers.get("location", "")
    scheme, _, authority_and_path = location.partition("://")
    _, slash, path = authority_and_path.partition("/")
    if scheme not in {"http", "https"} or not slash or not _URL_TEXT(path):
        raise UnavailableError(
            f"the service's response is malformed: {status} without a valid Location"
        )
    return slash + path
