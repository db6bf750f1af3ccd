"""`sync` between a directory and a bucket in memory: what is transferred, skipped, deleted and counted."""

from __future__ import annotations

import asyncio
import hashlib
import os
import stat
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.counting import Counting
from tests.fakes import Fake, Unordered
from tests.jobs.trees import OLD, Lists, make, objects, read, store_with
from trove_async import Trove
from trove_async.drivers import LocalDriver, MemoryDriver
from trove_async.errors import (
    BucketNotFoundError,
    ClosedError,
    ConfigError,
    InvalidNameError,
    PatternError,
    PermissionDeniedError,
    UnavailableError,
)
from trove_async.jobs import JobProgress, sync
from trove_async.jobs._sync import sides, source_files, target_files
from trove_async.jobs._sync.sorting import Spool
from trove_async.jobs._sync.walk import Walk
from trove_async.layers import ReadOnly
from trove_async.middlewares import Compression
from trove_async.models import MiB

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

LARGE = 3 * MiB + 17
TREE = {
    "a": b"first",
    "a-b": b"",
    "a.d/x": b"1",
    "folder/a": b"two",
    "folder/deep/er/b": b"three" * 100,
    "folder-x": b"4",
    "large": bytes(range(256)) * (LARGE // 256),
    "z/\N{LATIN SMALL LETTER E WITH ACUTE}\N{SNOWMAN} %+?": b"odd",
}


@pytest.fixture
async def driver() -> Lists:
    return Lists()


@pytest.fixture
async def store(driver: Lists) -> AsyncIterator[Trove]:
    async with store_with(driver) as opened:
        yield opened


# -- both directions -------------------------------------------------------------------------------------


async def test_upload_stores_every_file_and_its_time(store: Trove, tmp_path: Path) -> None:
    folder = make(tmp_path / "in", TREE)

    report = await sync(folder, store.bucket("data"))

    assert await objects(store) == TREE
    assert (report.changed, report.examined, report.bytes) == (
        len(TREE),
        len(TREE),
        sum(map(len, TREE.values())),
    )
    assert report.ok
    assert (report.job, report.bucket, report.dry_run, report.deleted) == ("sync", "data", False, 0)
    info = await store.head("data", "a")
    mtime_ns = (folder / "a").stat().st_mtime_ns
    assert info.metadata == {"mtime": f"{mtime_ns // 10**9}.{mtime_ns % 10**9:09}"}
    assert (await store.head("data", "large")).size == len(TREE["large"])


async def test_download_writes_every_file_with_its_time_and_mode(
    store: Trove, tmp_path: Path
) -> None:
    folder = make(tmp_path / "in", TREE)
    await sync(folder, store.bucket("data"))
    (tmp_path / "reference").touch()

    report = await sync(store.bucket("data"), tmp_path / "not" / "yet" / "there")

    out = tmp_path / "not" / "yet" / "there"
    assert read(out) == TREE
    assert (report.changed, report.ok) == (len(TREE), True)
    for key in TREE:
        assert (out / key).stat().st_mtime_ns == (folder / key).stat().st_mtime_ns
    mode = stat.S_IMODE((tmp_path / "reference").stat().st_mode)
    assert {stat.S_IMODE((out / key).stat().st_mode) for key in TREE} == {mode}


async def test_object_without_a_time_gives_its_file_its_own(store: Trove, tmp_path: Path) -> None:
    info = await store.put("data", "a", b"x")

    await sync(store.bucket("data"), tmp_path)

    assert (tmp_path / "a").stat().st_mtime == pytest.approx(
        info.last_modified.timestamp(), abs=1e-4
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1500000000", 1_500_000_000_000_000_000),
        ("1500000000.5", 1_500_000_000_500_000_000),
        ("-1.25", -1_250_000_000),
        ("2017-07-14T02:40:00.123456Z", 1_500_000_000_123_456_000),
        ("2017-07-14T04:40:00+02:00", 1_500_000_000_000_000_000),
    ],
)
async def test_times_that_other_tools_wrote_are_understood(
    store: Trove, tmp_path: Path, text: str, expected: int
) -> None:
    await store.put("data", "a", b"x", metadata={"mtime": text})

    await sync(store.bucket("data"), tmp_path)

    assert (tmp_path / "a").stat().st_mtime_ns == expected


@pytest.mark.parametrize(
    "text", ["", "never", "1e9", "9" * 12, "nan", "2017-07-14T02:40:00", "1.2.3"]
)
async def test_malformed_times_are_ignored(store: Trove, tmp_path: Path, text: str) -> None:
    info = await store.put("data", "a", b"x", metadata={"mtime": text})

    report = await sync(store.bucket("data"), tmp_path)

    assert report.ok
    assert (tmp_path / "a").stat().st_mtime == pytest.approx(
        info.last_modified.timestamp(), abs=1e-4
    )


@pytest.mark.parametrize("text", ["99999999999.5", "-99999999999"])
async def test_time_that_the_file_system_refuses_is_no_error(
    store: Trove, tmp_path: Path, text: str
) -> None:
    await store.put("data", "a", b"x", metadata={"mtime": text})

    report = await sync(store.bucket("data"), tmp_path)

    assert report.ok
    assert read(tmp_path) == {"a": b"x"}
    assert (await sync(store.bucket("data"), tmp_path)).unchanged == 1


async def test_prefixes_are_folders(store: Trove, tmp_path: Path) -> None:
    folder = make(tmp_path / "in", {"a": b"1", "b/c": b"2"})
    await store.put("data", "photos-old/x", b"not in the folder")

    await sync(folder, store.bucket("data"), target_prefix="photos", delete=True)
    await sync(store.bucket("data"), tmp_path / "out", source_prefix="photos/")

    assert await objects(store) == {
        "photos/a": b"1",
        "photos/b/c": b"2",
        "photos-old/x": b"not in the folder",
    }
    assert read(tmp_path / "out") == {"a": b"1", "b/c": b"2"}


# -- a run without changes -------------------------------------------------------------------------------


@pytest.mark.parametrize("whole_seconds", [False, True])
@pytest.mark.parametrize("at", [OLD, None])
async def test_second_upload_only_lists(
    tmp_path: Path,
    whole_seconds: bool,  # noqa: FBT001 - a parameter
    at: float | None,
) -> None:
    driver = Lists(whole_seconds=whole_seconds, md5_etags=True)
    async with store_with(driver) as store:
        folder = make(tmp_path, TREE, at=at)
        await sync(folder, store.bucket("data"))
        driver.reset()

        report = await sync(folder, store.bucket("data"))

        assert set(driver.requests) == {"list_page"}
        assert (report.unchanged, report.changed) == (len(TREE), 0)


async def test_change_in_the_second_of_the_upload_is_seen(tmp_path: Path) -> None:
    driver = Lists(whole_seconds=True, md5_etags=True)
    async with store_with(driver) as store:
        await sync(make(tmp_path, {"a": b"1"}), store.bucket("data"))
        second = int((await store.head("data", "a")).last_modified.timestamp())
        make(tmp_path, {"a": b"2"}, at=second + 0.5)

        report = await sync(tmp_path, store.bucket("data"))

        assert report.changed == 1
        assert await objects(store) == {"a": b"2"}


async def test_file_of_the_same_second_is_stored_again_if_the_etag_is_no_md5(
    tmp_path: Path,
) -> None:
    driver = Lists(whole_seconds=True)
    async with store_with(driver) as store:
        await sync(make(tmp_path, {"a": b"1"}), store.bucket("data"))
        second = int((await store.head("data", "a")).last_modified.timestamp())
        make(tmp_path, {"a": b"1"}, at=second + 0.5)

        assert (await sync(tmp_path, store.bucket("data"))).changed == 1


@pytest.mark.parametrize("whole_seconds", [False, True])
@pytest.mark.parametrize("drop_etags", [False, True])
async def test_second_download_only_lists(
    tmp_path: Path,
    whole_seconds: bool,  # noqa: FBT001 - a parameter
    drop_etags: bool,  # noqa: FBT001 - a parameter
) -> None:
    driver = Lists(whole_seconds=whole_seconds)
    driver.drop_etags = drop_etags
    async with store_with(driver) as store:
        folder = make(tmp_path / "in", TREE)
        await sync(folder, store.bucket("data"))
        await sync(store.bucket("data"), tmp_path / "out")
        driver.reset()

        report = await sync(store.bucket("data"), tmp_path / "out")

        assert set(driver.requests) == {"list_page"}
        assert (report.unchanged, report.changed) == (len(TREE), 0)


async def test_second_download_only_lists_without_extended_attributes(
    tmp_path: Path, driver: Lists, store: Trove, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(target_files, "_set_attribute", None)
    await sync(make(tmp_path / "in", TREE), store.bucket("data"))
    await _clock_passes(tmp_path / "clock", time.time_ns())
    await sync(store.bucket("data"), tmp_path / "out")
    driver.reset()

    report = await sync(store.bucket("data"), tmp_path / "out")

    assert set(driver.requests) == {"list_page"}
    assert report.unchanged == len(TREE)
    await _clock_passes(tmp_path / "clock", time.time_ns())
    # A new version of the same size is seen, and a file that was created later is not.
    await store.put("data", "a", b"FIRST")
    assert (await sync(store.bucket("data"), tmp_path / "out")).changed == 1
    assert (tmp_path / "out" / "a").read_bytes() == b"FIRST"


async def _clock_passes(path: Path, time_ns: int) -> None:
    """Wait until new files are newer than a time. The clock of a file system advances in ticks."""

    def touch() -> int:
        path.touch()
        return path.stat().st_mtime_ns

    while await asyncio.to_thread(touch) <= time_ns:
        pass


async def test_upload_of_downloaded_files_only_lists(
    tmp_path: Path, driver: Lists, store: Trove
) -> None:
    await sync(make(tmp_path / "in", TREE), store.bucket("data"))
    await sync(store.bucket("data"), tmp_path / "out")
    driver.reset()

    report = await sync(tmp_path / "out", store.bucket("data"))

    assert set(driver.requests) == {"list_page"}
    assert report.unchanged == len(TREE)


async def test_download_to_the_files_that_were_uploaded_writes_none(
    tmp_path: Path, driver: Lists, store: Trove
) -> None:
    folder = make(tmp_path, TREE)
    await sync(folder, store.bucket("data"))
    inodes = {key: (folder / key).stat().st_ino for key in TREE}

    first = await sync(store.bucket("data"), folder)
    driver.reset()
    second = await sync(store.bucket("data"), folder)

    assert (first.unchanged, first.changed) == (len(TREE), 0)
    assert {key: (folder / key).stat().st_ino for key in TREE} == inodes
    assert set(driver.requests) == {"list_page"}
    assert second.unchanged == len(TREE)


async def test_second_copy_only_lists(tmp_path: Path, driver: Lists, store: Trove) -> None:
    await sync(make(tmp_path, TREE), store.bucket("data"), target_prefix="a")
    first = await sync(
        store.bucket("data"), store.bucket("data"), source_prefix="a", target_prefix="b"
    )
    driver.reset()

    second = await sync(
        store.bucket("data"), store.bucket("data"), source_prefix="a", target_prefix="b"
    )

    assert (first.changed, second.changed, second.unchanged) == (len(TREE), 0, len(TREE))
    assert set(driver.requests) == {"list_page"}
    assert await objects(store, prefix="b/") == TREE
    assert "mtime" in (await store.head("data", "b/a")).metadata


# -- what has changed ------------------------------------------------------------------------------------


async def test_upload_of_a_file_with_a_new_size(store: Trove, tmp_path: Path) -> None:
    folder = make(tmp_path, {"a": b"1", "b": b"2"})
    await sync(folder, store.bucket("data"))
    make(folder, {"a": b"longer"})

    report = await sync(folder, store.bucket("data"))

    assert (report.changed, report.unchanged) == (1, 1)
    assert await objects(store) == {"a": b"longer", "b": b"2"}


async def test_upload_of_a_file_with_a_new_time(store: Trove, tmp_path: Path) -> None:
    folder = make(tmp_path, {"a": b"1", "b": b"2"})
    await sync(folder, store.bucket("data"))
    make(folder, {"a": b"X"}, at=None)

    assert (await sync(folder, store.bucket("data"))).changed == 1
    assert await objects(store) == {"a": b"X", "b": b"2"}


async def test_upload_of_an_older_file_is_seen_if_the_listing_has_the_metadata(
    tmp_path: Path,
) -> None:
    async with store_with(MemoryDriver()) as store:
        folder = make(tmp_path, {"a": b"1"})
        await sync(folder, store.bucket("data"))
        make(folder, {"a": b"X"}, at=OLD - 100)

        await sync(folder, store.bucket("data"))

        assert await objects(store) == {"a": b"X"}


async def test_file_from_the_future_is_compared_by_what_the_listing_contains(
    store: Trove, tmp_path: Path, driver: Lists
) -> None:
    folder = make(tmp_path, {"a": b"1"}, at=time.time() + 10_000)
    await sync(folder, store.bucket("data"))
    make(folder, {"a": b"X"}, at=time.time() + 10_000)
    driver.reset()

    await sync(folder, store.bucket("data"))

    assert await objects(store) == {"a": b"X"}
    assert "head" not in driver.requests


async def test_download_of_a_new_version(store: Trove, tmp_path: Path) -> None:
    await store.put("data", "a", b"old", metadata={"mtime": "1500000000"})
    await sync(store.bucket("data"), tmp_path)
    await store.put("data", "a", b"new", metadata={"mtime": "1500000000"})

    assert (await sync(store.bucket("data"), tmp_path)).changed == 1
    assert read(tmp_path) == {"a": b"new"}


async def test_download_replaces_a_file_that_was_changed(store: Trove, tmp_path: Path) -> None:
    await store.put("data", "a", b"old")
    await sync(store.bucket("data"), tmp_path)
    (tmp_path / "a").write_bytes(b"mod")

    assert (await sync(store.bucket("data"), tmp_path)).changed == 1
    assert read(tmp_path) == {"a": b"old"}


async def test_download_keeps_a_file_of_the_same_size_that_is_newer_and_has_no_record(
    store: Trove, tmp_path: Path
) -> None:
    await store.put("data", "a", b"obj")
    make(tmp_path, {"a": b"own"}, at=None)

    assert (await sync(store.bucket("data"), tmp_path)).unchanged == 1
    assert (await sync(store.bucket("data"), tmp_path, compare="checksum")).changed == 1
    assert read(tmp_path) == {"a": b"obj"}


async def test_download_replaces_a_file_that_is_older_than_the_object(
    store: Trove, tmp_path: Path
) -> None:
    make(tmp_path, {"a": b"own"}, at=None)
    await store.put("data", "a", b"obj")

    assert (await sync(store.bucket("data"), tmp_path)).changed == 1
    assert read(tmp_path) == {"a": b"obj"}


async def test_copy_of_a_newer_object(store: Trove) -> None:
    await store.create_bucket("other")
    await store.put("data", "a", b"1")
    await store.put("other", "a", b"2")
    source, target = store.bucket("data"), store.bucket("other")
    assert (await sync(source, target)).unchanged == 1
    await store.put("data", "a", b"3")

    assert (await sync(source, target)).changed == 1
    assert await objects(store, "other") == {"a": b"3"}


@pytest.mark.parametrize("direction", ["up", "down", "copy"])
async def test_size_compares_only_sizes(store: Trove, tmp_path: Path, direction: str) -> None:
    source, target = await _pair(
        store, tmp_path, direction, {"a": b"1", "b": b"22"}, {"a": b"x", "b": b"x"}
    )

    report = await sync(source, target, compare="size")

    assert (report.changed, report.unchanged) == (1, 1)
    assert await _contents(store, target) == {"a": b"x", "b": b"22"}


@pytest.mark.parametrize("direction", ["up", "down", "copy"])
async def test_checksum_compares_contents(store: Trove, tmp_path: Path, direction: str) -> None:
    large = bytes(600_000)
    source, target = await _pair(
        store,
        tmp_path,
        direction,
        {"a": b"1", "b": b"2", "c": large + b"1", "d": large},
        {"a": b"1", "b": b"x", "c": large + b"2", "d": large},
    )

    report = await sync(source, target, compare="checksum")

    assert (report.changed, report.unchanged, report.failed) == (2, 2, 0)
    assert await _contents(store, target) == {"a": b"1", "b": b"2", "c": large + b"1", "d": large}


async def _pair(
    store: Trove, folder: Path, direction: str, source: dict[str, bytes], target: dict[str, bytes]
) -> tuple[Any, Any]:
    await store.create_bucket("source")
    await store.create_bucket("target")

    async def put(bucket: str, files: dict[str, bytes]) -> None:
        for key, body in files.items():
            await store.put(bucket, key, body)

    if direction == "up":
        await put("target", target)
        return make(folder, source), store.bucket("target")
    await put("source", source)
    if direction == "down":
        return store.bucket("source"), make(folder, target)
    await put("target", target)
    return store.bucket("source"), store.bucket("target")


async def _contents(store: Trove, side: Any) -> dict[str, bytes]:
    return read(side) if isinstance(side, Path) else await objects(store, side.name)


async def test_checksum_reads_bodies_if_there_is_no_checksum(tmp_path: Path) -> None:
    async with Trove(MemoryDriver(), middleware=[Compression()]) as store:
        await store.create_bucket("data")
        body = b"compressible " * 1000
        folder = make(tmp_path, {"a": body, "b": body})
        await sync(folder, store.bucket("data"))
        make(folder, {"b": body[:-1] + b"!"})

        report = await sync(folder, store.bucket("data"), compare="checksum")

        assert (report.changed, report.unchanged) == (1, 1)


async def test_middleware_sizes_are_those_of_the_bodies(tmp_path: Path) -> None:
    driver = Lists()
    async with Trove(driver, middleware=[Compression()]) as store:
        await store.create_bucket("data")
        body = b"compressible " * 1000
        folder = make(tmp_path / "in", {"a": body, "b": body * 30})
        await sync(folder, store.bucket("data"))
        driver.reset()

        up = await sync(folder, store.bucket("data"))
        down = await sync(store.bucket("data"), tmp_path / "out")
        again = await sync(store.bucket("data"), tmp_path / "out")

        assert (up.unchanged, down.changed, again.unchanged) == (2, 2, 2)
        assert read(tmp_path / "out") == {"a": body, "b": body * 30}
        assert driver.requests.count("head") == 6  # two objects, three listings


# -- filters ---------------------------------------------------------------------------------------------

FILTERED = {"a.txt": b"1", "b.log": b"2", "x/c.txt": b"3", "x/y/d.log": b"4", "tmp/e.txt": b"5"}


@pytest.mark.parametrize(
    ("include", "exclude", "expected"),
    [
        ([], [], set(FILTERED)),
        (["*.txt"], [], {"a.txt"}),
        (["**/*.txt"], [], {"a.txt", "x/c.txt", "tmp/e.txt"}),
        (["x/**"], [], {"x/c.txt", "x/y/d.log"}),
        ([], ["tmp/**"], set(FILTERED) - {"tmp/e.txt"}),
        (["**/*.txt"], ["tmp/**"], {"a.txt", "x/c.txt"}),
        (["a.txt"], ["a.txt"], set()),
        ([], ["**"], set()),
    ],
)
@pytest.mark.parametrize("direction", ["up", "down", "copy"])
async def test_filters(
    store: Trove,
    tmp_path: Path,
    *,
    direction: str,
    include: list[str],
    exclude: list[str],
    expected: set[str],
) -> None:
    source, target = await _pair(store, tmp_path, direction, FILTERED, {})

    await sync(source, target, include=include, exclude=exclude)

    assert set(await _contents(store, target)) == expected


@pytest.mark.parametrize("direction", ["up", "down", "copy"])
async def test_delete_stays_within_the_filters(
    store: Trove, tmp_path: Path, direction: str
) -> None:
    source, target = await _pair(
        store, tmp_path, direction, {"keep.txt": b"1"}, {**FILTERED, "keep.txt": b"1"}
    )

    report = await sync(source, target, delete=True, include=["**/*.txt"], exclude=["tmp/**"])

    assert report.deleted == 2
    assert set(await _contents(store, target)) == {"keep.txt", "b.log", "x/y/d.log", "tmp/e.txt"}


async def test_excluded_directories_are_not_entered(store: Trove, tmp_path: Path) -> None:
    make(tmp_path, {"a": b"1", "private/x": b"2"})
    (tmp_path / "private").chmod(0)
    try:
        report = await sync(tmp_path, store.bucket("data"), exclude=["private/**"])
    finally:
        (tmp_path / "private").chmod(0o700)
    assert (report.changed, report.ok) == (1, True)


# -- delete ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("direction", ["up", "down", "copy"])
@pytest.mark.parametrize("delete", [False, True])
async def test_delete_removes_what_the_source_lacks(
    store: Trove,
    tmp_path: Path,
    direction: str,
    delete: bool,  # noqa: FBT001 - a parameter
) -> None:
    same = {"a": b"1", "k/l": b"2"}
    extra = {"0": b"x", "a-": b"x", "k/m": b"x", "k2/n/o": b"x", "z": b"x"}
    source, target = await _pair(store, tmp_path, direction, same, {**same, **extra})

    report = await sync(source, target, delete=delete)

    assert report.deleted == (5 if delete else 0)
    assert await _contents(store, target) == (same if delete else {**same, **extra})
    if direction == "down" and delete:
        assert sorted(await asyncio.to_thread(os.listdir, tmp_path)) == ["a", "k"]


async def test_delete_from_an_empty_source_removes_everything_on_request(
    store: Trove, tmp_path: Path
) -> None:
    for index in range(1100):
        await store.put("data", f"{index:04}", b"")

    report = await sync(tmp_path, store.bucket("data"), delete=True, allow_empty=True)

    assert (report.deleted, report.changed) == (1100, 1100)
    assert await objects(store) == {}


@pytest.mark.parametrize("direction", ["up", "down", "copy"])
@pytest.mark.parametrize("dry_run", [False, True])
@pytest.mark.parametrize("count", [1, 1100])
async def test_delete_from_an_empty_source_is_refused(
    driver: Lists,
    store: Trove,
    tmp_path: Path,
    *,
    direction: str,
    dry_run: bool,
    count: int,
) -> None:
    extra = {f"{index:04}": b"" for index in range(count)}
    source, target = await _pair(store, tmp_path, direction, {}, extra)
    driver.reset()

    with pytest.raises(ConfigError, match=r"nothing to sync.*allow_empty=True"):
        await sync(source, target, delete=True, dry_run=dry_run)

    assert set(driver.requests) == {"list_page"}
    assert await _contents(store, target) == extra
    assert (await sync(source, target)).ok


async def test_delete_with_a_mistyped_prefix_is_refused(store: Trove, tmp_path: Path) -> None:
    await store.put("data", "photos/a", b"1")
    await sync(store.bucket("data"), tmp_path, source_prefix="photos")

    with pytest.raises(ConfigError, match="the folder 'fotos/' of the bucket 'data'"):
        await sync(store.bucket("data"), tmp_path, source_prefix="fotos", delete=True)

    assert read(tmp_path) == {"a": b"1"}


async def test_delete_of_nothing_needs_no_source(store: Trove, tmp_path: Path) -> None:
    assert (await sync(tmp_path, store.bucket("data"), delete=True)).ok


async def test_nothing_is_deleted_if_the_source_cannot_be_listed(tmp_path: Path) -> None:
    fake = Fake()
    async with store_with(fake) as store:
        make(tmp_path, {"a": b"1", "b": b"2"})
        for index in range(1500):
            await store.put("data", f"{index:04}", b"")
        pages = 0

        async def fail_second() -> None:
            nonlocal pages
            pages += 1
            if pages > 1:
                raise PermissionDeniedError("no")

        fake.before["list_page"] = fail_second

        with pytest.raises(PermissionDeniedError):
            await sync(store.bucket("data"), tmp_path, delete=True)

        assert {"a", "b"} <= set(read(tmp_path))


async def test_nothing_is_deleted_if_a_directory_of_the_source_fails(
    store: Trove, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path, {"a": b"1", "private/x": b"2"})
    await store.put("data", "private/x", b"2")
    for number in range(600):  # several batches of deletions, after the last key of the source
        await store.put("data", f"y/{number:03}", b"2")
    scandir = os.scandir

    def fail(path: Any) -> Any:
        if str(path).endswith("private"):
            raise PermissionError(13, "denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", fail)

    report = await sync(tmp_path, store.bucket("data"), delete=True)

    assert report.deleted == 0
    assert report.errors["PermissionError"].keys == ("private/",)
    assert report.skips["not deleted: the source is incomplete"].count == 601
    assert len(await objects(store)) == 602


async def test_deletions_wait_for_the_listing_of_the_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = Fake()
    async with store_with(fake) as store:
        make(tmp_path, {f"{index:04}": b"" for index in range(600)})
        for index in range(600):
            await store.put("data", f"0000-{index:04}", b"")
        monkeypatch.setattr(sides, "_BATCHES_AHEAD", 1)
        monkeypatch.setattr(Spool, "is_full", property(lambda self: self._held))
        steps_at_end: list[int] = []
        close = Walk.close

        def record(walk: Any) -> None:
            steps_at_end.append(fake.count("delete_many"))
            close(walk)

        monkeypatch.setattr(Walk, "close", record)

        report = await sync(tmp_path, store.bucket("data"), delete=True)

        assert steps_at_end == [0]
        assert (report.deleted, report.changed) == (600, 1200)
        assert set(await objects(store)) == {f"{index:04}" for index in range(600)}


async def test_errors_of_deletions_are_collected(tmp_path: Path) -> None:
    fake = Fake(bulk_delete=0)
    async with store_with(fake) as store:
        await store.put("data", "a", b"")
        await store.put("data", "b", b"")
        fake.fail("delete", PermissionDeniedError("locked"))

        report = await sync(tmp_path, store.bucket("data"), delete=True, allow_empty=True)

        assert (report.deleted, report.failed) == (1, 1)
        assert report.errors["PermissionDeniedError"].count == 1


async def test_folder_markers_are_skipped_and_never_deleted(store: Trove, tmp_path: Path) -> None:
    await store.put("data", "folder/", b"")
    await store.put("data", "folder/a", b"1")

    down = await sync(store.bucket("data"), tmp_path / "out")
    up = await sync(make(tmp_path / "in", {"b": b"2"}), store.bucket("data"), delete=True)

    assert read(tmp_path / "out") == {"folder/a": b"1"}
    assert down.skips["folder marker"].keys == ("folder/",)
    assert (down.ok, up.ok, up.deleted) == (True, True, 1)
    assert set(await objects(store)) == {"folder/", "b"}


# -- dry run, progress, limits ---------------------------------------------------------------------------


@pytest.mark.parametrize("direction", ["up", "down", "copy"])
async def test_dry_run_changes_nothing_and_counts_alike(
    driver: Lists, store: Trove, tmp_path: Path, direction: str
) -> None:
    source, target = await _pair(
        store, tmp_path, direction, {"a": b"1", "b": b"22"}, {"b": b"x", "c": b"3"}
    )
    before = await _contents(store, target)
    driver.reset()

    dry = await sync(source, target, delete=True, dry_run=True)

    assert set(driver.requests) == {"list_page"}
    assert await _contents(store, target) == before
    assert dry.dry_run
    real = await sync(source, target, delete=True)
    assert (dry.examined, dry.changed, dry.deleted, dry.bytes) == (
        real.examined,
        real.changed,
        real.deleted,
        real.bytes,
    )


async def test_dry_run_does_not_create_the_directory(store: Trove, tmp_path: Path) -> None:
    await store.put("data", "a", b"1")

    report = await sync(store.bucket("data"), tmp_path / "new", dry_run=True)

    assert report.changed == 1
    assert not (tmp_path / "new").exists()


async def test_progress_ends_with_the_counts_of_the_report(store: Trove, tmp_path: Path) -> None:
    seen: list[JobProgress] = []
    report = await sync(make(tmp_path, TREE), store.bucket("data"), progress=seen.append)

    assert seen[0].examined == 0
    last = seen[-1]
    assert (last.job, last.bucket, last.examined, last.changed, last.bytes) == (
        "sync",
        "data",
        report.examined,
        report.changed,
        report.bytes,
    )


async def test_error_of_the_progress_callback_is_raised(store: Trove, tmp_path: Path) -> None:
    def fail(progress: JobProgress) -> None:
        if progress.examined:
            raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        await sync(make(tmp_path, TREE), store.bucket("data"), progress=fail)


@pytest.mark.idle_time
async def test_rates_are_limited(tmp_path: Path) -> None:
    async with store_with(MemoryDriver()) as store:
        make(tmp_path, {f"{index}": b"x" * 100 for index in range(50)})
        loop = asyncio.get_running_loop()
        started = loop.time()
        await sync(tmp_path, store.bucket("data"), max_objects_per_second=10)
        assert 4.5 <= loop.time() - started <= 6
        started = loop.time()
        await sync(store.bucket("data"), tmp_path / "out", max_bytes_per_second=1000)
        assert 4.5 <= loop.time() - started <= 6


async def test_concurrency_is_limited(tmp_path: Path) -> None:
    fake = Fake()
    async with store_with(fake) as store:
        make(tmp_path, {f"{index}": b"x" for index in range(50)})
        most = 0

        async def watch() -> None:
            nonlocal most
            most = max(most, fake.calls_under_way)
            await asyncio.sleep(0)

        fake.before["put"] = watch
        await sync(tmp_path, store.bucket("data"), concurrency=3)
        assert most == 3


# -- errors ----------------------------------------------------------------------------------------------


async def test_errors_of_single_objects_are_collected(tmp_path: Path) -> None:
    fake = Fake()
    async with store_with(fake) as store:
        make(tmp_path, {f"{index}": b"x" for index in range(10)})
        fake.fail("put", PermissionDeniedError("one"), PermissionDeniedError("two"))

        report = await sync(tmp_path, store.bucket("data"))

        assert (report.changed, report.failed, report.ok) == (8, 2, False)
        assert report.errors["PermissionDeniedError"].count == 2
        assert (await sync(tmp_path, store.bucket("data"))).changed == 2


async def test_an_outage_stops_the_sync(tmp_path: Path) -> None:
    fake = Fake()
    async with store_with(fake) as store:
        make(tmp_path, {f"{index:03}": b"x" for index in range(300)})

        async def fail() -> None:
            raise UnavailableError("down")

        fake.before["put"] = fail

        with pytest.raises(UnavailableError):
            await sync(tmp_path, store.bucket("data"))


async def test_closing_the_store_stops_the_sync(tmp_path: Path) -> None:
    fake = Fake()
    async with Trove(fake) as store:
        await store.create_bucket("data")
        make(tmp_path, {f"{index:03}": b"x" for index in range(10)})
        fake.before["put"] = store.aclose

        with pytest.raises(ClosedError):
            await sync(tmp_path, store.bucket("data"))


async def test_missing_bucket_is_raised_and_creates_no_directory(
    store: Trove, tmp_path: Path
) -> None:
    with pytest.raises(BucketNotFoundError):
        await sync(store.bucket("missing"), tmp_path / "new")
    assert not (tmp_path / "new").exists()
    with pytest.raises(BucketNotFoundError):
        await sync(tmp_path, store.bucket("missing"))


async def test_missing_source_directory_is_raised_before_any_request(
    driver: Lists, store: Trove, tmp_path: Path
) -> None:
    driver.reset()
    (tmp_path / "file").touch()

    with pytest.raises(FileNotFoundError):
        await sync(tmp_path / "missing", store.bucket("data"), delete=True)
    with pytest.raises(NotADirectoryError):
        await sync(tmp_path / "file", store.bucket("data"), delete=True)
    with pytest.raises(NotADirectoryError):
        await sync(store.bucket("data"), tmp_path / "file")

    assert driver.requests == []


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"source": "s3://bucket"}, ConfigError, "a URL"),
        ({"source": b"/tmp"}, TypeError, "directory or store.bucket"),
        ({"source": ""}, ConfigError, "path of a directory"),
        ({"source": "a\0b"}, ConfigError, "path of a directory"),
        ({"target": "out"}, ConfigError, "two directories"),
        ({"target": None}, TypeError, "directory or store.bucket"),
        ({"source_prefix": "x"}, ConfigError, "only for a bucket"),
        ({"target_prefix": 1}, TypeError, "prefix"),
        ({"target_prefix": "a\0"}, InvalidNameError, "NUL"),
        ({"compare": "time"}, ConfigError, "size_and_time"),
        ({"include": "*.txt"}, TypeError, "sequence of patterns"),
        ({"include": [1]}, TypeError, "pattern"),
        ({"exclude": ["["]}, PatternError, "class"),
        ({"delete": "yes"}, TypeError, "delete"),
        ({"allow_empty": 1}, TypeError, "allow_empty"),
        ({"dry_run": 1}, TypeError, "dry_run"),
        ({"follow_symlinks": "no"}, TypeError, "follow_symlinks"),
        ({"concurrency": 0}, ConfigError, "concurrency"),
        ({"max_objects_per_second": 0}, ConfigError, "max_objects_per_second"),
        ({"progress": 3}, TypeError, "progress"),
    ],
)
async def test_bad_arguments_raise_before_any_request(
    driver: Lists,
    store: Trove,
    tmp_path: Path,
    *,
    arguments: dict[str, Any],
    error: type[Exception],
    message: str,
) -> None:
    driver.reset()
    arguments = {"source": tmp_path, "target": store.bucket("data"), **arguments}

    with pytest.raises(error, match=message):
        await sync(arguments.pop("source"), arguments.pop("target"), **arguments)

    assert driver.requests == []


async def test_overlapping_folders_are_refused(store: Trove) -> None:
    data, pinned = store.bucket("data"), store.backend("default").bucket("data")
    for source_prefix, target_prefix in [
        ("", ""),
        ("a", "a/"),
        ("a", "a/b"),
        ("a/b", "a"),
        ("", "a"),
    ]:
        with pytest.raises(ConfigError, match="overlap"):
            await sync(data, data, source_prefix=source_prefix, target_prefix=target_prefix)
    with pytest.raises(ConfigError, match="overlap"):
        await sync(data, pinned, target_prefix="a")
    await sync(data, data, source_prefix="a", target_prefix="ab")


async def test_closed_store_is_refused(tmp_path: Path) -> None:
    store = Trove(MemoryDriver())
    with pytest.raises(ClosedError):
        await sync(tmp_path, store.bucket("data"))


# -- other sides -----------------------------------------------------------------------------------------


async def test_copy_between_stores_keeps_attributes(store: Trove) -> None:
    expires = datetime.now(UTC).replace(microsecond=0) + timedelta(days=1)
    await store.put(
        "data",
        "x/a",
        b"body" * 1000,
        content_type="text/x-odd",
        metadata={"mtime": "1500000000.5", "other": "1"},
        tags={"t": "1"},
        cache_control="no-store",
        content_disposition="inline",
        content_language="de",
        expires=expires,
    )
    async with store_with(MemoryDriver()) as other:
        report = await sync(
            store.bucket("data"), other.bucket("data"), source_prefix="x", target_prefix="y/z"
        )
        again = await sync(
            store.bucket("data"), other.bucket("data"), source_prefix="x", target_prefix="y/z"
        )
        mine, theirs = await store.head("data", "x/a"), await other.head("data", "y/z/a")

    assert (report.changed, again.unchanged) == (1, 1)
    for name in ("size", "content_type", "metadata", "tags", "cache_control", "expires"):
        assert getattr(theirs, name) == getattr(mine, name), name
    assert theirs.content_disposition == "inline"
    assert theirs.content_language == "de"


async def test_copy_between_backends_of_one_store() -> None:
    async with Trove(
        MemoryDriver(), backends={"cold": MemoryDriver()}, routes=[("*.log", "cold")]
    ) as store:
        await store.create_bucket("data", backends="all")
        await store.put("data", "a.txt", b"1")
        await store.put("data", "b.log", b"2")
        cold = store.backend("cold").bucket("data")

        first = await sync(store.bucket("data"), cold)
        second = await sync(store.bucket("data"), cold)

        assert (first.changed, first.unchanged, second.unchanged) == (1, 1, 2)
        assert await objects(store.backend("cold")) == {"a.txt": b"1", "b.log": b"2"}


async def test_copy_notices_a_source_that_is_replaced_meanwhile() -> None:
    fake = Fake()
    async with store_with(fake) as store, store_with(MemoryDriver()) as other:
        await store.put("data", "a", b"old")
        replaced = False

        async def replace() -> None:
            nonlocal replaced
            if not replaced:
                replaced = True
                await store.put("data", "a", b"new")

        fake.before["get.done"] = replace

        report = await sync(store.bucket("data"), other.bucket("data"))

        assert report.ok
        assert await objects(other) == {"a": b"new"}


async def test_routed_upload_stores_each_file_where_the_rules_say(tmp_path: Path) -> None:
    async with Trove(
        MemoryDriver(), backends={"cold": MemoryDriver()}, routes=[("**/*.log", "cold")]
    ) as store:
        await store.create_bucket("data", backends="all")
        make(tmp_path, {"x/a.txt": b"1", "x/b.log": b"2"})

        first = await sync(tmp_path, store.bucket("data"))
        second = await sync(tmp_path, store.bucket("data"))

        assert (first.changed, second.unchanged) == (2, 2)
        assert await objects(store.backend("cold")) == {"x/b.log": b"2"}


@pytest.mark.parametrize("held", [100_000, 7])
async def test_listings_without_key_order_are_sorted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held: int
) -> None:
    monkeypatch.setattr(sides, "_MAX_HELD", held)
    async with store_with(Unordered()) as store:
        files = {
            f"{hashlib.sha256(bytes([index])).hexdigest()}/{index}": bytes([index])
            for index in range(50)
        }
        make(tmp_path / "in", files)
        await store.put("data", "extra", b"x")

        up = await sync(tmp_path / "in", store.bucket("data"), delete=True)
        down = await sync(store.bucket("data"), tmp_path / "out", delete=True)
        again = await sync(store.bucket("data"), tmp_path / "out", delete=True)

        assert (up.deleted, down.changed, again.unchanged) == (1, 50, 50)
        assert await objects(store) == read(tmp_path / "out") == files


async def test_backend_without_metadata_stores_files_without_their_time(tmp_path: Path) -> None:
    fake = Fake(metadata=False)
    async with store_with(fake) as store:
        make(tmp_path, {"a": b"1"})
        report = await sync(tmp_path, store.bucket("data"))
        assert report.ok
        assert (await store.head("data", "a")).metadata == {}
        assert (await sync(tmp_path, store.bucket("data"))).unchanged == 1


def test_small_and_large_files_are_both_tested() -> None:
    assert len(TREE["large"]) > source_files.SMALL_SIZE > len(TREE["folder/deep/er/b"])


async def test_transformed_objects_in_a_store_without_middleware(tmp_path: Path) -> None:
    body = b"compressible " * 1000
    async with Trove(LocalDriver(tmp_path / "store"), middleware=[Compression()]) as store:
        await store.create_bucket("data")
        await store.put("data", "a", body)
    driver = Counting(LocalDriver(tmp_path / "store"))
    async with Trove(driver) as store:
        first = await sync(store.bucket("data"), tmp_path / "out")
        driver.reset()
        second = await sync(store.bucket("data"), tmp_path / "out")

    assert (first.changed, second.unchanged) == (1, 1)
    assert set(driver.requests) == {"list_page"}
    assert read(tmp_path / "out") == {"a": body}


async def test_file_that_vanishes_while_it_is_compared_is_skipped(
    store: Trove, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make(tmp_path, {"a": b"1"})
    await store.put("data", "a", b"2")
    opened = source_files.SourceFiles._open

    def vanish(files: Any, key: str) -> Any:
        (folder / key).unlink(missing_ok=True)
        return opened(files, key)

    monkeypatch.setattr(source_files.SourceFiles, "_open", vanish)

    report = await sync(folder, store.bucket("data"), compare="checksum")

    assert report.skips["deleted during the sync"].keys == ("a",)


async def test_relative_paths_belong_to_the_directory_at_the_start(
    store: Trove, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path / "in", {"a": b"1", "b/c": b"2"})
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)

    await sync("in", store.bucket("data"), progress=lambda _: os.chdir(tmp_path / "elsewhere"))

    assert await objects(store) == {"a": b"1", "b/c": b"2"}


@pytest.mark.parametrize("transformed", [(True, False), (False, True), (True, True)])
async def test_checksum_between_stores_reads_the_bodies_without_one(
    transformed: tuple[bool, bool],
) -> None:
    middleware = [[Compression()] if one else [] for one in transformed]
    body = b"compressible " * 1000
    async with (
        Trove(MemoryDriver(), middleware=middleware[0]) as one,
        Trove(MemoryDriver(), middleware=middleware[1]) as other,
    ):
        for store, last in ((one, b"1"), (other, b"2")):
            await store.create_bucket("data")
            await store.put("data", "same", body)
            await store.put("data", "different", body + last)

        report = await sync(one.bucket("data"), other.bucket("data"), compare="checksum")

        assert (report.changed, report.unchanged, report.failed) == (1, 1, 0)
        assert await objects(other) == await objects(one)


async def test_object_that_vanishes_before_it_is_copied_is_skipped() -> None:
    fake = Fake()
    async with store_with(fake) as store:
        await store.create_bucket("other")
        await store.put("data", "a", b"1")

        async def vanish() -> None:
            fake.before.clear()
            await store.delete("data", "a")

        fake.before["head"] = vanish

        report = await sync(store.bucket("data"), store.bucket("other"))

        assert report.skips["deleted during the sync"].keys == ("a",)
        assert await objects(store, "other") == {}


async def test_source_that_is_always_replaced_is_an_error() -> None:
    fake = Fake()
    async with store_with(fake) as store:
        await store.create_bucket("other")
        await store.put("data", "a", b"1")

        async def replace() -> None:
            await store.put("data", "a", b"2")

        fake.before["copy.done"] = replace

        report = await sync(store.bucket("data"), store.bucket("other"))

        assert report.errors["ObjectChangedError"].keys == ("a",)


async def test_directory_that_cannot_be_listed_is_raised(
    store: Trove, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path, {"a": b"1"})

    def fail(path: Any) -> Any:
        raise PermissionError(13, "denied", path)

    monkeypatch.setattr(os, "scandir", fail)
    await store.put("data", "b", b"2")

    with pytest.raises(PermissionError):
        await sync(tmp_path, store.bucket("data"), delete=True)
    with pytest.raises(PermissionError):
        await sync(store.bucket("data"), tmp_path, delete=True)

    assert await objects(store) == {"b": b"2"}


async def test_short_reads_are_completed(
    store: Trove, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = os.read
    monkeypatch.setattr(os, "read", lambda descriptor, size: original(descriptor, min(size, 7)))
    make(tmp_path, {"a": b"0123456789" * 3})

    await sync(tmp_path, store.bucket("data"))

    monkeypatch.undo()
    assert await objects(store) == {"a": b"0123456789" * 3}


# -- compare="none", and notify ----------------------------------------------------------------------------


@pytest.mark.parametrize("direction", ["up", "down", "across"])
async def test_none_transfers_everything_and_lists_no_target_bucket(
    store: Trove, driver: Lists, tmp_path: Path, direction: str
) -> None:
    await store.create_bucket("other")
    folder = make(tmp_path / "in", TREE)
    data, other = store.bucket("data"), store.bucket("other")
    await sync(folder, data)
    sides: tuple[Any, Any] = {
        "up": (folder, data),
        "down": (data, tmp_path / "in"),
        "across": (data, other),
    }[direction]
    await sync(*sides)
    driver.reset()

    report = await sync(*sides, compare="none")

    assert (report.changed, report.unchanged) == (len(TREE), 0)
    assert driver.requests.count("list_page") == (0 if direction == "up" else 1)
    assert read(tmp_path / "in") == await objects(store) == TREE


@pytest.mark.parametrize("dry_run", [False, True])
async def test_every_change_is_notified(store: Trove, tmp_path: Path, *, dry_run: bool) -> None:
    folder = make(tmp_path / "in", {"same": b"1", "new": b"22", "changed": b"333"})
    await store.put("data", "gone", b"4")
    await store.put("data", "changed", b"5")
    await store.put("data", "same", b"1")
    changes: list[tuple[str, str, int, bool]] = []

    report = await sync(
        folder,
        store.bucket("data"),
        compare="size",
        delete=True,
        dry_run=dry_run,
        notify=lambda change: changes.append(
            (change.action, change.key, change.size, change.error is None)
        ),
    )

    assert sorted(changes) == [
        ("delete", "gone", 0, True),
        ("upload", "changed", 3, True),
        ("upload", "new", 2, True),
    ]
    assert report.changed == 3


async def test_every_failure_is_notified(store: Trove, tmp_path: Path) -> None:
    await store.put("data", "file", b"1")
    await store.put("data", "file/below", b"2")
    failures = []
    await sync(
        store.bucket("data"),
        tmp_path / "out",
        notify=lambda change: failures.append(change) if change.error else None,
    )
    [failure] = failures
    assert (failure.action, failure.key) == ("download", "file/below")
    assert isinstance(failure.error, NotADirectoryError)


async def test_notify_that_raises_ends_the_sync(store: Trove, tmp_path: Path) -> None:
    def fail(_: object) -> None:
        raise RuntimeError("full")

    with pytest.raises(RuntimeError, match="full"):
        await sync(make(tmp_path / "in", TREE), store.bucket("data"), notify=fail)


async def test_notify_that_has_raised_is_not_called_again(store: Trove, tmp_path: Path) -> None:
    calls = 0

    def fail(_: object) -> None:
        nonlocal calls
        calls += 1
        raise RuntimeError("full")

    folder = make(tmp_path / "in", {f"{n:03}": b"1" for n in range(300)})
    with pytest.raises(RuntimeError, match="full"):
        await sync(folder, store.bucket("data"), notify=fail)
    assert calls == 1


async def test_async_notify_is_refused(store: Trove, tmp_path: Path) -> None:
    async def notify(_: object) -> None: ...

    with pytest.raises(TypeError, match="notify must be a plain function, got an async one"):
        await sync(tmp_path, store.bucket("data"), notify=notify)  # type: ignore[arg-type]


@pytest.mark.parametrize("delete", [False, True])
@pytest.mark.parametrize(("source", "target"), [("", "a"), ("a", ""), ("a", "a")])
async def test_nested_folders_of_one_place_in_two_stores_are_refused(
    tmp_path: Path, source: str, target: str, *, delete: bool
) -> None:
    async with Trove(LocalDriver(tmp_path)) as one, Trove(LocalDriver(tmp_path)) as other:
        await one.create_bucket("data")
        await one.put("data", "a/x", b"1")
        with pytest.raises(ConfigError, match="overlap"):
            await sync(
                one.bucket("data"),
                other.bucket("data"),
                source_prefix=source,
                target_prefix=target,
                delete=delete,
            )
        assert await one.read("data", "a/x") == b"1"


@pytest.mark.parametrize("directory", [".", "..", "data", "data/a"])
@pytest.mark.parametrize("direction", ["up", "down"])
async def test_directory_that_contains_the_files_of_the_bucket_is_refused(
    tmp_path: Path, directory: str, direction: str
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    async with Trove(ReadOnly(LocalDriver(root)), backends={"b": LocalDriver(root)}) as store:
        await store.backend("b").create_bucket("data")
        await store.backend("b").put("data", "a/x", b"1")
        sides = (root / directory, store.bucket("data"))
        with pytest.raises(ConfigError, match="overlaps with the files of the backend 'default'"):
            await sync(*(sides if direction == "up" else sides[::-1]), delete=True)
        assert await store.read("data", "a/x") == b"1"


async def test_missing_target_bucket_ends_a_sync_that_does_not_list_it(
    store: Trove, tmp_path: Path
) -> None:
    with pytest.raises(BucketNotFoundError):
        await sync(make(tmp_path / "in", TREE), store.bucket("missing"), compare="none")


async def test_notify_must_be_callable(store: Trove, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="notify must be callable, got str"):
        await sync(tmp_path, store.bucket("data"), notify="print")  # type: ignore[arg-type]
