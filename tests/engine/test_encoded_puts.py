"""Puts through middlewares: bodies of every kind and size, and what is recorded with the object."""

from __future__ import annotations

import asyncio
import gc
import io
import itertools
import json
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from zstandard import ZstdDecompressor

from tests.fakes import CallLog, Sparse, WithoutEtags, content, single_attempt_store
from tests.framed_middleware import HEADER, INVERTED, Framed
from tests.transformed_objects import PART, compressible, store_with, stored_form, stream
from trove_async import (
    BufferPool,
    IntegrityError,
    NotSupportedError,
    ObjectNotFoundError,
)
from trove_async._engine import encoding
from trove_async._engine.block_workers import BlockWorkers
from trove_async._engine.encoding import encode_source
from trove_async._engine.sources import source_of
from trove_async.middleware import ObjectContext
from trove_async.middlewares import Compression, Encryption, Keyring
from trove_async.models import KiB, MiB
from trove_async.scope import Scope

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence
    from pathlib import Path

    from trove_async import BodySource
    from trove_async.middleware import Middleware

KEYS = Keyring({"2026-11": b"k" * 32})
FRAME = 4 * KiB
SEGMENT = 4 * KiB


def compression() -> Compression:
    return Compression(frame_size=FRAME, min_size=0)


def encryption() -> Encryption:
    return Encryption(KEYS, segment_size=SEGMENT)


STACKS: dict[str, Callable[[], Sequence[Middleware]]] = {
    "zstd": lambda: [compression()],
    "aes": lambda: [encryption()],
    "zstd, aes": lambda: [compression(), encryption()],
    "aes, zstd": lambda: [encryption(), compression()],
    "large blocks": lambda: [Compression(), Encryption(KEYS)],
    "blocks of 1000": lambda: [Framed()],
    "blocks of 1000, into": lambda: [Framed(into=True)],
    "increasing blocks": lambda: [Framed(lambda index: 1 + 370 * index, into=True)],
    "decreasing blocks": lambda: [Framed(lambda index: max(900, 9000 - 501 * index), into=True)],
    "alternating blocks": lambda: [Framed(lambda index: (70_001, 3)[index % 2], into=True)],
    "declining": lambda: [Framed(declines=True)],
    "declining, aes": lambda: [Framed(declines=True), encryption()],
    "aes, declining": lambda: [encryption(), Framed(declines=True)],
    "framed, aes, framed": lambda: [Framed(), encryption(), Framed(name="again", into=True)],
}


@pytest.fixture(params=STACKS)
def stack(request: pytest.FixtureRequest) -> Sequence[Middleware]:
    return STACKS[request.param]()


# -- kinds and sizes of bodies ---------------------------------------------------------------------


class Reader:
    def __init__(self, body: bytes) -> None:
        self._file = io.BytesIO(body)

    async def read(self, n: int, /) -> bytes:
        await asyncio.sleep(0)
        return self._file.read(min(n, 777))


def chunks(body: bytes) -> Iterator[bytes]:
    yield b""
    for at in range(0, len(body), 65_537):
        yield body[at : at + 65_537]
        yield b""


def file_of(body: bytes, path: Path) -> Path:
    path.write_bytes(body)
    return path


KINDS: dict[str, Callable[[bytes, Path], BodySource]] = {
    "bytes": lambda body, _: body,
    "bytearray": lambda body, _: bytearray(body),
    "memoryview": lambda body, _: memoryview(body),
    "BytesIO": lambda body, _: io.BytesIO(body),
    "path": file_of,
    "file": lambda body, path: file_of(body, path).open("rb"),
    "async reader": lambda body, _: Reader(body),
    "iterator": lambda body, _: chunks(body),
    "async iterator": lambda body, _: stream(body),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stack_name", ["zstd, aes", "large blocks", "blocks of 1000, into"])
async def test_body_of_any_kind_is_stored(kind: str, stack_name: str, tmp_path: Path) -> None:
    async with store_with(STACKS[stack_name]()) as store:
        await store.create_bucket("data")
        for size in (0, 1, 10 * KiB, 2 * PART + 12_345):
            data = compressible(size)
            body = KINDS[kind](data, tmp_path / "file")
            info = await store.put("data", "key", body)
            if isinstance(body, io.BufferedReader):
                body.close()
            assert info.size == size
            assert await store.read("data", "key") == data
            assert (await store.head("data", "key")).size == size
        assert store.pool.statistics().leased == 0


SIZES = [
    0, 1, 2, 999, 1000, 1001, 2000,
    SEGMENT - 57, SEGMENT - 56, SEGMENT - 55, 2 * SEGMENT - 73, 2 * SEGMENT - 72, 2 * SEGMENT - 71,
    FRAME - 1, FRAME, FRAME + 1, 256 * KiB, 256 * KiB + 1,
    PART - 300, PART, PART + 1, 2 * PART + 100,
]  # fmt: skip


@pytest.mark.parametrize("known", [True, False], ids=["known size", "unknown size"])
async def test_body_of_any_size_is_stored(stack: Sequence[Middleware], *, known: bool) -> None:
    async with store_with(stack) as store:
        await store.create_bucket("data")
        for size in SIZES:
            data = compressible(size)
            info = await store.put("data", "key", stream(data), size=size if known else None)
            assert info.size == size
            assert await store.read("data", "key") == data


@pytest.mark.parametrize("size", [0, 1, 10 * KiB, MiB - 56, MiB, MiB + 1, 2 * PART + 12_345])
async def test_incompressible_body_is_stored_as_it_is(size: int) -> None:
    driver = CallLog()
    data = os.urandom(size)
    async with store_with([Compression(frame_size=FRAME, min_size=1)], driver) as store:
        await store.create_bucket("data")
        for body in (data, stream(data)):
            info = await store.put("data", "key", body)
            assert (info.size, info.stored_size, info.transforms) == (size, size, ())
            assert info.checksums.keys() == {"crc32c"}
            assert await stored_form(driver) == data
            assert await store.head("data", "key") == info
            assert await store.read("data", "key", range=(0, 1) if size else None) == data[:1]


@pytest.mark.parametrize("size", [0, 10 * KiB, 2 * PART + 10])
@pytest.mark.parametrize("difference", [-1, 1])
@pytest.mark.parametrize("stack_name", ["zstd, aes", "aes", "declining"])
async def test_body_whose_size_is_not_the_declared_one_is_not_stored(
    stack_name: str, size: int, difference: int
) -> None:
    if size + difference < 0:
        return  # a declared size is not negative
    data = compressible(size)
    async with store_with(STACKS[stack_name]()) as store:
        await store.create_bucket("data")
        for body in (data, stream(data), io.BytesIO(data), Reader(data), [data]):
            with pytest.raises(IntegrityError, match="as declared"):
                await store.put("data", "key", body, size=size + difference)
            assert not await store.exists("data", "key")
        assert store.pool.statistics().leased == 0


async def test_file_is_left_where_it_was_by_a_put_that_fails(tmp_path: Path) -> None:
    with file_of(compressible(2 * PART), tmp_path / "file").open("rb") as file:
        file.seek(10)
        async with store_with([compression(), encryption()]) as store:
            await store.create_bucket("data")
            with pytest.raises(IntegrityError):
                await store.put("data", "key", file, size=5)
            assert file.tell() == 10


@pytest.mark.parametrize("size", [1, 10 * KiB, 2 * PART])
async def test_body_is_closed_after_a_put(size: int, tmp_path: Path) -> None:
    closed: list[bool] = []

    async def body() -> AsyncIterator[bytes]:
        try:
            yield compressible(size)
        finally:
            closed.append(True)

    path = file_of(compressible(size), tmp_path / "file")
    driver = CallLog()
    async with store_with([compression(), encryption()], driver) as store:
        await store.create_bucket("data")
        await store.put("data", "key", body())
        assert closed == [True]
        await store.put("data", "key", path)  # a file that stays open warns when it is collected
        await store.put("data", "copy", store.get("data", "key"))
        assert driver.open_readers == 0
        gc.collect()


@pytest.mark.parametrize("source_stack", ["zstd", "aes", "zstd, aes", "aes, zstd"])
@pytest.mark.parametrize("stack_name", ["zstd, aes", "aes, zstd", "blocks of 1000, into"])
@pytest.mark.parametrize("size", [0, 1, 10 * KiB, 2 * PART + 17])
async def test_reader_of_a_store_is_a_body(source_stack: str, stack_name: str, size: int) -> None:
    stack = STACKS[stack_name]()
    data = compressible(size)
    async with (
        store_with(STACKS[source_stack]()) as source,
        store_with(stack) as target,
    ):
        await source.create_bucket("data")
        await target.create_bucket("data")
        await source.put("data", "key", data)
        info = await target.put("data", "opening", source.get("data", "key"))
        assert info.size == size
        async with source.get("data", "key") as reader:
            await target.put("data", "open", reader)
        assert await target.read("data", "opening") == await target.read("data", "open") == data


# -- the stored form -------------------------------------------------------------------------------


async def test_stored_form_is_a_zstd_file() -> None:
    driver, data = CallLog(), compressible(3 * MiB + 5)
    async with store_with([Compression()], driver) as store:
        await store.create_bucket("data")
        info = await store.put("data", "key", data)
    stored = await stored_form(driver)
    assert info.stored_size == len(stored) < 0.7 * len(data)
    with ZstdDecompressor().stream_reader(stored, read_across_frames=True) as reader:
        assert reader.read() == data


async def test_middlewares_are_applied_in_the_order_of_the_list() -> None:
    driver, data = CallLog(), compressible(100 * KiB)
    async with store_with([Framed(name="one"), Framed(name="two")], driver) as store:
        await store.create_bucket("data")
        info = await store.put("data", "key", data)
        assert info.transforms == ("one", "two")
        assert (await store.head("data", "key")).transforms == ("one", "two")
    twice_inverted = (await stored_form(driver))[8:]
    assert twice_inverted.startswith(b"HEAD".translate(bytes(255 - value for value in range(256))))


async def test_body_of_known_size_is_encoded_with_that_size_in_the_context() -> None:
    one, two = Framed(), Framed(name="two")
    async with store_with([one, two]) as store:
        await store.create_bucket("data")
        await store.put("data", "a.csv", b"x" * 1000, content_type="Text/CSV; charset=utf-8")
        await store.put("data", "b.txt", stream(b"x" * 1000))
        await store.put("data", "c", stream(b"x" * 3 * MiB), size=3 * MiB)
        await store.put("data", "d", stream(b"x" * 3 * MiB))
    sizes = [context.size for context in one.contexts]
    assert sizes == [1000, 1000, 3 * MiB, None]
    assert two.contexts[0].size == 4 + 1004 + 7
    first = one.contexts[0]
    assert (first.bucket, first.key, first.backend) == ("data", "a.csv", "default")
    assert [context.content_type for context in one.contexts] == [
        "text/csv", "text/plain", None, None,
    ]  # fmt: skip


async def test_encoder_that_returns_none_leaves_the_body_and_no_record() -> None:
    driver = CallLog()
    async with store_with([Framed(least=10)], driver) as store:
        await store.create_bucket("data")
        for body in (b"small", stream(b"small")):
            info = await store.put("data", "key", body)
            assert (info.transforms, info.records) == ((), None)
            assert await stored_form(driver) == b"small"
        assert (await store.put("data", "key", b"x" * 10)).transforms == ("framed",)


async def test_small_and_already_compressed_bodies_are_stored_as_they_are() -> None:
    async with store_with([Compression(min_size=100, skip=["image/*"])]) as store:
        await store.create_bucket("data")
        zeros = bytes(10_000)
        assert (await store.put("data", "a", zeros[:99])).transforms == ()
        assert (await store.put("data", "a", stream(zeros[:99]))).transforms == ()
        assert (await store.put("data", "a", zeros[:100])).transforms == ("zstd",)
        assert (await store.put("data", "a", zeros, content_type="IMAGE/png; x=1")).transforms == ()
        assert (await store.put("data", "a.png", zeros)).transforms == ()
        assert (await store.put("data", "a.png", zeros, content_type="")).transforms == ("zstd",)
        assert (await store.put("data", "a.png", zeros, content_type="a/b")).transforms == ("zstd",)


async def test_unaligned_views_are_encoded_in_place() -> None:
    # A part of 1 MiB has room for 1044 blocks of 1004 bytes and a rest, which the next part begins with.
    driver = CallLog()
    pool = BufferPool(4 * MiB, part_size=PART)
    data = content(3 * PART)
    async with single_attempt_store(driver, middleware=[Framed(into=True)], pool=pool) as store:
        await store.create_bucket("data")
        await store.put("data", "into", stream(data), size=len(data))
    async with single_attempt_store(driver, middleware=[Framed()], pool=pool) as store:
        await store.put("data", "copied", stream(data), size=len(data))
    assert await stored_form(driver, "into") == await stored_form(driver, "copied")


@settings(max_examples=300)
@given(
    blocks=st.lists(st.integers(1, 40), min_size=1, max_size=5),
    size=st.integers(0, 300),
    chunk=st.integers(1, 100),
    views=st.lists(st.lists(st.integers(1, 120), min_size=1, max_size=3), min_size=1, max_size=6),
    known=st.booleans(),
    into=st.booleans(),
    layers=st.integers(1, 2),
)
async def test_views_of_any_sizes_are_filled_with_the_encoded_body(
    blocks: list[int],
    size: int,
    chunk: int,
    views: list[list[int]],
    *,
    known: bool,
    into: bool,
    layers: int,
) -> None:
    body = content(300)[:size]
    middlewares = [
        Framed(lambda index: blocks[index % len(blocks)], into=into, name=f"{layer}")
        for layer in range(layers)
    ]
    context = ObjectContext(bucket="data", key="key", backend="default")
    source = source_of(stream(body, chunk))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoding, "_known_size", lambda _: None)  # not encoded as a whole
        declared = size if known else None
        encoded = await encode_source(source, declared, middlewares, context, BlockWorkers(2))
    assert encoded is not None
    received = b""
    shapes = itertools.cycle(views)
    while await encoded.ready():
        buffers = [bytearray(length) for length in next(shapes)]
        filled = await encoded.fill([memoryview(buffer) for buffer in buffers])
        assert filled > 0
        received += b"".join(buffers)[:filled]
    await encoded.aclose()
    assert encoded.body_size == size
    assert received == encoded_by_hand(body, blocks, layers)


def encoded_by_hand(body: bytes, blocks: list[int], layers: int) -> bytes:
    for _ in range(layers):
        pieces: list[bytes] = []
        rest = body
        while rest or not pieces:
            length = blocks[len(pieces) % len(blocks)]
            number = len(pieces).to_bytes(4, "big")
            pieces.append(number + rest[:length].translate(INVERTED))
            rest = rest[length:]
        body = HEADER + b"".join(pieces) + b"END" + len(pieces).to_bytes(4, "big")
    return body


# -- what users see --------------------------------------------------------------------------------


async def test_put_head_get_and_list_agree(stack: Sequence[Middleware]) -> None:
    async with store_with(stack) as store:
        await store.create_bucket("data")
        for size in (0, 10 * KiB, 2 * PART):
            put = await store.put(
                "data", "key.txt", compressible(size), metadata={"a": "b"}, tags={"t": "u"}
            )
            async with store.get("data", "key.txt") as reader:
                got = reader.info
            head = await store.head("data", "key.txt")
            (listed,) = await store.list("data").all()
            (detailed,) = await store.list("data", details=True).all()
            assert put == got == head == listed == detailed
            assert (put.size, put.complete, put.backend) == (size, True, "default")
            assert (put.metadata, put.tags) == ({"a": "b"}, {"t": "u"})
            assert put.content_type == "text/plain"
            assert (put.checksums == {}) is bool(put.transforms)
            assert (put.stored_size != size) is bool(put.transforms)


async def test_listing_without_metadata_has_the_stored_size_unless_details_are_requested() -> None:
    async with store_with([encryption()], Sparse()) as store:
        await store.create_bucket("data")
        put = await store.put("data", "key", b"body")
        (listed,) = await store.list("data").all()
        assert (listed.size, listed.stored_size, listed.complete) == (60, 60, False)
        assert isinstance(listed.key, str)
        assert await store.list("data", details=True).all() == [put]


async def test_compressed_body_of_unknown_size_costs_head_one_ranged_request() -> None:
    driver, data = CallLog(), compressible(3 * PART)
    async with store_with([compression()], driver) as store:
        await store.create_bucket("data")
        put = await store.put("data", "key", stream(data))
        assert (put.size, put.complete) == (len(data), True)
        driver.calls.clear()
        assert await store.head("data", "key") == put
        assert driver.calls == ["head", "get"]
        (listed,) = await store.list("data").all()
        assert (listed.size, listed.complete) == (put.stored_size, False)
        assert await store.list("data", details=True).all() == [put]
        async with store.get("data", "key") as reader:
            assert reader.info == put


@pytest.mark.parametrize("known", [True, False])
async def test_small_or_encrypted_bodies_cost_head_no_request(*, known: bool) -> None:
    driver = CallLog()
    async with (
        store_with([compression()], driver) as store,
        store_with([encryption()], other := CallLog()) as encrypted,
    ):
        await store.create_bucket("data")
        await encrypted.create_bucket("data")
        small, large = compressible(PART), compressible(3 * PART)
        await store.put("data", "key", small if known else stream(small))
        await encrypted.put("data", "key", large if known else stream(large))
        driver.calls.clear()
        other.calls.clear()
        assert (await store.head("data", "key")).size == len(small)
        assert (await encrypted.head("data", "key")).size == len(large)
        assert driver.calls == other.calls == ["head"]


@pytest.mark.parametrize("body", [b"small", compressible(3 * PART)], ids=["small", "in parts"])
async def test_progress_counts_the_bytes_that_the_backend_has_received(body: bytes) -> None:
    reports: list[tuple[int, int | None]] = []

    def report(done: int, total: int | None) -> None:
        reports.append((done, total))

    async with store_with([encryption()]) as store:
        await store.create_bucket("data")
        info = await store.put("data", "key", body, progress=report)
    assert reports[-1] == (info.stored_size, info.stored_size)
    assert reports == sorted(reports)


async def test_progress_has_no_total_if_it_depends_on_the_bytes() -> None:
    reports: list[tuple[int, int | None]] = []

    def report(done: int, total: int | None) -> None:
        reports.append((done, total))

    async with store_with([compression()]) as store:
        await store.create_bucket("data")
        info = await store.put("data", "key", compressible(3 * PART), progress=report)
    assert reports[-1] == (info.stored_size, None)


# -- limits of backends ----------------------------------------------------------------------------


@pytest.mark.parametrize("size", [10, 3 * PART])
async def test_records_that_do_not_fit_the_metadata_are_rejected_before_any_request(
    size: int,
) -> None:
    driver = CallLog(max_metadata_bytes=200)
    async with store_with([encryption()], driver) as store:
        await store.create_bucket("data")
        driver.calls.clear()
        for body in (content(size), stream(content(size))):
            with pytest.raises(NotSupportedError, match=r"of which \d+ are the records") as caught:
                await store.put("data", "key", body, metadata={"a": "x" * 100})
            assert (caught.value.operation, caught.value.key) == ("put", "key")
            assert store.pool.statistics().leased == 0
        assert driver.calls == []
        await store.put("data", "key", content(size), metadata={"a": "x" * 20})


@pytest.mark.parametrize("size", [None, 4])
async def test_backend_without_metadata_is_rejected_before_the_body_is_read(
    size: int | None,
) -> None:
    driver = CallLog(metadata=False)
    pulled: list[bytes] = []

    async def body() -> AsyncIterator[bytes]:
        pulled.append(b"body")
        yield b"body"

    async with store_with([(encryption(), Scope.keys("secret"))], driver) as store:
        await store.create_bucket("data")
        driver.calls.clear()
        with pytest.raises(NotSupportedError, match="metadata"):
            await store.put("data", "secret", body(), size=size)
        assert (driver.calls, pulled) == ([], [])
        await store.put("data", "public", body(), size=size)
        assert await store.read("data", "public") == b"body"


async def test_backend_without_ranges_stores_and_returns_encoded_bodies(
    stack: Sequence[Middleware],
) -> None:
    driver = CallLog(ranges=False)
    async with store_with(stack, driver) as store:
        await store.create_bucket("data")
        for size in (0, 1, 10 * KiB, 3 * PART):
            data = compressible(size)
            for body in (data, stream(data)):
                info = await store.put("data", "key", body)
                assert info.size == size
                assert await store.read("data", "key") == data
                head = await store.head("data", "key")
                assert head.size == (size if head.complete else head.stored_size)
        with pytest.raises(NotSupportedError):
            await store.read("data", "key", range=(0, 1))
        with pytest.raises(NotSupportedError):
            await store.get_ranges("data", "key", [(0, 1)])


async def test_backend_without_uploads_stores_encoded_bodies(stack: Sequence[Middleware]) -> None:
    async with store_with(stack, CallLog(upload=False)) as store:
        await store.create_bucket("data")
        data = compressible(3 * PART)
        for body in (data, stream(data)):
            await store.put("data", "key", body)
            assert await store.read("data", "key") == data


async def test_service_without_etags_stores_and_returns_encoded_bodies(
    stack: Sequence[Middleware],
) -> None:
    async with store_with(stack, WithoutEtags()) as store:
        await store.create_bucket("data")
        data = compressible(3 * PART)
        for body in (data, stream(data)):
            info = await store.put("data", "key", body)
            assert info.etag is None
            assert await store.read("data", "key") == data
            assert await store.read("data", "key", range=(5, PART)) == data[5:PART]
            assert await store.head("data", "key") == info


async def test_records_are_hidden_but_in_the_stored_metadata() -> None:
    driver = CallLog()
    async with store_with([compression(), encryption()], driver) as store:
        await store.create_bucket("data")
        info = await store.put("data", "key", compressible(10 * KiB), metadata={"a": "b"})
    assert info.metadata == {"a": "b"}
    assert info.records is not None
    names = [name for name, _ in json.loads(info.records)]
    assert names == ["zstd", "aes256-gcm-hkdf"]
    assert "k" * 32 not in info.records
    assert "trove-transforms" not in repr(info)
    assert replace(info, metadata={}).records == info.records


async def test_put_that_fails_to_get_a_key_stores_nothing_and_closes_the_body() -> None:
    class NoKeys:
        async def for_write(self, context: Any) -> Any:
            raise ObjectNotFoundError("no key", key=context.key)

        async def for_read(self, context: Any, key_id: str, wrapped: bytes | None) -> Any:
            raise AssertionError((context, key_id, wrapped))

    closed: list[bool] = []

    async def body() -> AsyncIterator[bytes]:
        try:
            yield b"one"
            yield b"two"
        finally:
            closed.append(True)

    driver = CallLog()
    async with store_with([compression(), Encryption(NoKeys())], driver) as store:
        await store.create_bucket("data")
        driver.calls.clear()
        with pytest.raises(ObjectNotFoundError, match="no key"):
            await store.put("data", "key", body())
    assert closed == [True]
    assert driver.stored_keys("data") == []
