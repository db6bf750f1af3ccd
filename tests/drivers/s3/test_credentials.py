"""Who signs: what was given, what the SDK's chain finds, and when it is asked again."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web
from aiohttp.test_utils import RawTestServer

from trove_async.drivers.s3 import _credentials as room
from trove_async.drivers.s3._credentials import Endpoint, Identity, Session
from trove_async.drivers.s3._sigv4 import Credentials
from trove_async.errors import ConfigError, UnauthenticatedError, UnavailableError

if TYPE_CHECKING:
    from pathlib import Path

    from trove_async.testing.servers import S3Server


def identity(**told: str) -> Identity:
    nothing: dict[str, Any] = dict.fromkeys(
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
    return Identity(**{**nothing, **told})


@pytest.fixture(autouse=True)
def nothing_around(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Hide what this machine knows; return where a profile may be written."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return tmp_path / "config"


def write(path: Path, text: str) -> None:
    path.write_text(text)


async def test_given_keys_are_used_as_they_are() -> None:
    session = Session(identity(access_key_id="a", secret_access_key="s", session_token="t"))
    held = await session.credentials()
    assert held == Credentials("a", "s", "t")
    assert await session.credentials() is held
    assert await session.renewed(held) is None


async def test_keys_are_found_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
    assert await Session(identity()).credentials() == Credentials("a", "s")


async def test_profile_has_keys_region_and_endpoint(nothing_around: Path) -> None:
    write(
        nothing_around,
        "[profile work]\naws_access_key_id = a\naws_secret_access_key = s\n"
        "region = eu-west-1\nendpoint_url = http://localhost:9000\n",
    )
    session = Session(identity(profile="work"))
    assert await session.credentials() == Credentials("a", "s")
    endpoint = await session.endpoint()
    assert (endpoint.region, endpoint.origin.url) == ("eu-west-1", "http://localhost:9000")
    assert not endpoint.aws


@pytest.mark.parametrize("region", ["eu-west-3", ""])
async def test_region_is_found_in_the_environment_for_an_endpoint_too(
    monkeypatch: pytest.MonkeyPatch, region: str
) -> None:
    if region:
        monkeypatch.setenv("AWS_DEFAULT_REGION", region)
    told = identity(endpoint_url="http://h:9", access_key_id="a", secret_access_key="s")
    endpoint = await Session(told).endpoint()
    assert endpoint.region == (region or "us-east-1")
    assert endpoint.origin.url == "http://h:9"


async def test_profile_that_is_missing_is_told() -> None:
    with pytest.raises(ConfigError, match="nowhere"):
        await Session(identity(profile="nowhere")).endpoint()


async def test_no_keys_anywhere_is_told() -> None:
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
async def test_region_has_its_endpoint(region: str | None, url: str) -> None:
    told = {} if region is None else {"region": region}
    endpoint = await Session(identity(**told)).endpoint()
    assert endpoint.origin.url == url
    assert endpoint.aws
    assert endpoint.region == region or region is None


def test_other_regions_have_endpoints_of_the_same_kind() -> None:
    kinds = {
        "https://s3.amazonaws.com": "https://s3.eu-west-1.amazonaws.com",
        "https://s3.us-east-1.amazonaws.com": "https://s3.eu-west-1.amazonaws.com",
        "https://s3.dualstack.us-east-1.amazonaws.com": (
            "https://s3.dualstack.eu-west-1.amazonaws.com"
        ),
        "https://s3-fips.us-east-1.amazonaws.com": "https://s3-fips.eu-west-1.amazonaws.com",
    }
    for here, there in kinds.items():
        assert Endpoint.of(here, "us-east-1").in_region("eu-west-1").origin.url == there


@pytest.mark.parametrize(
    "url",
    [
        "https://s3.evil.example",
        "https://s3.us-east-1.amazonaws.com.evil.example",
        "https://evil-s3.us-east-1.amazonaws.com.example",
        "http://127.0.0.1:9000",
    ],
)
def test_other_hosts_are_not_amazon_s(url: str) -> None:
    assert not Endpoint.of(url, "us-east-1").aws


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("s3.us-east-1.amazonaws.com", "s3.eu-west-1.amazonaws.com", True),
        ("s3.amazonaws.com", "s3.dualstack.eu-west-1.amazonaws.com", True),
        ("s3.us-east-1.amazonaws.com", "s3.cn-north-1.amazonaws.com.cn", False),
        ("s3.us-east-1.amazonaws.com", "s3.us-gov-west-1.amazonaws.com", False),
        ("s3.us-gov-east-1.amazonaws.com", "s3-fips.us-gov-west-1.amazonaws.com", True),
        ("minio.example", "minio.example", True),
        ("minio.example", "other.example", False),
    ],
)
def test_bucket_names_are_of_one_space_within_a_partition(
    one: str, other: str, *, same: bool
) -> None:
    places = [Endpoint.of(f"https://{host}", "us-east-1").names_in for host in (one, other)]
    assert (places[0] == places[1]) is same


class Source:
    """Credentials of the SDK's: due to be renewed, or ended."""

    def __init__(self) -> None:
        self.left = 3600.0

    def refresh_needed(self, refresh_in: float | None = None) -> bool:
        return self.left < (900.0 if refresh_in is None else refresh_in)


@pytest.fixture
def sdk(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Credentials, Source] | Exception]:
    """Script what the SDK finds, and look at the credentials each time."""
    script: list[tuple[Credentials, Source] | Exception] = []

    async def found(_: object) -> tuple[Credentials, Source]:
        answer = script.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def here(work: Any) -> Any:
        return await work()

    monkeypatch.setattr(room, "on_sdk", here)
    monkeypatch.setattr(room, "_found", found)
    monkeypatch.setattr(room, "_LOOK_SECONDS", 0.0)
    return script


async def test_credentials_are_renewed_before_their_end(sdk: list[Any]) -> None:
    one, two, source = Credentials("1", "s"), Credentials("2", "s"), Source()
    sdk += [(one, source), (two, Source())]
    session = Session(identity())
    assert await session.credentials() is one
    assert await session.credentials() is one
    source.left = 800.0
    assert await session.credentials() is two
    assert sdk == []


async def test_renewal_that_fails_is_tried_again_while_there_is_time(sdk: list[Any]) -> None:
    one, source = Credentials("1", "s"), Source()
    sdk += [(one, source), UnavailableError("down"), UnavailableError("down")]
    session = Session(identity())
    await session.credentials()
    source.left = 800.0
    assert await session.credentials() is one
    source.left = -1.0
    with pytest.raises(UnavailableError):
        await session.credentials()


async def test_credentials_that_the_service_refuses_are_renewed_once(sdk: list[Any]) -> None:
    one, two = Credentials("1", "s"), Credentials("2", "s")
    sdk += [(one, Source()), (two, Source())]
    session = Session(identity())
    await session.credentials()
    assert await session.renewed(one) is two
    assert await session.renewed(one) is two  # another request of the same moment
    assert sdk == []


async def test_role_is_taken_on(moto_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", moto_server.endpoint_url)
    role = "arn:aws:iam::123456789012:role/reader"
    told = identity(access_key_id="a", secret_access_key="s", role_arn=role, region="us-east-1")
    held = await Session(told).credentials()
    assert (held.access_key[:4], bool(held.token)) == ("ASIA", True)  # temporary ones' beginning


async def test_instance_has_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    end = (datetime.now(UTC) + timedelta(hours=6)).strftime("%Y-%m-%dT%H:%M:%SZ")
    role = {"AccessKeyId": "ASIA1", "SecretAccessKey": "s", "Token": "t", "Expiration": end}
    answers = {
        "PUT /latest/api/token": "of-the-session",
        "GET /latest/meta-data/iam/security-credentials/": "reader",
        "GET /latest/meta-data/iam/security-credentials/reader": json.dumps(
            {"Code": "Success", "Type": "AWS-HMAC", **role}
        ),
    }

    async def answer(request: web.BaseRequest) -> web.Response:
        return web.Response(text=answers[f"{request.method} {request.path}"])

    async with RawTestServer(answer) as metadata:
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "false")
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", str(metadata.make_url("/")))
        assert await Session(identity()).credentials() == Credentials("ASIA1", "s", "t")
