"""Django's behaviour of file storages, on a store: in memory, in a local directory and on SeaweedFS."""

from __future__ import annotations

import gc
import io
import itertools
import os
import pickle
import subprocess
import sys
import threading
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from django.conf import settings

if not settings.configured:
    settings.configure(
        USE_TZ=True,
        TIME_ZONE="Asia/Tokyo",
        STATIC_URL="/static/",
        DEBUG=False,
        SECRET_KEY="test",  # noqa: S106 - a test
    )

from django.core.exceptions import ImproperlyConfigured, SuspiciousFileOperation
from django.core.files.base import ContentFile, File
from django.core.files.storage import storages
from django.core.files.uploadedfile import SimpleUploadedFile, UploadedFile
from django.db.migrations.writer import MigrationWriter
from django.test.utils import override_settings

from trove_async import NotSupportedError, blocking
from trove_async.drivers import LocalDriver, MemoryDriver, S3Driver
from trove_async.integrations.django import TroveManifestStorage, TroveStorage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from trove_async.testing.servers import S3Server

ROOT = Path(__file__).parents[2]
numbers = itertools.count()


@pytest.fixture(params=["memory", "local", "seaweed"])
def make_store(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[Callable[[], blocking.Trove]]:
    if request.param == "memory":
        driver: Any = MemoryDriver()
    elif request.param == "local":
        (tmp_path / "objects").mkdir()
        driver = LocalDriver(tmp_path / "objects")
    else:
        server: S3Server = request.getfixturevalue("seaweed")
        driver = S3Driver(
            endpoint_url=server.endpoint_url,
            region=server.region,
            access_key_id=server.access_key_id,
            secret_access_key=server.secret_access_key,
        )
    with closing(blocking.Trove(driver).start()) as store:
        store.create_bucket("media", exist_ok=True)
        yield lambda: store


@pytest.fixture
def location() -> str:
    return f"test{next(numbers)}-{os.getpid()}"


@pytest.fixture
def storage(make_store: Any, location: str) -> TroveStorage:
    return TroveStorage(
        store=make_store, bucket="media", location=location, base_url="https://cdn.example/media"
    )


@pytest.fixture
def overwriting(make_store: Any, location: str) -> TroveStorage:
    return TroveStorage(store=make_store, bucket="media", location=location, file_overwrite=True)


# -- saving ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        ContentFile(b"body"),
        ContentFile("body"),
        File(io.BytesIO(b"body")),
        SimpleUploadedFile("x.txt", b"body", "text/html"),
        io.BytesIO(b"body"),
    ],
)
def test_save_stores_content_of_every_kind(storage: TroveStorage, content: Any) -> None:
    name = storage.save("dir/file.txt", content)
    assert name == "dir/file.txt"
    assert storage.exists(name)
    assert storage.size(name) == 4
    with storage.open(name) as file:
        assert file.read() == b"body"
    assert storage.bucket.head(storage.key_of(name)).content_type in {"text/plain", None}


def test_save_streams_a_large_file_from_its_start(storage: TroveStorage, tmp_path: Path) -> None:
    body = os.urandom(3_000_000)
    (tmp_path / "large").write_bytes(body)
    with (tmp_path / "large").open("rb") as opened:
        opened.seek(1000)  # chunks() of Django rewinds a file
        storage.save("large.bin", File(opened))
    with storage.open("large.bin") as file:
        assert b"".join(file.chunks()) == body
        assert file.size == len(body)


def test_save_takes_the_name_of_the_content(storage: TroveStorage) -> None:
    assert storage.save(None, ContentFile(b"body", name="named.txt")) == "named.txt"


def test_save_finds_an_alternative_name(storage: TroveStorage) -> None:
    first = storage.save("name.tar.gz", ContentFile(b"1"))
    second = storage.save("name.tar.gz", ContentFile(b"2"))
    assert first == "name.tar.gz"
    assert second.startswith("name_")
    assert second.endswith(".tar.gz")
    assert (storage.open(first).read(), storage.open(second).read()) == (b"1", b"2")


@pytest.fixture
def raced(storage: TroveStorage, monkeypatch: pytest.MonkeyPatch) -> TroveStorage:
    """Return a storage to which another process stores each name that ends in ``race.txt`` first."""
    exists = type(storage).exists

    def exists_too_late(self: TroveStorage, name: str) -> bool:
        found = exists(self, name)
        if name.endswith("race.txt") and not found:
            self.bucket.put(self.key_of(name), b"theirs")
        return found

    monkeypatch.setattr(type(storage), "exists", exists_too_late)
    return storage


def test_save_keeps_a_file_that_is_stored_at_the_same_time(raced: TroveStorage) -> None:
    name = raced.save("race.txt", ContentFile(b"ours"))
    assert name != "race.txt"
    assert raced.open("race.txt").read() == b"theirs"
    assert raced.open(name).read() == b"ours"


def test_alternative_of_a_raced_name_respects_the_maximum_length(raced: TroveStorage) -> None:
    name = raced.save("another-race.txt", ContentFile(b"ours"), max_length=16)
    assert name != "another-race.txt"
    assert len(name) <= 16
    assert raced.open(name).read() == b"ours"


class _Unseekable(io.RawIOBase):
    """A stream such as a socket, which can be read once."""

    def __init__(self, body: bytes) -> None:
        self._body = io.BytesIO(body)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        return self._body.readinto(buffer)


def unseekable(body: bytes) -> Any:  # the types of Django require the methods of every file
    return _Unseekable(body)


def test_save_streams_a_file_that_cannot_seek(storage: TroveStorage) -> None:
    body = os.urandom(200_000)
    storage.save("stream.bin", File(unseekable(body), name="stream.bin"))
    assert storage.open("stream.bin").read() == body


@pytest.mark.parametrize("size", [1000, 200_000])
def test_raced_file_that_cannot_be_read_again_is_an_error(raced: TroveStorage, size: int) -> None:
    upload = UploadedFile(unseekable(bytes(size)), name="race.txt", size=size)
    with pytest.raises(FileExistsError):
        raced.save("race.txt", upload)
    assert raced.listdir("") == ([], ["race.txt"])
    assert raced.open("race.txt").read() == b"theirs"


def test_save_overwrites_if_it_may(overwriting: TroveStorage) -> None:
    for body in (b"1", b"2"):
        assert overwriting.save("file.txt", ContentFile(body)) == "file.txt"
    assert overwriting.open("file.txt").read() == b"2"


def test_available_name_is_truncated_to_the_maximum_length(
    storage: TroveStorage, overwriting: TroveStorage
) -> None:
    storage.save("name.txt", ContentFile(b""))
    for instance in (storage, overwriting):
        name = instance.get_available_name(f"{'n' * 30}.txt", max_length=20)
        assert len(name) == 20
        assert name.endswith(".txt")
    with pytest.raises(SuspiciousFileOperation):
        storage.get_available_name("name.txt", max_length=5)
    assert storage.get_available_name("free.txt", max_length=20) == "free.txt"


@pytest.mark.parametrize("name", ["../outside", "a/../../b", "/etc/passwd", "..", "a\\..\\..\\b"])
def test_name_that_leads_outside_is_refused(storage: TroveStorage, name: str) -> None:
    for call in (storage.exists, storage.open, storage.delete, storage.url, storage.size):
        with pytest.raises(SuspiciousFileOperation):
            call(name)
    with pytest.raises(SuspiciousFileOperation):
        storage.save(name, ContentFile(b""))


@pytest.mark.parametrize("name", ["", ".", "./", "a/.."])
def test_root_is_no_file(storage: TroveStorage, location: str, name: str) -> None:
    storage.bucket.put(location, b"an object of this key is outside of the storage")
    for call in (storage.exists, storage.open, storage.size, storage.get_modified_time):
        with pytest.raises(SuspiciousFileOperation):
            call(name)
    with pytest.raises(ValueError if not name else SuspiciousFileOperation):
        storage.delete(name)
    assert storage.bucket.exists(location)
    assert storage.listdir(name) == ([], [])
    assert storage.url(name) == f"https://cdn.example/media/{location}"


# -- opening -----------------------------------------------------------------------------------------


def test_file_is_read_and_reopened(storage: TroveStorage) -> None:
    storage.save("file.txt", ContentFile(b"line 1\nline 2\n"))
    file = storage.open("file.txt", "rb")
    assert file.name == "file.txt"
    assert list(file) == [b"line 1\n", b"line 2\n"]
    file.open()
    assert file.read(4) == b"line"
    file.close()
    assert file.closed
    assert file.open().read() == b"line 1\nline 2\n"
    file.close()


def test_text_is_written_and_read(storage: TroveStorage) -> None:
    with storage.open("text.txt", "w") as file:
        file.write("ä\nö\n")
    with storage.open("text.txt", "r") as stored:
        assert stored.read() == "ä\nö\n"
        assert stored.size == 6
    with storage.open("text.txt") as binary:
        assert binary.read() == "ä\nö\n".encode()


def test_written_file_is_stored_when_it_is_closed(storage: TroveStorage) -> None:
    file = storage.open("file.bin", "wb")
    file.write(b"abc")
    assert file.size == 3
    assert not storage.exists("file.bin")
    file.close()
    assert storage.open("file.bin").read() == b"abc"
    with storage.open("file.bin", "wb") as replaced:
        replaced.write(b"new")
    assert storage.open("file.bin").read() == b"new"


@pytest.mark.parametrize("mode", ["wb", "w"])
def test_exception_in_the_block_keeps_the_old_file(storage: TroveStorage, mode: str) -> None:
    storage.save("file.txt", ContentFile(b"old"))
    with pytest.raises(LookupError), storage.open("file.txt", mode) as file:
        file.write("new" if mode == "w" else b"new")
        raise LookupError
    assert storage.open("file.txt").read() == b"old"


@pytest.mark.parametrize("mode", ["w", "wb"])
def test_file_that_is_dropped_unclosed_is_not_stored(storage: TroveStorage, mode: str) -> None:
    file = storage.open("file.txt", mode)
    file.write("half" if mode == "w" else b"half")
    with pytest.warns(ResourceWarning, match="nothing is stored"):  # noqa: PT031 - both drop it
        del file
        gc.collect()
    assert not storage.exists("file.txt")


def test_exclusive_mode_never_replaces(storage: TroveStorage) -> None:
    with storage.open("file.txt", "x") as file:
        file.write("first")
    with pytest.raises(FileExistsError), storage.open("file.txt", "xb") as binary:
        binary.write(b"second")
    assert storage.open("file.txt").read() == b"first"


def test_missing_file_or_unknown_mode_is_an_error(storage: TroveStorage) -> None:
    with pytest.raises(FileNotFoundError):
        storage.open("missing")
    for call in (storage.size, storage.get_modified_time):
        with pytest.raises(FileNotFoundError):
            call("missing")
    with pytest.raises(ValueError, match="mode"):
        storage.open("missing", "ab")


# -- the other methods -------------------------------------------------------------------------------


def test_delete_is_idempotent(storage: TroveStorage) -> None:
    storage.save("file.txt", ContentFile(b""))
    storage.delete("file.txt")
    storage.delete("file.txt")
    assert not storage.exists("file.txt")
    with pytest.raises(ValueError, match="empty"):
        storage.delete("")


def test_listdir_returns_directories_and_files(storage: TroveStorage) -> None:
    for name in ("a.txt", "b.txt", "dir/c.txt", "dir/deep/d.txt", "other/e.txt"):
        storage.save(name, ContentFile(b""))
    directories, files = storage.listdir("")
    assert (sorted(directories), sorted(files)) == (["dir", "other"], ["a.txt", "b.txt"])
    assert storage.listdir("dir") == storage.listdir("dir/") == (["deep"], ["c.txt"])
    assert storage.listdir("missing") == ([], [])


@pytest.mark.parametrize("use_tz", [True, False])
def test_modified_time_is_that_of_the_settings(storage: TroveStorage, use_tz: bool) -> None:  # noqa: FBT001
    storage.save("file.txt", ContentFile(b""))
    with override_settings(USE_TZ=use_tz):
        modified = storage.get_modified_time("file.txt")
    assert (modified.tzinfo is not None) == use_tz
    if not use_tz:
        modified = modified.replace(tzinfo=UTC) - timedelta(hours=9)  # Asia/Tokyo
    assert abs(datetime.now(UTC) - modified) < timedelta(hours=1)


def test_url_is_below_the_base_url(storage: TroveStorage, location: str) -> None:
    base = f"https://cdn.example/media/{location}"
    assert storage.url("dir/file.txt") == f"{base}/dir/file.txt"
    assert storage.url("ä b?#:.txt") == f"{base}/%C3%A4%20b%3F%23%3A.txt"
    assert storage.url("dir\\file.txt") == f"{base}/dir/file.txt"


def test_url_is_presigned_without_a_base_url(make_store: Any, location: str) -> None:
    storage = TroveStorage(store=make_store, bucket="media", location=location, expires=60)
    name = storage.save("file.txt", ContentFile(b"body"))
    if not make_store().backends["default"].capabilities.presign:
        with pytest.raises(NotSupportedError):
            storage.url(name)
        return
    assert httpx.get(storage.url(name)).content == b"body"


def test_files_have_no_local_path_and_no_other_times(storage: TroveStorage) -> None:
    for call in (storage.path, storage.get_accessed_time, storage.get_created_time):
        with pytest.raises(NotImplementedError):
            call("file.txt")


def test_many_threads_use_one_storage(storage: TroveStorage) -> None:
    names: list[str] = []

    def work() -> None:
        names.extend(storage.save("same.txt", ContentFile(b"body")) for _ in range(5))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(names)) == 20


def test_manifest_names_files_by_their_content(make_store: Any, location: str) -> None:
    storage = TroveManifestStorage(
        store=make_store, bucket="media", location=location, base_url="https://cdn.example/"
    )
    storage.save("css/site.css", ContentFile(b"a { background: url(../img/a.png) }"))
    storage.save("img/a.png", ContentFile(b"image"))
    paths = {name: (storage, name) for name in ("css/site.css", "img/a.png")}
    processed = {name: hashed for name, hashed, _ in storage.post_process(paths)}
    assert processed["img/a.png"] == "img/a.78805a221a98.png"
    assert processed["css/site.css"] is not None
    with storage.open(processed["css/site.css"]) as file:
        assert b"a.78805a221a98.png" in file.read()
    assert storage.exists("staticfiles.json")
    again = TroveManifestStorage(
        store=make_store, bucket="media", location=location, base_url="https://cdn.example/"
    )
    assert again.url("img/a.png") == f"https://cdn.example/{location}/img/a.78805a221a98.png"


# -- settings ----------------------------------------------------------------------------------------


def make_memory_store() -> blocking.Trove:
    return blocking.Trove("mem://")  # not started: the storage starts it


def test_storages_of_the_settings_share_a_store(tmp_path: Path) -> None:
    backend = "trove_async.integrations.django.TroveStorage"
    options = {"url": f"file://{tmp_path}", "bucket": "media"}
    with override_settings(
        STORAGES={
            "default": {"BACKEND": backend, "OPTIONS": options},
            "other": {"BACKEND": backend, "OPTIONS": {**options, "location": "media"}},
        }
    ):
        default, other = storages["default"], storages["other"]
        assert isinstance(default, TroveStorage)
        assert isinstance(other, TroveStorage)
        with blocking.Trove(f"file://{tmp_path}") as store:
            store.create_bucket("media")
        other.save("file.txt", ContentFile(b"body"))
        assert default.exists("media/file.txt")
        assert default._started_store() is other._started_store()
        default._started_store().close()


def test_store_comes_from_a_function_that_is_named_by_its_path() -> None:
    sys.modules["trove_test_project"] = sys.modules[__name__]
    storage = TroveStorage(store="trove_test_project.make_memory_store", bucket="media")
    assert storage.bucket.name == "media"
    assert storage._started_store().started
    assert storage._started_store() is storage._started_store()
    storage._started_store().close()


def test_store_comes_from_a_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    configurations = []

    def from_config(configuration: Any) -> blocking.Trove:
        configurations.append(configuration)
        return make_memory_store()

    monkeypatch.setattr(blocking.Trove, "from_config", from_config, raising=False)
    storage = TroveStorage(config={"default": "mem://"}, bucket="media")
    assert not storage._started_store().list_buckets()
    assert configurations == [{"default": "mem://"}]
    storage._started_store().close()


@pytest.mark.parametrize(
    "options",
    [
        {"bucket": "media"},
        {"bucket": "media", "url": "mem://", "config": {}},
        {"bucket": "", "url": "mem://"},
        {"bucket": "media", "url": "mem://", "expires": -1},
        {"bucket": "media", "url": "mem://", "expires": 604_801},
        {"bucket": "media", "url": "mem://", "location": "../other"},
        {"bucket": "media", "url": "mem://", "location": "a/./b"},
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ImproperlyConfigured):
        TroveStorage(**options)


def test_open_file_cannot_be_pickled(storage: TroveStorage) -> None:
    storage.save("file.txt", ContentFile(b""))
    with (
        storage.open("file.txt") as file,
        pytest.raises(TypeError, match="open it in each process"),
    ):
        pickle.dumps(file)


def test_storage_is_pickled_and_deconstructed() -> None:
    storage = TroveStorage(url="mem://", bucket="media", location="dir")
    copy = pickle.loads(pickle.dumps(storage))  # noqa: S301 - our own object
    assert copy.key_of("a") == "dir/a"
    path, arguments, options = storage.deconstruct()  # type: ignore[attr-defined]  # added by Django's decorator
    assert path == "trove_async.integrations.django.TroveStorage"
    assert (arguments, options) == ((), {"url": "mem://", "bucket": "media", "location": "dir"})
    text, imports = MigrationWriter.serialize(storage)
    assert text.startswith("trove_async.integrations.django.TroveStorage(")
    assert imports == {"import trove_async.integrations.django"}


FORKED = """
import os, sys
from django.conf import settings
settings.configure(USE_TZ=True)
from django.core.files.base import ContentFile
from trove_async.integrations.django import TroveStorage

storage = TroveStorage(url=f"file://{sys.argv[1]}", bucket="media")
storage._started_store().create_bucket("media")
storage.save("parent.txt", ContentFile(b"parent"))
for number in range(2):
    pid = os.fork()
    if not pid:
        code = 1
        try:
            assert storage.open("parent.txt").read() == b"parent"
            storage.save(f"{number}.txt", ContentFile(b"child"))
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
assert sorted(storage.listdir("")[1]) == ["0.txt", "1.txt", "parent.txt"]
"""


def test_forked_worker_starts_a_store_of_its_own(tmp_path: Path) -> None:
    result = subprocess.run(  # noqa: S603 - constant arguments
        [sys.executable, "-c", FORKED, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")
