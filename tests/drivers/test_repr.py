"""The repr of a driver shows where it stores objects, and no secrets."""

from __future__ import annotations

import pytest

from trove_async.driver import AsyncDriver
from trove_async.drivers import GCSDriver, LocalDriver, MemoryDriver, S3Driver

CUSTOM_ENDPOINT = "http://localhost:9000"


@pytest.mark.parametrize(
    ("driver", "expected"),
    [
        (MemoryDriver(), "<MemoryDriver of 0 buckets>"),
        (LocalDriver("/srv/objects"), "LocalDriver('/srv/objects')"),
        (S3Driver(region="eu-west-1"), "<S3Driver at Amazon S3>"),
        (
            S3Driver(endpoint_url=CUSTOM_ENDPOINT, access_key_id="id", secret_access_key="secret"),
            f"<S3Driver at {CUSTOM_ENDPOINT}>",
        ),
        (GCSDriver(anonymous=True), "<GCSDriver at https://storage.googleapis.com>"),
        (GCSDriver(endpoint_url=CUSTOM_ENDPOINT), f"<GCSDriver at {CUSTOM_ENDPOINT}>"),
    ],
    ids=str,
)
def test_repr_shows_where_the_driver_stores_objects(driver: AsyncDriver, expected: str) -> None:
    assert repr(driver) == expected
