"""After various failures, no error, event, log line or span shows a secret."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import logging
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tests.drivers import secret_canaries as canaries
from tests.drivers.gcs.service_account_key import service_account_key
from trove_async import RetryPolicy, Timeout, Trove
from trove_async.drivers import GCSDriver, S3Driver, address_from_url
from trove_async.errors import TroveError
from trove_async.integrations.logs import log
from trove_async.integrations.otel import instrument
from trove_async.testing import opened

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from trove_async import Event

_KEYS = (canaries.SECRET_KEY, canaries.SESSION_TOKEN)
_KEYS_WITH_CUSTOMER_KEY = (canaries.CUSTOMER_KEY, canaries.ENCODED_CUSTOMER_KEY, *_KEYS)
SECRETS_OF = {
    "s3": _KEYS,
    "sdk": _KEYS,
    "s3 with a key": _KEYS_WITH_CUSTOMER_KEY,
    "sdk with a key": _KEYS_WITH_CUSTOMER_KEY,
    "gcs": (canaries.BEARER, canaries.CLIENT_SECRET, canaries.REFRESH_TOKEN),
}
"""The secrets of each driver that a service or proxy knows, and may quote in a response."""

LAST_MODIFIED = "Sat, 28 Nov 2026 12:00:00 GMT"


def quote_all(secrets: Sequence[str]) -> str:
    """Return a text that contains the secrets, as they are and percent-encoded."""
    return " ".join(f"{secret} {quote(secret, safe='')}" for secret in secrets)


def responses(name: str) -> dict[str, tuple[int, dict[str, str], str]]:
    """Return responses of a service that quote its secrets, each as status, headers and body."""
    secrets = SECRETS_OF[name]
    quotes = quote_all(secrets)
    error = error_json(secrets) if name == "gcs" else error_document(secrets)
    return {
        "denied": (403, {}, error),
        "unauthenticated": (401, {}, error),
        "missing": (404, {}, error),
        "conflict": (409, {}, error),
        "server error": (500, {"retry-after": quotes}, error),
        "redirect": (307, {"location": f"http://127.0.0.1:9/{quote(quotes)}"}, error),
        "invalid headers": (
            200,
            {"last-modified": quotes, "etag": f'"{quotes}"', "content-range": quotes},
            "",
        ),
        "invalid dates": (
            200,
            {"last-modified": quotes, "x-goog-generation": "1", "x-goog-hash": quotes},
            "body",
        ),
        "invalid range": (
            206,
            {"content-range": quotes, "last-modified": LAST_MODIFIED, "etag": '"e"'},
            "body",
        ),
        "invalid document": (200, {}, f"<{secrets[0]}>{quotes}"),
        "invalid fields": (
            200,
            {},
            json.dumps({"name": "key", "generation": "1", "size": quotes, "updated": quotes}),
        ),
    }


def error_document(secrets: Sequence[str]) -> str:
    """Return an S3 error document that quotes secrets in every field."""
    return f"<Error><Code>{secrets[-1]}</Code><Message>{quote_all(secrets)}</Message></Error>"


def error_json(secrets: Sequence[str]) -> str:
    """Return a GCS error document that quotes secrets in every field."""
    text = quote_all(secrets)
    return json.dumps(
        {"error": {"message": text, "errors": [{"reason": secrets[0], "message": text}]}}
    )


class Service:
    """A server that sends the same response to all requests, or none if it hangs.

    The response to ``POST /token`` is always a token.
    """

    def __init__(self, status: int, headers: dict[str, str], body: str) -> None:
        self.status = status
        self.headers = headers
        self.body = body
        self.hangs = False
        self.request_received = asyncio.Event()
        self.released = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                lines = head.decode().lower().splitlines()
                fields = dict(line.split(": ", 1) for line in lines[1:-1])
                await reader.readexactly(int(fields.get("content-length", "0")))
                if lines[0].startswith("post /token "):
                    token = {"access_token": canaries.BEARER, "expires_in": 3600}
                    writer.write(_response(200, {}, json.dumps(token)))
                    continue
                self.request_received.set()
                if self.hangs:
                    await self.released.wait()
                    return
                body = "" if lines[0].startswith("head ") else self.body
                writer.write(_response(self.status, self.headers, body))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


def _response(status: int, headers: dict[str, str], body: str) -> bytes:
    lines = [f"HTTP/1.1 {status} Reason", *(f"{name}: {value}" for name, value in headers.items())]
    data = body.encode()
    head = "\r\n".join([*lines, "content-type: application/json", f"content-length: {len(data)}"])
    return f"{head}\r\n\r\n".encode() + data


@asynccontextmanager
async def serving(service: Service) -> AsyncIterator[str]:
    server = await asyncio.start_server(service.serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        service.released.set()
        server.close()


def s3(endpoint: str, **options: Any) -> S3Driver:
    return S3Driver(
        endpoint_url=endpoint,
        region="us-east-1",
        access_key_id="AKIDEXAMPLE",
        secret_access_key=canaries.SECRET_KEY,
        session_token=canaries.SESSION_TOKEN,
        dialect="s3",
        **options,
    )


def sdk(endpoint: str, **options: Any) -> S3Driver:
    return s3(endpoint, data_plane="sdk", **options)


def gcs(endpoint: str, **options: Any) -> GCSDriver:
    issuer = options.pop("issuer", endpoint)
    credentials = {
        "type": "authorized_user",
        "client_id": "client",
        "client_secret": canaries.CLIENT_SECRET,
        "refresh_token": canaries.REFRESH_TOKEN,
        "token_uri": f"{issuer}/token",
    }
    return GCSDriver(
        endpoint_url=endpoint, credentials=credentials, project="p", token_origins=issuer, **options
    )


DRIVERS = {"s3": s3, "sdk": sdk, "gcs": gcs}

DRIVERS_WITH_CUSTOMER_KEY = {
    "s3 with a key": partial(s3, sse_customer_key=canaries.CUSTOMER_KEY.encode()),
    "sdk with a key": partial(sdk, sse_customer_key=canaries.CUSTOMER_KEY.encode()),
}
"""Drivers with a customer key, which they send only over https or to this machine."""

ALL_DRIVERS: dict[str, Callable[..., Any]] = {**DRIVERS, **DRIVERS_WITH_CUSTOMER_KEY}


class RecordedStore:
    """A store whose errors, events, log lines and spans are recorded.

    Attributes:
        store: The store.
        errors: The errors of its operations.
    """

    def __init__(self, driver: Any, **timeouts: float) -> None:
        self.store = Trove(
            driver, retry=RetryPolicy(attempts=2, base_delay=0), timeout=Timeout(**timeouts)
        )
        self.errors: list[BaseException] = []
        self._events: list[Event] = []
        self._log = io.StringIO()
        self._spans = InMemorySpanExporter()
        self.store.events.subscribe(self._events.append)
        logger = logging.Logger("canaries", logging.DEBUG)  # noqa: LOG001 - used by this test only
        logger.addHandler(logging.StreamHandler(self._log))
        log(self.store, logger)
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self._spans))
        instrument(self.store, tracer_provider=provider)

    async def run_all(self) -> None:
        """Run operations of each kind, and record their errors."""
        store = self.store
        calls: list[Callable[[], Awaitable[object]]] = [
            lambda: store.put("bucket", "key", b"body", metadata={"a": "b"}),
            lambda: store.read("bucket", "key"),
            lambda: store.read("bucket", "key", range=(1, 3)),
            lambda: store.head("bucket", "key"),
            lambda: store.delete("bucket", "key"),
            lambda: store.list("bucket").all(),
            lambda: store.list_versions("bucket").all(),
            lambda: store.copy("bucket", "key", "bucket", "other"),
            lambda: store.create_bucket("bucket"),
            lambda: store.delete_bucket("bucket"),
            store.list_buckets,
            store.health,
            lambda: store.delete_many("bucket", ["a", "b"]),
        ]
        for call in calls:
            await self.run(call)

    async def run(self, call: Callable[[], Awaitable[object]]) -> None:
        try:
            await call()
        except (TroveError, ExceptionGroup, asyncio.CancelledError) as error:
            self.errors.append(error)

    def leaks(self) -> list[str]:
        """Return the places where a secret is shown."""
        leaks = [leak for error in self.errors for leak in canaries.leaks_of(error)]
        for event in self._events:
            leaks += [f"event: {secret}" for secret in canaries.canaries_in(repr(event))]
            if event.error is not None:
                leaks += canaries.leaks_of(event.error)
        leaks += [f"log: {secret}" for secret in canaries.canaries_in(self._log.getvalue())]
        for span in self._spans.get_finished_spans():
            leaks += [f"span: {secret}" for secret in canaries.canaries_in(span.to_json())]
        leaks += [f"repr: {secret}" for secret in canaries.canaries_in(repr(vars(self.store)))]
        return leaks


@pytest.mark.parametrize("kind", responses("s3"))
@pytest.mark.parametrize("name", ALL_DRIVERS)
async def test_no_secret_is_shown_if_a_response_quotes_it(name: str, kind: str) -> None:
    async with serving(Service(*responses(name)[kind])) as url:
        recorded = RecordedStore(ALL_DRIVERS[name](url))
        async with recorded.store:
            await recorded.run_all()
    assert recorded.errors
    assert recorded.leaks() == []


@pytest.mark.parametrize("name", ALL_DRIVERS)
async def test_refused_connection_shows_no_secret(name: str, unused_tcp_port: int) -> None:
    endpoint = f"http://127.0.0.1:{unused_tcp_port}"
    async with serving(Service(200, {}, "")) as issuer:
        options = {"issuer": issuer} if name == "gcs" else {}
        recorded = RecordedStore(ALL_DRIVERS[name](endpoint, **options))
        async with recorded.store:
            await recorded.run_all()
    assert recorded.errors
    assert recorded.leaks() == []


@pytest.mark.parametrize("name", ALL_DRIVERS)
@pytest.mark.parametrize("ending", ["cancelled", "timed out"])
async def test_request_without_a_response_shows_no_secret(name: str, ending: str) -> None:
    service = Service(200, {}, "")
    service.hangs = True
    async with serving(service) as url:
        limits = {"first_byte": 0.2, "idle": 0.2} if ending == "timed out" else {}
        recorded = RecordedStore(ALL_DRIVERS[name](url), **limits)
        async with recorded.store as store:
            calls: list[Callable[[], Awaitable[object]]] = [
                lambda: store.put("bucket", "key", b"body"),
                lambda: store.read("bucket", "key"),
                lambda: store.head("bucket", "key"),
            ]
            for call in calls:
                service.request_received.clear()
                async with asyncio.TaskGroup() as group:
                    task = group.create_task(recorded.run(call))
                    if ending == "cancelled":
                        await service.request_received.wait()
                        task.cancel()
    assert len(recorded.errors) == 3
    assert recorded.leaks() == []


@pytest.mark.parametrize("name", DRIVERS)
@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("status", [407, 502, None])
@pytest.mark.parametrize("configured_by", ["proxy", "environment", "environment, without a scheme"])
async def test_failing_proxy_shows_no_secret(  # noqa: PLR0917
    name: str,
    scheme: str,
    status: int | None,
    configured_by: str,
    unused_tcp_port: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    quotes = quote_all([*SECRETS_OF[name], canaries.PROXY_USER, canaries.PROXY_PASSWORD])
    proxy = Service(status or 200, {"proxy-authenticate": quotes}, quotes)
    user = f"{canaries.PROXY_USER}:{canaries.PROXY_PASSWORD}"
    token_service = Service(200, {}, "")
    async with serving(proxy) as url, serving(token_service) as issuer:
        port = url.rpartition(":")[2] if status else unused_tcp_port
        options = {"issuer": issuer} if name == "gcs" else {}
        if configured_by == "proxy":
            options["proxy"] = f"http://{user}@127.0.0.1:{port}"
        else:
            prefix = "" if configured_by.endswith("without a scheme") else "http://"
            monkeypatch.setenv(f"{scheme}_proxy", f"{prefix}{user}@127.0.0.1:{port}")
        recorded = RecordedStore(DRIVERS[name](f"{scheme}://service.invalid", **options))
        async with recorded.store:
            await recorded.run_all()
    assert recorded.errors
    assert recorded.leaks() == []


@pytest.mark.parametrize("name", DRIVERS)
async def test_message_shows_no_password_of_a_proxy_from_the_environment(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("https_proxy", f"u:{canaries.PROXY_PASSWORD}@proxy.invalid:3128")
    driver: Any = DRIVERS[name]("http://127.0.0.1:9")
    async with opened(driver):
        error = TroveError(f"the service quotes {canaries.PROXY_PASSWORD}")
        driver.redact(error)
    assert canaries.PROXY_PASSWORD not in error.message


@pytest.mark.parametrize("status", [400, 401, 403, 500, 307])
async def test_failing_issuer_shows_no_secret(status: int) -> None:
    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while await reader.readuntil(b"\r\n\r\n"):
                quotes = {"location": quote_all(SECRETS_OF["gcs"])}
                writer.write(_response(status, quotes, error_json(SECRETS_OF["gcs"])))
        writer.close()

    server = await asyncio.start_server(respond, "127.0.0.1", 0)
    issuer = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    recorded = RecordedStore(gcs("http://127.0.0.1:9", issuer=issuer))
    async with recorded.store:
        await recorded.run_all()
    server.close()
    assert recorded.errors
    assert recorded.leaks() == []


@pytest.mark.parametrize(
    "key",
    [
        canaries.CLIENT_SECRET,
        f"-----BEGIN PRIVATE KEY-----\n{canaries.CLIENT_SECRET}\n-----END PRIVATE KEY-----\n",
        "",
    ],
)
async def test_invalid_private_key_is_reported_and_not_shown(key: str) -> None:
    driver = GCSDriver(credentials={**service_account_key(), "private_key": key})
    with pytest.raises(TroveError, match="private_key") as caught:
        async with Trove(driver):
            pass
    assert canaries.leaks_of(caught.value) == []


@pytest.mark.parametrize(
    "make",
    [
        lambda: s3("not a URL"),
        lambda: s3("not a URL", proxy=f"http://u:{canaries.PROXY_PASSWORD}@h"),
        lambda: gcs("not a URL", proxy=f"http://u:{canaries.PROXY_PASSWORD}@h"),
        lambda: s3("http://h", proxy=f"socks5://u:{canaries.PROXY_PASSWORD}@h"),
        lambda: gcs("http://h", proxy=f"http://u:{canaries.PROXY_PASSWORD}@h:x"),
        lambda: s3("http://h", sse_customer_key=canaries.CUSTOMER_KEY.encode() * 2),
        lambda: s3(
            "http://h",
            sse_customer_key=canaries.CUSTOMER_KEY.encode(),
            server_side_encryption="AES256",
        ),
        lambda: s3("http://h", addressing_style="odd"),
        lambda: s3("http://h", max_connections=0),
        lambda: GCSDriver(credentials=service_account_key(), anonymous=True),
        lambda: gcs("not a URL"),
        lambda: S3Driver(
            access_key_id="with blanks",
            secret_access_key=canaries.SECRET_KEY,
            session_token=canaries.SESSION_TOKEN,
        ),
    ],
)
def test_invalid_arguments_show_no_secret(make: Callable[[], object]) -> None:
    with pytest.raises(TroveError) as caught:
        make()
    leaks = canaries.leaks_of(caught.value)
    for _, _, value in canaries.variables_of(caught.value):
        leaks += ["a private key"] * ("PRIVATE KEY" in "".join(canaries.texts_of(value)))
    assert leaks == []


@pytest.mark.parametrize(
    "url",
    [
        f"s3://ID:{quote(canaries.SECRET_KEY, safe='')}@eu-west-1/bucket?no=such",
        f"s3://ID:{quote(canaries.SECRET_KEY, safe='')}@eu-west-1/bucket?max_connections=x",
        f"s3://ID:{canaries.SECRET_KEY}@eu-west-1/bucket",
        f"s3://ID:{canaries.SECRET_KEY} @eu-west-1/bucket",
        f"s3://ID:{canaries.SECRET_KEY}@eu-west-1/%ff?x",
        f"nowhere://ID:{canaries.SECRET_KEY}@eu-west-1/bucket",
    ],
)
def test_invalid_url_shows_no_secret(url: str) -> None:
    with pytest.raises(TroveError) as caught:
        address_from_url(url)
    assert canaries.leaks_of(caught.value) == []


@pytest.mark.parametrize(
    "file", [{"type": "klingon"}, {"no": "type"}, {"type": "service_account", "token_uri": "x"}]
)
async def test_invalid_credentials_show_no_secret(file: dict[str, str]) -> None:
    driver = GCSDriver(credentials={**file, "client_secret": canaries.CLIENT_SECRET})
    with pytest.raises(TroveError) as caught:
        async with Trove(driver):
            pass
    assert canaries.leaks_of(caught.value) == []
