"""Uploads in parts: one resumable session each, whose bytes are sent in their order."""

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
from ._resources import DEFAULT_TYPE, FIELDS, info_of, precondition, resource_of
from ._resumable import QUANTUM, UNKNOWN_RANGE, chunk_range, cut, held_back, kept

if TYPE_CHECKING:
    from ._client import Client, Document
    from ._defaults import Defaults

_ABORTED: Final = 499
"""JSON API, "Cancel an upload": what a session that is deleted is answered with."""


class ResumableUpload:
    """One upload: its context manager and itself.

    What the service has got is known as long as every request is answered. After one that was not,
    the session is asked first.

    Args:
        client: Sends requests.
        bucket: The bucket.
        key: The key.
        options: What the object is to have.
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
        self._query = {"uploadType": "resumable", "fields": FIELDS, **defaults.made}
        self._client = client
        self._bucket = bucket
        self._key = key
        self._options = options = defaults.applied(options)
        self._backend = backend
        self._type = {"content-type": options.content_type or DEFAULT_TYPE}
        self._target: str | None = None
        self._taken = 0  # bytes of the parts that were sent
        self._kept = 0  # of those, the service's
        self._tail = b""  # and what is kept here for the commit
        self._crc = 0
        self._unsure = False
        self._info: ObjectInfo | None = None

    async def __aenter__(self) -> Self:
        self._target = await create_or_undo(self._begun(), self._ended)
        return self

    async def _begun(self) -> str:
        """Return where the new session takes its bytes."""
        query = {**self._query, **precondition(self._options)}
        resource = resource_of(self._options, self._key)
        headers = {**JSON, "x-upload-content-type": self._type["content-type"]}
        target = upload_path(self._bucket) + encode_query(query)
        with map_condition_errors(self._options):
            try:
                answer = await self._client.send("POST", target, headers, [memoryview(resource)])
            except NotFoundError as error:
                raise BucketNotFoundError(error.message) from error
        answer.close()
        return _target_in(answer)

    async def _ended(self, target: str) -> None:
        await self._client.done("DELETE", target, also={_ABORTED})

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        target, self._target = self._target, None
        if target is None or self._info is not None:
            return
        # A session that has made its object, though nobody heard of it, is only refused: unlike an
        # upload of S3's, it can be deleted without a look at what became of it.
        with suppress(TroveError):  # the service forgets a session after a week
            await run_cleanup(self._ended(target))

    async def send(self, part: Part, views: Sequence[memoryview]) -> None:
        """Store one part, all but the last byte of the last one. See `Upload.send`."""
        end = part.offset + part.size
        if end <= self._taken:
            return  # it was sent before
        if part.offset != self._taken:
            raise BackendError(
                f"a resumable session takes bytes in their order: {self._taken} is next,"
                f" not {part.offset}"
            )
        back = held_back(part.size) if part.last else part.size % QUANTUM
        await self._send(part.offset, views, end - back)
        tail = b"".join(cut(views, part.size - back, part.size))
        crc = await hash_crc32c(views, self._crc)
        # Nothing of the state has changed before the last await: a part may be sent again.
        self._taken, self._tail, self._crc = end, tail, crc

    async def commit(self, checksums: Mapping[str, str]) -> ObjectInfo:
        """Send the last bytes, which makes the object. See `Upload.commit`."""
        if self._info is None:
            crc = crc32c_text(self._crc)
            compare_announced({**self._options.checksums, **checksums}, crc)
            with map_condition_errors(self._options):
                said = await self._finish(f"crc32c={crc}")
            self._info = info_of(said, bucket=self._bucket, backend=self._backend)
        return self._info

    async def _finish(self, hashes: str) -> Document:
        if self._unsure and (said := await self._ask()) is not None:
            return said
        tail = [memoryview(self._tail)]
        while True:
            start = self._kept
            said = await self._chunk(
                chunk_range(start, self._taken, self._taken),
                cut(tail, start - (self._taken - len(self._tail)), len(self._tail)),
                hashes,
            )
            if said is not None:
                return said
            self._check_progress(start)
            self._check_sent(self._taken)

    async def _send(self, offset: int, views: Sequence[memoryview], end: int) -> None:
        if self._unsure:
            await self._ask()
        while self._kept < end:
            start = self._kept
            if start < offset:
                raise UnavailableError(
                    f"the service has lost bytes that it had: {start} of {offset} are left",
                    retryable=False,
                )
            pieces = cut(views, start - offset, end - offset)
            await self._chunk(chunk_range(start, end), pieces)
            self._check_progress(start)
        self._check_sent(end)

    def _check_progress(self, start: int) -> None:
        if self._kept <= start:
            raise UnavailableError(f"the service keeps none of the bytes from {start} on")

    def _check_sent(self, end: int) -> None:
        if self._kept > end:
            raise UnavailableError(
                f"the service keeps {self._kept} bytes, and was sent {end}", retryable=False
            )

    async def _ask(self) -> Document | None:
        """Learn how far the session has come; return the resource if it has come to its end."""
        return await self._chunk(UNKNOWN_RANGE)

    async def _chunk(
        self, content_range: str, views: Sequence[memoryview] = (), hashes: str = ""
    ) -> Document | None:
        """Send one request of the session; return the resource if it made the object."""
        assert self._target is not None  # noqa: S101 - entered, and not left
        headers = {**self._type, "content-range": content_range}
        if hashes:
            # As google-cloud-storage 3 does with the last chunk: the service compares it.
            headers["x-goog-hash"] = hashes
        self._unsure = True
        try:
            answer = await self._client.send(
                "PUT", self._target, headers, views, also={RESUME_INCOMPLETE}
            )
        except NotFoundError as error:
            raise ObjectNotFoundError(
                "the session is over: it was committed, aborted, or is a week old"
            ) from error
        if answer.status == RESUME_INCOMPLETE:
            try:
                self._kept = kept(answer.headers)
                await answer.read_all(MiB)
            finally:
                answer.close()
            said: Document | None = None
        else:
            said = await self._client.document(answer)
        self._unsure = False
        return said


_SENDABLE = re.compile(r"[!-~]*").fullmatch
"""RFC 3986, 2: a URL is visible ASCII."""


def _target_in(answer: Response) -> str:
    """Return the path of a session: it is asked where the driver was told that the service is.

    The Location's host is not looked at. It is the same, unless there is a proxy in between, which
    is then to be used; and our tokens go nowhere else.
    """
    status, location = answer.status, answer.headers.get("location", "")
    scheme, _, rest = location.partition("://")
    _, slash, path = rest.partition("/")
    if scheme not in {"http", "https"} or not slash or not _SENDABLE(path):
        raise UnavailableError(
            f"the service's answer makes no sense: {status} without a Location that is a URL"
        )
    return slash + path
