"""Deletes many keys in one batch request. JSON API, "Batch requests".

Each part of the ``multipart/mixed`` body is an HTTP request. The response has one part for each, in
any order; the Content-ID matches them.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Awaitable, Callable, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from trove_async._concurrency import for_each
from trove_async._http.services import BucketExistenceCache
from trove_async.errors import (
    BucketNotFoundError,
    NotFoundError,
    NotSupportedError,
    TroveError,
    UnavailableError,
)
from trove_async.models import DeleteResult, MiB
from trove_async.options import DeleteOptions

from ._encoding import is_dots, object_path
from ._errors import parse_error

if TYPE_CHECKING:
    from ._client import Client
Delete = Callable[[str, str, DeleteOptions], Awaitable[None]]

MAX_KEYS: Final = 100
"""The limit of calls in one batch. JSON API, "Batch requests"."""

_SINGLES: Final = 8
"""Concurrent deletes where the service has no batches."""

PATH: Final = "/batch/storage/v1"

_MAX_RESPONSE: Final = 4 * MiB
"""More than the responses to 100 deletes need."""

_BOUNDARY = re.compile(r"""boundary=(?:"([^"]{1,70})"|([^\s;"]{1,70}))""")  # RFC 2046, 5.1.1
_ID = re.compile(rb"(?im)^content-id:[^\r\n]{0,100}response-[^\r\n]{0,100}\+([0-9]{1,9})>")
_STATUS = re.compile(rb"(?m)^HTTP/[0-9.]+ ([0-9]{3})\b")


class Deleter:
    """Deletes many objects.

    Args:
        client: Sends requests.
        known: Checks whether a bucket exists.
        delete: Deletes one object.
    """

    def __init__(self, client: Client, known: BucketExistenceCache, delete: Delete) -> None:
        self._client = client
        self._known = known
        self._delete = delete
        self._batches = True  # until the service rejects one

    async def delete(self, bucket: str, keys: Sequence[str]) -> Sequence[DeleteResult]:
        """Delete up to `MAX_KEYS` keys. See `BulkDeleting.delete_many`."""
        if self._batches and not any(map(is_dots, keys)):
            results = await self._in_one_request(bucket, keys)
            if results is not None:
                return results
            self._batches = False
        return await self._one_by_one(bucket, keys)

    async def _in_one_request(
        self, bucket: str, keys: Sequence[str]
    ) -> Sequence[DeleteResult] | None:
        """Delete the keys in one batch; return None if the service, an emulator, has no batches."""
        content_type, body = encode_batch(bucket, keys)
        try:
            response = await self._client.send(
                "POST", PATH, {"content-type": content_type}, [memoryview(body)]
            )
        except (NotSupportedError, NotFoundError):
            return None
        try:
            body_read = await response.read_all(_MAX_RESPONSE)
        finally:
            response.close()
        results = parse_results(response.headers.get("content-type", ""), body_read, keys)
        missing = [result for result in results if isinstance(result.error, NotFoundError)]
        if missing and not await self._known.exists(bucket):
            raise BucketNotFoundError("no such bucket: create_bucket creates it")
        for result in missing:
            results[results.index(result)] = DeleteResult(key=result.key)
        return results

    async def _one_by_one(self, bucket: str, keys: Sequence[str]) -> Sequence[DeleteResult]:
        errors: dict[str, TroveError | None] = {}

        async def delete(key: str) -> None:
            errors[key] = None
            try:
                await self._delete(bucket, key, DeleteOptions())
            except BucketNotFoundError:
                raise
            except TroveError as error:
                errors[key] = error

        await for_each(dict.fromkeys(keys), delete, limit=_SINGLES)
        return [DeleteResult(key=key, error=errors[key]) for key in keys]


def encode_batch(bucket: str, keys: Sequence[str]) -> tuple[str, bytes]:
    """Return the Content-Type and the body of a batch request."""
    boundary = secrets.token_hex(16)
    parts = [
        f"--{boundary}\r\nContent-Type: application/http\r\nContent-ID: <delete+{number}>\r\n\r\n"
        f"DELETE {object_path(bucket, key)} HTTP/1.1\r\n\r\n\r\n"
        for number, key in enumerate(keys)
    ]
    body = "".join([*parts, f"--{boundary}--\r\n"])
    return f"multipart/mixed; boundary={boundary}", body.encode()


def parse_results(content_type: str, body: bytes, keys: Sequence[str]) -> list[DeleteResult]:
    """Return the result for each key. A NotFoundError may concern the bucket.

    Args:
        content_type: The Content-Type of the response.
        body: The body of the response.
        keys: The keys in the order of the request.

    Raises:
        UnavailableError: The response is not multipart.
    """
    match = _BOUNDARY.search(content_type)
    if match is None:
        raise UnavailableError("the service's response to a batch has no parts")
    errors: dict[int, TroveError | None] = {}
    for part in body.split(b"--" + (match[1] or match[2]).encode()):
        number, status = _ID.search(part), _STATUS.search(part)
        if number is not None and status is not None:
            errors[int(number[1])] = _error(int(status[1]), part)
    missing = UnavailableError("the service's response to a batch lacks this key")
    return [DeleteResult(key=key, error=errors.get(n, missing)) for n, key in enumerate(keys)]


def _error(status: int, part: bytes) -> TroveError | None:
    if status < HTTPStatus.MULTIPLE_CHOICES:
        return None
    document = part.rstrip().rpartition(b"\r\n\r\n")[2]
    return parse_error(status, {}, document).error()
