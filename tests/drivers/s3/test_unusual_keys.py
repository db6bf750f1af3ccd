"""Moves on a service that stores several keys as one object, contrary to its configured dialect."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from trove_async import ObjectChangedError, Trove
from trove_async.drivers import S3Driver

if TYPE_CHECKING:
    from trove_async.testing.servers import S3Server


@pytest.mark.parametrize("to", ["p//q", "/p/q"])
@pytest.mark.parametrize("checksums", [True, False])
async def test_move_to_another_key_of_the_same_object_keeps_it(
    seaweed: S3Server, to: str, *, checksums: bool
) -> None:
    driver = S3Driver(
        region=seaweed.region,
        endpoint_url=seaweed.endpoint_url,
        access_key_id=seaweed.access_key_id,
        secret_access_key=seaweed.secret_access_key,
        checksums=checksums,
        dialect="s3",
    )
    async with Trove(driver) as store:
        await store.create_bucket("folding", exist_ok=True)
        await store.put("folding", "p/q", b"keep me", metadata={"a": "b"})
        with pytest.raises(ObjectChangedError, match="one object"):
            await store.move("folding", "p/q", "folding", to)
        assert await store.read("folding", "p/q") == b"keep me"
        await store.move("folding", "p/q", "folding", "elsewhere")
        assert await store.read("folding", "elsewhere") == b"keep me"
        assert not await store.exists("folding", "p/q")
