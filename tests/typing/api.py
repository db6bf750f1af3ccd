"""The types of the public API as type checkers see them. Checked by mypy --strict, never run.

`assert_type` fails the check if an inferred type changes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Literal, assert_type

from trove_async import (
    BackendInfo,
    Bucket,
    BucketInfo,
    BufferPool,
    ByteRange,
    DeleteResult,
    Event,
    FileReader,
    FileWriter,
    Health,
    Inspecting,
    Misplaced,
    ObjectInfo,
    ObjectReader,
    OpeningFile,
    Prefix,
    RetryPolicy,
    Route,
    RouteDecision,
    RouteIssue,
    Scope,
    Timeout,
    Trove,
    TroveError,
    VersionInfo,
    route_function,
)
from trove_async.drivers import MemoryDriver
from trove_async.middleware import Closing, Inspector, Middleware, ObjectContext
from trove_async.middlewares import (
    Compression,
    DataKey,
    Encryption,
    Inspection,
    Keyring,
    Keys,
    KmsKeys,
    TenantKeys,
)

if TYPE_CHECKING:
    from pathlib import Path


def by_suffix(_bucket: str, key: str) -> str:
    return "cold" if key.endswith(".log") else ""


async def by_database(_bucket: str, _key: str) -> str | None:
    return None


@route_function(by="bucket")
def by_bucket(bucket: str, _key: str) -> str:
    return bucket


async def construct() -> None:
    assert_type(Trove(MemoryDriver()), Trove)
    store = Trove(
        "mem://",
        backends={"cold": MemoryDriver(), "url": "mem://"},
        routes=[("*.log", "cold"), Route.prefix("a/", "url")],
        route_functions=[by_suffix, by_database, by_bucket],
        pool=BufferPool(),
        retry=RetryPolicy(attempts=1),
        timeout=Timeout(total=5),
        create_missing_buckets="auto",
        locate="anywhere",
    )
    async with store as entered:
        assert_type(entered, Trove)
    assert_type(store.backend("cold"), Trove)
    assert_type(await store.aclose(), None)
    assert_type(await store.open(), Trove)
    assert_type(store.backends, Mapping[str, BackendInfo])
    assert_type(store.backend("cold").bucket("b"), Bucket)
    assert_type(store.events.subscribe(print), Callable[[], None])


class Scanner:
    def __init__(self, _bucket: str, _key: str, _content_type: str | None) -> None:
        pass

    async def update(self, data: bytes) -> None:
        assert_type(data, bytes)

    async def finish(self) -> None:
        pass


async def open_scanner(bucket: str, key: str, content_type: str | None) -> Scanner:
    return Scanner(bucket, key, content_type)


async def inspections(compression: Middleware, context: ObjectContext) -> None:
    inspection = Inspection(Scanner)
    assert_type(await inspection.inspector(context), Inspector)
    listed: Inspecting = Inspection(open_scanner)
    Trove("mem://", middleware=[inspection])
    Trove("mem://", middleware=[listed, compression, (inspection, Scope.keys("*.exe"))])
    Trove("mem://", middleware=[(inspection, Scope.everything()), (compression, ~Scope.keys("*"))])
    Trove("mem://", middleware=[Scanner("b", "k", None)])  # type: ignore[list-item]  # an inspector is not an inspection
    Inspection(Scanner("b", "k", None))  # type: ignore[arg-type]  # not callable
    Inspection(by_suffix)  # type: ignore[arg-type]  # has no content type, and returns a str


async def put(store: Trove, reader: ObjectReader, path: Path) -> None:
    def pieces() -> Iterator[bytes]:
        yield b""

    async def stream() -> AsyncIterator[bytes]:
        yield b""

    assert_type(await store.put("b", "k", b"bytes"), ObjectInfo)
    info = await store.put("b", "k", bytearray(), metadata={"a": "b"}, tags={}, size=0)
    await store.put("b", "k", memoryview(b""), if_match=info)
    await store.put("b", "k", path, if_none_match="*", progress=report_progress)
    await store.put("b", "k", pieces())
    await store.put("b", "k", stream())
    await store.put("b", "k", [b"a", b"b"])
    await store.put("b", "k", reader)
    await store.put("b", "k", store.get("b", "k"))
    with path.open("rb") as file:
        await store.put("b", "k", file)
    await store.put("b", "k", "text")  # type: ignore[arg-type]  # a str is not a body
    await store.put("b", "k", b"", "text/plain")  # type: ignore[call-arg, arg-type]  # options are keyword-only


async def get(store: Trove) -> None:
    async with store.get("b", "k") as reader:
        assert_type(reader, ObjectReader)
        assert_type(reader.info, ObjectInfo)
        assert_type(reader.range, tuple[int, int])
        assert_type(await reader.read(), bytes)
        assert_type(await reader.readinto(bytearray(5)), int)
        assert_type(await reader.save("path"), None)
        async for chunk in reader:
            assert_type(chunk, bytes)
    assert_type(await store.get("b", "k", range=(0, None)), ObjectReader)
    assert_type(await store.read("b", "k", range=ByteRange.last(5), limit=10), bytes)
    assert_type(await store.read("b", "k", decode=False), bytes)
    assert_type(await store.get("b", "k", decode=False), ObjectReader)
    assert_type(
        await store.get("b", "k", decode=lambda info: "zstd" in info.transforms), ObjectReader
    )
    await store.get("b", "k", decode="no")  # type: ignore[arg-type]  # a bool or a function
    assert_type(await store.get_ranges("b", "k", [(0, 1), (2, None)]), Sequence[bytes])
    assert_type(await store.head("b", "k"), ObjectInfo)
    assert_type(await store.exists("b", "k"), bool)
    assert_type(await store.head("b", "k", version_id="v"), ObjectInfo)
    assert_type(await store.exists("b", "k", version_id="v"), bool)


async def files(store: Trove, info: ObjectInfo, mode: Literal["rb", "wb", "xb"]) -> None:
    async with store.open_file("b", "k", if_match=info) as reader:
        assert_type(reader, FileReader)
        assert_type(await reader.read(5), bytes)
        assert_type(await reader.readinto(bytearray(5)), int)
        assert_type(await reader.seek(0, 2), int)
        assert_type(reader.info, ObjectInfo)
    async with store.bucket("b").open_file("k", "wb", content_type="a/b") as writer:
        assert_type(writer, FileWriter)
        assert_type(await writer.write(memoryview(b"")), int)
    assert_type(writer.info, ObjectInfo | None)
    assert_type(await store.open_file("b", "k", "rb", version_id="v"), FileReader)
    assert_type(await store.open_file("b", "k", "xb", metadata={"a": "b"}), FileWriter)
    store.open_file("b", "k", "ab")  # type: ignore[call-overload]  # not a mode
    store.open_file("b", "k", "rb", content_type="a/b")  # type: ignore[call-overload]  # for writing only
    store.open_file("b", "k", "wb", version_id="v")  # type: ignore[call-overload]  # for reading only
    assert_type(store.open_file("b", "k", mode), OpeningFile[FileReader] | OpeningFile[FileWriter])


async def values(info: ObjectInfo) -> None:
    assert_type(info.key, str)
    assert_type(info.size, int)
    assert_type(info.stored_size, int)
    assert_type(info.transforms, tuple[str, ...])
    assert_type(info.etag, str | None)
    assert_type(info.last_modified, datetime)
    assert_type(info.metadata, Mapping[str, str])
    assert_type(info.content_type, str | None)
    assert_type(info.backend, str)


async def listings(store: Trove, delimiter: str | None) -> None:
    async for info in store.list("b"):
        assert_type(info, ObjectInfo)
    async for entry in store.list("b", delimiter="/"):
        assert_type(entry, ObjectInfo | Prefix)
    async for item in store.list("b", delimiter=delimiter):
        assert_type(item, ObjectInfo | Prefix)
    listing = store.list("b", prefix="a", page_size=5, details=True)
    async for page in listing.pages():
        assert_type(page, Sequence[ObjectInfo])
    assert_type(await listing.all(), Sequence[ObjectInfo])
    assert_type(await anext(listing), ObjectInfo)
    assert_type(listing.cursor, str | None)
    assert_type(listing.ordered, bool | None)
    store.list("b", cursor=listing.cursor)
    versions = store.list_versions("b", prefix="a", page_size=5)
    async for version in versions:
        assert_type(version, VersionInfo)
    async for version_page in versions.pages():
        assert_type(version_page, Sequence[VersionInfo])
    assert_type(await versions.all(), Sequence[VersionInfo])
    misplaced = store.misplaced("b", prefix="a", start_after="a", page_size=5)
    async for found in misplaced:
        assert_type(found, Misplaced)
        assert_type((found.info, found.belongs_to), tuple[ObjectInfo, str])
        assert_type(found.shadowed, bool | None)
    assert_type(await store.bucket("b").misplaced().all(), Sequence[Misplaced])
    assert_type(store.lint_routes(), Sequence[RouteIssue])


async def copies_and_deletes(store: Trove, info: ObjectInfo) -> None:
    assert_type(await store.copy("b", "k", "c", "l"), ObjectInfo)
    assert_type(await store.move("b", "k", "c", "l", metadata={"a": "b"}), ObjectInfo)
    assert_type(await store.delete("b", "k", if_match=info), None)
    async for result in store.delete_many("b", ["k", "l"]):
        assert_type(result, DeleteResult)
        assert_type(result.error, Exception | None)
    await store.delete_many("b", (key for key in ("k", "l")))


async def bucket(data: Bucket, when: datetime) -> None:
    assert_type(data.name, str)
    assert_type(await data.put("k", b"", expires=when, content_language="de"), ObjectInfo)
    async with data.get("k", decode=False) as reader:
        assert_type(reader, ObjectReader)
    assert_type(await data.read("k", decode=False), bytes)
    async for info in data.list():
        assert_type(info, ObjectInfo)
    async for entry in data.list(delimiter="/"):
        assert_type(entry, ObjectInfo | Prefix)
    assert_type(await data.copy("k", "l", dst_bucket=data, expires=""), ObjectInfo)
    await data.copy("k", "l", expires="never")  # type: ignore[arg-type]  # must be a datetime or ""
    assert_type(await data.move("k", "l", source_backend="cold", source_version_id="v"), ObjectInfo)


async def buckets(store: Trove) -> None:
    assert_type(await store.create_bucket("b", exist_ok=True, backends=["cold"]), None)
    await store.create_bucket("b", backends="all")
    assert_type(await store.delete_bucket("b"), None)
    assert_type(await store.list_buckets(), Sequence[BucketInfo])


async def routes_and_urls(store: Trove) -> None:
    assert_type(await store.explain("b", "k"), RouteDecision)
    assert_type((await store.explain("b", "k")).middleware, Sequence[str])
    assert_type(await store.health(), Mapping[str, Health])
    assert_type(await store.presign_get("b", "k", expires=60), str)
    assert_type(await store.presign_put("b", "k", content_type="text/plain"), str)
    assert_type(await store.presign_get("b", "k", version_id="v", response_content_type="a/b"), str)


async def is_sensitive(_bucket: str, key: str) -> bool:
    return key.startswith("secret/")


def scopes() -> Scope:
    assert_type(Scope.content_types("text/*", "application/json"), Scope)
    assert_type(Scope.buckets("a") & Scope.keys("**/*.csv") | ~Scope.backends("default"), Scope)
    assert_type(Scope.when(is_sensitive) | Scope.when(lambda bucket, key: bucket == key), Scope)
    Scope.keys("a") & True  # type: ignore[operator]  # only scopes combine
    return Scope.everything()


def middlewares(own: Middleware) -> None:
    keyring = Keyring({"new": Keyring.generate_key(), "old": bytes(32)}, current="new")
    assert_type(Keyring.generate_key(), str)
    assert_type(Keyring.from_env("KEYS"), Keyring)
    encryption = Encryption(keyring, bind=True, require=True, segment_size=65_536)
    compression = Compression(9, frame_size=65_536, min_size=0, skip=["image/*"])
    store = Trove(
        MemoryDriver(), middleware=[own, (compression, scopes()), (encryption, ~scopes())]
    )
    assert_type(store, Trove)
    Trove("mem://", middleware=[compression])
    Trove("mem://", middleware=[encryption])
    Trove("mem://", middleware=[(encryption, "cold")])  # type: ignore[list-item]  # must be a Scope
    Encryption("secret")  # type: ignore[arg-type]  # must be Keys
    Encryption(keyring, 5)  # type: ignore[call-arg, arg-type]  # options are keyword-only


async def keys(context: ObjectContext) -> None:
    def current(context: ObjectContext) -> str:
        return context.bucket

    async def load(_tenant: str) -> Keyring:
        return Keyring({"a": bytes(32)})

    tenants = TenantKeys(current, load, max_tenants=5, ttl=60)
    source: Keys = tenants
    assert_type(await source.for_write(context), DataKey)
    assert_type(await tenants.for_read(context, "acme/a", None), DataKey)
    Encryption(tenants)
    assert_type(DataKey(id="a", secret=bytes(32)).wrapped, bytes | None)


async def kms_keys(context: ObjectContext) -> None:
    keys = KmsKeys("alias/x", encryption_context=lambda context: {"bucket": context.bucket})
    source: Keys = keys
    closing: Closing = keys
    assert_type(await source.for_write(context), DataKey)
    assert_type(await keys.rewrap(context, "id", b"wrapped"), tuple[str, bytes])
    async with KmsKeys("alias/x", encryption_context={"app": "a"}) as opened:
        assert_type(opened, KmsKeys)
    await closing.aclose()


def report_progress(done: int, total: int | None) -> None:
    print(done, total)  # noqa: T201 - never run


def receive(event: Event) -> None:
    assert_type(event.operation, str)
    assert_type(event.error, BaseException | None)


def handle(error: TroveError) -> None:
    assert_type(error.message, str)
    assert_type(error.operation, str | None)
    assert_type(error.retryable, bool)
