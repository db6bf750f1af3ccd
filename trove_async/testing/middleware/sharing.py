"""Conformance tests of sharing: one middleware serves many objects, and instances are interchangeable."""

from __future__ import annotations

import asyncio
import inspect
from dataclasses import replace

import pytest

from trove_async._concurrency import task_group
from trove_async.middleware import Encoder, Middleware
from trove_async.testing._harness import assert_same
from trove_async.testing.middleware._base import MiddlewareTopic, not_encoded
from trove_async.testing.middleware._codec import (
    assemble,
    decode_body,
    encode_block,
    encode_blocks,
    read_range,
    split,
)

BODIES = 8
"""The number of bodies that are encoded at the same time."""


class MiddlewareSharing(MiddlewareTopic):
    """One middleware that is used for many objects, and two with the same settings."""

    @pytest.fixture
    def another_middleware(self, request: pytest.FixtureRequest) -> Middleware:
        """A second middleware, with the settings of `middleware`.

        The default calls the function of the fixture `middleware` once more. Override it if that
        fixture is a coroutine or a generator.
        """
        function = inspect.unwrap(type(self).middleware)
        if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
            pytest.skip("override the fixture `another_middleware`")
        names = list(inspect.signature(function).parameters)[1:]
        another: Middleware = function(
            self, **{name: request.getfixturevalue(name) for name in names}
        )
        return another

    async def test_another_instance_decodes_the_object(
        self, middleware: Middleware, another_middleware: Middleware
    ) -> None:
        for first, second in [
            (middleware, another_middleware),
            (another_middleware, middleware),
        ]:
            assert first.name == second.name
            for size_known in [True, False]:
                encoded = await self.encode_blocks(first, size_known=size_known)
                decoder = await self.decoder(second, encoded)
                assert_same(decode_body(decoder, encoded.data), encoded.body)
                size = len(encoded.body)
                decoder = await self.decoder(second, encoded)
                data, _ = read_range(decoder, encoded.data, size - 1, size)
                assert_same(data, encoded.body[-1:])

    async def test_one_instance_serves_many_objects_concurrently(
        self, middleware: Middleware
    ) -> None:
        sizes = await self.block_sizes(middleware)

        async def round_trip(number: int) -> None:
            body = self.body(sizes[0] + sizes[1] + number + 1)[number:]
            context = replace(self.context(len(body)), key=f"key-{number}.txt")
            encoder = await middleware.encoder(context)
            assert encoder is not None
            blocks = split(encoder, body)
            encoded = await asyncio.to_thread(encode_blocks, encoder, blocks)
            assert encoded is not None
            complete = assemble(encoder, body, blocks, encoded, len(body))
            data = complete.data
            context = replace(context, size=None)
            decoder = await middleware.decoder(context, complete.record, len(data))
            assert_same(await asyncio.to_thread(decode_body, decoder, data), body)

        async with task_group() as group:
            for number in range(BODIES):
                group.start_soon(round_trip, number)

    async def test_encoders_do_not_influence_each_other(self, middleware: Middleware) -> None:
        size = sum(await self.block_sizes(middleware))
        running: list[tuple[Encoder, bytes, list[memoryview], list[bytes]]] = []
        for body in [self.body(size), self.other_body(size)]:
            encoder = await self.encoder(middleware)
            blocks = split(encoder, body)
            first = encode_block(encoder, 0, blocks[0], last=len(blocks) == 1)
            if first is None:
                raise not_encoded(size)
            running.append((encoder, body, blocks, [first]))
        # The blocks of the two bodies take turns.
        for index in range(1, len(running[0][2])):
            for encoder, _, blocks, encoded in running:
                block = encode_block(encoder, index, blocks[index], last=index == len(blocks) - 1)
                assert block is not None
                encoded.append(block)
        complete = [assemble(*parts, None) for parts in running]
        decoders = [await self.decoder(middleware, encoded) for encoded in complete]
        for one, decoder in zip(complete, decoders, strict=True):
            assert_same(decode_body(decoder, one.data), one.body)

    async def test_context_and_record_are_only_read(self, middleware: Middleware) -> None:
        size = sum(await self.block_sizes(middleware))
        context = self.context(size)
        original = replace(context)
        encoded = await self.encode(middleware, self.body(size))
        record = dict(encoded.record)
        await middleware.encoder(context)
        await middleware.is_current(context, record, renamed=True)
        middleware.decoded_size(record, len(encoded.data))
        decoder = await middleware.decoder(context, record, len(encoded.data))
        assert_same(decode_body(decoder, encoded.data), encoded.body)
        assert context == original
        assert record == encoded.record

    async def test_object_is_decoded_by_its_record_alone(self, middleware: Middleware) -> None:
        encoded = await self.encode_blocks(middleware)
        context = self.context(None)
        # A copy may change the media type, and keeps the encoded bytes.
        for content_type in [None, "image/png", "application/x-other"]:
            context = replace(context, content_type=content_type)
            decoder = await middleware.decoder(context, encoded.record, len(encoded.data))
            assert_same(decode_body(decoder, encoded.data), encoded.body)
