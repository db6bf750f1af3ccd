"""Stored bytes and records altered by an attacker, who also stores the matching checksums.

Each attack on an object is one *forgery*: the bytes and the records to store instead. It must make every
read raise IntegrityError, except for forgeries that leave the body intact.
"""

from __future__ import annotations

import asyncio
import base64
import json
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from tests.fakes import assert_idle, content
from tests.framed_middleware import Framed
from trove_async import DecryptionError, IntegrityError, NotSupportedError, RangeError, Trove
from trove_async.drivers.memory import MemoryDriver
from trove_async.middlewares import Compression, Encryption, Keyring
from trove_async.middlewares._seekable_zstd import MIN_FRAME, write_table
from trove_async.models import RECORDS, KiB
from trove_async.options import PutOptions

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence

    from trove_async.middleware import Middleware

    Read = Callable[["Target", str], Awaitable[None]]

SEGMENT = 4 * KiB
HEADER = 40
RING = Keyring({"key": bytes(range(32)), "other": bytes(range(1, 33))}, current="key")
OTHER_RING = Keyring({"key": bytes(range(32)), "other": bytes(range(1, 33))}, current="other")
BODY = content(2 * SEGMENT + 1000)  # three segments
TEXT = content(6 * KiB).hex().encode()  # three frames, and two segments once it is compressed


def aes(ring: Keyring = RING, **options: Any) -> Encryption:
    return Encryption(ring, segment_size=SEGMENT, **options)


ZSTD = Compression(frame_size=4 * KiB)

# By name: the middlewares, and a body that they encode as several blocks.
STACKS: dict[str, tuple[Sequence[Middleware], bytes]] = {
    "aes": ([aes()], BODY),
    "aes bound": ([aes(bind=True)], BODY),
    "both": ([ZSTD, aes()], TEXT),
    "zstd": ([ZSTD], TEXT),
}
ENCRYPTED = ["aes", "aes bound", "both"]


@dataclass(frozen=True)
class Stored:
    """A stored object: its bytes and its records."""

    data: bytes
    records: str

    def with_record(self, number: int = -1, **fields: Any) -> Stored:
        """Return the object with changed fields of a record. None removes a field."""
        records = json.loads(self.records)
        record = {**records[number][1], **fields}
        records[number][1] = {name: value for name, value in record.items() if value is not None}
        return replace(self, records=json.dumps(records))


class Target:
    """A store, and its driver, to which forgeries are written directly."""

    def __init__(self, store: Trove, driver: MemoryDriver, body: bytes) -> None:
        self.store = store
        self.driver = driver
        self.body = body

    async def put(self, key: str = "key", body: bytes | None = None, **options: Any) -> Stored:
        """Put a body through the store, and return what was stored."""
        await self.store.put("bucket", key, self.body if body is None else body, **options)
        return self.stored(key)

    def stored(self, key: str) -> Stored:
        stored = self.driver._buckets["bucket"].objects[key]
        assert stored.info.records is not None
        return Stored(b"".join(stored.chunks), stored.info.records)

    async def forge(self, forgery: Stored, key: str = "key") -> None:
        """Store a forgery, with the checksum of its bytes."""
        options = PutOptions(metadata={RECORDS: forgery.records})
        await self.driver.put("bucket", key, [memoryview(forgery.data)], options)

    async def check_refused(self, read: Read, key: str = "key", *, intact: bool = False) -> None:
        """Assert that a read raises IntegrityError, or returns the body of `intact` forgeries.

        An object that was truncated may be too short for a range, which raises RangeError.
        """
        try:
            await read(self, key)
        except (IntegrityError, RangeError):
            return
        assert intact, "the forgery was accepted"


# -- the ways to read an object: each one raises the error, or asserts that the bytes are right ----------


async def read_whole(target: Target, key: str) -> None:
    assert await target.store.read("bucket", key) == target.body


async def read_chunks(target: Target, key: str) -> None:
    received = b""
    async with target.store.get("bucket", key) as obj:
        try:
            while chunk := await obj.read(1500):
                received += chunk
        except IntegrityError:
            assert target.body.startswith(received), "altered bytes were returned before the error"
            for size in (1, -1, 1500):  # the error lasts
                with pytest.raises(IntegrityError):
                    await obj.read(size)
            raise
    assert received == target.body


def read_range(start: int, end: int) -> Read:
    async def read(target: Target, key: str) -> None:
        received = b""
        expected = target.body[start:end]
        async with target.store.get("bucket", key, range=(start, end)) as obj:
            try:
                while chunk := await obj.read(1500):
                    received += chunk
            except IntegrityError:
                assert expected.startswith(received), "altered bytes were returned before the error"
                with pytest.raises(IntegrityError):
                    await obj.read(1)
                raise
        assert received == expected

    return read


async def read_ranges(target: Target, key: str) -> None:
    spans = [(0, 10), (5000, 5010), (len(target.body) - 10, len(target.body))]
    pieces = await target.store.get_ranges("bucket", key, spans)
    assert pieces == [target.body[slice(*span)] for span in spans]


WHOLE: list[Read] = [read_whole, read_chunks]
ALL: list[Read] = [*WHOLE, read_range(1, 9100), read_ranges]


@asynccontextmanager
async def target_of(stack: str) -> AsyncIterator[Target]:
    middleware, body = STACKS[stack]
    driver = MemoryDriver()
    async with Trove(driver, middleware=middleware) as store:
        await store.create_bucket("bucket")
        yield Target(store, driver, body)
        assert_idle(store)


def flipped(data: bytes, bit: int) -> bytes:
    altered = bytearray(data)
    altered[bit // 8] ^= 1 << bit % 8
    return bytes(altered)


# -- bits --------------------------------------------------------------------------------------------


async def flip_bits(stack: str, bits: Iterator[int]) -> None:
    """Flip one bit after the other. Each one is read in one of the ways of reading, in turn."""
    async with target_of(stack) as target:
        original = await target.put()
        for number, bit in enumerate(bits):
            forgery = replace(original, data=flipped(original.data, bit % (len(original.data) * 8)))
            await target.forge(forgery)
            # A few bits of a zstd frame have no meaning. The bytes are then right.
            await target.check_refused(WHOLE[number % 2], intact=stack == "zstd")
            # A range may not contain the altered block. It then must be right.
            await target.check_refused(ALL[2 + number % 2], intact=True)


@pytest.mark.parametrize("stack", STACKS)
async def test_flipped_bit_raises(stack: str) -> None:
    random = Random(stack)
    await flip_bits(stack, (random.randrange(1 << 40) for _ in range(2500)))


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("stack", STACKS)
async def test_every_flipped_bit_raises(stack: str) -> None:
    await flip_bits(stack, iter(range(250_000)))


@pytest.mark.parametrize("stack", ENCRYPTED)
async def test_range_of_an_altered_block_raises(stack: str) -> None:
    async with target_of(stack) as target:
        original = await target.put()
        # The last byte of each segment is in its tag.
        for at in {SEGMENT - 1, min(2 * SEGMENT, len(original.data)) - 1, len(original.data) - 1}:
            await target.forge(replace(original, data=flipped(original.data, 8 * at)))
            await target.check_refused(read_range(0, len(target.body) - 1), intact=False)


# -- bytes removed, added and moved ------------------------------------------------------------------


@pytest.mark.parametrize("stack", STACKS)
async def test_truncated_object_raises(stack: str) -> None:
    async with target_of(stack) as target:
        original = await target.put()
        size = len(original.data)
        borders = {0, HEADER, SEGMENT, 2 * SEGMENT, 3 * SEGMENT, size}
        ends = {border + offset for border in borders for offset in range(-18, 19)}
        for end in sorted(end for end in ends if 0 <= end < size):
            await target.forge(replace(original, data=original.data[:end]))
            for read in WHOLE:
                await target.check_refused(read)
            for read in ALL:
                await target.check_refused(read, intact=True)


@pytest.mark.parametrize("stack", STACKS)
async def test_object_with_additional_bytes_raises(stack: str) -> None:
    async with target_of(stack) as target:
        original = await target.put()
        data = original.data
        for more in (
            b"\0",
            b"\0" * 16,
            data[-16:],
            data[-17:],
            data[-SEGMENT:],
            data[:SEGMENT],
            data,
        ):
            for altered in (data + more, more + data, data[:SEGMENT] + more + data[SEGMENT:]):
                await target.forge(replace(original, data=altered))
                for read in WHOLE:
                    await target.check_refused(read)
                for read in ALL:
                    await target.check_refused(read, intact=True)


@pytest.mark.parametrize("stack", ENCRYPTED)
async def test_moved_segments_raise(stack: str) -> None:
    async with target_of(stack) as target:
        body = content(3 * SEGMENT + 1000)
        if stack == "both":
            body = content(14 * KiB).hex().encode()
        target.body = body
        original = await target.put(body=body)
        same_key = await target.put("spliced", body=body[::-1])
        data, other = original.data, same_key.data
        parts = [data[at : at + SEGMENT] for at in range(0, len(data), SEGMENT)]
        spliced = [other[at : at + SEGMENT] for at in range(0, len(other), SEGMENT)]
        forgeries: list[list[bytes]] = []
        for number in range(len(parts)):
            forgeries += [
                parts[:number] + parts[number + 1 :],  # dropped
                [*parts[: number + 1], *parts[number:]],  # doubled
                [*parts[:number], spliced[number], *parts[number + 1 :]],
                [*parts[:number], parts[1], *parts[number + 1 :]],
            ]
            for later in range(number + 1, len(parts)):
                swapped = list(parts)
                swapped[number], swapped[later] = swapped[later], swapped[number]
                forgeries.append(swapped)
        assert len(parts) >= 4
        for forgery in forgeries:
            altered = b"".join(forgery)
            if altered == data:
                continue
            await target.forge(replace(original, data=altered))
            for read in WHOLE:
                await target.check_refused(read)
            await target.check_refused(read_range(0, len(body) - 1))
            await target.check_refused(read_ranges, intact=True)


async def test_segments_spliced_from_an_object_with_another_key_raise() -> None:
    async with target_of("aes") as target:
        original = await target.put()
        async with Trove(target.driver, middleware=[aes(OTHER_RING)]) as other_store:
            other = await Target(other_store, target.driver, BODY).put("other")
        for forgery in (
            replace(original, data=original.data[:SEGMENT] + other.data[SEGMENT:]),
            replace(original, data=other.data),
            replace(original, records=other.records),
        ):
            await target.forge(forgery)
            for read in ALL:
                await target.check_refused(read)
        # A range does not need the header.
        header = other.data[:HEADER]
        await target.forge(replace(original, data=header + original.data[HEADER:]))
        for read in WHOLE:
            await target.check_refused(read)
        for read in ALL:
            await target.check_refused(read, intact=True)


async def test_object_of_another_store_with_equal_key_ids_raises_decryption_error() -> None:
    async with target_of("aes") as target:
        foreign = Encryption(Keyring({"key": bytes(32)}), segment_size=SEGMENT)
        async with Trove(target.driver, middleware=[foreign]) as store:
            await store.put("bucket", "key", BODY)
        for read in ALL:
            with pytest.raises(DecryptionError, match="'key'"):
                await read(target, "key")


async def test_bound_object_replayed_under_another_name_raises() -> None:
    async with target_of("aes bound") as target:
        original = await target.put()
        await target.forge(original, "another")
        await target.forge(original.with_record(bound=None), "unbound")
        for key in ("another", "unbound"):
            for read in ALL:
                with pytest.raises(DecryptionError):
                    await read(target, key)
        for read in ALL:
            await read(target, "key")


# -- records -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        {"segment_size": SEGMENT + 1},
        {"segment_size": 2 * SEGMENT},
        {"segment_size": 1 << 20},
        {"segment_size": 0},
        {"segment_size": -SEGMENT},
        {"segment_size": 1 << 70},
        {"segment_size": True},
        {"segment_size": "4096"},
        {"segment_size": None},
        {"salt": base64.b64encode(bytes(39)).decode()},
        {"salt": ""},
        {"salt": None},
        {"salt": "é" * 52},
        {"key_id": "other"},
        {"key_id": "unknown"},
        {"key_id": ""},
        {"key_id": "a\nb"},
        {"key_id": None},
        {"bound": True},
        {"bound": False},
        {"bound": 1},
        {"wrapped": "!"},
        {"more": 1},
    ],
    ids=str,
)
@pytest.mark.parametrize("stack", ["aes", "both"])
async def test_altered_record_of_encryption_raises(stack: str, fields: dict[str, Any]) -> None:
    async with target_of(stack) as target:
        forgery = (await target.put()).with_record(**fields)
        await target.forge(forgery)
        for read in ALL:
            await target.check_refused(read)


@pytest.mark.parametrize(
    "fields",
    [
        {"frame_size": 4 * KiB + 1},
        {"frame_size": 2 * KiB},
        {"frame_size": 1 << 20},
        {"frame_size": 0},
        {"frame_size": -1},
        {"frame_size": None},
        {"frame_size": 1 << 70},
        {"frame_size": "4096"},
        {"size": len(TEXT) - 1},
        {"size": len(TEXT) + 1},
        {"size": 1},
        {"size": 0},
        {"size": -1},
        {"size": 1 << 62},
        {"size": 1 << 70},
        {"size": True},
        {"more": 1},
    ],
    ids=str,
)
@pytest.mark.parametrize("stack", ["zstd", "both"])
async def test_altered_record_of_compression_raises(stack: str, fields: dict[str, Any]) -> None:
    async with target_of(stack) as target:
        await target.forge((await target.put()).with_record(0, **fields))
        for read in ALL:
            await target.check_refused(read)


@pytest.mark.parametrize(
    "records",
    [
        "",
        "null",
        "{}",
        "[]]",
        "[1]",
        "[[]]",
        '[["zstd"]]',
        '[["zstd", 1]]',
        '[["zstd", {"frame_size": 1.5}]]',
        '[["zstd", {"frame_size": null}]]',
        '[["zstd", {"frame_size": [1]}]]',
        '[["zstd", {}, {}]]',
        '[[1, {"frame_size": 4096}]]',
        "[" * 50_000,
        "9" * 10_000,
        '[["zstd", {"frame_size": ' + "9" * 5000 + "}]]",
        "\ud800",
    ],
    ids=lambda records: records[:20],
)
async def test_malformed_records_raise(records: str) -> None:
    async with target_of("zstd") as target:
        await target.forge(replace(await target.put(), records=records))
        for read in ALL:
            await target.check_refused(read)


async def test_records_of_very_many_transforms_raise() -> None:
    async with target_of("both") as target:
        original = await target.put()
        for number in (0, 1):
            name, record = json.loads(original.records)[number]
            for times in (16, 2000):
                forged = json.dumps([[name, record]] * times)
                await target.forge(replace(original, records=forged))
                for read in ALL:
                    await target.check_refused(read)


async def test_index_that_is_far_larger_than_the_object_is_not_loaded() -> None:
    """Each frame and entry of an object that was compressed twice may be equal, and take hardly a byte."""
    frames, frame_size = 3_000_000, 1 * KiB
    outer = Compression(min_size=0)
    sizes = [MIN_FRAME] * frames
    table = await asyncio.to_thread(write_table, sizes, frames * frame_size, frame_size)
    inner = bytes(MIN_FRAME * frames) + table
    async with Trove(driver := MemoryDriver(), middleware=[outer]) as store:
        await store.create_bucket("bucket")
        target = Target(store, driver, inner)
        outer_form = await target.put()
        assert len(outer_form.data) < 100 * KiB
        records = [["zstd", {"frame_size": frame_size}], *json.loads(outer_form.records)]
        await target.forge(replace(outer_form, records=json.dumps(records)))
        assert not (await store.head("bucket", "key")).complete
        for read in ALL:
            with pytest.raises(IntegrityError, match="index of 24000017 bytes"):
                await read(target, "key")


async def test_object_of_the_maximum_number_of_transforms_is_read() -> None:
    # The records of 16 encryptions would exceed the limit on metadata.
    small = [Framed(name=f"{number}") for number in range(8)]
    async with Trove(MemoryDriver(), middleware=[*[aes()] * 8, *small]) as store:
        await store.create_bucket("bucket")
        await store.put("bucket", "key", BODY)
        assert await store.read("bucket", "key") == BODY
        assert await store.read("bucket", "key", range=(5000, 6000)) == BODY[5000:6000]
    async with Trove(MemoryDriver(), middleware=[aes()] * 17) as store:
        await store.create_bucket("bucket")
        with pytest.raises(NotSupportedError, match="at most 16"):
            await store.put("bucket", "key", BODY)


async def test_removed_records_raise_if_encryption_is_required() -> None:
    async with Trove(driver := MemoryDriver(), middleware=[aes(require=True)]) as store:
        await store.create_bucket("bucket")
        target = Target(store, driver, BODY)
        original = await target.put()
        for records in ("[]", '[["aes256-gcm-hkdf", null]]', '[["zstd", null]]'):
            await target.forge(replace(original, records=records))
            for read in ALL:
                with pytest.raises(DecryptionError):
                    await read(target, "key")
        await driver.put("bucket", "key", [memoryview(BODY)], PutOptions())
        for read in ALL:
            with pytest.raises(DecryptionError):
                await read(target, "key")


# -- random forgeries --------------------------------------------------------------------------------


async def forge_at_random(stack: str, random: Random, times: int) -> None:
    """Combine several kinds of changes. A read must raise, or return the right bytes."""
    async with target_of(stack) as target:
        original = await target.put()
        other = (await target.put("other", body=target.body[::-1])).data
        for _ in range(times):
            data = bytearray(original.data)
            for _ in range(random.choice([1, 1, 1, 2, 3])):
                at = random.randrange(len(data) + 1)
                length = random.choice([1, 2, 8, 16, 40, 100, SEGMENT])
                match random.randrange(5):
                    case 0:
                        data[at : at + length] = random.randbytes(length)
                    case 1:
                        del data[at : at + length]
                    case 2:
                        data[at:at] = random.randbytes(length)
                    case 3:
                        data[at : at + length] = other[at : at + length]
                    case _:
                        source = random.randrange(len(data) + 1)
                        data[at : at + length] = data[source : source + length]
            await target.forge(replace(original, data=bytes(data)))
            unchanged = bytes(data) == original.data
            if stack == "zstd":
                await check_never_wrong_unless_rebuilt(target, random.choice(ALL))
            else:
                await target.check_refused(random.choice(WHOLE), intact=unchanged)
                await target.check_refused(random.choice(ALL[2:]), intact=True)


async def check_never_wrong_unless_rebuilt(target: Target, read: Read) -> None:
    """Compression has no key: whole frames may be replaced by others, but errors are IntegrityError."""
    with suppress(IntegrityError, AssertionError):
        await read(target, "key")


@pytest.mark.parametrize("stack", STACKS)
async def test_random_forgery_raises(stack: str) -> None:
    await forge_at_random(stack, Random(stack), 2500)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("stack", STACKS)
async def test_random_forgery_raises_in_long_runs(stack: str) -> None:
    await forge_at_random(stack, Random(), 100_000)
