"""Conformance tests of round trips: an encoded body is decoded to the same bytes.

They also test encoders: their sizes and records, and that a result depends on the block alone.
"""

from __future__ import annotations

import json
from functools import partial
from types import NoneType

import pytest

from trove_async.middleware import (
    MAX_BLOCK,
    MAX_EXPANSION,
    EncodesInto,
    Middleware,
    Plan,
    RunsInline,
    Segmented,
)
from trove_async.models import KiB
from trove_async.testing._harness import assert_same, content
from trove_async.testing.middleware._base import (
    SIZE_KNOWN,
    MiddlewareTopic,
    in_threads,
    not_encoded,
)
from trove_async.testing.middleware._codec import (
    assemble,
    decode_body,
    encode_block,
    encode_blocks,
    encode_body,
    load_index,
    longer,
    split,
)

MAX_RECORD = 1 * KiB
"""The maximum size of a record as JSON: half of what S3 allows for all metadata of an object."""

MAX_BITS = 64
"""The maximum number of bits of a number in a record."""

LONG = [2**31 - 1, 2**31, 2**32 - 1, 2**32 + 1, 10**11]
"""Sizes in bytes that do not fit into 32 bits, or just do."""

GUARD = b"guard"
"""Bytes around the output of `encode_into`, which must not change."""


class MiddlewareRoundTrips(MiddlewareTopic):
    """Encoders, and decoders that read a whole body."""

    @SIZE_KNOWN
    async def test_every_body_is_restored(
        self, middleware: Middleware, *, size_known: bool
    ) -> None:
        encoded_count = 0
        for size in await self.sizes(middleware):
            body = self.body(size)
            context = self.context(size if size_known else None)
            encoded = await encode_body(middleware, context, body)
            if encoded is not None:
                encoded_count += 1
                decoder = await self.decoder(middleware, encoded)
                assert_same(decode_body(decoder, encoded.data), body)
        # A suite whose bodies are all left as they are would test nothing.
        assert encoded_count, "the middleware encodes no body of the suite: override `body`"

    @SIZE_KNOWN
    async def test_index_does_not_change_how_a_body_is_decoded(
        self, middleware: Middleware, *, size_known: bool
    ) -> None:
        encoded = await self.encode_blocks(middleware, size_known=size_known)
        decoder = await self.decoder(middleware, encoded)
        load_index(decoder, encoded.data)
        assert_same(decode_body(decoder, encoded.data), encoded.body)
        # A decoder may be shared by several readers.
        assert_same(decode_body(decoder, encoded.data), encoded.body)

    async def test_incompressible_blocks_are_restored(self, middleware: Middleware) -> None:
        first, second, third = await self.block_sizes(middleware)
        body = self.body(first) + content(second + third // 2)
        encoded = await self.encode(middleware, body)
        decoder = await self.decoder(middleware, encoded)
        assert_same(decode_body(decoder, encoded.data), body)

    @SIZE_KNOWN
    async def test_results_have_the_types_of_the_contract(
        self, middleware: Middleware, *, size_known: bool
    ) -> None:
        encoded = await self.encode_blocks(middleware, size_known=size_known)
        size, data = len(encoded.body), encoded.data
        encoder = await self.encoder(middleware)
        assert type(encoder.block_size(0)) is int
        assert type(encoder.encoded_size(size)) in {int, NoneType}
        assert type(middleware.decoded_size(encoded.record, len(data))) in {int, NoneType}
        decoder = await self.decoder(middleware, encoded)
        while (span := decoder.index) is not None:
            assert type(span) is tuple
            assert [type(position) for position in span] == [int, int]
            decoder.load_index(data[slice(*span)])
        assert type(decoder.size) is int
        assert type(decoder.block_count) is int
        assert type(decoder.header) is bytes
        sizes = [len(block) for block in encoded.blocks]
        assert type(decoder.trailer(sizes)) is bytes
        for index, block in enumerate(encoded.blocks):
            assert type(decoder.encoded_block_size(index, memoryview(block))) is int
        plan = decoder.plan(0, size)
        assert isinstance(plan, Plan)
        assert [type(value) for value in (plan.first, plan.skip)] == [int, int]
        assert type(plan.encoded) is tuple
        assert [type(position) for position in plan.encoded] == [int, int]

    async def test_optional_sizes_are_possible(self, middleware: Middleware) -> None:
        encoded = await self.encode_blocks(middleware)
        for codec in (await self.encoder(middleware), await self.decoder(middleware, encoded)):
            if isinstance(codec, RunsInline):
                assert type(codec.inline_size) is int
                assert 0 <= codec.inline_size <= MAX_BLOCK
        if isinstance(middleware, Segmented):
            assert type(middleware.segment_size) is int
            assert middleware.segment_size == len(
                encoded.blocks[1]
            )  # neither the first nor the last

    async def test_block_sizes_are_within_the_limits(self, middleware: Middleware) -> None:
        encoder = await self.encoder(middleware)
        for index in [0, 1, 2, 3, 100, 10**4, 10**6]:
            size = encoder.block_size(index)
            assert 1 <= size <= MAX_BLOCK
            assert encoder.block_size(index) == size

    @SIZE_KNOWN
    async def test_sizes_are_known_or_none(
        self, middleware: Middleware, *, size_known: bool
    ) -> None:
        for size in await self.sizes(middleware):
            context = self.context(size if size_known else None)
            encoder = await middleware.encoder(context)
            predicted = None if encoder is None else encoder.encoded_size(size)
            encoded = await encode_body(middleware, context, self.body(size))
            if encoded is None:
                continue
            data = encoded.data
            assert predicted in {None, len(data)}
            decoded_size = middleware.decoded_size(encoded.record, len(data))
            assert decoded_size in {None, size}
            decoder = await self.decoder(middleware, encoded)
            assert decoder.size in {decoded_size, size}
            load_index(decoder, data)
            assert decoder.size == size
            assert decoder.block_count == len(encoded.blocks)

    @SIZE_KNOWN
    async def test_sizes_of_long_objects_are_computed(
        self, middleware: Middleware, *, size_known: bool
    ) -> None:
        for size in LONG:
            encoder = await middleware.encoder(self.context(size if size_known else None))
            encoded_size = None if encoder is None else encoder.encoded_size(size)
            if encoder is None or encoded_size is None:
                continue
            first = self.body(encoder.block_size(0))
            if encode_block(encoder, 0, memoryview(first), last=False) is None:
                continue
            record = encoder.record(size if size_known else None)
            assert middleware.decoded_size(record, encoded_size) in {None, size}
            decoder = await middleware.decoder(self.context(None), record, encoded_size)
            if decoder.index is not None:
                continue
            assert decoder.size == size
            last = decoder.plan(size - 1, size)
            assert last.first == decoder.block_count - 1
            assert 0 < last.encoded[0] < last.encoded[1] <= encoded_size
            assert last.encoded[1] - last.encoded[0] <= MAX_BLOCK + MAX_EXPANSION
            assert last.skip < MAX_BLOCK

    @SIZE_KNOWN
    async def test_record_is_small_and_flat(
        self, middleware: Middleware, *, size_known: bool
    ) -> None:
        size = sum(await self.block_sizes(middleware))
        body = self.body(size)
        encoder = await middleware.encoder(self.context(size if size_known else None))
        if encoder is None:
            raise not_encoded(size)
        encode_blocks(encoder, split(encoder, body)[:1])
        record = encoder.record(size if size_known else None)
        for name, value in record.items():
            assert name.isidentifier()
            assert type(value) in {str, int, bool}
            assert not isinstance(value, int) or value.bit_length() <= MAX_BITS
        stored = json.dumps(dict(record))
        assert len(stored) <= MAX_RECORD
        assert json.loads(stored) == record

    async def test_name_is_an_identifier(self, middleware: Middleware) -> None:
        assert isinstance(middleware, Middleware)
        # It is stored in the metadata, and listed in `ObjectInfo.transforms`.
        assert middleware.name.replace("-", "_").isidentifier()
        assert middleware.name.isascii()
        assert isinstance(middleware.required, bool)

    async def test_encoded_object_is_current(self, middleware: Middleware) -> None:
        for size in await self.sizes(middleware):
            context = self.context(size)
            encoded = await encode_body(middleware, context, self.body(size))
            if encoded is not None:
                assert await middleware.is_current(context, encoded.record, renamed=False) is True

    async def test_plain_object_is_current_only_if_a_put_leaves_it_plain(
        self, middleware: Middleware
    ) -> None:
        for size in await self.sizes(middleware):
            context = self.context(size)
            left_as_it_is = await middleware.encoder(context) is None
            for renamed in [False, True]:
                current = await middleware.is_current(context, None, renamed=renamed)
                assert current is left_as_it_is

    async def test_encoding_does_not_depend_on_the_order(self, middleware: Middleware) -> None:
        encoder = await self.encoder(middleware)
        first, second, third = await self.block_sizes(middleware)
        body = self.body(first + second + third // 2 + 1)
        blocks = split(encoder, body)
        expected = encode_blocks(encoder, blocks)
        if expected is None:
            raise not_encoded(len(body))
        calls = [
            partial(encode_block, encoder, index, block, last=index == len(blocks) - 1)
            for index, block in enumerate(blocks)
        ]
        for call, encoded in zip(reversed(calls), reversed(expected), strict=True):
            assert_same(call() or b"", encoded)
        results = await in_threads(4 * calls)
        for result, encoded in zip(results, 4 * expected, strict=True):
            assert_same(result or b"", encoded)
        # Last, the encoded blocks must still be the blocks of one body.
        complete = assemble(encoder, body, blocks, expected, None)
        decoder = await self.decoder(middleware, complete)
        assert_same(decode_body(decoder, complete.data), body)

    async def test_result_does_not_refer_to_the_block(self, middleware: Middleware) -> None:
        encoder = await self.encoder(middleware)
        first, second, _ = await self.block_sizes(middleware)
        body = self.body(first + second)
        buffer = bytearray(max(first, second))
        results = []
        for index, block in enumerate(split(encoder, body)):
            view = memoryview(buffer)[: len(block)]
            view[:] = block
            result = encoder.encode(index, view, last=index == 1)
            assert_same(bytes(view), bytes(block))  # the encoder must not change the block
            if result is None:
                raise not_encoded(len(body))
            results.append((result, bytes(result)))
            buffer[:] = b"\xff" * len(buffer)
        for result, encoded in results:
            assert_same(bytes(result), encoded)

    async def test_encoding_into_memory_gives_the_same_bytes(self, middleware: Middleware) -> None:
        encoder = await self.encoder(middleware)
        if not isinstance(encoder, EncodesInto):
            pytest.skip("the encoder does not encode into memory")
        overhead = encoder.overhead
        assert type(overhead) is int
        assert 0 <= overhead <= MAX_EXPANSION
        first, second, third = await self.block_sizes(middleware)
        for size in [0, 1, first, first + second + third // 2 + 1]:
            encoder = await self.encoder(middleware)  # an encoder encodes one body
            assert isinstance(encoder, EncodesInto)
            blocks = split(encoder, self.body(size))
            for index, block in enumerate(blocks):
                last = index == len(blocks) - 1
                expected = encode_block(encoder, index, block, last=last)
                if expected is None:
                    break
                assert len(expected) == len(block) + overhead
                memory = bytearray(GUARD + bytes(len(expected)) + GUARD)
                output = memoryview(memory)[len(GUARD) : -len(GUARD)]
                encoder.encode_into(index, block, output, last=last)
                assert_same(memory, GUARD + expected + GUARD)
            assert encoder.overhead == overhead

    @SIZE_KNOWN
    async def test_encoded_block_size_needs_only_the_first_bytes(
        self, middleware: Middleware, *, size_known: bool
    ) -> None:
        encoded = await self.encode_blocks(middleware, size_known=size_known)
        decoder = await self.decoder(middleware, encoded)
        if decoder.size is None:
            load_index(decoder, encoded.data)
        view = memoryview(encoded.data)
        for index, (start, end) in enumerate(
            zip(encoded.borders[:-1], encoded.borders[1:], strict=True)
        ):
            length, known = 0, False
            while start + length < end:
                size = decoder.encoded_block_size(index, view[start : start + length])
                assert size == end - start if known else size in {None, end - start}
                known = size is not None
                length = longer(length)
            # The whole block, alone and with bytes that follow it.
            for data in [view[start:end], view[start : end + 1], view[start:]]:
                assert decoder.encoded_block_size(index, data) == end - start
