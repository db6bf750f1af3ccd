"""The driver suite accepts a driver that refuses some bucket names, and the keys in `refused_keys`."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import pytest

from trove_async import InvalidNameError
from trove_async.drivers import MemoryDriver
from trove_async.testing import DriverBuckets, DriverOddKeys

if TYPE_CHECKING:
    from collections.abc import Sequence
    from collections.abc import Set as AbstractSet

    from trove_async.models import ObjectInfo
    from trove_async.options import PutOptions


class PickyDriver(MemoryDriver):
    async def put(
        self, bucket: str, key: str, views: Sequence[memoryview], options: PutOptions
    ) -> ObjectInfo:
        if not key.isprintable():
            raise InvalidNameError("a key must be printable", bucket=bucket, key=key)
        return await super().put(bucket, key, views, options)

    async def create_bucket(self, bucket: str) -> None:
        if not bucket.isascii():
            raise InvalidNameError("a bucket name must be ASCII", bucket=bucket)
        await super().create_bucket(bucket)


class TestPickyDriver(DriverOddKeys, DriverBuckets):
    refused_keys: ClassVar[AbstractSet[str]] = frozenset(
        {
            "tab\there",
            "new\nline",
            "carriage\rreturn",
            "bell\x07",
            "delete\x7f",
            "control\x85",
            "\u202eright-to-left",
            "zero\u200bwidth",
            "\ufeffbom",
            "\ue000",
            "\uffff",
            "\U0001f468\u200d\U0001f469\u200d\U0001f467",
            "\U0010ffff",
        }
    )

    @pytest.fixture
    def driver(self) -> PickyDriver:
        return PickyDriver()
