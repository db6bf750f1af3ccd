"""Multipart bodies of uploads and batches."""

from __future__ import annotations

from email import message_from_bytes
from email.message import Message

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.drivers.gcs.in_memory_gcs_server import _parts
from trove_async.drivers.gcs import _batch_delete
from trove_async.drivers.gcs._multipart import encode_related
from trove_async.errors import InvalidNameError, NotFoundError, UnavailableError
from trove_async.models import KiB


@given(body=st.binary(max_size=300), cut=st.integers(1, 50))
def test_multipart_body_round_trips(body: bytes, cut: int) -> None:
    views = [memoryview(body)[at : at + cut] for at in range(0, len(body), cut)]
    content_type, sent = encode_related(b'{"name": "key"}', "text/plain; x=y", views)
    said, media = _parts(content_type, b"".join(sent))
    assert said == {"name": "key", "contentType": "text/plain; x=y"}
    assert media == body


def test_large_body_is_not_copied() -> None:
    body = bytearray(100 * KiB)
    views = [memoryview(body)[: 50 * KiB], memoryview(body)[50 * KiB :]]
    _, (head, *sent, tail) = encode_related(b"{}", "text/plain", views)
    assert all(one is other for one, other in zip(sent, views, strict=True))
    assert len(head) + len(tail) < 400


def test_boundary_is_unique() -> None:
    assert len({encode_related(b"{}", "text/plain", [])[0] for _ in range(100)}) == 100


@pytest.mark.parametrize("mark", ["\r", "\n", "\0", "\r\n"])
def test_content_type_with_line_break_is_rejected(mark: str) -> None:
    with pytest.raises(InvalidNameError):
        encode_related(b"{}", f"text/plain{mark}X-Evil: 1", [])


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


ANSWER = (
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
        "multipart/mixed; boundary=x", ANSWER, ["a", "b", "c", "d"]
    )
    assert [result.key for result in results] == ["a", "b", "c", "d"]
    assert results[0].error is None
    assert isinstance(results[1].error, NotFoundError)
    assert isinstance(results[2].error, UnavailableError)
    assert "no part for this key" in str(results[3].error)


def test_batch_response_without_parts_is_malformed() -> None:
    with pytest.raises(UnavailableError):
        _batch_delete.parse_results("application/json", b"{}", ["a"])
