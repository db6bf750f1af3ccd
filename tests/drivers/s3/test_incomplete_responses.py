"""Writes that succeed, and whose responses say nothing of what was stored."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from tests.drivers.s3.scripted_transport import FACTS, answer, now
from trove_async.errors import UnavailableError
from trove_async.models import ObjectInfo
from trove_async.options import CopyOptions, Part, PutOptions

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.drivers.s3.scripted_transport import FakeResponse

UPLOAD = "<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>"
OPTIONS = PutOptions(write_id="mine")
MINE = {**FACTS, "content-length": "4", "etag": '"e-1"', "x-amz-meta-trove-write-id": "mine"}
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
        pytest.param("put", lambda: [answer()], id="put, no ETag"),
        pytest.param("put", lambda: [answer(etag="")], id="put, an empty ETag"),
        *(
            pytest.param(
                "commit",
                lambda text=text: [answer(body=UPLOAD), answer(etag='"p"'), answer(body=text)],
                id=f"commit, {what}",
            )
            for what, text in documents.items()
        ),
        *(
            pytest.param(
                "copy",
                lambda text=text: [answer(body=text.replace("CompleteMultipartUpload", "Copy"))],
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
    play: Any, way: str, answers: Callable[[], list[FakeResponse]]
) -> None:
    script, opening = play(*answers(), answer(said=MINE))
    async with opening as driver:
        info = await store(driver, way, OPTIONS)
    assert (info.etag, info.size, info.write_id) == ("e-1", 4, "mine")
    assert script.asked[-1].startswith("HEAD")


@pytest.mark.parametrize(("way", "answers"), ways())
@pytest.mark.parametrize("found", ["another write's", "none"])
async def test_write_that_is_not_there_may_be_tried_again(
    play: Any, way: str, answers: Callable[[], list[FakeResponse]], found: str
) -> None:
    def head() -> FakeResponse:
        return answer(said=OTHER) if found == "another write's" else answer(404)

    # An upload is aborted only after another look: some services lose the object by that.
    aborted = [head(), answer(204)] if way == "commit" else []
    _, opening = play(*answers(), head(), *aborted)
    async with opening as driver:
        with pytest.raises(UnavailableError, match="a success was answered") as caught:
            await store(driver, way, OPTIONS)
        assert caught.value.retryable


async def test_write_without_an_id_is_known_by_its_size(play: Any) -> None:
    for size, done in (("4", True), ("5", False)):
        script, opening = play(answer(), answer(said={**FACTS, "content-length": size}))
        async with opening as driver:
            if done:
                assert (await store(driver, "put", PutOptions())).etag == "e"
            else:
                with pytest.raises(UnavailableError):
                    await store(driver, "put", PutOptions())
        assert len(script.sent) == 2


async def test_head_asks_for_the_version_that_was_told(play: Any) -> None:
    script, opening = play(answer(said={"x-amz-version-id": "v1"}), answer(said=MINE))
    async with opening as driver:
        await store(driver, "put", OPTIONS)
    assert script.asked[-1].endswith("/key?versionId=v1")


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
    play: Any, said: dict[str, str], moment: datetime
) -> None:
    date = "Wed, 01 Jan 2025 00:00:00 GMT"
    _, opening = play(answer(said={"etag": '"e"', "date": date, **said}))
    async with opening as driver:
        assert (await store(driver, "put", OPTIONS)).last_modified == moment


async def test_put_that_is_answered_with_a_broken_date_is_done(play: Any) -> None:
    _, opening = play(answer(said={"etag": '"e"', "date": "the day before"}))
    before = now()
    async with opening as driver:
        assert (await store(driver, "put", OPTIONS)).last_modified >= before
