"""Responses to the SDK that lack elements, or are not the expected document."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal
from unittest.mock import MagicMock

import pytest

from tests.drivers.s3.scripted_transport import now
from tests.http.scripted_server import respond_with, serving
from trove_async.drivers.s3 import S3Driver
from trove_async.drivers.s3._credentials import Endpoint
from trove_async.drivers.s3._data_plane import UnconfirmedWriteError, UploadId
from trove_async.drivers.s3._dialects import S3, Service
from trove_async.drivers.s3._object_settings import ObjectSettings
from trove_async.drivers.s3._sdk import SdkPlane
from trove_async.drivers.s3._sdk_multipart import _check_root
from trove_async.errors import BackendError, UnavailableError
from trove_async.models import ObjectInfo
from trove_async.options import CopyOptions, ListOptions, Part, PutOptions
from trove_async.testing import opened

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

SOURCE = ObjectInfo(bucket="data", key="from", size=1, etag="e", last_modified=now())
UPLOAD = UploadId("data", "key", "u")
PART = Part(number=1, offset=0, size=0, last=True)


class FakeSdkClient:
    """A client that returns the same response to every call."""

    def __init__(self, response: dict[str, Any]) -> None:
        self.sdk = MagicMock()
        self.response = response

    async def call(self, _operation: str, **_: object) -> tuple[dict[str, Any], dict[str, str]]:
        return self.response, {}


def plane_of(response: dict[str, Any]) -> SdkPlane:
    """Return a plane whose client returns this response to every call."""
    endpoint = Endpoint.from_url("http://127.0.0.1:9", "us-east-1")
    service: Any = Service("s3", endpoint, MagicMock())
    assert service.dialect is S3
    client: Any = FakeSdkClient(response)
    return SdkPlane(
        client,
        endpoint,
        "default",
        service,
        owner=None,
        checksums=False,
        object_settings=ObjectSettings(),
    )


@pytest.mark.parametrize(
    ("response", "call"),
    [
        ({"Contents": [{"Key": "a"}]}, lambda plane: plane.list_objects("data", ListOptions())),
        ({"CommonPrefixes": [{}]}, lambda plane: plane.list_objects("data", ListOptions())),
        ({"Deleted": [{}]}, lambda plane: plane.delete_objects("data", ["a"])),
        ({"Errors": [{"Code": "x"}]}, lambda plane: plane.delete_objects("data", ["a"])),
        ({}, lambda plane: plane.create_upload("data", "key", PutOptions())),
        ({}, lambda plane: plane.upload_part(UPLOAD, PART, [])),
        ({}, lambda plane: plane.copy_part(UPLOAD, 1, SOURCE, (0, 1))),
        ({"CopyPartResult": {}}, lambda plane: plane.copy_part(UPLOAD, 1, SOURCE, (0, 1))),
        ({"Uploads": [{"Key": "a"}]}, lambda plane: plane.list_uploads("data", None)),
        ({"IsTruncated": True}, lambda plane: plane.list_uploads("data", None)),
        ({"Buckets": [{"Name": "a"}]}, lambda plane: plane.list_buckets()),
    ],
)  # fmt: skip
async def test_response_without_a_required_element_raises_unavailable(
    response: dict[str, Any], call: Callable[[SdkPlane], Awaitable[object]]
) -> None:
    with pytest.raises(UnavailableError, match="lacks"):
        await call(plane_of(response))


async def test_copy_without_a_result_raises_unconfirmed_write_error() -> None:
    options = CopyOptions(source=SOURCE, put=PutOptions())
    with pytest.raises(UnconfirmedWriteError):
        await plane_of({}).copy_object("data", "from", "data", "to", options)


async def test_list_buckets_raises_when_the_token_repeats() -> None:
    with pytest.raises(BackendError, match="same page again"):
        await plane_of({"ContinuationToken": "t"}).list_buckets()


HTML_PAGE = b"<!DOCTYPE html><html><body>Log in</body></html>"


@pytest.mark.parametrize("data_plane", ["lean", "sdk"])
@pytest.mark.parametrize(
    "call",
    [
        lambda driver: driver.list_page("data", ListOptions()),
        lambda driver: driver.version_page("data", ListOptions()),
        lambda driver: driver.list_buckets(),
        lambda driver: driver.gc_uploads("data", older_than=0),
    ],
    ids=["list_page", "version_page", "list_buckets", "gc_uploads"],
)
async def test_html_page_of_a_proxy_is_not_an_empty_listing(
    call: Callable[[S3Driver], Awaitable[object]], data_plane: Literal["lean", "sdk"]
) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n" % len(
        HTML_PAGE
    )
    async with serving(respond_with(head + HTML_PAGE)) as server:
        driver = S3Driver(
            region="us-east-1",
            endpoint_url=server.origin.url,
            access_key_id="id",
            secret_access_key="secret",
            dialect="s3",
            data_plane=data_plane,
        )
        async with opened(driver):
            with pytest.raises(UnavailableError, match="response is malformed"):
                await call(driver)


async def test_namespaced_and_commented_listings_of_the_sdk_are_accepted() -> None:
    namespaced = b'<s3:ListBucketResult xmlns:s3="http://s3/"></s3:ListBucketResult>'
    pages = [b'<?xml version="1.0"?>\n<!-- a page -->' + namespaced, b"\n <ListBucketResult/>"]
    for page in pages:
        _check_root(b"ListBucketResult", {"status_code": 200, "body": page})
    _check_root(b"ListBucketResult", {"status_code": 404, "body": HTML_PAGE})
