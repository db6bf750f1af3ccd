"""Objects as files of the standard library: buffered, seekable, and stored when they are closed."""

from __future__ import annotations

import csv
import gc
import io
import os
import pickle
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from tests.fakes import Fake, content
from trove_async import (
    ClosedError,
    ObjectChangedError,
    ObjectExistsError,
    ObjectNotFoundError,
    UnavailableError,
    blocking,
)
from trove_async.models import MiB

if TYPE_CHECKING:
    from collections.abc import Callable

BODY = content(3 * MiB + 5)


@pytest.fixture
def data(store: blocking.Trove) -> blocking.Bucket:
    data = store.bucket("data")
    data.put("key", BODY)
    return data


# -- reading -----------------------------------------------------------------------------------------


def test_read_file_is_a_buffered_reader_of_the_standard_library(data: blocking.Bucket) -> None:
    with data.open("key", "rb") as file:
        assert isinstance(file, io.BufferedReader)
        assert (file.name, file.mode, file.info.size) == ("key", "rb", len(BODY))
        assert file.readable()
        assert file.seekable()
        assert not file.writable()
        assert file.read(5) == BODY[:5]
        assert file.peek(1)[:1] == BODY[5:6]
        assert file.tell() == 5
        assert file.seek(-5, os.SEEK_END) == len(BODY) - 5
        assert file.read() == BODY[-5:]
        assert file.read() == b""
        file.seek(1 * MiB)
        buffer = bytearray(100_000)
        assert file.readinto(buffer) == 100_000
        assert buffer == BODY[1 * MiB : 1 * MiB + 100_000]
        file.seek(0)
        assert file.read() == BODY
        with pytest.raises(io.UnsupportedOperation):
            file.write(b"")
    with pytest.raises(ValueError, match="closed"):
        file.read()


def test_lines_are_iterated(data: blocking.Bucket) -> None:
    lines = [f"line {number}\n".encode() for number in range(50_000)]
    data.put("lines", b"".join(lines))
    with data.open("lines", buffer_size=1000) as file:
        assert list(file) == lines


def test_libraries_read_and_write_archives_and_tables(data: blocking.Bucket) -> None:
    with data.open("archive.zip", "wb") as file, zipfile.ZipFile(file, "w") as archive:
        for number in range(20):
            archive.writestr(f"{number}.txt", f"text {number}" * 10_000)
    with data.open("archive.zip") as stored, zipfile.ZipFile(stored) as archive:
        assert archive.read("7.txt").decode() == "text 7" * 10_000
    with (
        data.open("table.csv", "wb") as file,
        io.TextIOWrapper(file, "utf-8", newline="") as text,
    ):
        csv.writer(text).writerows([["ä", 1], ["b", 2]])
    with data.open("table.csv") as stored, io.TextIOWrapper(stored, "utf-8", newline="") as text:
        assert list(csv.reader(text)) == [["ä", "1"], ["b", "2"]]
    with data.open("pickle", "xb") as file:
        pickle.dump({"a": 1}, file)
    with data.open("pickle") as stored:
        assert pickle.load(stored) == {"a": 1}  # noqa: S301 - our own object


def test_several_threads_read_one_file(data: blocking.Bucket) -> None:
    with data.open("key") as file, ThreadPoolExecutor(8) as threads:
        lock = threading.Lock()

        def read(position: int) -> bytes:
            with lock:
                file.seek(position)
                return file.read(1000)

        positions = [number * 30_000 for number in range(100)]
        assert list(threads.map(read, positions)) == [
            BODY[position : position + 1000] for position in positions
        ]


def test_replaced_object_is_never_mixed(data: blocking.Bucket) -> None:
    with data.open("key") as file:
        file.read(10)
        data.put("key", b"new" * MiB)
        file.seek(2 * MiB)
        with pytest.raises(ObjectChangedError):
            file.read(10)


def test_missing_object_is_reported_by_opening(data: blocking.Bucket) -> None:
    with pytest.raises(ObjectNotFoundError):
        data.open("missing")
    with pytest.raises(FileNotFoundError):
        data.open("missing")


def test_reader_that_is_dropped_closes_its_connection(data: blocking.Bucket, fake: Fake) -> None:
    file = data.open("key")
    file.seek(1 * MiB)
    file.read(1)
    file.read(200_000)
    assert fake.open_readers == 1
    with pytest.warns(ResourceWarning, match="never closed"):  # noqa: PT031 - both drop it
        del file
        gc.collect()
    data.exists("key")
    assert fake.open_readers == 0


# -- writing -----------------------------------------------------------------------------------------


def test_written_file_is_stored_when_it_is_closed(data: blocking.Bucket) -> None:
    file = data.open("new", "wb", content_type="a/b")
    assert isinstance(file, io.BufferedWriter)
    assert (file.name, file.mode) == ("new", "wb")
    assert not file.readable()
    for start in range(0, len(BODY), 50_000):
        file.write(BODY[start : start + 50_000])
    assert file.tell() == len(BODY)
    assert not data.exists("new")
    assert file.info is None
    file.close()
    file.close()
    assert file.closed
    assert data.read("new") == BODY
    assert file.info is not None
    assert file.info.content_type == "a/b"
    with pytest.raises(ValueError, match="closed"):
        file.write(b"")


def test_exception_in_the_block_stores_nothing(data: blocking.Bucket, fake: Fake) -> None:
    with pytest.raises(LookupError), data.open("key", "wb") as file:
        file.write(b"new" * MiB)
        raise LookupError
    assert file.closed
    assert file.info is None
    assert data.read("key") == BODY
    assert (fake.open_uploads, fake.calls_under_way) == (0, 0)


def test_exception_stores_nothing_although_a_wrapper_closes_the_file(
    data: blocking.Bucket,
) -> None:
    with (
        pytest.raises(LookupError),
        data.open("key", "wb") as file,
        io.TextIOWrapper(file) as text,
    ):
        text.write("new")
        raise LookupError
    assert file.closed
    assert data.read("key") == BODY


def test_file_closed_while_an_exception_is_handled_is_stored_when_the_block_ends(
    data: blocking.Bucket,
) -> None:
    with data.open("key", "wb") as file:
        try:
            raise LookupError
        except LookupError:
            file.write(b"new")
            file.close()
    assert data.read("key") == b"new"


def test_file_used_while_an_earlier_exception_is_handled_is_stored_at_once(
    data: blocking.Bucket,
) -> None:
    try:
        raise LookupError
    except LookupError:
        with data.open("key", "wb") as file, io.TextIOWrapper(file) as text:
            text.write("new")
            text.close()
            assert data.read("key") == b"new"


def test_file_closed_while_an_exception_is_handled_refuses_writes(data: blocking.Bucket) -> None:
    with pytest.raises(ValueError, match="closed"), data.open("key", "wb") as file:
        try:
            raise LookupError
        except LookupError:
            file.close()
        file.write(b"more")
    assert data.read("key") == BODY


def test_discarded_file_stores_nothing(data: blocking.Bucket) -> None:
    file = data.open("key", "wb")
    file.write(b"new")
    file.discard()
    file.close()
    assert data.read("key") == BODY


def test_exclusive_creation_never_replaces(data: blocking.Bucket) -> None:
    with pytest.raises(ObjectExistsError), data.open("key", "xb") as file:
        file.write(b"new")
    with pytest.raises(FileExistsError), data.open("key", "xb") as file:
        file.write(b"new")
    assert data.read("key") == BODY


@pytest.mark.parametrize("size", [10, 20 * MiB])
def test_failed_put_is_raised_and_nothing_is_stored(
    data: blocking.Bucket, fake: Fake, size: int
) -> None:
    fake.fail("put", *[UnavailableError("down")] * 10)
    fake.fail("upload", *[UnavailableError("down")] * 10)
    file = data.open("new", "wb")
    with pytest.raises(UnavailableError):
        file.write(bytes(size))
        file.close()
    if not file.closed:
        with pytest.raises((UnavailableError, ClosedError)):
            file.write(bytes(1 * MiB))
        with pytest.raises((UnavailableError, ClosedError)):
            file.close()
    assert file.closed
    assert not data.exists("new")


@pytest.mark.parametrize("drop", [lambda file: file.write(b"lost"), lambda _: None])
def test_file_that_is_dropped_stores_nothing_and_warns(
    data: blocking.Bucket, drop: Callable[[io.BufferedWriter], object]
) -> None:
    file = data.open("new", "wb")
    drop(file)
    with pytest.warns(ResourceWarning, match="nothing is stored"):  # noqa: PT031 - both drop it
        del file
        gc.collect()
    assert not data.exists("new")


def test_text_that_is_dropped_stores_nothing_and_warns(
    data: blocking.Bucket, store: blocking.Trove
) -> None:
    text = io.TextIOWrapper(data.open("text", "wb"))
    text.write("half")
    with pytest.warns(ResourceWarning, match="nothing is stored"):  # noqa: PT031 - both drop it
        del text
        gc.collect()
    assert not store.exists("data", "text")


def test_wrapper_that_is_dropped_leaves_the_file_open(data: blocking.Bucket) -> None:
    with data.open("text", "wb") as file:
        csv.writer(io.TextIOWrapper(file)).writerow(["one"])
        gc.collect()
        assert not file.closed
        assert not data.exists("text")
        file.write(b"two")
    assert data.read("text") == b"one\r\ntwo"


@pytest.mark.parametrize("mode", ["r", "w", "ab", "rb+", ""])
def test_other_modes_are_refused(data: blocking.Bucket, mode: str) -> None:
    with pytest.raises(ValueError, match="mode must be"):
        data.open("key", mode)  # type: ignore[call-overload]  # tested at run time
