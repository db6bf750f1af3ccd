"""Middlewares with one bug each: bugs that are easily made."""

from __future__ import annotations

import secrets
import time
import zlib
from typing import TYPE_CHECKING

from tests.testing.toy_middlewares import (
    BLOCK,
    CRC,
    ENTRY,
    FOOTER,
    HEADER,
    ID,
    MAGIC,
    ROTATION,
    SMALL,
    Indexed,
    IndexedDecoder,
    IndexedEncoder,
    Sealed,
    SealedDecoder,
    SealedEncoder,
    count_of,
    object_id,
    trailer_of,
)
from trove_async.errors import IntegrityError
from trove_async.middleware import MAX_BLOCK, MAX_EXPANSION, Plan

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trove_async._views import BytesLike
    from trove_async.middleware import Decoder, Encoder, ObjectContext, Record


# What a checksum covers.


class _WithoutLast:
    identity: bytes

    def checksum(self, index: int, block: bytes, *, last: bool) -> bytes:
        del last
        return zlib.crc32(self.identity + index.to_bytes(8) + block).to_bytes(CRC)


class _WithoutIndex:
    identity: bytes

    def checksum(self, index: int, block: bytes, *, last: bool) -> bytes:
        del index
        return zlib.crc32(self.identity + bytes([last]) + block).to_bytes(CRC)


class _WithoutObject:
    def checksum(self, index: int, block: bytes, *, last: bool) -> bytes:
        return zlib.crc32(bytes([last]) + index.to_bytes(8) + block).to_bytes(CRC)


class _WithoutBlock:
    identity: bytes

    def checksum(self, index: int, block: bytes, *, last: bool) -> bytes:
        del block
        return zlib.crc32(self.identity + bytes([last]) + index.to_bytes(8)).to_bytes(CRC)


class _WithoutLastEncoder(_WithoutLast, SealedEncoder):
    pass


class _WithoutLastDecoder(_WithoutLast, SealedDecoder):
    pass


class IgnoresLastFlag(Sealed):
    encoder_type = _WithoutLastEncoder
    decoder_type = _WithoutLastDecoder


class _WithoutIndexEncoder(_WithoutIndex, SealedEncoder):
    pass


class _WithoutIndexDecoder(_WithoutIndex, SealedDecoder):
    pass


class IgnoresBlockNumber(Sealed):
    encoder_type = _WithoutIndexEncoder
    decoder_type = _WithoutIndexDecoder


class _WithoutObjectEncoder(_WithoutObject, SealedEncoder):
    pass


class _WithoutObjectDecoder(_WithoutObject, SealedDecoder):
    pass


class IgnoresObject(Sealed):
    encoder_type = _WithoutObjectEncoder
    decoder_type = _WithoutObjectDecoder


class _WithoutBlockEncoder(_WithoutBlock, SealedEncoder):
    pass


class _WithoutBlockDecoder(_WithoutBlock, SealedDecoder):
    pass


class IgnoresBytesOfBlock(Sealed):
    encoder_type = _WithoutBlockEncoder
    decoder_type = _WithoutBlockDecoder


# Encoders.


class _ReusingEncoder(SealedEncoder):
    def __init__(self, identity: bytes) -> None:
        super().__init__(identity)
        self.buffer = bytearray(BLOCK + CRC)

    def encode(self, index: int, block: memoryview, *, last: bool) -> BytesLike | None:
        result = memoryview(self.buffer)[: len(block) + CRC]
        self.encode_into(index, block, result, last=last)
        return result


class ReturnsItsBuffer(Sealed):
    encoder_type = _ReusingEncoder


class _RacingEncoder(_ReusingEncoder):
    def encode_into(self, index: int, block: memoryview, output: memoryview, *, last: bool) -> None:
        rotated = bytes(block).translate(ROTATION)
        output[:-CRC] = rotated
        time.sleep(0)  # another thread runs
        output[-CRC:] = self.checksum(index, rotated, last=last)

    def encode(self, index: int, block: memoryview, *, last: bool) -> BytesLike | None:
        result = super().encode(index, block, last=last)
        return result and bytes(result)


class SharesBufferAmongThreads(Sealed):
    encoder_type = _RacingEncoder


class _LazyEncoder(SealedEncoder):
    def encode(self, index: int, block: memoryview, *, last: bool) -> BytesLike | None:
        # For a writable block, the result shares its memory.
        if block.readonly:
            return super().encode(index, block, last=last)
        rotated = bytes(block[:-CRC]).translate(ROTATION)
        block[:] = rotated + self.checksum(index, rotated, last=last)
        return block


class EncodesIntoTheBlock(Sealed):
    encoder_type = _LazyEncoder


class _AliasEncoder(IndexedEncoder):
    def encode(self, index: int, block: memoryview, *, last: bool) -> BytesLike | None:
        del index, last
        return block


class _AliasDecoder(IndexedDecoder):
    def encoded_block_size(self, index: int, data: memoryview) -> int | None:
        del data
        assert self.size is not None
        return min(self.block, self.size - index * self.block)

    def decode(self, index: int, data: memoryview) -> bytes:
        del index
        return bytes(data)


class ReturnsTheBlockItself(Indexed):
    encoder_type = _AliasEncoder
    decoder_type = _AliasDecoder


class _RandomEncoder(IndexedEncoder):
    def encode(self, index: int, block: memoryview, *, last: bool) -> BytesLike | None:
        encoded = super().encode(index, block, last=last)
        if encoded is None or index % 3 == 0:
            return encoded
        padding = secrets.token_bytes(index % 3)
        return bytes(encoded[: -CRC - len(padding)]) + padding + bytes(encoded[-CRC:])


class EncodesAtRandom(Indexed):
    encoder_type = _RandomEncoder


class _CountingEncoder(SealedEncoder):
    calls = 0

    def encode(self, index: int, block: memoryview, *, last: bool) -> BytesLike | None:
        del index
        self.calls += 1
        return super().encode(self.calls - 1, block, last=last)


class CountsItsCalls(Sealed):
    encoder_type = _CountingEncoder


class _GivingUpEncoder(IndexedEncoder):
    def encode(self, index: int, block: memoryview, *, last: bool) -> BytesLike | None:
        if len(zlib.compress(block)) >= len(block) > SMALL:
            return None
        return super().encode(index, block, last=last)


class GivesUpAtLaterBlock(Indexed):
    encoder_type = _GivingUpEncoder


class _LongEncoder(IndexedEncoder):
    def block_size(self, index: int) -> int:
        return super().block_size(index) * MAX_BLOCK


class UsesBlocksThatAreTooLong(Indexed):
    encoder_type = _LongEncoder


class _ExpandingEncoder(IndexedEncoder):
    def encode(self, index: int, block: memoryview, *, last: bool) -> BytesLike | None:
        return bytes(super().encode(index, block, last=last) or b"") + bytes(MAX_EXPANSION)


class ExpandsTooMuch(Indexed):
    encoder_type = _ExpandingEncoder


class _RoundingEncoder(SealedEncoder):
    def encoded_size(self, size: int) -> int | None:
        return HEADER + size + CRC * ((size + HEADER) // BLOCK + 1)


class PredictsOneBlockTooMany(Sealed):
    encoder_type = _RoundingEncoder


class _LongRecordEncoder(SealedEncoder):
    def record(self, size: int | None) -> Record:
        return {**super().record(size), "comment": "x" * 2_000}


class WritesLongRecord(Sealed):
    encoder_type = _LongRecordEncoder


class _NestedRecordEncoder(SealedEncoder):
    def record(self, size: int | None) -> Record:
        return {**super().record(size), "sizes": [BLOCK]}  # type: ignore[dict-item]  # the bug


class WritesNestedRecord(Sealed):
    encoder_type = _NestedRecordEncoder


class _OverrunningEncoder(SealedEncoder):
    def encode_into(self, index: int, block: memoryview, output: memoryview, *, last: bool) -> None:
        # The checksum of the block and of the room behind it.
        rotated = bytes(block).translate(ROTATION)
        output[:-CRC] = rotated
        output[-CRC:] = self.checksum(index, bytes(output), last=last)


class IncludesRoomInChecksum(Sealed):
    encoder_type = _OverrunningEncoder


class ForgetsSmallBodies(Sealed):
    """`encoder` leaves small bodies as they are, and `is_current` wants them encoded."""

    async def is_current(
        self, context: ObjectContext, record: Record | None, *, renamed: bool
    ) -> bool:
        del context, renamed
        return record is not None


class NeverCurrent(Sealed):
    async def is_current(
        self, context: ObjectContext, record: Record | None, *, renamed: bool
    ) -> bool:
        return record is None and await super().is_current(context, record, renamed=renamed)


class LeavesEverything(Sealed):
    async def encoder(self, context: ObjectContext) -> Encoder | None:
        del context
        return None


class SharesOneObjectId(Sealed):
    """The id of the last object is that of all of them."""

    def __init__(self) -> None:
        self.latest = self.encoder_type(bytes(ID))

    async def encoder(self, context: ObjectContext) -> Encoder | None:
        if await super().encoder(context) is None:
            return None
        self.latest.identity = secrets.token_bytes(ID)
        return self.latest


class DrawsKeyPerInstance(Sealed):
    def __init__(self) -> None:
        self.key = secrets.token_bytes(ID)

    async def encoder(self, context: ObjectContext) -> Encoder | None:
        encoder = await super().encoder(context)
        if isinstance(encoder, SealedEncoder):
            encoder.record = lambda size: SealedEncoder(self.key).record(size)  # type: ignore[method-assign]  # the bug
            encoder.identity = self.key
        return encoder

    async def decoder(self, context: ObjectContext, record: Record, encoded_size: int) -> Decoder:
        decoder = await super().decoder(context, record, encoded_size)
        if isinstance(decoder, SealedDecoder):
            decoder.identity = self.key
        return decoder


class ComparesRecordBlindly(Sealed):
    async def is_current(
        self, context: ObjectContext, record: Record | None, *, renamed: bool
    ) -> bool:
        if record is None:
            return await super().is_current(context, record, renamed=renamed)
        return int(record["block"]) == BLOCK


# Decoders.


class _WithoutTrailerDecoder(IndexedDecoder):
    def trailer(self, encoded_sizes: Sequence[int]) -> bytes:
        del encoded_sizes
        return b""


class ForgetsTrailer(Indexed):
    decoder_type = _WithoutTrailerDecoder


class _TrustingDecoder(IndexedDecoder):
    def verify_table(self, data: bytes, sizes: Sequence[int], size: int) -> None:
        pass


class TrustsTheIndex(Indexed):
    decoder_type = _TrustingDecoder


class _BoundlessDecoder(IndexedDecoder):
    def load_index(self, data: bytes) -> None:
        if not self.footer:
            size, count, _ = FOOTER.unpack(data)
            self.footer = data
            self.size = size
            self.index = (self.table_end - count * ENTRY.size, self.table_end)
        else:
            super().load_index(data)


class AsksForIndexOutOfBounds(Indexed):
    decoder_type = _BoundlessDecoder


class _EndlessDecoder(IndexedDecoder):
    def load_index(self, data: bytes) -> None:
        footer = bool(self.footer)
        super().load_index(data)
        if footer:
            self.index = (0, HEADER)
            self.footer = b""


class LoadsIndexAgainAndAgain(Indexed):
    decoder_type = _EndlessDecoder


class _LateDecoder(IndexedDecoder):
    def plan(self, start: int, end: int) -> Plan:
        first, encoded, skip = super().plan(start, end)
        if skip == 0 and first > 0:  # > instead of >=
            return Plan(first - 1, (self.borders[first - 1], encoded[1]), self.block)
        return Plan(first, encoded, skip)


class PlansOneBlockBefore(Indexed):
    decoder_type = _LateDecoder


class _GreedyDecoder(IndexedDecoder):
    def plan(self, start: int, end: int) -> Plan:
        del end
        return Plan(0, (self.borders[0], self.borders[-1]), start)


class PlansWholeBody(Indexed):
    decoder_type = _GreedyDecoder


class _ShiftedDecoder(SealedDecoder):
    def plan(self, start: int, end: int) -> Plan:
        first, encoded, skip = super().plan(start, end)
        return Plan(first, encoded, skip + 1 if first else skip)


class SkipsOneByteTooMany(Sealed):
    decoder_type = _ShiftedDecoder


class _HastyDecoder(IndexedDecoder):
    def encoded_block_size(self, index: int, data: memoryview) -> int | None:
        return int.from_bytes(data[:2]) + 2 + index % 3 + CRC


class MeasuresTooFewBytes(Indexed):
    decoder_type = _HastyDecoder


class _WaitingDecoder(IndexedDecoder):
    def encoded_block_size(self, index: int, data: memoryview) -> int | None:
        size = super().encoded_block_size(index, data)
        return None if size is None or len(data) <= size else size


class WaitsForTheNextBlock(Indexed):
    decoder_type = _WaitingDecoder


class _TrustingLengthDecoder(IndexedDecoder):
    def encoded_block_size(self, index: int, data: memoryview) -> int | None:
        return None if len(data) < 2 else int.from_bytes(data[:2]) * 64 + index % 3


class TrustsLengthOfBlock(Indexed):
    decoder_type = _TrustingLengthDecoder


class _PaddingDecoder(SealedDecoder):
    def decode(self, index: int, data: memoryview) -> bytes:
        return super().decode(index, data).ljust(self.block, b"\0")


class ReturnsMoreThanTheBlock(Sealed):
    decoder_type = _PaddingDecoder


class _HugeDecoder(SealedDecoder):
    def decode(self, index: int, data: memoryview) -> bytes:
        return super().decode(index, data) * (2 * MAX_BLOCK // len(data))


class ReturnsBlockThatIsTooLong(Sealed):
    decoder_type = _HugeDecoder


class _OrderedDecoder(SealedDecoder):
    following = 0

    def decode(self, index: int, data: memoryview) -> bytes:
        if index not in {0, self.following}:
            raise IntegrityError("this is not the next block")
        self.following = index + 1
        return super().decode(index, data)


class DecodesOnlyInOrder(Sealed):
    decoder_type = _OrderedDecoder


class _OffendedDecoder(SealedDecoder):
    damaged = False

    def decode(self, index: int, data: memoryview) -> bytes:
        if self.damaged:
            raise IntegrityError("the object was altered")
        self.damaged = True
        block = super().decode(index, data)
        self.damaged = False
        return block


class RefusesEverythingAfterDamage(Sealed):
    decoder_type = _OffendedDecoder


class _RacingDecoder(SealedDecoder):
    current = b""

    def decode(self, index: int, data: memoryview) -> bytes:
        self.current = super().decode(index, data)
        time.sleep(0)  # another thread runs
        return self.current


class SharesBlockAmongThreads(Sealed):
    decoder_type = _RacingDecoder


class ForgetsOverheadOfBlocks(Sealed):
    def decoded_size(self, record: Record, encoded_size: int) -> int | None:
        del record
        return encoded_size - HEADER - CRC

    async def decoder(self, context: ObjectContext, record: Record, encoded_size: int) -> Decoder:
        del context
        size = Sealed().decoded_size(record, encoded_size)
        assert size is not None
        return self.decoder_type(object_id(record), BLOCK, size)


class ReturnsNegativeSize(Sealed):
    def decoded_size(self, record: Record, encoded_size: int) -> int | None:
        del record
        return encoded_size - HEADER - CRC * count_of(encoded_size, BLOCK + CRC)


class ComputesWith32Bits(Sealed):
    def decoded_size(self, record: Record, encoded_size: int) -> int | None:
        return super().decoded_size(record, encoded_size & 0xFFFF_FFFF)


class _FloatingDecoder(SealedDecoder):
    def plan(self, start: int, end: int) -> Plan:
        first, encoded, skip = super().plan(start, end)
        return Plan(first, (encoded[0], self.block_count * (self.block + CRC)), skip)


class RoundsAtTheEnd(Sealed):
    decoder_type = _FloatingDecoder


class RaisesValueErrorForBadId(Sealed):
    async def decoder(self, context: ObjectContext, record: Record, encoded_size: int) -> Decoder:
        del context
        size = self.decoded_size(record, encoded_size)
        assert size is not None
        return self.decoder_type(bytes.fromhex(str(record.get("id"))), BLOCK, size)


class TrustsBlockSize(Indexed):
    async def decoder(self, context: ObjectContext, record: Record, encoded_size: int) -> Decoder:
        decoder = self.decoder_type({**record, "block": BLOCK}, encoded_size)
        del context
        decoder.block = record.get("block", BLOCK)  # type: ignore[assignment]  # the bug
        return decoder


class EmptiesTheRecord(Sealed):
    async def decoder(self, context: ObjectContext, record: Record, encoded_size: int) -> Decoder:
        decoder = await super().decoder(context, record, encoded_size)
        if isinstance(record, dict):
            record.clear()
        return decoder


class DecodesByMediaType(Sealed):
    async def decoder(self, context: ObjectContext, record: Record, encoded_size: int) -> Decoder:
        if context.content_type != "text/plain":
            raise IntegrityError("this is not text")
        return await super().decoder(context, record, encoded_size)


class _UncheckedHeaderDecoder(SealedDecoder):
    @property
    def header(self) -> bytes:
        return MAGIC


class ForgetsPartOfHeader(Sealed):
    decoder_type = _UncheckedHeaderDecoder


class _ForgedTrailerDecoder(IndexedDecoder):
    def trailer(self, encoded_sizes: Sequence[int]) -> bytes:
        assert self.size is not None
        return self.footer or trailer_of(self.identity, encoded_sizes, self.size)


class DependsOnTheIndex(Indexed):
    """The trailer differs once the index is loaded."""

    decoder_type = _ForgedTrailerDecoder


# Results of other types, and impossible values of optional properties.


class _ViewEncoder(SealedEncoder):
    def encode(self, index: int, block: memoryview, *, last: bool) -> BytesLike | None:
        encoded = bytes(super().encode(index, block, last=last) or b"")
        view = memoryview(encoded)
        return view if len(encoded) % 4 else view.cast("I")


class ReturnsViewOfNumbers(Sealed):
    encoder_type = _ViewEncoder


class _DividingEncoder(SealedEncoder):
    def encoded_size(self, size: int) -> int | None:
        return super().encoded_size(size) / 1  # type: ignore[operator, return-value]  # the bug


class DividesTheEncodedSize(Sealed):
    encoder_type = _DividingEncoder


class DividesTheDecodedSize(Sealed):
    def decoded_size(self, record: Record, encoded_size: int) -> int | None:
        return super().decoded_size(record, encoded_size) / 1  # type: ignore[operator, return-value]  # the bug


class _FractionDecoder(SealedDecoder):
    def __init__(self, identity: bytes, block: int, size: int) -> None:
        super().__init__(identity, block, size)
        self.size = float(size)  # type: ignore[assignment]  # the bug

    @property
    def block_count(self) -> int:
        return int(super().block_count)


class DividesTheSize(Sealed):
    decoder_type = _FractionDecoder


class _TuplePlanDecoder(SealedDecoder):
    def plan(self, start: int, end: int) -> Plan:
        return tuple(super().plan(start, end))  # type: ignore[return-value]  # the bug


class PlansWithTuple(Sealed):
    decoder_type = _TuplePlanDecoder


class _WritableDecoder(SealedDecoder):
    @property
    def header(self) -> bytes:
        return bytearray(super().header)  # type: ignore[return-value]  # the bug


class ReturnsWritableHeader(Sealed):
    decoder_type = _WritableDecoder


class _WritableTrailerDecoder(IndexedDecoder):
    def trailer(self, encoded_sizes: Sequence[int]) -> bytes:
        return bytearray(super().trailer(encoded_sizes))  # type: ignore[return-value]  # the bug


class ReturnsWritableTrailer(Indexed):
    decoder_type = _WritableTrailerDecoder


class _ListIndexDecoder(IndexedDecoder):
    def __init__(self, record: Record, encoded_size: int) -> None:
        super().__init__(record, encoded_size)
        self.index = [self.table_end, encoded_size]  # type: ignore[assignment]  # the bug


class RequestsIndexWithList(Indexed):
    decoder_type = _ListIndexDecoder


class _HugeNumberEncoder(SealedEncoder):
    def record(self, size: int | None) -> Record:
        return {**super().record(size), "number": 1 << 64}


class RecordsHugeNumber(Sealed):
    encoder_type = _HugeNumberEncoder


class _FractionOverheadEncoder(SealedEncoder):
    overhead = 4.0  # type: ignore[assignment]  # the bug


class DividesTheOverhead(Sealed):
    encoder_type = _FractionOverheadEncoder


class _InlineDecoder(SealedDecoder):
    inline_size = 16 * MAX_BLOCK


class RunsEverythingInline(Sealed):
    decoder_type = _InlineDecoder


class ForgetsChecksumInSegment(Sealed):
    segment_size = BLOCK


class HasNegativeSegments(Sealed):
    segment_size = -1
