"""Conformance tests of integrity: altered bytes and forged records never become wrong bytes.

Each read of a damaged object must raise IntegrityError or return exactly the right bytes. Any other
error fails the test, because a store does not handle it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any, ClassVar

import pytest

from trove_async.errors import IntegrityError, RangeError
from trove_async.middleware import Middleware
from trove_async.models import KiB
from trove_async.testing._harness import assert_same, content
from trove_async.testing.middleware._base import MiddlewareTopic, generator
from trove_async.testing.middleware._codec import (
    EncodedBody,
    decode_block,
    decode_body,
    encode_body,
    load_index,
    read_range,
)

MAX_FLIPS = 1_024
"""The maximum number of bits of a small encoded form that are flipped, one at a time."""

MAX_INDEX_FLIPS = 128
"""The same for each range of the index of a longer encoded form."""

RANDOM_POSITIONS = 16
"""The number of random positions at which a longer encoded form is damaged."""

FORGED: list[Any] = [
    *["", "x", "0", "1", "-1", "1e3", "é", "\0", "x" * 1_000],
    *[-(2**63), -1, 0, 1, 2, 2**16, 2**31, 2**32, 2**63, 2**64, 10**30],
    *[True, False, None, 1.5, [], [1], {}],
]
"""Values that replace each value of a record. JSON allows types that a record does not."""

SIZES = [0, 1, 2, 15, 16, 17, 63, 64, 2**31, 2**32, 2**63, 2**64]
"""Sizes of an encoded form that do not fit the record."""


class MiddlewareIntegrity(MiddlewareTopic):
    """Objects that were damaged or forged.

    Attributes:
        binds_blocks: Whether a decoder detects a block that was moved from another place or object,
            even if its encoded form has the right size. Formats that do not authenticate, such as
            those of compression, usually cannot. A test class for one of them must set it to False.
    """

    binds_blocks: ClassVar[bool] = True

    async def test_truncated_object_is_refused(self, middleware: Middleware) -> None:
        for size_known in [True, False]:
            encoded = await self.encode_blocks(middleware, size_known=size_known)
            data = encoded.data
            for length in positions(encoded):
                await self.assert_never_wrong(middleware, encoded, data[:length])

    async def test_object_with_appended_bytes_is_refused(self, middleware: Middleware) -> None:
        for size_known in [True, False]:
            encoded = await self.encode_blocks(middleware, size_known=size_known)
            small = await self.encode_small(middleware)
            for tail in [b"\0", b"\xff" * 16, bytes(64 * KiB), encoded.blocks[-1], encoded.trailer]:
                await self.assert_never_wrong(middleware, encoded, encoded.data + tail)
            for tail in [b"\0", small.blocks[-1], small.trailer, small.data]:
                await self.assert_never_wrong(middleware, small, small.data + tail)

    async def test_flipped_bit_in_a_small_object_is_noticed(self, middleware: Middleware) -> None:
        for size_known in [True, False]:
            objects = [await self.encode_small(middleware, size_known=size_known)]
            for size in [0, 1]:
                context = self.context(size if size_known else None)
                tiny = await encode_body(middleware, context, self.body(size))
                objects += [] if tiny is None else [tiny]
            for encoded in objects:
                for bit in sampled(range(8 * len(encoded.data)), MAX_FLIPS):
                    await self.assert_never_wrong(middleware, encoded, flipped(encoded.data, bit))

    async def test_flipped_bit_near_a_border_is_noticed(self, middleware: Middleware) -> None:
        encoded = await self.encode_blocks(middleware)
        for position in positions(encoded):
            bit = 8 * position + position % 8
            await self.assert_never_wrong(middleware, encoded, flipped(encoded.data, bit))

    async def test_overwritten_block_is_refused(self, middleware: Middleware) -> None:
        encoded = await self.encode_blocks(middleware)
        for index, block in enumerate(encoded.blocks):
            for forged in [bytes(len(block)), b"\xff" * len(block), content(len(block))]:
                await self.assert_never_wrong(
                    middleware, encoded, rebuilt(encoded, {index: forged})
                )

    async def test_dropped_doubled_and_swapped_blocks_are_refused(
        self, middleware: Middleware
    ) -> None:
        sizes = await self.block_sizes(middleware)
        # All blocks are full, so that the encoded blocks may have the same size.
        for size_known in [True, False]:
            encoded = await self.encode(middleware, self.body(sum(sizes)), size_known=size_known)
            blocks = encoded.blocks
            for index, block in enumerate(blocks):
                changes: list[dict[int, bytes]] = [{index: b""}, {index: block + block}]
                for other in range(index):
                    changes.append({index: blocks[other], other: block})
                    changes.append({index: blocks[other]})
                    changes.append({other: block})
                for change in changes:
                    data = rebuilt(encoded, change)
                    await self.assert_never_wrong(middleware, encoded, data)

    async def test_blocks_of_another_object_are_refused(self, middleware: Middleware) -> None:
        size = sum(await self.block_sizes(middleware))
        encoded = await self.encode(middleware, self.body(size))
        other = await self.encode(middleware, self.other_body(size))
        assert other.body != encoded.body
        for index, block in enumerate(other.blocks):
            await self.assert_never_wrong(middleware, encoded, rebuilt(encoded, {index: block}))
        for parts in [
            replace(encoded, header=other.header),
            replace(encoded, trailer=other.trailer),
            replace(encoded, header=other.header, trailer=other.trailer),
        ]:
            await self.assert_never_wrong(middleware, encoded, parts.data)

    async def test_moved_blocks_of_equal_size_are_refused(self, middleware: Middleware) -> None:
        if not self.binds_blocks:
            pytest.skip("the format does not bind blocks to their place")
        first, *following = await self.block_sizes(middleware, 4)
        start = self.body(first)
        # Incompressible blocks of one size are encoded to one size, even by a compression.
        encoded, other = [
            await self.encode(middleware, start + content(sum(following), seed))
            for seed in ("one", "two")
        ]
        # The two blocks in the middle differ only in their place: neither is the first or the last.
        _, left, right, _ = encoded.blocks
        for change in [{1: right, 2: left}, {1: right}, {2: left}]:
            await self.assert_never_wrong(middleware, encoded, rebuilt(encoded, change))
        for index, block in enumerate(other.blocks):
            await self.assert_never_wrong(middleware, encoded, rebuilt(encoded, {index: block}))

    async def test_shorter_object_of_another_size_is_refused(self, middleware: Middleware) -> None:
        sizes = await self.block_sizes(middleware)
        encoded = await self.encode(middleware, self.body(sum(sizes)))
        # The blocks of this body have the same bytes, but the last one is the last.
        shorter = await self.encode(middleware, self.body(sizes[0] + sizes[1]))
        await self.assert_never_wrong(middleware, encoded, shorter.data)
        await self.assert_never_wrong(middleware, shorter, encoded.data)
        await self.assert_never_wrong(
            middleware, encoded, rebuilt(encoded, {1: shorter.blocks[1], 2: b""})
        )

    async def test_altered_index_is_noticed(self, middleware: Middleware) -> None:
        for size_known in [True, False]:
            encoded = await self.encode_blocks(middleware, size_known=size_known)
            data = encoded.data
            spans = load_index(await self.decoder(middleware, encoded), data)
            for start, end in spans:
                for bit in sampled(range(8 * start, 8 * end), MAX_INDEX_FLIPS):
                    await self.assert_never_wrong(middleware, encoded, flipped(data, bit))
                size = end - start
                for forged in [bytes(size), b"\xff" * size, content(size), data[start:end][::-1]]:
                    altered = data[:start] + forged + data[end:]
                    await self.assert_never_wrong(middleware, encoded, altered)

    async def test_forged_record_is_refused(self, middleware: Middleware) -> None:
        for size_known in [True, False]:
            encoded = await self.encode_blocks(middleware, size_known=size_known)
            for record in forged_records(encoded.record):
                forged = replace(encoded, record=record)
                await self.assert_never_wrong(middleware, forged, encoded.data)

    async def test_forged_record_of_a_small_object_is_refused(self, middleware: Middleware) -> None:
        encoded = await self.encode_small(middleware)
        for record in forged_records(encoded.record):
            forged = replace(encoded, record=record)
            await self.assert_never_wrong(middleware, forged, encoded.data)

    async def test_forged_record_is_refused_or_not_current(self, middleware: Middleware) -> None:
        encoded = await self.encode_blocks(middleware)
        context = self.context(len(encoded.body))
        for record in forged_records(encoded.record):
            with suppress(IntegrityError):
                current = await middleware.is_current(context, record, renamed=False)
                assert isinstance(current, bool)

    async def test_size_that_does_not_fit_the_record_is_refused(
        self, middleware: Middleware
    ) -> None:
        for size_known in [True, False]:
            encoded = await self.encode_blocks(middleware, size_known=size_known)
            exact = len(encoded.data)
            for size in [*SIZES, exact - 1, exact + 1, 2 * exact]:
                try:
                    decoded_size = middleware.decoded_size(encoded.record, size)
                    assert decoded_size is None or decoded_size >= 0
                    decoder = await middleware.decoder(self.context(None), encoded.record, size)
                    if decoder.index is not None:
                        start, end = decoder.index
                        assert 0 <= start < end <= size
                except IntegrityError:
                    continue

    async def test_empty_and_foreign_objects_are_refused(self, middleware: Middleware) -> None:
        encoded = await self.encode_blocks(middleware)
        for data in [b"", b"\0", encoded.body, content(len(encoded.data)), bytes(64 * KiB)]:
            await self.assert_never_wrong(middleware, encoded, data)

    async def test_damaged_block_does_not_affect_the_others(self, middleware: Middleware) -> None:
        encoded = await self.encode_blocks(middleware)
        decoder = await self.decoder(middleware, encoded)
        load_index(decoder, encoded.data)
        for index, block in enumerate(encoded.blocks):
            with suppress(IntegrityError):
                decode_block(decoder, index, memoryview(content(len(block))))
        assert_same(decode_body(decoder, encoded.data), encoded.body)

    async def assert_never_wrong(
        self, middleware: Middleware, encoded: EncodedBody, data: bytes
    ) -> None:
        """Read a damaged object. Assert that each read is refused, or returns the right bytes.

        Args:
            middleware: The middleware.
            encoded: The body, and the record that is stored with the object.
            data: The bytes that are stored.
        """
        try:
            size = middleware.decoded_size(encoded.record, len(data))
        except IntegrityError:
            size = None
        assert size is None or size >= 0
        try:
            body = decode_body(await self.decoder(middleware, encoded, data), data)
        except IntegrityError:
            pass
        else:
            assert_same(body, encoded.body)
        for start, end in zip(encoded.starts[:-1], encoded.starts[1:], strict=True):
            if start == end:
                continue  # an empty body has no ranges
            try:
                decoder = await self.decoder(middleware, encoded, data)
                got, _ = read_range(decoder, data, start, end)
            except (IntegrityError, RangeError):
                continue
            # A range that is cut off by a wrong size is wrong, too.
            assert_same(got, encoded.body[start:end])


def positions(encoded: EncodedBody) -> list[int]:
    """Return positions in an encoded form: around each border, and at random."""
    size = len(encoded.data)
    around = {border + step for border in (0, *encoded.borders, size) for step in range(-2, 3)}
    random = generator("positions")
    around.update(random.randrange(size) for _ in range(RANDOM_POSITIONS))
    return sorted(position for position in around if 0 <= position < size)


def sampled(choices: range, limit: int) -> list[int]:
    """Return all choices, or a random sample of `limit` of them."""
    if len(choices) <= limit:
        return list(choices)
    return generator("sample").sample(choices, limit)


def flipped(data: bytes, bit: int) -> bytes:
    """Flip one bit of an encoded form."""
    altered = bytearray(data)
    altered[bit // 8] ^= 1 << bit % 8
    return bytes(altered)


def rebuilt(encoded: EncodedBody, changes: Mapping[int, bytes]) -> bytes:
    """Return the encoded form with some blocks replaced."""
    blocks = [changes.get(index, block) for index, block in enumerate(encoded.blocks)]
    return replace(encoded, blocks=blocks).data


def forged_records(record: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield records that differ from a correct one, mostly in one value."""
    yield {}
    yield {**record, "unknown": 1}
    yield {**record, "unknown_text": "x" * 1_000}
    for name, value in record.items():
        yield {other: record[other] for other in record if other != name}
        yield {**{other: record[other] for other in record if other != name}, name + "_": value}
        yield dict.fromkeys(record, value)
        for forged in [*FORGED, *similar(value)]:
            if not (type(forged) is type(value) and forged == value):
                yield {**record, name: forged}


def similar(value: object) -> Iterator[object]:
    """Yield values that look like a correct one."""
    if type(value) is int:
        yield from [value - 1, value + 1, -value, 2 * value, str(value), float(value)]
    elif isinstance(value, str):
        yield from [value[:-1], value + value[-1:], value + "=", value * 2, value.swapcase()]
        yield from [value[::-1], " " + value, value + "\n"]
