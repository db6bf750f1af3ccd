"""The types of the blocking facade as type checkers see them. Checked by mypy --strict, never run."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, assert_type

from trove_async import (
    BackendInfo,
    BucketInfo,
    ByteRange,
    DeleteResult,
    Health,
    Misplaced,
    ObjectInfo,
    Prefix,
    RouteDecision,
    RouteIssue,
    VersionInfo,
    blocking,
)

if TYPE_CHECKING:
    from pathlib import Path


def construct() -> None:
    with blocking.Trove("mem://", routes=[("*.log", "cold")], backends={"cold": "mem://"}) as store:
        assert_type(store, blocking.Trove)
        assert_type(store.backends, Mapping[str, BackendInfo])
    assert_type(blocking.Trove("mem://").start(), blocking.Trove)
    blocking.Trove()  # type: ignore[call-arg]  # a default backend is needed
    blocking.Trove(5)  # type: ignore[arg-type]  # not a driver
    blocking.Trove("mem://", unknown=1)  # type: ignore[call-arg]  # no such argument


def objects(store: blocking.Trove, path: Path) -> None:
    def pieces() -> Iterator[bytes]:
        yield b""

    assert_type(store.put("b", "k", b"bytes", metadata={"a": "b"}), ObjectInfo)
    store.put("b", "k", pieces(), if_none_match="*")
    store.put("b", "k", path)
    store.put("b", "k", "text")  # type: ignore[arg-type]  # a str is not a body
    store.put("b", "k", b"", "text/plain")  # type: ignore[call-arg, arg-type]  # options are keyword-only
    assert_type(store.read("b", "k", range=ByteRange.last(5)), bytes)
    assert_type(store.get_ranges("b", "k", [(0, 1)]), Sequence[bytes])
    assert_type(store.head("b", "k", version_id="v"), ObjectInfo)
    assert_type(store.exists("b", "k"), bool)
    assert_type(store.copy("b", "k", "c", "l"), ObjectInfo)
    assert_type(store.move("b", "k", "c", "l"), ObjectInfo)
    assert_type(store.presign_get("b", "k", expires=60), str)
    assert_type(store.explain("b", "k"), RouteDecision)
    assert_type(store.health(), Mapping[str, Health])
    assert_type(store.list_buckets(), Sequence[BucketInfo])
    assert_type(store.lint_routes(), Sequence[RouteIssue])
    with store.get("b", "k", range=(0, None)) as obj:
        assert_type(obj, blocking.ObjectReader)
        assert_type(obj.info, ObjectInfo)
        assert_type(obj.read(5), bytes)
        assert_type(obj.readinto(bytearray(5)), int)
        for chunk in obj:
            assert_type(chunk, bytes)
        store.put("b", "copy", obj)


def listings(store: blocking.Trove, delimiter: str | None) -> None:
    for info in store.list("b", prefix="a", page_size=5):
        assert_type(info, ObjectInfo)
    for entry in store.list("b", delimiter="/"):
        assert_type(entry, ObjectInfo | Prefix)
    assert_type(store.list("b", delimiter=delimiter).all(), Sequence[ObjectInfo | Prefix])
    assert_type(store.list("b").cursor, str | None)
    for page in store.list_versions("b").pages():
        assert_type(page, Sequence[VersionInfo])
    assert_type(next(store.misplaced("b")), Misplaced)
    for result in store.delete_many("b", ["k"]):
        assert_type(result, DeleteResult)
    store.list("b", pagesize=5)  # type: ignore[call-overload]  # no such argument


def files(store: blocking.Trove) -> None:
    with store.open("b", "k") as reader:
        assert_type(reader, blocking.FileReader)
        buffered_reader: io.BufferedReader = reader
        assert_type(buffered_reader.read(), bytes)
    with store.open("b", "k", "xb", content_type="a/b") as writer:
        assert_type(writer, blocking.FileWriter)
        buffered_writer: io.BufferedWriter = writer
        buffered_writer.write(b"")
    store.open("b", "k", "rb", content_type="a/b")  # type: ignore[call-overload]  # for writing only
    io.TextIOWrapper(store.open("b", "k"), "utf-8").readline()


def handles(store: blocking.Trove) -> None:
    assert_type(store.backend("cold"), blocking.Trove)
    bucket = store.bucket("b")
    assert_type(bucket, blocking.Bucket)
    assert_type(bucket.name, str)
    assert_type(bucket.put("k", b""), ObjectInfo)
    assert_type(bucket.open("k", "wb"), blocking.FileWriter)
    bucket.put("b", "k", b"")  # type: ignore[call-arg, arg-type]  # no bucket argument
    read: Callable[[str], bytes] = bucket.read
    assert_type(read("k"), bytes)
