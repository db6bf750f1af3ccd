"""Many keys deleted in one batch request."""

from __future__ import annotations

from email import message_from_bytes
from email.message import Message
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from tests.drivers.gcs.proxied_store import NO_RETRY, proxied_store
from tests.http_faults import Response
from trove_async import UnavailableError
from trove_async.drivers.gcs import _batch_delete
from trove_async.errors import NotFoundError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.drivers.gcs.proxied_store import ProxiedStore

# -- encoding and parsing --------------------------------------------------------------------------


def test_batch_has_one_part_per_request() -> None:
    content_type, body = _batch_delete.encode_batch("bucket", ["a/b", "gr\u00fc\u00df %"])
    message = message_from_bytes(f"Content-Type: {content_type}\r\n\r\n".encode() + body)
    parts = message.get_payload()
    assert isinstance(parts, list)
    lines = []
    for part in parts:
        assert isinstance(part, Message)
        assert part.get_content_type() == "application/http"
        lines.append(str(part.get_payload()).splitlines()[0])
    assert lines == [
        "DELETE /storage/v1/b/bucket/o/a%2Fb HTTP/1.1",
        "DELETE /storage/v1/b/bucket/o/gr%C3%BC%C3%9F%20%25 HTTP/1.1",
    ]


PARTS = (
    b"--x\r\nContent-Type: application/http\r\nContent-ID: <response-delete+1>\r\n\r\n"
    b"HTTP/1.1 404 Not Found\r\nContent-Type: application/json\r\n\r\n{}\r\n"
    b"--x\r\nContent-Type: application/http\r\nContent-ID: <response-delete+0>\r\n\r\n"
    b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n\r\n"
    b"--x\r\nContent-Type: application/http\r\nContent-ID: <response-delete+2>\r\n\r\n"
    b"HTTP/1.1 503 Busy\r\n\r\n"
    b'{"error": {"errors": [{"reason": "backendError"}], "message": "m"}}\r\n--x--\r\n'
)


def test_batch_responses_are_matched_by_content_id() -> None:
    results = _batch_delete.parse_results(
        "multipart/mixed; boundary=x", PARTS, ["a", "b", "c", "d"]
    )
    assert [result.key for result in results] == ["a", "b", "c", "d"]
    assert results[0].error is None
    assert isinstance(results[1].error, NotFoundError)
    assert isinstance(results[2].error, UnavailableError)
    assert "no part for this key" in str(results[3].error)


def test_batch_response_that_is_not_multipart_is_malformed() -> None:
    with pytest.raises(UnavailableError):
        _batch_delete.parse_results("application/json", b"{}", ["a"])


# -- batches with failed parts ---------------------------------------------------------------------


@pytest_asyncio.fixture
async def proxied() -> AsyncIterator[ProxiedStore]:
    async with proxied_store() as proxied:
        yield proxied


BATCH_RESPONSE = (
    b"--x\r\nContent-ID: <response-delete+0>\r\n\r\nHTTP/1.1 %d Busy\r\n\r\n{}\r\n"
    b"--x\r\nContent-ID: <response-delete+1>\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n\r\n--x--\r\n"
)
BATCH_HEADERS = {"Content-Type": "multipart/mixed; boundary=x"}


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_retryable_failure_in_batch_is_retried_alone(
    proxied: ProxiedStore, status: int
) -> None:
    proxied.put_directly("key", b"body")
    proxied.proxy.arm(Response(200, BATCH_HEADERS, BATCH_RESPONSE % status), method="POST")
    await proxied.store.delete_many(proxied.bucket, ["key", "none"])
    assert proxied.stored_body("key") is None
    deleted = [request.path for request in proxied.proxy.requests if request.method == "DELETE"]
    assert deleted == [f"/storage/v1/b/{proxied.bucket}/o/key"]


async def test_repeated_failure_of_one_batch_key_is_reported(proxied: ProxiedStore) -> None:
    proxied.put_directly("key", b"body")
    proxied.proxy.arm(Response(200, BATCH_HEADERS, BATCH_RESPONSE % 503), method="POST")
    proxied.proxy.arm(Response(503), method="DELETE", times=None)
    errors_by_key = {
        result.key: result.error
        async for result in proxied.store.delete_many(proxied.bucket, ["key", "none"])
    }
    assert isinstance(errors_by_key["key"], UnavailableError)
    assert errors_by_key["none"] is None
    assert proxied.stored_body("key") == b"body"


async def test_failed_batch_key_raises_if_retries_are_disabled() -> None:
    async with proxied_store(retry=NO_RETRY) as proxied:
        proxied.proxy.arm(Response(200, BATCH_HEADERS, BATCH_RESPONSE % 503), method="POST")
        with pytest.raises(UnavailableError):
            await proxied.store.delete_many(proxied.bucket, ["key", "none"])
        assert proxied.requests == ["POST batch"]
