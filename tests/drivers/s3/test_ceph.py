"""The Ceph Object Gateway: its recognition, capabilities, request headers and listings."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.drivers.s3.scripted_transport import OBJECT_HEADERS, error_response, now, response
from trove_async.drivers.s3._ceph import cautious_headers, ceph_headers
from trove_async.drivers.s3._headers import object_headers, object_info
from trove_async.errors import BucketNotFoundError
from trove_async.models import ObjectInfo
from trove_async.options import CopyOptions, ListOptions, PutOptions
from trove_async.testing.driver.metadata import METADATA

if TYPE_CHECKING:
    from tests.drivers.s3.scripted_transport import FakeResponse

ANONYMOUS_BUCKET_LIST = (
    b'<ListAllMyBucketsResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Owner>'
    b"<ID>anonymous</ID><DisplayName></DisplayName></Owner><Buckets></Buckets>"
    b"</ListAllMyBucketsResult>"
)
REQUEST_ID = "tx00000ffa230ec63ef0236-006b0b3f1b-1012-default"  # returned by version 16.2.15
DENIED_DOCUMENT = f"<Error><Code>AccessDenied</Code><RequestId>{REQUEST_ID}</RequestId></Error>"
SWIFT_ID = "tx43a0e5ae1dd14d2dac4d7-005f3e9e1b"
OPTIONAL_FEATURES = {"commit_conditions", "copy_conditions", "upload_tags", "copy_tags"}


def claimed_features(driver: Any) -> set[str]:
    return {name for name in OPTIONAL_FEATURES if getattr(driver.capabilities, name)}


@pytest.mark.parametrize(
    "recognition_response",
    [
        response(200, ANONYMOUS_BUCKET_LIST, {"x-amz-request-id": REQUEST_ID}),
        response(403, DENIED_DOCUMENT, {"server": "nginx"}),
        response(404, b"", {"x-amz-request-id": REQUEST_ID.replace("default", "eu-west-2")}),
    ],
    ids=["anonymous", "request id in the document only", "other zone"],
)
async def test_gateway_is_recognised_by_its_request_ids(
    scripted_driver: Any, recognition_response: FakeResponse
) -> None:
    _, opened_driver = scripted_driver(recognition_response, endpoint_url="http://h:9")
    async with opened_driver as driver:
        assert claimed_features(driver) == set()
        assert driver.capabilities.put_if_match
        assert driver.capabilities.put_if_none_match
        assert driver.capabilities.ordered
        assert driver.capabilities.checksums == frozenset()


async def test_gateway_is_selected_by_the_dialect_argument(scripted_driver: Any) -> None:
    _, opened_driver = scripted_driver(endpoint_url="http://h:9", dialect="ceph")
    async with opened_driver as driver:
        assert claimed_features(driver) == set()


@pytest.mark.parametrize(
    "headers",
    [
        {"x-amz-request-id": SWIFT_ID, "x-trans-id": SWIFT_ID},
        {"x-amz-request-id": SWIFT_ID},
        {"x-amz-request-id": f"{SWIFT_ID}-1a-x", "x-trans-id": f"{SWIFT_ID}-1a-x"},
        {"x-amz-request-id": "TX8D0E2EHFZ1QXGB"},
        {"server": "Ceph Object Gateway (pacific)"},
    ],
    ids=["Swift", "Swift's S3 API", "Swift with a suffix", "Amazon", "Server header only"],
)
async def test_other_services_are_not_recognised_as_the_gateway(
    scripted_driver: Any, headers: dict[str, str]
) -> None:
    _, opened_driver = scripted_driver(response(403, b"", headers), endpoint_url="http://h:9")
    async with opened_driver as driver:
        # As for the gateway, conditions of copies and completions are not claimed.
        assert claimed_features(driver) == {"upload_tags", "copy_tags"}


async def test_dialect_s3_and_amazon_claim_every_optional_feature(scripted_driver: Any) -> None:
    for settings in ({"endpoint_url": "http://h:9", "dialect": "s3"}, {}):
        _, opened_driver = scripted_driver(**settings)
        async with opened_driver as driver:
            assert claimed_features(driver) == OPTIONAL_FEATURES


async def test_if_match_is_sent_without_quotes(scripted_driver: Any) -> None:
    trial_responses = (
        response(headers=OBJECT_HEADERS),
        error_response(412, "PreconditionFailed"),  # the etag does not match
        response(headers=OBJECT_HEADERS),
    )
    cleanup_responses = (
        error_response(501, "NotImplemented"),  # a listing of versions
        response(headers=OBJECT_HEADERS),
        response(204),
    )
    transport, opened_driver = scripted_driver(
        *trial_responses,
        *cleanup_responses,
        response(headers=OBJECT_HEADERS),
        endpoint_url="http://h:9",
        dialect="ceph",
    )
    async with opened_driver as driver:
        await driver.put("bucket", "key", [], PutOptions(if_match="0cc1-7"))
    sent = [request.headers.get("if-match") for request in transport.requests]
    assert sent == [None, "0" * 32, "e", None, None, None, "0cc1-7"]


async def test_copy_sends_if_match_under_the_header_name_of_the_gateway(
    scripted_driver: Any,
) -> None:
    copied = response(200, "<CopyObjectResult><ETag>e</ETag></CopyObjectResult>", OBJECT_HEADERS)
    transport, opened_driver = scripted_driver(copied, endpoint_url="http://h:9", dialect="ceph")
    source = ObjectInfo(bucket="b", key="k", size=1, etag="pinned", last_modified=now())
    async with opened_driver as driver:
        options = CopyOptions(source=source, put=PutOptions())
        await driver.copy("bucket", "key", "bucket", "other", options)
    [request] = transport.requests
    assert request.headers["x-amz-copy-if-match"] == '"pinned"'
    assert request.headers["x-amz-copy-source-if-match"] == '"pinned"'
    assert "x-amz-copy-if-match" in request.headers["Authorization"]


@pytest.mark.parametrize("rewrite", [ceph_headers, cautious_headers])
@pytest.mark.parametrize(
    "metadata",
    [
        METADATA,
        {"a_b": "1"},
        {"a_b": "1", "a-b": "2"},
        {"a_b": "grüß ☃", "c_d": " in and around ", "e_": "=?utf-8?b?eA==?=", "_": ""},
    ],
    ids=["the suite's", "one name", "names that would collide", "values to encode"],
)
def test_metadata_names_with_underscores_are_kept(rewrite: Any, metadata: dict[str, str]) -> None:
    sent = rewrite(object_headers(PutOptions(metadata=metadata, write_id="id")))
    names = [name for name in sent if name.startswith("x-amz-meta-")]
    assert not any("_" in name for name in names)
    info = object_info({**OBJECT_HEADERS, **sent}, bucket="b", key="k")
    assert (dict(info.metadata), info.write_id) == (metadata, "id")


def test_headers_without_underscores_are_unchanged() -> None:
    headers = object_headers(PutOptions(metadata={"a-b": "1"}, content_type="text/plain"))
    assert ceph_headers(headers) == headers


# -- listings that start in a common prefix --------------------------------------------------------

PREFIXES = "<CommonPrefixes><Prefix>{}</Prefix></CommonPrefixes>"


def listing(content: str) -> str:
    return f"<ListBucketResult><IsTruncated>false</IsTruncated>{content}</ListBucketResult>"


async def test_prefix_that_contains_the_start_of_a_listing_is_returned(
    scripted_driver: Any,
) -> None:
    first_page = listing(
        "<Contents><Key>b-/z</Key><LastModified>2025-01-01T00:00:00Z</LastModified>"
        "<ETag>&quot;e&quot;</ETag><Size>1</Size></Contents>"
    )
    transport, opened_driver = scripted_driver(
        response(body=first_page),
        response(body=listing(PREFIXES.format("c/"))),
        endpoint_url="http://h:9",
        dialect="ceph",
    )
    options = ListOptions(delimiter="/", start_after="b-/x", limit=10)
    async with opened_driver as driver:
        page = await driver.list_page("data", options)
        assert [entry.key for entry in page.entries] == ["b-/"]
        page = await driver.list_page("data", replace(options, token=page.token))
        assert ([entry.key for entry in page.entries], page.token) == (["c/"], None)
    first, second = [parse_qs(urlsplit(request.url).query) for request in transport.requests]
    assert (first["prefix"], first["start-after"]) == (["b-/"], ["b-/x"])
    assert "delimiter" not in first
    assert second["continuation-token"] == ["b-/"]


async def test_prefix_without_keys_after_the_start_is_not_returned(scripted_driver: Any) -> None:
    _, opened_driver = scripted_driver(
        response(body=listing("")),
        response(body=listing(PREFIXES.format("c/"))),
        endpoint_url="http://h:9",
        dialect="ceph",
    )
    async with opened_driver as driver:
        page = await driver.list_page("data", ListOptions(delimiter="/", start_after="b/z"))
        assert [entry.key for entry in page.entries] == ["c/"]


@pytest.mark.parametrize("dialect", ["s3", "ceph"])
async def test_listing_that_starts_in_a_prefix_is_ordered(
    scripted_driver: Any, dialect: str
) -> None:
    page_response = response(body=listing(PREFIXES.format("b-/") + PREFIXES.format("c/")))
    responses = [page_response]
    if dialect == "ceph":
        responses.insert(0, response(body=listing("")))
    _, opened_driver = scripted_driver(*responses, endpoint_url="http://h:9", dialect=dialect)
    async with opened_driver as driver:
        page = await driver.list_page("data", ListOptions(delimiter="/", start_after="b-/x"))
        assert [entry.key for entry in page.entries] == ["b-/", "c/"]


async def test_delete_of_a_bucket_that_is_being_deleted_raises_bucket_not_found(
    scripted_driver: Any,
) -> None:
    _, opened_driver = scripted_driver(
        error_response(404, "NoSuchKey"), endpoint_url="http://h:9", dialect="ceph"
    )
    async with opened_driver as driver:
        with pytest.raises(BucketNotFoundError):
            await driver.delete_bucket("data")
