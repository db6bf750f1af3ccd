"""Malformed responses. Most of them have a status of success."""

from __future__ import annotations

import json
from codecs import BOM_UTF8
from typing import TYPE_CHECKING, Any

import pytest

from tests.drivers.gcs.proxied_store import NO_RETRY, proxied_store
from tests.http_faults import Response
from trove_async import UnavailableError
from trove_async.models import MiB

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from trove_async import Trove

RESOURCE: dict[str, Any] = {
    "name": "a",
    "size": "5",
    "generation": "1",
    "updated": "2020-01-01T00:00:00Z",
}


async def list_objects(store: Trove) -> None:
    await store.list("proxied").all()


async def list_buckets(store: Trove) -> None:
    await store.list_buckets()


async def head(store: Trove) -> None:
    await store.head("proxied", "a")


async def list_versions(store: Trove) -> None:
    await store.list_versions("proxied").all()


async def delete_many(store: Trove) -> None:
    await store.delete_many("proxied", ["a"])


async def three_pieces() -> AsyncIterator[bytes]:
    for _ in range(3):
        yield bytes(MiB)


def batch_response(number: int) -> bytes:
    return b"--x\r\nContent-ID: <response-delete+%d>\r\n\r\nHTTP/1.1 204 N\r\n\r\n--x--" % number


MALFORMED: list[tuple[Callable[[Trove], Awaitable[None]], bytes]] = [
    (list_objects, b"[" * 100_000),
    (list_objects, json.dumps({"items": [{**RESOURCE, "name": 5}]}).encode()),
    (list_objects, json.dumps({"items": [{**RESOURCE, "generation": 1}]}).encode()),
    (list_objects, json.dumps({"items": [RESOURCE], "prefixes": [5]}).encode()),
    (list_objects, json.dumps({"prefixes": [5]}).encode()),
    (list_objects, json.dumps({"items": [RESOURCE], "nextPageToken": 5}).encode()),
    (list_objects, json.dumps({"items": {"a": 1}}).encode()),
    (list_objects, json.dumps({"items": [{**RESOURCE, "name": "\ud800"}]}).encode()),
    *[
        (head, json.dumps({**RESOURCE, name: value}).encode())
        for name, value in [
            ("size", "\u0663"),
            ("size", "1_000"),
            ("size", "-1"),
            ("size", True),
            ("size", 1.5),
            ("size", "9" * 5000),
            ("updated", "2020-01-01T00:00:00"),
            ("updated", 5),
            ("contentType", []),
            ("storageClass", {}),
            ("cacheControl", 5),
            ("metadata", {"a": 5}),
            ("metadata", "abc"),
            ("crc32c", "AAAA"),
            ("crc32c", [5]),
            ("md5Hash", "\u00e9"),
        ]
    ],
    (list_versions, json.dumps({"items": [{**RESOURCE, "generation": "\u0663"}]}).encode()),
    (list_versions, json.dumps({"items": [{**RESOURCE, "name": []}]}).encode()),
    (head, json.dumps({**RESOURCE, "generation": 1}).encode()),
    (list_buckets, b'{"items": [{}]}'),
    (list_buckets, b'{"items": ["x"]}'),
    (list_buckets, b'{"items": [{"name": "a", "timeCreated": "x"}]}'),
    (delete_many, batch_response(10**20)),
]


@pytest.mark.parametrize(("operation", "body"), MALFORMED)
async def test_malformed_response_is_unavailable(
    operation: Callable[[Trove], Awaitable[None]], body: bytes
) -> None:
    headers = {"content-type": "multipart/mixed; boundary=x"}
    async with proxied_store(retry=NO_RETRY) as proxied:
        proxied.proxy.arm(Response(200, headers, body), times=None)
        with pytest.raises(UnavailableError):
            await operation(proxied.store)


async def test_byte_order_mark_of_a_document_is_ignored() -> None:
    """RFC 8259, 8.1 allows that."""
    async with proxied_store(retry=NO_RETRY) as proxied:
        document = BOM_UTF8 + json.dumps(RESOURCE).encode()
        proxied.proxy.arm(Response(200, {}, document), times=None)
        assert (await proxied.store.head("proxied", "a")).size == 5


@pytest.mark.parametrize(
    ("field", "value"),
    [("size", "-1"), ("updated", "x"), ("updated", "2020-01-01T00:00:00"), ("contentType", [])],
)
async def test_message_names_the_malformed_field(field: str, value: object) -> None:
    async with proxied_store(retry=NO_RETRY) as proxied:
        proxied.proxy.arm(Response(200, {}, json.dumps({**RESOURCE, field: value}).encode()))
        with pytest.raises(UnavailableError, match=f"malformed: .*{field} "):
            await head(proxied.store)


@pytest.mark.parametrize(
    "location",
    [
        "",
        "http://h",
        "not a URL",
        "ftp://h/o",
        "http://h/o\u00e9",
        "http://h/o?a b",
        "http://h/\x7f",
    ],
)
async def test_session_with_invalid_location_is_rejected(location: str) -> None:
    async with proxied_store(retry=NO_RETRY) as proxied:
        proxied.proxy.arm(Response(200, {"Location": location}))
        with pytest.raises(UnavailableError, match="Location"):
            await proxied.store.put(proxied.bucket, "key", three_pieces())


async def test_unparsable_error_body_falls_back_to_status() -> None:
    async with proxied_store(retry=NO_RETRY) as proxied:
        proxied.proxy.arm(Response(503, body=b'{"a":' * 100_000))
        with pytest.raises(UnavailableError, match="503"):
            await head(proxied.store)


async def test_persisted_size_beyond_sent_bytes_is_rejected() -> None:
    async with proxied_store() as proxied:
        proxied.proxy.arm(Response(308, {"Range": f"bytes=0-{2 * MiB - 1}"}), method="PUT")
        with pytest.raises(
            UnavailableError, match="reported 2097152 persisted bytes, but only 1048576 were sent"
        ):
            await proxied.store.put(proxied.bucket, "key", three_pieces())
        assert proxied.stored_body("key") is None


async def test_body_longer_than_object_is_rejected() -> None:
    headers = {
        "x-goog-generation": "5",
        "last-modified": "Wed, 01 Jan 2020 00:00:00 GMT",
        "x-goog-stored-content-encoding": "gzip",
        "x-goog-stored-content-length": "3",
    }
    async with proxied_store(retry=NO_RETRY) as proxied:
        proxied.proxy.arm(Response(200, headers, b"hello"))
        with pytest.raises(UnavailableError, match="5 bytes for an object of 3 bytes"):
            await proxied.store.read(proxied.bucket, "key")


async def test_partial_response_without_content_range_is_rejected() -> None:
    headers = {
        "x-goog-generation": "5",
        "last-modified": "Wed, 01 Jan 2020 00:00:00 GMT",
        "x-goog-stored-content-encoding": "identity",
    }
    async with proxied_store(retry=NO_RETRY) as proxied:
        proxied.proxy.arm(Response(206, headers, b"hello"))
        with pytest.raises(UnavailableError, match="must have a Content-Range"):
            await proxied.store.read(proxied.bucket, "key", range=(0, 5))


async def test_session_id_is_not_in_error_message() -> None:
    async with proxied_store(retry=NO_RETRY) as proxied:
        document = {"error": {"message": "no session at https://x/o?upload_id=SECRET&more"}}
        proxied.proxy.arm(Response(400, body=json.dumps(document).encode()))
        with pytest.raises(Exception, match="no session") as caught:
            await head(proxied.store)
        assert "SECRET" not in str(caught.value)
