"""Checks the results of encoders, so that no object is stored that could not be read back.

A result that the contract forbids raises IntegrityError before the object becomes visible. An exception of the
encoder itself ends the put as it is, because no hostile bytes cause it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final

from trove_async._concurrency import wait_until_done
from trove_async._views import BytesLike
from trove_async.errors import IntegrityError
from trove_async.middleware import MAX_BLOCK, MAX_EXPANSION, Encoder, Record

from .block_workers import INLINE_SIZES, BlockWorkers
from .checked_decoder import shown

_METHODS: Final = ("block_size", "encoded_size", "encode", "trailer", "record")

_MAX_NUMBER: Final = 1 << 64
"""The limit of the numbers in a record. JSON has none, but Python does not parse a number of 4,300 digits."""


class CheckedEncoder:
    """The encoder of a middleware. Every method returns a result that the contract allows, or raises.

    Args:
        name: The name of the middleware.
        encoder: Its encoder of one body.

    Attributes:
        name: The name of the middleware.
        inline_size: The size of the largest block to encode on the event loop. None: the default.
        overhead: The number of bytes that `encode_into` adds to a block. None: the encoder does not have it.

    Raises:
        IntegrityError: The encoder breaks its contract.
    """

    __slots__ = ("_encoder", "inline_size", "name", "overhead")

    def __init__(self, name: str, encoder: Encoder) -> None:
        self.name = name
        self._encoder: Any = encoder  # its results may have any type
        if missing := [method for method in _METHODS if not hasattr(encoder, method)]:
            raise self.broken(f"{type(encoder).__name__} is not an encoder, it has no {missing[0]}")
        self.inline_size: int | None = getattr(encoder, "inline_size", None)  # see `RunsInline`
        if self.inline_size is not None and type(self.inline_size) is not int:
            raise self.broken("inline_size must be an int")
        self.overhead: int | None = None
        if hasattr(encoder, "encode_into"):  # see `EncodesInto`
            self.overhead = getattr(encoder, "overhead", None)
            if type(self.overhead) is not int or not 0 <= self.overhead <= MAX_EXPANSION:
                raise self.broken(
                    f"overhead must be 0 to {MAX_EXPANSION}, got {shown(self.overhead)}"
                )

    @property
    def header(self) -> bytes:
        """The bytes before the first encoded block."""
        return self._bytes("header", getattr(self._encoder, "header", None))

    def block_size(self, index: int) -> int:
        """Return the size in bytes of a block that is not the last."""
        size: int = self._encoder.block_size(index)
        if type(size) is not int or not 0 < size <= MAX_BLOCK:
            raise self.broken(f"block {index} must have 1 to {MAX_BLOCK} bytes, got {shown(size)}")
        return size

    def encoded_size(self, size: int) -> int | None:
        """Return the size of the encoded form of a body. None: it depends on the bytes."""
        encoded_size: int | None = self._encoder.encoded_size(size)
        if encoded_size is not None and (type(encoded_size) is not int or encoded_size < 0):
            raise self.broken(
                f"encoded_size({size}) must be None or at least 0, got {shown(encoded_size)}"
            )
        return encoded_size

    def encode(self, index: int, block: memoryview, *, last: bool) -> BytesLike | None:
        """Return an encoded block. None: the body is better left as it is. Called in any thread."""
        encoded: BytesLike | None = self._encoder.encode(index, block, last=last)
        if encoded is None and index == 0:
            return None
        if not isinstance(encoded, (bytes, bytearray, memoryview)):
            raise self.broken(f"encoded block {index} must be bytes, got {type(encoded).__name__}")
        if isinstance(encoded, memoryview) and not (encoded.contiguous and encoded.format == "B"):
            raise self.broken(f"encoded block {index} must be a contiguous view of bytes")
        size, least = len(encoded), min(len(block), 1)
        if not least <= size <= len(block) + MAX_EXPANSION:
            raise self.broken(
                f"encoded block {index} must have {least} to {len(block) + MAX_EXPANSION} bytes, got {size}"
            )
        # The first block is never encoded into memory, so that the body can be left as it is.
        if index == 0 and self.overhead is not None and size != len(block) + self.overhead:
            raise self.broken(
                f"overhead is {self.overhead}, but encode has added {size - len(block)} bytes"
            )
        return encoded

    def encode_into(self, index: int, block: memoryview, output: memoryview, *, last: bool) -> None:
        """Write an encoded block to memory. Called in any thread, only if `overhead` is not None."""
        self._encoder.encode_into(index, block, output, last=last)

    async def trailer(
        self, encoded_sizes: Sequence[int], size: int, workers: BlockWorkers
    ) -> bytes:
        """Return the bytes after the last encoded block. A large trailer is made in a thread."""
        if len(encoded_sizes) > INLINE_SIZES:
            make = partial(self._encoder.trailer, encoded_sizes, size)
            return self._bytes("trailer", await wait_until_done(workers.start(make)))
        return self._bytes("trailer", self._encoder.trailer(encoded_sizes, size))

    def record(self, size: int | None) -> Record:
        """Return the parameters that a decoder needs, as they are read back."""
        record: object = self._encoder.record(size)
        if not isinstance(record, Mapping):
            raise self.broken(f"record must return a mapping, got {type(record).__name__}")
        for name, value in record.items():
            if not isinstance(name, str):
                raise self.broken(f"a name in a record must be a str, got {type(name).__name__}")
            # Without the value: only readers of the object's metadata may see it.
            if not isinstance(value, (str, int)):
                kind = type(value).__name__
                raise self.broken(f"{name!r} in a record must be a str, int or bool, got {kind}")
            if isinstance(value, int) and abs(value) >= _MAX_NUMBER:
                raise self.broken(f"{name!r} in a record must have at most 64 bits")
        return dict(record)

    def broken(self, problem: str) -> IntegrityError:
        """Return the error of a body that the middleware does not encode correctly."""
        return IntegrityError(
            f"the middleware {self.name!r} has a bug: {problem}. Nothing was stored: test the middleware with"
            " trove_async.testing.MiddlewareSuite"
        )

    def _bytes(self, name: str, data: object) -> bytes:
        if not isinstance(data, bytes):
            raise self.broken(f"{name} must be bytes, got {type(data).__name__}")
        return data
