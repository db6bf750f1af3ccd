"""Helpers shared by the S3 and GCS drivers."""

from __future__ import annotations

import pytest

from trove_async._http.services import BucketExistenceCache, map_condition_errors
from trove_async.errors import (
    BucketNotFoundError,
    ObjectChangedError,
    ObjectExistsError,
    ObjectNotFoundError,
    PermissionDeniedError,
    PreconditionFailedError,
    UnavailableError,
)
from trove_async.options import DeleteOptions, PutOptions


class Service:
    def __init__(self) -> None:
        self.request_count = 0
        self.error: Exception | None = None

    async def head_bucket(self, _bucket: str) -> None:
        self.request_count += 1
        if self.error is not None:
            raise self.error


async def test_existing_bucket_is_cached_until_forgotten() -> None:
    service = Service()
    cache = BucketExistenceCache(service.head_bucket)
    assert [await cache.exists("bucket") for _ in range(3)] == [True] * 3
    assert service.request_count == 1
    cache.forget("bucket")
    service.error = BucketNotFoundError("no")
    assert [await cache.exists("bucket") for _ in range(2)] == [False] * 2
    assert service.request_count == 3


async def test_bucket_forgotten_during_check_is_not_cached() -> None:
    requests = []

    async def head_bucket(bucket: str) -> None:
        requests.append(bucket)
        cache.forget(bucket)

    cache = BucketExistenceCache(head_bucket)
    assert [await cache.exists("bucket") for _ in range(2)] == [True] * 2
    assert requests == ["bucket"] * 2


async def test_bucket_without_read_permission_is_assumed_to_exist() -> None:
    service = Service()
    service.error = PermissionDeniedError("no")
    assert await BucketExistenceCache(service.head_bucket).exists("bucket")


async def test_unavailable_service_raises_and_is_not_cached() -> None:
    service = Service()
    cache = BucketExistenceCache(service.head_bucket)
    service.error = UnavailableError("no")
    with pytest.raises(UnavailableError):
        await cache.exists("bucket")
    service.error = None
    assert await cache.exists("bucket")


@pytest.mark.parametrize(
    ("options", "response_error", "expected"),
    [
        (PutOptions(if_none_match="*"), PreconditionFailedError, ObjectExistsError),
        (PutOptions(if_none_match="*"), ObjectChangedError, ObjectChangedError),
        (PutOptions(if_match="1"), PreconditionFailedError, PreconditionFailedError),
        (PutOptions(if_match="1"), ObjectNotFoundError, PreconditionFailedError),
        (DeleteOptions(if_match="1"), ObjectNotFoundError, PreconditionFailedError),
        (DeleteOptions(), ObjectNotFoundError, ObjectNotFoundError),
        (PutOptions(if_match="1"), BucketNotFoundError, BucketNotFoundError),
    ],
)
def test_condition_error_is_mapped(
    options: PutOptions | DeleteOptions, response_error: type[Exception], expected: type[Exception]
) -> None:
    with pytest.raises(expected) as caught, map_condition_errors(options):
        raise response_error("no")
    assert type(caught.value) is expected
