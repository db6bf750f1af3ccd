"""Cancellation: whatever a user's task was in, nothing is held and no object is half there."""

from __future__ import annotations

import pytest

from trove_async import Trove
from trove_async.errors import ObjectChangedError
from trove_async.testing._harness import assert_same, cancelled_everywhere, content
from trove_async.testing.store._base import StoreTopic, assert_nothing_held
from trove_async.testing.store.bodies import flowing


class StoreCancellation(StoreTopic):
    """Every transfer, cancelled after 0, 1, 2, … steps of the loop until it ends by itself."""

    @pytest.mark.parametrize("source", ["memory", "stream"])
    @pytest.mark.parametrize("parts", [0, 1])
    async def test_put_cancelled_anywhere_leaves_the_old_or_the_new(
        self, store: Trove, bucket: str, source: str, parts: int
    ) -> None:
        new = content(parts * store.pool.part_size + 1000, "new")
        await store.put(bucket, "key", b"old")

        async def put() -> None:
            await store.put(bucket, "key", new if source == "memory" else flowing(new, 600_000))

        async def check() -> None:
            assert_nothing_held(store)
            if (body := await _settled(store, bucket, "key")) != b"old":
                assert_same(body, new)
                await store.put(bucket, "key", b"old")

        await cancelled_everywhere(put, check)
        assert [entry.key for entry in await store.list(bucket).all()] == ["key"]

    async def test_get_cancelled_anywhere_holds_nothing(self, store: Trove, bucket: str) -> None:
        body = content(store.pool.part_size + 1)
        await store.put(bucket, "key", body)

        async def get() -> None:
            async with store.get(bucket, "key") as obj:
                assert_same(await obj.read(), body)

        async def check() -> None:
            assert_nothing_held(store)
            assert await store.exists(bucket, "key")

        await cancelled_everywhere(get, check)
        await get()

    async def test_copy_cancelled_anywhere_leaves_the_old_or_the_new(
        self, store: Trove, bucket: str
    ) -> None:
        new = content(store.pool.part_size + 1)
        await store.put(bucket, "from", new)
        await store.put(bucket, "to", b"old")

        async def check() -> None:
            assert_nothing_held(store)
            if (body := await _settled(store, bucket, "to")) != b"old":
                assert_same(body, new)
                await store.put(bucket, "to", b"old")

        await cancelled_everywhere(lambda: store.copy(bucket, "from", bucket, "to"), check)
        assert_same(await store.read(bucket, "from"), new)

    async def test_move_cancelled_anywhere_loses_nothing(
        self, store: Trove, bucket: str, other_bucket: str
    ) -> None:
        body = content(store.pool.part_size + 1)
        await store.put(bucket, "key", body)

        async def check() -> None:
            assert_nothing_held(store)
            if await store.exists(other_bucket, "key"):
                assert_same(await _settled(store, other_bucket, "key"), body)
                await store.move(other_bucket, "key", bucket, "key")
            assert_same(await store.read(bucket, "key"), body)

        await cancelled_everywhere(lambda: store.move(bucket, "key", other_bucket, "key"), check)

    async def test_listing_cancelled_anywhere_can_be_made_again(
        self, store: Trove, bucket: str
    ) -> None:
        names = [f"{number:02}" for number in range(12)]
        for key in names:
            await store.put(bucket, key, b"")

        async def check() -> None:
            got = await store.list(bucket, page_size=5).all()
            assert sorted(entry.key for entry in got) == names

        await cancelled_everywhere(lambda: store.list(bucket, page_size=2).all(), check)

    async def test_delete_many_cancelled_anywhere_can_be_made_again(
        self, store: Trove, bucket: str
    ) -> None:
        names = [f"{number:02}" for number in range(12)]

        async def plant() -> None:
            for key in names:
                await store.put(bucket, key, b"")

        async def delete() -> None:
            await store.delete_many(bucket, names)

        await plant()
        await cancelled_everywhere(delete, plant)
        await delete()
        assert await store.list(bucket).all() == []


async def _settled(store: Trove, bucket: str, key: str) -> bytes:
    """Read an object that may yet be replaced: a server may have all of a cancelled request."""
    while True:
        try:
            return await store.read(bucket, key)
        except ObjectChangedError:
            continue
