"""Reading the stored bytes of transformed objects: ``decode=False``."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import zstandard

from tests.fakes import NO_RETRIES, Fake, assert_idle, small_pool
from tests.xor_middleware import Xor
from trove_async import ByteRange, ObjectInfo, RangeError, Trove
from trove_async._checksums import CRC32C, crc32c_of
from trove_async.errors import DecryptionError, IntegrityError
from trove_async.middlewares.compression import Compression

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

TEXT = b"".join(b"%d bottles of beer\n" % number for number in range(120_000))
FLIPPED = bytes(byte ^ 0x5A for byte in TEXT)


def decompress(data: bytes) -> bytes:
    with zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True) as reader:
        return reader.read()


@asynccontextmanager
async def opened(fake: Fake, *middlewares: Any) -> AsyncIterator[Trove]:
    """Open a store with the bucket ``data``. Assert that the test leaves no resources open."""
    async with Trove(fake, middleware=middlewares, pool=small_pool(), retry=NO_RETRIES) as store:
        await store.create_bucket("data", exist_ok=True)
        yield store
        assert_idle(store, fake)


def requests(fake: Fake) -> list[str]:
    """Return the requests since the last call."""
    result = [step for step in fake.steps if step in {"get", "head"}]
    fake.steps.clear()
    return result


async def test_stored_bytes_are_returned_as_they_are() -> None:
    fake = Fake()
    async with opened(fake, Compression(), Xor()) as store:
        await store.put("data", "k", TEXT)
        info = await store.head("data", "k")
        requests(fake)
        async with store.get("data", "k", decode=False) as reader:
            stored = await reader.read()
        assert requests(fake) == ["get"]
        assert decompress(bytes(byte ^ 0x5A for byte in stored)) == TEXT
        assert reader.info.size == reader.info.stored_size == info.stored_size == len(stored)
        assert reader.info.transforms == info.transforms == ("zstd", "xor")
        assert reader.info.checksums == {CRC32C: crc32c_of([stored])}
        assert reader.info.backend == "default"
        assert reader.info.etag == info.etag
        assert await store.read("data", "k", decode=False) == stored
        assert await store.bucket("data").read("k", decode=False) == stored
        async with store.bucket("data").get("k", decode=False) as reader:
            assert await reader.read() == stored
        assert await store.read("data", "k") == TEXT


@pytest.mark.parametrize("after_a_decoded_range", [False, True])
async def test_range_selects_stored_bytes(after_a_decoded_range: bool) -> None:  # noqa: FBT001
    fake = Fake()
    async with opened(fake, Compression()) as store:
        await store.put("data", "k", TEXT)
        if after_a_decoded_range:  # its index is remembered
            assert await store.read("data", "k", range=(7, 9)) == TEXT[7:9]
        stored = await store.read("data", "k", decode=False)
        requests(fake)
        for byte_range, part in (
            ((5, 1000), stored[5:1000]),
            ((5, None), stored[5:]),
            (ByteRange.last(9), stored[-9:]),
        ):
            assert await store.read("data", "k", range=byte_range, decode=False) == part
        assert requests(fake) == ["get"] * 3
        with pytest.raises(RangeError):
            await store.read("data", "k", range=(len(stored), None), decode=False)
        assert requests(fake) == ["get"]
        with pytest.raises(RangeError, match="limit"):
            await store.read("data", "k", limit=len(stored) - 1, decode=False)


async def test_object_that_is_stored_as_it_is_is_read_alike() -> None:
    fake = Fake()
    async with opened(fake, Compression()) as store:
        await store.put("data", "small", b"too small to compress")
        await store.put("data", "photo.png", TEXT)
        for key, body in (("small", b"too small to compress"), ("photo.png", TEXT)):
            async with store.get("data", key, decode=False) as reader:
                assert await reader.read() == body
            assert reader.info == await store.head("data", key)
            assert reader.info.transforms == ()


async def test_function_decides_from_the_first_response() -> None:
    fake = Fake()
    infos: list[ObjectInfo] = []

    def decode(info: ObjectInfo) -> bool:
        infos.append(info)
        return info.transforms != ("zstd",)

    async with opened(fake, Compression()) as store:
        await store.put("data", "zstd.txt", TEXT)
        await store.put("data", "small", b"too small to compress")
        stored = await store.read("data", "zstd.txt", decode=False)
        async with opened(fake, Xor()) as other:
            await other.put("data", "xor.txt", TEXT)
            requests(fake)
            for key, expected in (
                ("zstd.txt", stored),
                ("xor.txt", TEXT),
                ("small", b"too small to compress"),
            ):
                async with other.get("data", key, decode=decode) as reader:
                    assert await reader.read() == expected
                    assert reader.info.size == len(expected)
                assert requests(fake) == ["get"]
    assert [(info.key, info.size) for info in infos[:2]] == [
        ("zstd.txt", len(stored)),
        ("xor.txt", len(TEXT)),
    ]
    assert {info.backend for info in infos} == {"default"}


async def test_function_decides_for_ranges() -> None:
    fake = Fake()
    async with opened(fake, Compression()) as store:
        await store.put("data", "k", TEXT)
        stored = await store.read("data", "k", decode=False)
        for _ in range(2):  # the second time, the index is remembered
            async with store.get("data", "k", range=(9, 99), decode=lambda _: True) as reader:
                assert await reader.read() == TEXT[9:99]
            async with store.get("data", "k", range=(9, 99), decode=lambda _: False) as reader:
                assert await reader.read() == stored[9:99]
        outside = (len(stored) + 5, len(stored) + 9)
        async with store.get("data", "k", range=outside, decode=lambda _: True) as reader:
            assert await reader.read() == TEXT[slice(*outside)]
        with pytest.raises(RangeError):
            await store.get("data", "k", range=outside, decode=lambda _: False)


async def test_function_that_raises_closes_the_response() -> None:
    fake = Fake()

    def decode(info: ObjectInfo) -> bool:
        raise KeyError(info.key)

    async with opened(fake, Compression()) as store:
        await store.put("data", "k", TEXT)
        for byte_range in (None, (0, 5)):
            with pytest.raises(KeyError):
                await store.get("data", "k", range=byte_range, decode=decode)


async def test_required_middleware_is_obeyed() -> None:
    fake = Fake()
    async with opened(fake, Compression()) as store:
        await store.put("data", "plain", b"plain")
        await store.put("data", "zstd", TEXT)
    async with opened(fake, Xor(required=True)) as store:
        await store.put("data", "xor", TEXT)
        assert await store.read("data", "xor", decode=False) == FLIPPED
        for key in ("plain", "zstd"):
            for byte_range in (None, (0, 5)):
                for decode in (False, lambda _: False):
                    with pytest.raises(DecryptionError):
                        await store.get("data", key, range=byte_range, decode=decode)


async def test_malformed_records_and_unknown_transforms_do_not_matter() -> None:
    fake = Fake()
    async with opened(fake, Xor()) as store:
        await store.put("data", "k", TEXT)
    async with opened(fake) as store:
        assert await store.read("data", "k", decode=False) == FLIPPED
        objects = fake._buckets["data"].objects
        stored = objects["k"]
        objects["k"] = stored._replace(info=replace(stored.info, records="[["))
        assert await store.read("data", "k", decode=False) == FLIPPED
        with pytest.raises(IntegrityError):
            await store.read("data", "k")


async def test_stored_bytes_are_verified() -> None:
    fake = Fake()
    async with opened(fake, Compression()) as store:
        await store.put("data", "k", TEXT)
        fake.flips.append(10)
        with pytest.raises(IntegrityError):
            await store.read("data", "k", decode=False)


async def test_put_of_stored_bytes_stores_these_bytes() -> None:
    fake = Fake()
    async with opened(fake, Compression()) as store:
        await store.put("data", "k", TEXT)
        stored = await store.read("data", "k", decode=False)
        info = await store.put("data", "k.zst", store.get("data", "k", decode=False))
        assert (info.size, info.transforms) == (len(stored), ())
        assert await store.read("data", "k.zst") == stored


@pytest.mark.parametrize("decode", [None, 0, "no", object()])
async def test_decode_must_be_a_bool_or_a_function(decode: Any) -> None:
    async def function(info: ObjectInfo) -> bool:
        return bool(info)

    async with opened(Fake()) as store:
        with pytest.raises(TypeError, match="decode must be a bool or a function, got "):
            store.get("data", "k", decode=decode)
        with pytest.raises(TypeError, match="decode must be a bool, got "):
            await store.read("data", "k", decode=decode)
        with pytest.raises(TypeError, match="decode must be a bool, got function"):
            await store.read("data", "k", decode=function)  # type: ignore[arg-type]  # checked above
        with pytest.raises(TypeError, match="plain function"):
            store.get("data", "k", decode=function)  # type: ignore[arg-type]  # checked above
