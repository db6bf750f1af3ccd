"""Large XML documents, and documents that are expensive to parse."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from tests.drivers.s3.scripted_transport import EMPTY_PAGE, FakeResponse, response
from trove_async.drivers.s3 import _list_objects
from trove_async.drivers.s3._xml import MalformedResponse, is_large, parse
from trove_async.errors import PermissionDeniedError
from trove_async.models import KiB, MiB
from trove_async.options import ListOptions, PutOptions

OBJECT = (
    "<Contents><Key>{:04}{}</Key><LastModified>2025-01-01T00:00:00.000Z</LastModified>"
    '<ETag>"e"</ETag><Size>5</Size><StorageClass>STANDARD</StorageClass></Contents>'
)


def page(count: int, padding: int) -> str:
    objects = "".join([OBJECT.format(number, "k" * padding) for number in range(count)])
    return f"<ListBucketResult><IsTruncated>false</IsTruncated>{objects}</ListBucketResult>"


@pytest.mark.parametrize(("padding", "large"), [(10, False), (3000, True)])
async def test_large_page_is_parsed_in_a_thread(
    scripted_driver: Any, monkeypatch: pytest.MonkeyPatch, padding: int, *, large: bool
) -> None:
    threads: list[threading.Thread] = []
    page_of = _list_objects._page_of

    def recording_page_of(*args: Any) -> Any:
        threads.append(threading.current_thread())
        return page_of(*args)

    monkeypatch.setattr(_list_objects, "_page_of", recording_page_of)
    body = page(500, padding)
    assert is_large(body.encode()) is large
    _, opened_driver = scripted_driver(response(body=body))
    async with opened_driver as driver:
        listed = await driver.list_page("data", ListOptions())
    assert [entry.key[:4] for entry in listed.entries] == [f"{n:04}" for n in range(500)]
    assert (threads[0] is threading.main_thread()) is not large


def test_document_with_too_many_tags_is_malformed() -> None:
    text = "<a>" + "<b/>" * 199_000 + "</a>"
    assert len(parse(text)) == 199_000
    with pytest.raises(MalformedResponse, match="200000 tags"):
        parse("<a>" + "<b/>" * 200_000 + "</a>")


def test_document_parsed_in_slices_is_read_completely() -> None:
    text = "<a>" + "".join([f"<b c='{'é' * 50}'>&lt;{n}</b>" for n in range(5000)]) + "</a>"
    assert len(text) > 4 * 64 * KiB
    root = parse(text)
    assert [child.text for child in root] == [f"<{n}" for n in range(5000)]


class LimitRecordingResponse(FakeResponse):
    """A response that records the `limit` argument of `read_all`."""

    limit = 0

    async def read_all(self, limit: int) -> bytes:
        self.limit = limit
        return await super().read_all(limit)


UPLOAD = b"<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>"


async def test_each_kind_of_document_has_its_own_size_limit(scripted_driver: Any) -> None:
    page_response = LimitRecordingResponse(200, {}, EMPTY_PAGE)
    upload = LimitRecordingResponse(200, {}, UPLOAD)
    error = LimitRecordingResponse(403, {}, b"<Error><Code>AccessDenied</Code></Error>")
    _, opened_driver = scripted_driver(page_response, upload, error)
    async with opened_driver as driver:
        await driver.list_page("data", ListOptions())
        await driver._plane.create_upload("data", "key", PutOptions())
        with pytest.raises(PermissionDeniedError):
            await driver.list_page("data", ListOptions())
    assert (page_response.limit, upload.limit, error.limit) == (16 * MiB, 256 * KiB, 64 * KiB)
