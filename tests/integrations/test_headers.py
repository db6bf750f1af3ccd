"""Response headers of objects."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.message import Message
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trove_async import ObjectInfo
from trove_async._http_dates import parse_http_date
from trove_async.integrations._headers import Presentation, content_disposition, media_type


def info(key: str = "k", **fields: Any) -> ObjectInfo:
    return ObjectInfo(
        bucket="b",
        key=key,
        size=3,
        etag="e",
        last_modified=datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC),
        **fields,
    )


def test_all_object_headers_are_sent() -> None:
    headers = Presentation().headers(
        info(
            content_type="image/png",
            cache_control="max-age=5",
            content_encoding="gzip",
            content_language="de-CH",
            expires=datetime(2024, 1, 3, tzinfo=UTC),
            content_disposition="inline",
        )
    )
    assert headers == {
        "ETag": '"e"',
        "Last-Modified": "Tue, 02 Jan 2024 03:04:05 GMT",
        "Accept-Ranges": "bytes",
        "Content-Type": "image/png",
        "Content-Encoding": "gzip",
        "Content-Language": "de-CH",
        "Expires": "Wed, 03 Jan 2024 00:00:00 GMT",
        "Content-Disposition": "inline",
        "Cache-Control": "max-age=5",
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": SANDBOX,
    }


def test_future_last_modified_is_capped_at_now() -> None:
    modified = datetime.now(UTC) + timedelta(days=400)
    modified_in_future = ObjectInfo(bucket="b", key="k", size=3, etag="e", last_modified=modified)
    last_modified = parse_http_date(Presentation().headers(modified_in_future)["Last-Modified"])
    assert last_modified is not None
    assert last_modified <= datetime.now(UTC)


@pytest.mark.parametrize("etag", [None, ""])
def test_object_without_an_etag_has_no_etag_field(etag: Any) -> None:
    without_etag = replace(info(), etag=etag)
    assert "ETag" not in Presentation().headers(without_etag)
    assert "ETag" not in Presentation().validators(without_etag)


@pytest.mark.parametrize("text", ["日本", "é", "a\x01b", "a\x7f"])
def test_unsendable_header_values_are_replaced_or_omitted(text: str) -> None:
    fields = (
        "content_type", "content_disposition", "cache_control", "content_encoding",
        "content_language",
    )  # fmt: skip
    headers = Presentation().headers(info("dir/a.bin", **dict.fromkeys(fields, f"x/y; {text}")))
    assert headers["Content-Type"] == "application/octet-stream"
    assert headers["Content-Disposition"] == 'attachment; filename="a.bin"'
    assert headers["Cache-Control"] == "no-store"
    assert "Content-Encoding" not in headers
    assert "Content-Language" not in headers
    with pytest.raises(ValueError, match="cache_control"):
        Presentation(cache_control=text)


def test_options_of_the_service_override_stored_headers() -> None:
    presentation = Presentation(download_name="a.png", cache_control="no-cache")
    expires = datetime(2024, 1, 3, tzinfo=UTC)
    headers = presentation.headers(
        info(content_type="image/png", cache_control="max-age=5", expires=expires)
    )
    assert "Expires" not in headers  # it would contradict the cache_control of the service
    assert headers["Content-Disposition"] == 'attachment; filename="a.png"'
    assert (
        headers["Cache-Control"] == presentation.validators(info())["Cache-Control"] == "no-cache"
    )


NOT_INLINE = [
    "text/html",
    "TEXT/HTML; charset=utf-8",
    "application/xhtml+xml",
    "image/svg+xml",
    "video/x+xml",
    "text/xml",
    "application/xml",
    "application/rss+xml",
    "multipart/x-mixed-replace; boundary=x",
    "application/zip",
    "application/octet-stream",
]
SCRIPTS = ["text/javascript", "application/javascript; v=1", "application/x-javascript",
           "text/ecmascript", "text/JavaScript1.5"]  # fmt: skip
MALFORMED = [
    "nonsense",
    "text/html,text/plain",
    "text/plain,text/html",
    "text/plain;,text/html",
    "text/plain ;,text/html",
    "text/plain; charset=utf-8, text/html",
    "image/png;a=b,image/svg+xml",
    'text/plain;a="b,text/html',
    'text/plain;a="b\\",text/html;c="',
    "text/plain; a=b; A=c",
    "text/plain; a = b",
    "text/plain; a",
    "text /plain",
    "text/ plain",
    "*/*;x",
    "/plain",
]
OCTETS = "application/octet-stream"
SANDBOX = "default-src 'none'; sandbox"


@pytest.mark.parametrize("kind", NOT_INLINE + SCRIPTS + MALFORMED)
@pytest.mark.parametrize("stored", ["inline", "inline; filename=x.html", "nonsense,", "", None])
def test_type_that_is_not_inline_is_sent_as_attachment(kind: str, stored: str | None) -> None:
    headers = Presentation().headers(
        info("dir/page.x", content_type=kind, content_disposition=stored)
    )
    name = "x.html" if stored and "x.html" in stored else "page.x"
    assert headers["Content-Disposition"] == f'attachment; filename="{name}"'
    assert headers["Content-Security-Policy"] == SANDBOX
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Content-Type"] == (OCTETS if kind in SCRIPTS + MALFORMED else kind)


@pytest.mark.parametrize("kind", [*NOT_INLINE, *SCRIPTS, *MALFORMED])
def test_trusted_object_keeps_its_content_type(kind: str) -> None:
    headers = Presentation(trusted=True).headers(info(content_type=kind))
    assert headers["Content-Type"] == kind
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert not {"Content-Disposition", "Content-Security-Policy"} & headers.keys()


@pytest.mark.parametrize("kind", ["image/png", "text/plain", "Text/Plain; charset=utf-8;",
                                  "application/json", "application/pdf"])  # fmt: skip
def test_passive_content_is_sent_inline(kind: str) -> None:
    headers = Presentation().headers(info(content_type=kind))
    assert headers["Content-Type"] == kind
    assert headers["Content-Security-Policy"] == SANDBOX
    assert "Content-Disposition" not in headers


@pytest.mark.parametrize("kind", ["audio/mpeg", 'video/mp4; codecs="avc1.42E01E, mp4a.40.2"'])
def test_audio_and_video_are_sent_inline(kind: str) -> None:
    headers = Presentation().headers(info(content_type=kind))
    assert headers["Content-Type"] == kind
    sandbox = headers["Content-Security-Policy"].split("; ")[-1].split()
    assert sandbox == ["sandbox", "allow-same-origin"]  # without allow-scripts
    assert "Content-Disposition" not in headers


def test_stored_file_name_is_kept_in_attachment() -> None:
    stored = "attachment; filename=\"a b.zip\"; filename*=UTF-8''%E2%82%AC.zip"
    headers = Presentation().headers(
        info(content_type="application/zip", content_disposition=stored)
    )
    assert headers["Content-Disposition"] == (
        "attachment; filename=\"_.zip\"; filename*=UTF-8''%E2%82%AC.zip"
    )


@pytest.mark.parametrize("source", ["object", "service", None])
def test_response_is_private_by_default(source: str | None) -> None:
    presentation = Presentation(cache_control="public, max-age=1" if source == "service" else None)
    obj = info(cache_control="public, max-age=1" if source == "object" else None)
    expected = "private" if source is None else "public, max-age=1"
    assert (
        presentation.headers(obj)["Cache-Control"]
        == presentation.validators(obj)["Cache-Control"]
        == expected
    )


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        ("a/b.png", "image/png"),
        ("a.PNG", "image/png"),
        ("movie.mp4", "video/mp4"),
        ("page.html", "text/html"),
        ("backup.tar.gz", "application/octet-stream"),
        ("README", "application/octet-stream"),
        ("data:text/html,x", "application/octet-stream"),
    ],
)
def test_missing_content_type_is_guessed_from_the_key(key: str, kind: str) -> None:
    assert media_type(info(key)) == kind
    assert media_type(info(key, content_type="x/y")) == "x/y"


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("report.pdf", 'attachment; filename="report.pdf"'),
        ("my report.pdf", 'attachment; filename="my report.pdf"'),
        ("naïve.txt", "attachment; filename=\"na_ve.txt\"; filename*=UTF-8''na%C3%AFve.txt"),
        (
            "€ rates.txt",
            "attachment; filename=\"_ rates.txt\"; filename*=UTF-8''%E2%82%AC%20rates.txt",
        ),
        ('a"b.txt', "attachment; filename=\"a_b.txt\"; filename*=UTF-8''a%22b.txt"),
        ("100%41.txt", "attachment; filename=\"100_41.txt\"; filename*=UTF-8''100%2541.txt"),
        ("../../etc/passwd", 'attachment; filename="passwd"'),
        ("C:\\dir\\x.txt", 'attachment; filename="x.txt"'),
        ("a\r\nSet-Cookie: x", 'attachment; filename="a__Set-Cookie: x"'),
        ("dir/", 'attachment; filename="download"'),
    ],
)
def test_download_name_is_encoded_in_content_disposition(name: str, field: str) -> None:
    assert content_disposition(name) == field


@given(st.text(min_size=1, max_size=40))
def test_content_disposition_of_any_name_is_safe(name: str) -> None:
    field = content_disposition(name)
    assert re.fullmatch(r"[\x20-\x7e]+", field)
    message = Message()
    message["Content-Disposition"] = field
    fallback = message.get_filename(failobj="")
    assert "/" not in fallback
    exact = re.search(r"filename\*=UTF-8''(\S+)$", field) or re.search(r'filename="(.*)"$', field)
    assert exact is not None
    sent_name = unquote(exact[1]) if "filename*" in field else exact[1]
    expected = re.sub(r"[\x00-\x1f\x7f]", "_", re.split(r"[/\\]", name)[-1]) or "download"
    assert sent_name == expected.encode(errors="replace").decode()
