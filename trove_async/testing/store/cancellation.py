"""Conformance tests of cancellation through a store.

A user's task may be cancelled at any await. Afterwards the store must hold no memory, and each
object must be the old or the new one.
"""

from __future__ import annotations

import pytest

from trove_async import Trove
from trove_async.errors import ObjectChangedError
from trove_async.testing._harness import assert_same, cancel_at_every_step, content
from trove_async.testing.store._base import StoreTopic, assert_nothing_held
from trove_async.testing.store.bodies import async_chunks


class StoreCancellation(StoreTopic):
    """Calls that are cancelled after more and more steps of the event loop, until they finish."""

    @pytest.mark.parametrize("source", ["memory", "stream"])
    @pytest.mark.parametrize("parts", [0, 1])
    async def test_cancelled_put_leaves_old_or_new_object(
        self, store: Trove, bucket: str, source: str, parts: int
    ) -> None:
        new = content(parts * store.pool.part_size + 1000, "new")
        await store.put(bucket, "key", b"old")

        async def put() -> None:
            await store.put(
                bucket, "key", new if source == "memory" else async_chunks(new, 600_000)
            )

        async def check() -> None:
            await assert_nothing_held(store)
            if (body := await _read_stable(store, bucket, "key")) != b"old":
                assert_same(body, new)
                await store.put(bucket, "key", b"old")

        await cancel_at_every_step(put, check)
        assert [entry.key for entry in await store.list(bucket).all()] == ["key"]

    async def test_cancelled_get_holds_nothing(self, store: Trove, bucket: str) -> None:
        body = content(store.pool.part_size + 1)
        await store.put(bucket, "key", body)

        async def get() -> None:
            async with store.get(bucket, "key") as obj:
                assert_same(await obj.read(), body)

        async def check() -> None:
            await assert_nothing_held(store)
            assert await store.exists(bucket, "key")

        await cancel_at_every_step(get, check)
        await get()  # would wait forever if connections or permits had not been released

    async def test_cancelled_copy_leaves_old_or_new_object(self, store: Trove, bucket: str) -> None:
        new = content(store.pool.part_size + 1)
        await store.put(bucket, "from", new)
        await store.put(bucket, "to", b"old")

        async def check() -> None:
            await assert_nothing_held(store)
            if (body := await _read_stable(store, bucket, "to")) != b"old":
                assert_same(body, new)
                await store.put(bucket, "to", b"old")

        await cancel_at_every_step(lambda: store.copy(bucket, "from", bucket, "to"), check)
        assert_same(await store.read(bucket, "from"), new)

    async def test_cancelled_move_loses_nothing(
        self, store: Trove, bucket: str, other_bucket: str
    ) -> None:
        body = content(store.pool.part_size + 1)
        await store.put(bucket, "key", body)

        async def check() -> None:
            await assert_nothing_held(store)
            # The object may be at the source, at the destination or at both, but must not be lost.
            if await store.exists(other_bucket, "key"):
                assert_same(await _read_stable(store, other_bucket, "key"), body)
                await store.move(other_bucket, "key", bucket, "key")
            assert_same(await store.read(bucket, "key"), body)

        await cancel_at_every_step(lambda: store.move(bucket, "key", other_bucket, "key"), check)

    async def test_cancelled_listing_can_be_repeated(self, store: Trove, bucket: str) -> None:
        names = [f"{number:02}" for number in range(12)]
        for key in names:
            await store.put(bucket, key, b"")

        async def check() -> None:
            entries = await store.list(bucket, page_size=5).all()
            assert sorted(entry.key for entry in entries) == names

        await cancel_at_every_step(lambda: store.list(bucket, page_size=2).all(), check)

    async def test_cancelled_delete_many_can_be_repeated(self, store: Trove, bucket: str) -> None:
        names = [f"{number:02}" for number in range(12)]

        async def put_all() -> None:
            for key in names:
                await store.put(bucket, key, b"")

        async def delete() -> None:
            await store.delete_many(bucket, names)

        await put_all()
        # A cancelled delete_many may have deleted some of the keys.
        await cancel_at_every_step(delete, put_all)
        await delete()
        assert await store.list(bucket).all() == []


async def _read_stable(store: Trove, bucket: str, key: str) -> bytes:
    """Read an object. Repeat the read if the object changes during it.

    A server that received a cancelled request completely may still process it.
    """
    while True:
        try:
            return await store.read(bucket, key)
        except ObjectChangedError:
            continue
