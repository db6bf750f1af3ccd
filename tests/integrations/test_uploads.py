"""Uploads through both frameworks: raw bodies and forms, limits, conditions, disconnects."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import inspect
import json
from base64 import b64encode
from typing import TYPE_CHECKING, Any

import pytest

from tests.fakes import Fake, assert_idle, content, store_of
from tests.integrations.services import (
    CLIENTS,
    FRAMEWORKS,
    Answered,
    ask_aiohttp,
    ask_httpx,
    curl,
    parsed,
    raw,
    request,
    serving,
)
from trove_async import ObjectNotFoundError, Trove
from trove_async.integrations import _upload
from trove_async.integrations import aiohttp as on_aiohttp
from trove_async.integrations import starlette as on_starlette
from trove_async.integrations._conditions import entity_tag
from trove_async.models import MiB

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

BODY = content(3 * MiB + 5)

both = pytest.mark.parametrize("framework", FRAMEWORKS)


@pytest.fixture
async def fake() -> Fake:
    return Fake()


@pytest.fixture
async def store(fake: Fake) -> AsyncIterator[Trove]:
    async with store_of(fake) as opened:
        await opened.create_bucket("files")
        yield opened
        assert_idle(opened, fake)


async def keys(store: Trove) -> list[str]:
    return [obj.key for obj in await store.list("files").all()]


def form(*parts: tuple[str, bytes], end: bytes = b"--") -> bytes:
    """Return a multipart form; each part is a pair of header lines and content."""
    pieces = [b"--frontier\r\n%s\r\n\r\n%s\r\n" % (head.encode(), body) for head, body in parts]
    return b"".join(pieces) + b"--frontier" + end + b"\r\n"


FORM = ("Content-Type", "multipart/form-data; boundary=frontier")
FILE = 'Content-Disposition: form-data; name="file"; filename="x.png"\r\nContent-Type: image/png'
EMPTY = 'Content-Disposition: form-data; name="file"; filename=""'
NOTE = 'Content-Disposition: form-data; name="note"'


@pytest.mark.parametrize("client", CLIENTS)
@both
async def test_raw_body_is_stored(framework: str, client: str, store: Trove) -> None:
    async with serving(framework, store) as service:
        for body in (BODY, b"small", b""):
            got = await CLIENTS[client](
                service.url("dir/%C3%BC.bin?x=1"), "PUT", [("Content-Type", "video/mp4")], body
            )
            info = await store.head("files", "dir/ü.bin")
            assert got.status == 201
            assert got.headers["location"] == "/files/dir/%C3%BC.bin"
            assert got.headers["etag"] == entity_tag(str(info.etag))
            assert json.loads(got.body) == {
                "key": "dir/ü.bin",
                "size": len(body),
                "etag": info.etag,
            }
            assert info.content_type == "video/mp4"
            assert await store.read("files", "dir/ü.bin") == body


@both
async def test_curl_uploads_raw_and_as_form(framework: str, store: Trove, tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(BODY)  # long enough that curl sends Expect: 100-continue
    async with serving(framework, store) as service:
        out = await curl("--include", "--upload-file", str(path), service.url("a"))
        assert parsed(out).status == 201
        out = await curl("--include", "--form", f"f=@{path};type=image/png", service.url("b"))
        assert parsed(out).status == 201
    assert await store.read("files", "a") == await store.read("files", "b") == BODY
    assert (await store.head("files", "b")).content_type == "image/png"


@both
async def test_body_of_unknown_length_is_streamed(framework: str, store: Trove) -> None:
    chunked = b"".join(
        b"%x\r\n%s\r\n" % (len(piece), piece) for piece in (BODY[:1000], BODY[1000:])
    )
    sent = request("PUT", "/files/o", ["Transfer-Encoding: chunked"], chunked + b"0\r\n\r\n")
    async with serving(framework, store) as service:
        assert parsed(await raw(service.port, sent)).status == 201
    assert await store.read("files", "o") == BODY


async def test_content_length_beside_transfer_encoding_is_ignored(store: Trove) -> None:
    # The aiohttp server rejects such a request; h11 ignores Content-Length.
    for promised in (2, 5000):
        lines = [f"Content-Length: {promised}", "Transfer-Encoding: chunked"]
        sent = request("PUT", "/files/o", lines, b"5\r\nhello\r\n0\r\n\r\n")
        async with serving("starlette", store, uploads={"max_size": 1000}) as service:
            assert parsed(await raw(service.port, sent)).status == 201
        assert await store.read("files", "o") == b"hello"


@both
async def test_content_length_of_raw_body_is_the_put_size(
    framework: str, fake: Fake, store: Trove
) -> None:
    promised = []

    class Watching(Trove):
        async def put(self, *args: Any, **options: Any) -> Any:
            promised.append(options["size"])
            return await super().put(*args, **options)

    watching = Watching(fake)
    watching._core, watching._objects = store._core, store._objects
    async with serving(framework, watching) as service:
        await ask_httpx(service.url("o"), "PUT", [], BODY)
        await ask_httpx(service.url("o"), "POST", [FORM], form((FILE, BODY)))
    assert promised == [len(BODY), None]


@both
async def test_options_of_the_service_override_the_client(framework: str, store: Trove) -> None:
    said = {
        "max_size": None,
        "content_type": "text/plain",
        "metadata": {"by": "me"},
        "cache_control": "no-cache",
        "location": "/elsewhere",
    }
    async with serving(framework, store, uploads=said) as service:
        got = await ask_httpx(service.url("o"), "PUT", [("Content-Type", "text/html")], b"x")
        assert got.headers["location"] == "/elsewhere"
    info = await store.head("files", "o")
    assert (info.content_type, info.metadata, info.cache_control) == (
        "text/plain",
        {"by": "me"},
        "no-cache",
    )


async def test_encoded_body_is_stored_as_the_framework_delivers_it(store: Trove) -> None:
    packed = gzip.compress(BODY)
    for framework, body, encoding, tagged in (
        ("starlette", packed, "gzip", True),
        ("aiohttp", BODY, None, False),  # aiohttp decodes the body
    ):
        async with serving(framework, store) as service:
            got = await ask_httpx(service.url("o"), "PUT", [("Content-Encoding", "gzip")], packed)
        assert got.status == 201
        assert ("etag" in got.headers) is tagged
        assert await store.read("files", "o") == body
        assert (await store.head("files", "o")).content_encoding == encoding


@pytest.mark.parametrize("encoding", ["compress", "gzip, br", "x-mine"])
@both
async def test_encoding_not_decoded_by_frameworks_is_stored(
    framework: str, encoding: str, store: Trove
) -> None:
    async with serving(framework, store) as service:
        got = await ask_httpx(service.url("o"), "PUT", [("Content-Encoding", encoding)], BODY)
    info = await store.head("files", "o")
    assert (got.status, got.headers["etag"]) == (201, entity_tag(str(info.etag)))
    assert info.content_encoding == encoding
    assert await store.read("files", "o") == BODY


# -- forms -----------------------------------------------------------------------------------------


@both
async def test_file_of_browser_form_is_stored(framework: str, store: Trove) -> None:
    sent = form((NOTE, b"hello"), (FILE, BODY), (NOTE, b"again"))
    async with serving(framework, store) as service:
        for ask in (ask_httpx, ask_aiohttp):
            got = await ask(service.url("o"), "POST", [FORM], sent)
            assert got.status == 201
            assert await store.read("files", "o") == BODY
            assert (await store.head("files", "o")).content_type == "image/png"


@both
async def test_file_is_selected_by_field_name(framework: str, store: Trove) -> None:
    other = FILE.replace("file", "other")
    sent = form((other, b"other"), (NOTE, b"note"))
    async with serving(framework, store, uploads={"max_size": 4, "field": "note"}) as service:
        got = await ask_httpx(service.url("o"), "POST", [FORM], sent)
        assert got.status == 201
    assert await store.read("files", "o") == b"note"
    assert (await store.head("files", "o")).content_type is None


@both
async def test_other_form_fields_are_returned(framework: str, store: Trove) -> None:
    odd = 'Content-Disposition: form-data; name="\u00fc"'
    sent = form((NOTE, b"before"), (EMPTY, b""), (FILE, b"x"), (NOTE, b"a\r\n\xff"), (odd, b""))
    head = request("POST", "/files/o", [": ".join(FORM), f"Content-Length: {len(sent)}"])
    async with serving(framework, store) as service:
        pieces = [sent[at : at + 3] for at in range(0, len(sent), 3)]
        assert parsed(await raw(service.port, head, *pieces)).status == 201
        await ask_httpx(service.url("o"), "PUT", [], b"raw")
        await ask_httpx(service.url("o"), "POST", [FORM], form((NOTE, b"no file")))
    in_form, plain, refused = service.uploaded
    assert in_form.form == (("note", "before"), ("note", "a\r\n\ufffd"), ("\u00fc", ""))
    assert in_form.info.size == 1
    assert plain.form == refused.form == ()


@pytest.mark.parametrize("fields", [[(NOTE, b"x" * 65_536)], [(NOTE, b"")] * 600])
@both
async def test_too_many_or_too_large_form_fields_are_rejected(
    framework: str, fields: list[tuple[str, bytes]], store: Trove
) -> None:
    async with serving(framework, store) as service:
        for parts in ([*fields, (FILE, b"x")], [(FILE, b"x"), *fields]):
            got = await ask_httpx(service.url("o"), "POST", [FORM], form(*parts))
            assert got.status == 413
    assert await keys(store) == []


@pytest.mark.parametrize("field", [None, "file"])
@both
async def test_file_input_without_file_is_skipped(
    framework: str, field: str | None, store: Trove
) -> None:
    uploads = {"max_size": None, "field": field}
    async with serving(framework, store, uploads=uploads) as service:
        got = await ask_httpx(service.url("o"), "POST", [FORM], form((EMPTY, b""), (FILE, b"x")))
        assert got.status == 201
        assert await store.read("files", "o") == b"x"
        got = await ask_httpx(service.url("p"), "POST", [FORM], form((EMPTY, b"")))
        assert got.status == 400
    assert await keys(store) == ["o"]


@both
async def test_form_is_parsed_at_every_split(framework: str, store: Trove) -> None:
    file = b"\r\n--frontie\r\n--frontier-\r\n" + content(3000) + b"\r\n-"
    sent = form((NOTE, b"x"), (FILE, file))
    head = request("POST", "/files/o", [": ".join(FORM), f"Content-Length: {len(sent)}"])
    async with serving(framework, store) as service:
        pieces = [sent[at : at + 7] for at in range(0, len(sent), 7)]
        assert parsed(await raw(service.port, head, *pieces)).status == 201
    assert await store.read("files", "o") == file


WRONG_FORMS: dict[str, tuple[bytes, str]] = {
    "no file": (form((NOTE, b"x")), "has no file"),
    "nothing": (b"", "has no file"),
    "no file chosen": (form((EMPTY, b"")), "has no file"),
    "two files": (form((FILE, b"x"), (FILE, b"y")), "more than one file"),
    "no end": (form((FILE, b"x"), end=b""), "ends early"),
    "cut in the file": (form((FILE, b"x" * 100))[:-50], "ends early"),
    "no form": (b"hello", "malformed"),
    "bad header": (form(("Content\x00Disposition: x", b"x")), "malformed"),
    "control character in the type": (form((FILE + "\x01", b"x")), "malformed"),
    "long header": (form((f"X: {'x' * 10_000}", b"x")), "malformed"),
}


@pytest.mark.parametrize("wrong", WRONG_FORMS)
@both
async def test_malformed_form_stores_nothing(framework: str, wrong: str, store: Trove) -> None:
    body, detail = WRONG_FORMS[wrong]
    async with serving(framework, store) as service:
        got = await ask_httpx(service.url("o"), "POST", [FORM], body)
        assert got.status == 400
        assert got.headers["content-type"] == "application/problem+json"
        assert detail in json.loads(got.body)["detail"]
    assert await keys(store) == []


@pytest.mark.parametrize(
    "kind",
    [
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "multipart/form-data; boundary=日",
        f"multipart/form-data; boundary={'x' * 300}",
    ],
)
@both
async def test_form_without_valid_boundary_is_rejected(
    framework: str, kind: str, store: Trove
) -> None:
    sent = request("POST", "/files/o", ["Content-Length: 1"], b"x")
    lines = f"\r\nContent-Type: {kind}\r\n".encode()
    async with serving(framework, store) as service:
        got = parsed(await raw(service.port, sent.replace(b"\r\n", lines, 1)))
        assert got.status == 400
    assert await keys(store) == []


# -- limits ----------------------------------------------------------------------------------------


def chunked(*pieces: bytes) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


@both
async def test_size_limit_is_exact(framework: str, store: Trove) -> None:
    unknown = ["Transfer-Encoding: chunked"]
    async with serving(framework, store, uploads={"max_size": 1000}) as service:
        for size, status in ((1000, 201), (1001, 413)):
            body = content(size)
            key = f"o{size}"
            assert (await ask_httpx(service.url(key), "PUT", [], body)).status == status
            sent = request("PUT", f"/files/{key}", unknown, chunked(body[:600], body[600:]))
            assert parsed(await raw(service.port, sent)).status == status
            sent = form((NOTE, b"x" * 500), (FILE, body))
            assert (await ask_httpx(service.url(key), "POST", [FORM], sent)).status == status
    assert await keys(store) == ["o1000"]


@both
async def test_rejection_reaches_client_that_sends_everything_before_reading(
    framework: str, store: Trove
) -> None:
    # The rejection follows from the length or the first bytes, while the rest is still in flight.
    async with serving(framework, store, uploads={"max_size": 1000}) as service:
        body = content(16 * MiB)
        got = await ask_httpx(service.url("o"), "PUT", [], body)
        assert got.status == 413
        assert got.headers["connection"] == "close"
        got = await ask_httpx(service.url("o"), "POST", [FORM], form((FILE, body)))
        assert got.status == 413


@both
async def test_connection_is_reused_after_body_was_read(framework: str, store: Trove) -> None:
    wrong = request("POST", "/files/o", [": ".join(FORM), "Content-Length: 0"])
    wrong = wrong.replace(b"Connection: close\r\n", b"")
    async with serving(framework, store) as service:
        got = await raw(service.port, wrong + request("HEAD", "/files/none"))
    assert got.startswith(b"HTTP/1.1 400 ")
    assert b"HTTP/1.1 404 " in got


@both
async def test_too_large_announced_body_is_rejected_before_it_is_sent(
    framework: str, store: Trove, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The body is never sent: the announced length is enough. The client waits for our close.
    monkeypatch.setattr(on_starlette, "LINGER", 0.05)
    sent = request("PUT", "/files/o", ["Content-Length: 1001", "Expect: 100-continue"])
    async with serving(framework, store, uploads={"max_size": 1000}) as service:
        assert parsed(await raw(service.port, sent)).status == 413
        huge = f"Content-Length: {_upload.FORM_OVERHEAD + 1001}"
        sent = request("POST", "/files/o", [": ".join(FORM), huge])
        assert parsed(await raw(service.port, sent)).status == 413


@both
async def test_too_large_chunked_body_is_rejected_while_received(
    framework: str, fake: Fake, store: Trove
) -> None:
    # The client never stops sending: past the limit it gets a response and is disconnected.
    async with serving(framework, store, uploads={"max_size": 2 * MiB}) as service:
        reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
        writer.write(request("PUT", "/files/o", ["Transfer-Encoding: chunked"]))
        piece = b"10000\r\n%s\r\n" % bytes(0x10000)
        answer = asyncio.ensure_future(reader.readline())  # noqa: TID251 - the client, not us
        while not answer.done():
            try:
                writer.write(piece)
                await writer.drain()
            except ConnectionError:
                break
            await asyncio.sleep(0)
        assert (await answer).startswith(b"HTTP/1.1 413 ")
        writer.transport.abort()
    assert await keys(store) == []
    assert fake.open_uploads == 0


@both
async def test_form_overhead_is_limited(framework: str, store: Trove) -> None:
    flood = b"x" * (_upload.FORM_OVERHEAD + 1)
    async with serving(framework, store, uploads={"max_size": None}) as service:
        for parts in (((NOTE, flood), (FILE, b"x")), ((FILE, b"x"), (NOTE, flood))):
            got = await ask_aiohttp(service.url("o"), "POST", [FORM], form(*parts))
            assert got.status == 413
    assert await keys(store) == []


@both
async def test_client_below_min_rate_is_disconnected(
    framework: str, store: Trove, fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_upload, "GRACE", 0.05)
    sent = request("PUT", "/files/o", ["Content-Length: 1000"], b"a few bytes")
    async with serving(framework, store, uploads={"max_size": None, "min_rate": 1e4}) as service:
        reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
        writer.write(sent)
        assert (await reader.readline()).startswith(b"HTTP/1.1 408 ")
        # A fast client is unaffected at the same time, whatever the speed of the backend.
        assert (await ask_httpx(service.url("p"), "PUT", [], BODY)).status == 201
        writer.close()
    assert await keys(store) == ["p"]
    assert fake.open_uploads == 0


def test_min_rate_has_a_default() -> None:
    limits = _upload.Limits(max_size=None)
    assert limits.min_rate is not None
    assert limits.min_rate <= 1000
    for verbs in (on_starlette, on_aiohttp):
        parameter = inspect.signature(verbs.store_upload).parameters["min_rate"]
        assert parameter.default == limits.min_rate


@both
async def test_stalled_client_is_disconnected_by_default(
    framework: str, store: Trove, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_upload, "GRACE", 0.05)
    sent = request("PUT", "/files/o", ["Content-Length: 1000"], b"few")
    async with serving(framework, store) as service:
        reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
        writer.write(sent)
        assert (await reader.readline()).startswith(b"HTTP/1.1 408 ")
        writer.close()
    assert await keys(store) == []


def test_invalid_limits_are_rejected() -> None:
    with pytest.raises(ValueError, match="max_size"):
        _upload.Limits(max_size=-1)
    with pytest.raises(ValueError, match="min_rate"):
        _upload.Limits(max_size=None, min_rate=0)


@both
async def test_content_range_is_rejected(framework: str, store: Trove) -> None:
    async with serving(framework, store) as service:
        got = await ask_httpx(
            service.url("o"), "PUT", [("Content-Range", "bytes 0-3/1000")], b"part"
        )
        assert got.status == 400
    assert await keys(store) == []


# -- digests ---------------------------------------------------------------------------------------


def md5(body: bytes) -> str:
    return b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()


def sha(body: bytes, name: str = "sha-256") -> str:
    digest = hashlib.new(name.replace("-", ""), body).digest()
    return f"{name}=:{b64encode(digest).decode()}:"


@both
@pytest.mark.parametrize("body", [b"", b"small", BODY], ids=len)
async def test_body_is_verified_against_its_digests(
    framework: str, body: bytes, store: Trove
) -> None:
    other = body + b"x"
    right = [
        ("Content-MD5", md5(body)),
        ("Content-Digest", sha(body)),
        ("Content-Digest", f"unknown=:AA==:, {sha(body, 'sha-512')};a=1,{sha(body)}"),
        ("Content-Digest", "crc99=:AA==:"),
        ("Content-Digest", f"md5=:{md5(body)}:"),
    ]
    wrong = [
        ("Content-MD5", md5(other)),
        ("Content-MD5", "AAAA"),
        ("Content-MD5", "no base64"),
        ("Content-MD5", ""),
        ("Content-MD5", "\xff"),
        ("Content-Digest", sha(other)),
        ("Content-Digest", f"{sha(body)}, {sha(other, 'sha-512')}"),
        ("Content-Digest", "sha-256=AAAA"),
        ("Content-Digest", "sha-256"),
        ("Content-Digest", "sha-256=:AAAA:"),
    ]
    async with serving(framework, store) as service:
        for field in wrong:
            got = await ask_raw(service, body, field)
            assert (got.status, field) == (400, field)
            assert field[0].encode() in got.body
            assert await keys(store) == [], field
        for field in right:
            assert (await ask_raw(service, body, field)).status == 201, field
            await store.delete("files", "o")


async def ask_raw(service: Any, body: bytes, *fields: tuple[str, str]) -> Answered:
    lines = [f"{name}: {value}" for name, value in fields]
    sent = request("PUT", "/files/o", [*lines, f"Content-Length: {len(body)}"], body)
    return parsed(await raw(service.port, sent))


@both
async def test_digest_of_form_covers_the_whole_body(framework: str, store: Trove) -> None:
    body = form((FILE, BODY), (NOTE, b"n"))
    async with serving(framework, store) as service:
        fields = [FORM, ("Content-Digest", sha(BODY))]
        assert (await ask_httpx(service.url("o"), "POST", fields, body)).status == 400
        assert await keys(store) == []
        fields = [FORM, ("Content-Digest", sha(body))]
        assert (await ask_httpx(service.url("o"), "POST", fields, body)).status == 201


async def test_digest_of_decoded_body_is_rejected(store: Trove) -> None:
    packed = gzip.compress(b"text")
    fields = [("Content-Encoding", "gzip"), ("Content-MD5", md5(packed))]
    async with serving("aiohttp", store) as service:
        got = await ask_httpx(service.url("o"), "PUT", fields, packed)
        assert (got.status, b"cannot be checked" in got.body) == (400, True)
    assert await keys(store) == []


# -- types and names -------------------------------------------------------------------------------


@both
async def test_malformed_content_type_is_stored_as_octet_stream(
    framework: str, store: Trove
) -> None:
    async with serving(framework, store) as service:
        for kind in ("text/plain;,text/html", "image/png;a=b,image/svg+xml", "nonsense"):
            await ask_httpx(service.url("raw"), "PUT", [("Content-Type", kind)], b"x")
            part = FILE.replace("image/png", kind)
            await ask_httpx(service.url("form"), "POST", [FORM], form((part, b"x")))
            for key in ("raw", "form"):
                info = await store.head("files", key)
                assert info.content_type == "application/octet-stream"


@both
async def test_part_with_only_extended_file_name_is_the_file(framework: str, store: Trove) -> None:
    part = "Content-Disposition: form-data; name=file; filename*=UTF-8''%e2%82%ac.png"
    async with serving(framework, store) as service:
        got = await ask_httpx(service.url("o"), "POST", [FORM], form((NOTE, b"n"), (part, b"x")))
        assert got.status == 201
        assert service.uploaded[-1].form == (("note", "n"),)
        broken = part.replace("%e2", "%ff")
        got = await ask_httpx(service.url("o"), "POST", [FORM], form((broken, b"x")))
        assert got.status == 400
    assert await store.read("files", "o") == b"x"


# -- conditions ------------------------------------------------------------------------------------


@both
async def test_upload_honours_conditions(framework: str, store: Trove) -> None:
    async with serving(framework, store) as service:

        async def put(body: bytes, **headers: str) -> Answered:
            given = [(name.replace("_", "-"), value) for name, value in headers.items()]
            return await ask_httpx(service.url("o"), "PUT", given, body)

        assert (await put(b"0", If_Match="*")).status == 412
        assert (await put(b"1", If_None_Match="*")).status == 201
        assert (await put(b"2", If_None_Match="*")).status == 412
        tag = (await put(b"3")).headers["etag"]
        assert (await put(b"4", If_Match='"x"')).status == 412
        assert (await put(b"5", If_None_Match=tag)).status == 412
        assert (await put(b"6", If_None_Match='"x"')).status == 201
        assert (await put(b"7", If_Match=tag)).status == 412
        assert (await put(b"8", If_Unmodified_Since="Sun, 06 Nov 1994 08:49:37 GMT")).status == 412
        assert (await put(b"9", If_Match="*")).status == 201
        tag = entity_tag(str((await store.head("files", "o")).etag))
        assert (await put(b"10", If_Match=f'"x", {tag}')).status == 201
    assert await store.read("files", "o") == b"10"


@pytest.mark.parametrize("header", ["If-None-Match: *", 'If-None-Match: "x"'])
@both
async def test_condition_that_fails_during_the_body_returns_412(
    framework: str, header: str, store: Trove
) -> None:
    async with serving(framework, store) as service:
        reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
        head = request("PUT", "/files/o", ["Content-Length: 4", header, "Expect: 100-continue"])
        writer.write(head)
        assert (await reader.readline()).startswith(b"HTTP/1.1 100 ")  # the condition was checked
        await store.put("files", "o", b"theirs")
        writer.write(b"mine")
        assert b" 412 " in await reader.read()
        writer.close()
    assert await store.read("files", "o") == b"theirs"


# -- disconnecting clients -------------------------------------------------------------------------


@pytest.mark.parametrize("framing", ["length", "chunked", "form"])
@both
async def test_disconnect_midway_leaves_no_object(
    framework: str, framing: str, store: Trove, fake: Fake
) -> None:
    begun, undone = asyncio.Event(), asyncio.Event()

    async def sending() -> None:
        begun.set()

    async def leaving() -> None:
        undone.set()

    fake.before["send"] = sending
    fake.before["upload.exit"] = leaving
    body = content(16 * MiB)
    heads = {
        "length": (["Content-Length: 999999999"], body),
        "chunked": (["Transfer-Encoding: chunked"], b"fffffff\r\n" + body),
        "form": (
            [": ".join(FORM), "Content-Length: 999999999"],
            f"--frontier\r\n{FILE}\r\n\r\n".encode() + body,
        ),
    }
    lines, sent = heads[framing]
    async with serving(framework, store) as service:
        _, writer = await asyncio.open_connection("127.0.0.1", service.port)
        writer.write(request("PUT", "/files/o", lines, sent))
        await begun.wait()
        assert fake.open_uploads == 1
        writer.transport.abort()
        await undone.wait()
        with pytest.raises(ObjectNotFoundError):
            await store.head("files", "o")
        assert fake.count("commit") == 0


@both
async def test_hanging_backend_applies_backpressure(
    framework: str, store: Trove, fake: Fake
) -> None:
    hanging = fake.hang("send")
    async with serving(framework, store) as service:
        _, writer = await asyncio.open_connection("127.0.0.1", service.port)
        writer.write(request("PUT", "/files/o", ["Content-Length: 67108864"], content(64 * MiB)))
        await hanging.wait()
        # The pool has two slots here, too few for everything the client has sent.
        assert writer.transport.get_write_buffer_size() > 0
        assert store.pool.statistics().leased <= 2 * MiB
        writer.transport.abort()
        fake.before.clear()


@both
async def test_slow_uploads_do_not_block_fast_ones(framework: str, store: Trove) -> None:
    # More uploads than the pool has parts; each has sent a small piece of a large body.
    head = request("PUT", "/files/slow", [f"Content-Length: {8 * MiB}"], content(100_000))
    async with serving(framework, store) as service:
        writers = []
        for _ in range(20):
            _, writer = await asyncio.open_connection("127.0.0.1", service.port)
            writer.write(head)
            await writer.drain()
            writers.append(writer)
        for number in range(3):
            got = await ask_httpx(service.url(f"fast{number}"), "PUT", [], BODY)
            assert got.status == 201
        for writer in writers:
            writer.transport.abort()
    assert await keys(store) == ["fast0", "fast1", "fast2"]
