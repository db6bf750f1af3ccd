"""How drivers are shown: where they store, and no secret."""

from __future__ import annotations

import pytest

from trove_async.driver import AsyncDriver
from trove_async.drivers import GCSDriver, LocalDriver, MemoryDriver, S3Driver

ELSEWHERE = "http://localhost:9000"


@pytest.mark.parametrize(
    ("driver", "shown"),
    [
        (MemoryDriver(), "<MemoryDriver of 0 buckets>"),
        (LocalDriver("/srv/objects"), "LocalDriver('/srv/objects')"),
        (S3Driver(region="eu-west-1"), "<S3Driver at Amazon S3>"),
        (
            S3Driver(endpoint_url=ELSEWHERE, access_key_id="id", secret_access_key="secret"),
            f"<S3Driver at {ELSEWHERE}>",
        ),
        (GCSDriver(anonymous=True), "<GCSDriver at https://storage.googleapis.com>"),
        (GCSDriver(endpoint_url=ELSEWHERE), f"<GCSDriver at {ELSEWHERE}>"),
    ],
    ids=str,
)
def test_driver_shows_where_it_stores(driver: AsyncDriver, shown: str) -> None:
    assert repr(driver) == shown
