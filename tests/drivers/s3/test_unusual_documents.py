"""XML documents of services that deviate from Amazon S3."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from tests.drivers.s3.scripted_transport import OBJECT_HEADERS, response
from trove_async.drivers.s3 import S3Driver
from trove_async.drivers.s3._documents import ErrorDocumentError, parse_upload_id, parse_uploads
from trove_async.drivers.s3._list_objects import parse_page
from trove_async.drivers.s3._xml import MalformedResponse, parse
from trove_async.options import ListOptions
from trove_async.testing import opened

if TYPE_CHECKING:
    from collections.abc import Mapping

CONTENTS = (
    "<Contents><Key>{}</Key><LastModified>2025-01-01T00:00:00.000Z</LastModified>"
    "<ETag>&quot;e&quot;</ETag><Size>1</Size></Contents>"
)
VERSION = (
    "<Version><Key>{}</Key><VersionId>v</VersionId><IsLatest>true</IsLatest>"
    "<LastModified>2025-01-01T00:00:00.000Z</LastModified><ETag>&quot;e&quot;</ETag><Size>1</Size>"
    "</Version>"
)
UPLOAD = (
    "<Upload><Key>{}</Key><UploadId>id-{}</UploadId><Initiated>2024-01-01T00:00:00Z</Initiated>"
    "</Upload>"
)


@pytest.mark.parametrize(
    "root", ["InitiateMultipartUploadResult", "InitiateMultipartUpload", "CreateUpload"]
)
def test_upload_id_is_read_from_any_root_element(root: str) -> None:
    # rclone's `serve s3` returns InitiateMultipartUpload.
    assert parse_upload_id(f"<{root}><UploadId> id </UploadId></{root}>".encode()) == "id"


def test_error_or_document_without_an_upload_id_raises() -> None:
    with pytest.raises(ErrorDocumentError):
        parse_upload_id(b"<Error><Code>Busy</Code><UploadId>id</UploadId></Error>")
    for document in (b"<html/>", b"<InitiateMultipartUpload><UploadId/></InitiateMultipartUpload>"):
        with pytest.raises(MalformedResponse):
            parse_upload_id(document)


# -- characters that XML 1.0 cannot contain --------------------------------------------------------


@pytest.mark.parametrize("character", ["\0", "\x01", "\a", "\x0b", "\x1f", "\ufffe", "\uffff"])
def test_characters_that_xml_cannot_contain_are_kept(character: str) -> None:
    for written in (character, f"&#{ord(character)};", f"&#x{ord(character):X};"):
        root = parse(f"<?xml version='1.0'?>\r\n<a><b>x{written}\u00e9&amp;#x1;</b></a>\r\n")
        assert root[0].text == f"x{character}\u00e9&#x1;"


def test_line_ends_in_keys_are_kept() -> None:
    assert parse("<a><b>x\ry\tz&#13;\n</b></a>")[0].text == "x\ry\tz\r\n"


@pytest.mark.parametrize(
    "text",
    ["<a>\x01", "\x01<a/>", "<a\x01/>", "<a>\x01\U0010fe01</a>", "<a>&#xD800;</a>", "<a>&#0</a>"],
)
def test_malformed_document_with_invalid_characters_raises(text: str) -> None:
    with pytest.raises(MalformedResponse):
        parse(text)


async def test_token_with_a_control_character_is_sent_for_the_next_page(
    scripted_driver: Any,
) -> None:
    # Ceph 16.2 encodes the keys but not the token.
    first = (
        "<ListBucketResult><EncodingType>url</EncodingType><IsTruncated>true</IsTruncated>"
        f"<NextContinuationToken>bell\a</NextContinuationToken>{CONTENTS.format('bell%07')}"
        "</ListBucketResult>"
    )
    second = f"<ListBucketResult><IsTruncated>false</IsTruncated>{CONTENTS.format('c')}</ListBucketResult>"
    transport, opened_driver = scripted_driver(response(body=first), response(body=second))
    async with opened_driver as driver:
        page = await driver.list_page("data", ListOptions())
        assert [entry.key for entry in page.entries] == ["bell\a"]
        page = await driver.list_page("data", ListOptions(token=page.token))
        assert [entry.key for entry in page.entries] == ["c"]
    assert "continuation-token=bell%07" in transport.request_lines[1]


# -- encoded keys without an EncodingType ----------------------------------------------------------


def listing(items: str, root: str) -> str:
    return f"<{root}><IsTruncated>false</IsTruncated>{items}</{root}>"


KEYS = ["a b", "a%20b", "a+b", "\u00e9"]
ENCODED = ["a%20b", "a%2520b", "a%2Bb", "%C3%A9"]


@pytest.mark.parametrize("kind", ["objects", "versions"])
@pytest.mark.parametrize("encodes", [True, False])
async def test_listing_without_encoding_type_is_requested_again_without_encoding(
    scripted_driver: Any, kind: str, *, encodes: bool
) -> None:
    root, item = {
        "objects": ("ListBucketResult", CONTENTS),
        "versions": ("ListVersionsResult", VERSION),
    }[kind]
    first = "".join(item.format(key) for key in (ENCODED if encodes else KEYS))
    unencoded = "".join(item.format(key) for key in KEYS)
    transport, opened_driver = scripted_driver(
        response(body=listing(first, root)), response(body=listing(unencoded, root))
    )
    async with opened_driver as driver:
        if kind == "objects":
            page = await driver.list_page("data", ListOptions())
        else:
            page = await driver.version_page("data", ListOptions())
        assert [entry.key for entry in page.entries] == KEYS
    queries = [parse_qs(urlsplit(request.url).query) for request in transport.requests]
    assert ["encoding-type" in query for query in queries] == [True, False]


@pytest.mark.parametrize("kind", ["objects", "versions"])
@pytest.mark.parametrize("encodes", [True, False])
async def test_sdk_requests_a_listing_without_encoding_type_again_without_encoding(
    kind: str, *, encodes: bool
) -> None:
    root, item = {
        "objects": ("ListBucketResult", CONTENTS),
        "versions": ("ListVersionsResult", VERSION),
    }[kind]
    queries: list[Mapping[str, str]] = []

    async def respond(request: web.Request) -> web.Response:
        queries.append(dict(request.query))
        keys = ENCODED if encodes and "encoding-type" in request.query else KEYS
        text = listing("".join(item.format(key) for key in keys), root)
        return web.Response(text=text, content_type="application/xml")

    application = web.Application()
    application.router.add_get("/data", respond)
    async with TestServer(application) as server:
        driver: Any = S3Driver(
            region="us-east-1",
            endpoint_url=str(server.make_url("")).rstrip("/"),
            access_key_id="a",
            secret_access_key="s",
            dialect="s3",
            data_plane="sdk",
        )
        async with opened(driver):
            call = driver.list_page if kind == "objects" else driver.version_page
            page = await call("data", ListOptions())
    assert [entry.key for entry in page.entries] == KEYS
    assert ["encoding-type" in query for query in queries] == [True, False]


async def test_listing_whose_keys_need_no_encoding_is_requested_once(scripted_driver: Any) -> None:
    page = listing(CONTENTS.format("plain/\u00e9"), "ListBucketResult")
    transport, opened_driver = scripted_driver(response(body=page))
    async with opened_driver as driver:
        assert (await driver.list_page("data", ListOptions())).entries[0].key == "plain/\u00e9"
    assert len(transport.requests) == 1


async def test_gc_uploads_aborts_uploads_under_their_decoded_keys(scripted_driver: Any) -> None:
    def uploads(keys: list[str]) -> str:
        items = [UPLOAD.format(key, number) for number, key in enumerate(keys)]
        return listing("".join(items), "ListMultipartUploadsResult")

    aborted = [response(204) for _ in KEYS]
    transport, opened_driver = scripted_driver(
        response(body=uploads(ENCODED), headers=OBJECT_HEADERS),
        response(body=uploads(KEYS), headers=OBJECT_HEADERS),
        *aborted,
    )
    async with opened_driver as driver:
        assert await driver.gc_uploads("data", older_than=60) == len(KEYS)
    targets = [request.url.rpartition(".com/")[2] for request in transport.requests[2:]]
    assert sorted(targets) == sorted(
        f"{key}?uploadId=id-{number}" for number, key in enumerate(ENCODED)
    )


def test_uploads_with_encoding_type_are_decoded() -> None:
    encoded = UPLOAD.format("a%20b", 1)
    text = f"<ListMultipartUploadsResult><EncodingType>url</EncodingType>{encoded}</ListMultipartUploadsResult>"
    (upload,) = parse_uploads(text.encode(), encoding_requested=True).uploads
    assert upload.key == "a b"


def test_page_requested_without_encoding_is_not_decoded() -> None:
    text = listing(CONTENTS.format("a%20b"), "ListBucketResult")
    assert parse_page(text.encode(), bucket="b", backend="").entries[0].key == "a%20b"
