"""Decoders of users' own middlewares with a bug: no read returns wrong bytes, hangs or raises anything else.

The middleware has no checksums, so the engine cannot rely on the decoder to detect a wrong block.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.fakes import Fake, assert_idle, content, store_of
from tests.framed_middleware import HEADER, INVERTED, OVERHEAD, Framed, FramedDecoder
from trove_async import ByteRange, ConfigError, IntegrityError, RangeError, Trove
from trove_async.middleware import Plan
from trove_async.middlewares import Encryption, Keyring
from trove_async.models import KiB

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from trove_async.middleware import Decoder, Middleware, ObjectContext, Record

BLOCK = 1000
BODY = content(5 * BLOCK + 300)
SIZE = len(HEADER) + len(BODY) + 6 * OVERHEAD + 7
RANGES = [(0, 1), (10, 20), (999, 1001), (1000, 2000), (1500, 4200), (5000, 5010), (5299, 5300)]
RING = Keyring({"key": bytes(range(32))})


class Lenient(FramedDecoder):
    """A decoder that does not compare the number of a block."""

    def decode(self, index: int, data: memoryview) -> bytes:
        del index
        return bytes(data[OVERHEAD:]).translate(INVERTED)


class Broken(Framed):
    """A middleware whose decoders have a bug.

    Args:
        change: Changes a decoder.
    """

    def __init__(self, change: Callable[[Any], object]) -> None:
        super().__init__(lambda _: BLOCK)
        self.change = change
        self.is_broken = False

    async def decoder(self, context: ObjectContext, record: Record, encoded_size: int) -> Decoder:
        del context
        decoder: Any = Lenient(self.sizes(record, encoded_size))
        if self.is_broken:
            decoder = self.change(decoder) or decoder
        return decoder  # type: ignore[no-any-return]  # of any type


def attributes(**values: object) -> Callable[[Any], object]:
    """Return a change that sets attributes."""

    def change(decoder: Any) -> None:
        for name, value in values.items():
            setattr(decoder, name, value)

    return change


def planning(change: Callable[[Any], object]) -> Callable[[Any], object]:
    """Return a change of every plan."""
    return wrapping("plan", change)


def wrapping(name: str, change: Callable[[Any], object]) -> Callable[[Any], object]:
    """Return a change of the results of a method."""

    def apply(decoder: Any) -> None:
        method = getattr(decoder, name)
        setattr(decoder, name, lambda *args: change(method(*args)))

    return apply


def failing(*_: object) -> Any:
    raise LookupError(BODY[:100])


class Failing(Lenient):
    """A decoder with properties that raise."""

    def __init__(self, name: str, decoder: Lenient) -> None:
        super().__init__(decoder._sizes)
        self._name = name

    def __getattribute__(self, name: str) -> object:
        if name == object.__getattribute__(self, "__dict__").get("_name"):
            raise LookupError(name)
        return object.__getattribute__(self, name)


def shifted(plan: Plan, blocks: int = 0, skip: int = 0, start: int = 0, end: int = 0) -> Plan:
    left, right = plan.encoded
    return Plan(plan.first + blocks, (left + start, right + end), plan.skip + skip)


BUGS: dict[str, Callable[[Any], object]] = {
    # Sizes and counts.
    "larger size": attributes(size=len(BODY) + 1),
    "smaller size": attributes(size=len(BODY) - 1),
    "no bytes": attributes(size=0),
    "huge size": attributes(size=1 << 80),
    "negative size": attributes(size=-5),
    "fraction as a size": attributes(size=5.5),
    "text as a size": attributes(size="5300"),
    "no size and no index": attributes(size=None),
    "no blocks": attributes(block_count=0),
    "negative block count": attributes(block_count=-1),
    "one block too many": attributes(block_count=7),
    "one block too few": attributes(block_count=5),
    "huge block count": attributes(block_count=1 << 80, size=1 << 81),
    "endless empty blocks": attributes(
        block_count=1 << 40,
        size=1 << 41,
        encoded_block_size=lambda *_: 0,
        decode=lambda *_: b"",
    ),
    "no block count": attributes(block_count=None),
    # Plans.
    "previous block": planning(lambda plan: shifted(plan, blocks=-1)),
    "next block": planning(lambda plan: shifted(plan, blocks=1)),
    "one byte skipped too many": planning(lambda plan: shifted(plan, skip=1)),
    "one byte skipped too few": planning(lambda plan: shifted(plan, skip=-1)),
    "one block skipped too many": planning(lambda plan: shifted(plan, skip=BLOCK)),
    "nothing skipped": planning(lambda plan: plan._replace(skip=0)),
    "huge skip": planning(lambda plan: plan._replace(skip=1 << 80)),
    "next block and its bytes": planning(lambda p: shifted(p, 1, start=1004, end=1004)),
    "bytes of the next block": planning(lambda plan: shifted(plan, start=1004, end=1004)),
    "bytes of the previous block": planning(lambda plan: shifted(plan, start=-1004, end=-1004)),
    "bytes from the start": planning(lambda plan: plan._replace(encoded=(0, plan.encoded[1]))),
    "bytes to the end": planning(lambda plan: plan._replace(encoded=(plan.encoded[0], SIZE))),
    "bytes past the end": planning(lambda plan: shifted(plan, end=SIZE)),
    "bytes before the start": planning(lambda plan: shifted(plan, start=-SIZE)),
    "no bytes planned": planning(lambda plan: plan._replace(encoded=(4, 4))),
    "reversed bytes": planning(lambda plan: plan._replace(encoded=plan.encoded[::-1])),
    "one byte of the last block missing": planning(lambda plan: shifted(plan, end=-1)),
    "last block missing": planning(lambda plan: shifted(plan, end=-1004)),
    "first block always": planning(lambda _: Plan(0, (4, 1008), 0)),
    "tuple instead of a plan": planning(tuple),
    "no plan": planning(lambda _: None),
    "fractions in a plan": planning(lambda plan: plan._replace(skip=plan.skip + 0.5)),
    "texts in a plan": planning(lambda plan: plan._replace(encoded=("4", "1008"))),
    "plan raises": attributes(plan=failing),
    # Blocks.
    "longer blocks": wrapping("decode", lambda block: block + b"x"),
    "shorter blocks": wrapping("decode", lambda block: block[:-1]),
    "one long and one short block": attributes(
        decode=lambda index, data: bytes(data[4:]).translate(INVERTED) + b"x" * (index - 1)
    ),
    "empty blocks": wrapping("decode", lambda _: b""),
    "huge blocks": wrapping("decode", lambda _: bytes(1 << 21)),
    "text as a block": wrapping("decode", lambda block: block.decode("latin-1")),
    "writable blocks": wrapping("decode", bytearray),
    "no block": wrapping("decode", lambda _: None),
    "decode raises": attributes(decode=failing),
    "encoded block without a size": attributes(encoded_block_size=lambda *_: None),
    "encoded block without bytes": attributes(encoded_block_size=lambda *_: 0),
    "larger encoded blocks": wrapping("encoded_block_size", lambda size: size + 1),
    "smaller encoded blocks": wrapping("encoded_block_size", lambda size: size - 1),
    "fraction as an encoded size": attributes(encoded_block_size=lambda *_: 1004.0),
    "encoded_block_size raises": attributes(encoded_block_size=failing),
    # Header, trailer and other values.
    "other header": attributes(header=b"OTHER"),
    "no header": attributes(header=b""),
    "text as a header": attributes(header="HEAD"),
    "header is None": attributes(header=None),
    "other trailer": attributes(trailer=lambda _: b"END"),
    "text as a trailer": attributes(trailer=lambda _: "END"),
    "trailer is None": attributes(trailer=lambda _: None),
    "trailer raises": attributes(trailer=failing),
    "text as an inline size": attributes(inline_size="large"),
    "negative inline size": attributes(inline_size=-1),
    # The index.
    "index without an end": attributes(index=(0, 10), load_index=lambda _: None),
    "index past the end": attributes(index=(0, SIZE + 1), load_index=lambda _: None),
    "index before the start": attributes(index=(-1, 10), load_index=lambda _: None),
    "empty index": attributes(index=(10, 10), load_index=lambda _: None),
    "reversed index": attributes(index=(10, 5), load_index=lambda _: None),
    "texts as an index": attributes(index=("0", "5"), load_index=lambda _: None),
    "number as an index": attributes(index=5, load_index=lambda _: None),
    "index is needed, and without an end": attributes(
        size=None, index=(0, 10), load_index=lambda _: None
    ),
    "load_index raises": attributes(size=None, index=(0, 10), load_index=failing),
    # Other objects.
    "not a decoder": lambda _: object(),
    **{
        f"{name} cannot be read": lambda decoder, name=name: Failing(name, decoder)  # type: ignore[misc]
        for name in ("size", "block_count", "index", "header", "inline_size", "plan")
    },
}


async def read_whole(store: Trove) -> None:
    assert await store.read("bucket", "key") == BODY


async def read_chunks(store: Trove) -> None:
    received = b""
    async with store.get("bucket", "key") as obj:
        try:
            while chunk := await obj.read(700):
                received += chunk
        finally:
            # What is wrong with the end is found at the end, but what was returned must be right.
            assert BODY.startswith(received)
    assert received == BODY


async def read_ranges(store: Trove) -> None:
    assert await store.get_ranges("bucket", "key", RANGES) == [BODY[slice(*at)] for at in RANGES]


def read_range(start: int, end: int | None) -> Callable[[Trove], Any]:
    async def read(store: Trove) -> None:
        data = await store.read("bucket", "key", range=(start, end))
        assert type(data) is bytes
        assert data == BODY[start:end]

    return read


async def read_last(store: Trove) -> None:
    assert await store.read("bucket", "key", range=ByteRange.last(10)) == BODY[-10:]


async def error_of(read: Awaitable[None]) -> IntegrityError | RangeError | None:
    try:
        await read
    except (IntegrityError, RangeError) as error:
        return error
    return None


READS = [
    read_whole,
    read_chunks,
    read_ranges,
    read_last,
    read_range(4990, None),
    *(read_range(*bounds) for bounds in RANGES),
]


@pytest.mark.parametrize("above", [True, False, None])
@pytest.mark.parametrize("bug", BUGS)
async def test_broken_decoder_never_returns_wrong_bytes(bug: str, above: bool | None) -> None:  # noqa: FBT001
    broken = Broken(BUGS[bug])
    aes = Encryption(RING, segment_size=4 * KiB)
    stack: Sequence[Middleware] = [broken, aes] if above else [aes, broken]
    fake = Fake()
    refused = 0
    async with store_of(fake, middleware=[broken] if above is None else stack) as store:
        await store.put("bucket", "key", BODY)
        broken.is_broken = True
        for read in READS:
            error = await error_of(read(store))
            refused += error is not None
            if isinstance(error, RangeError):
                assert "size" in bug  # the range is outside of a wrong size
            elif error is not None:
                # An encryption below or above may notice it first.
                assert "'framed'" in str(error) or above is not None
                assert error.key == "key"
                assert str(BODY[:10])[2:-1] not in str(error)
            assert_idle(store, fake)
        assert (await store.head("bucket", "key")).key == "key"
        assert [info.key async for info in store.list("bucket")] == ["key"]
    harmless = {"bytes to the end", "negative inline size"}
    assert refused or bug in harmless


@pytest.mark.parametrize("bug", [*BUGS, None])
async def test_copy_that_decodes_with_a_broken_decoder_stores_nothing_wrong(
    bug: str | None,
) -> None:
    broken = Broken(BUGS[bug] if bug else lambda _: None)
    async with store_of(Fake(), middleware=[broken]) as store:
        await store.put("bucket", "key", BODY)
        broken.is_broken = True
        broken.is_current = not_current  # type: ignore[method-assign]
        try:
            await store.copy("bucket", "key", "bucket", "copy")
        except IntegrityError:
            broken.is_broken = False
            assert not await store.exists("bucket", "copy")
        else:
            broken.is_broken = False
            assert await store.read("bucket", "copy") == BODY


async def not_current(*_: object, **__: object) -> bool:
    return False


async def test_exception_of_a_decoder_is_the_cause_of_the_error() -> None:
    broken = Broken(BUGS["decode raises"])
    async with store_of(Fake(), middleware=[broken]) as store:
        await store.put("bucket", "key", BODY)
        broken.is_broken = True
        with pytest.raises(IntegrityError, match="decode raised LookupError") as caught:
            await store.read("bucket", "key")
        assert isinstance(caught.value.__cause__, LookupError)


@pytest.mark.parametrize("result", [-1, 1.5, "5", True, failing])
async def test_wrong_decoded_size_is_in_no_listing(result: Any) -> None:
    broken = Broken(lambda _: None)
    async with store_of(Fake(), middleware=[broken]) as store:
        await store.put("bucket", "key", BODY)
        broken.decoded_size = result if callable(result) else lambda *_: result  # type: ignore[method-assign]
        async for listed in store.list("bucket"):
            assert not listed.complete
            assert listed.size == listed.stored_size == SIZE
        assert (await store.head("bucket", "key")).size == len(BODY)  # as the decoder states it
        assert await store.read("bucket", "key") == BODY


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("name", None, TypeError),
        ("name", b"framed", TypeError),
        ("name", "", ConfigError),
        ("segment_size", "4096", TypeError),
        ("segment_size", 0, ConfigError),
        ("segment_size", -1, ConfigError),
        ("segment_size", 1 << 40, ConfigError),
    ],
)
def test_wrong_settings_of_a_middleware_are_refused_by_the_store(
    name: str, value: Any, error: type[Exception]
) -> None:
    middleware: Any = Framed()
    setattr(middleware, name, value)
    with pytest.raises(error, match=name):
        Trove("mem://", middleware=[middleware])
