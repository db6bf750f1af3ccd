"""The blocking store does what the async one does."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import io
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from tests.fakes import Fake, content
from trove_async import (
    BodyConsumedError,
    BucketNotFoundError,
    ClosedError,
    ObjectNotFoundError,
    blocking,
)
from trove_async.drivers import MemoryDriver
from trove_async.models import MiB

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BODY = content(3 * MiB + 5)


def test_objects_are_stored_read_listed_copied_and_deleted(store: blocking.Trove) -> None:
    info = store.put("data", "key", BODY, metadata={"a": "b"})
    assert store.head("data", "key") == info
    assert store.read("data", "key", range=(0, 10)) == BODY[:10]
    assert store.get_ranges("data", "key", ((i, i + 1) for i in range(3))) == [
        BODY[i : i + 1] for i in range(3)
    ]
    assert store.copy("data", "key", "data", "copy").size == len(BODY)
    assert store.move("data", "copy", "data", "moved").key == "moved"
    assert [entry.key for entry in store.list("data")] == ["key", "moved"]
    assert store.exists("data", "key")
    store.delete("data", "key")
    assert not store.exists("data", "key")
    assert store.explain("data", "key").backend == "default"
    assert store.health()["default"].ok
    assert [bucket.name for bucket in store.list_buckets()] == ["data"]
    assert store.lint_routes() == []
    assert [version.key for version in store.bucket("data").list()] == ["moved"]


def test_reader_iterates_reads_and_saves(store: blocking.Trove, tmp_path: Path) -> None:
    store.put("data", "key", BODY)
    with store.get("data", "key") as obj:
        assert obj.info.size == obj.remaining == len(BODY)
        assert obj.range == (0, len(BODY))
        assert obj.read(10) == BODY[:10]
        buffer = bytearray(5)
        assert obj.readinto(buffer) == 5
        assert buffer == BODY[10:15]
        assert b"".join(obj) == BODY[15:]
    with store.get("data", "key", range=(5, None)) as obj:
        obj.save(tmp_path / "saved")
    assert (tmp_path / "saved").read_bytes() == BODY[5:]
    with pytest.raises(ClosedError):
        obj.read()


def pieces() -> Iterator[bytes]:
    for start in range(0, len(BODY), 100_000):
        yield BODY[start : start + 100_000]


@pytest.mark.parametrize("kind", ["bytes", "path", "file", "BytesIO", "list", "generator", "async"])
def test_body_may_be_of_any_kind(store: blocking.Trove, tmp_path: Path, kind: str) -> None:
    async def async_pieces() -> Any:
        for piece in pieces():
            yield piece

    path = tmp_path / "file"
    path.write_bytes(BODY)
    with path.open("rb") as file:
        bodies: dict[str, Any] = {
            "bytes": BODY,
            "path": path,
            "file": file,
            "BytesIO": io.BytesIO(BODY),
            "list": list(pieces()),
            "generator": pieces(),
            "async": async_pieces(),
        }
        store.put("data", "key", bodies[kind])
    assert store.read("data", "key") == BODY


def test_body_that_blocks_does_not_block_other_calls(store: blocking.Trove) -> None:
    may_end = threading.Event()
    started = threading.Event()

    def slow() -> Iterator[bytes]:
        started.set()
        yield b"a"
        may_end.wait()
        yield b"b"

    with ThreadPoolExecutor(1) as threads:
        putting = threads.submit(store.put, "data", "slow", slow())
        started.wait()
        store.put("data", "key", b"body")
        assert store.read("data", "key") == b"body"
        assert not putting.done()
        may_end.set()
        putting.result()
    assert store.read("data", "slow") == b"ab"


def test_body_may_read_the_same_store(store: blocking.Trove) -> None:
    store.put("data", "a", b"1")
    store.put("data", "b", b"2")
    store.put("data", "both", (store.read("data", key) for key in ("a", "b")))
    assert store.read("data", "both") == b"12"


def test_reader_is_streamed_as_a_body(store: blocking.Trove) -> None:
    store.put("data", "key", BODY)
    with store.get("data", "key") as obj:
        store.put("data", "copy", obj)
        with pytest.raises(BodyConsumedError):
            store.put("data", "again", obj)
    assert store.read("data", "copy") == BODY
    with store.open("data", "key") as file:
        store.put("data", "from file", file)
    assert store.read("data", "from file") == BODY


def test_listing_waits_for_the_loop_once_a_page(
    store: blocking.Trove, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = [f"{number:04}" for number in range(1000)]
    for key in keys:
        store.put("data", key, b"")
    session, calls = store._session, 0
    run = type(session).run

    def count(self: Any, work: Any) -> Any:
        nonlocal calls
        calls += 1
        return run(self, work)

    monkeypatch.setattr(type(session), "run", count)
    assert [entry.key for entry in store.list("data", page_size=250)] == keys
    assert calls <= 6


def test_listing_resumes_at_its_cursor(store: blocking.Trove) -> None:
    for key in "abcdef":
        store.put("data", key, b"")
    listing = store.list("data", page_size=2)
    assert [next(listing).key for _ in range(3)] == ["a", "b", "c"]
    assert listing.ordered
    rest = store.list("data", page_size=2, cursor=listing.cursor)
    assert [[entry.key for entry in page] for page in rest.pages()] == [["d", "e"], ["f"]]
    assert [entry.key for entry in listing.all()] == ["d", "e", "f"]
    assert listing.cursor is None
    assert [entry.key for entry in store.bucket("data").list(delimiter="b")] == ["a", "b", *"cdef"]
    with pytest.raises(BucketNotFoundError):
        next(store.list("missing"))


def test_deletion_of_many_objects_takes_any_iterable(store: blocking.Trove) -> None:
    for number in range(2500):
        store.put("data", f"{number:04}", b"")
    results = list(store.delete_many("data", ["0000", "missing"]))
    assert [(result.key, result.error) for result in results] == [("0000", None), ("missing", None)]
    # The keys come from a listing of the same store, in the caller's thread.
    store.bucket("data").delete_many(entry.key for entry in store.list("data")).run()
    assert store.list("data").all() == []


def test_deletion_raises_its_errors(store: blocking.Trove) -> None:
    with pytest.raises(BucketNotFoundError):
        store.delete_many("missing", ["a", "b"]).run()
    with pytest.raises(TypeError, match="iterable of keys"):
        store.delete_many("data", "key")
    deletion = store.delete_many("data", [])
    deletion.run()
    with pytest.raises(BodyConsumedError):
        deletion.run()


def test_deletion_that_never_starts_warns(store: blocking.Trove) -> None:
    with pytest.warns(ResourceWarning, match="never started"):  # noqa: PT031 - both drop it
        store.delete_many("data", ["key"])
        gc.collect()


def test_bucket_handle_is_an_argument(store: blocking.Trove) -> None:
    store.create_bucket("other")
    store.put("data", "key", b"body")
    other: Any = store.bucket("other")
    assert other.name == "other"
    assert store.bucket("data").copy("key", "copy", dst_bucket=other).bucket == "other"


def test_pinned_handle_is_not_routed() -> None:
    with blocking.Trove(
        MemoryDriver(), backends={"cold": MemoryDriver()}, routes=[("*.log", "cold")]
    ) as store:
        store.create_bucket("data", backends=(name for name in ("default", "cold")))
        store.put("data", "app.log", b"")
        assert store.backend("cold").exists("data", "app.log")
        assert not store.backend("default").bucket("data").exists("app.log")
        assert list(store.backends) == ["default", "cold"]
        assert list(store.backend("cold").backends) == ["cold"]


def test_errors_are_those_of_the_async_store(store: blocking.Trove) -> None:
    with pytest.raises(ObjectNotFoundError) as caught:
        store.read("data", "missing")
    assert (caught.value.operation, caught.value.key) == ("read", "missing")
    with pytest.raises(ObjectNotFoundError):
        store.get("data", "missing")
    with pytest.raises(TypeError):
        store.read("data")  # type: ignore[call-arg]  # tested at run time


def test_store_is_usable_only_between_start_and_close() -> None:
    store = blocking.Trove("mem://")
    data = store.bucket("data")
    for call in (store.list_buckets, lambda: data.put("key", b""), lambda: data.open("key")):
        with pytest.raises(ClosedError, match=r"store\.start"):
            call()
    store.close()
    with store:
        store.create_bucket("data")
        data.put("key", b"body")
        with pytest.raises(ClosedError, match="once"):
            store.start()
    with pytest.raises(ClosedError, match="closed"):
        data.read("key")
    store.close()


def test_many_threads_use_one_store(store: blocking.Trove) -> None:
    def work(number: int) -> None:
        for step in range(30):
            body = f"{number} {step}".encode()
            store.put("data", f"{number}/{step}", body)
            assert store.read("data", f"{number}/{step}") == body
            with store.open("data", f"{number}/{step}") as file:
                assert file.read() == body

    with ThreadPoolExecutor(16) as threads:
        list(threads.map(work, range(16)))
    assert len(store.list("data").all()) == 16 * 30


def test_stores_share_one_thread(store: blocking.Trove) -> None:
    with blocking.Trove("mem://") as other:
        other.list_buckets()
        store.list_buckets()
        names = [thread.name for thread in threading.enumerate()]
    assert names.count("trove_async.blocking") == 1


def test_listener_that_calls_the_store_raises_instead_of_waiting_for_itself(
    store: blocking.Trove,
) -> None:
    errors: list[BaseException] = []

    def progress(_done: int, _total: int | None) -> None:
        try:
            store.list_buckets()
        except RuntimeError as error:
            errors.append(error)

    store.put("data", "key", b"body", progress=progress)
    assert errors
    assert "callback" in str(errors[0])


def test_callbacks_see_the_context_of_the_caller(store: blocking.Trove) -> None:
    variable = contextvars.ContextVar("variable", default="outside")
    seen = []
    variable.set("caller")
    store.put("data", "key", b"body", progress=lambda *_: seen.append(variable.get()))
    assert set(seen) == {"caller"}


async def test_store_works_in_a_thread_that_runs_a_loop(fake: Fake) -> None:
    with blocking.Trove(fake) as store:
        store.create_bucket("data")
        store.put("data", "key", b"body")
        assert store.read("data", "key") == b"body"
    await asyncio.sleep(0)


def test_store_and_what_belongs_to_it_cannot_be_pickled(store: blocking.Trove) -> None:
    for each in (store, store.bucket("data"), store.list("data")):
        with pytest.raises(TypeError, match="create and start a store in each process"):
            pickle.dumps(each)
