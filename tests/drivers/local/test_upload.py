"""Uploads in parts."""

from __future__ import annotations

import os
from base64 import b64encode
from typing import TYPE_CHECKING

import pytest
from crc32c import crc32c

from trove_async.errors import BackendError, ClosedError, IntegrityError, StreamError
from trove_async.models import MiB
from trove_async.options import Part, PutOptions

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from tests.drivers.local.conftest import BucketClient

    OpenClient = Callable[..., AbstractAsyncContextManager[BucketClient]]


def _part(number: int, offset: int, size: int) -> Part:
    return Part(number=number, offset=offset, size=size, last=False)


async def test_upload_accepts_parts_in_any_order_and_repeated(any_client: BucketClient) -> None:
    body = os.urandom(3 * MiB)
    checksum = b64encode(crc32c(body).to_bytes(4)).decode()
    options = PutOptions(content_type="a/b", size=len(body), write_id="w")
    async with any_client.driver.upload("b", "d/k", options) as upload:
        for number in [3, 1, 2, 1]:
            offset = (number - 1) * MiB
            view = memoryview(body)[offset : offset + MiB]
            await upload.send(_part(number, offset, MiB), [view])
        assert await any_client.keys() == []
        info = await upload.commit({"crc32c": checksum})
        assert await upload.commit({}) == info
        with pytest.raises(StreamError):
            await upload.send(_part(1, 0, 1), [memoryview(b"x")])
    assert await any_client.read("d/k") == body
    assert (info.checksums, info.content_type) == ({"crc32c": checksum}, "a/b")
    assert await any_client.driver.head("b", "d/k") == info
    assert (await any_client.driver.head("b", "d/k")).write_id == "w"
    if any_client.driver._settings.xattrs:
        assert any_client.own_files() == []


async def test_upload_without_a_commit_leaves_nothing(
    client: BucketClient, count_open_files: Callable[[], int]
) -> None:
    before = count_open_files()
    async with client.driver.upload("b", "k", PutOptions()) as upload:
        await upload.send(_part(1, 0, 3), [memoryview(b"abc")])
    assert (await client.keys(), client.own_files(), count_open_files()) == ([], [], before)
    with pytest.raises(StreamError):
        await upload.commit({})


async def test_upload_without_parts_creates_an_empty_object(client: BucketClient) -> None:
    async with client.driver.upload("b", "k", PutOptions()) as upload:
        await upload.commit({})
    assert await client.read("k") == b""


async def test_upload_with_a_gap_or_a_wrong_size_is_rejected(client: BucketClient) -> None:
    async with client.driver.upload("b", "k", PutOptions(size=7)) as upload:
        with pytest.raises(IntegrityError):
            await upload.send(_part(1, 0, 4), [memoryview(b"abc")])
        await upload.send(_part(2, 4, 3), [memoryview(b"abc")])
        with pytest.raises(BackendError, match="must start at offset"):
            await upload.commit({})
        await upload.send(_part(1, 0, 4), [memoryview(b"abcd")])
        await upload.send(_part(3, 7, 1), [memoryview(b"e")])
        with pytest.raises(IntegrityError):
            await upload.commit({})
    assert (await client.keys(), client.own_files()) == ([], [])


async def test_upload_that_outlives_its_driver_keeps_no_file_open(
    tmp_path: Path,
    open_client: Callable[..., AbstractAsyncContextManager[BucketClient]],
    count_open_files: Callable[[], int],
) -> None:
    before = count_open_files()
    async with open_client(tmp_path) as client:
        part = Part(number=1, offset=0, size=4, last=False)
        with pytest.raises(ClosedError):
            async with client.driver.upload("b", "k", PutOptions()) as upload:
                await upload.send(part, [memoryview(b"body")])
                await client.driver.aclose()
                await upload.commit({})
    assert count_open_files() == before
    assert not client.own_files()
