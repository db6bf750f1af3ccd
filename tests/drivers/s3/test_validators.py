"""Objects without a strong validator: reads never join two versions, and conditions raise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.drivers.s3.scripted_transport import SECRET, FakeResponse, ScriptedTransport, response
from tests.fakes import IMMEDIATE_RETRIES
from trove_async import ByteRange, ObjectChangedError, Trove
from trove_async.drivers.s3 import S3Driver
from trove_async.drivers.s3 import _components as components_module
from trove_async.drivers.s3._documents import NAMESPACE

if TYPE_CHECKING:
    from collections.abc import Mapping

NO_VALIDATOR: list[Mapping[str, str]] = [{}, {"etag": '""'}, {"etag": 'W/"weak"'}, {"etag": ""}]
"""Headers of services that return no strong validator."""

NO_VALIDATOR_IDS = ["no ETag", "empty quotes", "weak", "empty value"]
NOON = "Wed, 01 Jan 2025 12:00:00 GMT"
A_SECOND_LATER = "Wed, 01 Jan 2025 12:00:01 GMT"
EVENING = "Wed, 01 Jan 2025 20:00:00 GMT"


@pytest.fixture
def scripted_store(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that creates a transport with scripted responses, and a store over it."""

    def store_over(*responses: FakeResponse) -> tuple[ScriptedTransport, Trove]:
        transport = ScriptedTransport(*responses)
        monkeypatch.setattr(components_module, "transport_over", lambda *_, **__: transport)
        driver = S3Driver(
            region="us-east-1",
            endpoint_url="https://s3.us-east-1.amazonaws.com",
            access_key_id="KEYID",
            secret_access_key=SECRET,
        )
        return transport, Trove(driver, retry=IMMEDIATE_RETRIES)

    return store_over


def get_response(
    data: bytes,
    etag: Mapping[str, str],
    *,
    size: int = 10,
    start: int = 0,
    end: int | None = None,
    modified: str = NOON,
    date: str = EVENING,
    version: str | None = None,
) -> FakeResponse:
    """Return the response to a GET. If `data` is shorter than its range, the connection breaks."""
    end = size if end is None else end
    headers = {**etag, "last-modified": modified, "date": date, "content-length": str(end - start)}
    if version is not None:
        headers["x-amz-version-id"] = version
    if (start, end) == (0, size):
        return response(200, data, headers)
    return response(206, data, {**headers, "content-range": f"bytes {start}-{end - 1}/{size}"})


def conditional_headers(transport: ScriptedTransport) -> list[dict[str, str]]:
    """Return the conditional headers of each request."""
    return [
        {name: value for name, value in request.headers.items() if name.startswith("if-")}
        for request in transport.requests
    ]


@pytest.mark.parametrize("etag", NO_VALIDATOR, ids=NO_VALIDATOR_IDS)
async def test_object_without_a_strong_validator_has_no_etag(
    scripted_store: Any, etag: Mapping[str, str]
) -> None:
    listing = (
        "<ListBucketResult><IsTruncated>false</IsTruncated><Contents><Key>key</Key>"
        f"<LastModified>2025-01-01T12:00:00Z</LastModified><ETag>{etag.get('etag', '')}</ETag>"
        "<Size>10</Size></Contents></ListBucketResult>"
    )
    versions = (
        f'<ListVersionsResult xmlns="{NAMESPACE}"><Version><Key>key</Key><VersionId>1</VersionId>'
        f"<ETag>{etag.get('etag', '')}</ETag><LastModified>2025-01-01T12:00:00Z</LastModified>"
        "<Size>10</Size></Version></ListVersionsResult>"
    )
    head = {**etag, "last-modified": NOON, "date": EVENING, "content-length": "10"}
    _, store = scripted_store(
        response(headers=head), response(body=listing), response(body=versions)
    )
    async with store:
        info = await store.head("data", "key")
        [entry] = await store.list("data").all()
        [version] = await store.list_versions("data").all()
    assert info.etag is entry.etag is version.etag is None


@pytest.mark.parametrize("etag", NO_VALIDATOR, ids=NO_VALIDATOR_IDS)
async def test_broken_body_without_a_validator_resumes_by_its_date(
    scripted_store: Any, etag: Mapping[str, str]
) -> None:
    transport, store = scripted_store(
        get_response(b"01234", etag), get_response(b"56789", etag, start=5)
    )
    async with store:
        assert await store.read("data", "key") == b"0123456789"
    assert conditional_headers(transport) == [{}, {}]
    assert transport.requests[1].headers["range"] == "bytes=5-9"


@pytest.mark.parametrize("etag", NO_VALIDATOR, ids=NO_VALIDATOR_IDS)
@pytest.mark.parametrize(
    "changes",
    [
        {"modified": EVENING},
        {"modified": A_SECOND_LATER},
        {"size": 11, "end": 10},
    ],
    ids=["replaced much later", "replaced a second later", "of a different size"],
)
async def test_broken_body_without_a_validator_never_joins_two_versions(
    scripted_store: Any, etag: Mapping[str, str], changes: dict[str, Any]
) -> None:
    _, store = scripted_store(
        get_response(b"01234", etag), get_response(b"56789", etag, start=5, **changes)
    )
    async with store:
        with pytest.raises(ObjectChangedError):
            await store.read("data", "key")


async def test_broken_body_whose_validator_appears_or_disappears_is_not_resumed(
    scripted_store: Any,
) -> None:
    for first, second in (({"etag": '"a"'}, {}), ({}, {"etag": '"a"'})):
        _, store = scripted_store(
            get_response(b"01234", first), get_response(b"56789", second, start=5)
        )
        async with store:
            with pytest.raises(ObjectChangedError):
                await store.read("data", "key")


@pytest.mark.parametrize("etag", NO_VALIDATOR, ids=NO_VALIDATOR_IDS)
async def test_body_written_in_the_second_of_the_response_is_not_resumed(
    scripted_store: Any, etag: Mapping[str, str]
) -> None:
    # A later write in the same second would have the same date.
    transport, store = scripted_store(get_response(b"01234", etag, date=NOON))
    async with store, store.get("data", "key") as reader:
        assert await reader.read(5) == b"01234"
        with pytest.raises(ObjectChangedError, match="no strong validator"):
            await reader.read(5)
    assert len(transport.requests) == 1


async def test_version_id_pins_an_object_without_a_validator(scripted_store: Any) -> None:
    transport, store = scripted_store(
        get_response(b"01234", {}, date=NOON, version="v1"),
        get_response(b"56789", {}, date=NOON, version="v1", start=5),
    )
    async with store:
        assert await store.read("data", "key") == b"0123456789"
    assert transport.request_lines[1].endswith("/key?versionId=v1")


async def test_null_version_id_does_not_pin_an_object(scripted_store: Any) -> None:
    _, store = scripted_store(get_response(b"01234", {}, date=NOON, version="null"))
    async with store:
        with pytest.raises(ObjectChangedError, match="no strong validator"):
            await store.read("data", "key")


@pytest.mark.parametrize("etag", NO_VALIDATOR, ids=NO_VALIDATOR_IDS)
@pytest.mark.parametrize("date", [EVENING, NOON])
async def test_ranges_without_a_validator_come_from_one_version_or_raise(
    scripted_store: Any, etag: Mapping[str, str], date: str
) -> None:
    size = 10 * 1024 * 1024
    head = response(
        headers={**etag, "last-modified": NOON, "date": date, "content-length": str(size)}
    )
    parts = [
        get_response(
            b"01", etag, size=size, start=start, end=start + 2, date=date, modified=modified
        )
        for start, modified in ((0, NOON), (size - 2, NOON))
    ]
    transport, store = scripted_store(head, *(parts if date == EVENING else ()))
    async with store:
        ranges = [(0, 2), ByteRange.last(2)]
        if date == EVENING:
            assert await store.get_ranges("data", "key", ranges) == [b"01", b"01"]
        else:
            with pytest.raises(ObjectChangedError, match="no strong validator"):
                await store.get_ranges("data", "key", ranges)
    assert not any(conditional_headers(transport))


async def test_ranges_of_two_versions_raise(scripted_store: Any) -> None:
    size = 10 * 1024 * 1024
    head = response(headers={"last-modified": NOON, "date": EVENING, "content-length": str(size)})
    first = get_response(b"01", {}, size=size, start=5, end=7)
    second = get_response(b"01", {}, size=size, start=size - 2, modified=EVENING)
    _, store = scripted_store(head, first, second)
    async with store:
        with pytest.raises(ObjectChangedError):
            await store.get_ranges("data", "key", [(5, 7), ByteRange.last(2)])
    in_same_second = get_response(b"01", {}, size=size, start=5, end=7, modified=NOON, date=NOON)
    fresh_head = response(
        headers={"last-modified": NOON, "date": NOON, "content-length": str(size)}
    )
    _, store = scripted_store(fresh_head, in_same_second)
    async with store:  # a single response contains only one version
        assert await store.get_ranges("data", "key", [(5, 7)]) == [b"01"]


@pytest.mark.parametrize("etag", NO_VALIDATOR, ids=NO_VALIDATOR_IDS)
async def test_condition_on_an_object_without_an_etag_raises_before_any_request(
    scripted_store: Any, etag: Mapping[str, str]
) -> None:
    head = {**etag, "last-modified": NOON, "date": EVENING, "content-length": "10"}
    transport, store = scripted_store(response(headers=head))
    async with store:
        info = await store.head("data", "key")
        with pytest.raises(ValueError, match="must have an etag, but that of object"):
            await store.put("data", "key", b"", if_match=info)
        with pytest.raises(ValueError, match="must have an etag, but that of object"):
            await store.read("data", "key", if_match=info)
        with pytest.raises(ValueError, match="must have an etag, but that of object"):
            await store.read("data", "key", if_none_match=info)
        with pytest.raises(ValueError, match="must have an etag, but that of object"):
            await store.delete("data", "key", if_match=info)
        with pytest.raises(ValueError, match="must have an etag, but that of object"):
            await store.copy("data", "key", "data", "to", if_match=info)
        with pytest.raises(ValueError, match="must identify one version"):
            await store.delete("data", "key", if_match='W/"weak"')
    assert len(transport.requests) == 1


async def test_copy_without_an_etag_is_pinned_by_date_or_version(
    scripted_store: Any,
) -> None:
    copied = "<CopyObjectResult><ETag>&quot;e&quot;</ETag></CopyObjectResult>"
    common_headers = {"last-modified": NOON, "date": EVENING, "content-length": "10"}
    for version, headers, copy_source in (
        (None, {"x-amz-copy-source-if-unmodified-since": NOON}, "/data/key"),
        ("v1", {}, "/data/key?versionId=v1"),
        ("null", {"x-amz-copy-source-if-unmodified-since": NOON}, "/data/key?versionId=null"),
    ):
        version_headers = {} if version is None else {"x-amz-version-id": version}
        transport, store = scripted_store(
            response(headers={**common_headers, **version_headers}), response(body=copied)
        )
        async with store:
            assert (await store.copy("data", "key", "data", "to")).etag == "e"
        pins = {
            name: value
            for name, value in transport.requests[1].headers.items()
            if name.startswith("x-amz-copy-source")
        }
        assert pins == {"x-amz-copy-source": copy_source, **headers}


async def test_copied_object_with_a_weak_etag_has_no_etag(scripted_store: Any) -> None:
    weak = "<CopyObjectResult><ETag>W/&quot;e&quot;</ETag></CopyObjectResult>"
    headers = {"etag": '"a"', "last-modified": NOON, "date": EVENING, "content-length": "10"}
    _, store = scripted_store(response(headers=headers), response(body=weak))
    async with store:
        assert (await store.copy("data", "key", "data", "to")).etag is None
