"""Finds and repairs the differences between a primary and its replicas. See `driver.Replicated`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Final

import anyio

from trove_async._concurrency import for_each
from trove_async._version_identity import is_same
from trove_async._views import take
from trove_async.driver import AsyncDriver
from trove_async.errors import (
    BucketExistsError,
    BucketNotFoundError,
    ObjectChangedError,
    ObjectNotFoundError,
    TroveError,
)
from trove_async.models import Entry, MiB, ObjectInfo
from trove_async.options import (
    ComparedPage,
    DeleteOptions,
    Difference,
    DifferenceKind,
    ListOptions,
    Repaired,
)

from .members import Members, parse_stage
from .merging import merged_page
from .replicas import KeyLocks, Replicas, close_all
from .transfer import buffer_size, is_copy, transfer

_ATTEMPTS: Final = 3
"""How often a repair is made if another process replaces the object meanwhile."""

_HEADS: Final = 16
"""Maximum number of keys whose objects are headed concurrently."""

_OWN_BUFFER: Final = 8 * MiB
"""Bytes of the buffer for objects that follow the primary within a write. Only one is in use at a time."""


class Repairs:
    """Compares and repairs the replicas of one layer.

    Args:
        members: The members of the layer.
        replicas: Runs the tasks of the replicas.
        locks: The locks of the keys that are being written.
    """

    def __init__(self, members: Members, replicas: Replicas, locks: KeyLocks) -> None:
        self._members = members
        self._replicas = replicas
        self._locks = locks
        self._own_buffer = anyio.Semaphore(1)

    def is_copy(self, number: int, original: ObjectInfo, copy: ObjectInfo) -> bool:
        """Return whether nothing distinguishes the primary's object from that of a replica."""
        drivers = self._members.drivers
        records_ids = drivers[0].capabilities.metadata and drivers[number].capabilities.metadata
        return is_copy(original, copy, records_ids=records_ids)

    # -- comparing -------------------------------------------------------------------------------

    async def compare(
        self, bucket: str, options: ListOptions, *, deep: bool, ordered: bool
    ) -> ComparedPage:
        """Return the differences of one page of keys. See `Replicated.compare`."""
        options = replace(options, delimiter=None)
        if not ordered:
            return await self._compare_unordered(bucket, options)
        # 1. Merge the members' listings.
        drivers = dict(enumerate(self._members.drivers))
        page = await merged_page(drivers, bucket, options)
        if 0 in page.missing:
            raise page.missing[0]
        # 2. Compare each key.
        if deep:
            found = await self._head_all(bucket, [row.key for row in page.rows])
        else:
            found = [self._difference(row.key, row.entries) for row in page.rows]
        return ComparedPage(
            differences=[difference for difference in found if difference is not None],
            keys=len(page.rows),
            token=page.position,
        )

    def _difference(self, key: str, objects: Mapping[int, Entry]) -> Difference | None:
        """Return how the members' objects differ."""
        original = objects.get(0)
        kinds: dict[str, DifferenceKind] = {}
        for number in self._replicas.numbers:
            copy, name = objects.get(number), self._members.names[number]
            if not isinstance(copy, ObjectInfo):
                if original is not None:
                    kinds[name] = "missing"
            elif not isinstance(original, ObjectInfo):
                kinds[name] = "surplus"
            elif not self.is_copy(number, original, copy):
                kinds[name] = "different"
        size = original.stored_size if isinstance(original, ObjectInfo) else 0
        return Difference(key=key, replicas=kinds, size=size) if kinds else None

    async def _head_all(
        self, bucket: str, keys: Sequence[str], numbers: Sequence[int] | None = None
    ) -> list[Difference | None]:
        """Head the objects on all members and return how they differ, in the order of the keys."""
        found: dict[str, Difference | None] = {}

        async def head(key: str) -> None:
            objects: dict[int, Entry] = {}
            for number in self._members.numbers if numbers is None else numbers:
                info = await self._head(number, bucket, key)
                if info is not None:
                    objects[number] = info
            found[key] = self._difference(key, objects)

        await for_each(keys, head, limit=_HEADS)
        return [found[key] for key in keys]

    async def _compare_unordered(self, bucket: str, options: ListOptions) -> ComparedPage:
        """Compare listings that cannot be merged, by heading each key on the other members.

        The primary's keys come first, then the keys of each replica, of which only the surplus ones are
        new.
        """
        # 1. Get the page of the member that is listed now.
        stage, token = parse_stage(options.token, len(self._members.names))
        keys: list[str]
        following: str | None
        try:
            driver = self._members.drivers[stage]
            page = await driver.list_page(bucket, replace(options, token=token))
        except BucketNotFoundError:
            if stage == 0:
                raise
            keys = []
            following = None
        else:
            keys = [entry.key for entry in page.entries]
            following = page.token
        # 2. Compare its keys.
        found = await self._head_all(bucket, keys)
        after: str | None
        if stage:
            found = [one for one in found if one is not None and "surplus" in one.replicas.values()]
        # 3. Continue with its next page, or with the next member.
        if following is not None:
            after = f"{stage}:{following}"
        else:
            after = f"{stage + 1}:" if stage + 1 < len(self._members.names) else None
        return ComparedPage(
            differences=[difference for difference in found if difference is not None],
            keys=len(keys),
            token=after,
        )

    async def _head(self, number: int, bucket: str, key: str) -> ObjectInfo | None:
        """Return a member's object; None: it has none."""
        try:
            return await self._members.drivers[number].head(bucket, key)
        except ObjectNotFoundError:
            return None
        except BucketNotFoundError:
            if number == 0:
                raise
            return None

    # -- repairing -------------------------------------------------------------------------------

    async def repair(self, bucket: str, key: str) -> Repaired:
        """Make the replicas' object like the primary's. See `Replicated.repair`."""
        for _ in range(_ATTEMPTS - 1):
            with suppress(ObjectChangedError):
                return await self._repair_once(bucket, key)
        return await self._repair_once(bucket, key)

    async def _repair_once(self, bucket: str, key: str) -> Repaired:
        # 1. Lease the memory before the lock, because the holder of a lease may wait for the lock.
        original = await self._head(0, bucket, key)
        limit = max(self._buffer_sizes(original), default=0)
        lease = await self._members.pool.lease(limit) if limit else None
        try:
            async with self._locks.hold(bucket, key):
                buffer = take(lease.views, limit) if lease is not None else []
                return await self._repair_locked(bucket, key, buffer)
        finally:
            if lease is not None:
                lease.release()

    def _buffer_sizes(self, original: ObjectInfo | None) -> list[int]:
        """Return the bytes of memory that a copy to each replica takes."""
        if original is None:
            return []
        part_size, most = self._members.pool.part_size, self._members.pool.max_bytes // 2
        sizes = []
        for number in self._replicas.numbers:
            claimed = self._members.drivers[number].capabilities
            limit = min(most, max(part_size, claimed.min_part))
            sizes.append(buffer_size(original.stored_size, claimed, limit))
        return sizes

    async def _repair_locked(self, bucket: str, key: str, buffer: Sequence[memoryview]) -> Repaired:
        # 1. Repair one replica after another, because they share the buffer.
        original = await self._head(0, bucket, key)
        if max(self._buffer_sizes(original), default=0) > sum(map(len, buffer)):
            raise _replaced(bucket, key)  # by a larger one, since the memory was leased
        copied: list[str] = []
        deleted: list[str] = []
        failure: TroveError | None = None
        for number in self._replicas.numbers:
            name = self._members.names[number]
            try:
                change = await self._repair_replica(number, bucket, key, original, buffer)
            except ObjectChangedError:
                raise
            except TroveError as error:
                error.add_note(f"({name} was not repaired)")
                failure = failure or error
            else:
                if change is not None:
                    (copied if change == "copied" else deleted).append(name)
        # 2. Another process may have replaced the object meanwhile, and the replicas with it.
        current = await self._head(0, bucket, key)
        if (original is None) != (current is None) or (
            original is not None and current is not None and not is_same(original, current)
        ):
            raise _replaced(bucket, key)
        if failure is not None:
            raise failure
        size = 0 if original is None else original.stored_size
        return Repaired(copied=copied, deleted=deleted, size=size)

    async def _repair_replica(
        self,
        number: int,
        bucket: str,
        key: str,
        original: ObjectInfo | None,
        buffer: Sequence[memoryview],
    ) -> str | None:
        """Make one replica's object like the primary's. Return what was changed."""
        changes: list[str] = []

        async def work() -> None:
            change = await self._equalise(number, bucket, key, original, buffer)
            if change is not None:
                changes.append(change)

        # After earlier writes of the key, which may still be on their way to the replica.
        task = self._replicas.start(number, bucket, [key], work)
        try:
            await task.result()
        except BaseException:
            await close_all([task])
            raise
        return changes[0] if changes else None

    async def _equalise(
        self,
        number: int,
        bucket: str,
        key: str,
        original: ObjectInfo | None,
        buffer: Sequence[memoryview],
    ) -> str | None:
        primary, replica = self._members.drivers[0], self._members.drivers[number]
        copy = await self._head(number, bucket, key)
        if original is None:
            if copy is None:
                return None
            await replica.delete(bucket, key, DeleteOptions())
            return "deleted"
        if copy is not None and self.is_copy(number, original, copy):
            return None
        size = buffer_size(original.stored_size, replica.capabilities, sum(map(len, buffer)))
        views, same_service = take(buffer, size), primary.name == replica.name
        try:
            await transfer(primary, replica, original, views, same_service=same_service)
        except BucketNotFoundError as error:
            await _create_bucket(replica, bucket, error)
            await transfer(primary, replica, original, views, same_service=same_service)
        return "copied"

    async def follow_primary(self, number: int, bucket: str, key: str) -> None:
        """Give a replica the primary's object. The caller holds the lock of the key.

        It uses memory of its own, because the holder of a lease of the pool may wait for the lock.
        """
        async with self._own_buffer:
            original = await self._head(0, bucket, key)
            claimed = self._members.drivers[number].capabilities
            limit = max(_OWN_BUFFER, claimed.min_part)
            size = 0 if original is None else buffer_size(original.stored_size, claimed, limit)
            buffer = [memoryview(bytearray(size))] if size else []
            await self._equalise(number, bucket, key, original, buffer)


def _replaced(bucket: str, key: str) -> ObjectChangedError:
    return ObjectChangedError(
        "the object was replaced during its repair: repair it again", bucket=bucket, key=key
    )


async def _create_bucket(driver: AsyncDriver, bucket: str, missing: BucketNotFoundError) -> None:
    """Create a bucket that a replica lacks, or raise `missing` if the object is gone instead."""
    try:
        await driver.create_bucket(bucket)
    except BucketExistsError:
        raise missing from None
