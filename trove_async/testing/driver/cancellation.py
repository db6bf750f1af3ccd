"""Conformance tests of cancellation: calls are cancelled at many different moments.

After a cancel an object must be the old or the new one, never a mixture, and the driver must keep
working. A store cancels a call when the task of its user is cancelled or a deadline passes.
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial

from trove_async.driver import AsyncDriver
from trove_async.errors import BucketExistsError, BucketNotFoundError, ObjectNotFoundError
from trove_async.models import MiB
from trove_async.options import CopyOptions, GetOptions, PutOptions
from trove_async.testing._harness import (
    assert_same,
    cancel_at_every_step,
    content,
    copying,
    delete,
    in_new_task,
    keys,
    part_size,
    parts,
    read,
    read_to_end,
    upload,
    uploading,
    write,
)
from trove_async.testing.driver._base import DriverTopic, needs

LONG = 300_000  # a put of a shorter body may have no await, so it could not be cancelled
OLD = content(LONG, "old")
NEW = content(LONG + 1, "new")


class DriverCancellation(DriverTopic):
    """Calls that are cancelled after more and more steps of the event loop, until they finish."""

    async def test_cancelled_put_leaves_old_or_new_object(
        self, backend: AsyncDriver, bucket: str
    ) -> None:
        await write(backend, bucket, "key", OLD)

        async def check() -> None:
            await self._assert_not_mixed(backend, bucket)
            await write(backend, bucket, "key", OLD)

        await cancel_at_every_step(lambda: write(backend, bucket, "key", NEW), check)
        assert await keys(backend, bucket) == ["key"]

    async def test_cancelled_put_of_new_key_leaves_whole_object_or_none(
        self, backend: AsyncDriver, bucket: str
    ) -> None:
        async def check() -> None:
            for key in await keys(backend, bucket):
                assert key == "dir/key"
                assert_same(await read(backend, bucket, key), NEW)
                await delete(backend, bucket, key)

        await cancel_at_every_step(lambda: write(backend, bucket, "dir/key", NEW), check)

    async def test_cancelled_put_does_not_use_its_views_afterwards(
        self, backend: AsyncDriver, bucket: str
    ) -> None:
        memory = bytearray(NEW)

        async def put() -> None:
            memory[:] = NEW
            view = memoryview(memory)
            await backend.put(bucket, "key", [view[:1000], view[1000:]], PutOptions())

        async def check() -> None:
            # The store reuses the memory: a write that still reads it would store zeros.
            memory[:] = bytes(len(memory))
            for key in await keys(backend, bucket):
                assert_same(await read(backend, bucket, key), NEW)

        await cancel_at_every_step(put, check)

    async def test_cancelled_upload_leaves_old_or_new_object(
        self, backend: AsyncDriver, bucket: str
    ) -> None:
        size = part_size(needs(backend, "upload"), LONG)
        new = content(3 * size - 1, "new")
        await write(backend, bucket, "key", OLD)

        async def check() -> None:
            assert await read(backend, bucket, "key") in {OLD, new}
            assert await keys(backend, bucket) == ["key"]
            await write(backend, bucket, "key", OLD)

        await cancel_at_every_step(
            lambda: upload(backend, bucket, "key", new, min_part=LONG), check
        )
        await upload(backend, bucket, "key", new)
        assert_same(await read(backend, bucket, "key"), new)

    async def test_part_can_be_sent_again_after_cancelled_send(
        self, backend: AsyncDriver, bucket: str
    ) -> None:
        size = part_size(needs(backend, "upload"), LONG)
        body = content(3 * size - 1)

        async def check() -> None:
            assert await keys(backend, bucket) == []

        # After a timeout, which cancels the first attempt, the store sends a part again.
        async with uploading(backend).upload(bucket, "key", PutOptions()) as running:
            for part, piece in parts(body, size):
                await cancel_at_every_step(partial(running.send, part, piece), check)
            await running.commit({})
        assert_same(await read(backend, bucket, "key"), body)

    async def test_driver_works_after_cancelled_get(
        self, backend: AsyncDriver, bucket: str
    ) -> None:
        await write(backend, bucket, "key", OLD)

        async def get() -> None:
            assert await read(backend, bucket, "key", size=50_000) == OLD

        # The check is a complete get: a connection in a wrong state would break it.
        await cancel_at_every_step(get, get)

    async def test_reader_can_be_closed_by_another_task_after_cancelled_read(
        self, backend: AsyncDriver, bucket: str
    ) -> None:
        body = content(4 * MiB)
        await write(backend, bucket, "key", body)
        open_contexts = []

        async def read_half() -> None:
            context = backend.get(bucket, "key", GetOptions())
            reader = await context.__aenter__()
            open_contexts.append(context)
            await reader.read(MiB)
            await reader.read(MiB)

        async def check() -> None:
            # The store's read-ahead may close a reader in a task other than the one that opened it.
            while open_contexts:
                await in_new_task(open_contexts.pop().__aexit__(None, None, None))
            async with backend.get(bucket, "key", GetOptions()) as reader:
                assert body.startswith(await reader.read(100))

        await cancel_at_every_step(read_half, check)

    async def test_cancelled_delete_removes_only_its_object_or_nothing(
        self, backend: AsyncDriver, bucket: str
    ) -> None:
        await write(backend, bucket, "stays", OLD)
        await write(backend, bucket, "key", OLD)

        async def check() -> None:
            assert "stays" in await keys(backend, bucket)
            try:
                assert_same(await read(backend, bucket, "key"), OLD)
            except ObjectNotFoundError:
                await write(backend, bucket, "key", OLD)

        await cancel_at_every_step(lambda: delete(backend, bucket, "key"), check)

    async def test_driver_works_after_cancelled_listing(
        self, backend: AsyncDriver, bucket: str
    ) -> None:
        names = [f"{number:02}" for number in range(10)]
        for key in names:
            await write(backend, bucket, key)

        async def check() -> None:
            assert sorted(await keys(backend, bucket)) == names

        await cancel_at_every_step(lambda: keys(backend, bucket, limit=3), check)

    async def test_cancelled_copy_leaves_old_or_new_object(
        self, backend: AsyncDriver, bucket: str
    ) -> None:
        needs(backend, "server_copy")
        options = CopyOptions(source=await write(backend, bucket, "from", NEW), put=PutOptions())
        await write(backend, bucket, "key", OLD)

        async def check() -> None:
            await self._assert_not_mixed(backend, bucket)
            assert_same(await read(backend, bucket, "from"), NEW)
            await write(backend, bucket, "key", OLD)

        await cancel_at_every_step(
            lambda: copying(backend).copy(bucket, "from", bucket, "key", options), check
        )

    async def test_cancelled_bucket_calls_leave_usable_bucket_or_none(
        self, backend: AsyncDriver
    ) -> None:
        name = self.bucket_name()

        async def exists() -> bool:
            return name in [info.name for info in await backend.list_buckets()]

        # A server may process a cancelled request late, even after the check. Ignore its effects.
        async def create() -> None:
            with suppress(BucketExistsError):
                await backend.create_bucket(name)

        async def remove() -> None:
            with suppress(BucketNotFoundError):
                await backend.delete_bucket(name)

        async def use() -> None:
            if await exists():
                await write(backend, name, "key")
                await delete(backend, name, "key")
                await remove()

        async def create_again() -> None:
            if not await exists():
                await create()

        await cancel_at_every_step(create, use)
        await create()
        await cancel_at_every_step(remove, create_again)
        await remove()
        assert not await exists()

    async def _assert_not_mixed(self, backend: AsyncDriver, bucket: str) -> None:
        # Check a single response: a server that received a cancelled request completely may still
        # replace the object between two requests.
        async with backend.get(bucket, "key", GetOptions()) as reader:
            body = await read_to_end(reader)
            assert body in {OLD, NEW}
            assert reader.info.size == len(body)
