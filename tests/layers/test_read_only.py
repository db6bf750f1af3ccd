"""The layer `ReadOnly`: everything can be read, and every write is refused before any I/O."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, cast

import pytest
import pytest_asyncio

from tests.drivers.local.test_read_only import in_read_only_mount, snapshot
from tests.fakes import CallLog, fill
from tests.versioned_memory import VersionedMemory
from trove_async import ConfigError, NotSupportedError, Trove
from trove_async.driver import (
    AsyncDriver,
    BulkDeleting,
    Capabilities,
    Copying,
    DriverReader,
    Layer,
    Presigning,
    Replicated,
    Uploading,
    Versioned,
)
from trove_async.drivers import LocalDriver, MemoryDriver, S3Driver
from trove_async.layers import Mapped, ReadOnly
from trove_async.layers._forwarding import Forwarding
from trove_async.options import CopyOptions, DeleteOptions, PresignOptions, PutOptions
from trove_async.testing import DriverSuite, StoreSuite, opened

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from trove_async.models import BucketInfo, ObjectInfo
    from trove_async.options import GetOptions, ListOptions, Page, VersionPage


class WritesBeside(Forwarding):
    """Writes to a driver directly, and reads it through `ReadOnly`, for the suites."""

    def __init__(self, driver: AsyncDriver, reading: AsyncDriver) -> None:
        super().__init__("WritesBeside", driver, reading)

    @property
    def _reading(self) -> AsyncDriver:
        return self._attachment.drivers[1]

    async def ping(self) -> None:
        await self._reading.ping()

    def get(
        self, bucket: str, key: str, options: GetOptions
    ) -> AbstractAsyncContextManager[DriverReader]:
        return self._reading.get(bucket, key, options)

    async def head(self, bucket: str, key: str, version_id: str | None = None) -> ObjectInfo:
        return await self._reading.head(bucket, key, version_id)

    async def list_page(self, bucket: str, options: ListOptions) -> Page:
        return await self._reading.list_page(bucket, options)

    async def head_bucket(self, bucket: str) -> BucketInfo:
        return await self._reading.head_bucket(bucket)

    async def list_buckets(self) -> Sequence[BucketInfo]:
        return await self._reading.list_buckets()

    async def version_page(self, bucket: str, options: ListOptions) -> VersionPage:
        return await cast("Versioned", self._reading).version_page(bucket, options)


def memory() -> AsyncDriver:
    driver = MemoryDriver()
    return WritesBeside(driver, ReadOnly(driver))


def nested() -> AsyncDriver:
    driver = Mapped(MemoryDriver(), into="all")
    return WritesBeside(driver, ReadOnly(ReadOnly(driver)))


class TestDriver(DriverSuite):
    @pytest.fixture
    def driver(self) -> AsyncDriver:
        return memory()


class TestDriverOnFiles(DriverSuite):
    @pytest.fixture
    def driver(self, tmp_path: Path) -> AsyncDriver:
        driver = LocalDriver(tmp_path, fsync=False)
        return WritesBeside(driver, ReadOnly(driver))


class TestDriverNested(DriverSuite):
    @pytest.fixture
    def driver(self) -> AsyncDriver:
        return nested()


@pytest.mark.soak  # the routed store is run always
class TestStore(StoreSuite):
    @pytest_asyncio.fixture
    async def store(self) -> AsyncIterator[Trove]:
        async with Trove(memory()) as store:
            yield store


class TestStoreRouted(StoreSuite):
    @pytest_asyncio.fixture
    async def store(self) -> AsyncIterator[Trove]:
        async with Trove(
            memory(), backends={"other": nested()}, routes=[("*[0-4]", "other")]
        ) as store:
            yield store


# -- refusals ----------------------------------------------------------------------------------------


def unread_body() -> Iterator[bytes]:
    pytest.fail("the body must not be read")
    yield b""


WRITES: dict[str, Callable[[Trove], Awaitable[object]]] = {
    "put": lambda store: store.put("bucket", "new", unread_body()),
    "put_bytes": lambda store: store.put("bucket", "key", b"body", if_none_match="*"),
    "delete": lambda store: store.delete("bucket", "key"),
    "delete_missing": lambda store: store.delete("bucket", "missing"),
    "delete_many": lambda store: store.delete_many("bucket", ["key", "missing"]),
    "copy": lambda store: store.copy("bucket", "key", "bucket", "new"),
    "copy_onto_itself": lambda store: store.copy(
        "bucket", "key", "bucket", "key", metadata={"a": "b"}
    ),
    "move": lambda store: store.move("bucket", "key", "bucket", "new"),
    "create_bucket": lambda store: store.create_bucket("other", exist_ok=True),
    "delete_bucket": lambda store: store.delete_bucket("bucket"),
    "presign_put": lambda store: store.presign_put("bucket", "key"),
}


@pytest.fixture(params=WRITES)
def write(request: pytest.FixtureRequest) -> Callable[[Trove], Awaitable[object]]:
    return WRITES[request.param]


async def test_write_is_refused_before_any_call(
    write: Callable[[Trove], Awaitable[object]],
) -> None:
    driver = CallLog()
    await fill(driver, "bucket", "key")
    async with Trove(ReadOnly(driver)) as store:
        driver.calls.clear()
        with pytest.raises(NotSupportedError, match="read-only") as caught:
            await write(store)
        assert caught.value.backend == "default"
        assert driver.calls == []
        assert await store.read("bucket", "key") == b"key"
        assert store.backends["default"].capabilities.writable is False


async def test_write_through_an_outer_layer_is_refused_before_any_call(
    write: Callable[[Trove], Awaitable[object]],
) -> None:
    driver = CallLog()
    await fill(driver, "all", "bucket/", "bucket/key")
    async with Trove(Mapped(ReadOnly(driver), into="all")) as store:
        driver.calls.clear()
        with pytest.raises(NotSupportedError, match="read-only"):
            await write(store)
        assert driver.calls == []
        assert await store.read("bucket", "key") == b"bucket/key"


async def test_layer_itself_refuses_every_write() -> None:
    driver = CallLog()
    await fill(driver, "bucket", "key")
    layer: AsyncDriver = ReadOnly(driver)
    source = await driver.head("bucket", "key")
    async with opened(layer):
        driver.calls.clear()
        for write in (
            lambda: layer.put("bucket", "new", [], PutOptions()),
            lambda: layer.delete("bucket", "key", DeleteOptions()),
            lambda: layer.create_bucket("new"),
            lambda: layer.delete_bucket("bucket"),
            lambda: cast("Uploading", layer).upload("bucket", "new", PutOptions()).__aenter__(),
            lambda: cast("Copying", layer).copy(
                "bucket", "key", "bucket", "new", CopyOptions(source=source, put=PutOptions())
            ),
            lambda: cast("BulkDeleting", layer).delete_many("bucket", ["key"]),
            lambda: cast("Presigning", layer).presign("PUT", "bucket", "key", 60, PresignOptions()),
            lambda: cast("Replicated", layer).repair("bucket", "key"),
        ):
            with pytest.raises(NotSupportedError, match="ReadOnly"):
                await cast("Callable[[], Awaitable[object]]", write)()
        assert driver.calls == []
    assert isinstance(layer, Layer)


async def test_failed_put_leaves_a_file_where_it_was(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    with path.open("rb") as file:
        file.seek(3)
        async with Trove(ReadOnly(MemoryDriver())) as store:
            with pytest.raises(NotSupportedError):
                await store.put("bucket", "key", file)
        assert file.tell() == 3


async def test_move_from_a_read_only_backend_is_refused_and_a_copy_is_made() -> None:
    driver = CallLog()
    await fill(driver, "bucket", "key")
    async with Trove(MemoryDriver(), backends={"old": ReadOnly(driver)}) as store:
        await store.create_bucket("bucket")
        with pytest.raises(NotSupportedError, match="delete the source"):
            await store.move("bucket", "key", "bucket", "key", source_backend="old")
        assert not await store.exists("bucket", "key")
        await store.copy("bucket", "key", "bucket", "key", source_backend="old")
        assert await store.read("bucket", "key") == b"key"


async def test_every_key_of_a_bulk_deletion_gets_the_refusal() -> None:
    driver = CallLog(bulk_delete=0)
    async with Trove(
        MemoryDriver(), backends={"old": ReadOnly(driver)}, routes=[("o*", "old")]
    ) as store:
        await store.create_bucket("bucket")
        driver.calls.clear()
        results = [r async for r in store.delete_many("bucket", ["new", "old1", "old2"])]
        assert [r.key for r in results] == ["new", "old1", "old2"]
        assert results[0].error is None
        assert isinstance(results[1].error, NotSupportedError)
        assert results[1].error is results[2].error
        assert driver.calls == []


async def test_bucket_that_a_read_only_backend_lacks_can_be_created_and_deleted() -> None:
    old = CallLog()
    await fill(old, "archived")
    async with Trove(MemoryDriver(), backends={"old": ReadOnly(old)}) as store:
        await store.create_bucket("new")
        await store.delete_bucket("new")
        await store.create_bucket("archived")
        with pytest.raises(NotSupportedError, match="delete a bucket") as caught:
            await store.delete_bucket("archived")
        assert caught.value.backend == "old"
        assert len(await store.list_buckets()) == 1
        with pytest.raises(NotSupportedError):
            await store.create_bucket("both", backends="all")
        assert len(await store.list_buckets()) == 1  # nothing was created on either


async def test_versions_can_be_read() -> None:
    driver = VersionedMemory()
    await fill(driver, "bucket")
    driver.versioned_buckets.add("bucket")
    await fill(driver, "bucket", "key", "key")
    async with Trove(ReadOnly(driver)) as store:
        versions = [version async for version in store.list_versions("bucket")]
        assert len(versions) == 2
        assert await store.read("bucket", "key", version_id=versions[1].version_id) == b"key"


async def test_reads_can_be_presigned() -> None:
    driver = S3Driver(region="eu-west-1", access_key_id="key", secret_access_key="secret")  # noqa: S106
    async with Trove(ReadOnly(driver)) as store:
        assert "X-Amz-Signature" in await store.presign_get("bucket", "key")
        with pytest.raises(NotSupportedError, match="presign a write"):
            await store.presign_put("bucket", "key")


def test_wrong_drivers_are_refused() -> None:
    with pytest.raises(TypeError, match="driver of ReadOnly"):
        ReadOnly(3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="a class"):
        ReadOnly(MemoryDriver)  # type: ignore[arg-type]
    with pytest.raises(ConfigError):
        ReadOnly("nonsense://x")


# -- what is opened for reading only -------------------------------------------------------------------


async def test_writable_root_is_not_changed(tmp_path: Path) -> None:
    (tmp_path / "bucket").mkdir()
    (tmp_path / "bucket" / "key").write_bytes(b"body")
    before = snapshot(tmp_path)
    async with Trove(ReadOnly(f"file://{tmp_path}")) as store:
        assert await store.read("bucket", "key") == b"body"
        assert [obj.key for obj in await store.list("bucket").all()] == ["key"]
        assert (await store.health())["default"].ok
        with pytest.raises(NotSupportedError):
            await store.put("bucket", "key", b"new")
    assert snapshot(tmp_path) == before


READER = """
import asyncio, sys
from trove_async import NotSupportedError, Trove
from trove_async.layers import ReadOnly

async def main():
    async with Trove(ReadOnly(f"file://{sys.argv[1]}")) as store:
        print([obj.key for obj in await store.list("bucket").all()], await store.read("bucket", "key"))
        try:
            await store.put("bucket", "key", b"new")
        except NotSupportedError:
            print("refused")

asyncio.run(main())
"""


async def test_root_that_is_mounted_read_only_is_readable(tmp_path: Path) -> None:
    (tmp_path / "bucket").mkdir()
    (tmp_path / "bucket" / "key").write_bytes(b"body")
    output = in_read_only_mount(str(tmp_path), sys.executable, "-c", READER, str(tmp_path))
    assert output == "['key'] b'body'\nrefused\n"


async def test_missing_root_is_not_created(tmp_path: Path) -> None:
    root = tmp_path / "missing"
    with pytest.raises(ConfigError, match="does not create it"):
        await Trove(ReadOnly(LocalDriver(root))).open()
    assert not root.exists()


@pytest.mark.parametrize("read_only_first", [True, False])
async def test_driver_that_is_also_used_without_the_layer_is_writable(
    tmp_path: Path, *, read_only_first: bool
) -> None:
    driver = LocalDriver(tmp_path)
    drivers: list[AsyncDriver] = [ReadOnly(driver), driver]
    first, second = drivers if read_only_first else reversed(drivers)
    async with Trove(first, backends={"second": second}) as store:
        writable = store.backend("second" if read_only_first else "default")
        await writable.create_bucket("bucket")
        await writable.put("bucket", "key", b"body")
        reading = store.backend("default" if read_only_first else "second")
        assert await reading.read("bucket", "key") == b"body"


class Recording(MemoryDriver):
    """Records whether it was opened for writing."""

    writable: bool | None = None

    async def open(self, context: object) -> None:
        self.writable = context.writable  # type: ignore[attr-defined]
        await super().open(context)  # type: ignore[arg-type]


async def test_only_drivers_below_the_layer_are_opened_for_reading() -> None:
    plain, below, mapped, first, second = (Recording() for _ in range(5))
    async with Trove(
        plain,
        backends={
            "below": ReadOnly(below),
            "mapped": ReadOnly(Mapped(mapped, into="all")),
            "two": ReadOnly(WritesBeside(first, second)),
        },
    ):
        assert [d.writable for d in (plain, below, mapped)] == [True, False, False]
        assert [first.writable, second.writable] == [True, True]  # one may be a cache


def test_capabilities_say_so() -> None:
    assert Capabilities().writable
    assert not ReadOnly(MemoryDriver()).capabilities.writable
    assert not Mapped(ReadOnly(MemoryDriver()), into="all").capabilities.writable
