"""Credentials and endpoints: their sources, and the renewal of credentials."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web
from aiohttp.test_utils import RawTestServer

from trove_async import RetryPolicy, Timeout, Trove
from trove_async.drivers import S3Driver
from trove_async.drivers.s3 import _credentials as credentials_module
from trove_async.drivers.s3._credentials import Endpoint, Identity, Session
from trove_async.drivers.s3._sigv4 import Credentials
from trove_async.errors import (
    ConfigError,
    TimedOutError,
    UnauthenticatedError,
    UnavailableError,
)

if TYPE_CHECKING:
    from pathlib import Path

    from trove_async.testing.servers import S3Server


def identity(**arguments: str) -> Identity:
    """Return an identity with these arguments; all others are None."""
    unset: dict[str, Any] = dict.fromkeys(
        (
            "region",
            "endpoint_url",
            "access_key_id",
            "secret_access_key",
            "session_token",
            "profile",
            "role_arn",
        )
    )
    return Identity(**{**unset, **arguments})


@pytest.fixture(autouse=True)
def isolated_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Hide the machine's own AWS configuration; return the path of a config file to create."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return tmp_path / "config"


def write_config(path: Path, text: str) -> None:
    path.write_text(text)


async def test_keys_passed_as_arguments_are_used() -> None:
    session = Session(identity(access_key_id="a", secret_access_key="s", session_token="t"))
    credentials = await session.credentials()
    assert credentials == Credentials("a", "s", "t")
    assert await session.credentials() is credentials
    assert await session.renew(credentials) is None


async def test_keys_are_found_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
    assert await Session(identity()).credentials() == Credentials("a", "s")


async def test_profile_has_keys_region_and_endpoint(isolated_environment: Path) -> None:
    write_config(
        isolated_environment,
        "[profile work]\naws_access_key_id = a\naws_secret_access_key = s\n"
        "region = eu-west-1\nendpoint_url = http://localhost:9000\n",
    )
    session = Session(identity(profile="work"))
    assert await session.credentials() == Credentials("a", "s")
    endpoint = await session.endpoint()
    assert (endpoint.region, endpoint.origin.url) == ("eu-west-1", "http://localhost:9000")
    assert not endpoint.is_standard_aws


@pytest.mark.parametrize("region", ["eu-west-3", ""])
async def test_region_of_the_environment_applies_to_a_custom_endpoint(
    monkeypatch: pytest.MonkeyPatch, region: str
) -> None:
    if region:
        monkeypatch.setenv("AWS_DEFAULT_REGION", region)
    arguments = identity(endpoint_url="http://h:9", access_key_id="a", secret_access_key="s")
    endpoint = await Session(arguments).endpoint()
    assert endpoint.region == (region or "us-east-1")
    assert endpoint.origin.url == "http://h:9"


async def test_missing_profile_raises_config_error() -> None:
    with pytest.raises(ConfigError, match="nowhere"):
        await Session(identity(profile="nowhere")).endpoint()


@pytest.mark.parametrize(
    "setting", ["region = eu west", "endpoint_url = minio example", "endpoint_url = ftp://h"]
)
async def test_invalid_setting_in_a_profile_raises_config_error(
    isolated_environment: Path, setting: str
) -> None:
    write_config(isolated_environment, f"[profile work]\n{setting}\n")
    with pytest.raises(ConfigError):
        await Session(identity(profile="work")).endpoint()


async def test_profile_with_a_missing_source_profile_raises_config_error(
    isolated_environment: Path,
) -> None:
    write_config(
        isolated_environment,
        "[profile work]\nrole_arn = arn:aws:iam::123456789012:role/r\nsource_profile = nowhere\n",
    )
    with pytest.raises(ConfigError, match="nowhere"):
        await Session(identity(profile="work")).credentials()


async def test_missing_credentials_raise_unauthenticated() -> None:
    with pytest.raises(UnauthenticatedError, match="access_key_id"):
        await Session(identity()).credentials()


@pytest.mark.parametrize(
    ("region", "url"),
    [
        (None, "https://s3.amazonaws.com"),
        ("eu-west-1", "https://s3.eu-west-1.amazonaws.com"),
        ("cn-north-1", "https://s3.cn-north-1.amazonaws.com.cn"),
    ],
)
async def test_region_selects_the_endpoint(region: str | None, url: str) -> None:
    arguments = {} if region is None else {"region": region}
    endpoint = await Session(identity(**arguments)).endpoint()
    assert endpoint.origin.url == url
    assert endpoint.is_standard_aws
    assert endpoint.region == region or region is None


def test_endpoint_in_another_region_keeps_its_kind() -> None:
    moved_endpoints = {
        "https://s3.amazonaws.com": "https://s3.eu-west-1.amazonaws.com",
        "https://s3.us-east-1.amazonaws.com": "https://s3.eu-west-1.amazonaws.com",
        "https://s3.dualstack.us-east-1.amazonaws.com": (
            "https://s3.dualstack.eu-west-1.amazonaws.com"
        ),
        "https://s3-fips.us-east-1.amazonaws.com": "https://s3-fips.eu-west-1.amazonaws.com",
    }
    for url, moved_url in moved_endpoints.items():
        assert Endpoint.from_url(url, "us-east-1").in_region("eu-west-1").origin.url == moved_url


@pytest.mark.parametrize(
    "url",
    [
        "https://s3.evil.example",
        "https://s3.us-east-1.amazonaws.com.evil.example",
        "https://evil-s3.us-east-1.amazonaws.com.example",
        "http://127.0.0.1:9000",
    ],
)
def test_other_hosts_are_not_amazon(url: str) -> None:
    assert not Endpoint.from_url(url, "us-east-1").is_standard_aws


@pytest.mark.parametrize(
    ("one_host", "other_host", "same"),
    [
        ("s3.us-east-1.amazonaws.com", "s3.eu-west-1.amazonaws.com", True),
        ("s3.amazonaws.com", "s3.dualstack.eu-west-1.amazonaws.com", True),
        ("s3.us-east-1.amazonaws.com", "s3.cn-north-1.amazonaws.com.cn", False),
        ("s3.us-east-1.amazonaws.com", "s3.us-gov-west-1.amazonaws.com", False),
        ("s3.us-gov-east-1.amazonaws.com", "s3-fips.us-gov-west-1.amazonaws.com", True),
        (
            "s3.us-east-1.amazonaws.com",
            "bucket.vpce-1a2b3c4d-5e6f.s3.us-east-1.vpce.amazonaws.com",
            True,
        ),
        (
            "s3.us-east-1.amazonaws.com",
            "bucket.vpce-1a2b3c4d-5e6f.s3.us-gov-west-1.vpce.amazonaws.com",
            False,
        ),
        (
            "s3.cn-north-1.amazonaws.com.cn",
            "bucket.vpce-1a2b3c4d-5e6f.s3.cn-north-1.vpce.amazonaws.com.cn",
            True,
        ),
        ("s3.eu-west-1.amazonaws.com", "s3-accelerate.amazonaws.com", True),
        ("s3.eu-west-1.amazonaws.com", "s3-accelerate.dualstack.amazonaws.com", True),
        ("s3.us-west-2.amazonaws.com", "s3-us-west-2.amazonaws.com", True),
        ("s3.us-east-1.amazonaws.com", "s3.us-east-1.api.aws", True),
        ("s3.us-east-1.amazonaws.com", "a-1.s3-accesspoint.us-east-1.amazonaws.com", False),
        ("minio.example", "minio.example", True),
        ("minio.example", "other.example", False),
    ],
)
def test_bucket_namespace_is_shared_within_a_partition(
    one_host: str, other_host: str, *, same: bool
) -> None:
    namespaces = [
        Endpoint.from_url(f"https://{host}", "us-east-1").bucket_namespace
        for host in (one_host, other_host)
    ]
    assert (namespaces[0] == namespaces[1]) is same


class SdkCredentials:
    """Credentials of the SDK that expire in `seconds_left` seconds."""

    def __init__(self) -> None:
        self.seconds_left = 3600.0

    def refresh_needed(self, refresh_in: float | None = None) -> bool:
        return self.seconds_left < (900.0 if refresh_in is None else refresh_in)


@pytest.fixture
def sdk_results(
    monkeypatch: pytest.MonkeyPatch,
) -> list[tuple[Credentials, SdkCredentials] | Exception]:
    """Return the list of the next results of the SDK's provider chain, initially empty.

    Sessions check on every call whether their credentials are due for renewal.
    """
    results: list[tuple[Credentials, SdkCredentials] | Exception] = []

    async def find_credentials(_: object) -> tuple[Credentials, SdkCredentials]:
        outcome = results.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def run_inline(start: Any) -> Any:
        return await start()

    monkeypatch.setattr(credentials_module, "run_sdk", run_inline)
    monkeypatch.setattr(credentials_module, "_find_credentials", find_credentials)
    monkeypatch.setattr(credentials_module, "_CHECK_SECONDS", 0.0)
    return results


async def test_credentials_are_renewed_before_they_expire(sdk_results: list[Any]) -> None:
    first, second, sdk_credentials = Credentials("1", "s"), Credentials("2", "s"), SdkCredentials()
    sdk_results += [(first, sdk_credentials), (second, SdkCredentials())]
    session = Session(identity())
    assert await session.credentials() is first
    assert await session.credentials() is first
    sdk_credentials.seconds_left = 800.0
    assert await session.credentials() is second
    assert sdk_results == []


async def test_failed_renewal_raises_only_after_the_credentials_expire(
    sdk_results: list[Any],
) -> None:
    first, sdk_credentials = Credentials("1", "s"), SdkCredentials()
    sdk_results += [(first, sdk_credentials), UnavailableError("down"), UnavailableError("down")]
    session = Session(identity())
    await session.credentials()
    sdk_credentials.seconds_left = 800.0
    assert await session.credentials() is first
    sdk_credentials.seconds_left = -1.0
    with pytest.raises(UnavailableError):
        await session.credentials()


async def test_rejected_credentials_are_renewed_once(sdk_results: list[Any]) -> None:
    first, second = Credentials("1", "s"), Credentials("2", "s")
    sdk_results += [(first, SdkCredentials()), (second, SdkCredentials())]
    session = Session(identity())
    await session.credentials()
    assert await session.renew(first) is second
    # A concurrent request was rejected with the same old credentials.
    assert await session.renew(first) is second
    assert sdk_results == []


async def test_role_is_assumed(moto_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", moto_server.endpoint_url)
    role_arn = "arn:aws:iam::123456789012:role/reader"
    arguments = identity(
        access_key_id="a", secret_access_key="s", role_arn=role_arn, region="us-east-1"
    )
    credentials = await Session(arguments).credentials()
    assert credentials.access_key.startswith("ASIA")  # the prefix of temporary keys
    assert credentials.token


async def test_credentials_are_read_from_the_instance_metadata(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expiration = (datetime.now(UTC) + timedelta(hours=6)).strftime("%Y-%m-%dT%H:%M:%SZ")
    keys = {"AccessKeyId": "ASIA1", "SecretAccessKey": "s", "Token": "t", "Expiration": expiration}
    documents = {
        "PUT /latest/api/token": "metadata-token",
        "GET /latest/meta-data/iam/security-credentials/": "reader",
        "GET /latest/meta-data/iam/security-credentials/reader": json.dumps(
            {"Code": "Success", "Type": "AWS-HMAC", **keys}
        ),
    }

    async def respond(request: web.BaseRequest) -> web.Response:
        return web.Response(text=documents[f"{request.method} {request.path}"])

    async with RawTestServer(respond) as server:
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "false")
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", str(server.make_url("/")))
        assert await Session(identity()).credentials() == Credentials("ASIA1", "s", "t")


async def test_credentials_that_do_not_arrive_time_out(monkeypatch: pytest.MonkeyPatch) -> None:
    async def hang(_: Session) -> Credentials:
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(Session, "credentials", hang)
    driver = S3Driver(endpoint_url="http://127.0.0.1:1", region="us-east-1", dialect="s3")
    store = Trove(driver, timeout=Timeout(first_byte=0.05), retry=RetryPolicy(attempts=1))
    async with store:
        for operation in (
            store.put("bucket", "key", b"body"),
            store.read("bucket", "key"),
            store.head("bucket", "key"),
            store.delete("bucket", "key"),
        ):
            with pytest.raises(TimedOutError, match="no credentials arrived within"):
                await operation
