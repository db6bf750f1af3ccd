"""Uploads in parts by a resumable session, which takes the bytes in order."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from trove_async._checksums import compare_announced, crc32c_text, hash_crc32c
from trove_async._concurrency import run_cleanup
from trove_async._http import Response
from trove_async._http.services import create_or_undo, map_condition_errors
from trove_async.errors import (
    BackendError,
    BucketNotFoundError,
    NotFoundError,
    ObjectNotFoundError,
    TroveError,
    UnavailableError,
)
from trove_async.models import MiB, ObjectInfo
from trove_async.options import Part, PutOptions

from ._client import JSON, RESUME_INCOMPLETE
from ._encoding import encode_query, upload_path
from ._resources import DEFAULT_TYPE, FIELDS, encode_resource, info_from_resource, precondition
from ._resumable import QUANTUM, UNKNOWN_RANGE, chunk_range, cut, held_back, persisted_size

if TYPE_CHECKING:
    from ._client import Client, Document
    from ._defaults import Defaults

_ABORTED: Final = 499
"""JSON API, "Cancel an upload": the status of a successful cancel."""


class ResumableUpload:
    """An upload and its context manager.

    After a request without a response, the upload asks the session for its progress before it
    sends more.

    Args:
        client: Sends requests.
        bucket: The bucket.
        key: The key.
        options: The metadata, the checksums and the conditions.
        backend: For `ObjectInfo.backend`.
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
        self._type = {"content-type": options.content_type or DEFAULT_TYPE}
        self._target: str | None = None
        self._accepted = 0  # bytes of the parts that were accepted
        self._persisted = 0  # of those, the bytes that the service has
        self._tail = b""  # the bytes that are sent with the commit
        self._crc = 0
        self._progress_unknown = False
        self._info: ObjectInfo | None = None

    async def __aenter__(self) -> Self:
        self._target = await create_or_undo(self._start_session(), self._cancel_session)
        return self

    async def _start_session(self) -> str:
        """Start a session and return its path."""
        query = {**self._query, **precondition(self._options)}
        resource = encode_resource(self._options, self._key)
        headers = {**JSON, "x-upload-content-type": self._type["content-type"]}
        target = upload_path(self._bucket) + encode_query(query)
        with map_condition_errors(self._options):
            try:
                response = await self._client.send("POST", target, headers, [memoryview(resource)])
            except NotFoundError as error:
                raise BucketNotFoundError(error.message) from error
        response.close()
        return _target_in(response)

    async def _cancel_session(self, target: str) -> None:
        await self._client.execute("DELETE", target, also={_ABORTED})

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        target, self._target = self._target, None
        if target is None or self._info is not None:
            return
        # If a commit succeeded although its response was lost, the service only rejects the cancel:
        # unlike an S3 upload, a session can be cancelled without checking the outcome first.
        with suppress(TroveError):  # a session expires after a week
            await run_cleanup(self._cancel_session(target))

    async def send(self, part: Part, views: Sequence[memoryview]) -> None:
        """Send one part, without the last bytes of the last part. See `Upload.send`."""
        end = part.offset + part.size
        if end <= self._accepted:
            return  # a repeated part
        if part.offset != self._accepted:
            raise BackendError(
                f"parts must be in order: the next offset must be {self._accepted}, got {part.offset}"
            )
        withheld = held_back(part.size) if part.last else part.size % QUANTUM
        await self._send(part.offset, views, end - withheld)
        tail = b"".join(cut(views, part.size - withheld, part.size))
        crc = await hash_crc32c(views, self._crc)
        # The state changes only after the last await, so that a part can be retried.
        self._accepted, self._tail, self._crc = end, tail, crc

    async def commit(self, checksums: Mapping[str, str]) -> ObjectInfo:
        """Send the last bytes, which creates the object. See `Upload.commit`."""
        if self._info is None:
            crc = crc32c_text(self._crc)
            compare_announced({**self._options.checksums, **checksums}, crc)
            with map_condition_errors(self._options):
                document = await self._finish(f"crc32c={crc}")
            self._info = info_from_resource(document, bucket=self._bucket, backend=self._backend)
        return self._info

    async def _finish(self, hashes: str) -> Document:
        if self._progress_unknown and (document := await self._update_progress()) is not None:
            return document
        tail = [memoryview(self._tail)]
        while True:
            start = self._persisted
            document = await self._chunk(
                chunk_range(start, self._accepted, self._accepted),
                cut(tail, start - (self._accepted - len(self._tail)), len(self._tail)),
                hashes,
            )
            if document is not None:
                return document
            self._check_progress(start)
            self._check_sent(self._accepted)

    async def _send(self, offset: int, views: Sequence[memoryview], end: int) -> None:
        if self._progress_unknown:
            await self._update_progress()
        while self._persisted < end:
            start = self._persisted
            if start < offset:
                raise UnavailableError(
                    f"the service lost bytes of the upload: it has {start} of {offset}",
                    retryable=False,
                )
            pieces = cut(views, start - offset, end - offset)
            await self._chunk(chunk_range(start, end), pieces)
            self._check_progress(start)
        self._check_sent(end)

    def _check_progress(self, start: int) -> None:
        if self._persisted <= start:
            raise UnavailableError(f"the service persists no bytes from offset {start} on")

    def _check_sent(self, end: int) -> None:
        if self._persisted > end:
            raise UnavailableError(
                f"the service reports {self._persisted} bytes of the {end} that were sent",
                retryable=False,
            )

    async def _update_progress(self) -> Document | None:
        """Update the progress of the session; return the resource if the object exists."""
        return await self._chunk(UNKNOWN_RANGE)

    async def _chunk(
        self, content_range: str, views: Sequence[memoryview] = (), hashes: str = ""
    ) -> Document | None:
        """Send one request of the session; return the resource if it created the object."""
        assert self._target is not None  # noqa: S101 - inside the context
        headers = {**self._type, "content-range": content_range}
        if hashes:
            # The service verifies it. google-cloud-storage 3 also sends it with the last chunk.
            headers["x-goog-hash"] = hashes
        self._progress_unknown = True
        try:
            response = await self._client.send(
                "PUT", self._target, headers, views, also={RESUME_INCOMPLETE}
            )
        except NotFoundError as error:
            raise ObjectNotFoundError(
                "the upload session does not exist: it was committed, cancelled, or has expired after a week"
            ) from error
        if response.status == RESUME_INCOMPLETE:
            try:
                self._persisted = persisted_size(response.headers)
                await response.read_all(MiB)
            finally:
                response.close()
            document: Document | None = None
        else:
            document = await self._client.document(response)
        self._progress_unknown = False
        return document


_URL_TEXT = re.compile(r"[!-~]*").fullmatch
"""RFC 3986, 2: a URL is visible ASCII."""


def _target_in(response: Response) -> str:
    """Return the path of a session in a Location header.

    The host is ignored: requests with tokens only go to the configured endpoint. A different host
    means that a proxy is in between, which must then be used as well.
    """
    status, location = response.status, response.headers.get("location", "")
    scheme, _, rest = location.partition("://")
    _, slash, path = rest.partition("/")
    if scheme not in {"http", "https"} or not slash or not _URL_TEXT(path):
        raise UnavailableError(
            f"the service's response is malformed: {status} without a valid Location"
        )
    return slash + path
