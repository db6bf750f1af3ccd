"""Conformance tests of preconditions.

The backend must check the condition and write in one atomic step. A driver that checks first and
then writes loses updates. Some tests let several writers race, and expect exactly one winner.
"""

from __future__ import annotations

import pytest

from trove_async._concurrency import task_group
from trove_async.driver import AsyncDriver
from trove_async.errors import (
    BucketNotFoundError,
    ObjectExistsError,
    ObjectNotFoundError,
    PreconditionFailedError,
    TroveError,
)
from trove_async.models import ByteRange, ObjectInfo
from trove_async.testing._harness import assert_same, content, delete, keys, list_all, read, write
from trove_async.testing.driver._base import DriverTopic, needs

RACERS = 12
"""The number of concurrent writers of one key."""


class DriverConditions(DriverTopic):
    """`if_match` of put, get and delete, and `if_none_match` of put and get."""

    async def test_if_none_match_creates_missing_object(
        self, backend: AsyncDriver, bucket: str
    ) -> None:
        needs(backend, "put_if_none_match")
        await write(backend, bucket, "key", b"one", if_none_match="*")
        assert await read(backend, bucket, "key") == b"one"
        await delete(backend, bucket, "key")
        await write(backend, bucket, "key", b"two", if_none_match="*")
        assert await read(backend, bucket, "key") == b"two"

    async def test_if_none_match_keeps_existing_object(
        self, backend: AsyncDriver, bucket: str
    ) -> None:
        needs(backend, "put_if_none_match")
        old = await write(backend, bucket, "key", b"old")
        with pytest.raises(ObjectExistsError):
            await write(backend, bucket, "key", b"new", if_none_match="*")
        assert await read(backend, bucket, "key") == b"old"
        assert (await backend.head(bucket, "key")).etag == old.etag

    async def test_concurrent_if_none_match_puts_have_one_winner(
        self, backend: AsyncDriver, bucket: str
    ) -> None:
        needs(backend, "put_if_none_match")
        winner = await self._race(backend, bucket, if_none_match="*", error=ObjectExistsError)
        assert_same(await read(backend, bucket, "key"), winner)

    async def test_if_match_replaces_only_the_matching_object(
        self, backend: AsyncDriver, bucket: str
    ) -> None:
        needs(backend, "put_if_match")
        one = await write(backend, bucket, "key", b"one")
        two = await write(backend, bucket, "key", b"two", if_match=one.etag)
        with pytest.raises(PreconditionFailedError):
            await write(backend, bucket, "key", b"three", if_match=one.etag)
        assert await read(backend, bucket, "key") == b"two"
        assert (await backend.head(bucket, "key")).etag == two.etag

    async def test_if_match_on_deleted_object_creates_nothing(
        self, backend: AsyncDriver, bucket: str
    ) -> None:
        needs(backend, "put_if_match")
        old = await write(backend, bucket, "key")
        await delete(backend, bucket, "key")
        # For a put, a missing object is a failed condition, although S3 reports it with 404.
        with pytest.raises(PreconditionFailedError):
            await write(backend, bucket, "key", if_match=old.etag)
        assert await keys(backend, bucket) == []

    async def test_if_match_in_missing_bucket_raises_bucket_not_found(
        self, backend: AsyncDriver, bucket: str
    ) -> None:
        needs(backend, "put_if_match")
        old = await write(backend, bucket, "key")
        # PreconditionFailedError would suggest that the object had changed.
        with pytest.raises(BucketNotFoundError):
            await write(backend, self.bucket_name(), "key", if_match=old.etag)

    async def test_concurrent_if_match_puts_have_one_winner(
        self, backend: AsyncDriver, bucket: str
    ) -> None:
        needs(backend, "put_if_match")
        old = await write(backend, bucket, "key", b"old")
        winner = await self._race(backend, bucket, if_match=old.etag, error=PreconditionFailedError)
        assert_same(await read(backend, bucket, "key"), winner)

    async def test_etags_of_head_and_list_are_accepted_by_if_match(
        self, backend: AsyncDriver, bucket: str
    ) -> None:
        needs(backend, "put_if_match")
        await write(backend, bucket, "key")
        head = await backend.head(bucket, "key")
        # Services quote etags differently in headers and listings; the driver must normalize them.
        await write(backend, bucket, "key", b"second", if_match=head.etag)
        (entry,) = [info for info in await list_all(backend, bucket) if info.key == "key"]
        # Without an etag, the put would be unconditional.
        assert isinstance(entry, ObjectInfo)
        assert entry.etag is not None
        await write(backend, bucket, "key", b"third", if_match=entry.etag)
        assert await read(backend, bucket, "key") == b"third"

    async def test_get_if_match_requires_the_matching_object(
        self, backend: AsyncDriver, bucket: str
    ) -> None:
        needs(backend, "get_conditions")
        old = await write(backend, bucket, "key", b"old")
        assert await read(backend, bucket, "key", if_match=old.etag) == b"old"
        new = await write(backend, bucket, "key", b"new")
        with pytest.raises(PreconditionFailedError):
            await read(backend, bucket, "key", if_match=old.etag)
        assert await read(backend, bucket, "key", if_match=new.etag) == b"new"

    async def test_get_if_none_match_requires_a_different_object(
        self, backend: AsyncDriver, bucket: str
    ) -> None:
        needs(backend, "get_conditions")
        old = await write(backend, bucket, "key", b"old")
        with pytest.raises(PreconditionFailedError):
            await read(backend, bucket, "key", if_none_match=old.etag)
        await write(backend, bucket, "key", b"new")
        assert await read(backend, bucket, "key", if_none_match=old.etag) == b"new"

    async def test_get_conditions_apply_to_ranges(self, backend: AsyncDriver, bucket: str) -> None:
        needs(backend, "get_conditions", "ranges")
        old = await write(backend, bucket, "key", b"0123456789")
        selected = ByteRange(2, 4)
        assert await read(backend, bucket, "key", range=selected, if_match=old.etag) == b"23"
        await write(backend, bucket, "key", b"9876543210")
        with pytest.raises(PreconditionFailedError):
            await read(backend, bucket, "key", range=selected, if_match=old.etag)

    async def test_conditional_get_of_missing_object_raises_not_found(
        self, backend: AsyncDriver, bucket: str
    ) -> None:
        needs(backend, "get_conditions")
        old = await write(backend, bucket, "key")
        await delete(backend, bucket, "key")
        with pytest.raises(ObjectNotFoundError):
            await read(backend, bucket, "key", if_match=old.etag)
        with pytest.raises(ObjectNotFoundError):
            await read(backend, bucket, "key", if_none_match=old.etag)

    async def test_delete_if_match_requires_the_matching_object(
        self, backend: AsyncDriver, bucket: str
    ) -> None:
        needs(backend, "delete_if_match")
        old = await write(backend, bucket, "key", b"old")
        new = await write(backend, bucket, "key", b"new")
        with pytest.raises(PreconditionFailedError):
            await delete(backend, bucket, "key", if_match=old.etag)
        assert await read(backend, bucket, "key") == b"new"
        await delete(backend, bucket, "key", if_match=new.etag)
        assert await keys(backend, bucket) == []
        with pytest.raises(PreconditionFailedError):
            await delete(backend, bucket, "key", if_match=new.etag)

    async def _race(
        self, backend: AsyncDriver, bucket: str, *, error: type[TroveError], **options: str | None
    ) -> bytes:
        """Put with one condition from many tasks, and assert that all but one fail with `error`.

        Returns:
            The body of the winner.
        """
        winners: list[bytes] = []
        failures: list[TroveError] = []

        async def put(body: bytes) -> None:
            for attempt in range(RACERS):
                try:
                    await write(backend, bucket, "key", body, **options)
                except TroveError as failure:
                    # A service may reject a put because another write of the key is in flight. The
                    # store retries such a put, and so does the test.
                    if failure.retryable and attempt < RACERS - 1:
                        continue
                    failures.append(failure)
                else:
                    winners.append(body)
                return

        async with task_group() as group:
            for number in range(RACERS):
                group.start_soon(put, content(30_000, str(number)))
        assert [type(failure) for failure in failures] == [error] * (RACERS - 1)
        assert len(winners) == 1
        return winners[0]
