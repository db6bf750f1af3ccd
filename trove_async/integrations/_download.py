"""Downloads: the response to a GET or HEAD request for an object, independent of the framework.

Most requests cost one request to the backend: the object is opened, and the conditions are evaluated
against the open object. If the client seems to have a copy, the conditions are evaluated against the
response to a head request instead, and the body is then read from the same version.

An object that is stored as zstd is sent as it is to a client that accepts this coding
(`_content_coding`), and decoded to others. The form is chosen from the response of the backend, which
costs no request. A range is always one of the decoded form.

A download holds one chunk of its body here and one in the buffer of its socket: 512 KiB in
total for a client that is slow or stalls, and 2 MiB for one that has been fast so far (`_pacing`). The
next chunk is read from the backend only when the framework requests it, after the operating system
has accepted most of the previous one.
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
from ._conditions import READ_METHODS, ConditionResult, Conditions, Header
from ._content_coding import VARY, AcceptedCodings, has_zstd_form, may_accept_zstd
from ._headers import Presentation
from ._pacing import SMALL
from ._problem_details import PROBLEMS, problem
from ._response import BodyStream, ServerResponse, paced_chunks

Redirect: TypeAlias = Literal["never", "presign"]

PRESIGNED_SECONDS = 300.0
"""Validity of the presigned URL of a redirect, in seconds. The download must start within that time."""

_MAX_ATTEMPTS = 5
"""Maximum number of attempts if the object is replaced after the conditions were evaluated."""


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
    if method not in READ_METHODS:
        return problem(405, "The method must be GET or HEAD.", {"Allow": "GET, HEAD"})
    if redirect == "presign" and method == "GET":
        try:
            url = await store.presign_get(bucket, key, expires=PRESIGNED_SECONDS)
        except NotSupportedError:
            pass  # the backend cannot presign: send the object itself
        else:
            return ServerResponse(
                status=307,
                headers={"Location": url, "Content-Length": "0", "Cache-Control": "no-store"},
            )
    request = _Request(store, bucket, key, method, header=header, presentation=presentation)
    for _ in range(_MAX_ATTEMPTS):
        try:
            return await request.respond()
        except PreconditionFailedError:
            continue  # the object was replaced: evaluate the new one
    raise UnavailableError(
        f"the object was replaced during each of {_MAX_ATTEMPTS} attempts to read it",
        bucket=bucket,
        key=key,
    )


def _same_version(first: ObjectInfo, second: ObjectInfo) -> bool:
    """Return whether two infos describe the same version, as far as the backend identifies it."""
    if first.etag or second.etag:
        return first.etag == second.etag
    return (first.version_id, first.last_modified, first.stored_size) == (
        second.version_id,
        second.last_modified,
        second.stored_size,
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
        accept_encoding = header("accept-encoding") or ""
        self._accept_encoding = accept_encoding if may_accept_zstd(accept_encoding) else ""
        self._presentation = presentation

    async def respond(self) -> ServerResponse:
        """Evaluate the conditions against the current object, and return the response.

        Raises:
            PreconditionFailedError: The object was replaced after the evaluation.
        """
        single = None if self._ranges is None else self._ranges.single
        # With several ranges, or the empty suffix ``-0``, evaluate the ranges before opening the object.
        needs_size = self._ranges is not None and single is None
        if self._method == "HEAD" or needs_size or self._conditions.client_has_copy:
            return await self._evaluate(await self._store.head(self._bucket, self._key), None)
        try:
            reader = await self._open(single, None)
        except RangeError as error:
            # The conditions take precedence over a 416, and a 416 contains the size of the object.
            info = error.info
            if not isinstance(info, ObjectInfo):
                info = await self._store.head(self._bucket, self._key)
            return await self._evaluate(info, None)
        return await self._evaluate(reader.info, reader)

    def _sends_zstd(self, info: ObjectInfo) -> bool:
        """Return whether the zstd form of the object is sent: the client accepts it, and it exists."""
        if not (self._accept_encoding and has_zstd_form(info)):
            return False
        accepted = AcceptedCodings.parse(self._accept_encoding)
        if not accepted.zstd:
            return False
        if not accepted.decoded:
            return True
        return self._ranges is None and not self._conditions.names_decoded_form(info)

    def _sends_decoded(self, info: ObjectInfo) -> bool:
        return not self._sends_zstd(info)

    async def _evaluate(self, info: ObjectInfo, reader: ObjectReader | None) -> ServerResponse:
        """Return the response for the object that `info` describes.

        Args:
            info: The object.
            reader: An open reader of the object; None if it is not open yet. This method either
                passes the reader to the response or closes it.
        """
        try:
            # 1. Choose the form, and evaluate the conditions and the ranges.
            zstd = self._sends_zstd(info)
            size = info.stored_size if zstd else info.size
            vary = VARY if has_zstd_form(info) else {}
            result = self._conditions.evaluate(self._method, info, zstd=zstd)
            if result is ConditionResult.FAILED:
                return problem(412, PROBLEMS[PreconditionFailedError].detail, vary)
            if result is ConditionResult.NOT_MODIFIED:
                validators = self._presentation.validators(info, zstd=zstd)
                return ServerResponse(status=304, headers=validators)
            spans = None
            if not zstd and self._ranges is not None and self._conditions.range_applies(info):
                spans = self._ranges.spans(size)
                if not spans and spans is not None:
                    unsatisfied = {**vary, "Content-Range": f"bytes */{size}"}
                    return problem(416, PROBLEMS[RangeError].detail, unsatisfied)
            # 2. A HEAD ends here.
            headers = self._presentation.headers(info, zstd=zstd)
            if self._method == "HEAD":
                return ServerResponse(status=200, headers={**headers, "Content-Length": str(size)})
            # 3. Return the body, from a new reader if the open one has a different range.
            first = spans[0] if spans else (0, size)
            if reader is None or reader.range != first:
                if reader is not None:
                    await reader.aclose()
                reader = await self._open(ByteRange(*first) if spans else None, info)
            response = await self._body_response(reader, headers, spans)
            reader = None if response.stream else reader
            return response
        finally:
            if reader is not None:
                await reader.aclose()

    async def _open(self, range: ByteRange | None, pin: ObjectInfo | None) -> ObjectReader:
        """Open the object or a range of it, or the whole object if the backend does not support ranges.

        A backend may support neither ranges nor conditions, so up to three variants of the request
        are tried.

        Raises:
            PreconditionFailedError: The object is not the version that `pin` describes.
        """
        # Without an etag, the backend cannot check the version. It is compared below, after opening.
        condition = pin if pin is not None and pin.etag else None
        variants = [(range, condition)]
        if condition is not None:
            variants.append((range, None))
        if range is not None:
            variants.append((None, None))
        while True:
            byte_range, if_match = variants.pop(0)
            try:
                reader = await self._store.get(
                    self._bucket,
                    self._key,
                    range=byte_range,
                    if_match=if_match,
                    decode=self._sends_decoded if self._accept_encoding else True,
                )
            except NotSupportedError:
                if not variants:
                    raise
            except RangeError as error:
                if pin is None:
                    raise
                # The range was inside the object that was evaluated.
                raise PreconditionFailedError("the object was replaced by a shorter one") from error
            else:
                if pin is None or _same_version(reader.info, pin):
                    return reader
                await reader.aclose()
                raise PreconditionFailedError("the object was replaced")

    async def _body_response(
        self, reader: ObjectReader, headers: dict[str, str], spans: Sequence[Span] | None
    ) -> ServerResponse:
        """Return a 206 response, or a 200 if no range applies or the backend does not support ranges."""
        info, status, read_parts, length = reader.info, 200, None, reader.remaining
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
                read_parts = partial(self._parts, frame)
        headers["Content-Length"] = str(length)
        # A small body is read here, so that a failure can still become an error response.
        if length <= SMALL and read_parts is None:
            content = await reader.read(length)
            if len(content) < length:
                content += await reader.read()
            return ServerResponse(status=status, headers=headers, content=content)
        stream = BodyStream(reader, read_parts)
        return ServerResponse(status=status, headers=headers, stream=stream)

    async def _parts(self, frame: ByterangesFrame, first: ObjectReader) -> AsyncGenerator[bytes]:
        """Yield a multipart body. All spans come from the version of the first reader."""
        for number, span in enumerate(frame.spans):
            yield frame.head(span)
            reader = await self._open(ByteRange(*span), first.info) if number else first
            async with reader, aclosing(paced_chunks(reader)) as chunks:
                async for chunk in chunks:
                    yield chunk
        yield frame.tail
