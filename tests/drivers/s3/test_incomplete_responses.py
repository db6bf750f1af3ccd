"""Successful writes whose responses lack the ETag or the date of the stored object."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from tests.drivers.s3.scripted_transport import OBJECT_HEADERS, now, response
from trove_async.errors import UnavailableError
from trove_async.models import ObjectInfo
from trove_async.options import CopyOptions, Part, PutOptions

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.drivers.s3.scripted_transport import FakeResponse

UPLOAD = "<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>"
OPTIONS = PutOptions(write_id="mine")
OWN_OBJECT = {
    **OBJECT_HEADERS,
    "content-length": "4",
    "etag": '"e-1"',
    "x-amz-meta-trove-write-id": "mine",
}
OTHER_OBJECT = {**OWN_OBJECT, "x-amz-meta-trove-write-id": "other"}


def write_cases() -> list[Any]:
    """Return the kinds of writes, each with its responses. The last response has no ETag."""
    documents = {
        "an empty ETag": "<CompleteMultipartUploadResult><ETag></ETag></CompleteMultipartUploadResult>",
        "no ETag": "<CompleteMultipartUploadResult></CompleteMultipartUploadResult>",
        "an unknown root": "<Done/>",
        "no document": "",
    }
    return [
        pytest.param("put", lambda: [response()], id="put, no ETag"),
        pytest.param("put", lambda: [response(etag="")], id="put, an empty ETag"),
        *(
            pytest.param(
                "commit",
                lambda document=document: [
                    response(body=UPLOAD),
                    response(etag='"p"'),
                    response(body=document),
                ],
                id=f"commit, {name}",
            )
            for name, document in documents.items()
        ),
        *(
            pytest.param(
                "copy",
                lambda document=document: [
                    response(body=document.replace("CompleteMultipartUpload", "Copy"))
                ],
                id=f"copy, {name}",
            )
            for name, document in documents.items()
        ),
    ]


async def write(driver: Any, kind: str, options: PutOptions) -> ObjectInfo:
    body = [memoryview(b"body")]
    info: ObjectInfo
    if kind == "put":
        info = await driver.put("data", "key", body, options)
    elif kind == "copy":
        source = ObjectInfo(bucket="data", key="k", size=4, etag="e", last_modified=now())
        copy_options = CopyOptions(source=source, put=options)
        info = await driver.copy("data", "k", "data", "key", copy_options)
    else:
        async with driver.upload("data", "key", options) as upload:
            await upload.send(Part(number=1, offset=0, size=4, last=True), body)
            info = await upload.commit({})
    return info


@pytest.mark.parametrize(("kind", "responses"), write_cases())
async def test_write_is_confirmed_by_a_head(
    scripted_driver: Any, kind: str, responses: Callable[[], list[FakeResponse]]
) -> None:
    transport, opened_driver = scripted_driver(*responses(), response(headers=OWN_OBJECT))
    async with opened_driver as driver:
        info = await write(driver, kind, OPTIONS)
    assert (info.etag, info.size, info.write_id) == ("e-1", 4, "mine")
    assert transport.request_lines[-1].startswith("HEAD")


@pytest.mark.parametrize(("kind", "responses"), write_cases())
@pytest.mark.parametrize("stored", ["other write", "missing"])
async def test_write_that_a_head_does_not_confirm_is_retryable(
    scripted_driver: Any, kind: str, responses: Callable[[], list[FakeResponse]], stored: str
) -> None:
    def head() -> FakeResponse:
        return response(headers=OTHER_OBJECT) if stored == "other write" else response(404)

    # A second HEAD precedes the abort: on some services an abort deletes the completed object.
    abort_responses = [head(), response(204)] if kind == "commit" else []
    _, opened_driver = scripted_driver(*responses(), head(), *abort_responses)
    async with opened_driver as driver:
        with pytest.raises(UnavailableError, match="the service reported success") as caught:
            await write(driver, kind, OPTIONS)
        assert caught.value.retryable


async def test_write_without_an_id_is_confirmed_by_its_size(scripted_driver: Any) -> None:
    for size, is_confirmed in (("4", True), ("5", False)):
        transport, opened_driver = scripted_driver(
            response(), response(headers={**OBJECT_HEADERS, "content-length": size})
        )
        async with opened_driver as driver:
            if is_confirmed:
                assert (await write(driver, "put", PutOptions())).etag == "e"
            else:
                with pytest.raises(UnavailableError):
                    await write(driver, "put", PutOptions())
        assert len(transport.requests) == 2


async def test_head_requests_the_version_in_the_response(scripted_driver: Any) -> None:
    transport, opened_driver = scripted_driver(
        response(headers={"x-amz-version-id": "v1"}), response(headers=OWN_OBJECT)
    )
    async with opened_driver as driver:
        await write(driver, "put", OPTIONS)
    assert transport.request_lines[-1].endswith("/key?versionId=v1")


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        (
            {"last-modified": "Wed, 01 Jan 2025 00:00:01 GMT"},
            datetime(2025, 1, 1, 0, 0, 1, tzinfo=UTC),
        ),
        ({}, datetime(2025, 1, 1, tzinfo=UTC)),
        ({"last-modified": "yesterday"}, datetime(2025, 1, 1, tzinfo=UTC)),
    ],
    ids=["valid", "missing", "invalid"],
)
async def test_put_takes_its_date_from_the_response(
    scripted_driver: Any, headers: dict[str, str], expected: datetime
) -> None:
    date = "Wed, 01 Jan 2025 00:00:00 GMT"
    _, opened_driver = scripted_driver(response(headers={"etag": '"e"', "date": date, **headers}))
    async with opened_driver as driver:
        assert (await write(driver, "put", OPTIONS)).last_modified == expected


async def test_put_succeeds_when_the_response_has_an_invalid_date(scripted_driver: Any) -> None:
    _, opened_driver = scripted_driver(response(headers={"etag": '"e"', "date": "the day before"}))
    before = now()
    async with opened_driver as driver:
        assert (await write(driver, "put", OPTIONS)).last_modified >= before
