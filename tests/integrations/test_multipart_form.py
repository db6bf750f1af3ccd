"""Uploads of forms through both frameworks."""

from __future__ import annotations

import json

import pytest

from tests.fakes import content
from tests.integrations.file_service import (
    FILE,
    FORM,
    FRAMEWORKS,
    NOTE,
    form,
    keys,
    parse_response,
    request_bytes,
    send_raw,
    send_with_aiohttp,
    send_with_httpx,
    serving,
)
from trove_async import Trove
from trove_async.integrations import _upload
from trove_async.models import MiB

BODY = content(3 * MiB + 5)

both_frameworks = pytest.mark.parametrize("framework", FRAMEWORKS)
EMPTY = 'Content-Disposition: form-data; name="file"; filename=""'


@both_frameworks
async def test_file_of_browser_form_is_stored(framework: str, store: Trove) -> None:
    message = form((NOTE, b"hello"), (FILE, BODY), (NOTE, b"again"))
    async with serving(framework, store) as service:
        for send in (send_with_httpx, send_with_aiohttp):
            response = await send(service.url("o"), "POST", [FORM], message)
            assert response.status == 201
            assert await store.read("files", "o") == BODY
            assert (await store.head("files", "o")).content_type == "image/png"


@both_frameworks
async def test_file_is_selected_by_field_name(framework: str, store: Trove) -> None:
    other = FILE.replace("file", "other")
    message = form((other, b"other"), (NOTE, b"note"))
    async with serving(framework, store, uploads={"max_size": 4, "field": "note"}) as service:
        response = await send_with_httpx(service.url("o"), "POST", [FORM], message)
        assert response.status == 201
    assert await store.read("files", "o") == b"note"
    assert (await store.head("files", "o")).content_type is None


@both_frameworks
async def test_other_form_fields_are_returned(framework: str, store: Trove) -> None:
    non_ascii = 'Content-Disposition: form-data; name="\u00fc"'
    message = form(
        (NOTE, b"before"), (EMPTY, b""), (FILE, b"x"), (NOTE, b"a\r\n\xff"), (non_ascii, b"")
    )
    head = request_bytes("POST", "/files/o", [": ".join(FORM), f"Content-Length: {len(message)}"])
    async with serving(framework, store) as service:
        pieces = [message[at : at + 3] for at in range(0, len(message), 3)]
        assert parse_response(await send_raw(service.port, head, *pieces)).status == 201
        await send_with_httpx(service.url("o"), "PUT", [], b"raw")
        await send_with_httpx(service.url("o"), "POST", [FORM], form((NOTE, b"no file")))
    in_form, plain, rejected = service.uploaded
    assert in_form.form == (("note", "before"), ("note", "a\r\n\ufffd"), ("\u00fc", ""))
    assert in_form.info.size == 1
    assert plain.form == rejected.form == ()


@pytest.mark.parametrize("fields", [[(NOTE, b"x" * 65_536)], [(NOTE, b"")] * 600])
@both_frameworks
async def test_too_many_or_too_large_form_fields_are_rejected(
    framework: str, fields: list[tuple[str, bytes]], store: Trove
) -> None:
    async with serving(framework, store) as service:
        for parts in ([*fields, (FILE, b"x")], [(FILE, b"x"), *fields]):
            response = await send_with_httpx(service.url("o"), "POST", [FORM], form(*parts))
            assert response.status == 413
    assert await keys(store) == []


@pytest.mark.parametrize("field", [None, "file"])
@both_frameworks
async def test_file_input_without_file_is_skipped(
    framework: str, field: str | None, store: Trove
) -> None:
    uploads = {"max_size": None, "field": field}
    async with serving(framework, store, uploads=uploads) as service:
        response = await send_with_httpx(
            service.url("o"), "POST", [FORM], form((EMPTY, b""), (FILE, b"x"))
        )
        assert response.status == 201
        assert await store.read("files", "o") == b"x"
        response = await send_with_httpx(service.url("p"), "POST", [FORM], form((EMPTY, b"")))
        assert response.status == 400
    assert await keys(store) == ["o"]


@both_frameworks
async def test_form_is_parsed_in_pieces_of_seven_bytes(framework: str, store: Trove) -> None:
    file = b"\r\n--frontie\r\n--frontier-\r\n" + content(3000) + b"\r\n-"
    message = form((NOTE, b"x"), (FILE, file))
    head = request_bytes("POST", "/files/o", [": ".join(FORM), f"Content-Length: {len(message)}"])
    async with serving(framework, store) as service:
        pieces = [message[at : at + 7] for at in range(0, len(message), 7)]
        assert parse_response(await send_raw(service.port, head, *pieces)).status == 201
    assert await store.read("files", "o") == file


MALFORMED_FORMS: dict[str, tuple[bytes, str]] = {
    "no file": (form((NOTE, b"x")), "has no file"),
    "empty body": (b"", "has no file"),
    "no file chosen": (form((EMPTY, b"")), "has no file"),
    "two files": (form((FILE, b"x"), (FILE, b"y")), "more than one file"),
    "no end": (form((FILE, b"x"), end=b""), "ends early"),
    "truncated file": (form((FILE, b"x" * 100))[:-50], "ends early"),
    "no form": (b"hello", "malformed"),
    "bad header": (form(("Content\x00Disposition: x", b"x")), "malformed"),
    "control character in the type": (form((FILE + "\x01", b"x")), "malformed"),
    "long header": (form((f"X: {'x' * 10_000}", b"x")), "malformed"),
}


@pytest.mark.parametrize("kind", MALFORMED_FORMS)
@both_frameworks
async def test_malformed_form_stores_nothing(framework: str, kind: str, store: Trove) -> None:
    body, detail = MALFORMED_FORMS[kind]
    async with serving(framework, store) as service:
        response = await send_with_httpx(service.url("o"), "POST", [FORM], body)
        assert response.status == 400
        assert response.headers["content-type"] == "application/problem+json"
        assert detail in json.loads(response.body)["detail"]
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
@both_frameworks
async def test_form_without_valid_boundary_is_rejected(
    framework: str, kind: str, store: Trove
) -> None:
    message = request_bytes("POST", "/files/o", ["Content-Length: 1"], b"x")
    lines = f"\r\nContent-Type: {kind}\r\n".encode()
    async with serving(framework, store) as service:
        response = parse_response(await send_raw(service.port, message.replace(b"\r\n", lines, 1)))
        assert response.status == 400
    assert await keys(store) == []


@both_frameworks
async def test_form_overhead_is_limited(framework: str, store: Trove) -> None:
    flood = b"x" * (_upload.FORM_OVERHEAD + 1)
    async with serving(framework, store, uploads={"max_size": None}) as service:
        for parts in (((NOTE, flood), (FILE, b"x")), ((FILE, b"x"), (NOTE, flood))):
            response = await send_with_aiohttp(service.url("o"), "POST", [FORM], form(*parts))
            assert response.status == 413
    assert await keys(store) == []


@both_frameworks
async def test_part_with_only_extended_file_name_is_the_file(framework: str, store: Trove) -> None:
    part = "Content-Disposition: form-data; name=file; filename*=UTF-8''%e2%82%ac.png"
    async with serving(framework, store) as service:
        response = await send_with_httpx(
            service.url("o"), "POST", [FORM], form((NOTE, b"n"), (part, b"x"))
        )
        assert response.status == 201
        assert service.uploaded[-1].form == (("note", "n"),)
        broken = part.replace("%e2", "%ff")
        response = await send_with_httpx(service.url("o"), "POST", [FORM], form((broken, b"x")))
        assert response.status == 400
    assert await store.read("files", "o") == b"x"
