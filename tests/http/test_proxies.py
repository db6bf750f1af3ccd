"""Proxies from an argument or from the environment."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from typing import Any

import pytest
from aiobotocore.config import AioConfig

from tests.drivers.gcs.in_memory_gcs import InMemoryGCS
from tests.drivers.gcs.in_memory_gcs_server import gcs_server
from tests.http.scripted_server import LONG_TIMEOUTS, ServerConnection, read_body, serving
from trove_async._http import Origin, SocketTransport, transport_over
from trove_async._http.proxies import Proxies, check_proxy
from trove_async.drivers import GCSDriver, S3Driver
from trove_async.drivers.s3._credentials import _make_sdk_session, run_sdk
from trove_async.errors import ConfigError, TimedOutError, UnavailableError
from trove_async.models import Timeout
from trove_async.testing import opened

VARIABLES = ("http_proxy", "https_proxy", "no_proxy", "all_proxy")
REMOTE = Origin("http", "storage.invalid", 80)
OK_RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@pytest.fixture(autouse=True)
def _no_environment_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.parametrize(
    ("url", "no_proxy", "expected"),
    [
        ("http://host", "", "http://plain:1"),
        ("https://host", "", "http://secure:2"),
        ("http://127.0.0.1:9000", "", "http://plain:1"),
        ("http://host", "*", None),
        ("http://host", "other, host", None),
        ("http://a.host", "host", None),
        ("http://a.host", ".host", None),
        ("http://ahost", "host", "http://plain:1"),
        ("http://host:9000", "host:9000", None),
        ("http://host:9001", "host:9000", "http://plain:1"),
        ("http://127.0.0.1:9000", "127.0.0.1", None),
        ("http://10.1.2.3", "10.0.0.0/8", None),
        ("http://11.1.2.3", "10.0.0.0/8", "http://plain:1"),
        ("http://[fd00::1]:9000", "fd00::/8", None),
        ("http://[::1]:9000", "[::1]", None),
        ("http://host", "10.0.0.0/8", "http://plain:1"),
    ],
)
def test_environment_selects_proxy(url: str, no_proxy: str, expected: str | None) -> None:
    proxies = Proxies({"http": "http://plain:1", "https": "http://secure:2", "no": no_proxy})
    assert proxies.proxy_for(Origin.of(url)) == expected


def test_environment_proxy_without_scheme_uses_http() -> None:
    assert Proxies({"http": "proxy:3128"}).proxy_for(REMOTE) == "http://proxy:3128"


INVALID_URLS = [
    "socks5://me:SECRET@h:1",
    "h:1",
    "http://",
    "http://me:SECRET@h:x",
    "",
    "http://h:99999",
]


@pytest.mark.parametrize("url", INVALID_URLS)
def test_driver_rejects_invalid_proxy_url(url: str) -> None:
    for driver_class in (GCSDriver, S3Driver):
        with pytest.raises(ConfigError, match="proxy must be") as caught:
            driver_class(proxy=url)
        assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "ending"),
    [
        ("socks5://me:SECRET@h:1", "got socks5://"),
        ("SOCKS5://h:1", "got socks5://"),
        ("USER:SECRET@host", r"https://host\[:port\]"),
        ("USER:SECRET@host:3128", r"https://host\[:port\]"),
        ("user:s://SECRET@host", r"https://host\[:port\]"),
        ("host:3128", r"https://host\[:port\]"),
    ],
)
def test_message_shows_the_scheme_of_a_proxy_but_no_user(url: str, ending: str) -> None:
    with pytest.raises(ConfigError, match=f"{ending}$") as caught:
        check_proxy(url)
    assert "user" not in str(caught.value).lower()


def test_proxy_must_be_a_str() -> None:
    url: Any = b"http://me:SECRET@h:1"
    for driver_class in (GCSDriver, S3Driver):
        with pytest.raises(TypeError, match="proxy must be a str, got bytes"):
            driver_class(proxy=url)


def test_environment_proxy_is_validated() -> None:
    with pytest.raises(ConfigError, match=r"HTTP_PROXY must be .* got socks5://") as caught:
        Proxies({"http": "socks5://me:SECRET@h:1"}).proxy_for(REMOTE)
    assert "SECRET" not in str(caught.value)


def test_proxy_url_may_contain_password() -> None:
    assert check_proxy("http://me:secret@h:1") == "http://me:secret@h:1"


async def test_socket_transport_is_used_without_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    transport = transport_over(LONG_TIMEOUTS, tls=None, proxy=None)
    assert isinstance(transport, SocketTransport)
    await transport.aclose()
    monkeypatch.setenv("HTTP_PROXY", "http://h:1")
    transport = transport_over(LONG_TIMEOUTS, tls=None, proxy=None, trust_env=False)
    assert isinstance(transport, SocketTransport)
    await transport.aclose()


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy"])
async def test_request_uses_environment_proxy(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    heads: list[list[str]] = []

    async def handler(connection: ServerConnection) -> None:
        while True:
            head, _ = await connection.receive_request()
            heads.append(head)
            await connection.send(OK_RESPONSE)

    async with serving(handler) as server:
        monkeypatch.setenv(name, f"http://me:secret@127.0.0.1:{server.origin.port}")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        transport = transport_over(LONG_TIMEOUTS, tls=None, proxy=None)
        assert await read_body(await transport.send("GET", REMOTE, "/a%2Fb", {})) == b"ok"
        assert await read_body(await transport.send("GET", server.origin, "/c", {})) == b"ok"
        await transport.aclose()
    lines = [head[0] for head in heads]
    assert lines == ["GET http://storage.invalid/a%2Fb HTTP/1.1", "GET /c HTTP/1.1"]
    header = f"Proxy-Authorization: Basic {b64encode(b'me:secret').decode()}"
    assert [header in head for head in heads] == [True, False]


async def test_https_uses_connect_and_refusal_hides_password(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    heads: list[list[str]] = []

    async def handler(connection: ServerConnection) -> None:
        head, _ = await connection.receive_request()
        heads.append(head)
        await connection.send(
            b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n"
        )

    async with serving(handler) as server:
        monkeypatch.setenv("HTTPS_PROXY", f"http://me:SECRET@127.0.0.1:{server.origin.port}")
        transport = transport_over(LONG_TIMEOUTS, tls=None, proxy=None)
        with pytest.raises(UnavailableError, match="the proxy refused") as caught:
            await transport.send("GET", Origin("https", "storage.invalid", 443), "/", {})
        await transport.aclose()
    assert heads[0][0] == "CONNECT storage.invalid:443 HTTP/1.1"
    assert "SECRET" not in str(caught.value)


async def test_unresponsive_proxy_times_out() -> None:
    async def handler(connection: ServerConnection) -> None:
        await connection.receive_request()
        await connection.reader.read()

    async with serving(handler) as server:
        proxy = f"http://127.0.0.1:{server.origin.port}"
        timeout = Timeout(connect=0.2, first_byte=30, idle=30)
        transport = transport_over(timeout, tls=None, proxy=proxy)
        async with asyncio.timeout(25):
            with pytest.raises(TimedOutError):
                await transport.send("GET", Origin("https", "storage.invalid", 443), "/", {})
        await transport.aclose()


async def test_error_names_unreachable_proxy() -> None:
    async with serving(lambda _: asyncio.sleep(0)) as server:
        port = server.origin.port
    transport = transport_over(LONG_TIMEOUTS, tls=None, proxy=f"http://me:SECRET@127.0.0.1:{port}")
    with pytest.raises(
        UnavailableError, match=rf"the proxy 127\.0\.0\.1:{port}: .*refused"
    ) as caught:
        await transport.send("GET", REMOTE, "/", {})
    await transport.aclose()
    assert "SECRET" not in str(caught.value)


async def test_gcs_uses_environment_proxy_only_with_trust_env(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with gcs_server(InMemoryGCS()) as url:
        # The host of the endpoint does not exist. The service itself acts as the proxy.
        monkeypatch.setenv("HTTP_PROXY", url)
        driver = GCSDriver(endpoint_url="http://storage.invalid")
        async with opened(driver):
            await driver.create_bucket("bucket")
            assert [info.name for info in await driver.list_buckets()] == ["bucket"]
        without_env = GCSDriver(endpoint_url="http://storage.invalid", trust_env=False)
        async with opened(without_env):
            with pytest.raises(UnavailableError, match=r"storage\.invalid:80: .* not resolve"):
                await without_env.list_buckets()


@pytest.mark.parametrize("trust_env", [True, False])
async def test_s3_uses_environment_proxy_only_with_trust_env(
    monkeypatch: pytest.MonkeyPatch, *, trust_env: bool
) -> None:
    received: list[str] = []

    async def handler(connection: ServerConnection) -> None:
        while True:
            received.append((await connection.receive_request())[0][0])
            await connection.send(b"HTTP/1.1 204 No Content\r\n\r\n")

    settings: dict[str, Any] = {
        "endpoint_url": "http://storage.invalid",
        "access_key_id": "id",
        "secret_access_key": "secret",
        "region": "us-east-1",
        "dialect": "s3",
    }
    async with serving(handler) as server:
        monkeypatch.setenv("HTTP_PROXY", server.origin.url)
        driver = S3Driver(**settings, trust_env=trust_env)
        async with opened(driver):
            if trust_env:
                await driver._plane.delete_bucket("bucket")
            else:
                with pytest.raises(UnavailableError, match="not resolve"):
                    await driver._plane.delete_bucket("bucket")
    assert received == ["DELETE http://storage.invalid/bucket HTTP/1.1"] * trust_env


@pytest.mark.parametrize("trust_env", [True, False])
@pytest.mark.parametrize("options", [{}, {"config": AioConfig(read_timeout=5)}])
async def test_sdk_credential_lookup_follows_trust_env(
    *, trust_env: bool, options: dict[str, Any]
) -> None:
    keys = {"aws_access_key_id": "a", "aws_secret_access_key": "s"}

    async def proxies() -> object:
        session = _make_sdk_session(S3Driver(trust_env=trust_env)._identity)
        async with session.create_client(
            "sts", region_name="us-east-1", **keys, **options
        ) as client:
            return client.meta.config.proxies

    assert await run_sdk(proxies) == (None if trust_env else {})
