"""Tests of `Faulty`: it passes the driver suite, and each fault has its documented effect."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import pytest

from trove_async._concurrency import OwnedTask
from trove_async.driver import Capabilities, Layer, ReadsInto
from trove_async.drivers.memory import MemoryDriver
from trove_async.errors import (
    BucketExistsError,
    BucketNotFoundError,
    ObjectNotFoundError,
    StorageFullError,
    UnavailableError,
)
from trove_async.models import ByteRange
from trove_async.options import (
    CopyOptions,
    DeleteOptions,
    GetOptions,
    ListOptions,
    Part,
    PresignOptions,
    PutOptions,
)
from trove_async.testing import Call, DriverSuite, Faulty, opened
from trove_async.testing._harness import content, keys, read, upload, views, write

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trove_async.driver import DriverReader

BODY = content(1000)


class TestFaultyWithoutFaults(DriverSuite):
    @pytest.fixture
    def driver(self) -> Faulty:
        return Faulty(MemoryDriver())


class TestFaultyWithFewerCapabilities(DriverSuite):
    @pytest.fixture
    def driver(self) -> Faulty:
        inner = MemoryDriver()
        claimed = replace(
            inner.capabilities,
            ordered=False,
            checksums=frozenset(),
            tags=False,
            min_part=4096,
            part_multiple=1024,
        )
        return Faulty(inner, capabilities=claimed)


def test_faulty_is_not_a_layer() -> None:
    assert not isinstance(Faulty(MemoryDriver()), Layer)


async def test_failure_before_the_call_changes_nothing() -> None:
    faulty = Faulty(MemoryDriver())
    async with opened(faulty):
        await faulty.create_bucket("b")
        faulty.fail("put")
        with pytest.raises(UnavailableError):
            await write(faulty, "b", "k")
        assert await keys(faulty, "b") == []
        await write(faulty, "b", "k")
        assert await keys(faulty, "b") == ["k"]


async def test_failure_after_the_call_loses_only_the_response() -> None:
    faulty = Faulty(MemoryDriver())
    async with opened(faulty):
        await faulty.create_bucket("b")
        faulty.fail("put", StorageFullError("full"), when="after")
        with pytest.raises(StorageFullError):
            await write(faulty, "b", "k", b"stored")
        assert await read(faulty, "b", "k") == b"stored"


async def test_failure_applies_only_to_matching_calls() -> None:
    faulty = Faulty(MemoryDriver())
    async with opened(faulty):
        for bucket in ("b", "c"):
            await faulty.create_bucket(bucket)
        faulty.fail("put", bucket="b", key="k", skip=1, times=2)
        outcomes = []
        for bucket, key in [("c", "k"), ("b", "x"), *[("b", "k")] * 4]:
            try:
                await write(faulty, bucket, key)
            except UnavailableError:
                outcomes.append("fails")
            else:
                outcomes.append("succeeds")
        assert outcomes == ["succeeds", "succeeds", "succeeds", "fails", "fails", "succeeds"]


async def test_unlimited_failure_lasts_until_heal() -> None:
    faulty = Faulty(MemoryDriver())
    async with opened(faulty):
        faulty.fail("ping", times=None)
        errors = []
        for _ in range(3):
            with pytest.raises(UnavailableError) as caught:
                await faulty.ping()
            errors.append(caught.value)
        assert len(set(map(id, errors))) == 3  # each call raises a new copy
        faulty.heal()
        await faulty.ping()


@pytest.mark.parametrize("when", ["before", "after"])
async def test_call_hangs_until_released(when: Literal["before", "after"]) -> None:
    faulty = Faulty(MemoryDriver())
    async with opened(faulty):
        await faulty.create_bucket("b")
        hang = faulty.hang("put", when=when)
        task = OwnedTask(write(faulty, "b", "k"))
        await hang.reached.wait()
        assert await keys(faulty, "b") == ([] if when == "before" else ["k"])
        assert not task.done
        hang.release()
        assert (await task.result()).key == "k"


async def test_hanging_call_can_be_cancelled() -> None:
    faulty = Faulty(MemoryDriver())
    async with opened(faulty):
        await faulty.create_bucket("b")
        hang = faulty.hang("put")
        task = OwnedTask(write(faulty, "b", "k"))
        await hang.reached.wait()
        await task.aclose()
        assert await keys(faulty, "b") == []


async def test_heal_releases_hanging_calls() -> None:
    faulty = Faulty(MemoryDriver())
    async with opened(faulty):
        hang = faulty.hang("ping")
        task = OwnedTask(faulty.ping())
        await hang.reached.wait()
        faulty.heal()
        await task.result()


async def _read_pieces(faulty: Faulty, *, use_readinto: bool, start: int = 0) -> bytes:
    received = bytearray()
    options = GetOptions(range=ByteRange(start) if start else None)
    async with faulty.get("b", "k", options) as reader:
        memory = memoryview(bytearray(300))
        while True:
            if use_readinto:
                assert isinstance(reader, ReadsInto)
                piece = bytes(memory[: await reader.readinto(memory)])
            else:
                piece = await reader.read(300)
            if not piece:
                return bytes(received)
            received += piece


@pytest.fixture
def faulty() -> Faulty:
    return Faulty(MemoryDriver())


@pytest.fixture(params=[False, True], ids=["read", "readinto"])
def use_readinto(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


async def _fill(faulty: Faulty) -> None:
    await faulty.create_bucket("b")
    await write(faulty, "b", "k", BODY)


@pytest.mark.parametrize("at", [0, 1, 300, 450, 1000])
async def test_cut_breaks_the_body_at_its_byte(
    faulty: Faulty, at: int, *, use_readinto: bool
) -> None:
    async with opened(faulty):
        await _fill(faulty)
        faulty.cut("k", at=at)
        with pytest.raises(UnavailableError):
            await _read_pieces(faulty, use_readinto=use_readinto)
        assert await _read_pieces(faulty, use_readinto=use_readinto) == BODY
        assert faulty.open_readers == 0


async def test_cut_offset_counts_from_the_start_of_the_object(
    faulty: Faulty, *, use_readinto: bool
) -> None:
    async with opened(faulty):
        await _fill(faulty)
        faulty.cut("k", at=500, times=2)
        assert await _read_pieces(faulty, use_readinto=use_readinto, start=501) == BODY[501:]
        for start in (100, 500):
            with pytest.raises(UnavailableError):
                await _read_pieces(faulty, use_readinto=use_readinto, start=start)
        assert await _read_pieces(faulty, use_readinto=use_readinto, start=500) == BODY[500:]


@pytest.mark.parametrize("at", [0, 1, 300, 999])
async def test_short_ends_the_body_before_its_byte(
    faulty: Faulty, at: int, *, use_readinto: bool
) -> None:
    async with opened(faulty):
        await _fill(faulty)
        faulty.short("k", at=at)
        async with faulty.get("b", "k", GetOptions()) as reader:
            received = b""
            while piece := await reader.read(400):
                received += piece
            assert await reader.read(1) == b""
            assert received == BODY[:at]
        assert await _read_pieces(faulty, use_readinto=use_readinto) == BODY


async def test_flip_changes_one_byte(faulty: Faulty, *, use_readinto: bool) -> None:
    async with opened(faulty):
        await _fill(faulty)
        faulty.flip("k", at=301)
        received = await _read_pieces(faulty, use_readinto=use_readinto)
        assert [offset for offset in range(1000) if received[offset] != BODY[offset]] == [301]
        assert await _read_pieces(faulty, use_readinto=use_readinto) == BODY


async def test_flaws_apply_to_their_object_only(faulty: Faulty, *, use_readinto: bool) -> None:
    async with opened(faulty):
        await _fill(faulty)
        faulty.cut("other", at=5)
        faulty.cut("k", at=5, bucket="other")
        assert await _read_pieces(faulty, use_readinto=use_readinto) == BODY
        faulty.cut("k", at=5, bucket="b", times=None)
        for _ in range(3):
            with pytest.raises(UnavailableError):
                await _read_pieces(faulty, use_readinto=use_readinto)


async def test_calls_and_open_contexts_are_counted(faulty: Faulty) -> None:
    async with opened(faulty):
        await _fill(faulty)
        async with faulty.get("b", "k", GetOptions()):
            assert faulty.open_readers == 1
            async with faulty.upload("b", "up", PutOptions()) as running:
                assert (faulty.open_readers, faulty.open_uploads) == (1, 1)
                await running.send(Part(number=1, offset=0, size=4, last=True), views(b"body"))
                await running.commit({})
        assert (faulty.open_readers, faulty.open_uploads) == (0, 0)
        assert faulty.calls == [
            Call("open"),
            Call("create_bucket", "b"),
            Call("put", "b", "k"),
            Call("get", "b", "k"),
            Call("upload", "b", "up"),
            Call("send", "b", "up"),
            Call("commit", "b", "up"),
        ]
        assert faulty.count("put") == 1


@pytest.mark.parametrize("operation", ["get", "upload"])
async def test_inner_context_is_closed_if_entering_fails(
    faulty: Faulty, operation: Literal["get", "upload"]
) -> None:
    outer = Faulty(faulty)
    async with opened(outer):
        await _fill(outer)
        outer.fail(operation, when="after")
        with pytest.raises(UnavailableError):
            if operation == "get":
                await read(outer, "b", "k")
            else:
                await upload(outer, "b", "new", b"body")
        assert await keys(outer, "b") == ["k"]
        assert faulty.count(operation) == 1
        assert (faulty.open_readers, faulty.open_uploads) == (0, 0)
        assert (outer.open_readers, outer.open_uploads) == (0, 0)


async def test_driver_can_be_closed_after_failed_open(faulty: Faulty) -> None:
    faulty.fail("open")
    with pytest.raises(UnavailableError):
        async with opened(faulty):
            raise AssertionError


async def test_commit_succeeds_after_its_response_was_lost(faulty: Faulty) -> None:
    async with opened(faulty):
        await _fill(faulty)
        faulty.fail("commit", when="after")
        async with faulty.upload("b", "new", PutOptions()) as running:
            await running.send(Part(number=1, offset=0, size=4, last=True), views(b"body"))
            with pytest.raises(UnavailableError):
                await running.commit({})
            info = await running.commit({})
        assert (await faulty.head("b", "new")).etag == info.etag


async def test_call_that_is_not_claimed_raises_assertion_error() -> None:
    faulty = Faulty(MemoryDriver(), capabilities=Capabilities(upload=True, max_put=4, min_part=2))
    async with opened(faulty):
        await faulty.create_bucket("b")
        info = await write(faulty, "b", "k")
        unclaimed: list[dict[str, Any]] = [
            {"if_none_match": "*"},
            {"if_match": info.etag},
            {"metadata": {"a": "b"}},
            {"tags": {"a": "b"}},
            {"storage_class": "x"},
            {"content_type": "text/plain"},
        ]
        for options in unclaimed:
            with pytest.raises(AssertionError):
                await faulty.put("b", "k", views(b"body"), PutOptions(**options))
        with pytest.raises(AssertionError):
            await write(faulty, "b", "k", b"too long")
        for get in (
            GetOptions(range=ByteRange(0)),
            GetOptions(if_match=info.etag),
            GetOptions(version_id="1"),
        ):
            with pytest.raises(AssertionError):
                faulty.get("b", "k", get)
        with pytest.raises(AssertionError):
            await faulty.head("b", "k", "1")
        with pytest.raises(AssertionError):
            await faulty.delete("b", "k", DeleteOptions(if_match=info.etag))
        with pytest.raises(AssertionError):
            await faulty.delete_many("b", ["k"])
        with pytest.raises(AssertionError):
            await faulty.presign("GET", "b", "k", 1, PresignOptions())
        with pytest.raises(AssertionError):
            await faulty.copy("b", "k", "b", "l", CopyOptions(source=info, put=PutOptions()))
        async with faulty.upload("b", "k", PutOptions()) as running:
            with pytest.raises(AssertionError):
                await running.send(Part(number=1, offset=0, size=1, last=False), views(b"1"))
            with pytest.raises(AssertionError):
                await running.send(Part(number=1, offset=0, size=3, last=True), views(b"12"))
        with pytest.raises(AssertionError):
            Faulty(MemoryDriver(), capabilities=Capabilities()).upload("b", "k", PutOptions())


class _PresigningDriver(MemoryDriver):
    async def presign(
        self, method: str, bucket: str, key: str, expires: float, options: PresignOptions
    ) -> str:
        return f"https://{bucket}/{key}?{method}={expires}&{options.content_type}"


async def test_presign_passes_through() -> None:
    inner = _PresigningDriver()
    faulty = Faulty(inner, capabilities=replace(inner.capabilities, presign=True))
    async with opened(faulty):
        url = await faulty.presign("PUT", "b", "k", 5, PresignOptions(content_type="a/b"))
        assert url == "https://b/k?PUT=5&a/b"
        with pytest.raises(AssertionError):
            await faulty.presign("GET", "b", "k", 5, PresignOptions(version_id="v"))


class _PlainReader:
    def __init__(self, inner: DriverReader) -> None:
        self.info = inner.info
        self.range = inner.range
        self.read = inner.read


class _DriverWithoutReadinto(MemoryDriver):
    @asynccontextmanager
    async def get(self, bucket: str, key: str, options: GetOptions) -> AsyncIterator[DriverReader]:
        async with super().get(bucket, key, options) as reader:
            yield _PlainReader(reader)


async def test_faulty_does_not_add_readinto() -> None:
    faulty = Faulty(_DriverWithoutReadinto())
    async with opened(faulty):
        await _fill(faulty)
        async with faulty.get("b", "k", GetOptions()) as reader:
            assert not isinstance(reader, ReadsInto)
            assert await reader.read(10) == BODY[:10]


async def test_errors_of_the_driver_pass_through(faulty: Faulty) -> None:
    async with opened(faulty):
        await faulty.create_bucket("b")
        with pytest.raises(BucketExistsError):
            await faulty.create_bucket("b")
        with pytest.raises(BucketNotFoundError):
            await faulty.list_page("c", ListOptions())
        with pytest.raises(ObjectNotFoundError):
            await read(faulty, "b", "k")
        assert faulty.open_readers == 0
