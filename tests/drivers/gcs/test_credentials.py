"""Credentials: their sources, and access tokens that are fetched on demand and renewed."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from gcloud.aio.auth import token

from tests.drivers.gcs.in_memory_gcs import InMemoryGCS
from tests.drivers.gcs.in_memory_gcs_server import gcs_server
from tests.drivers.gcs.service_account_key import service_account_key
from trove_async._concurrency import task_group
from trove_async.drivers.gcs import GCSDriver, _credentials
from trove_async.errors import ConfigError, UnauthenticatedError, UnavailableError
from trove_async.options import PutOptions
from trove_async.testing import opened

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


class Issuer:
    """Issues tokens that an in-memory service accepts.

    Attributes:
        issued_count: The number of tokens issued.
        status: The status of the next responses. Any but 200 is sent as an error.
        response: A document to send instead of a token; None: send a token.
    """

    def __init__(self, service: InMemoryGCS) -> None:
        self.service = service
        self.service.valid_tokens = set()
        self.issued_count = 0
        self.status = 200
        self.response: object = None

    async def serve(self, request: web.Request) -> web.Response:
        assert (await request.post())["grant_type"]
        if self.status != 200:
            return web.json_response({"error": "invalid_grant"}, status=self.status)
        if self.response is not None:
            return web.json_response(self.response)
        self.issued_count += 1
        token = f"token-{self.issued_count}"
        assert self.service.valid_tokens is not None
        self.service.valid_tokens.add(token)
        return web.json_response({"access_token": token, "expires_in": 3600})


@asynccontextmanager
async def token_server(issuer: Issuer) -> AsyncIterator[str]:
    """Run the token endpoint of an issuer; yield its URL."""
    app = web.Application()
    app.router.add_post("/token", issuer.serve)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/token"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def driver_with_tokens(service: InMemoryGCS) -> AsyncIterator[tuple[GCSDriver, Issuer]]:
    """Open a driver for a service that requires tokens; yield the driver and the issuer of the tokens."""
    issuer = Issuer(service)
    async with token_server(issuer) as token_uri, gcs_server(service) as url:
        driver = GCSDriver(
            endpoint_url=url,
            credentials=service_account_key(token_uri),
            token_origins=token_uri.removesuffix("/token"),
        )
        async with opened(driver):
            yield driver, issuer


async def test_concurrent_requests_share_one_token() -> None:
    async with driver_with_tokens(InMemoryGCS()) as (driver, issuer):
        assert issuer.issued_count == 0
        async with task_group() as group:
            for number in range(8):
                group.start_soon(driver.create_bucket, f"bucket-{number}")
        assert [info.name for info in await driver.list_buckets()] == [
            f"bucket-{number}" for number in range(8)
        ]
        assert issuer.issued_count == 1


async def test_rejected_token_is_renewed_once() -> None:
    async with driver_with_tokens(InMemoryGCS()) as (driver, issuer):
        await driver.create_bucket("bucket")
        assert issuer.service.valid_tokens is not None
        issuer.service.valid_tokens.clear()  # the service no longer accepts the first token
        await driver.put("bucket", "key", [memoryview(b"body")], PutOptions())
        assert issuer.issued_count == 2
        issuer.service.valid_tokens.clear()
        issuer.status = 400
        with pytest.raises(UnauthenticatedError) as caught:
            await driver.head("bucket", "key")
        assert not caught.value.retryable


async def test_valid_token_is_used_while_renewal_fails() -> None:
    async with driver_with_tokens(InMemoryGCS()) as (driver, issuer):
        await driver.create_bucket("bucket")
        credentials = driver._credentials
        assert credentials is not None
        credentials._renew_at = 0.0
        issuer.status = 503
        await driver.head_bucket("bucket")
        assert issuer.issued_count == 1
        credentials._expires_at = 0.0
        with pytest.raises(UnavailableError) as caught:
            await driver.head_bucket("bucket")
        assert caught.value.retryable


async def test_error_does_not_show_rejected_credentials() -> None:
    async with driver_with_tokens(InMemoryGCS()) as (driver, issuer):
        issuer.status = 401
        with pytest.raises(UnauthenticatedError) as caught:
            await driver.list_buckets()
        assert caught.value.__cause__ is None
        assert "PRIVATE KEY" not in str(caught.value)


@pytest.mark.parametrize(
    "response",
    [
        {"access_token": "two\r\nlines", "expires_in": 3600},
        {"access_token": "größe", "expires_in": 3600},
        {"access_token": "", "expires_in": 3600},
        {"access_token": "good", "expires_in": "soon"},
        {"access_token": "good", "expires_in": None},
        {"expires_in": 3600},
        [],
        "text",
    ],
)
async def test_malformed_token_response_raises(response: object) -> None:
    async with driver_with_tokens(InMemoryGCS()) as (driver, issuer):
        issuer.response = response
        with pytest.raises(UnauthenticatedError, match="malformed"):
            await driver.list_buckets()


async def test_credentials_are_read_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "key.json"
    file.write_text(json.dumps(service_account_key()))
    for credentials in (file, str(file)):
        driver = GCSDriver(credentials=credentials)
        async with opened(driver):
            assert driver._credentials is not None
            assert await driver._credentials.project() == "project-of-the-key"


@pytest.mark.parametrize("text", ["", "{", "[]", '"x"', "{}", '{"type": "klingon", "x": "SECRET"}'])
async def test_invalid_or_missing_credentials_file_is_rejected(tmp_path: Path, text: str) -> None:
    file = tmp_path / "key.json"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        async with opened(GCSDriver(credentials=file)):
            pass
    assert caught.value.__cause__ is None
    with pytest.raises(ConfigError, match="cannot be read"):
        async with opened(GCSDriver(credentials=tmp_path / "missing")):
            pass


def test_emulator_host_is_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for value in ("http://localhost:4443", "localhost:4443", "http://localhost:4443/"):
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", value)
        driver = GCSDriver()
        assert driver.capabilities.private_namespace
        assert not driver.capabilities.presign
        assert driver.place("b", "k") == GCSDriver(endpoint_url="http://localhost:4443").place(
            "b", "k"
        )
    google = GCSDriver(endpoint_url="https://storage.googleapis.com")
    assert not google.capabilities.private_namespace
    monkeypatch.delenv("STORAGE_EMULATOR_HOST")
    assert GCSDriver().place("b", "k") == google.place("b", "k")


def test_repr_does_not_show_credentials() -> None:
    assert "PRIVATE" not in repr(GCSDriver(credentials=service_account_key())._identity)


def elliptic_curve_key() -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    formats = Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    return key.private_bytes(*formats).decode()


@pytest.mark.parametrize(
    "key",
    [
        "SECRET",
        "-----BEGIN PRIVATE KEY-----\nSECRET\n-----END PRIVATE KEY-----\n",
        5,
        [],
        elliptic_curve_key(),
    ],
    ids=["text", "invalid base64", "number", "list", "elliptic curve"],
)
async def test_unusable_private_key_is_rejected_on_open(key: object) -> None:
    driver = GCSDriver(credentials={**service_account_key(), "private_key": key})
    with pytest.raises(ConfigError, match="private_key") as caught:
        async with opened(driver):
            pass
    assert "SECRET" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


async def test_private_key_without_email_is_rejected_on_open() -> None:
    credentials = service_account_key()
    del credentials["client_email"]
    with pytest.raises(ConfigError, match="must have values for client_email"):
        async with opened(GCSDriver(credentials=credentials)):
            pass


USER = {
    "type": "authorized_user",
    "client_id": "1",
    "client_secret": "SECRET",
    "refresh_token": "SECRET",
}
IMPERSONATED = {
    "type": "impersonated_service_account",
    "service_account_impersonation_url": "https://iamcredentials.googleapis.com/x",
    "source_credentials": USER,
}
EXTERNAL = {
    "type": "external_account",
    "audience": "//iam.googleapis.com/pool",
    "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
    "token_url": "https://sts.googleapis.com/v1/token",
    "credential_source": {"file": "/var/run/token"},
}


@pytest.mark.parametrize(
    ("credentials", "names"),
    [
        ({"type": "service_account"}, "client_email, private_key"),
        ({**service_account_key(), "private_key": ""}, "private_key"),
        ({**service_account_key(), "private_key": None}, "private_key"),
        ({"type": "authorized_user"}, "client_id, client_secret, refresh_token"),
        ({**USER, "refresh_token": ""}, "refresh_token"),
        ({**IMPERSONATED, "source_credentials": None}, "source_credentials"),
        ({**IMPERSONATED, "service_account_impersonation_url": ""},
         "service_account_impersonation_url"),
        ({**IMPERSONATED, "source_credentials": {**USER, "client_id": ""}},
         "source_credentials.client_id"),
        ({"type": "external_account", **dict.fromkeys(("audience", "token_url"), "x")},
         "credential_source, subject_token_type"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
async def test_missing_field_is_named_on_open(credentials: dict[str, object], names: str) -> None:
    with pytest.raises(
        ConfigError, match=f"'{credentials['type']}' must have values for {names}:"
    ) as caught:
        async with opened(GCSDriver(credentials=credentials)):
            pass
    assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize(
    "kind", ["external_account_authorized_user", "gdch_service_account", 5, None]
)
async def test_unsupported_type_is_rejected_and_supported_types_are_named(kind: object) -> None:
    with pytest.raises(
        ConfigError, match=r"supports \(authorized_user, external_account"
    ) as caught:
        async with opened(GCSDriver(credentials={"type": kind, "secret": "SECRET"})):
            pass
    assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize(
    "source",
    [
        {"environment_id": "aws1", "url": "http://169.254.169.254/"},
        {"executable": {"command": "/bin/x"}},
        {"type": "klingon"},
        {"x": 1},
        "text",
    ],
    ids=str,
)
async def test_unsupported_source_of_an_external_account_is_rejected_on_open(
    source: object,
) -> None:
    with pytest.raises(ConfigError, match=r"credential_source .+ must be a file, a url or"):
        async with opened(GCSDriver(credentials={**EXTERNAL, "credential_source": source})):
            pass


@pytest.mark.parametrize(
    "credentials",
    [
        USER,
        IMPERSONATED,
        EXTERNAL,
        {**EXTERNAL, "credential_source": {"url": "http://127.0.0.1/token"}},
        {**EXTERNAL, "credential_source": {"type": "environment", "environment_id": "TOKEN"}},
    ],
)
async def test_complete_credentials_of_types_without_a_key_are_accepted(
    credentials: dict[str, object],
) -> None:
    async with opened(GCSDriver(credentials=credentials)):
        pass


async def test_missing_field_of_the_default_credentials_is_named_on_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    file = tmp_path / "application_default_credentials.json"
    file.write_text(json.dumps({**USER, "client_id": ""}))
    with pytest.raises(ConfigError, match="must have values for client_id:"):
        async with opened(GCSDriver(anonymous=False)):
            pass


async def test_missing_project_raises_config_error() -> None:
    async with opened(GCSDriver(anonymous=True)) as driver:
        with pytest.raises(ConfigError, match="project"):
            await driver.list_buckets()


class GoogleVM:
    """The metadata server of a Google VM, and the IAM API that signs for it."""

    async def serve(self, request: web.Request) -> web.Response:
        if request.path == "/sign/vm@project.example":
            assert request.headers["authorization"] == "Bearer vm-token"
            payload = (await request.json())["payload"]
            assert b64decode(payload).startswith(b"GOOG4-RSA-SHA256\n")
            return web.json_response({"signedBlob": b64encode(b"signed").decode()})
        assert request.headers["metadata-flavor"] == "Google"
        if request.path.endswith("/token"):
            return web.json_response({"access_token": "vm-token", "expires_in": 3600})
        values = {"email": "vm@project.example", "project-id": "project-of-the-vm"}
        return web.Response(text=values[request.path.rpartition("/")[2]])


@pytest_asyncio.fixture
async def google_vm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """Make this process seem to run on a Google VM without credentials files."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", GoogleVM().serve)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    for name in ("GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_CLOUD_PROJECT", "GCLOUD_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.setattr(token, "GCE_METADATA_BASE", f"{url}/metadata")
    monkeypatch.setattr(token, "GCE_ENDPOINT_TOKEN", f"{url}/token")
    monkeypatch.setattr(_credentials, "_SIGN_URL", f"{url}/sign/{{email}}")
    yield
    await runner.cleanup()


@pytest.mark.usefixtures("google_vm")
async def test_google_vm_needs_no_credentials() -> None:
    service = InMemoryGCS()
    service.valid_tokens = {"vm-token"}
    async with gcs_server(service) as endpoint_url:
        driver = GCSDriver(endpoint_url=endpoint_url, anonymous=False)
        async with opened(driver):
            await driver.create_bucket("bucket")
            assert driver._credentials is not None
            assert await driver._credentials.project() == "project-of-the-vm"
            url = await driver.presign("GET", "bucket", "key", 60)
            assert "X-Goog-Credential=vm%40project.example%2F" in url
            assert url.endswith(f"&X-Goog-Signature={b'signed'.hex()}")
