"""The repr of a driver shows where it stores objects, and no secrets."""

from __future__ import annotations

import pytest

from trove_async.driver import AsyncDriver
from trove_async.drivers import GCSDriver, LocalDriver, MemoryDriver, S3Driver
from trove_async.layers import Fallback, Hedged, Mapped, Mirrored, ReadOnly

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
        (
            Mirrored(LocalDriver("/a"), S3Driver(access_key_id="id", secret_access_key="secret")),
            "Mirrored(LocalDriver('/a'), <S3Driver at Amazon S3>, acknowledge='all')",
        ),
        (Fallback("file:///a", "file:///b"), "Fallback(LocalDriver('/a'), LocalDriver('/b'))"),
        (
            Fallback("file:///a", ReadOnly("file:///b"), on_missing=True),
            "Fallback(LocalDriver('/a'), ReadOnly(LocalDriver('/b')), on_missing=True)",
        ),
        (Hedged(LocalDriver("/a")), "Hedged(LocalDriver('/a'))"),
        (Mapped(LocalDriver("/a"), into="all"), "Mapped(LocalDriver('/a'))"),
    ],
    ids=str,
)
def test_repr_shows_where_the_driver_stores_objects(driver: AsyncDriver, expected: str) -> None:
    assert repr(driver) == expected
