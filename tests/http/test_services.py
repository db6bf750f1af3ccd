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
        self.asked = 0
        self.error: Exception | None = None

    async def ask(self, _bucket: str) -> None:
        self.asked += 1
        if self.error is not None:
            raise self.error


async def test_existing_bucket_is_cached_until_forgotten() -> None:
    service = Service()
    known = BucketExistenceCache(service.ask)
    assert [await known.exists("bucket") for _ in range(3)] == [True] * 3
    assert service.asked == 1
    known.forget("bucket")
    service.error = BucketNotFoundError("no")
    assert [await known.exists("bucket") for _ in range(2)] == [False] * 2
    assert service.asked == 3


async def test_bucket_forgotten_during_check_is_not_cached() -> None:
    asked = []

    async def ask(bucket: str) -> None:
        asked.append(bucket)
        known.forget(bucket)

    known = BucketExistenceCache(ask)
    assert [await known.exists("bucket") for _ in range(2)] == [True] * 2
    assert asked == ["bucket"] * 2


async def test_bucket_without_read_permission_is_assumed_to_exist() -> None:
    service = Service()
    service.error = PermissionDeniedError("no")
    assert await BucketExistenceCache(service.ask).exists("bucket")


async def test_unavailable_service_raises_and_is_not_cached() -> None:
    service = Service()
    known = BucketExistenceCache(service.ask)
    service.error = UnavailableError("no")
    with pytest.raises(UnavailableError):
        await known.exists("bucket")
    service.error = None
    assert await known.exists("bucket")


@pytest.mark.parametrize(
    ("options", "answered", "raised"),
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
def test_failed_condition_maps_to_requested_error(
    options: PutOptions | DeleteOptions, answered: type[Exception], raised: type[Exception]
) -> None:
    with pytest.raises(raised) as caught, map_condition_errors(options):
        raise answered("no")
    assert type(caught.value) is raised
