"""Downloads: the response to a GET or HEAD request for an object, independent of the framework.

Most requests cost one request to the backend: the object is opened as requested, and the
conditions are evaluated against the open object. If the client has a copy, the conditions are
evaluated against a head, and a body sent after it is pinned to that version.

**Memory.** A download holds one piece of its body here, and as much in the buffer of its socket:
512 KiB for a client that is slow or stalls, and 2 MiB for one that has been fast so far
(`_pacing`). The next piece is read from the backend only when the client has taken the one before.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from functools import partial
from typing import Literal, TypeAlias

from trove_async import (
    ByteRange,
    NotSupportedError,
    ObjectInfo,
    ObjectReader,
    PreconditionFailedError,
    RangeError,
    Trove,
    UnavailableError,
)

from ._byteranges import ByterangesFrame, RangeSet, Span, format_content_range
from ._conditions import READING, Conditions, Header, Verdict
from ._headers import Presentation
from ._pacing import SMALL
from ._problem_details import PROBLEMS, problem
from ._response import BodyStream, ServerResponse, paced_chunks

Redirect: TypeAlias = Literal["never", "presign"]

PRESIGNED_SECONDS = 300.0
"""Validity of the target of a redirect, in seconds. A download must start within that time."""

_TRIES = 5
"""Maximum attempts, for an object that is replaced between its evaluation and its opening."""


async def serve_object(
    store: Trove,
    bucket: str,
    key: str,
    method: str,
    header: Header,
    *,
    presentation: Presentation,
    redirect: Redirect,
) -> ServerResponse:
    """Respond to a GET or HEAD request for an object; see `Endpoints.object_response`.

    Raises:
        ObjectNotFoundError: The object does not exist.
        TroveError: The store failed.
    """
    if method not in READING:
        return problem(405, "Objects are read with GET or HEAD.", {"Allow": "GET, HEAD"})
    if redirect == "presign" and method == "GET":
        try:
            url = await store.presign_get(bucket, key, expires=PRESIGNED_SECONDS)
        except NotSupportedError:
            pass  # serve it directly
        else:
            return ServerResponse(
                status=307,
                headers={"Location": url, "Content-Length": "0", "Cache-Control": "no-store"},
            )
    request = _Request(store, bucket, key, method, header=header, presentation=presentation)
    for _ in range(_TRIES):
        try:
            return await request.answer()
        except PreconditionFailedError:
            continue  # replaced between its evaluation and its opening: evaluate the new one
    raise UnavailableError("the object is replaced too often to be read", bucket=bucket, key=key)


def _is_same(one: ObjectInfo, other: ObjectInfo) -> bool:
    """Return whether both describe the same version, as far as the backend reports it."""
    if one.etag or other.etag:
        return one.etag == other.etag
    return (one.version_id, one.last_modified, one.size) == (
        other.version_id,
        other.last_modified,
        other.size,
    )


class _Request:
    """A request for one object."""

    def __init__(
        self,
        store: Trove,
        bucket: str,
        key: str,
        method: str,
        *,
        header: Header,
        presentation: Presentation,
    ) -> None:
        self._store = store
        self._bucket = bucket
        self._key = key
        self._method = method
        self._conditions = Conditions.of(header)
        # RFC 9110, section 14.2: only GET has ranges.
        self._ranges = RangeSet.parse(header("range")) if method == "GET" else None
        self._presentation = presentation

    async def answer(self) -> ServerResponse:
        """Evaluate the conditions against the current object, and return the response.

        Raises:
            PreconditionFailedError: The object was replaced after the evaluation.
        """
        only = None if self._ranges is None else self._ranges.only
        several = self._ranges is not None and only is None
        if self._method == "HEAD" or several or self._conditions.revalidate:
            return await self._judged(await self._store.head(self._bucket, self._key), None)
        try:
            reader = await self._open(only, None)
        except RangeError:
            return await self._judged(await self._store.head(self._bucket, self._key), None)
        return await self._judged(reader.info, reader)

    async def _judged(self, info: ObjectInfo, reader: ObjectReader | None) -> ServerResponse:
        """Return the response for the object that `info` describes.

        Args:
            info: The object.
            reader: An open reader of the object, which is either used or closed; None: no reader.
        """
        try:
            # 1. Evaluate the conditions and the ranges.
            verdict = self._conditions.verdict(self._method, info)
            if verdict is Verdict.FAILED:
                return problem(412, PROBLEMS[PreconditionFailedError].detail)
            if verdict is Verdict.NOT_MODIFIED:
                return ServerResponse(status=304, headers=self._presentation.validators(info))
            spans = None
            if self._ranges is not None and self._conditions.range_applies(info):
                spans = self._ranges.spans(info.size)
                if not spans and spans is not None:
                    unsatisfied = {"Content-Range": f"bytes */{info.size}"}
                    return problem(416, PROBLEMS[RangeError].detail, unsatisfied)
            # 2. A HEAD ends here.
            headers = self._presentation.of(info)
            if self._method == "HEAD":
                return ServerResponse(
                    status=200, headers={**headers, "Content-Length": str(info.size)}
                )
            # 3. Send the body, from a new reader if the open one has another range.
            first = spans[0] if spans else (0, info.size)
            if reader is None or reader.range != first:
                if reader is not None:
                    await reader.aclose()
                reader = await self._open(ByteRange(*first) if spans else None, info)
            answer = await self._with_body(reader, headers, spans)
            reader = None if answer.stream else reader
            return answer
        finally:
            if reader is not None:
                await reader.aclose()

    async def _open(self, range: ByteRange | None, pin: ObjectInfo | None) -> ObjectReader:
        """Open the object or a range of it; the whole if the backend has no ranges.

        Raises:
            PreconditionFailedError: The object is not the version that `pin` describes.
        """
        # An object without an etag cannot be pinned by a condition: compare it once it is open.
        ways = [(range, pin if pin is not None and pin.etag else None)]
        if ways[0][1] is not None:
            ways.append((range, None))
        if range is not None:
            ways.append((None, None))
        while True:
            wanted, if_match = ways.pop(0)
            try:
                reader = await self._store.get(
                    self._bucket, self._key, range=wanted, if_match=if_match
                )
            except NotSupportedError:
                if not ways:
                    raise
            except RangeError as error:
                if pin is None:
                    raise
                raise PreconditionFailedError("it is shorter than it was") from error
            else:
                if pin is None or _is_same(reader.info, pin):
                    return reader
                await reader.aclose()
                raise PreconditionFailedError("it is another version")

    async def _with_body(
        self, reader: ObjectReader, headers: dict[str, str], spans: Sequence[Span] | None
    ) -> ServerResponse:
        info, status, pull, length = reader.info, 200, paced_chunks, reader.remaining
        if spans and reader.range == spans[0]:
            status = 206
            if len(spans) == 1:
                headers["Content-Range"] = format_content_range(spans[0], info.size)
            else:
                frame = ByterangesFrame(
                    secrets.token_hex(16), headers["Content-Type"], tuple(spans), info.size
                )
                headers["Content-Type"] = frame.media_type
                length = frame.length
                pull = partial(self._parts, frame)
        headers["Content-Length"] = str(length)
        if length <= SMALL and pull is paced_chunks:
            return ServerResponse(status=status, headers=headers, content=await reader.read())
        return ServerResponse(status=status, headers=headers, stream=BodyStream(reader, pull))

    async def _parts(self, frame: ByterangesFrame, first: ObjectReader) -> AsyncGenerator[bytes]:
        """Yield a multipart body. All spans come from the version of the first reader."""
        for number, span in enumerate(frame.spans):
            yield frame.head(span)
            reader = await self._open(ByteRange(*span), first.info) if number else first
            async with reader, aclosing(paced_chunks(reader)) as chunks:
                async for chunk in chunks:
                    yield chunk
        yield frame.tail
