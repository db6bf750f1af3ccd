"""Options that a backend supports only in some requests."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from tests.fakes import CallLog, single_attempt_store
from trove_async import (
    BufferPool,
    NotSupportedError,
    ObjectChangedError,
    ObjectExistsError,
    PreconditionFailedError,
    Trove,
)
from trove_async.drivers.memory import MemoryDriver
from trove_async.models import KiB, MiB
from trove_async.options import PutOptions

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

BODY = bytes(range(256)) * 10 * KiB  # 2.5 MiB: three parts


def store_on(driver: CallLog, **pool: Any) -> Trove:
    return single_attempt_store(driver, pool=BufferPool(4 * MiB, 1 * MiB, **pool))


async def stream(body: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(body), 256 * KiB):
        await asyncio.sleep(0)
        yield body[at : at + 256 * KiB]


@pytest.mark.parametrize("kind", ["bytes", "stream", "path"])
@pytest.mark.parametrize("option", ["if_none_match", "if_match", "tags"])
async def test_large_body_is_put_in_one_request_if_parts_would_drop_an_option(
    kind: str, option: str, tmp_path: Path
) -> None:
    driver = CallLog(commit_conditions=False, upload_tags=False)
    path = tmp_path / "body"
    path.write_bytes(BODY)
    bodies: dict[str, Any] = {"bytes": BODY, "stream": stream(BODY), "path": path}
    async with store_on(driver) as store:
        await store.create_bucket("data")
        old = await store.put("data", "old", b"old")
        key = "old" if option == "if_match" else "new"
        values: dict[str, Any] = {"if_none_match": "*", "if_match": old, "tags": {"team": "a"}}
        options = {option: values[option]}
        await store.put("data", key, bodies[kind], **options)
        assert "upload" not in driver.calls
        assert await store.read("data", key) == BODY
        if option == "tags":
            assert (await store.head("data", key)).tags == {"team": "a"}
        await store.put("data", "other", BODY)
        assert "upload" in driver.calls


async def test_body_too_large_for_one_request_is_rejected_before_it_is_read() -> None:
    driver = CallLog(commit_conditions=False, upload_tags=False, max_put=2 * MiB)
    async with store_on(driver) as store:
        await store.create_bucket("data")
        calls_before = driver.calls.copy()

        async def body() -> AsyncIterator[bytes]:
            raise AssertionError
            yield b""

        unsupported: list[dict[str, Any]] = [{"if_none_match": "*"}, {"tags": {"team": "a"}}]
        for options in unsupported:
            with pytest.raises(NotSupportedError, match="only in a put of one request"):
                await store.put("data", "key", body(), size=len(BODY), **options)
            with pytest.raises(NotSupportedError, match="only in a put of one request"):
                await store.put("data", "key", BODY, **options)
        assert driver.calls == calls_before


async def test_stream_larger_than_the_spill_budget_is_rejected() -> None:
    driver = CallLog(commit_conditions=False)
    async with store_on(driver, spill_max_bytes=2 * MiB) as store:
        await store.create_bucket("data")
        with pytest.raises(NotSupportedError, match="spill_max_bytes"):
            await store.put("data", "key", stream(BODY), if_none_match="*")
        assert driver.stored_keys("data") == []
        assert not {"put", "upload"} & set(driver.calls)


@pytest.mark.parametrize("needed", ["if_none_match", "tags", "size"])
async def test_copy_that_the_service_cannot_do_is_streamed_through_the_client(
    needed: str,
) -> None:
    driver = CallLog(copy_conditions=False, copy_tags=False, max_copy=2 * MiB)
    async with store_on(driver) as store:
        await store.create_bucket("data")
        tags = {"team": "a"} if needed == "tags" else {}
        await store.put("data", "from", BODY if needed == "size" else b"body", tags=tags)
        conditions: dict[str, Any] = {"if_none_match": "*"} if needed == "if_none_match" else {}
        await store.copy("data", "from", "data", "to", **conditions)
        assert "copy" not in driver.calls
        assert (await store.head("data", "to")).tags == tags
        if conditions:
            with pytest.raises(ObjectExistsError):
                await store.move("data", "from", "data", "to", if_none_match="*")
        await store.put("data", "plain", b"body")
        await store.copy("data", "plain", "data", "to")
        assert "copy" in driver.calls


async def test_conditional_copy_in_parts_is_refused_if_commits_ignore_conditions() -> None:
    driver = CallLog(commit_conditions=False, max_put=2 * MiB)
    async with store_on(driver) as store:
        await store.create_bucket("data")
        await store.put("data", "large", BODY)
        await store.put("data", "small", b"body")
        with pytest.raises(NotSupportedError, match="only in a put of one request"):
            await store.copy("data", "large", "data", "to", if_none_match="*")
        assert "copy" not in driver.calls
        assert not await store.exists("data", "to")
        await store.copy("data", "small", "data", "to", if_none_match="*")
        await store.copy("data", "large", "data", "to")
        assert driver.calls.count("copy") == 2


async def test_put_during_a_metadata_rewrite_is_not_lost() -> None:
    driver = CallLog(copy_tags=False)
    async with store_on(driver) as store:
        await store.create_bucket("data")
        await store.put("data", "key", b"old", tags={"team": "a"})

        async def replace() -> None:
            del driver.before["put"]
            await MemoryDriver.put(driver, "data", "key", [memoryview(b"new")], PutOptions())

        driver.before["put"] = replace
        with pytest.raises(ObjectChangedError):
            await store.copy("data", "key", "data", "key", metadata={"a": "1"})
        assert await store.read("data", "key") == b"new"


async def test_metadata_rewrite_uses_the_users_condition() -> None:
    driver = CallLog(copy_conditions=False)
    async with store_on(driver) as store:
        await store.create_bucket("data")
        old = await store.put("data", "key", b"body")
        new = await store.put("data", "key", b"newer")
        with pytest.raises(PreconditionFailedError) as caught:
            await store.copy("data", "key", "data", "key", metadata={"a": "1"}, if_match=old)
        assert not isinstance(caught.value, ObjectChangedError)
        info = await store.copy("data", "key", "data", "key", metadata={"a": "1"}, if_match=new)
        assert (info.metadata, await store.read("data", "key")) == ({"a": "1"}, b"newer")
