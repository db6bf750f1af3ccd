"""Deletes many objects in one batch request (JSON API, "Batch requests").

Each part of the ``multipart/mixed`` body is an HTTP request. The response has one part for each
request, in any order. The Content-ID of a part identifies its request.
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

from ._encoding import is_dot_segment, object_path
from ._errors import parse_error

if TYPE_CHECKING:
    from ._client import Client

Delete = Callable[[str, str, DeleteOptions], Awaitable[None]]

MAX_KEYS: Final = 100
"""The maximum number of requests in one batch. JSON API, "Batch requests"."""

_CONCURRENT_DELETES: Final = 8
"""The maximum number of concurrent requests if keys are deleted individually."""

_BATCH_PATH: Final = "/batch/storage/v1"

_MAX_RESPONSE: Final = 4 * MiB
"""More than the responses to 100 deletes need."""

_BOUNDARY = re.compile(r"""boundary=(?:"([^"]{1,70})"|([^\s;"]{1,70}))""")  # RFC 2046, 5.1.1
_CONTENT_ID = re.compile(rb"(?im)^content-id:[^\r\n]{0,100}response-[^\r\n]{0,100}\+([0-9]{1,9})>")
_STATUS = re.compile(rb"(?m)^HTTP/[0-9.]+ ([0-9]{3})\b")


class Deleter:
    """Deletes many objects, in a batch or individually.

    Objects are deleted individually if the service does not support batches, or if a key is a dot
    segment: `delete` first checks that the server does not resolve such a key.

    Args:
        client: Sends requests.
        bucket_cache: Checks whether buckets exist.
        delete: Deletes one object.
    """

    def __init__(self, client: Client, bucket_cache: BucketExistenceCache, delete: Delete) -> None:
        self._client = client
        self._bucket_cache = bucket_cache
        self._delete_object = delete
        self._supports_batches = True  # until the service rejects a batch

    async def delete(self, bucket: str, keys: Sequence[str]) -> Sequence[DeleteResult]:
        """Delete up to `MAX_KEYS` keys. See `BulkDeleting.delete_many`."""
        if self._supports_batches and not any(map(is_dot_segment, keys)):
            results = await self._delete_in_batch(bucket, keys)
            if results is not None:
                return results
            self._supports_batches = False
        return await self._delete_individually(bucket, keys)

    async def _delete_in_batch(
        self, bucket: str, keys: Sequence[str]
    ) -> Sequence[DeleteResult] | None:
        """Delete the keys in one batch. Return None if the service does not support batches."""
        # 1. Send all deletes in one request.
        content_type, body = encode_batch(bucket, keys)
        try:
            response = await self._client.send(
                "POST", _BATCH_PATH, {"content-type": content_type}, [memoryview(body)]
            )
        except (NotSupportedError, NotFoundError):  # an emulator
            return None
        try:
            response_body = await response.read_all(_MAX_RESPONSE)
        finally:
            response.close()
        # 2. Match the responses to the keys.
        results = parse_results(response.headers.get("content-type", ""), response_body, keys)
        # 3. A 404 does not show whether the object or the bucket is missing. Deleting a missing object
        # succeeds.
        not_found = [
            n for n, result in enumerate(results) if isinstance(result.error, NotFoundError)
        ]
        if not_found and not await self._bucket_cache.exists(bucket):
            raise BucketNotFoundError("no such bucket: create_bucket creates it")
        for n in not_found:
            results[n] = DeleteResult(key=results[n].key)
        return results

    async def _delete_individually(
        self, bucket: str, keys: Sequence[str]
    ) -> Sequence[DeleteResult]:
        errors: dict[str, TroveError | None] = {}

        async def delete(key: str) -> None:
            errors[key] = None
            try:
                await self._delete_object(bucket, key, DeleteOptions())
            except BucketNotFoundError:
                raise  # the same for every key
            except TroveError as error:
                errors[key] = error

        await for_each(dict.fromkeys(keys), delete, limit=_CONCURRENT_DELETES)
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
    """Return the result for each key, in the order of `keys`.

    A NotFoundError in a result may mean that the bucket does not exist.

    Args:
        content_type: The Content-Type of the response.
        body: The body of the response.
        keys: The keys in the order of the request.

    Raises:
        UnavailableError: The response is not multipart.
    """
    match = _BOUNDARY.search(content_type)
    if match is None:
        raise UnavailableError(
            "the service's response is malformed: a batch without a multipart boundary"
        )
    errors: dict[int, TroveError | None] = {}
    for part in body.split(b"--" + (match[1] or match[2]).encode()):
        number, status = _CONTENT_ID.search(part), _STATUS.search(part)
        if number is not None and status is not None:
            errors[int(number[1])] = _parse_part_error(int(status[1]), part)
    missing = UnavailableError("the response to the batch has no part for this key")
    return [DeleteResult(key=key, error=errors.get(n, missing)) for n, key in enumerate(keys)]


def _parse_part_error(status: int, part: bytes) -> TroveError | None:
    if status < HTTPStatus.MULTIPLE_CHOICES:
        return None
    document = part.rstrip().rpartition(b"\r\n\r\n")[2]
    return parse_error(status, {}, document).error()
