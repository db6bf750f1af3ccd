"""Conformance tests of conditions and options: they are honoured, or refused before any change.

A store must never ignore an option that its backend does not support. For each capability the tests
assert either the effect or NotSupportedError with nothing stored.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta, timezone
from typing import Any, ClassVar

import pytest

from trove_async import (
    BucketNotFoundError,
    InvalidNameError,
    NotSupportedError,
    ObjectExistsError,
    ObjectInfo,
    ObjectNotFoundError,
    PreconditionFailedError,
    Trove,
    TroveError,
)
from trove_async._concurrency import task_group
from trove_async.testing._harness import assert_same, content
from trove_async.testing.driver.metadata import EXPIRES, HEADERS, METADATA, TAGS
from trove_async.testing.store._base import StoreTopic, capabilities_of

RACERS = 8
"""The number of concurrent writers of one key."""

BREAKING: list[dict[str, Any]] = [
    {"content_type": "text/plain\r\nx-evil: 1"},
    {"cache_control": "a\nb"},
    {"content_disposition": "a\0b"},
    {"content_encoding": "a\rb"},
    {"content_language": "a\nb"},
    {"storage_class": "a\nb"},
    {"metadata": {"name": "a\r\nb"}},
    {"metadata": {"na me": "a"}},
    {"metadata": {"": "a"}},
    {"metadata": {"n\u00e4me": "a"}},
    {"metadata": {"trove-size": "1"}},
    {"metadata": {"Trove-Size": "1"}},
    {"metadata": {"name": "a", "NAME": "b"}},
    {"metadata": {"name": "\ud800"}},
    {"tags": {"na\nme": "a"}},
    {"tags": {"name": "a\nb"}},
]
"""Options with values that break a header, or with invalid names. No backend may receive them."""


class StoreConditions(StoreTopic):
    """Conditions, versions, metadata, headers, tags, storage class and presigned URLs.

    Attributes:
        storage_class: A storage class that the backends accept and report.
    """

    storage_class: ClassVar[str] = "STANDARD"

    async def test_if_none_match_never_replaces_an_object(self, store: Trove, bucket: str) -> None:
        if not (await capabilities_of(store, bucket)).put_if_none_match:
            with pytest.raises(NotSupportedError):
                await store.put(bucket, "key", b"one", if_none_match="*")
            assert not await store.exists(bucket, "key")
            return
        await store.put(bucket, "key", b"one", if_none_match="*")
        # Once in a single request, and once as an upload in parts.
        for size in (1, store.pool.part_size + 1):
            with pytest.raises(ObjectExistsError):
                await store.put(bucket, "key", content(size), if_none_match="*")
        assert await store.read(bucket, "key") == b"one"

    async def test_concurrent_if_none_match_puts_have_one_winner(
        self, store: Trove, bucket: str
    ) -> None:
        winners: list[bytes] = []
        errors: list[type[TroveError]] = []

        async def put(body: bytes) -> None:
            try:
                await store.put(bucket, "key", body, if_none_match="*")
            except TroveError as error:
                errors.append(type(error))
            else:
                winners.append(body)

        async with task_group() as group:
            for number in range(RACERS):
                group.start_soon(put, content(store.pool.part_size + number, str(number)))
        if (await capabilities_of(store, bucket)).put_if_none_match:
            assert errors == [ObjectExistsError] * (RACERS - 1)
            assert [await store.read(bucket, "key")] == winners
        else:
            assert errors == [NotSupportedError] * RACERS
            assert not await store.exists(bucket, "key")

    async def test_if_match_replaces_only_the_matching_object(
        self, store: Trove, bucket: str
    ) -> None:
        one = await store.put(bucket, "key", b"one")
        if not (await capabilities_of(store, bucket)).put_if_match:
            with pytest.raises(NotSupportedError):
                await store.put(bucket, "key", b"two", if_match=one)
            assert await store.read(bucket, "key") == b"one"
            return
        two = await store.put(bucket, "key", b"two", if_match=one)
        for size in (1, store.pool.part_size + 1):
            with pytest.raises(PreconditionFailedError):
                await store.put(bucket, "key", content(size), if_match=one)
        with pytest.raises(PreconditionFailedError):
            await store.put(bucket, "missing", b"", if_match=one)
        assert not await store.exists(bucket, "missing")
        await store.put(bucket, "key", b"three", if_match=two.etag)
        assert await store.read(bucket, "key") == b"three"

    async def test_read_conditions_are_applied_or_refused(self, store: Trove, bucket: str) -> None:
        old = await store.put(bucket, "key", b"old")
        if not (await capabilities_of(store, bucket)).get_conditions:
            for options in _conditions(old):
                with pytest.raises(NotSupportedError):
                    await store.read(bucket, "key", **options)
            return
        assert await store.read(bucket, "key", if_match=old) == b"old"
        with pytest.raises(PreconditionFailedError):
            await store.read(bucket, "key", if_none_match=old)
        await store.put(bucket, "key", b"new")
        with pytest.raises(PreconditionFailedError):
            async with store.get(bucket, "key", if_match=old.etag):
                raise AssertionError
        assert await store.read(bucket, "key", if_none_match=old.etag) == b"new"

    async def test_delete_if_match_removes_only_the_matching_object(
        self, store: Trove, bucket: str
    ) -> None:
        old = await store.put(bucket, "key", b"old")
        new = await store.put(bucket, "key", b"new")
        if not (await capabilities_of(store, bucket)).delete_if_match:
            # An unconditional delete would remove a version that the caller has not seen.
            with pytest.raises(NotSupportedError):
                await store.delete(bucket, "key", if_match=new)
            assert await store.exists(bucket, "key")
            return
        with pytest.raises(PreconditionFailedError):
            await store.delete(bucket, "key", if_match=old)
        assert await store.exists(bucket, "key")
        await store.delete(bucket, "key", if_match=new)
        assert not await store.exists(bucket, "key")

    async def test_version_is_read_or_refused(self, store: Trove, bucket: str) -> None:
        info = await store.put(bucket, "key", b"old")
        if (await capabilities_of(store, bucket)).versions:
            new = await store.put(bucket, "key", b"new")
            assert await store.read(bucket, "key", version_id=new.version_id) == b"new"
            with suppress(ObjectNotFoundError):  # if the bucket keeps no versions
                old = await store.read(bucket, "key", version_id=info.version_id)
                assert old == b"old" or info.version_id is None
            return
        with pytest.raises(NotSupportedError):
            await store.read(bucket, "key", version_id="1")
        with pytest.raises(NotSupportedError):
            await store.delete(bucket, "key", version_id="1")
        assert await store.exists(bucket, "key")

    async def test_invalid_conditions_are_refused(self, store: Trove, bucket: str) -> None:
        with pytest.raises(ValueError, match="if_none_match"):
            await store.put(bucket, "key", b"", if_none_match="an etag")
        with pytest.raises(ValueError, match="if_match"):
            await store.put(bucket, "key", b"", if_none_match="*", if_match="an etag")
        with pytest.raises(ValueError, match="size"):
            await store.put(bucket, "key", b"", size=-1)
        assert not await store.exists(bucket, "key")

    @pytest.mark.parametrize("parts", [1, 2])
    async def test_metadata_is_kept_or_refused(self, store: Trove, bucket: str, parts: int) -> None:
        # Names are case-insensitive, because services send them as header fields.
        titled = {name.title(): value for name, value in METADATA.items()}
        info = await self._put_if_supported(store, bucket, parts, "metadata", metadata=titled)
        if info is not None:
            assert dict(info.metadata) == METADATA

    async def test_metadata_beyond_max_metadata_bytes_is_refused(
        self, store: Trove, bucket: str
    ) -> None:
        # The name counts as well, so a value of the maximum size is too large.
        maximum = (await capabilities_of(store, bucket)).max_metadata_bytes
        with pytest.raises(NotSupportedError):
            await store.put(bucket, "key", b"", metadata={"name": "v" * maximum})
        assert not await store.exists(bucket, "key")

    @pytest.mark.parametrize("parts", [1, 2])
    async def test_tags_are_kept_or_refused(self, store: Trove, bucket: str, parts: int) -> None:
        info = await self._put_if_supported(store, bucket, parts, "tags", tags=TAGS)
        if info is not None:
            assert dict(info.tags) == TAGS

    @pytest.mark.parametrize("name", HEADERS)
    async def test_header_is_kept_or_refused(self, store: Trove, bucket: str, name: str) -> None:
        info = await self._put_if_supported(store, bucket, 2, "headers", **{name: HEADERS[name]})
        if info is not None:
            assert getattr(info, name) == HEADERS[name]

    @pytest.mark.parametrize("parts", [1, 2])
    async def test_expires_is_kept_or_refused(self, store: Trove, bucket: str, parts: int) -> None:
        # A header carries whole seconds, in GMT.
        expires = EXPIRES.astimezone(timezone(timedelta(hours=2))).replace(microsecond=999_999)
        info = await self._put_if_supported(store, bucket, parts, "expires", expires=expires)
        if info is not None:
            assert info.expires == EXPIRES
            assert info.expires.utcoffset() == timedelta(0)

    async def test_expires_without_a_time_zone_is_refused(self, store: Trove, bucket: str) -> None:
        with pytest.raises(ValueError, match="aware"):
            await store.put(bucket, "key", b"", expires=EXPIRES.replace(tzinfo=None))
        assert not await store.exists(bucket, "key")

    @pytest.mark.parametrize("name", HEADERS)
    async def test_empty_header_is_reported_as_none(
        self, store: Trove, bucket: str, name: str
    ) -> None:
        empty: dict[str, Any] = {name: ""}
        await store.put(bucket, "key", b"body", **empty)
        value = getattr(await store.head(bucket, "key"), name)
        # Some services report this type for an object without a Content-Type.
        assert value in {None, "application/octet-stream"}

    async def test_storage_class_is_kept_or_refused(self, store: Trove, bucket: str) -> None:
        expected = self.storage_class
        info = await self._put_if_supported(
            store, bucket, 1, "storage_class", storage_class=expected
        )
        if info is not None:
            assert info.storage_class == expected

    @pytest.mark.parametrize("options", BREAKING, ids=ascii)
    async def test_invalid_name_or_value_is_refused(
        self, store: Trove, bucket: str, options: dict[str, Any]
    ) -> None:
        with pytest.raises(InvalidNameError):
            await store.put(bucket, "key", b"", **options)
        assert not await store.exists(bucket, "key")

    async def test_presigned_url_is_created_or_refused(self, store: Trove, bucket: str) -> None:
        await store.put(bucket, "key", b"body")
        for presign in (store.presign_get, store.presign_put):
            if (await capabilities_of(store, bucket)).presign:
                assert "://" in await presign(bucket, "key", expires=60)
            else:
                with pytest.raises(NotSupportedError):
                    await presign(bucket, "key", expires=60)
            # Services limit the lifetime of a URL, to seven days at most.
            for expires in (0, -1, 10**9):
                with pytest.raises(ValueError, match="expires"):
                    await presign(bucket, "key", expires=expires)

    async def test_versions_are_listed_or_refused(self, store: Trove, bucket: str) -> None:
        await store.put(bucket, "key", b"body")
        backends = await store._routing.reaches(bucket)  # noqa: SLF001 - not public: users do not need it
        if all(store._core.backends[name].capabilities.versions for name in backends):  # noqa: SLF001
            (version,) = await store.list_versions(bucket).all()
            info = await store.head(bucket, "key")
            assert (version.key, version.etag, version.latest) == ("key", info.etag, True)
            assert (version.bucket, version.backend) == (bucket, info.backend)
            assert await store.list_versions(bucket, prefix="none").all() == []
            with pytest.raises(BucketNotFoundError):
                await store.list_versions(self.bucket_name()).all()
        else:
            with pytest.raises(NotSupportedError):
                await store.list_versions(bucket).all()

    async def _put_if_supported(
        self, store: Trove, bucket: str, parts: int, capability: str, **options: Any
    ) -> ObjectInfo | None:
        """Put with an option. Return the info from head, or None if the store refused the put."""
        body = content((parts - 1) * store.pool.part_size + 1)
        if getattr(await capabilities_of(store, bucket), capability):
            await store.put(bucket, "key", body, **options)
            assert_same(await store.read(bucket, "key"), body)
            return await store.head(bucket, "key")
        with pytest.raises(NotSupportedError):
            await store.put(bucket, "key", body, **options)
        assert not await store.exists(bucket, "key")
        return None


def _conditions(info: ObjectInfo) -> list[dict[str, Any]]:
    return [{"if_match": info}, {"if_none_match": info}]
