"""Conformance tests of ranges: a range needs only the blocks that overlap it."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from functools import partial
from itertools import combinations

from trove_async.middleware import Middleware, Plan, Span
from trove_async.testing._harness import assert_same
from trove_async.testing.middleware._base import (
    SIZE_KNOWN,
    MiddlewareTopic,
    generator,
    in_threads,
)
from trove_async.testing.middleware._codec import (
    EncodedBody,
    decode_block,
    encode_body,
    load_index,
    read_range,
)

RANDOM_RANGES = 20
"""The number of random ranges that are read."""


class MiddlewareRanges(MiddlewareTopic):
    """Decoders that read a range of a body."""

    @SIZE_KNOWN
    async def test_range_returns_its_bytes(
        self, middleware: Middleware, *, size_known: bool
    ) -> None:
        encoded = await self.encode_blocks(middleware, size_known=size_known)
        for start, end in [*ranges_around_borders(encoded), *random_ranges(encoded)]:
            decoder = await self.decoder(middleware, encoded)
            data, _ = read_range(decoder, encoded.data, start, end)
            assert_same(data, encoded.body[start:end])

    @SIZE_KNOWN
    async def test_plan_is_exactly_the_blocks_of_the_range(
        self, middleware: Middleware, *, size_known: bool
    ) -> None:
        encoded = await self.encode_blocks(middleware, size_known=size_known)
        decoder = await self.decoder(middleware, encoded)
        load_index(decoder, encoded.data)
        for start, end in [*ranges_around_borders(encoded), *random_ranges(encoded)]:
            assert decoder.plan(start, end) == expected_plan(encoded, start, end)
        for index, (start, end) in enumerate(
            zip(encoded.starts[:-1], encoded.starts[1:], strict=True)
        ):
            assert decoder.plan(start, end).first == index

    async def test_ranges_of_short_bodies_return_their_bytes(self, middleware: Middleware) -> None:
        for size in await self.sizes(middleware):
            encoded = await encode_body(middleware, self.context(size), self.body(size))
            if encoded is None:
                continue
            decoder = await self.decoder(middleware, encoded)
            for start, end in {(0, 1), (0, size), (size // 2, size), (size - 1, size)}:
                if 0 <= start < end <= size:
                    data, _ = read_range(decoder, encoded.data, start, end)
                    assert_same(data, encoded.body[start:end])
                    assert decoder.plan(start, end) == expected_plan(encoded, start, end)

    @SIZE_KNOWN
    async def test_index_is_loaded_once(self, middleware: Middleware, *, size_known: bool) -> None:
        for size in await self.sizes(middleware):
            context = self.context(size if size_known else None)
            encoded = await encode_body(middleware, context, self.body(size))
            if encoded is None:
                continue
            data = encoded.data
            decoder = await self.decoder(middleware, encoded)
            spans = load_index(decoder, data)
            assert len(set(spans)) == len(spans), "the decoder loads a range twice"
            assert load_index(decoder, data) == []
            # The index of an object depends on the object alone.
            assert load_index(await self.decoder(middleware, encoded), data) == spans

    async def test_range_does_not_need_other_blocks(self, middleware: Middleware) -> None:
        encoded = await self.encode_blocks(middleware)
        decoder = await self.decoder(middleware, encoded)
        load_index(decoder, encoded.data)
        for index, (start, end) in enumerate(
            zip(encoded.starts[:-1], encoded.starts[1:], strict=True)
        ):
            left, right = encoded.borders[index], encoded.borders[index + 1]
            # The decoder must not read the bytes of other blocks, so they are replaced by zeros.
            data = bytes(left) + encoded.data[left:right] + bytes(len(encoded.data) - right)
            assert_same(read_range(decoder, data, start, end)[0], encoded.body[start:end])

    async def test_blocks_decode_in_any_order_and_in_threads(self, middleware: Middleware) -> None:
        encoded = await self.encode_blocks(middleware)
        decoder = await self.decoder(middleware, encoded)
        load_index(decoder, encoded.data)
        view = memoryview(encoded.data)
        calls = [
            partial(decode_block, decoder, index, view[start:])
            for index, start in enumerate(encoded.borders[:-1])
        ]
        blocks = [
            encoded.body[start:end]
            for start, end in zip(encoded.starts[:-1], encoded.starts[1:], strict=True)
        ]
        for call, block in zip(reversed(calls), reversed(blocks), strict=True):
            assert_same(call()[0], block)
        results = await in_threads(4 * calls)
        for (decoded, _), block in zip(results, 4 * blocks, strict=True):
            assert_same(decoded, block)

    async def test_threads_share_a_decoder(self, middleware: Middleware) -> None:
        encoded = await self.encode_blocks(middleware)
        decoder = await self.decoder(middleware, encoded)
        load_index(decoder, encoded.data)
        ranges = random_ranges(encoded)[:8]
        calls = [partial(read_range, decoder, encoded.data, start, end) for start, end in ranges]
        results = await in_threads(calls)
        for (start, end), (data, _) in zip(ranges, results, strict=True):
            assert_same(data, encoded.body[start:end])


def ranges_around_borders(encoded: EncodedBody) -> list[Span]:
    """Return all ranges that start and end at a border of blocks, or next to one."""
    size = len(encoded.body)
    positions = {border + step for border in encoded.starts for step in (-1, 0, 1)}
    return list(combinations(sorted(each for each in positions if 0 <= each <= size), 2))


def random_ranges(encoded: EncodedBody) -> list[Span]:
    """Return the same random ranges in every run."""
    random = generator("ranges")
    ranges = []
    for _ in range(RANDOM_RANGES):
        start = random.randrange(len(encoded.body))
        ranges.append((start, random.randint(start + 1, len(encoded.body))))
    return ranges


def expected_plan(encoded: EncodedBody, start: int, end: int) -> Plan:
    """Return the only correct plan of a range."""
    first = bisect_right(encoded.starts, start) - 1
    after_last = bisect_left(encoded.starts, end)
    span = (encoded.borders[first], encoded.borders[after_last])
    return Plan(first=first, encoded=span, skip=start - encoded.starts[first])
