"""Copies between two local roots, which do not pass through the store."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import tempfile
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from tests.drivers.local.system_calls import FailingCall, Gate
from trove_async import Route, Trove
from trove_async._checksums import running_crc32c
from trove_async.driver import CannotCopyError, Origin
from trove_async.drivers import LocalDriver
from trove_async.drivers.local import _copy_between, _threads
from trove_async.drivers.local._copy import FICLONE
from trove_async.drivers.local._staging import XATTR
from trove_async.errors import (
    BucketNotFoundError,
    IntegrityError,
    ObjectChangedError,
    ObjectExistsError,
    ObjectNotFoundError,
    PreconditionFailedError,
    StorageFullError,
    TimedOutError,
)
from trove_async.jobs import rebalance
from trove_async.layers import Mapped, ReadOnly
from trove_async.options import CopyOptions, PutOptions

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from trove_async.models import ObjectInfo

MEMORY = Path("/dev/shm")  # noqa: S108 - holds temporary directories
SMALL, LARGE = 5000, 3 * _copy_between._CHUNK + 1


@pytest.fixture(params=["same file system", "different file systems"])
def roots(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """Return the directories of two roots."""
    if request.param == "same file system":
        yield tmp_path / "hot", tmp_path / "cold"
        return
    if not MEMORY.is_dir() or MEMORY.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is only one file system")
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        yield Path(folder), tmp_path / "cold"


class Pair:
    """A store with two local backends, ``default`` (hot) and ``cold``, which both have the bucket ``b``."""

    def __init__(self, store: Trove, hot: LocalDriver, cold: LocalDriver, cold_root: Path) -> None:
        self.store = store
        self.hot = hot
        self.cold = cold
        self.cold_root = cold_root

    async def copy(self, info: ObjectInfo, key: str = "k", **put: Any) -> ObjectInfo:
        """Copy a version of ``k`` to the cold root, with the drivers alone."""
        options = CopyOptions(source=info, put=PutOptions(**put))
        return await self.cold.copy_from(Origin(self.hot, "b", "k"), "b", key, options)

    def assert_nothing_stored(self) -> None:
        """Check that the cold root has no object, no staged file and no sidecar."""
        files = [path for path in self.cold_root.rglob("*") if path.is_file()]
        assert [
            path.name for path in files if path.name != "locks" and path.suffix != ".lock"
        ] == []


@pytest_asyncio.fixture
async def pair(roots: tuple[Path, Path]) -> AsyncIterator[Pair]:
    hot, cold = (LocalDriver(root, fsync=False) for root in roots)
    async with Trove(hot, backends={"cold": cold}) as store:
        await store.create_bucket("b", backends="all")
        yield Pair(store, hot, cold, roots[1])


def forbid_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("the body passes through the store")

    for method in ("get", "put", "upload"):
        monkeypatch.setattr(LocalDriver, method, fail)


@pytest.mark.parametrize("size", [0, 1, SMALL, LARGE])
async def test_store_copies_body_and_metadata_without_a_stream(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    body = os.urandom(size)
    source = await pair.store.put(
        "b", "d/k", body, content_type="a/b", metadata={"a": "b"}, cache_control="no-store"
    )
    with monkeypatch.context() as patch:
        forbid_streams(patch)
        info = await pair.store.backend("cold").copy(
            "b", "d/k", "b", "d/k", source_backend="default"
        )
    assert (info.backend, info.bucket, info.key, info.size) == ("cold", "b", "d/k", size)
    assert info.checksums == source.checksums != {}
    stored = await pair.store.backend("cold").head("b", "d/k")
    assert stored == info
    for name in ("content_type", "metadata", "cache_control"):
        assert getattr(stored, name) == getattr(source, name)
    assert stored.write_id != source.write_id
    assert await pair.store.backend("cold").read("b", "d/k") == body
    assert await pair.store.backend("default").read("b", "d/k") == body


@pytest.mark.parametrize("simulated", [None, "hot", "cold"])
async def test_metadata_in_sidecars_is_copied(
    roots: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, simulated: str | None
) -> None:
    hot, cold = (LocalDriver(root, fsync=False) for root in roots)
    if simulated is not None:
        {"hot": hot, "cold": cold}[simulated]._simulating(xattrs=False)
    metadata = {"a": "x" * 30_000}
    async with Trove(hot, backends={"cold": cold}) as store:
        await store.create_bucket("b", backends="all")
        await store.put("b", "k", b"body", metadata=metadata)
        forbid_streams(monkeypatch)
        await store.backend("cold").copy("b", "k", "b", "k", source_backend="default")
        await store.backend("default").delete("b", "k")
        assert (await store.backend("cold").head("b", "k")).metadata == metadata


async def test_conditions_of_the_destination_are_honoured(pair: Pair) -> None:
    source = await pair.store.put("b", "k", b"new")
    existing = await pair.store.backend("cold").put("b", "k", b"existing")
    with pytest.raises(ObjectExistsError):
        await pair.copy(source, if_none_match="*")
    with pytest.raises(PreconditionFailedError):
        await pair.copy(source, if_match=source.etag)
    assert await pair.store.backend("cold").read("b", "k") == b"existing"
    await pair.copy(source, if_match=existing.etag)
    assert await pair.store.backend("cold").read("b", "k") == b"new"


async def test_missing_bucket_of_the_destination_is_named(pair: Pair) -> None:
    source = await pair.store.put("b", "k", b"body")
    await pair.cold.delete_bucket("b")
    with pytest.raises(BucketNotFoundError) as caught:
        await pair.copy(source)
    assert caught.value.bucket == "b"
    pair.assert_nothing_stored()


async def test_replaced_or_deleted_source_is_not_copied(pair: Pair) -> None:
    old = await pair.store.put("b", "k", b"old")
    await pair.store.put("b", "k", b"new")
    with pytest.raises(ObjectChangedError):
        await pair.copy(old)
    await pair.store.backend("default").delete("b", "k")
    with pytest.raises(ObjectChangedError):
        await pair.copy(old)
    pair.assert_nothing_stored()


@pytest.mark.parametrize("size", [SMALL, LARGE])
@pytest.mark.parametrize("change", ["overwrite", "truncate"])
async def test_source_that_another_tool_changes_during_the_copy_is_not_stored(
    pair: Pair,
    roots: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
    change: str,
    size: int,
) -> None:
    source = await pair.store.put("b", "k", os.urandom(size))

    def change_source(*args: Any) -> int:
        with (roots[0] / "b/k").open("r+b") as file:
            file.truncate(10) if change == "truncate" else file.write(b"other")
        return running_crc32c(*args)

    monkeypatch.setattr(_copy_between, "running_crc32c", change_source)
    with pytest.raises(ObjectChangedError):
        await pair.copy(source)
    pair.assert_nothing_stored()


@pytest.mark.parametrize("cloned", [False, True])
@pytest.mark.parametrize("size", [SMALL, LARGE])
async def test_damaged_bytes_are_not_stored(
    pair: Pair,
    roots: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
    size: int,
    *,
    cloned: bool,
) -> None:
    if cloned:
        simulate_clones(monkeypatch)
    source = await pair.store.put("b", "k", b"a" * size)
    path = roots[0] / "b/k"
    status = path.stat()
    with path.open("r+b") as file:
        file.seek(size - 1)
        file.write(b"b")
    os.utime(path, ns=(status.st_mtime_ns, status.st_mtime_ns))
    with pytest.raises(IntegrityError):
        await pair.store.backend("cold").copy("b", "k", "b", "k", source_backend="default")
    with pytest.raises(IntegrityError):
        await pair.copy(source)
    pair.assert_nothing_stored()


async def test_announced_checksum_is_compared(pair: Pair) -> None:
    source = await pair.store.put("b", "k", b"body")
    with pytest.raises(IntegrityError):
        await pair.copy(source, checksums={"crc32c": "AAAAAA=="})
    pair.assert_nothing_stored()


async def test_cloned_file_is_verified_and_stored(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = os.urandom(LARGE)
    source = await pair.store.put("b", "k", body)
    simulate_clones(monkeypatch)
    stored = await pair.copy(source)
    assert stored.checksums == source.checksums
    assert await pair.store.backend("cold").read("b", "k") == body


def simulate_clones(monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulate a file system that shares blocks."""

    def clone(target: int, request: int, source: int) -> int:
        assert request == FICLONE
        os.pwrite(target, os.pread(source, os.fstat(source).st_size, 0), 0)
        return 0

    monkeypatch.setattr(fcntl, "ioctl", clone)


async def test_file_without_a_checksum_is_copied_and_gets_one(
    pair: Pair, roots: tuple[Path, Path]
) -> None:
    (roots[0] / "b/k").write_bytes(b"of another tool")
    info = await pair.store.backend("cold").copy("b", "k", "b", "k", source_backend="default")
    expected = await pair.store.backend("cold").put("b", "other", b"of another tool")
    assert info.checksums == expected.checksums != {}


@pytest.mark.parametrize("size", [SMALL, LARGE])
@pytest.mark.parametrize("call", ["pwritev", "utime"])
async def test_full_disk_leaves_nothing(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, call: str, size: int
) -> None:
    source = await pair.store.put("b", "k", bytes(size))
    with monkeypatch.context() as patch:
        patch.setattr(os, call, FailingCall(getattr(os, call), errno.ENOSPC))
        with pytest.raises(StorageFullError) as caught:
            await pair.copy(source)
    assert (caught.value.bucket, caught.value.key) == ("b", "k")
    pair.assert_nothing_stored()
    assert await pair.store.backend("default").read("b", "k") == bytes(size)


@pytest.mark.parametrize("size", [SMALL, LARGE])
@pytest.mark.parametrize("times", [1, 2])
async def test_cancelled_copy_ends_its_thread_and_leaves_nothing(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, size: int, times: int
) -> None:
    source = await pair.store.put("b", "k", bytes(size))
    gate = Gate(os.pwritev)
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwritev", gate)
        async with asyncio.TaskGroup() as group:
            task = group.create_task(pair.copy(source, if_none_match="*"))
            await asyncio.to_thread(gate.reached.wait, 10)
            for _ in range(times):
                task.cancel()
                await asyncio.sleep(0)
            assert not task.done()
            gate.opened.set()
            with pytest.raises(asyncio.CancelledError):
                await task
    assert gate.returned.is_set()
    pair.assert_nothing_stored()


@dataclass
class HangingCopy:
    """A copy from one open driver to another, whose thread hangs until the gate is opened."""

    hot: LocalDriver
    cold: LocalDriver
    hot_store: Trove
    cold_store: Trove
    gate: Gate
    copying: asyncio.Task[ObjectInfo]


@asynccontextmanager
async def hanging_copy(
    roots: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[HangingCopy]:
    """Start a copy that hangs. Wait for it at the end. The block closes the source's driver."""
    hot, cold = (LocalDriver(root, fsync=False) for root in roots)
    async with Trove(cold) as cold_store:
        hot_store = await Trove(hot).open()
        for store in (hot_store, cold_store):
            await store.create_bucket("b")
        source = await hot_store.put("b", "k", b"body")
        gate = Gate(os.pread)
        monkeypatch.setattr(os, "pread", gate)
        options = CopyOptions(source=source, put=PutOptions())
        async with asyncio.TaskGroup() as group:
            copying = group.create_task(cold.copy_from(Origin(hot, "b", "k"), "b", "k", options))
            await asyncio.to_thread(gate.reached.wait, 10)
            yield HangingCopy(hot, cold, hot_store, cold_store, gate, copying)
        assert copying.result().size == 4
        assert await cold_store.read("b", "k") == b"body"
        await hot_store.aclose()


async def test_source_is_closed_only_after_the_copies_that_read_it(
    roots: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with hanging_copy(roots, monkeypatch) as one, asyncio.TaskGroup() as group:
        group.create_task(one.hot.aclose())
        for _ in range(10):
            await asyncio.sleep(0)
        assert one.hot._threads is not None
        assert one.hot._threads._final_job is None  # it would close the root
        assert not one.cold.copies_from(one.hot)  # no other copy starts
        one.gate.opened.set()


def open_files(root: Path) -> int:
    """Return the number of descriptors of this process that are open below a directory."""
    found = 0
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            found += descriptor.readlink().is_relative_to(root)
    return found


@pytest.mark.parametrize("end", ["timeout", "cancel"])
async def test_root_that_a_hanging_copy_reads_is_closed_after_it(
    end: str, roots: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_threads, "CLOSE_SECONDS", 0.05 if end == "timeout" else 30)
    async with hanging_copy(roots, monkeypatch) as one:
        closing = asyncio.get_running_loop().create_task(one.hot_store.aclose())
        if end == "cancel":
            await asyncio.sleep(0.02)
            closing.cancel()
            await asyncio.sleep(0.02)
            one.gate.opened.set()
            with pytest.raises(asyncio.CancelledError):
                await closing
        else:
            with pytest.raises(TimedOutError, match="file system has not answered"):
                await closing
            assert open_files(roots[0])
            one.gate.opened.set()
        await one.copying
        async with asyncio.timeout(10):
            while open_files(roots[0]):
                await asyncio.sleep(0.01)
        assert not list(roots[0].glob(".trove/staging/*"))
        await one.hot_store.aclose()
        assert one.hot._threads is not None
        assert not any(thread.is_alive() for thread in one.hot._threads._threads)


async def test_source_of_a_different_kind_is_refused(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Shouting(LocalDriver):
        """A driver whose bodies differ from its files."""

    shouting = Shouting(tmp_path / "shouting", fsync=False)
    closed = LocalDriver(tmp_path / "closed", fsync=False)
    async with Trove(shouting):
        info = await pair.store.put("b", "k", b"body")
        for source in (shouting, closed):
            assert not pair.cold.copies_from(source)
            options = CopyOptions(source=info, put=PutOptions())
            with pytest.raises(CannotCopyError):
                await pair.cold.copy_from(Origin(source, "b", "k"), "b", "k", options)
        assert not shouting.copies_from(pair.cold)
    monkeypatch.setattr(LocalDriver, "copies_from", lambda *_: True)

    async def refuse(*_: object) -> ObjectInfo:
        raise CannotCopyError("not possible")

    monkeypatch.setattr(LocalDriver, "copy_from", refuse)
    await pair.store.backend("cold").copy(
        "b", "k", "b", "k", source_backend="default"
    )  # through the store instead
    assert await pair.store.backend("cold").read("b", "k") == b"body"


async def test_symbolic_links_lead_neither_out_of_the_source_nor_of_the_destination(
    pair: Pair, roots: tuple[Path, Path], tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    source = await pair.store.put("b", "k", b"body")
    (roots[0] / "b/k").unlink()
    (roots[0] / "b/k").symlink_to(outside / "secret")
    with pytest.raises(ObjectChangedError):
        await pair.copy(source)
    with pytest.raises(ObjectNotFoundError):
        await pair.store.backend("cold").copy("b", "k", "b", "k", source_backend="default")
    (roots[0] / "b/k").unlink()
    source = await pair.store.put("b", "k", b"body")
    (roots[1] / "b/out").symlink_to(outside)
    await pair.copy(source, key="out/k")
    assert [path.name for path in outside.iterdir()] == ["secret"]
    assert await pair.store.backend("cold").read("b", "out/k") == b"body"


async def test_file_mode_is_that_of_the_destination(roots: tuple[Path, Path]) -> None:
    hot, cold = LocalDriver(roots[0], file_mode=0o644), LocalDriver(roots[1])
    async with Trove(hot, backends={"cold": cold}) as store:
        await store.create_bucket("b", backends="all")
        await store.put("b", "k", b"body")
        os.setxattr(roots[0] / "b/k", "user.other", b"1")
        await store.backend("cold").copy("b", "k", "b", "k", source_backend="default")
    assert (roots[1] / "b/k").stat().st_mode & 0o777 == 0o600
    assert os.listxattr(roots[1] / "b/k") == [XATTR]


async def test_copies_pass_through_mapped_and_read_only_layers(
    roots: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    hot, cold = (LocalDriver(root, fsync=False) for root in roots)
    target = Mapped(cold, into="all", prefix="p")
    reading = ReadOnly(Mapped(hot, buckets={"b": "physical"}))
    async with Trove(hot, backends={"reading": reading, "cold": target}) as store:
        await store.create_bucket("physical")
        await store.backend("cold").create_bucket("b")
        await store.put("physical", "k", b"body", metadata={"a": "b"})
        with monkeypatch.context() as patch:
            forbid_streams(patch)
            info = await store.backend("cold").copy("b", "k", "b", "new", source_backend="reading")
        assert (info.backend, info.bucket, info.key) == ("cold", "b", "new")
        assert info.metadata == {"a": "b"}
        assert await store.backend("cold").read("b", "new") == b"body"
        with pytest.raises(BucketNotFoundError) as caught:
            await store.backend("cold").copy("b", "k", "c", "new", source_backend="reading")
        assert caught.value.bucket == "c"


class Proxy:
    """A driver that forwards everything, as a user's driver that changes bodies would forward the rest."""

    def __init__(self, inner: LocalDriver) -> None:
        self.forwarded = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self.forwarded, name)


class MappedSubclass(Mapped):
    """A layer that may change bodies."""


@pytest.mark.parametrize("changed", ["source", "target"])
@pytest.mark.parametrize("kind", ["proxy", "layer"])
async def test_bodies_pass_through_a_driver_that_may_change_them(
    roots: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, kind: str, changed: str
) -> None:
    drivers: list[Any] = [LocalDriver(root, fsync=False) for root in roots]
    index = ["source", "target"].index(changed)
    local = drivers[index]
    drivers[index] = Proxy(local) if kind == "proxy" else MappedSubclass(local, into="all")
    calls: list[str] = []
    for method in ("get", "put"):
        real = getattr(LocalDriver, method)

        def call(self: Any, *args: Any, real: Any = real, method: str = method) -> Any:
            calls.append(method)
            return real(self, *args)

        monkeypatch.setattr(LocalDriver, method, call)
    async with Trove(drivers[0], backends={"cold": drivers[1]}) as store:
        await store.create_bucket("b", backends="all")
        await store.put("b", "k", b"body")
        calls.clear()
        await store.backend("cold").copy("b", "k", "b", "k", source_backend="default")
        assert calls == ["get", "put"]


@pytest.mark.parametrize("size", [SMALL, LARGE])
async def test_rebalance_moves_files_without_a_stream_and_keeps_a_damaged_one(
    roots: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    hot, cold = (LocalDriver(root, fsync=False) for root in roots)
    routes = [Route.prefix("", "cold")]
    async with Trove(hot, backends={"cold": cold}, routes=routes, locate="anywhere") as store:
        await store.create_bucket("b", backends="all")
        body = os.urandom(size)
        for key in ("damaged", "intact"):
            await store.backend("default").put("b", key, body)
        path = roots[0] / "b/damaged"
        status = path.stat()
        path.write_bytes(bytes(size))
        os.utime(path, ns=(status.st_mtime_ns, status.st_mtime_ns))
        with monkeypatch.context() as patch:
            forbid_streams(patch)
            report = await rebalance(store, "b")
        assert (report.changed, report.failed, report.bytes) == (1, 1, size)
        assert (roots[1] / "b/intact").read_bytes() == body
        assert not (roots[0] / "b/intact").exists()
        assert path.exists()
        assert not (roots[1] / "b/damaged").exists()
