"""Many deletions in one request, where the service takes it: JSON API, "Batch requests".

Each is an HTTP request in a part of ``multipart/mixed``; so are their answers, which come in any
order and are told apart by their Content-ID.
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
from ._errors import refused

if TYPE_CHECKING:
    from ._client import Client
Delete = Callable[[str, str, DeleteOptions], Awaitable[None]]

MOST: Final = 100
"""Calls of one batch. JSON API, "Batch requests"."""

_SINGLES: Final = 8
"""Deletions at a time where the service has no batches."""

PATH: Final = "/batch/storage/v1"

ANSWER_BYTES: Final = 4 * MiB
"""More than the answers to 100 deletes have."""

_BOUNDARY = re.compile(r"""boundary=(?:"([^"]{1,70})"|([^\s;"]{1,70}))""")  # RFC 2046, 5.1.1
_ID = re.compile(rb"(?im)^content-id:[^\r\n]{0,100}response-[^\r\n]{0,100}\+([0-9]{1,9})>")
_STATUS = re.compile(rb"(?m)^HTTP/[0-9.]+ ([0-9]{3})\b")


class Deleter:
    """Deletes many objects.

    Args:
        client: Sends requests.
        known: Tells which bucket is missing.
        delete: Deletes one object.
    """

    def __init__(self, client: Client, known: BucketExistenceCache, delete: Delete) -> None:
        self._client = client
        self._known = known
        self._delete = delete
        self._batches = True  # until the service turns out to have no such request

    async def delete(self, bucket: str, keys: Sequence[str]) -> Sequence[DeleteResult]:
        """Delete up to `MOST` keys. See `BulkDeleting.delete_many`."""
        if self._batches and not any(map(is_dots, keys)):
            results = await self._in_one_request(bucket, keys)
            if results is not None:
                return results
            self._batches = False
        return await self._one_by_one(bucket, keys)

    async def _in_one_request(
        self, bucket: str, keys: Sequence[str]
    ) -> Sequence[DeleteResult] | None:
        """Delete the keys by a batch; return None if the service, an emulator, has none."""
        content_type, body = batch(bucket, keys)
        try:
            answer = await self._client.send(
                "POST", PATH, {"content-type": content_type}, [memoryview(body)]
            )
        except (NotSupportedError, NotFoundError):
            return None
        try:
            told = await answer.read_all(ANSWER_BYTES)
        finally:
            answer.close()
        found = results(answer.headers.get("content-type", ""), told, keys)
        missing = [result for result in found if isinstance(result.error, NotFoundError)]
        if missing and not await self._known.exists(bucket):
            raise BucketNotFoundError("no such bucket: create_bucket makes it")
        for result in missing:
            found[found.index(result)] = DeleteResult(key=result.key)
        return found

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


def batch(bucket: str, keys: Sequence[str]) -> tuple[str, bytes]:
    """Return the request's Content-Type, and its body."""
    boundary = secrets.token_hex(16)
    parts = [
        f"--{boundary}\r\nContent-Type: application/http\r\nContent-ID: <delete+{number}>\r\n\r\n"
        f"DELETE {object_path(bucket, key)} HTTP/1.1\r\n\r\n\r\n"
        for number, key in enumerate(keys)
    ]
    body = "".join([*parts, f"--{boundary}--\r\n"])
    return f"multipart/mixed; boundary={boundary}", body.encode()


def results(content_type: str, body: bytes, keys: Sequence[str]) -> list[DeleteResult]:
    """Return what became of each key; a NotFoundError may be about the bucket.

    Args:
        content_type: The answer's.
        body: The answer.
        keys: As they were asked for.

    Raises:
        UnavailableError: The answer makes no sense.
    """
    found = _BOUNDARY.search(content_type)
    if found is None:
        raise UnavailableError("the service's answer to a batch has no parts")
    errors: dict[int, TroveError | None] = {}
    for part in body.split(b"--" + (found[1] or found[2]).encode()):
        number, status = _ID.search(part), _STATUS.search(part)
        if number is not None and status is not None:
            errors[int(number[1])] = _error(int(status[1]), part)
    unheard = UnavailableError("the service's answer to a batch does not tell of this key")
    return [DeleteResult(key=key, error=errors.get(n, unheard)) for n, key in enumerate(keys)]


def _error(status: int, part: bytes) -> TroveError | None:
    if status < HTTPStatus.MULTIPLE_CHOICES:
        return None
    document = part.rstrip().rpartition(b"\r\n\r\n")[2]
    return refused(status, {}, document).error()
