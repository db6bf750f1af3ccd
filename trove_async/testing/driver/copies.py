"""Conformance tests of server-side copies.

A copy must contain the version of the source that the caller saw, or fail with ObjectChangedError.
The copy has only the metadata, headers and tags in its options. To keep those of the source, the
store adds them to the options.
"""

from __future__ import annotations

import pytest

from trove_async.driver import AsyncDriver
from trove_async.errors import (
    ObjectChangedError,
    ObjectExistsError,
    ObjectNotFoundError,
    PreconditionFailedError,
)
from trove_async.models import MiB
from trove_async.options import CopyOptions, PutOptions
from trove_async.testing._harness import assert_same, content, copying, delete, keys, read, write
from trove_async.testing.driver._base import DriverTopic, needs


class DriverCopies(DriverTopic):
    """`copy`, if the driver claims `server_copy`."""

    @pytest.mark.parametrize("size", [0, 1, 2 * MiB + 1])
    async def test_copy_has_the_same_body(
        self, backend: AsyncDriver, bucket: str, other_bucket: str, size: int
    ) -> None:
        needs(backend, "server_copy")
        body = content(size)
        options = CopyOptions(source=await write(backend, bucket, "a/b", body), put=PutOptions())
        # In the same bucket and to a different one: some services treat the two differently.
        same_bucket = await copying(backend).copy(bucket, "a/b", bucket, "a", options)
        across_buckets = await copying(backend).copy(bucket, "a/b", other_bucket, "a/b", options)
        for info, target in ((same_bucket, (bucket, "a")), (across_buckets, (other_bucket, "a/b"))):
            assert (info.bucket, info.key, info.size) == (*target, size)
        assert (await backend.head(bucket, "a")).etag == same_bucket.etag
        await delete(backend, bucket, "a/b")
        assert_same(await read(backend, bucket, "a"), body)
        assert_same(await read(backend, other_bucket, "a/b"), body)

    async def test_copy_replaces_existing_object(self, backend: AsyncDriver, bucket: str) -> None:
        needs(backend, "server_copy")
        options = CopyOptions(source=await write(backend, bucket, "from", b"new"), put=PutOptions())
        old = await write(backend, bucket, "to", b"old one")
        copied = await copying(backend).copy(bucket, "from", bucket, "to", options)
        assert copied.etag != old.etag
        assert await read(backend, bucket, "to") == b"new"
        assert await read(backend, bucket, "from") == b"new"

    async def test_copy_has_only_the_metadata_of_its_options(
        self, backend: AsyncDriver, bucket: str
    ) -> None:
        needs(backend, "server_copy", "metadata", "headers")
        source = await write(
            backend, bucket, "from", metadata={"a": "1"}, content_type="text/plain"
        )
        put = PutOptions(metadata={"b": "2"}, cache_control="no-store")
        await copying(backend).copy(
            bucket, "from", bucket, "to", CopyOptions(source=source, put=put)
        )
        info = await backend.head(bucket, "to")
        assert dict(info.metadata) == {"b": "2"}
        assert info.cache_control == "no-store"
        # If the source's headers are wanted, the store passes them. A service must not add them.
        assert info.content_type != "text/plain"
        assert dict((await backend.head(bucket, "from")).metadata) == {"a": "1"}

    async def test_copy_has_only_the_tags_of_its_options(
        self, backend: AsyncDriver, bucket: str
    ) -> None:
        needs(backend, "server_copy", "tags", "copy_tags")
        source = await write(backend, bucket, "from", tags={"team": "storage"})
        options = CopyOptions(source=source, put=PutOptions(tags={"cost centre": "a:b"}))
        await copying(backend).copy(bucket, "from", bucket, "to", options)
        assert dict((await backend.head(bucket, "to")).tags) == {"cost centre": "a:b"}
        assert dict((await backend.head(bucket, "from")).tags) == {"team": "storage"}

    async def test_copy_onto_itself_changes_only_metadata(
        self, backend: AsyncDriver, bucket: str
    ) -> None:
        needs(backend, "server_copy", "metadata")
        body = content(100_000)
        source = await write(backend, bucket, "key", body, metadata={"a": "1"})
        options = CopyOptions(source=source, put=PutOptions(metadata={"a": "2"}))
        info = await copying(backend).copy(bucket, "key", bucket, "key", options)
        assert info.size == len(body)
        assert_same(await read(backend, bucket, "key"), body)
        assert dict((await backend.head(bucket, "key")).metadata) == {"a": "2"}

    async def test_copy_of_replaced_source_changes_nothing(
        self, backend: AsyncDriver, bucket: str
    ) -> None:
        needs(backend, "server_copy")
        options = CopyOptions(source=await write(backend, bucket, "key", b"old"), put=PutOptions())
        await write(backend, bucket, "key", b"new")
        # To a different key and onto itself.
        for target in ("other", "key"):
            with pytest.raises(ObjectChangedError):
                await copying(backend).copy(bucket, "key", bucket, target, options)
        assert await keys(backend, bucket) == ["key"]
        assert await read(backend, bucket, "key") == b"new"

    async def test_copy_of_deleted_source_changes_nothing(
        self, backend: AsyncDriver, bucket: str
    ) -> None:
        needs(backend, "server_copy")
        options = CopyOptions(source=await write(backend, bucket, "key"), put=PutOptions())
        await delete(backend, bucket, "key")
        # The source is missing and it has changed: a service may report either.
        with pytest.raises((ObjectNotFoundError, ObjectChangedError)):
            await copying(backend).copy(bucket, "key", bucket, "other", options)
        assert await keys(backend, bucket) == []

    async def test_copy_if_none_match_keeps_existing_object(
        self, backend: AsyncDriver, bucket: str
    ) -> None:
        needs(backend, "server_copy", "put_if_none_match", "copy_conditions")
        options = CopyOptions(
            source=await write(backend, bucket, "from", b"new"),
            put=PutOptions(if_none_match="*"),
        )
        await write(backend, bucket, "to", b"old")
        with pytest.raises(ObjectExistsError):
            await copying(backend).copy(bucket, "from", bucket, "to", options)
        assert await read(backend, bucket, "to") == b"old"
        await delete(backend, bucket, "to")
        await copying(backend).copy(bucket, "from", bucket, "to", options)
        assert await read(backend, bucket, "to") == b"new"

    async def test_copy_if_match_replaces_only_the_matching_object(
        self, backend: AsyncDriver, bucket: str
    ) -> None:
        needs(backend, "server_copy", "put_if_match", "copy_conditions")
        source = await write(backend, bucket, "from", b"new")
        old = await write(backend, bucket, "to", b"old")
        put = PutOptions(if_match=old.etag)
        options = CopyOptions(source=source, put=put)
        await copying(backend).copy(bucket, "from", bucket, "to", options)
        assert await read(backend, bucket, "to") == b"new"
        with pytest.raises(PreconditionFailedError):
            await copying(backend).copy(bucket, "from", bucket, "to", options)
