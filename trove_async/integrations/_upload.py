"""Uploads: store the body of a request as an object, independent of the framework.

The body is read only as fast as the store takes it, which slows the client down to the backend's
pace. If the body ends early (the client disconnects, a limit is exceeded, the form is malformed),
the put fails and leaves nothing behind.
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
from trove_async.errors import ObjectExistsError

from ._conditions import Conditions, Header, Verdict, entity_tag
from ._digests import DigestError, Digests
from ._headers import accepted_type, essence
from ._multipart_form import FormError, FormFile
from ._problem_details import PROBLEMS, problem
from ._response import ServerResponse

_logger = logging.getLogger("trove_async.integrations")

FORM_OVERHEAD = 1024 * 1024
"""Maximum bytes of a form in addition to its file."""

FORM_FIELDS = 64 * 1024
"""Maximum bytes of the other fields of a form, which are held until the response."""

MIN_RATE = 500.0
"""Minimum rate of a client, in bytes per second: the default of Apache HTTP Server (mod_reqtimeout,
``body=20,MinRate=500``). Real networks are faster; clients that hold connections open are not."""

GRACE = 20.0
"""Seconds that a client may fall behind `Limits.min_rate`, from the same default, because any
connection stalls now and then."""

_HASHED_AT_ONCE = 256 * 1024
"""Maximum bytes hashed on the event loop. Below that, a thread costs more than the hashing."""

_URL = "%/:?#[]@!$&'()*+,;=~"  # RFC 3986, section 2: URL characters besides letters and digits


class ClientDisconnectedError(Exception):
    """The client disconnected before the end of its request."""


class PutFields(TypedDict, total=False):
    """Properties of the object that a service may set, as for `Trove.put`."""

    content_type: str | None
    metadata: Mapping[str, str] | None
    tags: Mapping[str, str] | None
    storage_class: str | None
    cache_control: str | None
    content_disposition: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits of an upload.

    Attributes:
        max_size: Maximum bytes of the object; None for no limit.
        min_rate: Minimum bytes per second, counted while the server waits for the client; None for
            no limit.
    """

    max_size: int | None
    min_rate: float | None = MIN_RATE

    def __post_init__(self) -> None:
        if self.max_size is not None and self.max_size < 0:
            raise ValueError(f"max_size is 0 bytes or more, not {self.max_size}")
        if self.min_rate is not None and not self.min_rate > 0:
            raise ValueError(f"min_rate is more than 0 bytes a second, not {self.min_rate}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerRequest:
    """A request of any framework.

    Attributes:
        method: The method.
        header: A function that returns a header.
        chunks: The body; raises `ClientDisconnectedError` if it ends early.
        location: The path at which the object is available afterwards.
        decoded: Whether the framework has decoded a Content-Encoding.
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
    """The upload is rejected; holds the status and the detail of the response."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail


async def store_body(
    store: Trove,
    bucket: str,
    key: str,
    sent: ServerRequest,
    *,
    limits: Limits,
    field: str | None,
    fields: PutFields,
) -> UploadResult:
    """Store the body of a request; see `Endpoints.store_upload`.

    Raises:
        TroveError: The store failed.
    """
    upload = _Upload(sent, limits, field, fields)
    async with aclosing(sent.chunks):
        try:
            info = await upload.put(store, bucket, key)
        except _RejectionError as refused:
            return upload.refusal(refused.status, refused.detail)
        except (FormError, DigestError) as error:
            return upload.refusal(400, str(error))
        except ClientDisconnectedError:
            _logger.debug("the client left in the middle of an upload of %r", f"{bucket}/{key}")
            return upload.refusal(400, "The request ended early.")  # the client will not see it
        except (ObjectExistsError, PreconditionFailedError):
            return upload.refusal(412, PROBLEMS[PreconditionFailedError].detail)
    content = json.dumps({"key": info.key, "size": info.size, "etag": info.etag}).encode()
    headers = {
        "Location": quote(sent.location, safe=_URL),
        "Content-Type": "application/json",
        "Content-Length": str(len(content)),
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
    }
    if (
        info.etag and not sent.decoded
    ):  # RFC 9110, section 9.3.4: only if the body is stored unchanged
        headers["ETag"] = entity_tag(info.etag)
    response = ServerResponse(status=201, headers=headers, content=content)
    return UploadResult(response=response, info=info, form=upload.form)


def _length(sent: ServerRequest) -> int | None:
    """Return the size of the body in bytes, or None if it is unknown."""
    length = sent.header("content-length")
    if length is None or not length.isdecimal() or sent.decoded:
        return None
    if sent.header("transfer-encoding") is not None:
        return None  # RFC 9112, section 6.3: Transfer-Encoding overrides Content-Length
    return int(length)


class _Upload:
    """One upload request."""

    def __init__(
        self, sent: ServerRequest, limits: Limits, field: str | None, fields: PutFields
    ) -> None:
        self._sent = sent
        self._limits = limits
        self._fields = fields
        self._credit = GRACE
        self._size = 0
        kind = sent.header("content-type")
        self._length = _length(sent)
        self._form: FormFile | None = None
        self._kind = kind
        self._field = field
        self._ended = False
        self._digests: Digests | None = None

    async def put(self, store: Trove, bucket: str, key: str) -> ObjectInfo:
        """Store the body. Reject the request as early as possible, before reading the body.

        Raises:
            _RejectionError: The request is not accepted.
            FormError: The form is malformed, or does not have exactly one file.
            DigestError: A digest is malformed, or does not match the body.
        """
        header = self._sent.header
        # 1. Check the headers.
        if header("content-range") is not None:
            # RFC 9110, section 14.5: a part must not be stored as the whole object.
            raise _RejectionError(400, "A part of an object cannot be uploaded.")
        digests = Digests(header)
        if digests:
            if self._sent.decoded:
                raise _RejectionError(400, "The digest of an encoded body cannot be checked.")
            self._digests = digests
        if self._kind is not None and essence(self._kind) == "multipart/form-data":
            self._form = FormFile(self._kind, self._field)
        most = self._limits.max_size
        beside = 0 if self._form is None else FORM_OVERHEAD
        if most is not None and self._length is not None and self._length > most + beside:
            raise self._too_large()
        # 2. Evaluate the conditions.
        pins = await self._pins(store, bucket, key)
        # 3. Read the body, or the file of the form, and store it.
        fields: PutFields = {**self._fields}
        chunks = self._received()
        async with aclosing(chunks):
            size = None
            encoding = None
            if self._form is None:
                body, kind, size = chunks, self._kind, self._length
                encoding = None if self._sent.decoded else header("content-encoding")
            else:
                first = await self._first_of(self._form, chunks)
                body, kind = self._file(self._form, first, chunks), self._form.content_type
            if fields.get("content_type") is None:
                # A backend may serve the object itself (a presigned URL), without our checks.
                fields["content_type"] = accepted_type(kind)
            async with aclosing(body):
                return await store.put(
                    bucket,
                    key,
                    body,
                    size=size,
                    content_encoding=encoding,
                    if_match=pins[0],
                    if_none_match=pins[1],
                    **fields,
                )

    @property
    def form(self) -> Sequence[tuple[str, str]]:
        """The fields of the form besides its file."""
        return () if self._form is None else tuple(self._form.fields)

    def refusal(self, status: int, detail: str) -> UploadResult:
        """Return a problem response. It closes the connection unless the whole body was read."""
        return UploadResult(response=problem(status, detail, close=not self._ended))

    async def _pins(self, store: Trove, bucket: str, key: str) -> tuple[str | None, str | None]:
        """Evaluate the request's conditions; return `if_match` and `if_none_match` for the put."""
        conditions = Conditions.of(self._sent.header)
        if not conditions.on_writing:
            return None, None
        if conditions.if_none_match == "*" and conditions.if_match is None:
            there = await store.exists(bucket, key)  # fail before the client sends the body
            info = None
            if there:
                raise _RejectionError(412, PROBLEMS[PreconditionFailedError].detail)
        else:
            try:
                info = await store.head(bucket, key)
            except NotFoundError:
                info = None
        if conditions.verdict("PUT", info) is Verdict.FAILED:
            raise _RejectionError(412, PROBLEMS[PreconditionFailedError].detail)
        if info is not None:
            if not info.etag:
                raise NotSupportedError("the object has no etag to make the upload conditional on")
            return info.etag, None
        return None, None if conditions.if_none_match is None else "*"

    # -- the body --------------------------------------------------------------------------------------

    async def _received(self) -> AsyncGenerator[bytes]:
        """Yield the body of the request, and enforce the limits."""
        while True:
            try:
                chunk = await self._next()
            except StopAsyncIteration:
                self._ended = True
                if self._digests is not None:
                    self._digests.check()
                return
            if self._digests is not None:
                if len(chunk) > _HASHED_AT_ONCE:
                    await in_thread(self._digests.update, chunk)
                else:
                    self._digests.update(chunk)
            if self._form is None:
                self._count(len(chunk))
            if chunk:
                yield chunk

    async def _next(self) -> bytes:
        rate = self._limits.min_rate
        if rate is None:
            return await anext(self._sent.chunks)
        clock = asyncio.get_running_loop().time
        started = clock()
        patience = asyncio.timeout(self._credit)
        try:
            async with patience:
                chunk = await anext(self._sent.chunks)
        except TimeoutError:
            if not patience.expired():
                raise
            raise _RejectionError(408, "The request came too slowly.") from None
        # Only the time spent waiting for the client counts, not the time that the store takes.
        self._credit = min(self._credit - (clock() - started) + len(chunk) / rate, GRACE)
        return chunk

    def _count(self, size: int) -> None:
        self._size += size
        if self._limits.max_size is not None and self._size > self._limits.max_size:
            raise self._too_large()

    def _too_large(self) -> _RejectionError:
        return _RejectionError(413, f"An object may have {self._limits.max_size} bytes.")

    # -- forms -----------------------------------------------------------------------------------------

    async def _first_of(self, form: FormFile, chunks: AsyncGenerator[bytes]) -> list[bytes]:
        """Read to the start of the file; return the bytes of it that have arrived."""
        async for chunk in chunks:
            pieces = self._fed(form, chunk)
            if form.found:
                return pieces
        raise FormError("The form has no file.")

    async def _file(
        self, form: FormFile, pieces: list[bytes], chunks: AsyncGenerator[bytes]
    ) -> AsyncGenerator[bytes]:
        """Yield the file.

        It reads on to the end of the form, which may have a second file or be incomplete.
        """
        for piece in pieces:
            yield piece
        async for chunk in chunks:
            for piece in self._fed(form, chunk):
                yield piece
        if not form.complete:
            raise FormError("The form ends early.")

    def _fed(self, form: FormFile, chunk: bytes) -> list[bytes]:
        pieces = form.feed(chunk)
        self._count(sum(map(len, pieces)))
        if form.other > FORM_OVERHEAD or form.held > FORM_FIELDS:
            raise _RejectionError(413, "The form has too much beside its file.")
        return pieces
