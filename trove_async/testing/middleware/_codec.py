"""Encodes and decodes bodies in memory, as a store does.

The functions are the store's side of the contract in `trove_async.middleware`. If encoded bytes do not
fit together, they raise IntegrityError. If the middleware breaks the contract, they raise
AssertionError.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

from trove_async.errors import IntegrityError, RangeError
from trove_async.middleware import (
    MAX_BLOCK,
    MAX_EXPANSION,
    Decoder,
    Encoder,
    Middleware,
    ObjectContext,
    Record,
    Span,
)

MAX_INDEX_LOADS = 2
"""The maximum number of ranges that a decoder may load before it can plan. Each costs a request."""

SHORT_PREFIX = 32
"""Prefixes of an encoded block grow by single bytes up to this size, and are then doubled."""


@dataclass(frozen=True, kw_only=True)  # without slots, for the cached properties
class EncodedBody:
    """A body and the parts of its encoded form.

    Attributes:
        body: The body.
        block_sizes: The size of each block in bytes.
        record: The record, after a round trip through JSON.
        header: The bytes before the first encoded block.
        blocks: The encoded blocks.
        trailer: The bytes after the last encoded block.
    """

    body: bytes
    block_sizes: Sequence[int]
    record: Record
    header: bytes
    blocks: Sequence[bytes]
    trailer: bytes

    @cached_property
    def data(self) -> bytes:
        """The encoded form."""
        return b"".join((self.header, *self.blocks, self.trailer))

    @cached_property
    def borders(self) -> Sequence[int]:
        """Where each encoded block starts, and where the last one ends."""
        return list(accumulate(map(len, self.blocks), initial=len(self.header)))

    @cached_property
    def starts(self) -> Sequence[int]:
        """Where each block starts in the body, and where the last one ends."""
        return list(accumulate(self.block_sizes, initial=0))


async def encode_body(
    middleware: Middleware, context: ObjectContext, body: bytes
) -> EncodedBody | None:
    """Encode a body. None: the middleware leaves it as it is.

    Args:
        middleware: The middleware.
        context: The object. If its `size` is None, the record is also requested without the size.
        body: The body.
    """
    encoder = await middleware.encoder(context)
    if encoder is None:
        return None
    blocks = split(encoder, body)
    encoded = encode_blocks(encoder, blocks)
    if encoded is None:
        return None
    return assemble(encoder, body, blocks, encoded, context.size)


def assemble(
    encoder: Encoder,
    body: bytes,
    blocks: Sequence[memoryview],
    encoded: Sequence[bytes],
    size: int | None,
) -> EncodedBody:
    """Return the encoded form that consists of these encoded blocks.

    Args:
        encoder: The encoder of the blocks.
        body: The body.
        blocks: The blocks of the body.
        encoded: The encoded blocks.
        size: The size to pass to `Encoder.record`.
    """
    header = encoder.header
    assert isinstance(header, bytes)
    trailer = encoder.trailer([len(block) for block in encoded], len(body))
    assert isinstance(trailer, bytes)
    return EncodedBody(
        body=body,
        block_sizes=[len(block) for block in blocks],
        record=json.loads(json.dumps(dict(encoder.record(size)))),
        header=header,
        blocks=encoded,
        trailer=trailer,
    )


def split(encoder: Encoder, body: bytes | bytearray) -> list[memoryview]:
    """Split a body into blocks. An empty body is one empty block."""
    view = memoryview(body)
    blocks: list[memoryview] = []
    start = 0
    while start < len(body) or not blocks:
        size = encoder.block_size(len(blocks))
        assert 1 <= size <= MAX_BLOCK
        blocks.append(view[start : start + size])
        start += size
    return blocks


def encode_blocks(encoder: Encoder, blocks: Sequence[memoryview]) -> list[bytes] | None:
    """Encode the blocks of a body in order. None: the body is better stored as it is."""
    encoded: list[bytes] = []
    for index, block in enumerate(blocks):
        result = encode_block(encoder, index, block, last=index == len(blocks) - 1)
        if result is None:
            return None
        encoded.append(result)
    return encoded


def encode_block(encoder: Encoder, index: int, block: memoryview, *, last: bool) -> bytes | None:
    """Encode one block, and check that the result is allowed."""
    result = encoder.encode(index, block, last=last)
    if result is None:
        assert index == 0, f"encode({index}) returned None, which only encode(0) may do"
        return None
    assert isinstance(result, (bytes, bytearray, memoryview))
    if isinstance(result, memoryview):
        assert result.contiguous
        assert result.format == "B"
    encoded = bytes(result)
    assert len(encoded) <= len(block) + MAX_EXPANSION
    return encoded


def load_index(decoder: Decoder, data: bytes) -> list[Span]:
    """Load what `plan` needs. Return the ranges of the encoded form that were loaded.

    Args:
        decoder: The decoder.
        data: The encoded form.
    """
    spans: list[Span] = []
    while (span := decoder.index) is not None:
        start, end = span
        assert len(spans) < MAX_INDEX_LOADS, f"the decoder needs more than {len(spans)} loads"
        assert 0 <= start < end <= len(data), f"index {span} is outside of {len(data)} bytes"
        spans.append(span)
        decoder.load_index(data[start:end])
    assert decoder.size is not None, "the index is loaded, and the size is unknown"
    return spans


def decode_body(decoder: Decoder, data: bytes) -> bytes:
    """Decode a whole body from its beginning to its end.

    The index is loaded only if the decoder does not know the size without it.

    Args:
        decoder: The decoder.
        data: The encoded form.

    Raises:
        IntegrityError: The encoded form was altered.
    """
    if decoder.size is None:
        load_index(decoder, data)
    header = decoder.header
    if not data.startswith(header):
        raise IntegrityError("the header differs")
    view = memoryview(data)
    offset = len(header)
    sizes: list[int] = []
    body = bytearray()
    for index in range(decoder.block_count):
        block, size = decode_block(decoder, index, view[offset:])
        # Otherwise a forged number of blocks would keep a reader busy for as long as it claims.
        assert size or decoder.block_count == 1, "only the block of an empty body may be empty"
        body += block
        sizes.append(size)
        offset += size
    if view[offset:] != decoder.trailer(sizes):
        raise IntegrityError("the trailer differs")
    if len(body) != decoder.size:
        raise IntegrityError(f"expected {decoder.size} bytes, got {len(body)}")
    return bytes(body)


def read_range(decoder: Decoder, data: bytes, start: int, end: int) -> tuple[bytes, int]:
    """Read a range of the body. Return its bytes, and the number of encoded bytes that it needed.

    Args:
        decoder: The decoder.
        data: The encoded form.
        start: The start of the range.
        end: The end of the range, exclusive. It is clamped to the size of the body.

    Raises:
        IntegrityError: The encoded form was altered.
        RangeError: The range starts at or past the end.
    """
    fetched = sum(right - left for left, right in load_index(decoder, data))
    size = decoder.size
    assert size is not None
    end = min(end, size)
    if start >= end:
        raise RangeError(f"{start} is past the end of {size} bytes")
    index, (left, right), skip = decoder.plan(start, end)
    assert index >= 0
    assert skip >= 0
    assert 0 <= left < right <= len(data), f"plan {left, right} is outside of {len(data)} bytes"
    remaining = memoryview(data)[left:right]
    decoded = bytearray()
    while remaining:
        if index >= decoder.block_count:
            raise IntegrityError(f"bytes follow the last of {decoder.block_count} blocks")
        block, encoded_size = decode_block(decoder, index, remaining)
        assert encoded_size, "only the block of an empty body may be empty"
        decoded += block
        remaining = remaining[encoded_size:]
        index += 1
    if len(decoded) < skip + end - start:
        raise IntegrityError("the blocks are shorter than the range")
    return bytes(decoded[skip : skip + end - start]), fetched + right - left


def decode_block(decoder: Decoder, index: int, data: memoryview) -> tuple[bytes, int]:
    """Decode one block. Return it, and the size of its encoded form.

    Args:
        decoder: The decoder.
        index: The number of the block.
        data: The encoded block, possibly with bytes that follow it.

    Raises:
        IntegrityError: The encoded block was altered.
    """
    size = encoded_block_size(decoder, index, data)
    block = decoder.decode(index, data[:size])
    assert isinstance(block, bytes)
    assert len(block) <= MAX_BLOCK
    return block, size


def encoded_block_size(decoder: Decoder, index: int, data: memoryview) -> int:
    """Return the size of an encoded block, by passing longer and longer prefixes of it."""
    length = 0
    while (size := decoder.encoded_block_size(index, data[:length])) is None:
        if length >= len(data):
            raise IntegrityError(f"{length} bytes are less than an encoded block")
        assert length < MAX_BLOCK + MAX_EXPANSION, "an encoded block is too long"
        length = longer(length)
    assert 0 <= size <= MAX_BLOCK + MAX_EXPANSION
    if size > len(data):
        raise IntegrityError(f"an encoded block has {len(data)} of {size} bytes")
    return size


def longer(length: int) -> int:
    """Return the length of the next prefix to pass to `Decoder.encoded_block_size`."""
    return length + 1 if length < SHORT_PREFIX else 2 * length
