"""Uploads that a later put continues, on SeaweedFS and moto."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from trove_async import BufferPool, Trove
from trove_async.drivers import S3Driver
from trove_async.drivers.s3._documents import SentPart
from trove_async.drivers.s3._upload_records import RecordedPart, RecordedUpload, UploadRecord
from trove_async.errors import ConfigError, ObjectExistsError
from trove_async.models import MiB
from trove_async.options import Part
from trove_async.testing.servers import S3Server

PART = 5 * MiB
BODY = bytes(range(256)) * (4 * 4096 * 5) + b"end"  # four parts and a bit


@pytest.fixture(params=["seaweed", "moto_server"])
def server(request: pytest.FixtureRequest) -> S3Server:
    found: S3Server = request.getfixturevalue(request.param)
    return found


class Uploads:
    """Opens stores on one bucket, and counts the parts that are sent."""

    def __init__(self, server: S3Server, records: Path) -> None:
        self.server = server
        self.records = records
        self.bucket = f"resume-{uuid4().hex}"
        self.sent: list[int] = []
        self.fail_after: int | None = None
        self.stopped = asyncio.Event()

    def driver(self, **options: Any) -> S3Driver:
        return S3Driver(
            endpoint_url=self.server.endpoint_url,
            region=self.server.region,
            access_key_id=self.server.access_key_id,
            secret_access_key=self.server.secret_access_key,
            parallel_parts=1,
            **{"resume_uploads": self.records, **options},
        )

    @asynccontextmanager
    async def open(self, **options: Any) -> AsyncIterator[Trove]:
        driver = self.driver(**options)
        async with Trove(driver, pool=BufferPool(32 * MiB, part_size=PART)) as store:
            plane: Any = driver._plane
            original = plane.upload_part

            async def upload_part(upload: Any, part: Part, views: Any) -> Any:
                if self.fail_after is not None and len(self.sent) >= self.fail_after:
                    self.stopped.set()
                    await asyncio.Event().wait()
                sent = await original(upload, part, views)
                self.sent.append(part.number)
                return sent

            plane.upload_part = upload_part
            yield store

    async def interrupted_put(self, body: bytes, **options: Any) -> None:
        """Put a body, and cancel the put once two parts are stored."""
        self.fail_after = 2
        async with self.open() as store:
            put = asyncio.ensure_future(store.put(self.bucket, "key", body, **options))  # noqa: TID251 - to cancel it
            await self.stopped.wait()
            put.cancel()
            with suppress(asyncio.CancelledError):
                await put
        self.fail_after, self.sent = None, []

    async def left(self) -> int:
        driver = self.driver()
        async with Trove(driver):
            return len(await driver.unfinished_uploads(self.bucket))


@pytest.fixture
async def uploads(server: S3Server, tmp_path: Path) -> Uploads:
    made = Uploads(server, tmp_path / "records")
    async with made.open() as store:
        await store.create_bucket(made.bucket)
    return made


async def test_next_put_sends_only_the_parts_that_are_missing(uploads: Uploads) -> None:
    await uploads.interrupted_put(BODY, metadata={"a": "1"})
    assert await uploads.left() == 1
    async with uploads.open() as store:
        info = await store.put(uploads.bucket, "key", BODY, metadata={"a": "1"})
        assert await store.read(uploads.bucket, "key") == BODY
        assert (await store.head(uploads.bucket, "key")).metadata == {"a": "1"}
    assert info.size == len(BODY)
    assert uploads.sent == [3, 4, 5]
    assert await uploads.left() == 0
    assert list(uploads.records.iterdir()) == []


async def test_part_that_was_changed_is_sent_again(uploads: Uploads) -> None:
    await uploads.interrupted_put(BODY)
    changed = b"!" + BODY[1:]
    async with uploads.open() as store:
        await store.put(uploads.bucket, "key", changed)
        assert await store.read(uploads.bucket, "key") == changed
    assert uploads.sent == [1, 3, 4, 5]


@pytest.mark.parametrize("change", ["headers", "size"])
async def test_another_object_of_the_key_begins_anew(uploads: Uploads, change: str) -> None:
    await uploads.interrupted_put(BODY, metadata={"a": "1"})
    body = BODY + b"more" if change == "size" else BODY
    metadata = {"a": "2" if change == "headers" else "1"}
    async with uploads.open() as store:
        await store.put(uploads.bucket, "key", body, metadata=metadata)
        assert await store.read(uploads.bucket, "key") == body
        assert (await store.head(uploads.bucket, "key")).metadata == metadata
    assert uploads.sent == [1, 2, 3, 4, 5]
    assert await uploads.left() == 0


async def test_upload_that_was_aborted_meanwhile_begins_anew(uploads: Uploads) -> None:
    await uploads.interrupted_put(BODY)
    driver = uploads.driver()
    async with Trove(driver):
        assert await driver.gc_uploads(uploads.bucket, older_than=0) == 1
    async with uploads.open() as store:
        await store.put(uploads.bucket, "key", BODY)
        assert await store.read(uploads.bucket, "key") == BODY
    assert uploads.sent == [1, 2, 3, 4, 5]


async def test_two_puts_at_once_do_not_share_an_upload(uploads: Uploads) -> None:
    await uploads.interrupted_put(BODY)
    async with uploads.open() as one, uploads.open() as other, asyncio.TaskGroup() as group:
        for store in (one, other):
            group.create_task(store.put(uploads.bucket, "key", BODY))
    async with uploads.open() as store:
        assert await store.read(uploads.bucket, "key") == BODY
    assert sorted(uploads.sent) == [1, 2, 3, 3, 4, 4, 5, 5]
    assert await uploads.left() == 0


async def test_refused_completion_is_not_tried_again(uploads: Uploads) -> None:
    async with uploads.open() as store:
        await store.put(uploads.bucket, "key", b"old")
    driver = uploads.driver(dialect="s3")
    async with Trove(driver, pool=BufferPool(32 * MiB, part_size=PART)) as store:
        with pytest.raises(ObjectExistsError):
            await store.put(uploads.bucket, "key", BODY, if_none_match="*")
    assert list(uploads.records.iterdir()) == []


async def test_upload_without_a_stored_part_is_aborted(uploads: Uploads) -> None:
    uploads.fail_after = 0
    async with uploads.open() as store:
        put = asyncio.ensure_future(store.put(uploads.bucket, "key", BODY))  # noqa: TID251 - to cancel it
        await uploads.stopped.wait()
        put.cancel()
        with suppress(asyncio.CancelledError):
            await put
    assert await uploads.left() == 0
    assert list(uploads.records.iterdir()) == []


async def test_without_records_an_interrupted_upload_is_aborted(uploads: Uploads) -> None:
    uploads.fail_after = 2
    async with uploads.open(resume_uploads=None) as store:
        put = asyncio.ensure_future(store.put(uploads.bucket, "key", BODY))  # noqa: TID251 - to cancel it
        await uploads.stopped.wait()
        put.cancel()
        with suppress(asyncio.CancelledError):
            await put
    assert await uploads.left() == 0


# -- records ---------------------------------------------------------------------------------------------

UPLOAD = RecordedUpload(id="u", write_id="w", options="o")
PARTS = [
    RecordedPart(5, "crc", SentPart(number=number, etag=f"e{number}", checksums={"crc32c": "x"}))
    for number in (1, 2)
]


def recorded(directory: Path) -> Path:
    record = UploadRecord.claim(str(directory), "http://host/bucket/key")
    assert record is not None
    record.begin(UPLOAD)
    for part in PARTS:
        record.add(part)
    record.close()
    [path] = directory.iterdir()
    return path


def claimed(directory: Path) -> UploadRecord:
    record = UploadRecord.claim(str(directory), "http://host/bucket/key")
    assert record is not None
    return record


def test_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    recorded(tmp_path)
    record = claimed(tmp_path)
    assert (record.upload, list(record.parts.values())) == (UPLOAD, PARTS)
    record.discard()
    assert list(tmp_path.iterdir()) == []


def test_record_that_was_torn_anywhere_is_a_prefix_of_itself(tmp_path: Path) -> None:
    path = recorded(tmp_path)
    data = path.read_bytes()
    for size in range(len(data)):
        path.write_bytes(data[:size])
        record = claimed(tmp_path)
        parts = list(record.parts.values())
        record.close()
        assert parts == PARTS[: data[:size].count(b"\n") - 1 if b"\n" in data[:size] else 0]


@pytest.mark.parametrize("data", [b"[]\n", b"\xff\n", b'{"version": 2}\n', b"{}\n", b"null\n"])
def test_file_that_is_no_record_is_none(tmp_path: Path, data: bytes) -> None:
    recorded(tmp_path).write_bytes(data)
    record = claimed(tmp_path)
    assert (record.upload, record.parts) == (None, {})
    record.close()


def test_record_is_claimed_once(tmp_path: Path) -> None:
    record = claimed(tmp_path)
    assert UploadRecord.claim(str(tmp_path), "http://host/bucket/key") is None
    record.discard()
    claimed(tmp_path).discard()


def test_records_are_private(tmp_path: Path) -> None:
    claimed(tmp_path / "records").close()
    [path] = (tmp_path / "records").iterdir()
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)


@pytest.mark.parametrize(
    ("value", "kind"), [("", ConfigError), ("a\0b", ConfigError), (3, TypeError)]
)
def test_directory_that_cannot_exist_is_refused(value: Any, kind: type[Exception]) -> None:
    with pytest.raises(kind, match="resume_uploads must be"):
        S3Driver(region="eu-west-1", resume_uploads=value)
