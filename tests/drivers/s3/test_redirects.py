"""Redirects are followed neither in requests for credentials nor in requests to the service."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web
from aiohttp.test_utils import RawTestServer
from botocore.utils import ContainerMetadataFetcher

from tests.drivers.s3.test_credentials import identity, isolated_environment
from trove_async.drivers.s3 import S3Driver
from trove_async.drivers.s3._credentials import Session
from trove_async.errors import TroveError, UnavailableError
from trove_async.options import PutOptions
from trove_async.testing import opened

pytestmark = pytest.mark.usefixtures("isolated_environment")
__all__ = ["isolated_environment"]  # imported as a fixture

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@asynccontextmanager
async def redirecting_server(status: int) -> AsyncIterator[tuple[str, list[str]]]:
    """Serve redirects to another host; yield the URL and the requests that the other host receives."""
    received: list[str] = []
    expiration = (datetime.now(UTC) + timedelta(hours=6)).strftime("%Y-%m-%dT%H:%M:%SZ")

    async def record_request(request: web.BaseRequest) -> web.Response:
        received.append(f"{request.method} {request.path} {await request.text()}")
        credentials = {
            "AccessKeyId": "EVIL",
            "SecretAccessKey": "s",
            "Token": "t",
            "Expiration": expiration,
        }
        return web.Response(text=json.dumps(credentials))

    async with RawTestServer(record_request) as other_host:

        async def redirect(request: web.BaseRequest) -> web.Response:
            return web.Response(
                status=status, headers={"location": str(other_host.make_url(request.path))}
            )

        async with RawTestServer(redirect) as server:
            yield str(server.make_url("/")).rstrip("/"), received


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirect_of_the_container_endpoint_is_not_followed(
    monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.setattr(ContainerMetadataFetcher, "SLEEP_TIME", 0)
    async with redirecting_server(status) as (origin, received):
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{origin}/creds")
        monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN", "token-of-the-container")
        with pytest.raises(TroveError):
            await Session(identity()).credentials()
    assert received == []


@pytest.mark.parametrize("status", [302, 307])
async def test_redirect_of_the_instance_metadata_is_not_followed(
    monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    async with redirecting_server(status) as (origin, received):
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "false")
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", origin)
        with pytest.raises(UnavailableError, match="redirects"):
            await Session(identity()).credentials()
    assert received == []


@pytest.mark.parametrize("status", [302, 307, 308])
async def test_redirect_of_assume_role_is_not_followed(
    monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    async with redirecting_server(status) as (origin, received):
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", origin)
        arguments = identity(
            access_key_id="a",
            secret_access_key="s",
            session_token="session-token",
            role_arn="arn:aws:iam::123456789012:role/reader",
            region="us-east-1",
        )
        with pytest.raises(TroveError):
            await Session(arguments).credentials()
    assert received == []


@pytest.mark.parametrize("status", [307, 308])
async def test_redirect_of_web_identity_is_not_followed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, status: int
) -> None:
    (tmp_path / "token").write_text("web-identity")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/reader")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    async with redirecting_server(status) as (origin, received):
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", origin)
        with pytest.raises(TroveError):
            await Session(identity()).credentials()
    assert received == []


@pytest.mark.parametrize("plane", ["lean", "sdk"])
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirect_of_the_service_is_not_followed(plane: Any, status: int) -> None:
    async with redirecting_server(status) as (origin, received):
        driver = S3Driver(
            endpoint_url=origin,
            region="us-east-1",
            access_key_id="a",
            secret_access_key="s",
            session_token="session-token",
            dialect="s3",
            data_plane=plane,
        )
        async with opened(driver):
            with pytest.raises(TroveError):
                await driver.put("bucket", "key", [memoryview(b"body")], PutOptions())
            with pytest.raises(TroveError):
                await driver.head("bucket", "key")
    assert received == []
