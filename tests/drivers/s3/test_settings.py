"""The constructor's arguments, the recognition of the service, opening and closing."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from tests.drivers.s3.scripted_transport import EMPTY_PAGE, ScriptedTransport, now, response
from trove_async import Trove
from trove_async._concurrency import OwnedTask
from trove_async.driver import DriverInUseError
from trove_async.drivers.s3 import S3Driver
from trove_async.drivers.s3 import _components as components_module
from trove_async.drivers.s3._credentials import Endpoint, Session
from trove_async.errors import ClosedError, ConfigError
from trove_async.models import ObjectInfo
from trove_async.options import CopyOptions, ListOptions, PutOptions
from trove_async.testing import opened

if TYPE_CHECKING:
    from trove_async._http import Response


@pytest.mark.parametrize(
    "settings",
    [
        {"access_key_id": "a"},
        {"secret_access_key": "a"},
        {"session_token": "a"},
        {"endpoint_url": "minio.example"},
        {"endpoint_url": "ftp://minio.example"},
        {"endpoint_url": "https://minio.example/path"},
        {"endpoint_url": "https://key:secret@minio.example"},
        {"addressing_style": "diagonal"},
        {"data_plane": "astral"},
        {"dialect": "klingon"},
        {"payload_signing": False, "checksums": False},
        {"payload_signing": True, "data_plane": "sdk"},
        {"access_key_id": "a\n", "secret_access_key": "a"},
        {"access_key_id": "a", "secret_access_key": "a", "session_token": "t\r\nx-a: 1"},
        {"access_key_id": "", "secret_access_key": "a"},
        {"access_key_id": "a", "secret_access_key": "a", "session_token": ""},
        {"region": "eu west"},
        {"region": "https://eu-west-1"},
        {"expected_bucket_owner": "1\r\nx-a: 1"},
        {"max_connections": 0},
        {"parallel_parts": 0},
    ],
)
def test_invalid_settings_raise_config_error(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        S3Driver(**settings)


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("region", 1, "region must be a str, got int"),
        ("endpoint_url", 1, "an endpoint must be a str, got int"),
        ("profile", 1, "profile must be a str, got int"),
        ("role_arn", 1, "role_arn must be a str, got int"),
        ("expected_bucket_owner", 123456789012, "expected_bucket_owner must be a str, got int"),
        ("secret_access_key", b"s", "secret_access_key must be a str, got bytes"),
        ("max_connections", "8", "max_connections must be an int, got str"),
        ("parallel_parts", 1.5, "parallel_parts must be an int, got float"),
        ("checksums", "no", "checksums must be a bool, got str"),
        ("payload_signing", "no", "payload_signing must be a bool, got str"),
        ("trust_env", "no", "trust_env must be a bool, got str"),
        ("requester_pays", "no", "requester_pays must be a bool, got str"),
        ("bucket_key_enabled", "no", "bucket_key_enabled must be a bool, got str"),
        ("tls", True, "tls must be an ssl.SSLContext, got bool"),
    ],
)
def test_settings_of_the_wrong_type_raise_type_error(
    setting: str, value: Any, message: str
) -> None:
    with pytest.raises(TypeError, match=message):
        S3Driver(**{setting: value})


@pytest.mark.parametrize("server", ["MinIO", "SeaweedFS 8000GB 4.48"])
async def test_server_header_selects_capabilities(scripted_driver: Any, server: str) -> None:
    _, opened_driver = scripted_driver(response(403, server=server), endpoint_url="http://h:9")
    async with opened_driver as driver:
        assert driver.capabilities.ordered == (server == "MinIO")
        assert driver.capabilities.delete_if_match == (server != "MinIO")
        assert driver.capabilities.private_namespace


@pytest.mark.parametrize(
    "endpoint_url", [None, "https://bucket.vpce-1a2b-3c4d.s3.us-east-1.vpce.amazonaws.com"]
)
async def test_namespace_of_amazon_is_not_private_at_any_endpoint(
    scripted_driver: Any, endpoint_url: str | None
) -> None:
    _, opened_driver = scripted_driver(endpoint_url=endpoint_url, dialect="s3")
    async with opened_driver as driver:
        assert not driver.capabilities.private_namespace


async def test_open_driver_cannot_be_opened_again(scripted_driver: Any) -> None:
    _, opened_driver = scripted_driver(response(200, EMPTY_PAGE))
    async with opened_driver as driver:
        with pytest.raises(DriverInUseError, match="create one for each store"):
            async with opened(driver):
                pass
        assert not (await driver.list_page("bucket", ListOptions())).entries


AMAZON_ENDPOINT = Endpoint.from_url("https://s3.us-east-1.amazonaws.com", "us-east-1")


async def test_driver_that_is_being_opened_cannot_be_opened_in_another_store(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    is_opening, may_continue = asyncio.Event(), asyncio.Event()

    async def wait_for_endpoint(_: Session) -> Endpoint:
        is_opening.set()
        await may_continue.wait()
        return AMAZON_ENDPOINT

    monkeypatch.setattr(Session, "endpoint", wait_for_endpoint)
    driver = S3Driver(access_key_id="a", secret_access_key="s")
    first_store = Trove(driver)
    opening = OwnedTask(first_store.__aenter__())
    await is_opening.wait()
    with pytest.raises(DriverInUseError, match="create one for each store"):
        async with Trove(driver):
            pass
    may_continue.set()
    await opening.result()
    assert await driver.presign("GET", "data", "key", 60)  # the failed store did not close it
    await first_store.aclose()


async def test_driver_that_failed_to_open_can_be_opened_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    outcomes: list[Endpoint | ConfigError] = [ConfigError("no such profile"), AMAZON_ENDPOINT]

    async def next_outcome(_: Session) -> Endpoint:
        outcome = outcomes.pop(0)
        if isinstance(outcome, ConfigError):
            raise outcome
        return outcome

    monkeypatch.setattr(Session, "endpoint", next_outcome)
    driver = S3Driver(access_key_id="a", secret_access_key="s")
    with pytest.raises(ConfigError, match="no such profile"):
        async with Trove(driver):
            pass
    async with Trove(driver):
        assert await driver.presign("GET", "data", "key", 60)


class HangingTransport(ScriptedTransport):
    """A transport that never receives a response."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = asyncio.Event()
        self.is_closed = False

    async def send(self, *_: Any, **__: Any) -> Response:
        self.sent.set()
        await asyncio.Event().wait()
        raise AssertionError

    async def aclose(self) -> None:
        self.is_closed = True


async def test_driver_whose_opening_was_cancelled_can_be_opened_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hanging = HangingTransport()
    transports: list[ScriptedTransport] = [hanging, ScriptedTransport(response(403))]
    monkeypatch.setattr(components_module, "transport_over", lambda *_, **__: transports.pop(0))
    driver = S3Driver(
        region="us-east-1",
        endpoint_url="http://h:9",
        access_key_id="a",
        secret_access_key="s",
    )
    opening = OwnedTask(Trove(driver).__aenter__())
    await hanging.sent.wait()
    await opening.aclose()
    assert hanging.is_closed
    async with Trove(driver):
        assert await driver.presign("GET", "data", "key", 60)


async def test_closed_driver_raises_closed_error(scripted_driver: Any) -> None:
    _, opened_driver = scripted_driver()
    async with opened_driver as driver:
        pass
    source = ObjectInfo(bucket="data", key="from", size=1, etag="e", last_modified=now())
    with pytest.raises(ClosedError, match="the driver is not open"):
        await driver.put("data", "key", [], PutOptions(tags={"a": "b"}))
    with pytest.raises(ClosedError, match="the driver is not open"):
        await driver.copy(
            "data", "from", "data", "to", CopyOptions(source=source, put=PutOptions())
        )
    with pytest.raises(ClosedError, match="the driver is not open"):
        await driver.list_page("data", ListOptions())
