"""`sync` with SeaweedFS, in both directions and between services, and the times that rclone reads and writes."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from tests.fakes import IMMEDIATE_RETRIES
from tests.jobs.trees import OLD, make, objects, read
from trove_async import Trove
from trove_async.drivers import MemoryDriver, S3Driver
from trove_async.jobs import sync
from trove_async.models import MiB
from trove_async.testing import Faulty

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from trove_async.testing import Call
    from trove_async.testing.servers import S3Server

FILES = {
    **{f"{number % 7}/{number:03}": str(number).encode() * number for number in range(120)},
    "a": b"file",
    "a-b": b"sorted before a/ by keys, and after it by directories",
    "b/\N{LATIN SMALL LETTER E WITH ACUTE}\N{SNOWMAN} %+": b"odd",
    "empty": b"",
    "large": b"0123456789abcdef" * (9 * MiB // 16),
}


class Requests(Faulty):
    """Counts the requests."""

    def __init__(self, server: S3Server) -> None:
        super().__init__(
            S3Driver(
                region=server.region,
                endpoint_url=server.endpoint_url,
                access_key_id=server.access_key_id,
                secret_access_key=server.secret_access_key,
            )
        )
        self.counts: Counter[str] = Counter()

    async def begin(self, call: Call) -> None:
        self.counts[call.operation] += 1
        await super().begin(call)


@asynccontextmanager
async def opened(driver: Requests) -> AsyncIterator[tuple[Trove, str]]:
    """Open a store with a new bucket."""
    bucket = f"sync-{uuid4().hex}"
    async with Trove(driver, retry=IMMEDIATE_RETRIES) as store:
        await store.create_bucket(bucket)
        yield store, bucket


@pytest.mark.parametrize("at", [OLD, None])
async def test_both_directions(seaweed: S3Server, tmp_path: Path, at: float | None) -> None:
    driver = Requests(seaweed)
    folder = make(tmp_path / "in", FILES, at=at)
    async with opened(driver) as (store, bucket):
        data = store.bucket(bucket)
        up = await sync(folder, data, target_prefix="x")
        assert (up.changed, up.ok) == (len(FILES), True), up
        assert await objects(store, bucket, "x/") == FILES
        down = await sync(data, tmp_path / "out", source_prefix="x")
        assert (down.changed, down.ok) == (len(FILES), True), down
        assert read(tmp_path / "out") == FILES
        for key in FILES:
            expected = (folder / key).stat().st_mtime_ns
            assert (tmp_path / "out" / key).stat().st_mtime_ns == expected
        # Nothing has changed in any direction, and the listings tell.
        driver.counts.clear()
        for source, target, prefixes in [
            (folder, data, {"target_prefix": "x"}),
            (tmp_path / "out", data, {"target_prefix": "x"}),
            (data, tmp_path / "out", {"source_prefix": "x"}),
        ]:
            report = await sync(source, target, delete=True, **prefixes)  # type: ignore[arg-type]  # prefixes
            assert (report.changed, report.unchanged) == (0, len(FILES)), report
        assert set(driver.counts) == {"list_page"}


async def test_changes_and_deletions(seaweed: S3Server, tmp_path: Path) -> None:
    folder, out = make(tmp_path / "in", FILES), tmp_path / "out"
    async with opened(Requests(seaweed)) as (store, bucket):
        data = store.bucket(bucket)
        await sync(folder, data)
        await sync(data, out)
        # Changed at once: of the same size, in the second of the upload.
        changed = {"a": b"FILE", "0/007": b"X" * 7, "new/file": b"new"}
        make(folder, changed, at=None)
        gone = {"empty", "a-b", "3/003"}
        for key in gone:
            (folder / key).unlink()
        expected = {key: body for key, body in FILES.items() if key not in gone} | changed

        up = await sync(folder, data, delete=True)
        down = await sync(data, out, delete=True)

        assert (up.changed, up.deleted, up.ok) == (6, 3, True), up
        assert (down.changed, down.deleted, down.ok) == (6, 3, True), down
        assert await objects(store, bucket) == read(out) == expected


async def test_between_services(seaweed: S3Server, tmp_path: Path) -> None:
    driver = Requests(seaweed)
    async with (
        opened(driver) as (store, bucket),
        Trove(MemoryDriver()) as memory,
    ):
        await memory.create_bucket("data")
        await sync(make(tmp_path, FILES), store.bucket(bucket))
        await memory.put("data", "copy/extra", b"x")

        there = await sync(
            store.bucket(bucket), memory.bucket("data"), target_prefix="copy", delete=True
        )
        back = await sync(
            memory.bucket("data"), store.bucket(bucket), source_prefix="copy", target_prefix="back"
        )
        driver.counts.clear()
        again = await sync(
            store.bucket(bucket), memory.bucket("data"), target_prefix="copy", exclude=["back/**"]
        )

        assert (there.changed, there.deleted, there.ok) == (len(FILES) + 1, 1, True), there
        assert back.ok
        assert again.unchanged == len(FILES)
        assert set(driver.counts) == {"list_page"}
        assert await objects(memory, prefix="copy/") == FILES
        assert await objects(store, bucket, "back/") == FILES
        info = await store.head(bucket, "back/a")
        assert info.metadata["mtime"].startswith("1500000000.12345")


async def test_copies_within_a_service_send_no_body(seaweed: S3Server, tmp_path: Path) -> None:
    driver = Requests(seaweed)
    async with opened(driver) as (store, bucket):
        await sync(
            make(tmp_path, {"a": b"1", "b/c": b"2"}), store.bucket(bucket), target_prefix="x"
        )
        driver.counts.clear()

        report = await sync(
            store.bucket(bucket), store.bucket(bucket), source_prefix="x", target_prefix="y"
        )

        assert report.changed == 2
        assert driver.counts["copy"] == 2
        assert not {"get", "put"} & set(driver.counts)


async def test_checksums_in_listings_and_metadata(seaweed: S3Server, tmp_path: Path) -> None:
    driver = Requests(seaweed)
    async with opened(driver) as (store, bucket):
        folder = make(tmp_path, FILES)
        await sync(folder, store.bucket(bucket))
        make(folder, {"a": b"FILE"})  # the size and the time are equal
        large = bytearray(FILES["large"])
        large[-1] ^= 1
        make(folder, {"large": bytes(large)})
        assert (await sync(folder, store.bucket(bucket))).unchanged == len(FILES)
        driver.counts.clear()

        report = await sync(folder, store.bucket(bucket), compare="checksum")

        assert (report.changed, report.unchanged) == (2, len(FILES) - 2)
        assert driver.counts["head"] == 2  # etags are MD5s of all others
        assert not driver.counts["get"]


# -- rclone ----------------------------------------------------------------------------------------------


async def rclone(server: S3Server, *arguments: str) -> str:
    environment = {
        "PATH": os.environ["PATH"],
        "RCLONE_CONFIG": "/dev/null",
        "RCLONE_CONFIG_S_TYPE": "s3",
        "RCLONE_CONFIG_S_PROVIDER": "Other",
        "RCLONE_CONFIG_S_ENDPOINT": server.endpoint_url,
        "RCLONE_CONFIG_S_ACCESS_KEY_ID": server.access_key_id,
        "RCLONE_CONFIG_S_SECRET_ACCESS_KEY": server.secret_access_key,
        "RCLONE_CONFIG_S_REGION": server.region,
        "RCLONE_CONFIG_S_NO_CHECK_BUCKET": "true",
    }
    run = await asyncio.to_thread(
        subprocess.run,
        ["rclone", "-v", *arguments],
        env=environment,
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return run.stdout


@pytest.mark.commands
async def test_rclone_finds_nothing_to_do_after_an_upload(
    seaweed: S3Server, tmp_path: Path
) -> None:
    folder = make(tmp_path / "in", FILES)
    async with opened(Requests(seaweed)) as (store, bucket):
        await sync(folder, store.bucket(bucket))

        output = await rclone(seaweed, "copy", "--modify-window=0", str(folder), f"s:{bucket}")

        assert f"{len(FILES)} / {len(FILES)}, 100%" in output
        assert "Copied" not in output
        assert "Updated modification time" not in output
        output = await rclone(seaweed, "copy", f"s:{bucket}", str(tmp_path / "out"))
        assert read(tmp_path / "out") == FILES
        for key in FILES:
            expected = (folder / key).stat().st_mtime_ns
            assert (tmp_path / "out" / key).stat().st_mtime_ns == expected


@pytest.mark.commands
async def test_times_that_rclone_wrote_are_set(seaweed: S3Server, tmp_path: Path) -> None:
    folder = make(tmp_path / "in", FILES)
    async with opened(Requests(seaweed)) as (store, bucket):
        await rclone(seaweed, "copy", str(folder), f"s:{bucket}")

        up = await sync(folder, store.bucket(bucket))
        down = await sync(store.bucket(bucket), tmp_path / "out")

        assert (up.changed, up.unchanged) == (0, len(FILES))
        assert (down.changed, read(tmp_path / "out") == FILES) == (len(FILES), True)
        for key in FILES:
            expected = (folder / key).stat().st_mtime_ns
            assert (tmp_path / "out" / key).stat().st_mtime_ns == expected
