"""Secrets are sent only to Google's hosts and to origins that the user trusts."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web
from gcloud.aio.auth import token as sdk_token

from tests.drivers.gcs.service_account_key import service_account_key
from trove_async.drivers.gcs import GCSDriver, _credentials
from trove_async.errors import ConfigError, UnauthenticatedError
from trove_async.testing import opened

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

GOOGLE_TOKEN_URI = "https://oauth2.googleapis.com/token"


class RecordingServer:
    """A server that an issuer redirects to. It records all requests."""

    def __init__(self) -> None:
        self.received: list[tuple[str, bytes, dict[str, str]]] = []

    async def serve(self, request: web.Request) -> web.Response:
        self.received.append((request.method, await request.read(), dict(request.headers)))
        return web.json_response(
            {
                "access_token": "stolen",
                "expires_in": 3600,
                "signedBlob": "",
                "accessToken": "stolen",
            }
        )


@asynccontextmanager
async def http_server(handler: Any) -> AsyncIterator[str]:
    """Run a server that passes every request to a handler; yield its origin."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def redirecting_server(status: int, recorder: RecordingServer) -> AsyncIterator[str]:
    """Run a server that redirects to a recorder; yield its origin."""
    async with http_server(recorder.serve) as target:

        async def redirect(_: web.Request) -> web.Response:
            return web.Response(status=status, headers={"location": f"{target}/token"})

        async with http_server(redirect) as origin:
            yield origin


def authorized_user(token_uri: str) -> dict[str, str]:
    return {
        "type": "authorized_user",
        "client_id": "client",
        "client_secret": "client-secret",
        "refresh_token": "refresh-token",
        "token_uri": token_uri,
    }


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("create_credentials", [service_account_key, authorized_user])
async def test_redirect_of_issuer_is_rejected_and_leaks_no_secret(
    status: int, create_credentials: Any
) -> None:
    recorder = RecordingServer()
    async with redirecting_server(status, recorder) as issuer:
        driver = GCSDriver(
            endpoint_url="http://127.0.0.1:9",
            credentials=create_credentials(f"{issuer}/token"),
            token_origins=issuer,
        )
        async with opened(driver):
            with pytest.raises(
                UnauthenticatedError, match=r"fetching an access token failed: .+ a redirect"
            ) as caught:
                await driver.head("bucket", "key")
    assert not caught.value.retryable
    assert recorder.received == []


async def test_redirect_of_metadata_server_is_rejected(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    recorder = RecordingServer()
    async with redirecting_server(307, recorder) as metadata_server:
        monkeypatch.setattr(sdk_token, "GCE_ENDPOINT_TOKEN", f"{metadata_server}/token")
        monkeypatch.setattr(sdk_token, "GCE_METADATA_BASE", metadata_server)
        driver = GCSDriver(endpoint_url="http://127.0.0.1:9", anonymous=False)
        async with opened(driver):
            with pytest.raises(UnauthenticatedError, match="redirect"):
                await driver.head("bucket", "key")
            with pytest.raises(UnauthenticatedError, match="redirect"):
                await driver.presign("GET", "bucket", "key", 60)
    assert recorder.received == []


async def test_redirect_of_signer_is_rejected_and_leaks_no_token(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))

    async def metadata_server(request: web.Request) -> web.Response:
        if request.path == "/token":
            return web.json_response({"access_token": "vm-token", "expires_in": 3600})
        return web.Response(text="vm@project.example")

    recorder = RecordingServer()
    async with (
        redirecting_server(308, recorder) as signer,
        http_server(metadata_server) as metadata,
    ):
        monkeypatch.setattr(sdk_token, "GCE_ENDPOINT_TOKEN", f"{metadata}/token")
        monkeypatch.setattr(sdk_token, "GCE_METADATA_BASE", metadata)
        monkeypatch.setattr(_credentials, "_SIGN_URL", f"{signer}/{{email}}")
        driver = GCSDriver(endpoint_url="http://127.0.0.1:9", anonymous=False)
        async with opened(driver):
            with pytest.raises(UnauthenticatedError, match=r"signing a URL failed: .+ a redirect"):
                await driver.presign("GET", "bucket", "key", 60)
    assert recorder.received == []


@pytest.mark.parametrize(
    "url",
    [
        GOOGLE_TOKEN_URI,
        "https://accounts.google.com/o/oauth2/token",
        "https://www.googleapis.com/oauth2/v4/token",
        "https://oauth2.mtls.googleapis.com/token",
        "https://oauth2-private.p.googleapis.com/token",
        "https://OAUTH2.GOOGLEAPIS.COM/token",
        "https://oauth2.googleapis.com:443/token",
    ],
)
async def test_google_issuers_are_trusted(url: str) -> None:
    async with opened(GCSDriver(credentials=service_account_key(url))):
        pass


@pytest.mark.parametrize(
    "url",
    [
        "http://oauth2.googleapis.com/token",
        "https://oauth2.googleapis.com.example/token",
        "https://oauth2.googleapis.com@evil.example/token",
        "https://user:pass@oauth2.googleapis.com/token",
        "https://evilgoogleapis.com/token",
        "https://evil.example/oauth2.googleapis.com/token",
        "https://evil.example#.googleapis.com/token",
        "https://evil.example\\.googleapis.com/token",
        "https://evil.example?.googleapis.com",
        "ftp://oauth2.googleapis.com/token",
        "//oauth2.googleapis.com/token",
        "oauth2.googleapis.com/token",
        "https:///token",
        "https://[oauth2.googleapis.com/token",
        "",
    ],
)
async def test_foreign_issuer_is_rejected_on_open(url: str) -> None:
    with pytest.raises(ConfigError, match="token_uri") as caught:
        async with opened(GCSDriver(credentials=service_account_key(url))):
            pass
    assert "evil" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "credentials"),
    [
        ("token_uri", authorized_user("https://evil.example/token")),
        (
            "token_url",
            {
                "type": "external_account",
                "audience": "//iam.googleapis.com/pool",
                "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
                "token_url": "https://evil.example/token",
                "credential_source": {"file": "/var/run/token"},
            },
        ),
        (
            "service_account_impersonation_url",
            {
                **authorized_user(GOOGLE_TOKEN_URI),
                "service_account_impersonation_url": "https://evil.example/impersonate",
            },
        ),
        (
            "token_uri",
            {
                "type": "impersonated_service_account",
                "source_credentials": authorized_user("https://evil.example/token"),
                "service_account_impersonation_url": "https://iamcredentials.googleapis.com/x",
            },
        ),
    ],
)
async def test_foreign_issuer_in_any_field_is_rejected_on_open(
    name: str, credentials: dict[str, Any]
) -> None:
    with pytest.raises(ConfigError, match=name):
        async with opened(GCSDriver(credentials=credentials)):
            pass


async def test_foreign_issuer_in_credentials_of_environment_is_rejected(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    file = tmp_path / "key.json"
    file.write_text(json.dumps(service_account_key("https://evil.example/token")))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))
    with pytest.raises(ConfigError, match="token_uri"):
        async with opened(GCSDriver()):
            pass


async def test_token_origin_is_trusted_with_its_scheme_and_port_only() -> None:
    credentials = service_account_key("https://issuer.example:8443/token")
    for origins in ("https://issuer.example:8443", ["https://issuer.example:8443"]):
        async with opened(GCSDriver(credentials=credentials, token_origins=origins)):
            pass
    for other in ("https://issuer.example", "http://issuer.example:8443"):
        with pytest.raises(ConfigError, match="token_uri"):
            async with opened(GCSDriver(credentials=credentials, token_origins=other)):
                pass
    with pytest.raises(ConfigError, match="endpoint"):
        GCSDriver(token_origins="issuer.example")
