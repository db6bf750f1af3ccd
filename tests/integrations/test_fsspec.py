"""The filesystem for fsspec: what its own suites do not test."""

from __future__ import annotations

import asyncio
import gc
import io
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fsspec
import pytest
from fsspec.callbacks import Callback
from fsspec.core import OpenFile

from tests.integrations.backend_urls import s3_url
from trove_async import Event, ObjectNotFoundError, Trove
from trove_async.drivers import MemoryDriver
from trove_async.errors import ClosedError, ConfigError
from trove_async.integrations.fsspec import TroveFileSystem

if TYPE_CHECKING:
    from trove_async.testing.servers import S3Server

FACTORY = "tests.integrations.fsspec_factories:in_memory"
BUCKET = "bucket"


@pytest.fixture
def fs() -> Iterator[TroveFileSystem]:
    filesystem = TroveFileSystem(backend="mem://", skip_instance_cache=True)
    filesystem.mkdir(BUCKET)
    yield filesystem
    filesystem.close()


class Counted:
    """A filesystem over memory, and the operations that it has run."""

    def __init__(self) -> None:
        self.operations: list[str] = []
        self.fs = TroveFileSystem(store=self._make, skip_instance_cache=True)
        self.fs.mkdir(BUCKET)

    def _make(self) -> Trove:
        store = Trove(MemoryDriver())
        store.events.subscribe(self._listen)
        return store

    def _listen(self, event: Event) -> None:
        if event.kind == "attempt":
            self.operations.append(event.operation)

    def during(self, call: Callable[[], object]) -> list[str]:
        self.operations.clear()
        call()
        return list(self.operations)


@pytest.fixture
def counted() -> Iterator[Counted]:
    result = Counted()
    yield result
    result.fs.close()


# -- options ---------------------------------------------------------------------------------------


def test_entry_point_registers_protocol() -> None:
    assert fsspec.get_filesystem_class("trove") is TroveFileSystem


@pytest.mark.parametrize("options", [{}, {"backend": "mem://", "config": "trove.toml"}])
def test_exactly_one_source_of_the_store_is_required(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TROVE_CONFIG", raising=False)
    with pytest.raises(ConfigError, match="one of config=, store= and backend="):
        TroveFileSystem(**options)


def test_environment_variable_is_the_default_config(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TROVE_CONFIG", "first.toml")
    first = TroveFileSystem()
    monkeypatch.setenv("TROVE_CONFIG", "second.toml")
    assert TroveFileSystem() is not first
    assert first.storage_options["config"] == "first.toml"


def test_config_is_passed_to_from_config(monkeypatch: pytest.MonkeyPatch) -> None:
    configs: list[object] = []

    def from_config(config: object) -> Trove:
        configs.append(config)
        return Trove("mem://")

    monkeypatch.setattr(Trove, "from_config", from_config, raising=False)
    filesystem = TroveFileSystem(config={"default": "mem://"}, skip_instance_cache=True)
    assert filesystem.ls("") == []
    filesystem.close()
    assert configs == [{"default": "mem://"}]


@pytest.mark.parametrize("name", ["nowhere:store", "os:nothing", "os"])
def test_unknown_factory_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=r"package\.module:name'|cannot be imported"):
        TroveFileSystem(store=name)


def test_factory_must_return_a_store() -> None:
    filesystem = TroveFileSystem(
        store="tests.integrations.fsspec_factories:no_store", skip_instance_cache=True
    )
    with pytest.raises(TypeError, match="must return a Trove, got str"):
        filesystem.ls("")


def test_store_must_be_callable() -> None:
    with pytest.raises(TypeError, match="store must be a Trove, a function"):
        TroveFileSystem(store=3)  # type: ignore[arg-type]  # the error under test


def test_option_url_is_refused_with_advice() -> None:
    with pytest.raises(TypeError, match="pass backend="):
        TroveFileSystem(url="mem://")


def test_unknown_option_is_refused() -> None:
    with pytest.raises(TypeError, match="unknown options of a trove filesystem: anon"):
        TroveFileSystem(backend="mem://", anon=True)


# -- instances, loops and processes ----------------------------------------------------------------


def test_same_options_share_an_instance_and_its_store() -> None:
    first, second = (fsspec.filesystem("trove", store=FACTORY) for _ in range(2))
    assert first is second
    TroveFileSystem.clear_instance_cache()
    first.close()


async def test_two_stores_of_the_same_text_have_two_filesystems() -> None:
    stores = Trove("mem://"), Trove("mem://")
    assert repr(stores[0]) == repr(stores[1])
    first, second = (TroveFileSystem(store=store) for store in stores)
    assert first is not second
    assert first != second
    assert TroveFileSystem(store=stores[0]) is first
    TroveFileSystem.clear_instance_cache()


def test_construction_starts_no_loop_and_no_thread() -> None:
    program = """
import threading
from trove_async.integrations.fsspec import TroveFileSystem
TroveFileSystem(backend="mem://")
TroveFileSystem(backend="mem://", asynchronous=True)
print(threading.active_count())
"""
    assert run_python(program) == "1\n"


async def test_asynchronous_filesystem_uses_the_running_loop() -> None:
    async with Trove("mem://") as store:
        await store.create_bucket(BUCKET)
        filesystem = TroveFileSystem(store=store, asynchronous=True, skip_instance_cache=True)
        await filesystem._pipe_file(f"{BUCKET}/key", b"data")
        assert await store.read(BUCKET, "key") == b"data"
        assert filesystem.loop is None
        await filesystem.aclose()
        assert await store.exists(BUCKET, "key")  # it has not closed the user's store


def test_each_loop_has_its_own_store(tmp_path: Path) -> None:
    filesystem = TroveFileSystem(
        backend=f"file://{tmp_path}", asynchronous=True, skip_instance_cache=True
    )

    async def write(number: int) -> None:
        await filesystem._makedirs(BUCKET, exist_ok=True)
        await filesystem._pipe_file(f"{BUCKET}/{number}", b"data")
        await filesystem.aclose()

    for number in range(2):
        asyncio.run(write(number))
    blocking = TroveFileSystem(backend=f"file://{tmp_path}", skip_instance_cache=True)
    assert blocking.ls(BUCKET, detail=False) == ["bucket/0", "bucket/1"]
    blocking.close()


def test_concurrent_first_uses_open_one_store() -> None:
    made: list[Trove] = []

    def make() -> Trove:
        made.append(Trove("mem://"))
        return made[-1]

    filesystem = TroveFileSystem(store=make, skip_instance_cache=True)
    threads = [threading.Thread(target=filesystem.ls, args=("",)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    filesystem.close()
    assert len(made) == 1


def test_failed_opening_is_tried_again() -> None:
    stores = [Trove("file:///nonexistent/root?mkdir=false"), Trove("mem://")]
    filesystem = TroveFileSystem(store=lambda: stores.pop(0), skip_instance_cache=True)
    with pytest.raises(ValueError, match="nonexistent"):
        filesystem.ls("")
    assert filesystem.ls("") == []
    filesystem.close()


def test_pickled_filesystem_works_in_a_spawned_process(tmp_path: Path) -> None:
    filesystem = TroveFileSystem(backend=f"file://{tmp_path}", skip_instance_cache=True)
    filesystem.mkdir(BUCKET)
    filesystem.pipe(f"{BUCKET}/key", b"data")
    program = f"""
import pickle
print(pickle.loads({pickle.dumps(filesystem)!r}).cat("{BUCKET}/key").decode())
"""
    assert run_python(program) == "data\n"
    filesystem.close()


def test_filesystem_over_a_store_object_cannot_be_pickled() -> None:
    filesystem = TroveFileSystem(store=Trove("mem://"), skip_instance_cache=True)
    with pytest.raises(TypeError, match="cannot be sent to another process"):
        pickle.dumps(filesystem)


def test_forked_child_opens_its_own_store(tmp_path: Path) -> None:
    program = f"""
import os
from trove_async.integrations.fsspec import TroveFileSystem
fs = TroveFileSystem(backend="file://{tmp_path}")
fs.mkdir("{BUCKET}")
fs.pipe("{BUCKET}/key", b"data")
child = os.fork()
if not child:
    print("child", fs.cat("{BUCKET}/key").decode(), flush=True)
    os._exit(0)
os.waitpid(child, 0)
print("parent", fs.cat("{BUCKET}/key").decode())
"""
    assert run_python(program) == "child data\nparent data\n"


def test_forked_child_leaves_the_files_of_the_parent(tmp_path: Path) -> None:
    program = f"""
import os
from trove_async import ClosedError
from trove_async.integrations.fsspec import TroveFileSystem
fs = TroveFileSystem(backend="file://{tmp_path}")
fs.mkdir("{BUCKET}")
fs.pipe("{BUCKET}/key", b"0123456789" * 100_000)
reader = fs.open("{BUCKET}/key")
reader.read(500_000)
writers = [fs.open("{BUCKET}/" + name, "wb") for name in "abcd"]
for writer in writers:
    writer.write(b"one")
reader_of_child = fs.open("{BUCKET}/key")

def child():
    for call in (lambda: reader.read(500_000), lambda: writers[0].write(bytes(10**7)), writers[1].commit):
        try:
            call()
        except ClosedError as error:
            assert "fork" in str(error), error
        else:
            raise AssertionError("not refused")
    writers[2].close()
    writers[3].discard()
    writers[3].close()
    with writers[1], reader:
        pass
    global reader_of_child
    del reader_of_child
    assert fs.ls("{BUCKET}", detail=False) == ["{BUCKET}/key"]

pid = os.fork()
if not pid:
    try:
        child()
    except BaseException:
        import traceback
        traceback.print_exc()
        os._exit(1)
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
assert len(reader.read()) == 500_000
reader.close(), reader_of_child.close()
for writer in writers:
    writer.write(b"two")
    writer.close()
    assert fs.cat(writer.path) == b"onetwo"
print("end")
"""
    assert run_python(program) == "end\n"


def test_process_ends_without_closing_the_filesystem(seaweed: S3Server) -> None:
    program = f"""
from trove_async.integrations.fsspec import TroveFileSystem
fs = TroveFileSystem(backend={s3_url(seaweed)!r})
fs.makedirs("at-exit", exist_ok=True)
fs.pipe("at-exit/key", b"x" * 100_000)
print(len(fs.cat("at-exit/key")))
"""
    assert run_python(program) == "100000\n"


def test_process_ends_with_unclosed_files(seaweed: S3Server) -> None:
    program = f"""
import io, warnings
from trove_async.integrations.fsspec import TroveFileSystem
warnings.simplefilter("ignore", ResourceWarning)
fs = TroveFileSystem(backend={s3_url(seaweed)!r})
fs.makedirs("at-exit", exist_ok=True)
fs.pipe("at-exit/key", b"x" * 1_000_000)
reading = fs.open("at-exit/key")
reading.read(70_000), reading.read(70_000)
writing = fs.open("at-exit/new", "wb")
writing.write(b"data")
print("end")
"""
    assert run_python(program) == "end\n"


def test_closing_the_filesystem_aborts_open_files(fs: TroveFileSystem) -> None:
    file = fs.open(f"{BUCKET}/key", "wb")
    file.write(b"data")
    fs.close()
    with pytest.raises(ClosedError):
        file.close()


def test_unclosed_file_stores_nothing(fs: TroveFileSystem) -> None:
    file = fs.open(f"{BUCKET}/key", "wb")
    file.write(b"data")
    with pytest.warns(ResourceWarning, match="never closed, so nothing is stored"):
        del file  # its last reference
    assert not fs.exists(f"{BUCKET}/key")


def test_dropped_filesystem_closes_its_store() -> None:
    stores: list[Trove] = []

    def make() -> Trove:
        stores.append(Trove("mem://"))
        return stores[-1]

    filesystem = TroveFileSystem(store=make, skip_instance_cache=True)
    filesystem.ls("")
    loop = filesystem.loop
    assert loop is not None
    del filesystem
    gc.collect()

    async def is_closed() -> bool:
        try:
            await stores[0].list_buckets()
        except ClosedError:
            return True
        return False

    while not asyncio.run_coroutine_threadsafe(is_closed(), loop).result():
        pass


# -- information and listings ----------------------------------------------------------------------


def test_info_of_an_object_takes_one_head(counted: Counted) -> None:
    counted.fs.pipe(f"{BUCKET}/dir/key", b"data")
    assert counted.during(lambda: counted.fs.info(f"{BUCKET}/dir/key")) == ["head"]
    assert counted.during(lambda: counted.fs.isfile(f"{BUCKET}/dir/key")) == ["head"]
    assert counted.during(lambda: counted.fs.info(f"{BUCKET}/dir")) == ["head", "list"]
    assert counted.during(lambda: counted.fs.isdir(f"{BUCKET}/dir")) == ["list"]


def test_info_describes_root_bucket_directory_and_file(fs: TroveFileSystem) -> None:
    fs.pipe(f"trove://{BUCKET}/dir/key.csv", b"a,b")
    assert fs.info("")["type"] == "directory"
    assert fs.info(BUCKET) == {"name": BUCKET, "type": "directory", "size": 0}
    assert fs.info(f"{BUCKET}/dir/")["type"] == "directory"
    info = fs.info(f"/{BUCKET}/dir/key.csv")
    assert (info["name"], info["type"], info["size"]) == ("bucket/dir/key.csv", "file", 3)
    assert info["content_type"] == "text/csv"


@pytest.mark.parametrize("path", ["missing/key", "bucket/missing", "bucket/missing/x"])
def test_missing_path_is_file_not_found(fs: TroveFileSystem, path: str) -> None:
    assert not fs.exists(path)
    assert not fs.isfile(path)
    assert not fs.isdir(path)
    assert fs.find(path) == []
    for call in (fs.info, fs.ls, fs.cat_file, fs.open, fs.ukey, fs.modified):
        with pytest.raises(FileNotFoundError):
            call(path)
    with pytest.raises(FileNotFoundError):
        fs.ls(path, detail=False)


def test_missing_bucket_is_file_not_found(fs: TroveFileSystem) -> None:
    assert not fs.exists("missing")
    assert not fs.isdir("missing")
    assert fs.find("missing", withdirs=True) == []
    for call in (fs.info, fs.ls, fs.ukey, fs.rmdir):
        with pytest.raises(FileNotFoundError):
            call("missing")


@pytest.mark.parametrize("path", ["bucket/a/../b", "bucket/a\0b", ".."])
def test_path_that_no_object_can_have_does_not_exist(fs: TroveFileSystem, path: str) -> None:
    assert not fs.exists(path)
    assert not fs.isfile(path)
    assert not fs.isdir(path)


def test_ls_lists_buckets_directories_and_files(fs: TroveFileSystem) -> None:
    fs.pipe({f"{BUCKET}/dir/a": b"1", f"{BUCKET}/b": b"22"})
    assert fs.ls("trove://", detail=False) == [BUCKET]
    assert fs.ls(BUCKET, detail=False) == ["bucket/b", "bucket/dir"]
    assert {entry["name"]: entry["size"] for entry in fs.ls(BUCKET)} == {
        "bucket/b": 2,
        "bucket/dir": 0,
    }
    assert fs.ls(f"{BUCKET}/b", detail=False) == ["bucket/b"]
    assert [path for path, _, _ in fs.walk("")] == ["", "bucket", "bucket/dir"]


async def test_markers_of_directories_are_not_files() -> None:
    async with Trove("mem://") as store:
        await store.create_bucket(BUCKET)
        for key in ("dir/", "dir/a", "empty/", "odd//b"):
            await store.put(BUCKET, key, b"")
        filesystem = TroveFileSystem(store=store, asynchronous=True, skip_instance_cache=True)
        assert await filesystem._ls(f"{BUCKET}/dir", detail=False) == ["bucket/dir/a"]
        assert await filesystem._find(BUCKET) == ["bucket/dir/a", "bucket/odd//b"]
        assert await filesystem._find(BUCKET, withdirs=True) == [
            "bucket",
            "bucket/dir",
            "bucket/dir/a",
            "bucket/empty",
            "bucket/odd",
            "bucket/odd//b",
        ]
        await filesystem._rm(f"{BUCKET}/dir", recursive=True)
        assert [info.key for info in await store.list(BUCKET).all()] == ["empty/", "odd//b"]


def test_find_and_du_take_one_listing(counted: Counted) -> None:
    counted.fs.pipe({f"{BUCKET}/{a}/{b}/c": b"data" for a in range(3) for b in range(3)})
    assert counted.during(lambda: counted.fs.find(BUCKET)) == ["list"]
    assert counted.during(lambda: counted.fs.du(BUCKET)) == ["list"]
    assert counted.fs.du(BUCKET) == 36
    assert counted.fs.du(f"{BUCKET}/1", total=False) == {f"bucket/1/{b}/c": 4 for b in range(3)}


def test_find_descends_to_maxdepth(fs: TroveFileSystem) -> None:
    fs.pipe({f"{BUCKET}/a": b"", f"{BUCKET}/d/b": b"", f"{BUCKET}/d/e/c": b""})
    assert fs.find(BUCKET, maxdepth=1) == ["bucket/a"]
    assert fs.find(BUCKET, maxdepth=2) == ["bucket/a", "bucket/d/b"]
    assert fs.find(BUCKET, maxdepth=1, withdirs=True) == ["bucket", "bucket/a", "bucket/d"]
    assert fs.find("", maxdepth=2) == ["bucket/a"]
    assert fs.find("") == ["bucket/a", "bucket/d/b", "bucket/d/e/c"]
    assert fs.find(f"{BUCKET}/a") == ["bucket/a"]
    with pytest.raises(ValueError, match="maxdepth"):
        fs.find(BUCKET, maxdepth=0)


def test_glob_lists_only_the_level_and_prefix_that_it_names(counted: Counted) -> None:
    counted.fs.pipe({f"{BUCKET}/{a}{b}/x.csv": b"" for a in "pq" for b in range(3)})
    assert counted.during(lambda: counted.fs.glob(f"{BUCKET}/p*")) == ["list"]
    assert counted.fs.glob(f"{BUCKET}/p*") == [f"bucket/p{b}" for b in range(3)]
    assert counted.fs.glob(f"{BUCKET}/*1/*.csv") == ["bucket/p1/x.csv", "bucket/q1/x.csv"]
    assert counted.fs.glob("b*/q2/**") == ["bucket/q2", "bucket/q2/x.csv"]


def test_listings_are_not_cached_by_default(fs: TroveFileSystem) -> None:
    other = TroveFileSystem(store=FACTORY, skip_instance_cache=True)
    assert not other.dircache.use_listings_cache
    fs.pipe(f"{BUCKET}/a", b"")
    assert fs.ls(BUCKET, detail=False) == ["bucket/a"]
    assert len(fs.dircache) == 0


def test_cached_listings_are_invalidated_by_writes() -> None:
    counted = Counted()
    fs = TroveFileSystem(store=counted._make, use_listings_cache=True, skip_instance_cache=True)
    fs.mkdir(BUCKET)
    fs.pipe(f"{BUCKET}/d/a", b"")
    fs.ls(f"{BUCKET}/d")
    assert counted.during(lambda: fs.ls(f"{BUCKET}/d")) == []
    assert counted.during(lambda: fs.ls(f"{BUCKET}/d", refresh=True)) == ["list"]
    fs.pipe(f"{BUCKET}/d/b", b"")
    assert [entry["name"] for entry in fs.ls(f"{BUCKET}/d")] == ["bucket/d/a", "bucket/d/b"]
    fs.invalidate_cache()
    assert counted.during(lambda: fs.ls(f"{BUCKET}/d")) == ["list"]
    fs.close()
    counted.fs.close()


def test_ukey_and_checksum_change_with_the_content(fs: TroveFileSystem) -> None:
    fs.pipe(f"{BUCKET}/key", b"old")
    before = fs.ukey(f"{BUCKET}/key"), fs.checksum(f"{BUCKET}/key")
    assert before == (fs.ukey(f"{BUCKET}/key"), fs.checksum(f"{BUCKET}/key"))
    fs.pipe(f"{BUCKET}/key", b"new")
    assert fs.ukey(f"{BUCKET}/key") != before[0]
    assert fs.checksum(f"{BUCKET}/key") != before[1]
    assert fs.created(f"{BUCKET}/key") == fs.modified(f"{BUCKET}/key")
    with pytest.raises(IsADirectoryError):
        fs.modified(BUCKET)


# -- reading ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("start", [None, 0, 3, 12, -4, -20])
@pytest.mark.parametrize("end", [None, 0, 2, 6, 99, -2, -20])
def test_bounds_of_cat_file_are_those_of_a_slice(
    fs: TroveFileSystem, start: int | None, end: int | None
) -> None:
    data = b"0123456789"
    fs.pipe(f"{BUCKET}/key", data)
    assert fs.cat_file(f"{BUCKET}/key", start, end) == data[start:end]
    assert fs.cat_ranges([f"{BUCKET}/key"] * 2, [start, 1], [end, 3]) == [data[start:end], b"12"]


def test_cat_takes_one_get_an_object(counted: Counted) -> None:
    contents = {f"{BUCKET}/{number}": b"%d" % number for number in range(20)}
    counted.fs.pipe(contents)
    assert counted.during(lambda: counted.fs.cat(list(contents))) == ["get"] * 20
    assert counted.fs.cat(list(contents)) == contents
    assert counted.during(lambda: counted.fs.cat_file(f"{BUCKET}/1", 0, 1)) == ["get"]
    assert counted.during(lambda: counted.fs.cat_file(f"{BUCKET}/1", -1)) == ["get"]


def test_cat_reports_missing_objects_as_asked(fs: TroveFileSystem) -> None:
    fs.pipe(f"{BUCKET}/a/b", b"data")
    paths = [f"{BUCKET}/a/b", f"{BUCKET}/missing"]
    with pytest.raises(FileNotFoundError):
        fs.cat(paths)
    assert fs.cat(paths, on_error="omit") == {"bucket/a/b": b"data"}
    assert isinstance(fs.cat(paths, on_error="return")["bucket/missing"], FileNotFoundError)
    assert fs.cat(paths[1], on_error="omit") == {}
    assert fs.cat(BUCKET, recursive=True) == {"bucket/a/b": b"data"}


def test_distant_ranges_of_one_object_are_of_one_version(counted: Counted) -> None:
    data = os.urandom(1_000_000)
    counted.fs.pipe(f"{BUCKET}/a", data)
    paths = [f"{BUCKET}/a"] * 3
    operations = counted.during(
        lambda: counted.fs.cat_ranges(paths, [0, 500, 900_000], [9, 600, None])
    )
    assert operations == ["head", "get", "get"]
    contents = counted.fs.cat_ranges(paths, [0, 500, 900_000], [9, 600, None])
    assert contents == [data[:9], data[500:600], data[900_000:]]


def test_neighbouring_ranges_share_a_request(counted: Counted) -> None:
    counted.fs.pipe({f"{BUCKET}/a": b"0123456789", f"{BUCKET}/b": b"abcdefghij"})
    paths = [f"{BUCKET}/a", f"{BUCKET}/b", f"{BUCKET}/a"]
    operations = counted.during(lambda: counted.fs.cat_ranges(paths, [0, 1, 5], [2, 3, 7]))
    assert operations == ["get", "get"]
    assert counted.fs.cat_ranges(paths, [0, 1, 5], [2, 3, 7]) == [b"01", b"bc", b"56"]
    assert counted.fs.cat_ranges(paths[:2], 2, 4) == [b"23", b"cd"]


def test_cat_ranges_returns_or_raises_errors(fs: TroveFileSystem) -> None:
    fs.pipe(f"{BUCKET}/a", b"0123456789")
    paths = [f"{BUCKET}/missing", f"{BUCKET}/a", f"{BUCKET}/missing", BUCKET]
    results = fs.cat_ranges(paths, 0, 2)
    assert [type(result) for result in results] == [
        ObjectNotFoundError,
        bytes,
        ObjectNotFoundError,
        IsADirectoryError,
    ]
    with pytest.raises(FileNotFoundError):
        fs.cat_ranges(paths[:3], 0, 2, on_error="raise")
    with pytest.raises(ValueError, match="same length"):
        fs.cat_ranges(paths, [0], [1])
    with pytest.raises(TypeError):
        fs.cat_ranges("bucket/a", [0], [1])
    with pytest.raises(NotImplementedError):
        fs.cat_ranges(paths, 0, 1, max_gap=10)


def test_get_file_takes_one_request_and_reports_progress(counted: Counted, tmp_path: Path) -> None:
    counted.fs.pipe(f"{BUCKET}/key", b"x" * 3_000_000)
    callback = Callback()
    target = tmp_path / "file"
    operations = counted.during(
        lambda: counted.fs.get_file(f"{BUCKET}/key", str(target), callback=callback)
    )
    assert operations == ["get"]
    assert (callback.size, callback.value) == (3_000_000, 3_000_000)
    assert target.read_bytes() == b"x" * 3_000_000
    buffer = io.BytesIO()
    counted.fs.get_file(f"{BUCKET}/key", buffer)
    assert len(buffer.getvalue()) == 3_000_000


def test_get_of_a_missing_object_leaves_the_local_file(fs: TroveFileSystem, tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_bytes(b"old")
    with pytest.raises(FileNotFoundError):
        fs.get_file(f"{BUCKET}/missing", str(target))
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


# -- writing ---------------------------------------------------------------------------------------


def test_put_file_reports_progress_and_passes_options(fs: TroveFileSystem, tmp_path: Path) -> None:
    source = tmp_path / "file"
    source.write_bytes(b"x" * 100_000)
    callback = Callback()
    fs.put_file(str(source), f"{BUCKET}/key", callback=callback, content_type="text/x-test")
    assert (callback.size, callback.value) == (100_000, 100_000)
    assert fs.info(f"{BUCKET}/key")["content_type"] == "text/x-test"
    with pytest.raises(FileExistsError):
        fs.put_file(str(source), f"{BUCKET}/key", mode="create")
    with pytest.raises(ValueError, match="mode"):
        fs.pipe_file(f"{BUCKET}/key", b"", mode="append")


def test_errors_of_writes_are_builtin(fs: TroveFileSystem) -> None:
    fs.pipe(f"{BUCKET}/key", b"")
    with pytest.raises(FileNotFoundError):
        fs.pipe("missing/key", b"")
    with pytest.raises(FileExistsError):
        fs.mkdir(BUCKET)
    with pytest.raises(FileExistsError):
        fs.makedirs(BUCKET)
    with pytest.raises(IsADirectoryError):
        fs.pipe(BUCKET, b"")
    with pytest.raises(IsADirectoryError):
        fs.rm(BUCKET)
    with pytest.raises(OSError, match="must be empty"):
        fs.rmdir(BUCKET)
    with pytest.raises(NotADirectoryError):
        fs.rmdir(f"{BUCKET}/key")
    with pytest.raises(FileNotFoundError):
        fs.rm(f"{BUCKET}/missing", recursive=True)
    with pytest.raises(FileNotFoundError):
        fs.cp_file(f"{BUCKET}/missing", f"{BUCKET}/copy")
    with pytest.raises(PermissionError):
        fs.rm("", recursive=True)


def test_buckets_are_made_and_removed(fs: TroveFileSystem) -> None:
    fs.makedirs(BUCKET, exist_ok=True)
    fs.mkdir(f"{BUCKET}/dir")  # creates no object
    fs.makedirs(f"{BUCKET}/dir", exist_ok=True)
    assert fs.find(BUCKET) == []
    with pytest.raises(FileNotFoundError):
        fs.rmdir(f"{BUCKET}/dir")
    fs.rmdir(BUCKET)
    assert fs.ls("") == []
    fs.mkdir(BUCKET)
    fs.pipe(f"{BUCKET}/a/b", b"")
    with pytest.raises(FileExistsError):
        fs.mkdir(f"{BUCKET}/a")
    with pytest.raises(OSError, match="not empty"):
        fs.rmdir(f"{BUCKET}/a")
    fs.rm(BUCKET, recursive=True)
    assert not fs.exists(BUCKET)


def test_rm_deletes_in_bulk(counted: Counted) -> None:
    fs = counted.fs
    fs.pipe({f"{BUCKET}/d/{number}": b"" for number in range(10)} | {f"{BUCKET}/d-x": b""})
    operations = counted.during(lambda: fs.rm(f"{BUCKET}/d", recursive=True))
    assert operations.count("delete_many") == 1
    assert fs.find(BUCKET) == ["bucket/d-x"]
    fs.pipe({f"{BUCKET}/d/{number}": b"" for number in range(3)})
    fs.rm([f"{BUCKET}/d/0", f"{BUCKET}/d-x"])
    assert fs.find(BUCKET) == ["bucket/d/1", "bucket/d/2"]
    fs.pipe(f"{BUCKET}/d/e/f", b"")
    fs.rm(f"{BUCKET}/d", recursive=True, maxdepth=1)
    assert fs.find(BUCKET) == ["bucket/d/e/f"]
    fs.rm_file(f"{BUCKET}/d/e/f")
    assert fs.find(BUCKET) == []


def test_mv_moves_files_and_trees(counted: Counted) -> None:
    fs = counted.fs
    fs.pipe({f"{BUCKET}/d/a": b"1", f"{BUCKET}/d/e/b": b"2"})
    operations = counted.during(lambda: fs.mv(f"{BUCKET}/d/a", f"{BUCKET}/c"))
    assert {"copy", "delete"} <= set(operations)
    assert "put" not in operations
    assert fs.cat(f"{BUCKET}/c") == b"1"
    fs.mv(f"{BUCKET}/d", f"{BUCKET}/new", recursive=True)
    assert fs.find(BUCKET) == ["bucket/c", "bucket/new/e/b"]
    fs.mv(f"{BUCKET}/c", f"{BUCKET}/c")
    assert fs.cat(f"{BUCKET}/c") == b"1"
    with pytest.raises(FileNotFoundError):
        fs.mv(f"{BUCKET}/missing", f"{BUCKET}/x")


@pytest.mark.parametrize("target", [f"{BUCKET}/into/", [f"{BUCKET}/into/x", f"{BUCKET}/into/x"]])
def test_mv_of_two_files_to_one_path_is_refused(fs: TroveFileSystem, target: Any) -> None:
    fs.pipe({f"{BUCKET}/a/x": b"1", f"{BUCKET}/b/x": b"2"})
    with pytest.raises(ValueError, match="would be moved to"):
        fs.mv([f"{BUCKET}/a/x", f"{BUCKET}/b/x"], target)
    assert fs.find(BUCKET) == [f"{BUCKET}/a/x", f"{BUCKET}/b/x"]


def test_mv_moves_a_list_of_trees(fs: TroveFileSystem) -> None:
    fs.pipe({f"{BUCKET}/a/x/1": b"1", f"{BUCKET}/b/x/2": b"2"})
    fs.mv([f"{BUCKET}/a", f"{BUCKET}/b"], f"{BUCKET}/into/", recursive=True)
    assert fs.find(BUCKET) == [f"{BUCKET}/into/1", f"{BUCKET}/into/2"]


@pytest.mark.parametrize(("key", "matched"), [("a[1]", "a1"), ("a?", "ab"), ("a*", "abc")])
def test_key_with_wildcards_stands_for_itself(fs: TroveFileSystem, key: str, matched: str) -> None:
    literal, other = f"{BUCKET}/{key}", f"{BUCKET}/{matched}"
    fs.pipe({literal: b"literal", other: b"matched"})
    assert fs.cat(literal) == b"literal"
    fs.cp(literal, f"{BUCKET}/copy")
    fs.mv(f"trove://{literal}", f"{BUCKET}/into/")
    assert fs.find(BUCKET) == sorted([other, f"{BUCKET}/copy", f"{BUCKET}/into/{key}"])
    fs.mv(f"{BUCKET}/into/{key}", literal)
    fs.rm(literal)
    assert fs.find(BUCKET) == [other, f"{BUCKET}/copy"]
    fs.pipe(f"{literal}/below", b"")
    fs.pipe(literal, b"literal")
    fs.rm([literal, f"{BUCKET}/copy"], recursive=True)
    assert fs.find(BUCKET) == [other]
    assert list(fs.cat(f"{BUCKET}/{key}").values()) == [b"matched"]


def test_touch_creates_truncates_or_renews(fs: TroveFileSystem) -> None:
    fs.touch(f"{BUCKET}/key", truncate=False)
    assert fs.cat(f"{BUCKET}/key") == b""
    fs.pipe(f"{BUCKET}/key", b"data")
    before = fs.modified(f"{BUCKET}/key")
    fs.touch(f"{BUCKET}/key", truncate=False)
    assert fs.cat(f"{BUCKET}/key") == b"data"
    assert fs.modified(f"{BUCKET}/key") >= before
    fs.touch(f"{BUCKET}/key")
    assert fs.cat(f"{BUCKET}/key") == b""


def test_sign_returns_urls_where_the_backend_can(fs: TroveFileSystem, seaweed: S3Server) -> None:
    with pytest.raises(NotImplementedError):
        fs.sign(f"{BUCKET}/key")
    with pytest.raises(ValueError, match="method"):
        fs.sign(f"{BUCKET}/key", method="POST")
    remote = TroveFileSystem(backend=s3_url(seaweed), skip_instance_cache=True)
    assert remote.sign("bucket/key", expiration=60).startswith(seaweed.endpoint_url)
    assert "X-Amz-Expires=60" in remote.sign("bucket/key", expiration=60, method="PUT")
    remote.close()


# -- files -----------------------------------------------------------------------------------------


def test_open_for_reading_takes_one_get(counted: Counted) -> None:
    data = os.urandom(1_000_000)
    counted.fs.pipe(f"{BUCKET}/key", data)

    def read() -> None:
        with counted.fs.open(f"{BUCKET}/key") as file:
            assert file.size == len(data)
            assert file.info()["size"] == len(data)
            assert file.read(1000) == data[:1000]

    assert counted.during(read) == ["get"]


def test_random_reads_request_their_bytes_alone() -> None:
    sizes: list[int] = []

    def make() -> Trove:
        store = Trove(MemoryDriver())
        store.events.subscribe(
            lambda event: sizes.append(event.size) if event.kind == "body" else None
        )
        return store

    fs = TroveFileSystem(store=make, skip_instance_cache=True)
    fs.mkdir(BUCKET)
    fs.pipe(f"{BUCKET}/key", bytes(2_000_000))
    with fs.open(f"{BUCKET}/key") as file:
        sizes.clear()
        for position in (1_500_000, 300_000, 900_000):
            file.seek(position)
            assert len(file.read(100)) == 100
    fs.close()
    assert sizes == [100, 100, 100]


@pytest.mark.parametrize("cache_type", ["trove", "none", "readahead", "bytes", "blockcache", "all"])
def test_caches_return_the_bytes_of_the_object(fs: TroveFileSystem, cache_type: str) -> None:
    data = os.urandom(1_000_000)
    fs.pipe(f"{BUCKET}/key", data)
    with fs.open(f"{BUCKET}/key", cache_type=cache_type, block_size=10_000) as file:
        assert file.read(10) == data[:10]
        for position, size in (
            (10, 8000),
            (8010, 8000),
            (500_000, 5),
            (499_000, 2000),
            (999_990, 99),
        ):
            file.seek(position)
            assert file.read(size) == data[position : position + size]
        file.seek(0)
        assert file.read() == data
        assert file.read(1) == b""


def test_lines_of_a_text_file(fs: TroveFileSystem) -> None:
    lines = [f"line {number}\n" for number in range(50_000)]
    with fs.open(f"{BUCKET}/key", "w") as file:
        file.writelines(lines)
    with fs.open(f"{BUCKET}/key", "r") as file:
        assert list(file) == lines
    with fs.open(f"{BUCKET}/key", "rb") as file:
        assert file.readline() == b"line 0\n"


def test_open_file_is_of_one_version(fs: TroveFileSystem) -> None:
    fs.pipe(f"{BUCKET}/key", b"a" * 1_000_000)
    with fs.open(f"{BUCKET}/key") as file:
        file.read(10)
        fs.pipe(f"{BUCKET}/key", b"b" * 1_000_000)
        file.seek(500_000)
        with pytest.raises(OSError, match="replaced or deleted"):
            file.read(10)


def test_pickled_file_continues_at_its_position(tmp_path: Path) -> None:
    fs = TroveFileSystem(backend=f"file://{tmp_path}")
    fs.mkdir(BUCKET)
    fs.pipe(f"{BUCKET}/key", b"0123456789")
    with fs.open(f"{BUCKET}/key") as file:
        file.read(4)
        with pickle.loads(pickle.dumps(file)) as copy:  # noqa: S301 - our own bytes
            assert copy.read(2) == b"45"
            assert copy == file
    TroveFileSystem.clear_instance_cache()
    fs.close()


def test_write_in_pieces_stores_on_close(fs: TroveFileSystem) -> None:
    with fs.open(f"{BUCKET}/key", "wb", block_size=1000, content_type="text/x-test") as file:
        for _ in range(100):
            file.write(b"x" * 999)
        assert not fs.exists(f"{BUCKET}/key")
        assert file.tell() == 99_900
    assert fs.info(f"{BUCKET}/key")["size"] == 99_900
    assert fs.info(f"{BUCKET}/key")["content_type"] == "text/x-test"


def test_exception_in_with_block_stores_nothing(fs: TroveFileSystem) -> None:
    fs.pipe(f"{BUCKET}/key", b"old")
    with pytest.raises(RuntimeError), fs.open(f"{BUCKET}/key", "wb") as file:
        file.write(b"new")
        raise RuntimeError
    assert fs.cat(f"{BUCKET}/key") == b"old"


def open_file(fs: TroveFileSystem, mode: str, compression: str | None = None) -> OpenFile:
    """Return what `fsspec.open` returns for this filesystem."""
    return OpenFile(fs, f"{BUCKET}/key", mode, compression=compression)


WRAPPED: dict[str, Callable[[TroveFileSystem], Any]] = {
    "text": lambda fs: fs.open(f"{BUCKET}/key", "w"),
    "wrapper": lambda fs: io.TextIOWrapper(fs.open(f"{BUCKET}/key", "wb")),
    "fsspec.open": lambda fs: open_file(fs, "w"),
    "compressed": lambda fs: open_file(fs, "wt", "gzip"),
}


@pytest.mark.parametrize("opened", WRAPPED.values(), ids=WRAPPED)
def test_exception_in_the_block_of_a_wrapper_stores_nothing(
    fs: TroveFileSystem, opened: Callable[[TroveFileSystem], Any]
) -> None:
    fs.pipe(f"{BUCKET}/key", b"old")
    with pytest.raises(LookupError), opened(fs) as file:
        file.write("new")
        raise LookupError
    assert fs.cat(f"{BUCKET}/key") == b"old"
    with opened(fs) as file:
        file.write("new")
    assert fs.cat(f"{BUCKET}/key") != b"old"


def test_file_that_is_opened_in_an_except_block_is_stored_there(fs: TroveFileSystem) -> None:
    outside = fs.open(f"{BUCKET}/outside", "wb")
    try:
        raise LookupError
    except LookupError:
        file = fs.open(f"{BUCKET}/key", "w")
        file.write("report")
        file.close()
        with outside:
            outside.write(b"report")
    assert fs.cat([f"{BUCKET}/key", f"{BUCKET}/outside"]) == {
        f"{BUCKET}/key": b"report",
        f"{BUCKET}/outside": b"report",
    }


def test_dropped_text_file_stores_nothing(fs: TroveFileSystem) -> None:
    file = open_file(fs, "w").open()
    file.write("data")
    with pytest.warns(ResourceWarning, match="never closed, so nothing is stored"):
        del file  # its last reference
    assert not fs.exists(f"{BUCKET}/key")


def test_dropped_wrapper_leaves_the_file_open(fs: TroveFileSystem) -> None:
    file = fs.open(f"{BUCKET}/key", "wb")
    text = io.TextIOWrapper(file)
    text.write("one")
    del text
    file.write(b"two")
    file.close()
    assert fs.cat(f"{BUCKET}/key") == b"onetwo"


def test_transaction_stores_files_that_are_not_closed(fs: TroveFileSystem) -> None:
    with fs.transaction:
        fs.open(f"{BUCKET}/key", "w").write("data")
    assert fs.cat(f"{BUCKET}/key") == b"data"


def test_exclusive_file_loses_against_a_later_writer(fs: TroveFileSystem) -> None:
    file = fs.open(f"{BUCKET}/key", "xb")
    file.write(b"mine")
    fs.pipe(f"{BUCKET}/key", b"theirs")
    with pytest.raises(FileExistsError):
        file.close()
    assert file.closed
    assert fs.cat(f"{BUCKET}/key") == b"theirs"


def test_append_stores_old_and_new_content(fs: TroveFileSystem) -> None:
    for piece in (b"one", b"two"):
        with fs.open(f"{BUCKET}/key", "ab") as file:
            file.write(piece)
    with fs.open(f"{BUCKET}/key", "ab") as file:
        assert file.tell() == 6
    assert fs.cat(f"{BUCKET}/key") == b"onetwo"


def test_transaction_stores_all_files_at_its_end(fs: TroveFileSystem) -> None:
    with fs.transaction:
        for name in ("a", "b"):
            with fs.open(f"{BUCKET}/{name}", "wb") as file:
                file.write(b"data")
        assert fs.find(BUCKET) == []
    assert fs.find(BUCKET) == ["bucket/a", "bucket/b"]


def test_failed_transaction_stores_nothing(fs: TroveFileSystem) -> None:
    with pytest.raises(RuntimeError), fs.transaction:
        with fs.open(f"{BUCKET}/a", "wb") as file:
            file.write(b"data")
        raise RuntimeError
    assert fs.find(BUCKET) == []


def test_unknown_mode_is_refused(fs: TroveFileSystem) -> None:
    with pytest.raises(ValueError, match="mode"):
        fs.open(f"{BUCKET}/key", "r+b")


async def test_open_async_returns_files_with_coroutines() -> None:
    async with Trove("mem://") as store:
        await store.create_bucket(BUCKET)
        filesystem = TroveFileSystem(store=store, asynchronous=True, skip_instance_cache=True)
        for mode, data in (("xb", b"0123"), ("ab", b"456"), ("ab", b"789")):
            async with await filesystem.open_async(f"trove://{BUCKET}/key", mode) as file:
                assert await file.write(data) == len(data)
                await file.flush()
        reader = await filesystem.open_async(f"{BUCKET}/key")
        assert (reader.size, reader.tell()) == (10, 0)
        assert await reader.read(4) == b"0123"
        assert reader.seek(-2, 2) == 8
        assert await reader.read() == b"89"
        assert "bucket/key" in repr(reader)
        await reader.close()
        with pytest.raises(ValueError, match="closed"):
            await reader.read()
        with pytest.raises(FileExistsError):
            await filesystem.open_async(f"{BUCKET}/key", "xb")
        with pytest.raises(FileNotFoundError):
            await filesystem.open_async(f"{BUCKET}/missing")
        with pytest.raises(ValueError, match="mode"):
            await filesystem.open_async(f"{BUCKET}/key", "r+b")


async def test_exception_discards_an_async_file() -> None:
    async with Trove("mem://") as store:
        await store.create_bucket(BUCKET)
        filesystem = TroveFileSystem(store=store, asynchronous=True, skip_instance_cache=True)
        file = await filesystem.open_async(f"{BUCKET}/key", "wb")
        with pytest.raises(RuntimeError):
            async with file:
                await file.write(b"data")
                raise RuntimeError
        with pytest.raises(ValueError, match="closed"):
            await file.write(b"")
        assert not await filesystem._exists(f"{BUCKET}/key")


def test_mapper_reads_and_writes_keys(fs: TroveFileSystem) -> None:
    mapper = fs.get_mapper(f"{BUCKET}/root")
    mapper["a/b"] = b"1"
    mapper["c"] = b"2"
    assert dict(mapper) == {"a/b": b"1", "c": b"2"}
    del mapper["c"]
    assert list(mapper) == ["a/b"]
    with pytest.raises(KeyError):
        mapper["missing"]


def test_chained_cache_stores_files_locally(tmp_path: Path) -> None:
    options: dict[str, Any] = {"backend": f"file://{tmp_path}/root"}
    (tmp_path / "root").mkdir()
    fs = TroveFileSystem(**options)
    fs.mkdir(BUCKET)
    fs.pipe(f"{BUCKET}/key", b"data")
    cache = {"cache_storage": str(tmp_path / "cache")}
    for kind in ("simplecache", "filecache"):
        with fsspec.open(f"{kind}::trove://{BUCKET}/key", trove=options, **{kind: cache}) as file:
            assert file.read() == b"data"
    fs.close()
    TroveFileSystem.clear_instance_cache()


def test_sizes_of_encrypted_objects_are_those_of_their_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TROVE_TEST_ROOT", str(tmp_path))
    fs = TroveFileSystem(
        store="tests.integrations.fsspec_factories:routed_and_encrypted", skip_instance_cache=True
    )
    fs.mkdir(BUCKET, backends="all")
    with fs.open(f"{BUCKET}/cold/a", "wb") as file:
        file.write(b"x" * 1000)
    assert fs.info(f"{BUCKET}/cold/a")["backend"] == "cold"
    assert [entry["size"] for entry in fs.ls(f"{BUCKET}/cold")] == [1000]
    assert fs.du(BUCKET) == 1000
    assert fs.cat_ranges([f"{BUCKET}/cold/a"] * 2, [0, 990], [5, 2000]) == [b"x" * 5, b"x" * 10]
    fs.close()


def run_python(program: str) -> str:
    """Run a program with warnings as errors. It fails if it ends with an error or prints one."""
    process = subprocess.run(  # noqa: S603 - constant arguments
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    assert (process.returncode, process.stderr) == (0, "")
    return process.stdout
