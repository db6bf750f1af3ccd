"""Two small correct middlewares. Each has what the other lacks, so that the suite tests all of it.

`Sealed` is built like an encryption: the first block is shorter, and sizes are computed. `Indexed` is
built like a compression: encoded blocks differ in size, and an index of them follows the last block.
"""

from __future__ import annotations

import secrets
import struct
import zlib
from itertools import accumulate
from typing import TYPE_CHECKING, ClassVar

from trove_async.errors import IntegrityError
from trove_async.middleware import MAX_BLOCK, Plan

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trove_async._views import BytesLike
    from trove_async.middleware import Decoder, Encoder, ObjectContext, Record, Span

BLOCK = 1_000
SMALL = 20
MAGIC = b"toy:"
ID = 8
HEADER = len(MAGIC) + ID
CRC = 4
LENGTH = struct.Struct(">H")
ENTRY = struct.Struct(">I")
FOOTER = struct.Struct(">QII")

ROTATION = bytes(byte ^ 0x5A for byte in range(256))


def object_id(record: Record) -> bytes:
    value = record.get("id")
    if type(value) is not str or len(value) != 2 * ID or value.strip("0123456789abcdef"):
        raise IntegrityError(f"bad id {value!r}")
    return bytes.fromhex(value)


def number(record: Record, name: str, limit: int) -> int:
    value = record.get(name)
    if type(value) is not int or not 0 <= value <= limit:
        raise IntegrityError(f"bad {name} {value!r}")
    return value


def count_of(size: int, block: int) -> int:
    return max(1, -(-size // block))


class Toy:
    """What the two middlewares have in common. They leave bodies of less than 20 bytes as they are."""

    name = "toy"
    required = False

    async def is_current(
        self, context: ObjectContext, record: Record | None, *, renamed: bool
    ) -> bool:
        del renamed
        return (record is not None) == (context.size is None or context.size >= SMALL)


class Checksum:
    """The CRC-32 of a block, its number, whether it is the last one, and the id of the object."""

    def __init__(self, identity: bytes) -> None:
        self.identity = identity

    def checksum(self, index: int, block: bytes, *, last: bool) -> bytes:
        return zlib.crc32(self.identity + bytes([last]) + index.to_bytes(8) + block).to_bytes(4)


class SealedEncoder(Checksum):
    overhead = CRC

    @property
    def header(self) -> bytes:
        return MAGIC + self.identity

    def block_size(self, index: int) -> int:
        return BLOCK if index else BLOCK - HEADER

    def encoded_size(self, size: int) -> int | None:
        return HEADER + size + CRC * count_of(size + HEADER, BLOCK)

    def encode(self, index: int, block: memoryview, *, last: bool) -> BytesLike | None:
        rotated = bytes(block).translate(ROTATION)
        return rotated + self.checksum(index, rotated, last=last)

    def encode_into(self, index: int, block: memoryview, output: memoryview, *, last: bool) -> None:
        rotated = bytes(block).translate(ROTATION)
        output[:] = rotated + self.checksum(index, rotated, last=last)

    def trailer(self, encoded_sizes: Sequence[int], size: int) -> bytes:
        del encoded_sizes, size
        return b""

    def record(self, size: int | None) -> Record:
        record: dict[str, str | int | bool] = {"id": self.identity.hex(), "block": BLOCK}
        return record if size is None else {**record, "size": size}


class SealedDecoder(Checksum):
    index: Span | None = None

    def __init__(self, identity: bytes, block: int, size: int) -> None:
        super().__init__(identity)
        self.size = size
        self.block = block

    @property
    def header(self) -> bytes:
        return MAGIC + self.identity

    @property
    def block_count(self) -> int:
        return count_of(self.size + HEADER, self.block)

    def load_index(self, data: bytes) -> None:
        raise NotImplementedError

    def plan(self, start: int, end: int) -> Plan:
        first, skip = divmod(start + HEADER, self.block)
        after_last = count_of(end + HEADER, self.block)
        left = first * (self.block + CRC) if first else HEADER
        right = min(after_last * (self.block + CRC), self.size + HEADER + CRC * self.block_count)
        return Plan(first, (left, right), skip if first else start)

    def encoded_block_size(self, index: int, data: memoryview) -> int | None:
        del data
        start = index * self.block
        return min(self.block, self.size + HEADER - start) + CRC - (0 if index else HEADER)

    def decode(self, index: int, data: memoryview) -> bytes:
        rotated, checksum = bytes(data[:-CRC]), bytes(data[-CRC:])
        last = index == self.block_count - 1
        if len(data) < CRC or checksum != self.checksum(index, rotated, last=last):
            raise IntegrityError(f"block {index} was altered")
        return rotated.translate(ROTATION)

    def trailer(self, encoded_sizes: Sequence[int]) -> bytes:
        del encoded_sizes
        return b""


class Sealed(Toy):
    encoder_type: ClassVar[type[SealedEncoder]] = SealedEncoder
    decoder_type: ClassVar[type[SealedDecoder]] = SealedDecoder

    async def encoder(self, context: ObjectContext) -> Encoder | None:
        if context.size is not None and context.size < SMALL:
            return None
        return self.encoder_type(secrets.token_bytes(ID))

    def decoded_size(self, record: Record, encoded_size: int) -> int | None:
        block = number(record, "block", MAX_BLOCK)
        if block <= HEADER:
            raise IntegrityError(f"bad block {block}")
        count = count_of(encoded_size, block + CRC)
        size = encoded_size - HEADER - CRC * count
        if size < 0 or count_of(size + HEADER, block) != count:
            raise IntegrityError(f"{encoded_size} bytes are not possible")
        if "size" in record and number(record, "size", encoded_size) != size:
            raise IntegrityError("the record has another size")
        return size

    async def decoder(self, context: ObjectContext, record: Record, encoded_size: int) -> Decoder:
        del context
        size = self.decoded_size(record, encoded_size)
        assert size is not None
        return self.decoder_type(object_id(record), number(record, "block", MAX_BLOCK), size)


class IndexedEncoder(Checksum):
    @property
    def header(self) -> bytes:
        return MAGIC + self.identity

    def block_size(self, index: int) -> int:
        del index
        return BLOCK

    def encoded_size(self, size: int) -> int | None:
        del size
        return None

    def encode(self, index: int, block: memoryview, *, last: bool) -> BytesLike | None:
        if index == 0 and not block:
            return None
        rotated = bytes(block).translate(ROTATION)
        checksum = self.checksum(index, rotated, last=last)
        return LENGTH.pack(len(block)) + rotated + bytes(index % 3) + checksum

    def trailer(self, encoded_sizes: Sequence[int], size: int) -> bytes:
        return trailer_of(self.identity, encoded_sizes, size)

    def record(self, size: int | None) -> Record:
        record: dict[str, str | int | bool] = {"id": self.identity.hex(), "block": BLOCK}
        return record if size is None else {**record, "size": size}


def trailer_of(identity: bytes, encoded_sizes: Sequence[int], size: int) -> bytes:
    table = b"".join(map(ENTRY.pack, encoded_sizes))
    count = len(encoded_sizes)
    return table + FOOTER.pack(size, count, zlib.crc32(identity + size.to_bytes(8) + table))


class IndexedDecoder(Checksum):
    def __init__(self, record: Record, encoded_size: int) -> None:
        super().__init__(object_id(record))
        self.block = number(record, "block", MAX_BLOCK)
        self.size = number(record, "size", encoded_size) if "size" in record else None
        if not self.block or encoded_size < HEADER + LENGTH.size + CRC + ENTRY.size + FOOTER.size:
            raise IntegrityError("the record does not fit the size")
        self.encoded_size = encoded_size
        self.table_end = encoded_size - FOOTER.size
        self.index: Span | None = (self.table_end, encoded_size)
        self.footer = b""
        self.borders: list[int] = []

    @property
    def header(self) -> bytes:
        return MAGIC + self.identity

    @property
    def block_count(self) -> int:
        assert self.size is not None
        return count_of(self.size, self.block)

    def load_index(self, data: bytes) -> None:
        if not self.footer:
            size, count, _ = FOOTER.unpack(data)
            start = self.table_end - count * ENTRY.size
            if self.size not in {None, size} or count_of(size, self.block) != count:
                raise IntegrityError("the footer contradicts the record")
            if start < HEADER + count * (LENGTH.size + CRC):
                raise IntegrityError("the footer contradicts the size")
            self.footer = data
            self.index = (start, self.table_end)
        else:
            size, _, _ = FOOTER.unpack(self.footer)
            sizes = [size for (size,) in ENTRY.iter_unpack(data)]
            self.verify_table(data, sizes, size)
            self.borders = list(accumulate(sizes, initial=HEADER))
            self.size = size
            self.index = None

    def verify_table(self, data: bytes, sizes: Sequence[int], size: int) -> None:
        if trailer_of(self.identity, sizes, size) != data + self.footer:
            raise IntegrityError("the index was altered")
        if HEADER + sum(sizes) + len(data) + FOOTER.size != self.encoded_size or 0 in sizes:
            raise IntegrityError("the index contradicts the size")

    def plan(self, start: int, end: int) -> Plan:
        first, skip = divmod(start, self.block)
        return Plan(first, (self.borders[first], self.borders[count_of(end, self.block)]), skip)

    def encoded_block_size(self, index: int, data: memoryview) -> int | None:
        if len(data) < LENGTH.size:
            return None
        (length,) = LENGTH.unpack_from(data)
        if length > self.block:
            raise IntegrityError(f"block {index} has a wrong size")
        return LENGTH.size + int(length) + index % 3 + CRC

    def decode(self, index: int, data: memoryview) -> bytes:
        assert self.size is not None
        last = index == self.block_count - 1
        length = self.size - index * self.block if last else self.block
        rotated = bytes(data[LENGTH.size : LENGTH.size + length])
        if self.encoded_block_size(index, data) != LENGTH.size + length + index % 3 + CRC:
            raise IntegrityError(f"block {index} has a wrong size")
        if bytes(data[-CRC:]) != self.checksum(index, rotated, last=last):
            raise IntegrityError(f"block {index} was altered")
        return rotated.translate(ROTATION)

    def trailer(self, encoded_sizes: Sequence[int]) -> bytes:
        assert self.size is not None
        return trailer_of(self.identity, encoded_sizes, self.size)


class Indexed(Toy):
    encoder_type: ClassVar[type[IndexedEncoder]] = IndexedEncoder
    decoder_type: ClassVar[type[IndexedDecoder]] = IndexedDecoder

    async def encoder(self, context: ObjectContext) -> Encoder | None:
        if context.size is not None and context.size < SMALL:
            return None
        return self.encoder_type(secrets.token_bytes(ID))

    def decoded_size(self, record: Record, encoded_size: int) -> int | None:
        return self.decoder_type(record, encoded_size).size

    async def decoder(self, context: ObjectContext, record: Record, encoded_size: int) -> Decoder:
        del context
        return self.decoder_type(record, encoded_size)
