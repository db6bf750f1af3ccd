"""A middleware with blocks of any sizes, which the built-in middlewares do not have.

An encoded block is its number in 4 bytes and the inverted bytes of the block::

    HEAD | 00000000 ... | 00000001 ... | END | block count in 4 bytes
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trove_async import IntegrityError
from trove_async.middleware import Plan

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from trove_async.middleware import Decoder, Encoder, ObjectContext, Record

HEADER = b"HEAD"
OVERHEAD = 4
TRAILER_SIZE = 7
INVERTED = bytes(255 - value for value in range(256))


class Framed:
    """Inverts the bytes of a body.

    Args:
        block_size: Returns the size of a block.
        into: Whether encoders implement `EncodesInto`.
        declines: Whether encoders leave every body as it is.
        name: The name of the format.
        least: The size below which `encoder` returns None.
    """

    required = False

    def __init__(
        self,
        block_size: Callable[[int], int] = lambda _: 1000,
        *,
        into: bool = False,
        declines: bool = False,
        name: str = "framed",
        least: int = 0,
    ) -> None:
        self.name = name
        self.block_size = block_size
        self.into = into
        self.declines = declines
        self.least = least
        self.contexts: list[ObjectContext] = []

    def __repr__(self) -> str:
        return f"Framed({self.name!r})"

    async def encoder(self, context: ObjectContext) -> Encoder | None:
        self.contexts.append(context)
        if context.size is not None and context.size < self.least:
            return None
        return (FramedIntoEncoder if self.into else FramedEncoder)(self)

    def decoded_size(self, record: Record, encoded_size: int) -> int:
        return sum(self.sizes(record, encoded_size))

    def sizes(self, record: Record, encoded_size: int) -> Sequence[int]:
        """Return the size of each block."""
        if record != {"format": 1}:
            raise IntegrityError("the framed record is malformed")
        sizes: list[int] = []
        unassigned = encoded_size - len(HEADER) - TRAILER_SIZE
        while unassigned > 0:
            sizes.append(min(self.block_size(len(sizes)), unassigned - OVERHEAD))
            unassigned -= sizes[-1] + OVERHEAD
        if not sizes or sizes[-1] < min(1, len(sizes) - 1):
            raise IntegrityError(f"no framed body has {encoded_size} bytes")
        return sizes

    async def decoder(self, context: ObjectContext, record: Record, encoded_size: int) -> Decoder:  # noqa: ARG002 - the contract
        return FramedDecoder(self.sizes(record, encoded_size))

    async def is_current(
        self,
        context: ObjectContext,
        record: Record | None,
        *,
        renamed: bool,  # noqa: ARG002 - the contract
    ) -> bool:
        is_small = context.size is not None and context.size < self.least
        return record is not None or is_small


class FramedEncoder:
    """Encodes one body."""

    header = HEADER

    def __init__(self, framed: Framed) -> None:
        self._framed = framed

    def block_size(self, index: int) -> int:
        return self._framed.block_size(index)

    def encoded_size(self, size: int) -> int:
        count, unassigned = 1, size - self.block_size(0)
        while unassigned > 0:
            unassigned -= self.block_size(count)
            count += 1
        return len(HEADER) + size + OVERHEAD * count + TRAILER_SIZE

    def encode(self, index: int, block: memoryview, *, last: bool) -> bytes | None:
        if self._framed.declines:
            return None
        full = self.block_size(index)
        assert len(block) == full or (last and len(block) < full)
        assert block or index == 0
        return index.to_bytes(4, "big") + bytes(block).translate(INVERTED)

    def trailer(self, encoded_sizes: Sequence[int], size: int) -> bytes:
        assert size == sum(encoded_sizes) - OVERHEAD * len(encoded_sizes)
        return b"END" + len(encoded_sizes).to_bytes(4, "big")

    def record(self, size: int | None) -> Record:  # noqa: ARG002 - the contract
        return {"format": 1}


class FramedIntoEncoder(FramedEncoder):
    """An encoder that also implements `EncodesInto`."""

    overhead = OVERHEAD

    def encode_into(self, index: int, block: memoryview, output: memoryview, *, last: bool) -> None:
        encoded = self.encode(index, block, last=last)
        assert encoded is not None
        output[:] = encoded


class FramedDecoder:
    """Decodes one object."""

    header = HEADER
    index = None

    def __init__(self, sizes: Sequence[int]) -> None:
        self._sizes = sizes
        self.size = sum(sizes)
        self.block_count = len(sizes)

    def load_index(self, data: bytes) -> None:
        raise AssertionError(f"there is no index, got {len(data)} bytes")

    def plan(self, start: int, end: int) -> Plan:
        first: int | None = None
        position, encoded, encoded_start, skip = 0, len(HEADER), 0, 0
        for index, size in enumerate(self._sizes):
            if first is None and start < position + size:
                first, encoded_start, skip = index, encoded, start - position
            position, encoded = position + size, encoded + OVERHEAD + size
            if first is not None and end <= position:
                return Plan(first, (encoded_start, encoded), skip)
        raise AssertionError(f"({start}, {end}) is not in the body")

    def encoded_block_size(self, index: int, data: memoryview) -> int:  # noqa: ARG002 - arithmetic
        return self._sizes[index] + OVERHEAD

    def decode(self, index: int, data: memoryview) -> bytes:
        if data[:OVERHEAD] != index.to_bytes(4, "big"):
            raise IntegrityError(f"framed block {index} was altered")
        return bytes(data[OVERHEAD:]).translate(INVERTED)

    def trailer(self, encoded_sizes: Sequence[int]) -> bytes:
        return b"END" + len(encoded_sizes).to_bytes(4, "big")
