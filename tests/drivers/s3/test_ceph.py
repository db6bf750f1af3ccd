"""What is sent to a Ceph Object Gateway, and what is never asked of it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.drivers.s3.scripted_transport import OBJECT_HEADERS, error_response, response
from trove_async.drivers.s3._ceph import cautious_headers, ceph_headers
from trove_async.drivers.s3._headers import info_from, object_headers
from trove_async.errors import BucketNotFoundError
from trove_async.models import ObjectInfo
from trove_async.options import CopyOptions, ListOptions, PutOptions
from trove_async.testing.driver.metadata import METADATA

if TYPE_CHECKING:
    from tests.drivers.s3.scripted_transport import FakeResponse

ANONYMOUS = (
    b'<ListAllMyBucketsResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Owner>'
    b"<ID>anonymous</ID><DisplayName></DisplayName></Owner><Buckets></Buckets>"
    b"</ListAllMyBucketsResult>"
)
REQUEST_ID = "tx00000ffa230ec63ef0236-006b0b3f1b-1012-default"  # as version 16.2.15 answers
DENIED = f"<Error><Code>AccessDenied</Code><RequestId>{REQUEST_ID}</RequestId></Error>"
SWIFT = "tx43a0e5ae1dd14d2dac4d7-005f3e9e1b"
PER_OPERATION = {"commit_conditions", "copy_conditions", "upload_tags", "copy_tags"}


def claimed(driver: Any) -> set[str]:
    return {name for name in PER_OPERATION if getattr(driver.capabilities, name)}


@pytest.mark.parametrize(
    "introduction",
    [
        response(200, ANONYMOUS, {"x-amz-request-id": REQUEST_ID}),
        response(403, DENIED, {"server": "nginx"}),
        response(404, b"", {"x-amz-request-id": REQUEST_ID.replace("default", "eu-west-2")}),
    ],
    ids=["anonymous", "request id in the document alone", "another zone"],
)
async def test_gateway_is_recognised_by_its_request_ids(
    scripted_driver: Any, introduction: FakeResponse
) -> None:
    _, opened_driver = scripted_driver(introduction, endpoint_url="http://h:9")
    async with opened_driver as driver:
        assert claimed(driver) == set()
        assert driver.capabilities.put_if_match
        assert driver.capabilities.put_if_none_match
        assert driver.capabilities.ordered
        assert driver.capabilities.checksums == frozenset()


async def test_gateway_may_be_named(scripted_driver: Any) -> None:
    _, opened_driver = scripted_driver(endpoint_url="http://h:9", dialect="ceph")
    async with opened_driver as driver:
        assert claimed(driver) == set()


@pytest.mark.parametrize(
    "headers",
    [
        {"x-amz-request-id": SWIFT, "x-trans-id": SWIFT},
        {"x-amz-request-id": SWIFT},
        {"x-amz-request-id": f"{SWIFT}-1a-x", "x-trans-id": f"{SWIFT}-1a-x"},
        {"x-amz-request-id": "TX8D0E2EHFZ1QXGB"},
        {"server": "Ceph Object Gateway (pacific)"},
    ],
    ids=["Swift", "Swift's S3 API", "Swift with a suffix", "Amazon", "Server header alone"],
)
async def test_other_services_are_not_taken_for_the_gateway(
    scripted_driver: Any, headers: dict[str, str]
) -> None:
    _, opened_driver = scripted_driver(response(403, b"", headers), endpoint_url="http://h:9")
    async with opened_driver as driver:
        # What is not recognised is asked for no condition beyond single requests either.
        assert claimed(driver) == {"upload_tags", "copy_tags"}


async def test_named_s3_and_amazon_are_asked_for_everything(scripted_driver: Any) -> None:
    for settings in ({"endpoint_url": "http://h:9", "dialect": "s3"}, {}):
        _, opened_driver = scripted_driver(**settings)
        async with opened_driver as driver:
            assert claimed(driver) == PER_OPERATION


async def test_version_to_replace_is_named_as_it_stands(scripted_driver: Any) -> None:
    stored, refused, deleted = (
        response(headers=OBJECT_HEADERS),
        error_response(412, "PreconditionFailed"),
        response(204),
    )
    clean_up = (error_response(501, "x"), response(headers=OBJECT_HEADERS), deleted)
    trial = (response(headers=OBJECT_HEADERS), refused, response(headers=OBJECT_HEADERS), *clean_up)
    transport, opened_driver = scripted_driver(
        *trial, stored, endpoint_url="http://h:9", dialect="ceph"
    )
    async with opened_driver as driver:
        await driver.put("bucket", "key", [], PutOptions(if_match="0cc1-7"))
    asked = [headers.get("if-match") for _, _, headers, _ in transport.requests]
    assert asked == [None, "0" * 32, "e", None, None, None, "0cc1-7"]


async def test_version_to_copy_is_pinned_by_the_name_that_the_gateway_knows(
    scripted_driver: Any,
) -> None:
    copied = response(200, "<CopyObjectResult><ETag>e</ETag></CopyObjectResult>", OBJECT_HEADERS)
    transport, opened_driver = scripted_driver(copied, endpoint_url="http://h:9", dialect="ceph")
    source = ObjectInfo(bucket="b", key="k", size=1, etag="pinned", last_modified=MOMENT)
    async with opened_driver as driver:
        options = CopyOptions(source=source, put=PutOptions())
        await driver.copy("bucket", "key", "bucket", "other", options)
    ((_, _, headers, _),) = transport.requests
    assert headers["x-amz-copy-if-match"] == '"pinned"'
    assert headers["x-amz-copy-source-if-match"] == '"pinned"'
    assert "x-amz-copy-if-match" in headers["Authorization"]


MOMENT = info_from({**OBJECT_HEADERS}, bucket="b", key="k").last_modified


@pytest.mark.parametrize("rewrite", [ceph_headers, cautious_headers])
@pytest.mark.parametrize(
    "metadata",
    [
        METADATA,
        {"a_b": "1"},
        {"a_b": "1", "a-b": "2"},
        {"a_b": "grüß ☃", "c_d": " in and around ", "e_": "=?utf-8?b?eA==?=", "_": ""},
    ],
    ids=["of the suite", "one", "two that would be one", "values of all kinds"],
)
def test_names_that_the_gateway_would_change_are_kept(
    rewrite: Any, metadata: dict[str, str]
) -> None:
    sent = rewrite(object_headers(PutOptions(metadata=metadata, write_id="id")))
    names = [name for name in sent if name.startswith("x-amz-meta-")]
    assert not any("_" in name for name in names)
    info = info_from({**OBJECT_HEADERS, **sent}, bucket="b", key="k")
    assert (dict(info.metadata), info.write_id) == (metadata, "id")


def test_headers_that_need_no_change_have_none() -> None:
    headers = object_headers(PutOptions(metadata={"a-b": "1"}, content_type="text/plain"))
    assert ceph_headers(headers) == headers


# -- listings that start inside a common prefix ----------------------------------------------------

PREFIXES = "<CommonPrefixes><Prefix>{}</Prefix></CommonPrefixes>"


def listing(content: str) -> str:
    return f"<ListBucketResult><IsTruncated>false</IsTruncated>{content}</ListBucketResult>"


async def test_prefix_inside_which_a_listing_starts_is_told(scripted_driver: Any) -> None:
    within = listing(
        "<Contents><Key>b-/z</Key><LastModified>2025-01-01T00:00:00Z</LastModified>"
        "<ETag>&quot;e&quot;</ETag><Size>1</Size></Contents>"
    )
    transport, opened_driver = scripted_driver(
        response(body=within),
        response(body=listing(PREFIXES.format("c/"))),
        endpoint_url="http://h:9",
        dialect="ceph",
    )
    options = ListOptions(delimiter="/", start_after="b-/x", limit=10)
    async with opened_driver as driver:
        page = await driver.list_page("data", options)
        assert [one.key for one in page.entries] == ["b-/"]
        page = await driver.list_page("data", replace(options, token=page.token))
        assert ([one.key for one in page.entries], page.token) == (["c/"], None)
    first, second = [parse_qs(urlsplit(url).query) for _, url, _, _ in transport.requests]
    assert (first["prefix"], first["start-after"]) == (["b-/"], ["b-/x"])
    assert "delimiter" not in first
    assert second["continuation-token"] == ["b-/"]


async def test_prefix_that_has_nothing_behind_the_start_is_not_told(scripted_driver: Any) -> None:
    _, opened_driver = scripted_driver(
        response(body=listing("")),
        response(body=listing(PREFIXES.format("c/"))),
        endpoint_url="http://h:9",
        dialect="ceph",
    )
    async with opened_driver as driver:
        page = await driver.list_page("data", ListOptions(delimiter="/", start_after="b/z"))
        assert [one.key for one in page.entries] == ["c/"]


@pytest.mark.parametrize("dialect", ["s3", "ceph"])
async def test_listing_that_starts_inside_a_prefix_is_in_order(
    scripted_driver: Any, dialect: str
) -> None:
    told = response(body=listing(PREFIXES.format("b-/") + PREFIXES.format("c/")))
    asked = [response(body=listing("")), told] if dialect == "ceph" else [told]
    _, opened_driver = scripted_driver(*asked, endpoint_url="http://h:9", dialect=dialect)
    async with opened_driver as driver:
        page = await driver.list_page("data", ListOptions(delimiter="/", start_after="b-/x"))
        assert [one.key for one in page.entries] == ["b-/", "c/"]


async def test_bucket_that_is_just_being_deleted_is_none(scripted_driver: Any) -> None:
    _, opened_driver = scripted_driver(
        error_response(404, "NoSuchKey"), endpoint_url="http://h:9", dialect="ceph"
    )
    async with opened_driver as driver:
        with pytest.raises(BucketNotFoundError):
            await driver.delete_bucket("data")
