"""A middleware for tests, which stands for encryption: no other decoder can read its output."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from trove_async.errors import IntegrityError
from trove_async.middleware import MAX_BLOCK, Plan

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trove_async.middleware import ObjectContext, Record, Span

_FLIPPED: Final = bytes(byte ^ 0x5A for byte in range(256))


class Xor:
    """Flips four bits of every byte. The sizes of a body and its encoded form are equal.

    Args:
        required: Whether objects that this has not encoded may not be read.
    """

    name: Final = "xor"

    def __init__(self, *, required: bool = False) -> None:
        self.required = required

    def __repr__(self) -> str:
        return "Xor()"

    async def encoder(self, context: ObjectContext) -> _Codec:
        del context
        return _Codec(None)

    def decoded_size(self, record: Record, encoded_size: int) -> int:
        if record:
            raise IntegrityError("the record is malformed")
        return encoded_size

    async def decoder(self, context: ObjectContext, record: Record, encoded_size: int) -> _Codec:
        del context
        return _Codec(self.decoded_size(record, encoded_size))

    async def is_current(
        self, context: ObjectContext, record: Record | None, *, renamed: bool
    ) -> bool:
        del context, renamed
        return record is not None


class _Codec:
    """The encoder, and with a size the decoder."""

    header: Final = b""
    index: Final[Span | None] = None

    def __init__(self, size: int | None) -> None:
        self.size = size

    def block_size(self, index: int) -> int:
        del index
        return MAX_BLOCK

    def encoded_size(self, size: int) -> int:
        return size

    def encode(self, index: int, block: memoryview, *, last: bool) -> bytes:
        del index, last
        return bytes(block).translate(_FLIPPED)

    def trailer(self, encoded_sizes: Sequence[int], size: int | None = None) -> bytes:
        del encoded_sizes, size
        return b""

    def record(self, size: int | None) -> Record:
        del size
        return {}

    def load_index(self, data: bytes) -> None:
        raise AssertionError(data)

    def plan(self, start: int, end: int) -> Plan:
        first, last = start // MAX_BLOCK, (end - 1) // MAX_BLOCK
        encoded = (first * MAX_BLOCK, min((last + 1) * MAX_BLOCK, self._known_size))
        return Plan(first=first, encoded=encoded, skip=start - encoded[0])

    @property
    def block_count(self) -> int:
        return max(-(-self._known_size // MAX_BLOCK), 1)

    def encoded_block_size(self, index: int, data: memoryview) -> int:
        del data
        return min(MAX_BLOCK, self._known_size - index * MAX_BLOCK)

    def decode(self, index: int, data: memoryview) -> bytes:
        del index
        return bytes(data).translate(_FLIPPED)

    @property
    def _known_size(self) -> int:
        assert self.size is not None
        return self.size
