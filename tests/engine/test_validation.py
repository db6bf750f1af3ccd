"""Invalid names and options, and options that a backend does not support, raise before any I/O."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest

from tests.fakes import CallLog, single_attempt_store
from trove_async import InvalidNameError, NotSupportedError, ObjectInfo, Trove
from trove_async._engine import validation as checks
from trove_async.options import GetOptions, PutOptions

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


EXPIRES = datetime(2031, 2, 3, 4, 5, 6, tzinfo=UTC)
WEST_OF_UTC = timezone(timedelta(hours=-1))


async def open_get(store: Trove, **options: Any) -> None:
    async with store.get("data", "key", **options):
        pass


UNSUPPORTED: list[tuple[dict[str, Any], Callable[[Trove], Awaitable[object]], str]] = [
    ({"put_if_none_match": False},
     lambda store: store.put("data", "key", b"", if_none_match="*"),
     r"write on a condition \(if_none_match\)"),
    ({"put_if_match": False},
     lambda store: store.put("data", "key", b"", if_match="e"),
     r"write on a condition \(if_match\)"),
    ({"metadata": False},
     lambda store: store.put("data", "key", b"", metadata={"a": "b"}), "metadata"),
    ({"tags": False}, lambda store: store.put("data", "key", b"", tags={"a": "b"}), "tags"),
    ({"storage_class": False},
     lambda store: store.put("data", "key", b"", storage_class="X"), "storage class"),
    ({"headers": False},
     lambda store: store.put("data", "key", b"", content_type="a/b"), "content_type"),
    ({"headers": False},
     lambda store: store.put("data", "key", b"", cache_control="x"), "cache_control"),
    ({"headers": False},
     lambda store: store.put("data", "key", b"", content_disposition="x"), "content_disposition"),
    ({"headers": False},
     lambda store: store.put("data", "key", b"", content_encoding="x"), "content_encoding"),
    ({"headers": False},
     lambda store: store.put("data", "key", b"", content_language="x"), "content_language"),
    ({"expires": False}, lambda store: store.put("data", "key", b"", expires=EXPIRES), "expires"),
    ({"max_metadata_bytes": 4},
     lambda store: store.put("data", "key", b"", metadata={"abc": "é"}), "at most 4 bytes, got 5"),
    ({"ranges": False}, lambda store: open_get(store, range=(0, 1)), "range"),
    ({"ranges": False}, lambda store: store.read("data", "key", range=(0, 1)), "range"),
    ({"get_conditions": False}, lambda store: open_get(store, if_match="e"), "condition"),
    ({"get_conditions": False},
     lambda store: store.read("data", "key", if_none_match="e"), "condition"),
    ({}, lambda store: open_get(store, version_id="v"), "version"),
    ({}, lambda store: store.delete("data", "key", version_id="v"), "version"),
    ({}, lambda store: store.head("data", "key", version_id="v"), "version"),
    ({}, lambda store: store.exists("data", "key", version_id="v"), "version"),
    ({"delete_if_match": False},
     lambda store: store.delete("data", "key", if_match="e"), "delete on a condition"),
    ({}, lambda store: store.presign_get("data", "key"), "cannot presign URLs: use get and put"),
    ({}, lambda store: store.presign_put("data", "key"), "cannot presign URLs: use get and put"),
    ({"presign_requires": "a key"},
     lambda store: store.presign_get("data", "key"), "cannot presign URLs: this requires a key"),
    ({"presign": True}, lambda store: store.presign_get("data", "key", version_id="v"), "version"),
]  # fmt: skip


@pytest.mark.parametrize(("capabilities", "call", "message"), UNSUPPORTED)
async def test_option_unsupported_by_the_backend_is_rejected_before_any_io(
    capabilities: dict[str, Any], call: Callable[[Trove], Awaitable[object]], message: str
) -> None:
    driver = CallLog(**capabilities)
    async with single_attempt_store(driver) as store:
        with pytest.raises(NotSupportedError, match=message) as caught:
            await call(store)
    assert driver.calls == ["open", "aclose"]
    assert (caught.value.backend, caught.value.bucket, caught.value.key) == (
        "default", "data", "key",
    )  # fmt: skip
    assert "\n" not in str(caught.value)


async def test_key_too_long_for_the_backend_is_rejected_before_any_io() -> None:
    driver = CallLog(max_key_bytes=10)
    async with single_attempt_store(driver) as store:
        with pytest.raises(InvalidNameError, match="at most 10 bytes of UTF-8, got 12"):
            await store.put("data", "é" * 6, b"")
        assert driver.calls == ["open"]
        await store.create_bucket("data")
        await store.put("data", "é" * 5, b"")


INVALID_OPTIONS: list[tuple[Callable[[Trove], Awaitable[object]], type[Exception], str]] = [
    (lambda store: store.put("data", "key", b"", size=-1), ValueError, "must not be negative"),
    (lambda store: store.put("data", "key", b"", size=1.0), TypeError, "must be an int, got float"),  # type: ignore[arg-type]  # tested at run time, as below
    (lambda store: store.put("data", "key", b"", if_none_match="e"), ValueError, "never replaces, got 'e'"),
    (lambda store: store.put("data", "key", b"", if_none_match="*", if_match="e"),
     ValueError, "exclude each other"),
    (lambda store: store.put("data", "key", b"", if_match="*"), ValueError, "one version"),
    (lambda store: store.put("data", "key", b"", if_match=""), ValueError, "one version"),
    (lambda store: store.put("data", "key", b"", if_match=5),  # type: ignore[arg-type]
     TypeError, "if_match must be an etag or an ObjectInfo, got int"),
    (lambda store: store.read("data", "key", if_none_match=["e"]),  # type: ignore[arg-type]
     TypeError, "if_none_match must be an etag or an ObjectInfo, got list"),
    (lambda store: store.read("data", "key", if_none_match="W/e"),
     ValueError, "if_none_match must identify one version, got 'W/e'"),
    (lambda store: store.put("data", "key", b"", if_match="a\nb"), InvalidNameError, "if_match"),
    (lambda store: store.put("data", "key", b"", content_type="a\r\nb"), InvalidNameError, "content_"),
    (lambda store: store.put("data", "key", b"", content_type=5), TypeError, "content_type must be a"),  # type: ignore[arg-type]
    (lambda store: store.put("data", "key", b"", cache_control="\n"), InvalidNameError, "cache_"),
    (lambda store: store.put("data", "key", b"", content_disposition="\0"),
     InvalidNameError, "content_disposition"),
    (lambda store: store.put("data", "key", b"", content_encoding="\n"),
     InvalidNameError, "content_encoding"),
    (lambda store: store.put("data", "key", b"", content_language="\n"),
     InvalidNameError, "content_language"),
    (lambda store: store.put("data", "key", b"", expires=EXPIRES.replace(tzinfo=None)),
     ValueError, "expires must be an aware datetime"),
    (lambda store: store.put("data", "key", b"", expires="never"), TypeError, "a datetime, got str"),  # type: ignore[arg-type]
    (lambda store: store.put("data", "key", b"", expires=datetime.max.replace(tzinfo=WEST_OF_UTC)),
     ValueError, "years 1 to 9999"),
    (lambda store: store.put("data", "key", b"", storage_class="\n"),
     InvalidNameError, "storage_class"),
    (lambda store: store.put("data", "key", b"", metadata={"a": 5}), TypeError, "metadata 'a'"),  # type: ignore[dict-item]
    (lambda store: store.put("data", "key", b"", metadata=[("a", "b")]), TypeError, "must map names"),  # type: ignore[arg-type]
    (lambda store: store.put("data", "key", b"", metadata={"A": "1", "a": "2"}),
     InvalidNameError, "more than case"),
    (lambda store: store.put("data", "key", b"", metadata={"trove-x": "1"}),
     InvalidNameError, "reserved"),
    (lambda store: store.put("data", "key", b"", tags={"a": None}), TypeError, "a tag must be a str"),  # type: ignore[dict-item]
    (lambda store: store.put("data", "key", b"", tags={"a\n": "b"}), InvalidNameError, "a tag"),
    (lambda store: store.put("data", "key", b"", tags={"a": "\n"}), InvalidNameError, "a tag"),
    (lambda store: store.read("data", "key", version_id="\n"), InvalidNameError, "version_id"),
    (lambda store: store.delete("data", "key", version_id="\n"), InvalidNameError, "version_id"),
    (lambda store: store.head("data", "key", version_id="\n"), InvalidNameError, "version_id"),
    (lambda store: store.exists("data", "key", version_id=5), TypeError, "version_id must be a str"),  # type: ignore[arg-type]
    (lambda store: store.delete("data", "key", if_match="*"), ValueError, "one version"),
    (lambda store: store.presign_get("data", "key", expires=0), ValueError, "1 to 604800"),
    (lambda store: store.presign_put("data", "key", expires=float("nan")), ValueError, "1 to"),
    (lambda store: store.presign_put("data", "key", content_type="\n"), InvalidNameError, "content_t"),
    (lambda store: store.put("data", "key", b"", content_type="a\x01b"),
     InvalidNameError, r"content_type must not contain control characters, got '\\x01'"),
    (lambda store: store.put("data", "key", b"", cache_control=" no-store"),
     InvalidNameError, "cache_control must not start or end with a space"),
    (lambda store: store.presign_get("data", "key", response_content_type="\n"),
     InvalidNameError, "response_content_type"),
    (lambda store: store.presign_get("data", "key", response_content_disposition="\r"),
     InvalidNameError, "response_content_disposition"),
    (lambda store: store.presign_get("data", "key", version_id="\0"), InvalidNameError, "version_id"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "message"), INVALID_OPTIONS)
async def test_invalid_option_is_rejected_before_any_io(
    call: Callable[[Trove], Awaitable[object]], error: type[Exception], message: str
) -> None:
    driver = CallLog()
    async with single_attempt_store(driver) as store:
        with pytest.raises(error, match=message) as caught:
            await call(store)
    assert driver.calls == ["open", "aclose"]
    assert "\n" not in str(caught.value)


CALLS_WITH_NAMES: list[Callable[[Trove, str, str], Awaitable[object]]] = [
    lambda store, bucket, key: store.put(bucket, key, b""),
    lambda store, bucket, key: store.read(bucket, key),
    lambda store, bucket, key: store.get(bucket, key).__aenter__(),
    lambda store, bucket, key: store.get_ranges(bucket, key, []),
    lambda store, bucket, key: store.head(bucket, key),
    lambda store, bucket, key: store.exists(bucket, key),
    lambda store, bucket, key: store.delete(bucket, key),
    lambda store, bucket, key: store.copy(bucket, key, "a", "b"),
    lambda store, bucket, key: store.copy("a", "b", bucket, key),
    lambda store, bucket, key: store.move(bucket, key, "a", "b"),
    lambda store, bucket, key: store.move("a", "b", bucket, key),
    lambda store, bucket, key: store.presign_get(bucket, key),
    lambda store, bucket, key: store.presign_put(bucket, key),
]


@pytest.mark.parametrize("call", CALLS_WITH_NAMES)
async def test_names_are_checked_by_every_operation(
    call: Callable[[Trove, str, str], Awaitable[object]],
) -> None:
    driver = CallLog()
    async with single_attempt_store(driver) as store:
        for bucket, key in (("", "key"), ("a/b", "key"), ("data", ""), ("data", "../key")):
            with pytest.raises(InvalidNameError):
                await call(store, bucket, key)
    assert driver.calls == ["open", "aclose"]


@pytest.mark.parametrize("key", [".", "..", "a/../b", "./a"])
async def test_key_with_a_dot_segment_that_another_tool_wrote_is_read_and_deleted(key: str) -> None:
    driver = CallLog(dot_segments=True)
    async with single_attempt_store(driver) as store:
        await store.create_bucket("data")
        await driver.put("data", key, [memoryview(b"body")], PutOptions())
        assert [entry.key for entry in await store.list("data").all()] == [key]
        assert await store.read("data", key) == b"body"
        assert await store.get_ranges("data", key, [(1, 3)]) == [b"od"]
        assert (await store.head("data", key)).size == 4
        assert await store.exists("data", key)
        await store.copy("data", key, "data", "copy")
        assert await store.read("data", "copy") == b"body"
        await store.delete("data", "copy")
        await store.delete("data", key)
        await driver.put("data", key, [memoryview(b"body")], PutOptions())
        await store.move("data", key, "data", "moved")
        await driver.put("data", key, [memoryview(b"body")], PutOptions())
        async for result in store.delete_many("data", [key, "moved"]):
            assert result.error is None
        assert not await store.list("data").all()


async def test_key_with_a_dot_segment_is_never_written() -> None:
    driver = CallLog(dot_segments=True)
    async with single_attempt_store(driver) as store:
        await store.create_bucket("data")
        await store.put("data", "key", b"body")
        for call in (
            lambda: store.put("data", "a/../b", b"body"),
            lambda: store.copy("data", "key", "data", "a/../b"),
            lambda: store.move("data", "key", "data", "a/../b"),
            lambda: store.presign_put("data", "a/../b"),
        ):
            with pytest.raises(InvalidNameError, match="segment"):
                await call()
        assert [entry.key for entry in await store.list("data").all()] == ["key"]


async def test_bulk_delete_reports_a_key_that_the_backend_cannot_address() -> None:
    async with single_attempt_store(CallLog()) as store:
        await store.create_bucket("data")
        results = [result async for result in store.delete_many("data", ["../key"])]
        assert [type(result.error) for result in results] == [InvalidNameError]


async def test_explain_accepts_dot_segments_and_rejects_invalid_names() -> None:
    async with single_attempt_store(CallLog()) as store:
        assert (await store.explain("data", "../key")).backend == "default"
        for bucket, key in (("", "key"), ("a/b", "key"), ("data", "")):
            with pytest.raises(InvalidNameError):
                await store.explain(bucket, key)


async def test_bucket_names_are_checked_by_every_operation() -> None:
    driver = CallLog()
    async with single_attempt_store(driver) as store:
        for call in (store.list, store.list_versions, lambda bucket: store.delete_many(bucket, [])):
            with pytest.raises(InvalidNameError):
                call("a/b")
        for async_call in (store.create_bucket, store.delete_bucket):
            with pytest.raises(InvalidNameError):
                await async_call("a/b")
    assert driver.calls == ["open", "aclose"]


async def test_object_info_is_accepted_as_a_condition() -> None:
    driver = CallLog()
    async with single_attempt_store(driver) as store:
        await store.create_bucket("data")
        info: ObjectInfo = await store.put("data", "key", b"1")
        assert await store.read("data", "key", if_match=info) == b"1"
        info = await store.put("data", "key", b"2", if_match=info)
        await store.delete("data", "key", if_match=info)
        assert not await store.exists("data", "key")


def test_metadata_names_are_converted_to_lower_case() -> None:
    assert checks.put_options(metadata={"Colour": "Blue"}).metadata == {"colour": "Blue"}
    assert checks.put_options().metadata == {}
    changes = checks.copy_overrides(metadata={"Colour": "Blue"}, write_id="w")
    assert changes.put.metadata == {"colour": "Blue"}


@pytest.mark.parametrize(
    ("expires", "expected"),
    [
        (datetime(2031, 1, 1, 1, 30, 0, 999_999, tzinfo=timezone(timedelta(hours=2))),
         datetime(2030, 12, 31, 23, 30, tzinfo=UTC)),
        (datetime.max.replace(tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)),
        (datetime.min.replace(tzinfo=UTC), datetime(1, 1, 1, tzinfo=UTC)),
    ],
)  # fmt: skip
def test_expires_is_kept_in_utc_and_whole_seconds(expires: datetime, expected: datetime) -> None:
    packed = checks.put_options(expires=expires).expires
    assert packed == expected
    assert packed is not None
    assert packed.tzinfo is UTC


def test_empty_headers_and_storage_class_are_none() -> None:
    packed = checks.put_options(
        content_type="", cache_control="", content_disposition="", content_encoding="",
        content_language="", storage_class="",
    )  # fmt: skip
    assert packed == PutOptions()


def test_options_are_packed_unchanged() -> None:
    packed = checks.get_options(range=(1, 2), version_id="v", if_match="a", if_none_match="b")
    assert packed == GetOptions(range=packed.range, version_id="v", if_match="a", if_none_match="b")
    assert packed.range is not None
    assert packed.range.resolve(9) == (1, 2)
    assert isinstance(checks.put_options(size=3), PutOptions)


def test_options_of_a_body_have_its_size_and_all_checksums() -> None:
    options = checks.put_options(content_type="text/plain", write_id="1")
    options.complete(5, {"crc32c": "a"})
    assert options == PutOptions(
        size=5, content_type="text/plain", write_id="1", checksums={"crc32c": "a"}
    )
    of_body = options.of_body(6, {"md5": "b"})
    assert of_body == PutOptions(
        size=6, content_type="text/plain", write_id="1", checksums={"crc32c": "a", "md5": "b"}
    )
    assert options.size == 5
