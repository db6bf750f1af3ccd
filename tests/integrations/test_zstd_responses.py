"""Objects that are stored as zstd, sent as they are or decoded, in both frameworks."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

import aiohttp
import httpx
import pytest
import zstandard

from tests.fakes import NO_RETRIES, Fake, assert_idle, content, small_pool
from tests.integrations.file_service import (
    FRAMEWORKS,
    curl,
    parse_response,
    request_bytes,
    send_raw,
    serving,
)
from tests.xor_middleware import Xor
from trove_async import Trove
from trove_async._engine.index_cache import IndexCache
from trove_async._http_dates import format_http_date
from trove_async.errors import DecryptionError
from trove_async.integrations._conditions import entity_tag
from trove_async.integrations._download import serve_object
from trove_async.integrations._headers import Presentation
from trove_async.integrations._pacing import LARGE
from trove_async.middlewares.compression import Compression
from trove_async.models import KiB, MiB
from trove_async.scope import Scope

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.integrations.file_service import ClientResponse
    from trove_async.integrations._response import ServerResponse

SMALL = b"".join(b"%d bottles of beer\n" % number for number in range(2000))
TEXT = b"".join(b"%d bottles of beer\n" % number for number in range(150_000))  # several frames
PHOTO = content(100_000)
NOISY = (content(60_000) + bytes(5_000)) * 40  # shrinks by 8 % in frames of 64 KiB

both_frameworks = pytest.mark.parametrize("framework", FRAMEWORKS)


def compress(data: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(data)


def decompress(data: bytes) -> bytes:
    with zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True) as reader:
        return reader.read()


class Kind(NamedTuple):
    """One kind of object.

    Attributes:
        key: The key.
        body: What is put.
        transforms: What is applied to it.
        content_encoding: Its own Content-Encoding.
        vary: Whether it has two forms.
        head: The requests for its metadata.
    """

    key: str
    body: bytes
    transforms: tuple[str, ...] = ()
    content_encoding: str | None = None
    vary: bool = False
    head: tuple[str, ...] = ("head",)


KINDS = [
    Kind("plain.txt", TEXT),
    Kind("empty.txt", b""),
    Kind("c/text.txt", TEXT, ("zstd",), vary=True),
    Kind("c/small.txt", SMALL, ("zstd",), vary=True),
    # The record is sent before the end of this body, so its size is only in the seek table.
    Kind("c/streamed.txt", NOISY, ("zstd",), vary=True, head=("head", "get")),
    Kind("c/tiny.txt", b"left as it is"),
    Kind("c/photo.png", PHOTO),
    Kind("c/random.bin", PHOTO),
    Kind("c/own.txt", compress(SMALL), content_encoding="zstd"),
    Kind("c/own.zst", compress(SMALL)),
    Kind("c/gzip.txt", SMALL, ("zstd",), content_encoding="gzip"),
    Kind("x/text.txt", TEXT, ("xor",)),
    Kind("cx/text.txt", TEXT, ("zstd", "xor")),
]

ACCEPTS_ZSTD = {
    None: False,
    "": False,
    "gzip, br": False,
    "zstd;q=0, *": False,
    "identity;q=1, *;q=0": False,
    "zstd": True,
    "gzip, deflate, br, zstd": True,
    "*": True,
}


async def pieces(body: bytes) -> AsyncIterator[bytes]:
    yield body


@pytest.fixture
async def store(fake: Fake) -> AsyncIterator[Trove]:
    """Return a store with an object of every kind. Assert that the test leaves no resources open."""
    compressed, flipped = Scope.keys("c/*", "cx/*"), Scope.keys("x/*", "cx/*")
    async with Trove(
        fake,
        middleware=[
            (Compression(), compressed & ~Scope.keys("c/streamed.txt")),
            (Compression(frame_size=64 * KiB), Scope.keys("c/streamed.txt")),
            (Xor(), flipped),
        ],
        pool=small_pool(),
        retry=NO_RETRIES,
    ) as store:
        await store.create_bucket("files")
        for kind in KINDS:
            body = pieces(kind.body) if kind.key == "c/streamed.txt" else kind.body
            info = await store.put("files", kind.key, body, content_encoding=kind.content_encoding)
            assert info.transforms == kind.transforms, kind.key
        fake.steps.clear()
        yield store
        assert_idle(store, fake)


def backend_requests(fake: Fake) -> tuple[str, ...]:
    """Return the requests that the backend has received since the last call."""
    requests = tuple(step for step in fake.steps if step in {"get", "head"})
    fake.steps.clear()
    return requests


async def request(port: int, method: str, key: str, **headers: str | None) -> ClientResponse:
    """Send a request that has no other headers, such as a default Accept-Encoding."""
    lines = [
        f"{name.replace('_', '-')}: {value}" for name, value in headers.items() if value is not None
    ]
    data = await send_raw(port, request_bytes(method, f"/files/{key}", lines))
    return parse_response(data, method)


async def respond(store: Trove, key: str, method: str = "GET", **headers: str) -> ServerResponse:
    """Return the response to a request, without a framework."""
    return await serve_object(
        store,
        "files",
        key,
        method,
        lambda name: headers.get(name.replace("-", "_")),
        presentation=Presentation(),
        redirect="never",
    )


async def body_of(response: ServerResponse) -> bytes:
    if response.stream is None:
        return response.content
    async with aclosing(response.stream):
        return b"".join([chunk async for chunk in response.stream])


async def tags_of(store: Trove, key: str) -> tuple[str, str]:
    """Return the entity tags of the decoded form and of the zstd form."""
    etag = str((await store.head("files", key)).etag)
    return entity_tag(etag), entity_tag(etag, zstd=True)


@both_frameworks
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_form_depends_on_accept_encoding_and_object(
    framework: str, method: str, store: Trove, fake: Fake
) -> None:
    async with serving(framework, store) as service:
        for kind in KINDS:
            stored = await store.read("files", kind.key, decode=False)
            tag, zstd_tag = await tags_of(store, kind.key)
            backend_requests(fake)
            for accept, accepts_zstd in ACCEPTS_ZSTD.items():
                case = (kind.key, accept)
                store._core.transforms.indexes = IndexCache()  # an earlier request has filled it
                response = await request(service.port, method, kind.key, Accept_Encoding=accept)
                zstd = accepts_zstd and kind.vary
                body = stored if zstd else kind.body
                headers = response.headers
                assert response.status == 200, case
                assert headers["content-length"] == str(len(body)), case
                assert headers.get("content-encoding") == (
                    "zstd" if zstd else kind.content_encoding
                ), case
                assert headers["etag"] == (zstd_tag if zstd else tag), case
                assert headers.get("vary") == ("Accept-Encoding" if kind.vary else None), case
                assert headers.get("accept-ranges") == (None if zstd else "bytes"), case
                assert headers["content-type"], case
                if method == "GET":
                    assert response.body == body, case
                    if zstd:
                        assert decompress(response.body) == kind.body, case
                # Only a size that is not recorded costs a request more, and only decoding needs it.
                expected: tuple[str, ...] = kind.head if method == "HEAD" else ("get",)
                if method == "GET" and not zstd:
                    expected += kind.head[1:]
                assert backend_requests(fake) == expected, case


@both_frameworks
async def test_range_is_of_the_decoded_form(framework: str, store: Trove) -> None:
    tag, zstd_tag = await tags_of(store, "c/text.txt")
    whole = await store.read("files", "c/text.txt", decode=False)
    async with serving(framework, store) as service:

        async def get(**headers: str) -> ClientResponse:
            response = await request(
                service.port, "GET", "c/text.txt", **{"Accept_Encoding": "gzip, zstd", **headers}
            )
            assert response.headers["vary"] == "Accept-Encoding"
            return response

        def check(response: ClientResponse, status: int, body: bytes, etag: str = tag) -> None:
            assert (response.status, response.body) == (status, body)
            assert response.headers["etag"] == etag
            encoding = "zstd" if etag == zstd_tag else None
            assert response.headers.get("content-encoding") == encoding

        size = len(TEXT)
        middle = await get(Range="bytes=1500000-1500009")
        check(middle, 206, TEXT[1_500_000:1_500_010])
        assert middle.headers["content-range"] == f"bytes 1500000-1500009/{size}"
        check(await get(Range="bytes=-9"), 206, TEXT[-9:])
        check(await get(Range="bytes=-9", If_Range=tag), 206, TEXT[-9:])
        # The zstd form is not rangeable, so its tag gets the whole object.
        check(await get(Range="bytes=-9", If_Range=zstd_tag), 200, TEXT)
        check(await get(Range="bytes=-9", If_Match=tag), 206, TEXT[-9:])
        assert (await get(Range="bytes=-9", If_Match=zstd_tag)).status == 412
        check(await get(Range="bytes=-9", If_None_Match=zstd_tag), 206, TEXT[-9:])
        check(await get(Range="bytes=-9", If_None_Match=tag), 304, b"")
        unsatisfiable = await get(Range=f"bytes={size}-")
        assert unsatisfiable.status == 416
        assert unsatisfiable.headers["content-range"] == f"bytes */{size}"
        several = await get(Range="bytes=0-9,2000000-2000009")
        assert several.status == 206
        assert several.headers["etag"] == tag
        assert TEXT[2_000_000:2_000_010] in several.body
        # A Range that is ignored, or a client that refuses the decoded form, gets the zstd form.
        check(await get(Range="bytes=9-5"), 200, whole, zstd_tag)
        check(await get(Range="lines=1-2"), 200, whole, zstd_tag)
        for value in ("bytes=0-9", "bytes=0-", f"bytes={size}-", "bytes=0-9,50-99", "bytes=-0"):
            response = await get(Range=value, Accept_Encoding="zstd, identity;q=0")
            check(response, 200, whole, zstd_tag)


async def test_date_permits_no_range_of_object_with_two_forms(store: Trove) -> None:
    for key, status in (("c/text.txt", 200), ("plain.txt", 206)):
        modified = format_http_date((await store.head("files", key)).last_modified)
        response = await respond(store, key, range="bytes=5-9", if_range=modified)
        assert response.status == status
        assert await body_of(response) == (TEXT if status == 200 else TEXT[5:10])


class Condition(NamedTuple):
    """Conditions, and the responses to a client that accepts zstd and to one that does not.

    A response is a status and the form whose ETag it has: ``"zstd"``, ``"decoded"`` or None.
    """

    headers: dict[str, str]
    accepting: tuple[int, str | None]
    other: tuple[int, str | None]


CONDITIONS = [
    Condition({"If-None-Match": "ZSTD"}, (304, "zstd"), (200, "decoded")),
    Condition({"If-None-Match": "W/ZSTD"}, (304, "zstd"), (200, "decoded")),
    # The client has the decoded form, which is as good.
    Condition({"If-None-Match": "DECODED"}, (304, "decoded"), (304, "decoded")),
    Condition({"If-None-Match": "DECODED, ZSTD"}, (304, "zstd"), (304, "decoded")),
    Condition({"If-None-Match": '"x"'}, (200, "zstd"), (200, "decoded")),
    Condition({"If-None-Match": '"x%zstd"'}, (200, "zstd"), (200, "decoded")),
    Condition({"If-None-Match": "*"}, (304, "zstd"), (304, "decoded")),
    Condition({"If-Match": "ZSTD"}, (200, "zstd"), (412, None)),
    Condition({"If-Match": "DECODED"}, (200, "decoded"), (200, "decoded")),
    Condition({"If-Match": "DECODED, ZSTD"}, (200, "zstd"), (200, "decoded")),
    Condition({"If-Match": "*"}, (200, "zstd"), (200, "decoded")),
    Condition({"If-Match": '"x"'}, (412, None), (412, None)),
    Condition({"If-Modified-Since": "NOW"}, (304, "zstd"), (304, "decoded")),
    Condition({"If-Modified-Since": "BEFORE"}, (200, "zstd"), (200, "decoded")),
    Condition({"If-Unmodified-Since": "NOW"}, (200, "zstd"), (200, "decoded")),
    Condition({"If-Unmodified-Since": "BEFORE"}, (412, None), (412, None)),
]


@both_frameworks
@pytest.mark.parametrize("key", ["c/text.txt", "c/small.txt"])
async def test_conditions_are_about_the_form_that_is_sent(
    framework: str, key: str, store: Trove, fake: Fake
) -> None:
    info = await store.head("files", key)
    tag, zstd_tag = await tags_of(store, key)
    values = {
        "DECODED": tag,
        "ZSTD": zstd_tag,
        "NOW": format_http_date(info.last_modified),
        "BEFORE": format_http_date(info.last_modified - timedelta(seconds=1)),
    }
    bodies = {
        "decoded": await store.read("files", key),
        "zstd": await store.read("files", key, decode=False),
    }
    async with serving(framework, store) as service:
        for condition in CONDITIONS:
            headers = {}
            for name, value in condition.headers.items():
                for word, text in values.items():
                    value = value.replace(word, text)  # noqa: PLW2901 - several words
                headers[name] = value
            for accept, (status, form) in (
                ("br, zstd", condition.accepting),
                ("br", condition.other),
            ):
                for method in ("GET", "HEAD"):
                    backend_requests(fake)
                    response = await request(
                        service.port, method, key, Accept_Encoding=accept, **headers
                    )
                    case = (condition, accept, method)
                    assert response.status == status, case
                    assert response.headers["vary"] == "Accept-Encoding", case
                    expected = {"zstd": zstd_tag, "decoded": tag, None: None}[form]
                    assert response.headers.get("etag") == expected, case
                    if status == 200:
                        encoding = "zstd" if form == "zstd" else None
                        assert response.headers.get("content-encoding") == encoding, case
                        if method == "GET":
                            assert response.body == bodies[str(form)], case
                    else:
                        assert "content-encoding" not in response.headers, case
                    has_copy = {"If-None-Match", "If-Modified-Since"} & headers.keys()
                    most = ("head", "get") if has_copy else ("get",)
                    requests = backend_requests(fake)
                    assert requests == (("head",) if method == "HEAD" else most[: len(requests)]), (
                        case
                    )
                    if method == "GET" and status == 200:
                        assert requests == most, case


@both_frameworks
async def test_write_is_conditional_on_either_form(framework: str, store: Trove) -> None:
    async with serving(framework, store) as service:

        async def put(**headers: str) -> ClientResponse:
            lines = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
            lines.append(f"Content-Length: {len(SMALL)}")
            data = request_bytes("PUT", "/files/c/text.txt", lines, SMALL)
            return parse_response(await send_raw(service.port, data))

        async def zstd_tag() -> str:
            response = await request(service.port, "GET", "c/text.txt", Accept_Encoding="zstd")
            return response.headers["etag"]

        first = await zstd_tag()
        assert (await put(If_None_Match=first)).status == 412
        assert (await put(If_Match=f"W/{first}")).status == 412
        assert (await put(If_Match=first)).status == 201
        assert (await put(If_Match=first)).status == 412  # it is a different version now
        response = await put(If_None_Match=first)
        assert response.status == 201
        # The tag that an upload returns can be read by a client that accepts zstd.
        tag = response.headers["etag"]
        read = await request(
            service.port, "GET", "c/text.txt", Accept_Encoding="zstd", If_Match=tag
        )
        assert (read.status, read.headers["etag"], read.body) == (200, tag, SMALL)
        assert (await put(If_Match=f"{tag}, {await zstd_tag()}")).status == 201


async def test_object_without_etag_has_two_forms(fake: Fake) -> None:
    class Untagged(Fake):
        async def head(self, *arguments: Any) -> Any:
            return _without_etag(await super().head(*arguments))

        def get(self, *arguments: Any) -> Any:
            return _Untagged(super().get(*arguments))

    fake = Untagged()
    async with Trove(fake, middleware=[Compression()], pool=small_pool()) as store:
        await store.create_bucket("files")
        await store.put("files", "k", TEXT)
        stored = await store.read("files", "k", decode=False)
        for headers in ({}, {"if_none_match": '"%zstd"'}, {"if_none_match": '""'}):
            for accept, body in (("zstd", stored), ("", TEXT)):
                response = await respond(store, "k", accept_encoding=accept, **headers)
                assert response.status == 200
                assert response.headers["Vary"] == "Accept-Encoding"
                assert "ETag" not in response.headers
                assert await body_of(response) == body
        assert_idle(store, fake)


class _Untagged:
    def __init__(self, context: Any) -> None:
        self._context = context

    async def __aenter__(self) -> Any:
        reader = await self._context.__aenter__()
        reader.info = _without_etag(reader.info)
        return reader

    async def __aexit__(self, *error: object) -> None:
        await self._context.__aexit__(*error)


def _without_etag(info: Any) -> Any:
    return replace(info, etag=None)


@both_frameworks
async def test_replaced_object_is_sent_in_its_new_form(
    framework: str, store: Trove, fake: Fake
) -> None:
    """The object changes between the request for its metadata and the one for its body."""
    async with serving(framework, store) as service:
        for old, new in ((TEXT, b"tiny"), (b"tiny", TEXT)):
            await store.put("files", "c/o.txt", old)
            replaced = False

            async def replace_once(new: bytes = new) -> None:
                nonlocal replaced
                if not replaced:
                    replaced = True
                    await store.put("files", "c/o.txt", new)

            fake.before["head.done"] = replace_once
            response = await request(
                service.port, "GET", "c/o.txt", Accept_Encoding="zstd", If_None_Match='"x"'
            )
            del fake.before["head.done"]
            assert response.status == 200
            encoded = new is TEXT
            assert response.headers.get("content-encoding") == ("zstd" if encoded else None)
            assert response.headers.get("vary") == ("Accept-Encoding" if encoded else None)
            assert (decompress(response.body) if encoded else response.body) == new


@both_frameworks
async def test_required_encryption_is_checked_for_any_client(
    framework: str, store: Trove, fake: Fake
) -> None:
    async with Trove(fake, middleware=[Xor(required=True)], pool=small_pool()) as strict:
        for key in ("plain.txt", "c/text.txt"):
            with pytest.raises(DecryptionError):
                await respond(strict, key, accept_encoding="zstd")
        async with serving(framework, strict) as service:
            response = await request(service.port, "GET", "c/text.txt", Accept_Encoding="zstd")
            assert response.status == 502
            assert b"bottles" not in response.body
    del store


async def test_zstd_form_is_streamed_in_bounded_chunks(fake: Fake) -> None:
    async with Trove(
        fake, middleware=[Compression(frame_size=64 * KiB)], pool=small_pool(), retry=NO_RETRIES
    ) as store:
        await store.create_bucket("files")
        info = await store.put("files", "k", NOISY)
        assert info.transforms == ("zstd",)
        response = await respond(store, "k", accept_encoding="zstd")
        assert response.stream is not None
        stored = b""
        async with aclosing(response.stream) as stream:
            async for chunk in stream:
                assert len(chunk) <= LARGE
                stored += chunk
                if len(stored) < MiB:
                    assert fake.count("read") < 10
        assert len(stored) == info.stored_size == int(response.headers["Content-Length"])
        assert decompress(stored) == NOISY
        # A response that is not sent can be closed.
        unsent = await respond(store, "k", accept_encoding="zstd")
        assert unsent.stream is not None
        await unsent.stream.aclose()
        assert_idle(store, fake)


@both_frameworks
async def test_clients_decode_the_zstd_form(framework: str, store: Trove) -> None:
    """They decode several frames, and ignore the seek table behind them."""
    async with serving(framework, store) as service:
        for key, body in (("c/text.txt", TEXT), ("c/small.txt", SMALL)):
            url = service.url(key)
            async with aiohttp.ClientSession() as session:
                headers = {"Accept-Encoding": "zstd"}
                async with session.get(url, headers=headers) as response:
                    assert response.headers["Content-Encoding"] == "zstd"
                    assert await response.read() == body
            async with httpx.AsyncClient(verify=False) as client:  # noqa: S501 - no TLS
                reply = await client.get(url, headers=headers)
                assert reply.headers["Content-Encoding"] == "zstd"
                assert reply.content == body
            assert await curl("--compressed", url) == body


async def test_decoder_is_not_needed_for_the_zstd_form(
    store: Trove, fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = await store.read("files", "c/text.txt", decode=False)
    async with Trove(fake, pool=small_pool()) as bare:

        def unavailable(name: str) -> None:
            raise ModuleNotFoundError(f"{name} needs zstandard")

        monkeypatch.setattr("trove_async._engine.transforms.import_module", unavailable)
        for method in ("GET", "HEAD"):
            response = await respond(bare, "c/text.txt", method, accept_encoding="zstd")
            assert response.headers["Content-Length"] == str(len(stored))
            assert response.headers["Content-Encoding"] == "zstd"
            assert await body_of(response) == (stored if method == "GET" else b"")
