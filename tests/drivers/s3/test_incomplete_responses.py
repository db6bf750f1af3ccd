"""Writes that succeed, and whose responses say nothing of what was stored."""

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
MINE = {
    **OBJECT_HEADERS,
    "content-length": "4",
    "etag": '"e-1"',
    "x-amz-meta-trove-write-id": "mine",
}
OTHER = {**MINE, "x-amz-meta-trove-write-id": "other"}


def ways() -> list[Any]:
    """Return how each write is answered, by its name and what the last document is."""
    documents = {
        "an empty ETag": "<CompleteMultipartUploadResult><ETag></ETag></CompleteMultipartUploadResult>",
        "no ETag": "<CompleteMultipartUploadResult></CompleteMultipartUploadResult>",
        "a root of its own": "<Done/>",
        "no document": "",
    }
    return [
        pytest.param("put", lambda: [response()], id="put, no ETag"),
        pytest.param("put", lambda: [response(etag="")], id="put, an empty ETag"),
        *(
            pytest.param(
                "commit",
                lambda text=text: [
                    response(body=UPLOAD),
                    response(etag='"p"'),
                    response(body=text),
                ],
                id=f"commit, {what}",
            )
            for what, text in documents.items()
        ),
        *(
            pytest.param(
                "copy",
                lambda text=text: [response(body=text.replace("CompleteMultipartUpload", "Copy"))],
                id=f"copy, {what}",
            )
            for what, text in documents.items()
        ),
    ]


async def store(driver: Any, way: str, options: PutOptions) -> ObjectInfo:
    body = [memoryview(b"body")]
    info: ObjectInfo
    if way == "put":
        info = await driver.put("data", "key", body, options)
    elif way == "copy":
        source = ObjectInfo(bucket="data", key="k", size=4, etag="e", last_modified=now())
        copying = CopyOptions(source=source, put=options)
        info = await driver.copy("data", "k", "data", "key", copying)
    else:
        async with driver.upload("data", "key", options) as upload:
            await upload.send(Part(number=1, offset=0, size=4, last=True), body)
            info = await upload.commit({})
    return info


@pytest.mark.parametrize(("way", "answers"), ways())
async def test_write_that_is_there_is_done(
    scripted_driver: Any, way: str, answers: Callable[[], list[FakeResponse]]
) -> None:
    transport, opened_driver = scripted_driver(*answers(), response(headers=MINE))
    async with opened_driver as driver:
        info = await store(driver, way, OPTIONS)
    assert (info.etag, info.size, info.write_id) == ("e-1", 4, "mine")
    assert transport.request_lines[-1].startswith("HEAD")


@pytest.mark.parametrize(("way", "answers"), ways())
@pytest.mark.parametrize("found", ["another write's", "none"])
async def test_write_that_is_not_there_may_be_tried_again(
    scripted_driver: Any, way: str, answers: Callable[[], list[FakeResponse]], found: str
) -> None:
    def head() -> FakeResponse:
        return response(headers=OTHER) if found == "another write's" else response(404)

    # An upload is aborted only after another look: some services lose the object by that.
    aborted = [head(), response(204)] if way == "commit" else []
    _, opened_driver = scripted_driver(*answers(), head(), *aborted)
    async with opened_driver as driver:
        with pytest.raises(UnavailableError, match="a success was answered") as caught:
            await store(driver, way, OPTIONS)
        assert caught.value.retryable


async def test_write_without_an_id_is_known_by_its_size(scripted_driver: Any) -> None:
    for size, done in (("4", True), ("5", False)):
        transport, opened_driver = scripted_driver(
            response(), response(headers={**OBJECT_HEADERS, "content-length": size})
        )
        async with opened_driver as driver:
            if done:
                assert (await store(driver, "put", PutOptions())).etag == "e"
            else:
                with pytest.raises(UnavailableError):
                    await store(driver, "put", PutOptions())
        assert len(transport.requests) == 2


async def test_head_asks_for_the_version_that_was_told(scripted_driver: Any) -> None:
    transport, opened_driver = scripted_driver(
        response(headers={"x-amz-version-id": "v1"}), response(headers=MINE)
    )
    async with opened_driver as driver:
        await store(driver, "put", OPTIONS)
    assert transport.request_lines[-1].endswith("/key?versionId=v1")


@pytest.mark.parametrize(
    ("said", "moment"),
    [
        (
            {"last-modified": "Wed, 01 Jan 2025 00:00:01 GMT"},
            datetime(2025, 1, 1, 0, 0, 1, tzinfo=UTC),
        ),
        ({}, datetime(2025, 1, 1, tzinfo=UTC)),
        ({"last-modified": "yesterday"}, datetime(2025, 1, 1, tzinfo=UTC)),
    ],
    ids=["told", "not told", "nonsense"],
)
async def test_date_of_a_put_is_what_its_response_tells(
    scripted_driver: Any, said: dict[str, str], moment: datetime
) -> None:
    date = "Wed, 01 Jan 2025 00:00:00 GMT"
    _, opened_driver = scripted_driver(response(headers={"etag": '"e"', "date": date, **said}))
    async with opened_driver as driver:
        assert (await store(driver, "put", OPTIONS)).last_modified == moment


async def test_put_that_is_answered_with_a_broken_date_is_done(scripted_driver: Any) -> None:
    _, opened_driver = scripted_driver(response(headers={"etag": '"e"', "date": "the day before"}))
    before = now()
    async with opened_driver as driver:
        assert (await store(driver, "put", OPTIONS)).last_modified >= before
