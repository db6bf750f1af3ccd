"""Conformance tests of copy and move.

A copy contains exactly one version of the source. A move deletes the source only after the
destination is complete, so the object exists at every moment.
"""

from __future__ import annotations

from typing import Any

import pytest

from trove_async import (
    BucketNotFoundError,
    NotSupportedError,
    ObjectExistsError,
    ObjectNotFoundError,
    PreconditionFailedError,
    Trove,
)
from trove_async.testing._harness import assert_same, content
from trove_async.testing.driver.metadata import EXPIRES, HEADERS
from trove_async.testing.store._base import StoreTopic, capabilities_of


class StoreCopies(StoreTopic):
    """`copy` and `move`."""

    @pytest.mark.parametrize("parts", [0, 1, 2])
    async def test_copy_has_the_same_body(
        self, store: Trove, bucket: str, other_bucket: str, parts: int
    ) -> None:
        body = content(parts * store.pool.part_size + parts)
        await store.put(bucket, "from", body)
        # Each target may be on a different backend. The body then passes through the store.
        for target in ((bucket, "to"), (other_bucket, "from")):
            info = await store.copy(bucket, "from", *target)
            assert (info.bucket, info.key, info.size) == (*target, len(body))
            assert info.backend == (await store.explain(*target)).backend
        await store.delete(bucket, "from")
        assert_same(await store.read(bucket, "to"), body)
        assert_same(await store.read(other_bucket, "from"), body)

    async def test_copy_replaces_existing_object(self, store: Trove, bucket: str) -> None:
        await store.put(bucket, "from", b"new")
        await store.put(bucket, "to", b"old one")
        await store.copy(bucket, "from", bucket, "to")
        assert await store.read(bucket, "to") == b"new"
        assert await store.read(bucket, "from") == b"new"

    async def test_copy_keeps_the_metadata(self, store: Trove, bucket: str) -> None:
        if not (await capabilities_of(store, bucket)).metadata:
            await store.put(bucket, "from", b"body")
            with pytest.raises(NotSupportedError):
                await store.copy(bucket, "from", bucket, "to", metadata={"a": "1"})
            assert not await store.exists(bucket, "to")
            return
        await store.put(bucket, "from", b"body", metadata={"a": "1"})
        assert (await store.copy(bucket, "from", bucket, "to")).size == 4
        assert dict((await store.head(bucket, "to")).metadata) == {"a": "1"}
        await store.copy(bucket, "from", bucket, "to", metadata={"b": "2"})
        assert dict((await store.head(bucket, "to")).metadata) == {"b": "2"}
        assert dict((await store.head(bucket, "from")).metadata) == {"a": "1"}

    async def test_copy_keeps_the_headers(self, store: Trove, bucket: str) -> None:
        source = await capabilities_of(store, bucket, "from")
        target = await capabilities_of(store, bucket, "to")
        headers: dict[str, Any] = dict(HEADERS) if source.headers and target.headers else {}
        if source.expires and target.expires:
            headers["expires"] = EXPIRES
        await store.put(bucket, "from", b"body", **headers)
        await store.copy(bucket, "from", bucket, "to")
        # To change metadata, users copy an object onto itself. This must keep the headers as well.
        if target.metadata:
            await store.copy(bucket, "to", bucket, "to", metadata={"a": "1"})
        info = await store.head(bucket, "to")
        assert {name: getattr(info, name) for name in headers} == headers
        await store.move(bucket, "to", bucket, "moved")
        info = await store.head(bucket, "moved")
        assert {name: getattr(info, name) for name in headers} == headers

    async def test_copy_keeps_the_tags(self, store: Trove, bucket: str) -> None:
        if not (await capabilities_of(store, bucket, "from")).tags:
            with pytest.raises(NotSupportedError):
                await store.put(bucket, "from", b"body", tags={"team": "a"})
            return
        if not (await capabilities_of(store, bucket, "to")).tags:
            # The store refuses the copy, because it would lose the tags.
            await store.put(bucket, "from", b"body", tags={"team": "a"})
            with pytest.raises(NotSupportedError):
                await store.copy(bucket, "from", bucket, "to")
            assert not await store.exists(bucket, "to")
            return
        await store.put(bucket, "from", b"body", tags={"team": "a"})
        await store.copy(bucket, "from", bucket, "to")
        assert dict((await store.head(bucket, "to")).tags) == {"team": "a"}
        assert await store.read(bucket, "to") == b"body"

    async def test_copy_onto_itself_keeps_the_tags(self, store: Trove, bucket: str) -> None:
        claimed = await capabilities_of(store, bucket)
        body = content(store.pool.part_size + 1)
        tags = {"team": "a"} if claimed.tags else {}
        await store.put(bucket, "key", body, tags=tags)
        if not claimed.metadata:
            with pytest.raises(NotSupportedError):
                await store.copy(bucket, "key", bucket, "key", metadata={"a": "2"})
            assert dict((await store.head(bucket, "key")).tags) == tags
            return
        await store.copy(bucket, "key", bucket, "key", metadata={"a": "2"})
        info = await store.head(bucket, "key")
        assert (dict(info.metadata), dict(info.tags)) == ({"a": "2"}, tags)
        assert_same(await store.read(bucket, "key"), body)

    async def test_copy_onto_itself_changes_only_metadata(self, store: Trove, bucket: str) -> None:
        body = content(store.pool.part_size + 1)
        await store.put(bucket, "key", body)
        if not (await capabilities_of(store, bucket)).metadata:
            with pytest.raises(NotSupportedError):
                await store.copy(bucket, "key", bucket, "key", metadata={"a": "2"})
            assert_same(await store.read(bucket, "key"), body)
            return
        await store.copy(bucket, "key", bucket, "key", metadata={"a": "2"})
        assert_same(await store.read(bucket, "key"), body)
        assert dict((await store.head(bucket, "key")).metadata) == {"a": "2"}

    async def test_copy_of_missing_source_changes_nothing(
        self, store: Trove, bucket: str, other_bucket: str
    ) -> None:
        for transfer in (store.copy, store.move):
            with pytest.raises(ObjectNotFoundError):
                await transfer(bucket, "missing", other_bucket, "to")
            # A move onto itself changes nothing, but must still find its source.
            with pytest.raises(ObjectNotFoundError):
                await transfer(bucket, "missing", bucket, "missing")
            with pytest.raises(BucketNotFoundError):
                await transfer(self.bucket_name(), "key", bucket, "to")
        assert await store.list(bucket).all() == []
        assert await store.list(other_bucket).all() == []

    async def test_copy_into_a_missing_bucket_leaves_the_source(
        self, store: Trove, bucket: str
    ) -> None:
        await store.put(bucket, "key", b"body")
        for transfer in (store.copy, store.move):
            with pytest.raises(BucketNotFoundError):
                await transfer(bucket, "key", self.bucket_name(), "key")
        assert await store.read(bucket, "key") == b"body"

    async def test_copy_if_none_match_never_replaces_an_object(
        self, store: Trove, bucket: str
    ) -> None:
        await store.put(bucket, "from", b"new")
        await store.put(bucket, "to", b"old")
        claimed = (await capabilities_of(store, bucket, "to")).put_if_none_match
        # A refused move must not delete its source.
        for transfer in (store.copy, store.move):
            with pytest.raises(ObjectExistsError if claimed else NotSupportedError):
                await transfer(bucket, "from", bucket, "to", if_none_match="*")
        assert await store.read(bucket, "to") == b"old"
        assert await store.read(bucket, "from") == b"new"
        if claimed:
            await store.copy(bucket, "from", bucket, "fresh", if_none_match="*")
            assert await store.read(bucket, "fresh") == b"new"

    async def test_copy_if_match_replaces_only_the_matching_object(
        self, store: Trove, bucket: str
    ) -> None:
        await store.put(bucket, "from", b"new")
        old = await store.put(bucket, "to", b"old")
        if not (await capabilities_of(store, bucket, "to")).put_if_match:
            with pytest.raises(NotSupportedError):
                await store.copy(bucket, "from", bucket, "to", if_match=old)
            assert await store.read(bucket, "to") == b"old"
            return
        await store.copy(bucket, "from", bucket, "to", if_match=old)
        for transfer in (store.copy, store.move):
            with pytest.raises(PreconditionFailedError):
                await transfer(bucket, "from", bucket, "to", if_match=old)
        assert await store.read(bucket, "from") == b"new"

    @pytest.mark.parametrize("parts", [0, 1, 2])
    async def test_move_leaves_only_the_destination(
        self, store: Trove, bucket: str, other_bucket: str, parts: int
    ) -> None:
        body = content(parts * store.pool.part_size + parts)
        await store.put(bucket, "key", body)
        info = await store.move(bucket, "key", other_bucket, "dir/key")
        assert (info.bucket, info.key, info.size) == (other_bucket, "dir/key", len(body))
        assert not await store.exists(bucket, "key")
        assert_same(await store.read(other_bucket, "dir/key"), body)

    async def test_move_onto_itself_does_nothing(self, store: Trove, bucket: str) -> None:
        old = await store.put(bucket, "key", b"body")
        info = await store.move(bucket, "key", bucket, "key")
        assert (info.key, info.etag) == ("key", old.etag)  # nothing was written
        assert await store.read(bucket, "key") == b"body"

    async def test_progress_of_a_copy_ends_at_its_size(self, store: Trove, bucket: str) -> None:
        body = content(store.pool.part_size + 1)
        await store.put(bucket, "from", body)
        reports: list[tuple[int, int | None]] = []
        await store.copy(
            bucket, "from", bucket, "to", progress=lambda done, total: reports.append((done, total))
        )
        assert reports[-1] == (len(body), len(body))
