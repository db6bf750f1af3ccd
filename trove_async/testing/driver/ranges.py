"""Conformance tests of range reads: a range returns exactly its bytes or raises RangeError.

Some services return the whole object for a range that they cannot satisfy. A driver must never do
so.
"""

from __future__ import annotations

import pytest

from trove_async.driver import AsyncDriver
from trove_async.errors import ObjectNotFoundError, RangeError
from trove_async.models import ByteRange, MiB
from trove_async.options import GetOptions, PutOptions
from trove_async.testing._harness import (
    assert_same,
    content,
    part_size,
    parts,
    read,
    read_to_end,
    uploading,
    views,
)
from trove_async.testing.driver._base import DriverTopic, needs

SELECTING = [
    (ByteRange(0, 1), (0, 1)),
    (ByteRange(0, 5), (0, 5)),
    (ByteRange(5, 6), (5, 6)),
    (ByteRange(0, 10), (0, 10)),
    (ByteRange(0, 11), (0, 10)),
    (ByteRange(9, 10), (9, 10)),
    (ByteRange(9, 10**15), (9, 10)),
    (ByteRange(0), (0, 10)),
    (ByteRange(3), (3, 10)),
    (ByteRange(9), (9, 10)),
    (ByteRange.last(1), (9, 10)),
    (ByteRange.last(4), (6, 10)),
    (ByteRange.last(10), (0, 10)),
    (ByteRange.last(11), (0, 10)),
    (ByteRange.last(10**15), (0, 10)),
]
"""Ranges of an object of ten bytes, and the start and end of the bytes that they select."""

BEYOND = [ByteRange(10), ByteRange(10, 11), ByteRange(11, 12), ByteRange(10**15)]
"""Ranges that select no bytes of an object of ten bytes."""

OF_EMPTY_OBJECT = [
    ByteRange(0),
    ByteRange(0, 1),
    ByteRange(1),
    ByteRange.last(1),
    ByteRange.last(9),
]
"""Ranges of an empty object. None of them selects any bytes."""

SPANS = [
    (0, 1),
    (MiB - 1, MiB + 1),
    (1, 3 * MiB),
    (2 * MiB, 2 * MiB + 1),
    (3 * MiB + 499, 3 * MiB + 500),
    (777, 2 * MiB + 778),
]
"""The start and end of ranges of an object of 3 MiB and 500 bytes."""


class DriverRanges(DriverTopic):
    """`get` with a range."""

    @pytest.mark.parametrize(("requested", "span"), SELECTING, ids=str)
    async def test_range_selects_its_bytes(
        self, backend: AsyncDriver, bucket: str, requested: ByteRange, span: tuple[int, int]
    ) -> None:
        needs(backend, "ranges")
        await backend.put(bucket, "key", views(b"0123456789"), PutOptions())
        async with backend.get(bucket, "key", GetOptions(range=requested)) as reader:
            # The store verifies and resumes the body with this range, so it must be absolute.
            assert reader.range == span
            assert reader.info.size == 10
            assert await read_to_end(reader) == b"0123456789"[slice(*span)]

    @pytest.mark.parametrize("requested", BEYOND, ids=str)
    async def test_range_beyond_the_end_raises(
        self, backend: AsyncDriver, bucket: str, requested: ByteRange
    ) -> None:
        needs(backend, "ranges")
        await backend.put(bucket, "key", views(b"0123456789"), PutOptions())
        with pytest.raises(RangeError):
            await read(backend, bucket, "key", range=requested)

    @pytest.mark.parametrize("requested", OF_EMPTY_OBJECT, ids=str)
    async def test_range_of_an_empty_object_raises(
        self, backend: AsyncDriver, bucket: str, requested: ByteRange
    ) -> None:
        needs(backend, "ranges")
        await backend.put(bucket, "key", [], PutOptions())
        with pytest.raises(RangeError):
            await read(backend, bucket, "key", range=requested)

    async def test_range_of_missing_object_raises_not_found(
        self, backend: AsyncDriver, bucket: str
    ) -> None:
        needs(backend, "ranges")
        with pytest.raises(ObjectNotFoundError):
            await read(backend, bucket, "missing", range=ByteRange(0, 1))

    @pytest.mark.parametrize("size", [1000, 10**9])
    async def test_range_of_long_object_selects_its_bytes(
        self, backend: AsyncDriver, bucket: str, size: int
    ) -> None:
        needs(backend, "ranges")
        body = content(3 * MiB + 500)
        await backend.put(bucket, "key", views(body), PutOptions())
        # Some ranges cross the borders of the chunks in which a driver receives a body.
        for start, end in SPANS:
            selected = await read(backend, bucket, "key", size=size, range=ByteRange(start, end))
            assert_same(selected, body[start:end])

    async def test_range_across_uploaded_parts_selects_its_bytes(
        self, backend: AsyncDriver, bucket: str
    ) -> None:
        capabilities = needs(backend, "ranges", "upload")
        size = part_size(capabilities)
        body = content(3 * size + 1)
        async with uploading(backend).upload(bucket, "key", PutOptions()) as running:
            for part, piece in parts(body, size):
                await running.send(part, piece)
            await running.commit({})
        for start, end in [
            (0, 1),
            (size - 1, size + 1),
            (size, 2 * size),
            (1, 3 * size),
            (3 * size, 3 * size + 1),
        ]:
            selected = await read(backend, bucket, "key", range=ByteRange(start, end))
            assert_same(selected, body[start:end])
        assert await read(backend, bucket, "key", range=ByteRange.last(size)) == body[-size:]
