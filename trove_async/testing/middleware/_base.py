"""Base class of the middleware topics, with bodies whose sizes are around the borders of blocks."""

from __future__ import annotations

import asyncio
import hashlib
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import accumulate
from random import Random
from threading import Barrier
from typing import ClassVar, TypeVar

import pytest

from trove_async.middleware import MAX_BLOCK, Decoder, Encoder, Middleware, ObjectContext
from trove_async.testing.middleware._codec import EncodedBody, encode_body

T = TypeVar("T")

SMALL = [50, 500, 5_000, 50_000]
"""Sizes of bodies, from which the tests that damage every byte take the first that is encoded."""

OTHER = 4_099
"""`other_body` begins at this offset of a longer body."""

SIZE_KNOWN = pytest.mark.parametrize(
    "size_known", [True, False], ids=["size-known", "size-unknown"]
)
"""Whether the size of the body is known when it is encoded."""


class MiddlewareTopic:
    """Tests of a middleware.

    A test class must override the fixture `middleware`. It may override `body` and `context`, if the
    middleware does not encode every body of every object.
    """

    pytestmark: ClassVar = [pytest.mark.asyncio]

    @pytest.fixture
    def middleware(self) -> Middleware:
        """The middleware under test."""
        raise NotImplementedError("override the fixture `middleware`: return your middleware")

    def body(self, size: int) -> bytes:
        """Return a body that the middleware encodes, unless it is too small.

        Two calls with one size must return the same bytes. The default is text that does not repeat
        itself, and is compressible.
        """
        return _text(size)

    def context(self, size: int | None) -> ObjectContext:
        """Return an object that the middleware encodes."""
        return ObjectContext(
            bucket="bucket",
            key="folder/key.txt",
            backend="default",
            content_type="text/plain",
            size=size,
        )

    def other_body(self, size: int) -> bytes:
        """Return a second body that the middleware encodes. It differs from `body`."""
        return self.body(size + OTHER)[OTHER:]

    async def encoder(self, middleware: Middleware) -> Encoder:
        """Return an encoder for a body of unknown size, or else for a long one."""
        for size in (None, 3 * MAX_BLOCK):
            encoder = await middleware.encoder(self.context(size))
            if encoder is not None:
                return encoder
        raise not_encoded(3 * MAX_BLOCK)

    async def block_sizes(self, middleware: Middleware, count: int = 3) -> list[int]:
        """Return the sizes of the first `count` blocks of a longer body."""
        encoder = await self.encoder(middleware)
        return [encoder.block_size(index) for index in range(count)]

    async def sizes(self, middleware: Middleware) -> list[int]:
        """Return sizes of bodies around the borders of blocks."""
        first, second, third = accumulate(await self.block_sizes(middleware))
        borders = [0, 1, first - 1, first, first + 1, second - 1, second, second + 1, third + 7]
        return sorted(set(borders))

    async def encode(
        self, middleware: Middleware, body: bytes, *, size_known: bool = True
    ) -> EncodedBody:
        """Encode a body. The test fails if the middleware leaves it as it is."""
        context = self.context(len(body) if size_known else None)
        encoded = await encode_body(middleware, context, body)
        if encoded is None:
            raise not_encoded(len(body))
        return encoded

    async def encode_blocks(
        self, middleware: Middleware, *, size_known: bool = True
    ) -> EncodedBody:
        """Encode a body of three blocks. The last one is shorter than the others."""
        first, second, third = await self.block_sizes(middleware)
        size = first + second + (third + 1) // 2
        return await self.encode(middleware, self.body(size), size_known=size_known)

    async def encode_small(self, middleware: Middleware, *, size_known: bool = True) -> EncodedBody:
        """Encode a small body."""
        for size in SMALL:
            context = self.context(size if size_known else None)
            encoded = await encode_body(middleware, context, self.body(size))
            if encoded is not None:
                return encoded
        return await self.encode_blocks(middleware, size_known=size_known)

    async def decoder(
        self, middleware: Middleware, encoded: EncodedBody, data: bytes | None = None
    ) -> Decoder:
        """Return a decoder for an encoded body.

        Args:
            middleware: The middleware.
            encoded: The encoded body.
            data: The stored bytes, if they are not the encoded form.
        """
        length = len(encoded.data if data is None else data)
        return await middleware.decoder(self.context(None), encoded.record, length)


def not_encoded(size: int) -> AssertionError:
    """Return the failure of a test that needs a body of this size which the middleware encodes."""
    return AssertionError(
        f"the middleware leaves {size} bytes as they are: override `body` or `context`, or change its "
        "settings"
    )


def _text(size: int) -> bytes:
    return _long_text(max(4 * MAX_BLOCK, 1 << size.bit_length()))[:size]


@lru_cache(maxsize=1)
def _long_text(size: int) -> bytes:
    letters = hashlib.shake_128(b"letters").digest(256 * 9)
    words = [
        bytes(97 + letter % 26 for letter in letters[9 * word : 9 * word + 1 + word % 9]) + b" "
        for word in range(256)
    ]
    words[0] = b"\n"
    # The mean length of a word is 6, so a quarter of the size is more than enough words.
    text = b"".join(map(words.__getitem__, hashlib.shake_128(b"words").digest(size // 4)))
    assert len(text) >= size
    return text


def generator(seed: str) -> Random:
    """Return a generator of the same random numbers in every run."""
    return Random(seed)  # noqa: S311 - the numbers select test cases


async def in_threads(calls: Sequence[Callable[[], T]]) -> list[T]:
    """Run calls at the same time, each in its own thread. Return their results in order."""
    return await asyncio.to_thread(_in_threads, calls)


def _in_threads(calls: Sequence[Callable[[], T]]) -> list[T]:
    barrier = Barrier(len(calls))

    def run(call: Callable[[], T]) -> T:
        barrier.wait()
        return call()

    # With the usual interval, a short call would end before another thread runs.
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(len(calls)) as threads:
            return list(threads.map(run, calls))
    finally:
        sys.setswitchinterval(interval)
