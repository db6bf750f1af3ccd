"""Conformance tests of the names of buckets and objects.

A store refuses bad names before any I/O, and never changes a name that it accepts. Most bad names
are bad on every backend. The maximum length and dot segments depend on the backend.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from collections.abc import Set as AbstractSet
from typing import Any, ClassVar

import pytest

from trove_async import InvalidNameError, ObjectNotFoundError, Trove
from trove_async.testing.driver.odd_keys import ODD_KEYS
from trove_async.testing.store._base import StoreTopic, capabilities_of

Call = Callable[[Trove, str, str], Awaitable[Any]]

CALLS: list[tuple[str, Call]] = [
    ("put", lambda store, bucket, key: store.put(bucket, key, b"body")),
    ("get", lambda store, bucket, key: store.get(bucket, key).__aenter__()),
    ("read", lambda store, bucket, key: store.read(bucket, key)),
    ("get_ranges", lambda store, bucket, key: store.get_ranges(bucket, key, [(0, 1)])),
    ("head", lambda store, bucket, key: store.head(bucket, key)),
    ("exists", lambda store, bucket, key: store.exists(bucket, key)),
    ("delete", lambda store, bucket, key: store.delete(bucket, key)),
    ("copy from", lambda store, bucket, key: store.copy(bucket, key, "elsewhere", "key")),
    ("copy to", lambda store, bucket, key: store.copy("elsewhere", "key", bucket, key)),
    ("move from", lambda store, bucket, key: store.move(bucket, key, "elsewhere", "key")),
    ("move to", lambda store, bucket, key: store.move("elsewhere", "key", bucket, key)),
    ("presign_get", lambda store, bucket, key: store.presign_get(bucket, key)),
    ("presign_put", lambda store, bucket, key: store.presign_put(bucket, key)),
    ("explain", lambda store, bucket, key: store.explain(bucket, key)),
]

BAD_KEYS = [
    "",
    "a\0b",
    "\ud800",  # a lone surrogate, which UTF-8 cannot encode
    "x" * 1025,
    "\u00e9" * 513,  # 1026 bytes
]
DOT_KEYS = [".", "..", "./a", "../a", "a/.", "a/..", "a/./b", "a/../b", "/.."]
"""Keys with dot segments. A store never writes them, and only some backends can address them."""

WRITES = {"put", "copy to", "move to", "presign_put"}
READS = {"get", "read", "get_ranges", "head", "copy from", "move from"}
BAD_BUCKETS = ["", ".", "..", "a/b", "/", "a\0b", "\ud800", "x" * 223]


class StoreNames(StoreTopic):
    """Bad and unusual names of buckets and objects.

    Attributes:
        refused_keys: Members of `ODD_KEYS` that a backend cannot store. The tests omit them.
    """

    refused_keys: ClassVar[AbstractSet[str]] = frozenset()

    @pytest.mark.parametrize("call", [call for _, call in CALLS], ids=[name for name, _ in CALLS])
    async def test_bad_name_is_refused(self, store: Trove, bucket: str, call: Call) -> None:
        for key in BAD_KEYS:
            with pytest.raises(InvalidNameError):
                await call(store, bucket, key)
        for name in BAD_BUCKETS:
            with pytest.raises(InvalidNameError):
                await call(store, name, "key")
        # bytes would otherwise become the text "b'key'".
        with pytest.raises(TypeError):
            await call(store, bucket, b"key")  # type: ignore[arg-type]  # tested at run time
        assert await store.list(bucket).all() == []

    @pytest.mark.parametrize("name", sorted(WRITES))
    async def test_key_with_a_dot_segment_is_never_written(
        self, store: Trove, bucket: str, name: str
    ) -> None:
        for key in DOT_KEYS:
            with pytest.raises(InvalidNameError):
                await dict(CALLS)[name](store, bucket, key)

    @pytest.mark.parametrize("name", sorted(READS))
    async def test_key_with_a_dot_segment_is_addressed_or_refused(
        self, store: Trove, bucket: str, name: str
    ) -> None:
        for key in DOT_KEYS:
            # A backend that can address such a key reports that the object does not exist.
            addressed = (await capabilities_of(store, bucket, key)).dot_segments
            with pytest.raises(ObjectNotFoundError if addressed else InvalidNameError):
                await dict(CALLS)[name](store, bucket, key)

    async def test_bad_bucket_is_refused(self, store: Trove) -> None:
        for name in BAD_BUCKETS:
            with pytest.raises(InvalidNameError):
                await store.create_bucket(name)
            with pytest.raises(InvalidNameError):
                await store.delete_bucket(name)
            with pytest.raises(InvalidNameError):
                store.list(name)
            with pytest.raises(InvalidNameError):
                store.delete_many(name, [])

    async def test_odd_keys_do_not_collide(self, store: Trove, bucket: str) -> None:
        names = [key for key in ODD_KEYS if key not in self.refused_keys]
        for key in names:
            await store.put(bucket, key, key.encode())
        for key in names:
            assert await store.read(bucket, key) == key.encode()
            assert (await store.head(bucket, key)).key == key
        listing = store.list(bucket, page_size=10)
        listed = [entry.key async for entry in listing]
        in_order = sorted(names, key=str.encode)
        assert (listed if listing.ordered else sorted(listed, key=str.encode)) == in_order
        await store.delete_many(bucket, names)
        assert await store.list(bucket).all() == []

    async def test_key_beyond_max_key_bytes_is_refused(self, store: Trove, bucket: str) -> None:
        maximum = (await capabilities_of(store, bucket)).max_key_bytes
        await store.put(bucket, "k" * maximum, b"long")
        assert await store.read(bucket, "k" * maximum) == b"long"
        with pytest.raises(InvalidNameError):
            await store.put(bucket, "k" * (maximum + 1), b"longer")
        assert len(await store.list(bucket).all()) == 1
