"""Uploads: store the body of a request as an object, independent of the framework.

The body is read only as fast as the store accepts it, which slows the client down to the speed of the
backend. If the client disconnects, a limit is exceeded or the form is malformed, the put fails and
stores nothing.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import TypedDict
from urllib.parse import quote

from trove_async import NotFoundError, NotSupportedError, ObjectInfo, PreconditionFailedError, Trove
from trove_async._concurrency import in_thread
from trove_async._settings import check_ints, check_numbers
from trove_async.errors import ObjectExistsError

from ._conditions import ConditionResult, Conditions, Header, entity_tag
from ._digests import DigestError, Digests
from ._headers import essence, type_to_store
from ._multipart_form import FormError, FormFile
from ._problem_details import PROBLEMS, problem
from ._response import ServerResponse

_logger = logging.getLogger("trove_async.integrations")

FORM_OVERHEAD = 1024 * 1024
"""Maximum bytes of a form in addition to its file."""

FORM_FIELDS = 64 * 1024
"""Maximum bytes of memory for the other fields of a form, which are held until the response."""

MIN_RATE = 500.0
"""Minimum rate of a client in bytes per second: the default of Apache HTTP Server (mod_reqtimeout,
``body=20,MinRate=500``). Real networks are faster; attackers that hold connections open are slower."""

GRACE = 20.0
"""Seconds that a client may fall behind `Limits.min_rate`, because any connection may stall briefly.
This is the ``body=20`` of Apache's default (`MIN_RATE`)."""

_MAX_INLINE_HASH = 256 * 1024
"""Maximum bytes to hash on the event loop. Below that, a thread costs more than the hashing."""

_URL_SAFE = "%/:?#[]@!$&'()*+,;=~"
"""Characters other than letters and digits that `quote` keeps in a URL. RFC 3986, section 2."""


class ClientDisconnectedError(Exception):
    """The client disconnected before the end of its request."""


class PutFields(TypedDict, total=False):
    """Properties of the object that the caller of `store_upload` may set. See `Trove.put`."""

    content_type: str | None
    metadata: Mapping[str, str] | None
    tags: Mapping[str, str] | None
    storage_class: str | None
    cache_control: str | None
    content_disposition: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits on an upload.

    Attributes:
        max_size: Maximum bytes of the object; None for no limit.
        min_rate: Minimum bytes per second, counted while the server waits for the client; None for
            no limit.
    """

    max_size: int | None
    min_rate: float | None = MIN_RATE

    def __post_init__(self) -> None:
        if self.max_size is not None:
            check_ints(max_size=self.max_size)
        if self.min_rate is not None:
            check_numbers(min_rate=self.min_rate)
        if self.max_size is not None and self.max_size < 0:
            raise ValueError(f"max_size must be at least 0 bytes, got {self.max_size}")
        if self.min_rate is not None and not self.min_rate > 0:
            raise ValueError(f"min_rate must be more than 0 bytes per second, got {self.min_rate}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerRequest:
    """A request, independent of the framework.

    Attributes:
        method: The method.
        header: Returns a header of the request.
        chunks: The body; raises `ClientDisconnectedError` if it ends early.
        location: The path or URL at which the object is available once it is stored.
        decoded: Whether `chunks` are decoded from the Content-Encoding of the request.
    """

    method: str
    header: Header
    chunks: AsyncGenerator[bytes]
    location: str
    decoded: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadResult:
    """The outcome of an upload.

    Attributes:
        response: The response.
        info: The object, if it was stored.
        form: Names and values of the form's other fields, in order, if the object was stored.
    """

    response: ServerResponse
    info: ObjectInfo | None = None
    form: Sequence[tuple[str, str]] = ()


class _RejectionError(Exception):
    """The upload is rejected, with this status and detail of the response."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail


async def store_body(
    store: Trove,
    bucket: str,
    key: str,
    request: ServerRequest,
    *,
    limits: Limits,
    field: str | None,
    put_fields: PutFields,
) -> UploadResult:
    """Store the body of a request; see `Endpoints.store_upload`.

    Raises:
        TroveError: The store failed.
    """
    # 1. Store the body, or return the reason for a rejection.
    upload = _Upload(request, limits, field, put_fields)
    async with aclosing(request.chunks):
        try:
            info = await upload.put(store, bucket, key)
        except _RejectionError as rejection:
            return upload.reject(rejection.status, rejection.detail)
        except (FormError, DigestError) as error:
            return upload.reject(400, str(error))
        except ClientDisconnectedError:
            _logger.debug("the client disconnected during the upload of %r", f"{bucket}/{key}")
            return upload.reject(400, "The request ended early.")  # the client will not see this
        except (ObjectExistsError, PreconditionFailedError):
            return upload.reject(412, PROBLEMS[PreconditionFailedError].detail)
    # 2. Return the response for a stored object.
    content = json.dumps({"key": info.key, "size": info.size, "etag": info.etag}).encode()
    headers = {
        "Location": quote(request.location, safe=_URL_SAFE),
        "Content-Type": "application/json",
        "Content-Length": str(len(content)),
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
    }
    # RFC 9110, section 9.3.4: an ETag only if the body is stored unchanged.
    if info.etag and not request.decoded:
        headers["ETag"] = entity_tag(info.etag)
    response = ServerResponse(status=201, headers=headers, content=content)
    return UploadResult(response=response, info=info, form=upload.form)


def _length(request: ServerRequest) -> int | None:
    """Return the size of the body in bytes, or None if it is unknown."""
    length = request.header("content-length")
    if length is None or not length.isdecimal() or request.decoded:
        return None
    if request.header("transfer-encoding") is not None:
        return None  # RFC 9112, section 6.3: Transfer-Encoding overrides Content-Length
    return int(length)


class _Upload:
    """One upload request."""

    def __init__(
        self, request: ServerRequest, limits: Limits, field: str | None, put_fields: PutFields
    ) -> None:
        self._request = request
        self._limits = limits
        self._put_fields = put_fields
        self._credit = GRACE  # seconds that the client may still fall behind
        self._size = 0  # bytes of the object that have arrived
        self._length = _length(request)
        self._form: FormFile | None = None
        self._content_type = request.header("content-type")
        self._field = field
        self._is_complete = False  # the body has been read to its end
        self._digests: Digests | None = None

    async def put(self, store: Trove, bucket: str, key: str) -> ObjectInfo:
        """Store the body. If possible, reject the request before reading the body.

        Raises:
            _RejectionError: The request is not accepted.
            FormError: The form is malformed, or does not have exactly one file.
            DigestError: A digest is malformed, or does not match the body.
        """
        header = self._request.header
        # 1. Check the headers.
        if header("content-range") is not None:
            # RFC 9110, section 14.5: a range must not be stored as a complete object.
            raise _RejectionError(400, "An object cannot be uploaded in parts with Content-Range.")
        digests = Digests(header)
        if digests:
            if self._request.decoded:
                raise _RejectionError(400, "The digest of an encoded body cannot be checked.")
            self._digests = digests
        if self._content_type is not None and essence(self._content_type) == "multipart/form-data":
            self._form = FormFile(self._content_type, self._field)
        max_size = self._limits.max_size
        overhead = 0 if self._form is None else FORM_OVERHEAD
        if max_size is not None and self._length is not None and self._length > max_size + overhead:
            raise self._too_large()
        # 2. Evaluate the conditions.
        if_match, if_none_match = await self._preconditions(store, bucket, key)
        # 3. Read the body, or the file of the form, and store it.
        put_fields: PutFields = {**self._put_fields}
        chunks = self._checked_chunks()
        async with aclosing(chunks):
            size = None
            encoding = None
            if self._form is None:
                body, content_type, size = chunks, self._content_type, self._length
                encoding = None if self._request.decoded else header("content-encoding")
            else:
                # Read up to the start of the file now, because the put needs its type.
                first = await self._read_until_file(self._form, chunks)
                body = self._file_chunks(self._form, first, chunks)
                content_type = self._form.content_type
            if put_fields.get("content_type") is None:
                # With a presigned URL, the backend serves the object without the checks of
                # `_headers`. So a malformed type must not be stored.
                put_fields["content_type"] = type_to_store(content_type)
            async with aclosing(body):
                return await store.put(
                    bucket,
                    key,
                    body,
                    size=size,
                    content_encoding=encoding,
                    if_match=if_match,
                    if_none_match=if_none_match,
                    **put_fields,
                )

    @property
    def form(self) -> Sequence[tuple[str, str]]:
        """The fields of the form other than its file."""
        return () if self._form is None else tuple(self._form.fields)

    def reject(self, status: int, detail: str) -> UploadResult:
        """Return a problem response. It closes the connection unless the body was read to its end."""
        return UploadResult(response=problem(status, detail, close=not self._is_complete))

    async def _preconditions(
        self, store: Trove, bucket: str, key: str
    ) -> tuple[str | None, str | None]:
        """Evaluate the conditions; return `if_match` and `if_none_match` for the put."""
        conditions = Conditions.of(self._request.header)
        if not conditions.restrict_writes:
            return None, None
        # Fail before the client sends the body, if possible.
        if conditions.if_none_match == "*" and conditions.if_match is None:
            if await store.exists(bucket, key):
                raise _RejectionError(412, PROBLEMS[PreconditionFailedError].detail)
            info = None
        else:
            try:
                info = await store.head(bucket, key)
            except NotFoundError:
                info = None
        if conditions.evaluate("PUT", info) is ConditionResult.FAILED:
            raise _RejectionError(412, PROBLEMS[PreconditionFailedError].detail)
        # The put then fails if the object is replaced after this evaluation or, with If-None-Match,
        # created.
        if info is not None:
            if not info.etag:
                raise NotSupportedError("a conditional upload requires an object with an etag")
            return info.etag, None
        return None, None if conditions.if_none_match is None else "*"

    # -- the body --------------------------------------------------------------------------------------

    async def _checked_chunks(self) -> AsyncGenerator[bytes]:
        """Yield the body of the request. Enforce the limits and verify the digests."""
        while True:
            try:
                chunk = await self._next()
            except StopAsyncIteration:
                self._is_complete = True
                if self._digests is not None:
                    self._digests.check()
                return
            if self._digests is not None:
                if len(chunk) > _MAX_INLINE_HASH:
                    await in_thread(self._digests.update, chunk)
                else:
                    self._digests.update(chunk)
            # In a form, only the bytes of the file count (`_parse`).
            if self._form is None:
                self._count(len(chunk))
            if chunk:
                yield chunk

    async def _next(self) -> bytes:
        """Return the next chunk of the body. Reject a client that is too slow."""
        rate = self._limits.min_rate
        if rate is None:
            return await anext(self._request.chunks)
        clock = asyncio.get_running_loop().time
        started = clock()
        deadline = asyncio.timeout(self._credit)
        try:
            async with deadline:
                chunk = await anext(self._request.chunks)
        except TimeoutError:
            if not deadline.expired():
                raise
            raise _RejectionError(408, "The request body arrived too slowly.") from None
        # Only the time spent waiting for the client counts, not the time that the store takes.
        self._credit = min(self._credit - (clock() - started) + len(chunk) / rate, GRACE)
        return chunk

    def _count(self, size: int) -> None:
        self._size += size
        if self._limits.max_size is not None and self._size > self._limits.max_size:
            raise self._too_large()

    def _too_large(self) -> _RejectionError:
        return _RejectionError(413, f"An object may have at most {self._limits.max_size} bytes.")

    # -- forms -----------------------------------------------------------------------------------------

    async def _read_until_file(self, form: FormFile, chunks: AsyncGenerator[bytes]) -> list[bytes]:
        """Read the form up to the file; return the bytes of the file that have arrived."""
        async for chunk in chunks:
            pieces = self._parse(form, chunk)
            if form.has_file:
                return pieces
        raise FormError("The form has no file.")

    async def _file_chunks(
        self, form: FormFile, pieces: list[bytes], chunks: AsyncGenerator[bytes]
    ) -> AsyncGenerator[bytes]:
        """Yield the file, then read the form to its end.

        The put must fail if the rest of the form is missing or malformed, or has a second file.
        """
        for piece in pieces:
            yield piece
        async for chunk in chunks:
            for piece in self._parse(form, chunk):
                yield piece
        if not form.complete:
            raise FormError("The form ends early.")

    def _parse(self, form: FormFile, chunk: bytes) -> list[bytes]:
        """Parse a chunk of the form; return the bytes of the file in it. Enforce the limits."""
        pieces = form.feed(chunk)
        self._count(sum(map(len, pieces)))
        if form.other_bytes > FORM_OVERHEAD or form.fields_memory > FORM_FIELDS:
            raise _RejectionError(413, "The other fields of the form are too large.")
        return pieces
