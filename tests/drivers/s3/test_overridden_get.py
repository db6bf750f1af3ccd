"""Drivers that override `get`: what it hides must not be read by `fetch`."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tests.drivers.s3.test_connection_limit import get_small_object
from tests.http.scripted_server import serving
from trove_async import Trove
from trove_async.driver import fetch_of
from trove_async.drivers.s3 import S3Driver
from trove_async.layers import Mapped

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trove_async.options import GetOptions


class UpperCaseReader:
    def __init__(self, reader: Any) -> None:
        self._reader = reader
        self.info, self.range = reader.info, reader.range

    async def read(self, size: int) -> bytes:
        data: bytes = await self._reader.read(size)
        return data.upper()


class Subclass(S3Driver):
    @asynccontextmanager
    async def get(self, bucket: str, key: str, options: GetOptions) -> AsyncIterator[Any]:
        async with super().get(bucket, key, options) as reader:
            yield UpperCaseReader(reader)


class Proxy:
    def __init__(self, **settings: Any) -> None:
        self._driver = S3Driver(**settings)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._driver, name)

    @asynccontextmanager
    async def get(self, bucket: str, key: str, options: GetOptions) -> AsyncIterator[Any]:
        async with self._driver.get(bucket, key, options) as reader:
            yield UpperCaseReader(reader)


class Renamed(S3Driver):
    """A subclass that keeps both methods."""


@pytest.mark.parametrize("layered", [False, True])
@pytest.mark.parametrize("kind", [Subclass, Proxy])
async def test_overridden_get_is_not_bypassed(kind: Any, *, layered: bool) -> None:
    async with serving(get_small_object) as server:
        driver = kind(
            region="us-east-1",
            endpoint_url=server.origin.url,
            access_key_id="id",
            secret_access_key="secret",
            dialect="s3",
        )
        assert fetch_of(driver) is None
        async with Trove(Mapped(driver, buckets={"data": "data"}) if layered else driver) as store:
            assert await store.read("data", "key") == b"BODY"
            async with store.get("data", "key") as reader:
                assert await reader.read() == b"BODY"


def test_subclass_that_overrides_neither_keeps_fetch() -> None:
    assert fetch_of(Renamed(region="us-east-1")) is not None
